"""A job whose test rows repeat texts: its intervals, its predictions and what is read of them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from layerfusion.assets.memo import sha256
from layerfusion.cli import main
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.job import TrainConfig
from layerfusion.findings import compare
from layerfusion.findings.groups import one_group
from layerfusion.findings.jobs import TEXT, read_job, read_predictions
from layerfusion.findings.set_mistakes import answers_of_job
from layerfusion.records.job import PREDICTIONS, RunRecord, read_record, write_record
from layerfusion.records.profile import read_profile
from layerfusion.runs import by_folds
from layerfusion.runs.bundle_loading import load_bundle
from layerfusion.runs.by_folds import judge_on_folds, wants_folds
from layerfusion.runs.job import run_job
from layerfusion.runs.job_texts import dataset_of
from layerfusion.statistics.intervals import unseen_share
from layerfusion.statistics.significance import mcnemar
from tests.tiny import GOOD, tiny_job

TIMES = 8


@pytest.fixture(scope="module")
def place(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Jobs `once` and `repeated`: each text of test has one row, or eight of them."""
    folder = tmp_path_factory.mktemp("repeated")
    rng = np.random.default_rng(0)
    made = [
        (f"the {' '.join(rng.choice((*GOOD, 'bad', 'awful'), 4))} {n}", "np"[n % 2])
        for n in range(100)
    ]
    rows = pd.DataFrame(made, columns=["text", "label"])
    rows[:60].to_csv(folder / "train.csv", index=False)
    rows[60:].to_csv(folder / "once.csv", index=False)
    pd.concat([rows[60:]] * TIMES).to_csv(folder / "repeated.csv", index=False)
    for name in ("once", "repeated"):
        run_job(config_of(folder, bert_folder, name), folder / name)
    return folder


def words_of(folder: Path, model: Path, name: str) -> list[str]:
    words = [word for word in tiny_job(folder, model, folder / "cache") if "dataset." not in word]
    data = [f"dataset.train={folder}/train.csv", f"dataset.test={folder}/{name}.csv"]
    return [*words, *data, "logger=none"]


def config_of(folder: Path, model: Path, name: str, *more: str) -> TrainConfig:
    words = words_of(folder, model, name)
    return load(compose("train", [*words, "layers=last", "seeds=2", *more]))


def both(place: Path) -> tuple[RunRecord, RunRecord]:
    return read_record(place / "once"), read_record(place / "repeated")


def test_repeats_make_no_figure_of_test_surer(place: Path) -> None:
    once, repeated = both(place)
    assert repeated.dataset.rows["test"] == TIMES * once.dataset.rows["test"]
    assert once.dataset.worth == {name: float(rows) for name, rows in once.dataset.rows.items()}
    assert repeated.dataset.worth_of("test") == once.dataset.rows["test"]
    for name, figure in once.test.items():
        found = asdict(repeated.test[name])
        assert found == pytest.approx(asdict(figure), abs=1e-6), name
    assert once.test["accuracy"].low is not None
    assert (repeated.baseline.low, repeated.baseline.high) == pytest.approx(
        (once.baseline.low, once.baseline.high)
    )


def test_predictions_say_which_rows_have_the_same_text(place: Path) -> None:
    for name, times in (("once", 1), ("repeated", TIMES)):
        read = read_predictions(place / name, read_record(place / name))
        assert read.text_of is not None
        assert read.text_of.tolist() == list(range(40)) * times
        kept = pq.read_table(place / name / PREDICTIONS).to_pandas()
        assert (kept[TEXT] == kept["row"] % 40).all()


def test_a_report_compares_texts(place: Path) -> None:
    (job,) = one_group(place / "repeated").jobs
    (alone,) = one_group(place / "once").jobs
    found, expected = compare.tested_over_baseline(job), compare.tested_over_baseline(alone)
    assert found.p == pytest.approx(expected.p)
    assert (found.only_a, found.only_b) == (TIMES * expected.only_a, TIMES * expected.only_b)
    assert asdict(compare.over_baseline(job)) == pytest.approx(
        {**asdict(compare.over_baseline(alone)), "rows": 320}
    )
    assert job.baseline is not None
    by_rows = mcnemar(job.consensus, job.baseline, text_of=None)
    assert by_rows.p < mcnemar(job.consensus, job.baseline, text_of=job.text_of).p


def test_intervals_of_answers_are_over_texts(place: Path) -> None:
    names = ["n", "p"]
    once, repeated = (
        answers_of_job(names, read_predictions(place / name, read_record(place / name)))
        for name in ("once", "repeated")
    )
    assert repeated.recall(0) == pytest.approx(once.recall(0))
    for one, other in zip(repeated.ranges(), once.ranges(), strict=True):
        assert one.size == TIMES * other.size
        assert one.interval == pytest.approx(other.interval)


def test_older_predictions_are_read_as_before(place: Path, tmp_path: Path) -> None:
    record = read_record(place / "repeated")
    table = pq.read_table(place / "repeated" / PREDICTIONS)
    pq.write_table(table.drop_columns(TEXT), tmp_path / PREDICTIONS)
    files = {PREDICTIONS: sha256((tmp_path / PREDICTIONS).read_bytes())}
    write_record(type(record)(**{**vars(record), "files": files}), tmp_path)
    old = read_job(tmp_path, read_record(tmp_path))
    new = read_job(place / "repeated", record)
    assert old.text_of is None
    assert np.array_equal(old.correct, new.correct)
    assert np.array_equal(old.preds, new.preds)
    assert compare.tested_over_baseline(old).p < compare.tested_over_baseline(new).p


def test_a_repeated_text_counts_once_in_what_is_familiar(place: Path) -> None:
    once, repeated = (load_bundle(place / name, device="cpu") for name in ("once", "repeated"))
    assert repeated.familiar.facts() == once.familiar.facts()
    assert repeated.familiar.texts == 40
    texts = pd.read_csv(place / "once.csv")["text"].tolist()
    new = [texts[0]] * 500 + texts[1:]
    found = once.drift(new)
    assert set(found["verdict"]) == {"alike"}
    pd.testing.assert_frame_equal(once.drift(texts), found)


def test_folds_of_train_are_judged_by_their_texts(
    place: Path, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pd.read_csv(place / "train.csv")
    pd.concat([rows] * 6).to_csv(place / "six.csv", index=False)
    six = f"dataset.train={place}/six.csv"
    config = config_of(place, bert_folder, "once", six, "dataset.validation_size=0.3")
    data = dataset_of(config)
    assert len(data.splits["validation"]) >= 60
    monkeypatch.setattr(by_folds, "FEW_ROWS", 50)
    assert wants_folds(config, data, in_sweep=True)  # by its texts, which have six rows each
    monkeypatch.setattr(by_folds, "FEW_ROWS", 5)
    assert not wants_folds(config, data, in_sweep=True)
    found = judge_on_folds(config, data)
    assert found is not None
    assert found.rows == len(data.splits["train"])
    assert found.worth == found.rows / 6
    accuracy = found.figures["accuracy"]
    assert accuracy.low is not None
    assert accuracy.low <= max(0.0, accuracy.mean - unseen_share(found.rows / 6)) + 1e-9


@pytest.mark.parametrize(
    ("command", "more", "says"),
    [
        (
            "profile",
            ["profile.judge=true"],
            "profile.judge=true: test has fewer than the two texts",
        ),
        (
            "train",
            ["protocol=as_published", "fusion=published_concat"],
            "40 test rows with the same text cannot be halved",
        ),
    ],
)
def test_a_test_of_one_text_cannot_be_halved(
    command: str,
    more: list[str],
    says: str,
    place: Path,
    bert_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = pd.read_csv(place / "once.csv")
    pd.concat([rows[:1]] * 40).to_csv(tmp_path / "one.csv", index=False)
    words = [
        word
        for word in words_of(place, bert_folder, "once")
        if word.split("=")[0] not in ("dataset.test", "fusion", "layers", "trainer.max_epochs")
    ]
    words += [f"dataset.test={tmp_path}/one.csv", f"hydra.run.dir={tmp_path / 'job'}", *more]
    assert main([command, *words]) == 2
    assert says in capsys.readouterr().err


def test_a_profile_is_judged_on_texts(place: Path, bert_folder: Path, tmp_path: Path) -> None:
    """The halves of test, of which one chooses the best layer and the other judges it, too."""
    for name in ("once", "repeated"):
        words = [*words_of(place, bert_folder, name), "profile.scores=[fisher]", "layers.folds=2"]
        words.append("profile.judge=true")
        assert main(["profile", *words, f"hydra.run.dir={tmp_path / name}"]) == 0
    once, repeated = (read_profile(tmp_path / name) for name in ("once", "repeated"))
    assert once.selections
    for one, other in zip(repeated.selections, once.selections, strict=True):
        assert one.test is not None
        assert one.regret is not None
        assert other.regret is not None
        assert asdict(one.test) == pytest.approx(asdict(other.test or one.test))
        assert asdict(one.regret) == pytest.approx(asdict(other.regret))
        assert one.over_last == pytest.approx(other.over_last)
