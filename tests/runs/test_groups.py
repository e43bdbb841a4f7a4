"""Jobs and fits on rows with groups: what is learned from, judged on and sure."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score

import layerfusion as lf
from layerfusion.cli import main
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.identity import job_id
from layerfusion.config.job import TrainerConfig
from layerfusion.errors import UserError
from layerfusion.findings.jobs import read_predictions
from layerfusion.fusion.held_out_heads import HeldOutHeads
from layerfusion.layers.candidates import Candidates, all_layers
from layerfusion.layers.held_out import SCORES_FOLDER, _key, cache_files
from layerfusion.records.job import RunRecord, read_record
from layerfusion.runs import baseline
from layerfusion.runs.by_folds import judge_on_folds
from layerfusion.runs.job_sources import open_sources
from layerfusion.runs.job_texts import dataset_of
from layerfusion.runs.select_layers import candidates_of
from layerfusion.statistics.intervals import bootstrap_interval
from layerfusion.texts.groups import units_of
from tests.tiny import tiny_folder, tiny_job

AUTHORS, EACH = 40, 5


def posts(authors: int, seed: int = 0) -> pd.DataFrame:
    """Each author writes mostly of one class, and in words of their own; others tell nothing."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "text": " ".join((f"w{seed}x{author}", *rng.choice(["a", "of", "film", "plot"], 4))),
            "label": "np"[(author + int(rng.random() < 0.1)) % 2],
            "author": f"author {seed} {author}",
        }
        for author in range(authors)
        for _ in range(EACH)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=seed)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("groups")
    tiny_folder("bert", folder / "tiny")
    posts(AUTHORS).to_csv(folder / "posts.csv", index=False)
    return folder


def classifier(place: Path, **params: Any) -> lf.LayerFusionClassifier:
    usual = {"lexical": "words", "seeds": 1, "cache": str(place / "cache")}
    return lf.LayerFusionClassifier(str(place / "tiny"), **{**usual, **params})


def held_out(fitted: lf.LayerFusionClassifier) -> float:
    table = fitted.leaderboard()
    return float(table[table.layers.str.startswith("words")].accuracy.iloc[0])


def test_held_out_figures_are_those_of_new_authors(place: Path) -> None:
    rows, new = posts(AUTHORS), posts(30, seed=1)
    divided = classifier(place, fusion="stacked", layers="last").fit(rows.text, rows.label)
    assert held_out(divided) > 0.8
    whole = classifier(place, fusion="stacked", layers="last")
    whole.fit(rows.text, rows.label, groups=rows.author)
    truth = divided.score(new.text, new.label)
    assert abs(truth - 0.5) < 0.1
    assert abs(held_out(whole) - truth) < 0.15
    assert held_out(divided) - truth > 0.25


@pytest.mark.parametrize("fusion", ["auto", "gated", "late_stack"])
def test_every_fusion_takes_groups(place: Path, fusion: str) -> None:
    rows = posts(AUTHORS)
    params = {"fusion": fusion, "settings": {"trainer": {"max_epochs": 3}}}
    one = classifier(place, **params).fit(rows.text, rows.label, groups=rows.author)
    mixed = rows.sample(frac=1, random_state=5)
    other = classifier(place, **params).fit(mixed.text, mixed.label, groups=mixed.author)
    assert np.array_equal(one.predict_proba(rows.text), other.predict_proba(rows.text))
    assert (one.leaderboard().accuracy.dropna() < 0.8).all()


@pytest.mark.parametrize("fusion", ["stacked", "gated"])
def test_weights_go_with_groups(place: Path, fusion: str) -> None:
    """A group counts as many rows as its weights say also where validation is made of groups."""
    rows = posts(30)
    weights = np.random.default_rng(0).integers(0, 5, len(rows))
    written = rows.loc[rows.index.repeat(weights.tolist())]
    params = {"fusion": fusion, "layers": "last", "settings": {"trainer": {"max_epochs": 3}}}
    one = classifier(place, **params).fit(rows.text, rows.label, weights, rows.author)
    two = classifier(place, **params).fit(written.text, written.label, groups=written.author)
    assert np.array_equal(one.predict_proba(rows.text), two.predict_proba(rows.text))


def test_scikit_learn_passes_groups_on(place: Path) -> None:
    rows = posts(AUTHORS)
    with sklearn.config_context(enable_metadata_routing=True):
        one = classifier(place, fusion="stacked", layers="last").set_fit_request(groups=True)
        found = cross_val_score(
            one,
            rows.text.tolist(),
            rows.label.tolist(),
            cv=StratifiedGroupKFold(2),
            params={"groups": rows.author.to_numpy()},
        )
    assert len(found) == 2
    assert abs(found.mean() - 0.5) < 0.15  # NaN where a fit had failed


def test_an_author_for_each_class_is_refused_in_a_line(place: Path) -> None:
    rows = posts(12)
    with pytest.raises(UserError, match=r"^fit: fewer than two groups of train can be held"):
        classifier(place).fit(rows.text, rows.label, groups=rows.label)
    with pytest.raises(UserError, match=r"fit: 60 texts and 3 groups"):
        classifier(place).fit(rows.text, rows.label, groups=["a", "b", "c"])


def test_models_are_ranked_by_new_authors(place: Path) -> None:
    rows, tiny = posts(AUTHORS), str(place / "tiny")
    divided = lf.rank(tiny, rows.text, rows.label, cache=place / "cache")
    whole = lf.rank(tiny, rows.text, rows.label, groups=rows.author, cache=place / "cache")
    assert whole.log_loss[0] > divided.log_loss[0]
    assert whole.log_loss_error[0] > divided.log_loss_error[0]


def test_the_baseline_is_chosen_on_groups_that_are_few_and_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sample of whole groups would be a single one, which cannot be learned from and judged on.

    Groups that the baseline had learned from would show a word for each.
    """
    rows = posts(8)
    rows = rows.loc[rows.index.repeat(20)].reset_index(drop=True)
    texts = [f"{text} row{n}" for n, text in enumerate(rows.text)]
    units = units_of(texts, rows.author.tolist())
    labels = (rows.label == "p").to_numpy().astype(np.int64)
    monkeypatch.setattr(baseline, "CHOICE_WORK", sum(map(len, texts)) / 10)
    found = baseline._choose(texts, units, labels, 2, seed=0)
    assert len(set(found.cross_validation.values())) > 1
    assert max(found.cross_validation.values()) < 0.8


# -- jobs -----------------------------------------------------------------------------------------


def words_of(place: Path, *more: str) -> list[str]:
    words = tiny_job(place / "posts.csv", place / "tiny", place / "cache")
    return [*words, "lexical=[words]", "layers=adaptive", "seeds=1", "logger=none", *more]


@pytest.fixture(scope="module")
def job(place: Path) -> RunRecord:
    folder = place / "job"
    words = words_of(place, "dataset.group=author", f"hydra.run.dir={folder}")
    assert main(["train", *words, "fusion=stacked", "by_folds=true"]) == 0
    return read_record(folder)


def test_a_job_is_judged_by_whole_groups(place: Path, job: RunRecord) -> None:
    read = read_predictions(place / "job", job)
    assert read.text_of is not None
    rows = job.dataset.rows["test"]
    assert len(set(read.text_of.tolist())) == rows // EACH
    assert job.dataset.worth_of("test") == pytest.approx(rows / EACH)
    own = job.test["accuracy"]
    right = (read.preds == read.target[None]).mean(axis=0)
    seed = 0
    assert (own.low, own.high) == pytest.approx(
        bootstrap_interval(right, read.target, seed, text_of=read.text_of)
    )
    low, high = bootstrap_interval(right, read.target, seed, text_of=None)
    assert own.low is not None
    assert own.high is not None
    assert own.high - own.low > 1.2 * (high - low)
    assert job.baseline.high - job.baseline.low > 1.2 * (high - low)
    assert any(note.startswith("groups: ") for note in job.dataset.notes)


def test_the_folds_of_a_job_are_groups_too(place: Path, job: RunRecord) -> None:
    assert job.on_folds is not None
    assert abs(job.on_folds.figures["accuracy"].mean - 0.5) < 0.25
    assert job.on_folds.worth == pytest.approx(job.on_folds.rows / EACH)
    words = words_of(place, "fusion=stacked")
    divided = load(compose("train", words))
    found = judge_on_folds(divided, dataset_of(divided))
    assert found is not None
    assert found.figures["accuracy"].mean > 0.8


def test_groups_name_another_job_and_no_groups_the_same_as_ever(place: Path) -> None:
    names = {
        job_id(load(compose("train", words_of(place, *more))))
        for more in ((), ("dataset.group=author",), ("dataset.group=null",))
    }
    assert len(names) == 2


def test_python_keeps_the_groups_of_a_data_set(place: Path, tmp_path: Path, job: RunRecord) -> None:
    data = lf.load_dataset(posts(AUTHORS), group="author", name="posts")
    settings = {"cache": place / "cache", "logger": "none", "seeds": 1, "lexical": "words"}
    found = lf.train(
        data, str(place / "tiny"), layers="adaptive", fusion="stacked", folder=tmp_path, **settings
    )
    assert found.record.dataset.fingerprint == data.fingerprint == job.dataset.fingerprint
    assert found.accuracy == job.test["accuracy"].mean


def test_a_group_in_validation_does_not_stop_heads_on_its_fold() -> None:
    """Its label would be known from the rows that choose the epoch."""
    labels, folds = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    groups = ("x", "y", "z", "w")
    candidates = Candidates((), (), labels, folds, ("a", "b", "c", "d"), 2, {}, groups)
    heads = HeldOutHeads(
        candidates,
        {},
        ["e", "f", "a"],
        labels[:3],
        TrainerConfig(),
        0,
        validation_groups=["x", "z", "v"],
    )
    assert [heads._unseen(fold).tolist() for fold in (0, 1)] == [[1, 2], [0, 2]]


def test_probes_of_the_same_rows_without_groups_are_not_read(place: Path, job: RunRecord) -> None:
    config = load(compose("train", words_of(place, "dataset.group=author")))
    dataset = dataset_of(config)
    sources = open_sources(config, dataset)
    candidates = candidates_of(config, dataset, sources, all_layers(sources))
    own, alone = (
        set(cache_files(one, partial(_key, config=config.layers)))
        for one in (candidates, replace(candidates, groups=None))
    )
    kept = {path for path in (place / "cache" / SCORES_FOLDER).iterdir()}
    assert own <= kept
    assert not alone & kept
