"""The figures of jobs on MTEB's tasks, in the JSON of its library."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score

from layerfusion.cli import main
from layerfusion.findings.jobs import read_predictions
from layerfusion.records.job import find_records
from layerfusion.statistics.answers import label_ranking_precision
from tests.report.fabricate import dataset, write_job
from tests.report.fabricate_sets import set_dataset, write_set_job


def _job(runs: Path, origin: str, subset: str = "null", *, sampled: bool = False) -> Path:
    """Write a job on a data set from somewhere; return its folder."""
    before = {place for place, _ in find_records(runs)} if runs.exists() else set()
    rows = {"train": 500, "test": 900 if sampled else 300}
    data = dataset(fingerprint=str(len(before)) * 64, origin=origin, available=rows)
    write_job(runs, data, [("minilm", "6")], 0.8, 0.7, seeds=2)
    (folder,) = {place for place, _ in find_records(runs)} - before
    (folder / "config.yaml").write_text(f"dataset: {{subset: {subset}}}\n")
    return folder


def test_a_job_is_a_model_of_the_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    _job(runs, "hub mteb/banking77@0fd18e25")
    _job(runs, "path mteb/cards/de", "de")
    for origin in ("wheel toy==1.0", "path data/mteb/mine.csv", "hub other/mteb"):
        _job(runs, origin)
    _job(runs, "hub mteb/emotion@aa", sampled=True)
    assert main(["results", str(runs), "--mteb", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    files = {Path(line).name: Path(line) for line in said.out.splitlines()}
    assert files.keys() == {"Banking77Classification.json", "cards.json"}
    assert "do not compare with its leaderboard" in said.err
    (record,) = (x for _, x in find_records(runs) if "banking77" in x.dataset.origin)
    file = files["Banking77Classification.json"]
    assert file.parts[-4:-1] == ("results", "layerfusion__minilm", record.job)
    result = json.loads(file.read_text())
    assert (result["task_name"], result["dataset_revision"]) == (file.stem, "0fd18e25")
    (entry,) = result["scores"]["test"]
    assert entry["main_score"] == entry["accuracy"] == record.test["accuracy"].mean
    each = [run["accuracy"] for run in entry["scores_per_experiment"]]
    assert np.mean(each) == pytest.approx(entry["accuracy"])
    assert "from 450 rows of train" in entry["protocol"]
    assert entry["hf_subset"] == "default"
    assert entry["languages"], "the library leaves out entries without a language"
    cards = json.loads(files["cards.json"].read_text())
    assert cards["scores"]["test"][0]["hf_subset"] == "de"


def test_no_task_and_damage_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["results", str(tmp_path / "runs"), "--mteb", str(tmp_path / "out")]
    _job(tmp_path / "runs", "wheel toy==1.0")
    assert main(command) == 2
    assert "no finished job is on a task of MTEB" in capsys.readouterr().err
    folder = _job(tmp_path / "runs", "hub mteb/imdb@ab")
    (folder / "config.yaml").write_text("dataset: [")
    assert main(command) == 2
    assert "config.yaml: it is gone or damaged" in capsys.readouterr().err


def test_a_task_with_several_labels_has_the_label_ranking_precision(tmp_path: Path) -> None:
    rows = {"train": 500, "test": 120}
    data = set_dataset(rows=120, origin="hub mteb/tags@aa", available=rows)
    write_set_job(tmp_path / "runs", data, [("minilm", "6")], 1.5, 0.7, seeds=2)
    ((folder, record),) = find_records(tmp_path / "runs")
    (folder / "config.yaml").write_text("dataset: {subset: null}\n")
    assert main(["results", str(tmp_path / "runs"), "--mteb", str(tmp_path / "out")]) == 0
    (file,) = (tmp_path / "out").rglob("*.json")
    (entry,) = json.loads(file.read_text())["scores"]["test"]
    said = read_predictions(folder, record)
    each = [label_ranking_average_precision_score(said.target, x) for x in said.probabilities]
    assert [one["lrap"] for one in entry["scores_per_experiment"]] == pytest.approx(each)
    assert entry["lrap"] == pytest.approx(np.mean(each))
    assert entry["main_score"] == record.test["accuracy"].mean


def test_label_ranking_precision_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    target = generator.random((60, 5)) < 0.4
    target[0], target[1] = True, False
    scores = generator.integers(0, 4, (60, 5)) / 4  # with ties
    expected = label_ranking_average_precision_score(target, scores)
    assert label_ranking_precision(target, scores) == pytest.approx(expected)
