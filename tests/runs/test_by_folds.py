"""Jobs that are judged on folds of train: when, by what, and that nothing of a fold leaks in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.job import TrainConfig
from layerfusion.records.job import METRICS, read_record, write_record
from layerfusion.runs import by_folds
from layerfusion.runs.by_folds import judge_on_folds, wants_folds
from layerfusion.runs.inputs import prepare_texts
from layerfusion.runs.job_texts import dataset_of
from layerfusion.texts import TextDataset
from tests.tiny import run, tiny_job, tiny_texts


@pytest.fixture(scope="module")
def job(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    place = tmp_path_factory.mktemp("folds")
    texts = tiny_texts(place / "texts.csv", 90)
    return [*tiny_job(texts, bert_folder, place / "cache"), "logger=none", "seeds=2"]


def config_of(job: list[str], *more: str) -> TrainConfig:
    return load(compose("train", [*job, *more]))


def test_only_jobs_of_a_sweep_with_few_rows_of_validation_are_judged(job: list[str]) -> None:
    config = config_of(job)
    data = dataset_of(config)
    assert wants_folds(config, data, in_sweep=True)
    assert not wants_folds(config, data, in_sweep=False)
    assert wants_folds(replace(config, by_folds=True), data, in_sweep=False)
    assert not wants_folds(replace(config, by_folds=False), data, in_sweep=True)
    for other in (config_of(job, "time_limit=60"), config_of(job, "layers.pilot=20")):
        assert not wants_folds(other, data, in_sweep=True)
    many = data.splits["train"].take(np.resize([True], len(data.splits["train"])))
    rows = replace(many, texts=many.texts * 4, labels=np.tile(many.labels, 4))
    large = replace(data, splits={**data.splits, "validation": rows})
    assert not wants_folds(config, large, in_sweep=True)


@pytest.mark.parametrize(
    "words",
    [
        ["layers=last"],
        ["layers=adaptive"],
        ["fusion=stacked", "layers=all"],
        ["fusion=auto", "lexical=[words]"],
    ],
)
def test_every_choice_is_made_anew_without_the_fold(
    job: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(job, *words)
    data = dataset_of(config)
    seen: list[TextDataset] = []

    def prepared(config: TrainConfig, dataset: TextDataset) -> object:
        seen.append(dataset)
        return prepare_texts(config, dataset)

    monkeypatch.setattr(by_folds, "prepare_texts", prepared)
    found = judge_on_folds(config, data)
    train = data.splits["train"].texts
    assert found is not None
    assert (found.folds, found.rows) == (5, len(train))
    f1 = found.figures["macro_f1"]
    assert 0 <= f1.mean <= 1
    assert f1.mean == 1 or (f1.low or 0) < f1.mean  # no interval where every row is right
    held_out = [text for one in seen for text in one.splits["test"].texts]
    assert sorted(held_out) == sorted(train)
    for one in seen:
        own, out = set(one.splits["train"].texts), set(one.splits["test"].texts)
        assert own | out == set(train)
        assert not own & out
        assert not out & set(data.splits["test"].texts)
    assert 0.5 < found.figures["accuracy"].mean <= 1
    assert found.figures["log_loss"].mean > 0


def test_auto_is_judged_as_any_job_is_by_the_classifier_that_it_gives(job: list[str]) -> None:
    """One that balances classes names them more often on the folds too, as its classifier does."""
    auto = config_of(job, "fusion=auto", "layers=last", "lexical=[]")
    stacked = config_of(job, "fusion=stacked", "layers=last", "lexical=[]")
    data = dataset_of(auto)
    # A single source leaves auto nothing to choose, so that it is the stack.
    assert judge_on_folds(auto, data) == judge_on_folds(stacked, data)
    rare = _with_a_rare_class(data)
    balanced = [replace(one, class_weights="balanced") for one in (auto, stacked)]
    weighted = [judge_on_folds(one, rare) for one in balanced]
    assert weighted[0] == weighted[1]
    assert weighted[0] != judge_on_folds(auto, rare)


def _with_a_rare_class(data: TextDataset) -> TextDataset:
    train = data.splits["train"]
    kept = (train.labels == 0) | (np.arange(len(train.labels)) % 3 == 0)
    return replace(data, splits={**data.splits, "train": train.take(kept)})


def test_a_sweep_records_the_folds_and_a_finished_job_gets_them_when_asked(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = [*job, "layers=last", f"hydra.run.dir={tmp_path / 'alone'}"]
    assert run(["train", *alone], capsys)[0] == 0
    before = read_record(tmp_path / "alone")
    assert before.on_folds is None
    assert run(["train", *alone, "by_folds=true"], capsys)[0] == 0
    after = read_record(tmp_path / "alone")
    assert after.on_folds is not None
    assert replace(after, on_folds=None) == before
    plain = {name: after.on_folds.figures[name] for name in ("accuracy", "log_loss")}
    older = replace(after, on_folds=replace(after.on_folds, figures=plain))
    write_record(older, tmp_path / "alone")
    assert run(["train", *alone], capsys)[0] == 0
    assert read_record(tmp_path / "alone") == older
    assert run(["train", *alone, "by_folds=true"], capsys)[0] == 0
    assert read_record(tmp_path / "alone") == after  # folds of older records have no F1
    sweep = [*job, "layers=last,all", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    assert run(["train", "-m", *sweep], capsys)[0] == 0
    records = [read_record(file.parent) for file in (tmp_path / "sweep").rglob(METRICS)]
    assert len(records) == 2
    assert all(record.on_folds is not None for record in records)
    assert [after.on_folds] == [x.on_folds for x in records if x.selection == "last"]


@pytest.mark.parametrize("words", [["time_limit=60"], ["layers.pilot=20"]])
def test_what_cannot_be_judged_is_one_line(
    job: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(["train", *job, *words, "by_folds=true"], capsys)
    assert code == 2
    assert "by_folds=true: a job with" in said
    assert said.count("\n") == 0
