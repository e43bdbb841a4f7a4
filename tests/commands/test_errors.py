"""`layerfusion errors`: its figures against scikit-learn's, and what it says of a real job."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from layerfusion.assets.paths import find_path, folders_looked_in, looking_also_in
from layerfusion.assets.source import SourceUnavailable
from layerfusion.cli import main
from layerfusion.findings import mistakes
from layerfusion.findings.mistakes import Answers
from layerfusion.records.job import read_record, write_record
from layerfusion.runs import job_texts
from tests.tiny import run, tiny_folder, tiny_texts

FLIPPED = (3, 20, 41, 58, 77)
"""Rows of the job's file with the other label."""


def _made(rows: int, classes: int, clear: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are often, not always, right, and labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(classes, size=rows)
    logits = generator.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += clear
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def _answers(probabilities: np.ndarray, labels: np.ndarray) -> Answers:
    names = [str(n) for n in range(probabilities.shape[1])]
    return Answers(
        names, labels, probabilities.argmax(axis=1), probabilities.max(axis=1), text_of=None
    )


@pytest.mark.parametrize("classes", [2, 5])
def test_figures_of_classes_are_those_of_scikit_learn(classes: int) -> None:
    probabilities, labels = _made(300, classes)
    answers = _answers(probabilities, labels)
    preds = answers.answer
    assert (answers.confusion == metrics.confusion_matrix(labels, preds)).all()
    expected = np.array(metrics.precision_recall_fscore_support(labels, preds)).T
    found = answers.classes()
    got = [(one.precision, one.recall, one.f1, one.rows) for one in found]
    np.testing.assert_allclose(got, expected)


def test_a_class_without_a_row_or_an_answer_has_no_figure() -> None:
    answers = Answers(["a", "b", "c"], np.array([0, 0]), np.array([0, 1]), np.ones(2), text_of=None)
    never, none = answers.classes()[1:]
    assert (never.precision, never.f1) == (0.0, 0.0)
    assert np.isnan(never.recall)
    assert np.isnan(none.precision)
    assert np.isnan(none.f1)


def test_ranges_of_confidence_hold_every_row_once() -> None:
    probabilities, labels = _made(200, 3)
    parts = _answers(probabilities, labels).ranges()
    assert sum(part.right.size for part in parts) == 200
    right = sum(part.right.sum() for part in parts)
    assert right == pytest.approx((probabilities.argmax(axis=1) == labels).sum())
    assert all(part.low <= part.probability <= part.high for part in parts)
    sure = _answers(np.array([[0.0, 1.0]]), np.array([1])).ranges()
    assert (sure[0].low, sure[0].high, sure[0].right.size) == (0.9, 1.0, 1)


def test_fewer_answers_have_fewer_mistakes() -> None:
    probabilities, labels = _made(200, 3)
    levels = _answers(probabilities, labels).by_threshold()
    assert levels[0].share == 1.0
    for level in levels:
        kept = probabilities.max(axis=1) >= level.threshold
        wrong = probabilities.argmax(axis=1)[kept] != labels[kept]
        assert (level.share, level.mistakes) == (kept.mean(), wrong.sum())


def test_the_surest_mistake_is_first() -> None:
    probabilities, labels = _made(200, 3)
    rows = _answers(probabilities, labels).worst()
    assert set(rows) == {*np.flatnonzero(probabilities.argmax(axis=1) != labels)}
    assert (np.diff(probabilities[rows].max(axis=1)) <= 0).all()


@pytest.mark.parametrize("classes", [2, 4])
def test_labels_in_doubt_are_the_confident_joint_off_its_diagonal(classes: int) -> None:
    probabilities, labels = _made(150, classes, clear=4)
    labels = labels.copy()
    flipped = np.arange(0, 150, 15)
    labels[flipped] = (labels[flipped] + 1) % classes
    expected = {}
    threshold = [probabilities[labels == j, j].mean() for j in range(classes)]
    for row, label in enumerate(labels):  # word for word equations 1 and 2
        above = [j for j in range(classes) if probabilities[row, j] >= threshold[j]]
        if probabilities[row].argmax() == label:  # as cleanlab does
            continue
        if above and (best := max(above, key=lambda j: probabilities[row, j])) != label:
            expected[row] = best
    doubts = mistakes.doubtful_labels(probabilities, labels)
    assert dict(zip(doubts.rows.tolist(), doubts.suggested.tolist(), strict=True)) == expected
    assert len({*flipped} & {*doubts.rows[: len(flipped)]}) >= 6


def test_a_class_without_a_row_is_no_label_in_doubt() -> None:
    probabilities = np.array([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3]])
    assert 2 not in mistakes.doubtful_labels(probabilities, np.array([0, 1, 1])).suggested


# -- a real job -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished job, some labels of which are wrong."""
    folder = tmp_path_factory.mktemp("errors")
    tiny_folder("bert", folder / "tiny")
    frame = pd.read_csv(tiny_texts(folder / "base.csv", 120))
    other = frame.label.map({"pos": "neg", "neg": "pos"})
    frame.loc[list(FLIPPED), "label"] = other[list(FLIPPED)]
    frame.to_csv(folder / "base.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["train", "base.csv", "backbone=tiny", "layers=all", "seeds=2", "logger=none"]
        more = ["trainer.max_epochs=8", "extract.token_budget=512", "bundle=false"]
        assert main([*words, *more, "hydra.run.dir=job"]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_texts, "_datasets", {})
    if "place" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("place"))


@pytest.mark.usefixtures("place")
def test_a_job_shows_where_it_errs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["errors", "job", "-n", "2"]) == 0
    said, warned = capsys.readouterr()
    assert warned == ""
    record = json.loads(Path("job/metrics.json").read_text())
    accuracy = record["test"]["consensus"]["mean"]
    assert f"accuracy {100 * accuracy:.1f} % (consensus of 2 seeds)" in said
    wrong = int(re.match(r"base: (\d+) of 24 test rows are wrong", said)[1])  # type: ignore[index]
    assert wrong == round(24 * (1 - accuracy))
    assert len(re.findall(r"^  row \d+: ", said, re.MULTILINE)) == min(wrong, 2)
    for row, text in re.findall(r"^  row (\d+): .*label \w+: (.*)$", said, re.MULTILINE):
        frame = pd.read_parquet("job/predictions.parquet")
        target = frame[(frame.row == int(row)) & (frame.seed == 0)].target.item()
        label = pd.read_csv("base.csv").set_index("text").label[text]
        assert label == record["dataset"]["label_names"][target]


def test_names_of_classes_break_no_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "job", tmp_path / "odd")
    record = read_record(tmp_path / "odd")
    names = ["very\nbad \x1b[31m", "good"]
    write_record(
        replace(record, dataset=replace(record.dataset, label_names=names)), tmp_path / "odd"
    )
    assert main(["errors", "job"]) == 0
    usual = capsys.readouterr().out
    assert main(["errors", f"{tmp_path}/odd"]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == len(usual.splitlines())
    assert r"very\nbad \x1b" in said
    assert "\x1b" not in said


@pytest.mark.usefixtures("place")
def test_every_test_row_as_csv(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["errors", "job", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert sorted(int(row["row"]) for row in rows) == list(range(24))
    labels = pd.read_csv("base.csv").set_index("text").label
    assert all(labels[row["text"]] == row["label"] for row in rows)
    assert [row["right"] for row in rows] == sorted(row["right"] for row in rows)


@pytest.mark.usefixtures("place")
def test_labels_of_train_that_were_flipped_are_in_doubt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["errors", "job", "--train", "--csv"]) == 0
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    flipped = {pd.read_csv("base.csv").text[row] for row in FLIPPED}
    data = next(iter(job_texts._datasets.values()))
    of_train = flipped & {*data.splits["train"].texts}
    assert of_train
    assert of_train <= {row["text"] for row in found}
    assert all(row["label"] != row["suggested"] for row in found)
    assert main(["errors", "job", "--train", "-n", "1"]) == 0
    first, *shown = capsys.readouterr().out.splitlines()
    assert f"base: {len(found)} of " in first
    assert len(shown) == 1


def test_texts_that_changed_are_not_shown(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "job", tmp_path / "job")
    (tmp_path / "base.csv").write_text((place / "base.csv").read_text().replace("plot", "wheat"))
    monkeypatch.chdir(tmp_path)
    assert main(["errors", "job"]) == 0
    said, warned = capsys.readouterr()
    assert "shown without their texts: dataset base: its texts or labels have changed" in warned
    assert "plot" not in said
    code, error = run(["errors", "job", "--train"], capsys)
    assert (code, "have changed since the job" in error) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["errors", "."], "it holds no finished job (no metrics.json)"),
        (["errors", "job", "-n", "-1"], "-n -1: it must be at least 0"),
        (["errors"], "arguments are required: JOB; usage: layerfusion errors"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = run(words, capsys)
    assert (code, len(error.splitlines())) == (2, 1)
    assert says in error


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"dataset: \xff\xfe", "config.yaml: it cannot be read ("),
        (b"dataset: [", "config.yaml: it cannot be read ("),
        (b"- text", "config.yaml: it is damaged, as it holds no settings"),
        (b"", "config.yaml: it is damaged, as it holds no settings"),
    ],
)
@pytest.mark.parametrize("words", [["errors", "job", "--train"], ["report", "job", "--texts"]])
def test_damaged_settings_are_one_line(
    words: list[str],
    content: bytes,
    says: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(place / "job", tmp_path / "job")
    (tmp_path / "job/config.yaml").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    code, error = run(words, capsys)
    assert (code, len(error.splitlines())) == (2, 1)
    assert says in error


def test_from_another_folder_texts_model_and_cache_are_those_of_where_the_job_ran(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [run(["errors", "job", *words], capsys) for words in ([], ["--train"])]
    monkeypatch.chdir(tmp_path)
    job = str(place / "job")
    found = [run(["errors", job, *words], capsys) for words in ([], ["--train"])]
    assert [one[0] for one in found] == [0, 0]
    assert found[1] == expected[1]
    assert main(["report", job, "--texts", "-o", "page"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["page"]  # no cache, no model


def test_folders_that_the_environment_named_are_looked_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/base.csv").write_text("text,label\n")
    monkeypatch.delenv("LAYERFUSION_MODELS", raising=False)
    monkeypatch.setenv("LAYERFUSION_DATA", f"{tmp_path}/none:{tmp_path}/mine")
    folders = folders_looked_in()
    monkeypatch.delenv("LAYERFUSION_DATA")
    assert folders[1:3] == [f"{tmp_path}/none", f"{tmp_path}/mine"]
    with pytest.raises(SourceUnavailable, match="not found in"):
        find_path("base.csv", "dataset")
    with looking_also_in(folders):
        assert find_path("base.csv", "dataset") == tmp_path.resolve() / "mine/base.csv"


def test_models_and_cache_of_a_job_may_have_moved(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run(["errors", "job", "--train"], capsys)
    copy = shutil.copytree(place, tmp_path / "copy")
    monkeypatch.chdir(copy)
    (copy / "tiny").rename("elsewhere")
    (copy / "outputs/cache").rename("vectors")
    moved = ["--model", "tiny=elsewhere", "--cache", "vectors"]
    assert run(["errors", "job", "--train", *moved], capsys) == expected
    assert expected[0] == 0


@pytest.mark.parametrize(
    ("gone", "words", "says"),
    [
        ("job/predictions.parquet", [], "predictions.parquet: missing; run job"),
        ("job/config.yaml", ["--train"], "config.yaml: missing, so the settings of the job cannot"),
        (
            "outputs/cache/embeddings outputs/cache/scores",
            ["--train"],
            "it lacks vectors of this job's texts",
        ),
        ("tiny", ["--train"], "backbone.tiny: no source can serve: path tiny: not found"),
        ("tiny", ["--train"], "files lie now, say with --model NAME=FOLDER"),
        ("tiny", ["--train", "--model", "tinny=x"], "model: there is no 'tinny'; there are: tiny"),
        ("tiny", ["--model", "tiny=x"], "they are for --train alone"),
    ],
)
def test_what_is_gone_is_named(
    gone: str,
    words: list[str],
    says: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = shutil.copytree(place, tmp_path / "copy")
    monkeypatch.chdir(copy)
    elsewhere = replace(read_record(copy / "job"), looked_in=["/another/machine"])
    write_record(elsewhere, copy / "job")
    for path in map(copy.joinpath, gone.split()):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # scores are there once --train has run
    code, error = run(["errors", "job", *words], capsys)
    assert (code, len(error.splitlines())) == (2, 1)
    assert says in error
