"""Whole jobs as W&B gets them, read back from what was really written and uploaded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from layerfusion.cli import main
from layerfusion.findings.jobs import read_predictions
from layerfusion.records.job import read_record
from layerfusion.records.settings import config_of_job
from layerfusion.runs import honest
from layerfusion.runs.job_texts import texts_of
from layerfusion.statistics.metrics import METRICS
from layerfusion.tracking import tracker as tracking
from tests.pages import ROOT, blocks
from tests.tiny import tiny_folder, tiny_job, tiny_texts
from tests.tracking.wandb_file import OfflineRun, charts, parse, read_offline_run
from tests.tracking.wandb_server import Uploaded, wandb_server

DOCS = ROOT / "docs/dashboards.md"
WANDB = Path(sys.executable).with_name("wandb")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A tiny model, a tiny file, and a cache that all jobs here share."""
    folder = tmp_path_factory.mktemp("wandb")
    texts = tiny_texts(folder / "texts.csv", 80)
    job = tiny_job(texts, tiny_folder("bert", folder / "bert"), folder / "cache")
    return [*job, "logger.mode=offline", "seeds=2", "fusion.width=8"]


@pytest.fixture(autouse=True)
def own_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))
    monkeypatch.setattr(tracking, "_CODE_KEPT", set())


def read_runs(folder: Path) -> dict[str, OfflineRun]:
    """Job to its run."""
    return {path.parent.name: read_offline_run(path.parent) for path in folder.glob("*/wandb")}


# -- what a job shows -----------------------------------------------------------------------------


def test_a_sweep_is_a_group_whose_results_are_traced_to_their_data(
    base: list[str], tmp_path: Path
) -> None:
    words = ["layers=last,all", "sweep=mine"]
    assert main(["train", "-m", *base, f"paths.outputs={tmp_path}", *words]) == 0
    runs = read_runs(tmp_path / "sweeps/mine")
    assert len(runs) == 2
    for job, run in runs.items():
        folder = tmp_path / "sweeps/mine" / job
        record = read_record(folder)
        assert run.exit_code == 0
        assert run.run["run_group"] == "mine"
        assert run.run["job_type"] == "train"
        assert run.run["tags"] == ["honest", "texts", "gated", "tiny"]

        assert run.better["test/accuracy"] == run.better["val/macro_f1"] == "max"
        assert run.better["test/log_loss"] == run.better["val/calibration_error"] == "min"
        assert charts(run) == {"train/loss", *(f"val/{metric}" for metric in METRICS)}
        losses = [row["seed1/val/log_loss"] for row in run.history if "seed1/val/log_loss" in row]
        assert len(losses) == 3
        assert run.summary["test/accuracy"] == record.test["accuracy"].mean
        assert run.summary["layers/count"] == len(record.layers)
        assert (run.config["fusion"], run.config["models"]) == ("gated", "tiny")
        assert run.config["n_train"] == record.dataset.rows["train"]
        assert run.config["n_test"] == record.dataset.rows["test"]
        assert len(run.config) < 80

        texts = run.artifacts["texts-texts"]
        assert (texts.kind, texts.used) == ("dataset", True)
        assert texts.metadata["fingerprint"] == record.dataset.fingerprint
        assert texts.metadata["rows"] == record.dataset.rows
        store = run.artifacts["store-tiny-mean"]
        assert (store.kind, store.used) == ("embeddings", True)
        assert store.metadata["spec"] == record.backbones["tiny"].spec
        cache = next(word for word in base if word.startswith("paths.cache")).partition("=")[2]
        spec = Path(cache) / "embeddings" / record.backbones["tiny"].spec_hash
        assert store.entries["store.json"] == (spec / "store.json").resolve().as_uri()
        result = run.artifacts[f"result-{job}"]
        assert (result.kind, result.used) == ("result", False)
        for name in ("metrics.json", "predictions.parquet", "config.yaml"):
            assert result.entries[name] == (folder / name).resolve().as_uri()
        assert f"model-{job}" not in run.artifacts  # jobs of a sweep keep none
    # The sources once a sweep, and all of them.
    kept = [run.artifacts.get("code-layerfusion") for run in runs.values()]
    (code,) = [one for one in kept if one is not None]
    assert code.kind == "code"
    sources = Path(tracking.__file__).parents[1].rglob("*.py")
    root = Path(tracking.__file__).parents[1]
    assert {path.relative_to(root).as_posix() for path in sources} <= set(code.entries)
    _check_gates(tmp_path / "sweeps/mine", runs)


def _check_gates(folder: Path, runs: dict[str, OfflineRun]) -> None:
    """Charts are tables: one point a layer and epoch, the mean of the seeds' own."""
    ((job, run),) = [(job, run) for job, run in runs.items() if run.summary["layers/count"] > 1]
    shown = next(row for row in run.history if "gates_by_epoch_table.path" in row)
    (path,) = (folder / job).glob(f"wandb/offline-run-*/files/{shown['gates_by_epoch_table.path']}")
    table = json.loads(path.read_text())
    assert table["columns"] == ["step", "lineKey", "lineVal"]
    points = {(epoch, name): value for epoch, name, value in table["data"]}
    names = [f"tiny:{layer}:mean" for layer in range(4)]
    assert set(points) == {(epoch, name) for epoch in (1, 2, 3) for name in names}
    for name in names:
        for epoch in range(3):
            seeds = [
                row[f"seed{seed}/gates/{name}"]
                for seed in (0, 1)
                for row in run.history
                if row.get("epoch") == epoch and f"seed{seed}/gates/{name}" in row
            ]
            assert points[epoch + 1, name] == pytest.approx(np.mean(seeds), abs=1e-5)


def test_a_job_by_itself_has_no_group_and_a_profile_shows_its_layers(
    base: list[str], tmp_path: Path
) -> None:
    words = [*base, f"paths.outputs={tmp_path}"]
    assert main(["train", *words]) == 0
    (run,) = read_runs(tmp_path / "runs").values()
    assert run.run["run_group"] == ""
    assert "code-layerfusion" in run.artifacts

    assert main(["profile", *words, "profile.scores=[probe,fisher]", "logger.code=false"]) == 0
    ((job, run),) = read_runs(tmp_path / "profiles").items()
    assert run.run["job_type"] == "profile"
    assert run.exit_code == 0
    assert "code-layerfusion" not in run.artifacts
    profile = json.loads((tmp_path / "profiles" / job / "profile.json").read_text())
    accuracy = [layer["scores"]["accuracy"] for layer in profile["layers"]]
    assert run.summary["best/tiny/probe_accuracy"] == max(accuracy)
    assert run.artifacts["texts-texts"].metadata["fingerprint"] == profile["dataset"]["fingerprint"]
    assert set(run.artifacts[f"result-{job}"].entries) >= {"profile.json"}

    files = tmp_path / "profiles" / job / "wandb"
    shown = next(row for row in run.history if "scores.path" in row)
    (chart,) = files.glob(f"offline-run-*/files/{shown['layer_profile_table.path']}")
    depths = [layer["depth"] for layer in profile["layers"]]
    assert json.loads(chart.read_text())["data"] == [
        [depth, "tiny", value] for depth, value in zip(depths, accuracy, strict=True)
    ]
    (scores,) = files.glob(f"offline-run-*/files/{shown['scores.path']}")
    table = json.loads(scores.read_text())
    assert [row[table["columns"].index("fisher")] for row in table["data"]] == [
        layer["scores"]["fisher"] for layer in profile["layers"]
    ]


def test_a_job_that_probes_shows_its_layers_and_where_it_is_right(
    base: list[str], tmp_path: Path
) -> None:
    words = [*base, f"paths.outputs={tmp_path}", "layers=top_k", "layers.k=2", "layers.folds=2"]
    assert main(["train", *words, "fusion=stacked", "logger.texts=true"]) == 0
    ((job, run),) = read_runs(tmp_path / "runs").items()
    folder = tmp_path / "runs" / job
    record = read_record(folder)
    assert len(record.probes) == 4
    curve = _table(folder, run, "layer_profile_table")
    assert curve["data"] == [[probe.depth, "tiny", probe.accuracy] for probe in record.probes]
    probes = _table(folder, run, "probes")
    assert [row[probes["columns"].index("low")] for row in probes["data"]] == [
        probe.low for probe in record.probes
    ]
    read = read_predictions(folder, record)
    answers = read.mean.argmax(axis=1)
    shown = _table(folder, run, "predictions")
    assert shown["columns"] == ["row", "label", "answer", "probability", "text"]
    names = record.dataset.label_names
    texts = texts_of(config_of_job(folder), record).splits["test"].texts
    assert sorted(row[0] for row in shown["data"]) == list(range(len(answers)))
    for row, label, answer, probability, text in shown["data"]:
        assert (label, answer) == (names[read.target[row]], names[answers[row]])
        assert probability == pytest.approx(read.mean[row].max(), abs=1e-4)
        assert text == texts[row]
    wrong = sum(label != answer for _, label, answer, *_ in shown["data"])
    assert all(row[1] != row[2] for row in shown["data"][:wrong])
    lines = {row[1] for row in _table(folder, run, "calibration_table")["data"]}
    assert lines == {"answers", "perfect"}


def _table(folder: Path, run: OfflineRun, name: str) -> dict[str, Any]:
    shown = next(row for row in run.history if f"{name}.path" in row)
    (path,) = folder.glob(f"wandb/offline-run-*/files/{shown[f'{name}.path']}")
    return json.loads(path.read_text())


def test_a_job_that_was_finished_before_answers_an_agent(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*base, f"paths.outputs={tmp_path}"]
    assert main(["train", *words]) == 0
    ((job, first),) = read_runs(tmp_path / "runs").items()
    assert main(["train", *words]) == 0
    assert read_runs(tmp_path / "runs")[job] == first  # nobody asked: no second run
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "agent"))
    assert main(["train", *words]) == 0
    second = read_offline_run(tmp_path / "agent")
    assert second.exit_code == 0
    for key in ("validation/log_loss", "test/accuracy", "layers/names", "job"):
        assert second.summary[key] == first.summary[key]
    assert second.config["n_train"] == first.config["n_train"]
    assert second.artifacts.keys() >= {f"result-{job}", "texts-texts", "store-tiny-mean"}


def test_a_classifier_is_uploaded_on_request_and_kept_for_it(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*base, f"paths.outputs={tmp_path}", "logger.upload=bundle"]
    assert main(["train", "-m", *words, "layers=last", "sweep=mine"]) == 0
    ((job, run),) = read_runs(tmp_path / "sweeps/mine").items()
    model = run.artifacts[f"model-{job}"]
    kept = [path.name for path in (tmp_path / "sweeps/mine" / job / "bundle").iterdir()]
    assert (model.kind, model.used) == ("model", False)
    assert model.entries == dict.fromkeys(kept, "")  # the files themselves, no reference
    assert run.artifacts["texts-texts"].used
    assert main(["train", *words, "bundle=false"]) == 2
    assert "logger.upload=bundle: bundle=false keeps no classifier" in capsys.readouterr().err
    assert main(["train", *words, "logger.upload=all"]) == 2
    assert "logger.upload" in capsys.readouterr().err


# -- failures -------------------------------------------------------------------------------------


def test_a_typo_in_a_job_by_itself_leaves_no_run(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*base, f"paths.outputs={tmp_path}"]
    for wrong in ("dataset.path=nowhere.csv", "backbone.tiny.path=nowhere"):
        assert main(["train", *words, wrong]) == 2
        assert "nowhere" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.wandb"))


def test_a_job_of_a_sweep_that_finds_no_texts_is_a_failed_run(
    base: list[str], tmp_path: Path
) -> None:
    good = next(word for word in base if word.startswith("dataset.path")).partition("=")[2]
    bad = tmp_path / "bad.csv"
    bad.write_text("text,label\nonly one,a\n")
    words = [f"dataset.path={good},{bad}", "sweep=mine"]
    assert main(["train", "-m", *base, f"paths.outputs={tmp_path}", *words]) == 1
    runs = read_runs(tmp_path / "sweeps/mine")
    assert sorted(run.exit_code or 0 for run in runs.values()) == [0, 1]
    (failed,) = [run for run in runs.values() if run.exit_code]
    assert failed.summary["error"].startswith("UserError: dataset local: ")
    assert failed.run["notes"] == failed.summary["error"]


def test_a_job_of_a_sweep_without_time_for_any_model_is_a_failed_run(
    base: list[str], tmp_path: Path
) -> None:
    places = [f"paths.outputs={tmp_path}", f"paths.cache={tmp_path}/cache"]
    limited = ["time_limit=0.000001", "sweep=mine"]
    assert main(["train", "-m", *base, *places, *limited]) == 1
    (run,) = read_runs(tmp_path / "sweeps/mine").values()
    assert run.summary["error"].startswith("UserError: time_limit=1e-06: there is no time for any")
    assert main(["train", *base, *places, "time_limit=0.000001"]) == 2
    assert not list((tmp_path / "runs").rglob("*.wandb"))


def test_what_fails_after_the_start_is_a_failed_run(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("the lamp is broken\nsecond line")

    monkeypatch.setattr(honest, "prepare", broken)
    with pytest.raises(RuntimeError, match="the lamp"):
        main(["train", *base, f"paths.outputs={tmp_path}"])
    (run,) = read_runs(tmp_path / "runs").values()
    assert run.exit_code == 1
    assert run.run["notes"] == "RuntimeError: the lamp is broken"


# -- upload ---------------------------------------------------------------------------------------


def sync(address: str, *paths: Path) -> str:
    """`wandb sync` as a user runs it."""
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_MODE"}
    environment |= {"WANDB_BASE_URL": address, "WANDB_API_KEY": "k" * 40, "WANDB_SILENT": "false"}
    command = [str(WANDB), "sync", *map(str, paths)]
    done = subprocess.run(
        command,
        env=environment,
        cwd=paths[0],  # it leaves a folder of its own where it is called
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout + done.stderr


def test_sync_uploads_a_finished_run_with_its_lineage(base: list[str], tmp_path: Path) -> None:
    assert main(["train", *base, f"paths.outputs={tmp_path}"]) == 0
    (file,) = tmp_path.rglob("offline-run-*/*.wandb")
    with wandb_server() as (address, uploaded):
        sync(address, file.parent)
    (run,) = uploaded.runs
    record = read_record(file.parents[2])
    assert uploaded.exit_code == {run: 0}
    assert uploaded.summary[run]["test/accuracy"] == record.test["accuracy"].mean
    assert sorted(uploaded.used) == ["store-tiny-mean", "texts-texts"]
    assert ("result", f"result-{record.job}") in uploaded.made
    assert ("model", f"model-{record.job}") in uploaded.made
    model = read_offline_run(file.parents[2]).artifacts[f"model-{record.job}"]
    kept = {path.name: path.resolve().as_uri() for path in (file.parents[2] / "bundle").iterdir()}
    assert model.entries == kept


@pytest.mark.slow
def test_online_the_same_run_is_sent_while_the_job_runs(base: list[str], tmp_path: Path) -> None:
    words = [*base, f"paths.outputs={tmp_path}", "logger.mode=online"]
    with wandb_server() as (address, uploaded):
        environment = os.environ | {"WANDB_BASE_URL": address, "WANDB_API_KEY": "k" * 40}
        environment["WANDB_ERROR_REPORTING"] = "false"
        command = [sys.executable, "-m", "layerfusion", "train", *words]
        subprocess.run(command, env=environment, capture_output=True, timeout=120, check=True)
    (run,) = uploaded.runs
    (folder,) = (tmp_path / "runs").iterdir()
    record = read_record(folder)
    assert uploaded.exit_code == {run: 0}
    assert uploaded.summary[run]["test/accuracy"] == record.test["accuracy"].mean
    assert len(_losses(uploaded, run)) == 3
    assert sorted(uploaded.used) == ["store-tiny-mean", "texts-texts"]
    assert ("result", f"result-{record.job}") in uploaded.made


SLOWLY = """
import sys, time
from layerfusion.cli import main
from layerfusion.tracking import tracker

log = tracker._PrefixedLogger.log_metrics

def slowly(*arguments, **named):
    time.sleep(0.1)
    log(*arguments, **named)

tracker._PrefixedLogger.log_metrics = slowly
sys.exit(main(sys.argv[1:]))
"""
"""A process whose epochs take so long that it is killed between them, few as they are."""


@pytest.mark.slow
def test_a_killed_job_goes_on_with_its_run(base: list[str], tmp_path: Path) -> None:
    words = [*base, f"paths.outputs={tmp_path}", "trainer.max_epochs=100", "trainer.patience=100"]
    command = [sys.executable, "-m", "layerfusion", "train", *words]
    # Other tests in this process may have a service of W&B, which would not be killed.
    alone = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SLOWLY, "train", *words],
            stdout=log, stderr=log, env=alone, start_new_session=True,
        )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while not (seen := _epochs(tmp_path)) and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    (killed,) = tmp_path.rglob("offline-run-*/*.wandb")
    with wandb_server() as (address, uploaded):
        said = sync(address, killed.parent)
        (run,) = uploaded.runs
        assert "incomplete" in said or uploaded.exit_code
        assert len(_losses(uploaded, run)) >= len(seen) > 0
        assert _losses(uploaded, run)[: len(seen)] == seen
        assert uploaded.exit_code.get(run, 1) != 0  # never shown as finished

        subprocess.run(command, env=alone, capture_output=True, timeout=200, check=True)
        first, second = sorted(tmp_path.rglob("offline-run-*/*.wandb"))
        assert first == killed
        again = parse(second.read_bytes())
        assert (again.run["run_id"], again.exit_code) == (run, 0)
        losses = [row["seed0/val/log_loss"] for row in again.history if "seed0/val/log_loss" in row]
        assert losses[: len(seen)] == pytest.approx(seen)  # the same figures, once more
        sync(address, second.parent)
    assert uploaded.exit_code == {run: 0}
    record = read_record(killed.parents[2])
    assert uploaded.summary[run]["test/accuracy"] == record.test["accuracy"].mean


@pytest.mark.slow
def test_online_a_failed_job_goes_on_with_its_run_and_forgets_why(
    base: list[str], tmp_path: Path
) -> None:
    words = [*base, f"paths.outputs={tmp_path}", "logger.mode=online", "sweep=mine"]
    model = Path(next(x for x in base if x.startswith("backbone.tiny")).partition("=")[2])
    command = [sys.executable, "-m", "layerfusion", "train", *words]
    with wandb_server() as (address, uploaded):
        environment = os.environ | {"WANDB_BASE_URL": address, "WANDB_API_KEY": "k" * 40}
        away = model.with_name("away")
        model.rename(away)
        try:
            failed = subprocess.run(command, env=environment, capture_output=True, timeout=120)
        finally:
            away.rename(model)
        assert failed.returncode
        (run,) = uploaded.runs
        assert uploaded.exit_code == {run: 1}
        assert "error" in uploaded.summary[run]
        subprocess.run(command, env=environment, capture_output=True, timeout=120, check=True)
        assert list(uploaded.runs) == [run]
        assert uploaded.exit_code == {run: 0}
        assert "test/accuracy" in uploaded.summary[run]
        assert "error" not in uploaded.summary[run]
        assert uploaded.runs[run]["notes"] == tracking.STARTED_AGAIN


@pytest.mark.slow
def test_an_agent_of_wandb_runs_the_sweep_file_of_the_docs(base: list[str], tmp_path: Path) -> None:
    """`wandb sweep` and `wandb agent` themselves, against the stand-in for the server."""
    (block,) = [block for block in blocks(DOCS) if block.file == "sweep.yaml"]
    sweep = yaml.safe_load(block.text)
    fixed = [word for word in sweep["command"] if "=" in word]
    sweep["command"] = [word for word in sweep["command"] if word not in fixed]
    place = sweep["command"].index("train") + 1
    sweep["command"][place:place] = [x for x in base if not x.startswith("logger.mode")]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    program = tmp_path / "bin/layerfusion"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m layerfusion "$@"\n')
    program.chmod(0o755)
    first = {key: one["values"][0] for key, one in sweep["parameters"].items()}
    with wandb_server() as (address, uploaded):
        keep = {key: value for key, value in os.environ.items() if key != "WANDB_MODE"}
        environment = keep | {"WANDB_BASE_URL": address, "WANDB_API_KEY": "k" * 40}
        environment["PATH"] = f"{program.parent}:{environment['PATH']}"
        environment["PYTHONPATH"] = str(Path(tracking.__file__).parents[2])
        for words in (["sweep", "sweep.yaml"], ["agent", "--count", "2", "me/layerfusion/s1"]):
            uploaded.trials = [first, first]  # the second is finished before it begins
            subprocess.run(
                [str(WANDB), *words],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                timeout=200,
                check=True,
            )
        assert uploaded.sweep == sweep
        assert uploaded.exit_code == {"run0": 0, "run1": 0}
        goal = sweep["metric"]["name"]
        assert uploaded.summary["run0"][goal] == uploaded.summary["run1"][goal]
        assert uploaded.runs["run1"]["sweep"] == "s1"
    assert len(list((tmp_path / "outputs/runs").iterdir())) == 1


def _epochs(folder: Path) -> list[float]:
    """Validation losses that wandb's own reader finds in the run file so far."""
    files = list(folder.rglob("offline-run-*/*.wandb"))
    if not files or files[0].stat().st_size < 100:
        return []
    command = [str(WANDB), "leet", "inspect", "--json", str(files[0])]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    items = [one["history"]["item"] for one in records if one["type"] == "history"]
    return [item["seed0/val/log_loss"] for item in items if "seed0/val/log_loss" in item]


def _losses(uploaded: Uploaded, run: str) -> list[float]:
    rows = uploaded.history[run]
    return [row["seed0/val/log_loss"] for row in rows if "seed0/val/log_loss" in row]
