from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from wandb.errors import CommError
from wandb.sdk.lib.service.service_token import WandbServiceConnectionError

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.job import FusionConfig, LoggerConfig, TrainerConfig
from layerfusion.errors import UserError
from layerfusion.findings.mistakes import Answers
from layerfusion.findings.set_mistakes import SetAnswers
from layerfusion.fusion.data import FusionDataModule
from layerfusion.fusion.training import fit
from layerfusion.records.job import (
    BackboneRecord,
    BaselineRecord,
    CostRecord,
    DataRecord,
    Estimate,
    LayerRecord,
    RunRecord,
)
from layerfusion.statistics.metrics import METRICS
from layerfusion.tracking import tracker as tracking
from layerfusion.tracking.columns import flatten, run_config
from layerfusion.tracking.curves import mean_curves
from layerfusion.tracking.media import job_media, prediction_table, summary
from layerfusion.tracking.tracker import (
    EndedEarly,
    NullTracker,
    WandbTracker,
    open_tracker,
)
from tests.tracking.wandb_file import VARIABLES, charts, parse, read_offline_run

ARGUMENTS: dict[str, Any] = {
    "name": "mr minilm:3 gated",
    "group": "a sweep",
    "job_type": "train",
    "tags": ["mr", "gated"],
    "config": {"dataset": "mr", "layers/fixed/minilm": [3, "norm"], "seed": 0},
}


ANSWERS = Answers(
    ["neg", "pos"],
    np.array([0, 0, 1]),
    np.array([0, 1, 1]),
    np.array([0.9, 0.6, 0.7]),
    text_of=None,
)


@pytest.fixture(autouse=True)
def no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine where nobody is logged in, whatever this one is."""
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setattr(tracking, "_SYNC_TOLD", set())
    yield
    if wandb.run is not None:
        wandb.run.finish()


@pytest.fixture
def record() -> RunRecord:
    metrics = {"accuracy": 0.8, "macro_f1": 0.79}
    return RunRecord(
        job="abc",
        protocol="honest",
        dataset=DataRecord("mr", "here", "f", ["neg", "pos"], {}, {}, False, 0, []),
        backbones={
            "minilm": BackboneRecord(
                *("wheel", {}, "s", 6, ["0", "6"], "3", 10, 100, 1, 5, 1000, 2.5e9, None, 64)
            )
        },
        selection="fixed",
        layers=[
            LayerRecord("minilm", "3", "mean", 0.5, 384, "fixed", 0.7),
            LayerRecord("minilm", "norm", "mean", 1.0, 384, "fixed", None),
        ],
        fusion="gated",
        seeds=[],
        validation={"accuracy": Estimate(0.81, None)},
        test={name: Estimate(value, 0.01, 0.78, 0.82) for name, value in metrics.items()},
        baseline=BaselineRecord("words", 10.0, {}, {"accuracy": 0.76}, 0.75, 0.77, 1.0),
        cost=CostRecord(1234, 5.5, 1 << 30),
        versions={},
        created="now",
    )


def test_a_job_is_one_run_with_every_epoch(tmp_path: Path, record: RunRecord) -> None:
    targets = {split: torch.arange(20) % 2 for split in ("train", "validation")}
    features = {split: [torch.randn(20, 3), torch.randn(20, 4)] for split in targets}
    data = FusionDataModule(features, targets, 8)
    trainer = TrainerConfig(max_epochs=3, patience=3)
    with open_tracker(LoggerConfig(tags=["mine"]), folder=tmp_path, **ARGUMENTS) as tracker:
        for seed in (0, 1):
            fit(
                data,
                FusionConfig(width=4),
                trainer,
                num_classes=2,
                seed=seed,
                names=["minilm:3:mean", "minilm:norm:mean"],
                logger=tracker.lightning_logger(f"seed{seed}"),
            )
        tracker.finish_with(record, lambda: ANSWERS)

    run = read_offline_run(tmp_path)
    assert run.exit_code == 0
    assert {**run.run, "run_id": ""} == {
        "run_id": "",
        "entity": "",
        "display_name": "mr minilm:3 gated",
        "project": "layerfusion",
        "run_group": "a sweep",
        "job_type": "train",
        "notes": "",
        "tags": ["mine", "mr", "gated"],
    }
    assert run.config["dataset"] == "mr"
    assert run.config["layers/fixed/minilm"] == [3, "norm"]
    for seed in (0, 1):
        for name in ("train/loss", "val/log_loss", "val/accuracy", "gates/minilm:3:mean"):
            rows = [row for row in run.history if f"seed{seed}/{name}" in row]
            assert [row["epoch"] for row in rows] == [0, 1, 2]
    for name in ("train/loss", "val/log_loss", "val/accuracy"):
        of_seeds = [
            [row[f"seed{seed}/{name}"] for row in run.history if f"seed{seed}/{name}" in row]
            for seed in (0, 1)
        ]
        rows = [row for row in run.history if name in row]
        assert [row["epoch"] for row in rows] == [0, 1, 2]
        by_epoch = zip(*of_seeds, strict=True)
        for row, values in zip(rows, by_epoch, strict=True):
            assert row[name] == pytest.approx(np.mean(values))
            assert row[f"{name}_lowest"] == min(values)
            assert row[f"{name}_highest"] == max(values)
    assert charts(run) == {"train/loss", *(f"val/{metric}" for metric in METRICS)}
    losses = [row["val/log_loss"] for row in run.history if "val/log_loss" in row]
    assert run.summary["val/log_loss"] == {"min": min(losses)}
    assert not [key for key in run.summary if key.startswith("seed")]
    assert run.summary["test/accuracy"] == 0.8
    assert run.summary["cost/minilm/flops_per_text"] == 2.5e9

    shown = run.history[-1]
    table = json.loads(_file(tmp_path, shown["layers.path"]).read_text())
    assert table["columns"] == [
        *["backbone", "layer", "pooling", "depth", "width", "reason", "mean_gate", "weight"]
    ]
    assert table["data"] == [
        ["minilm", "3", "mean", 0.5, 384, "fixed", 0.7, None],
        ["minilm", "norm", "mean", 1.0, 384, "fixed", None, None],
    ]
    matrix = json.loads(_file(tmp_path, shown["confusion_table.path"]).read_text())
    counts = {(actual, predicted): rows for actual, predicted, rows in matrix["data"]}
    expected = {("neg", "neg"): 1, ("neg", "pos"): 1, ("pos", "neg"): 0, ("pos", "pos"): 1}
    assert counts == expected
    assert list(tmp_path.glob("wandb/artifacts/staging/*"))  # not in the home folder
    assert "WANDB_DATA_DIR" not in os.environ

    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    written = path.read_bytes()
    for end in range(7, len(written), 101):  # as a kill, or a reader in between, may find it
        part = parse(written[:end])
        assert part.history == run.history[: len(part.history)]
    assert parse(written) == run


def _file(folder: Path, path: str) -> Path:
    (found,) = folder.glob(f"wandb/offline-run-*/files/{path}")
    return found


@pytest.mark.parametrize(
    ("error", "exit_code", "reason"),
    [
        (KeyboardInterrupt(), 255, "KeyboardInterrupt"),
        (UserError("layers: there is no 9"), 1, "UserError: layers: there is no 9"),
        (EndedEarly(), 0, ""),
    ],
)
def test_how_a_job_ends_is_how_its_run_ends(
    tmp_path: Path, error: BaseException, exit_code: int, reason: str
) -> None:
    with (
        pytest.raises(type(error)),
        open_tracker(LoggerConfig(), folder=tmp_path, **ARGUMENTS),
    ):
        raise error
    run = read_offline_run(tmp_path)
    assert run.exit_code == exit_code
    assert run.summary.get("error", "") == run.run["notes"] == reason
    assert ("pruned" in run.run["tags"]) == isinstance(error, EndedEarly)


def test_a_job_that_fails_ends_its_run_with_exit_code_1(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="broken"),
        open_tracker(LoggerConfig(), folder=tmp_path, **ARGUMENTS),
    ):
        raise RuntimeError("broken")
    assert read_offline_run(tmp_path).exit_code == 1
    assert wandb.run is None


def test_jobs_of_one_process_have_runs_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        arguments: dict[str, Any] = ARGUMENTS | {"name": name}
        with open_tracker(LoggerConfig(), folder=tmp_path / name, **arguments) as tracker:
            logger = tracker.lightning_logger("seed0")
            assert logger is not None
            logger.log_metrics({"job": ord(name)})
    for name in ("a", "b"):
        run = read_offline_run(tmp_path / name)
        assert run.run["display_name"] == name
        assert [row["seed0/job"] for row in run.history] == [ord(name)]


def test_offline_says_once_how_to_upload_and_prints_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "layerfusion"):
        for name in ("a", "b"):
            with open_tracker(LoggerConfig(), folder=tmp_path / name, **ARGUMENTS):
                pass
    (message,) = [message for message in caplog.messages if "wandb sync" in message]
    folder = Path(message.split("wandb sync ")[1])
    assert list(folder.glob("*.wandb"))
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


class _Started(Exception):
    """Says in which mode a run was started, in place of starting it."""


@pytest.mark.parametrize(
    ("config", "environment", "key", "expected"),
    [
        ("auto", None, None, "offline"),
        ("auto", None, "k" * 40, "online"),
        ("auto", "offline", "k" * 40, "offline"),
        ("auto", "dryrun", "k" * 40, "offline"),
        ("auto", "online", None, "online"),
        ("offline", None, "k" * 40, "offline"),
        ("online", "offline", None, "online"),
    ],
)
def test_mode(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: str,
    environment: str | None,
    key: str | None,
    expected: str,
) -> None:
    def init(**arguments: Any) -> None:
        raise _Started(arguments["mode"])

    monkeypatch.setattr(wandb, "init", init)
    for name, value in (("WANDB_MODE", environment), ("WANDB_API_KEY", key)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    try:
        with (
            pytest.raises(_Started, match=expected),
            open_tracker(LoggerConfig(mode=config), folder=tmp_path, **ARGUMENTS),
        ):
            pass
    finally:
        wandb.teardown()  # W&B remembers the key for the session


def test_disabled_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with open_tracker(LoggerConfig(), folder=tmp_path, **ARGUMENTS) as tracker:
        assert isinstance(tracker, NullTracker)
    assert list(tmp_path.iterdir()) == []


def test_without_network_it_goes_on_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    init = wandb.init

    def unreachable(**arguments: Any) -> Any:
        if arguments["mode"] == "online":
            raise CommError("Run initialization has timed out\nmore lines")
        return init(**arguments)

    monkeypatch.setattr(wandb, "init", unreachable)
    with open_tracker(LoggerConfig(mode="online"), folder=tmp_path, **ARGUMENTS) as tracker:
        assert isinstance(tracker, WandbTracker)
    assert read_offline_run(tmp_path).exit_code == 0
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning == "W&B: Run initialization has timed out; going on offline"


def test_what_wandb_refuses_does_not_fail_the_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refused = LoggerConfig(project="a/name:that?is%refused", tags=["", "t" * 65])
    with open_tracker(refused, folder=tmp_path, **ARGUMENTS) as tracker:
        assert isinstance(tracker, NullTracker)
    assert "Invalid project name 'a/name:that?is%refused'" in caplog.text
    assert "the job goes on without it" in caplog.text


def test_a_dead_service_does_not_fail_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def dead(**_: Any) -> None:
        raise WandbServiceConnectionError("Failed to connect to service\nmore")

    monkeypatch.setattr(wandb, "init", dead)
    with open_tracker(LoggerConfig(mode="offline"), folder=tmp_path, **ARGUMENTS) as tracker:
        assert isinstance(tracker, NullTracker)
    assert "W&B: Failed to connect to service; the job goes on without it" in caplog.text


def test_a_run_that_breaks_later_does_not_fail_the_job(
    tmp_path: Path, record: RunRecord, caplog: pytest.LogCaptureFixture
) -> None:
    with open_tracker(LoggerConfig(), folder=tmp_path, **ARGUMENTS) as tracker:
        assert isinstance(tracker, WandbTracker)
        tracker.run.finish()
        logger = tracker.lightning_logger("seed0")
        logger.log_metrics({"a": 1.0})
        tracker.finish_with(record)
    assert "W&B: " in caplog.text


def test_none_neither_writes_nor_imports_wandb(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from layerfusion.config.job import LoggerConfig
from layerfusion.tracking.tracker import open_tracker
with open_tracker(LoggerConfig(name="none"), folder=Path({str(tmp_path)!r}), name="n", group=None,
                  job_type="train", tags=[], config={{}}) as tracker:
    assert tracker.lightning_logger("seed0") is None
    tracker.finish_with(None)
assert "wandb" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert list(tmp_path.iterdir()) == []


def test_flatten_leaves_out_where_files_come_from_and_what_is_not_set() -> None:
    nested = {"a": {"b": 1, "c": {"d": None}}, "e": [1, 2], "f": [{"g": 3}, {"g": 4}], "h": {}}
    assert flatten(nested) == {"a/b": 1, "e": [1, 2], "f/0/g": 3, "f/1/g": 4}
    nested = {"dataset": {"name": "r8", "sources": [{"hub": "a/b"}], "description": "Topics"}}
    assert flatten(nested) == {"dataset/name": "r8"}
    places = {
        "path": "/home/me",
        "train": "/home/me/a.csv",
        "test": "b.csv",
        "files": {"test": "c"},
    }
    vectors = {"vectors": "/home/me/v.npy", "rows": "/home/me/r.csv", "endpoint": "http://mine"}
    nested = {"dataset": places, "backbone": {"given": vectors | {"max_length": 5}}}
    nested |= {"limit": {"train": 100, "test": 50}}
    assert flatten(nested) == {"backbone/given/max_length": 5, "limit/train": 100, "limit/test": 50}


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        ("layers=adaptive", "adaptive"),
        (
            "layers=fixed layers.fixed.minilm=[3,norm] layers.fixed.smollm2=[4]",
            "minilm:3+minilm:norm+smollm2:4",
        ),
    ],
)
def test_a_run_has_columns_to_group_by(words: str, layers: str) -> None:
    chosen = ["backbone=[minilm,smollm2]", "dataset=r8", "fusion=concat", "pooling=[mean,last]"]
    config = run_config(load(compose("train", [*chosen, *words.split()])))
    assert config["models"] == "minilm+smollm2"
    assert config["layers"] == layers
    assert (config["pooling"], config["fusion"], config["dataset"]) == ("mean+last", "concat", "r8")
    assert config["backbone/smollm2/max_length"] == 512
    assert not [key for key, value in config.items() if "sources" in key or value is None]


def test_a_run_of_a_profile_names_no_head_that_it_does_not_train() -> None:
    config = run_config(load(compose("profile", ["dataset=r8"])), of_profile=True)
    assert (config["pooling"], config["dataset"]) == ("mean", "r8")
    assert "profile/scores" in config
    heads = ("fusion", "trainer", "seeds", "objective")
    assert not [key for key in config if key == "layers" or key.split("/")[0] in heads]


def test_predictions_begin_with_the_surest_mistakes_and_have_texts_only_on_request() -> None:
    columns, rows = prediction_table(ANSWERS)
    assert columns == ["row", "label", "answer", "probability"]
    assert rows == [[1, "neg", "pos", 0.6], [2, "pos", "pos", 0.7], [0, "neg", "neg", 0.9]]
    columns, rows = prediction_table(replace(ANSWERS, texts=["a", "b", "c"]))
    assert columns[-1] == "text"
    assert [row[-1] for row in rows] == ["b", "c", "a"]
    many = np.zeros(5000, int)
    assert (
        len(prediction_table(Answers(["a", "b"], many, many, many + 0.5, text_of=None))[1]) == 2000
    )


SETS = SetAnswers(
    ["a", "b"],
    np.array([[True, False], [True, True], [False, False], [False, True]]),
    np.array([[0.9, 0.1], [0.8, 0.4], [0.2, 0.1], [0.9, 0.1]]),
    text_of=None,
)


def test_predictions_of_sets_name_all_labels_and_begin_with_the_worst() -> None:
    columns, rows = prediction_table(SETS)
    assert columns == ["row", "label", "answer", "log_loss"]
    assert [row[:3] for row in rows] == [
        [3, "b", "a"],
        [1, "a, b", "a"],
        [2, "no label", "no label"],
        [0, "a", "a"],
    ]
    assert rows[0][3] == pytest.approx(-2 * np.log(0.1), abs=1e-4)


def test_sets_have_a_table_of_labels_and_no_confusion(record: RunRecord) -> None:
    shown = job_media(record, SETS)
    assert {"predictions", "calibration", "labels"} <= shown.keys()
    assert "confusion" not in shown
    assert shown["labels"].data == [
        ["a", 2, pytest.approx(2 / 3), 1.0, pytest.approx(0.8)],
        ["b", 2, None, 0.0, 0.0],
    ]
    assert "confusion" in job_media(record, ANSWERS)
    figures = summary(replace(record, test={**record.test, "micro_f1": Estimate(0.9, None)}))
    assert figures["test/micro_f1"] == 0.9


def test_the_mean_curve_covers_the_epochs_of_all_seeds() -> None:
    seeds = {
        "seed0": {0: {"val/log_loss": 1.0, "gates/a": 0.5}, 1: {"val/log_loss": 0.5}},
        "seed1": {0: {"val/log_loss": 2.0, "gates/a": 0.5}},
    }
    (row,) = mean_curves(seeds)
    assert row == {
        "epoch": 0,
        "val/log_loss": 1.5,
        "val/log_loss_lowest": 1.0,
        "val/log_loss_highest": 2.0,
    }
    assert mean_curves({"seed0": seeds["seed0"]})[1] == {"epoch": 1, "val/log_loss": 0.5}
    assert mean_curves({}) == []


def test_a_layer_counts_once_for_all_poolings_and_tf_idf_is_none(record: RunRecord) -> None:
    layer = record.layers[0]
    words = replace(layer, backbone="words", layer="0", pooling="tfidf")
    backbones = {**record.backbones, "words": record.backbones["minilm"]}
    several = replace(
        record,
        layers=[layer, replace(layer, pooling="last"), words],
        backbones=backbones,
        lexical=["words"],
    )
    figures = summary(several)
    assert (figures["layers/count"], figures["layers/sources"]) == (1, 3)


def test_summary_has_the_figures_that_are_known(record: RunRecord) -> None:
    figures = summary(record)
    assert figures["validation/accuracy"] == 0.81
    assert "validation/accuracy_sd" not in figures
    assert figures["test/macro_f1_low"] == 0.78
    assert figures["baseline/accuracy"] == 0.76
    assert figures["cost/head_parameters"] == 1234
    assert figures["cost/minilm/highest_layer"] == "3"
    assert "cost/minilm/milliseconds_per_text" not in figures
