"""Jobs on texts that have any number of labels, from the command line to their files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from layerfusion.cli import main
from layerfusion.fusion import pool_forms, training
from layerfusion.fusion.objective import Shift
from tests.tiny import TOPICS, tiny_job, tiny_topics


@pytest.fixture
def job(llama_folder: Path, tmp_path: Path) -> list[str]:
    texts, topics = tiny_topics(140)
    cells = [";".join(topics.columns[row.astype(bool)]) for row in topics.to_numpy()]
    data = tmp_path / "topics.csv"
    pd.DataFrame({"text": texts, "label": cells}).to_csv(data, index=False)
    return [
        *tiny_job(data, llama_folder, tmp_path / "cache"),
        *(f"paths.outputs={tmp_path / 'outputs'}", "logger=none", "seeds=2", "layers.folds=3"),
        *("dataset.multilabel=true", 'dataset.label_separator=";"'),
    ]


def _record(tmp_path: Path) -> tuple[dict, pd.DataFrame]:  # type: ignore[type-arg]
    (record,) = (tmp_path / "outputs/runs").glob("*/metrics.json")
    return json.loads(record.read_text()), pd.read_parquet(record.parent / "predictions.parquet")


@pytest.mark.parametrize(
    "words",
    [
        ["layers=all", "fusion=stacked", "lexical=words"],
        ["layers=adaptive", "fusion=gated_stack", "objective=micro_f1"],
        ["layers=all", "fusion=late_stack", "lexical=words", "trainer.max_epochs=3"],
        ["layers=greedy", "fusion=gated", "class_weights=balanced"],
        ["fusion=auto", "layers=adaptive", "objective=macro_f1", "fusion.among=[stacked,gated]"],
    ],
)
def test_the_figures_of_a_job_are_those_of_its_predictions(
    words: list[str], job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *job, *words]) == 0, capsys.readouterr().err
    record, predictions = _record(tmp_path)
    assert record["dataset"]["multilabel"] is True
    assert record["dataset"]["label_names"] == sorted(TOPICS)
    seeds = [predictions[predictions.seed == seed] for seed in sorted(set(predictions.seed))]
    figures = []
    for one in seeds:
        target, answer = (np.stack(list(one[name])) for name in ("target", "pred"))
        probability = np.stack(list(one["prob"]))
        assert ((probability >= 0.5) == answer).all()
        figures.append(
            {
                "accuracy": accuracy_score(target, answer),
                "micro_f1": f1_score(target, answer, average="micro"),
                "macro_f1": f1_score(target, answer, average="macro"),
            }
        )
    for name in ("accuracy", "micro_f1", "macro_f1"):
        estimate = record["test"][name]
        assert estimate["mean"] == pytest.approx(np.mean([one[name] for one in figures]))
        assert estimate["low"] is None or estimate["low"] <= estimate["mean"] <= estimate["high"]
    assert record["test"]["micro_f1"]["mean"] > 0.6  # guessing gives 0.55 at most
    baseline = np.stack(list(seeds[0]["baseline"]))
    assert record["baseline"]["test"]["micro_f1"] == pytest.approx(
        f1_score(np.stack(list(seeds[0]["target"])), baseline, average="micro")
    )
    for one in record["seeds"] if "stack" in record["fusion"] else ():
        assert one["temperature"] is None
        assert 0 < one["uncalibrated"]["calibration_error"] < 1  # at equal weights
    assert sum(record["dataset"]["languages"].values()) == pytest.approx(1)
    said = capsys.readouterr().err
    assert main(["train", *job, *words]) == 0
    assert "finished before" in capsys.readouterr().err, said


@pytest.mark.parametrize(
    "words", [["fusion=stacked", "class_weights=balanced"], ["fusion=gated", "objective=micro_f1"]]
)
def test_the_record_of_a_seed_says_how_its_scores_were_shifted(
    words: list[str], job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = Shift(torch.full((len(TOPICS),), 0.5, dtype=torch.float64), "a half is added")
    for place in (pool_forms, training):
        monkeypatch.setattr(place, "find_shift", lambda *_: shift)
    assert main(["train", *job, "layers=last", *words, "trainer.max_epochs=2"]) == 0
    record, _ = _record(tmp_path)
    assert [seed["shift"] for seed in record["seeds"]] == ["a half is added"] * 2
    assert all(note.endswith("a half is added") for note in record["fusion_notes"])


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["class_weights=balanced"], r"held-out log-loss 0\.\d+, each label as often there as not"),
        (["class_weights=balanced", "objective=accuracy"], r"held-out accuracy \d+\.\d%"),
        ([], r"held-out log-loss 0\.\d+, (?!each label)"),
    ],
)
def test_auto_says_what_it_has_ranked_labels_by(
    words: list[str], value: str, job: list[str], tmp_path: Path
) -> None:
    auto = ["layers=last", "fusion=auto", "fusion.among=[stacked]", "seeds=1"]
    assert main(["train", *job, *auto, *words]) == 0
    record, _ = _record(tmp_path)
    assert re.search(value, record["decision"][0]), record["decision"]


def test_a_page_and_predictions_come_of_a_job(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *job, "fusion=stacked", "layers=adaptive"]) == 0
    (folder,) = (tmp_path / "outputs/runs").iterdir()
    assert main(["report", str(tmp_path / "outputs")]) == 0
    page = (tmp_path / "outputs/report.html").read_text()
    assert "exact match" in page
    assert "Micro-F1" in page
    assert "Texts of train: " in page
    assert "calibrated by the stack" in page
    new = tmp_path / "new.csv"
    pd.DataFrame({"text": [*tiny_topics(12)[0], ""]}).to_csv(new, index=False)
    out = tmp_path / "said.jsonl"
    assert main(["predict", str(folder), str(new), "-o", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows[-1]["label"] is None
    named = {name for row in rows[:-1] for name in row["label"]}
    assert named <= set(TOPICS)
    for row in rows[:-1]:
        assert row["label"] == [name for name in sorted(TOPICS) if row[f"p({name})"] >= 0.5]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["layers=adaptive", "layers.score=logme"], "score logme: it compares classes"),
        (["layers=adaptive", "layers.score=gradient"], "score gradient: it compares classes"),
    ],
)
def test_what_needs_classes_is_refused_in_one_line(
    words: list[str], message: str, job: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *job, *words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert "rows with several labels need probe" in said[-1]


def test_test_labels_change_no_choice(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that a job chooses is the same where the labels of test are drawn anew."""
    rows = pd.read_csv(tmp_path / "topics.csv", keep_default_na=False)
    chosen = []
    for turn, shift in enumerate((0, 7)):
        test = rows[100:].copy()
        test["label"] = np.roll(test["label"], shift)
        place = tmp_path / f"data{turn}"
        place.mkdir()
        rows[:100].to_csv(place / "train.csv", index=False)
        test.to_csv(place / "test.csv", index=False)
        words = [f"dataset.path={place}", f"paths.outputs={place / 'outputs'}", "layers=adaptive"]
        words += ["fusion=auto", "fusion.among=[stacked]", "objective=micro_f1"]
        assert main(["train", *job, *words]) == 0, capsys.readouterr().err
        (record,) = (place / "outputs/runs").glob("*/metrics.json")
        content = json.loads(record.read_text())
        chosen.append([content["layers"], content["decision"], content["validation"]])
    assert chosen[0] == chosen[1]
