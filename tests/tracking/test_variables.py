"""The variables of W&B: which a run heeds, and that none of them makes one run of a sweep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from layerfusion.config.job import LoggerConfig
from layerfusion.tracking import variables
from layerfusion.tracking.variables import asked_mode, entity_of, project_of, run_arguments
from tests.tiny import tiny_folder, tiny_job, tiny_texts
from tests.tracking.wandb_file import VARIABLES, OfflineRun, parse

OWN: dict[str, Any] = {
    "name": "mr last of tiny gated",
    "group": None,
    "job_type": "train",
    "tags": ["honest"],
}
SET = {
    "PROJECT": "theirs",
    "ENTITY": "team",
    "NAME": "night",
    "RUN_GROUP": "paper",
    "TAGS": "a, b",
    "NOTES": "first try",
    "JOB_TYPE": "ablation",
    "RUN_ID": "fixed",
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setattr(variables, "_TOLD", set())


@pytest.fixture
def all_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SET.items():
        monkeypatch.setenv(f"WANDB_{name}", value)


def arguments(folder: Path, logger: LoggerConfig | None = None, **changes: Any) -> dict[str, Any]:
    return run_arguments(logger or LoggerConfig(), folder=folder, **{**OWN, **changes})


def test_without_variables_our_defaults_hold(tmp_path: Path) -> None:
    found = arguments(tmp_path, group="depth")
    assert (found["project"], found["entity"], found["group"]) == ("layerfusion", None, "depth")
    assert (found["name"], found["job_type"], found["tags"]) == (OWN["name"], "train", ["honest"])
    assert found["dir"] == str(tmp_path)


@pytest.mark.usefixtures("all_set")
def test_a_job_by_itself_heeds_every_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("WANDB_RESUME", "allow")
    assert arguments(tmp_path) == {
        "project": "theirs",
        "entity": "team",
        "dir": str(tmp_path / "elsewhere"),
        "group": "paper",
        "job_type": "ablation",
        "notes": "first try",
        "tags": ["a", "b", "honest"],
        "name": "night",
        "id": "fixed",
        "resume": "allow",
    }


def test_a_folder_that_cannot_be_made_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "file/wandb"))
    assert [arguments(tmp_path)["dir"] for _ in range(2)] == [str(tmp_path)] * 2
    assert [record.getMessage() for record in caplog.records] == [
        f"W&B: WANDB_DIR={tmp_path}/file/wandb: Not a directory; its files go to the job's"
    ]


@pytest.mark.usefixtures("all_set")
def test_a_key_of_the_config_wins_over_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = LoggerConfig(project="mine", entity="me", group="g", tags=["t"], mode="online")
    found = arguments(tmp_path, logger, group="depth")
    assert (found["project"], found["entity"], found["group"]) == ("mine", "me", "g")
    assert found["tags"] == ["t", "honest"]
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DISABLED", "true")
    assert asked_mode("online") == "online"
    assert asked_mode("auto") == "disabled"
    monkeypatch.setenv("WANDB_DISABLED", "false")
    assert asked_mode("auto") == "offline"
    assert (project_of(LoggerConfig()), entity_of(LoggerConfig())) == ("theirs", "team")


@pytest.mark.usefixtures("all_set")
def test_a_sweep_neither_merges_nor_renames_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_RESUME", "must")
    monkeypatch.setenv("WANDB_NAME", "n" * 200)
    found = [arguments(tmp_path / job, group="depth") for job in ("one", "two")]
    for key in ("name", "id"):
        assert found[0][key] != found[1][key]
    assert "fixed" not in [one["id"] for one in found]
    for one, job in zip(found, ("one", "two"), strict=True):
        assert one["name"].startswith("nnn")
        assert one["name"].endswith(f" mr last of tiny gated {job}")
        assert len(one["name"]) == 128
        assert one["resume"] == "never"
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3  # each variable once
    assert {line.split()[4] for line in lines} == {"WANDB_NAME", "WANDB_RUN_ID", "WANDB_RESUME"}


def test_a_killed_job_resumes_its_own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for group in ("depth", None):
        assert arguments(tmp_path, group=group)["resume"] == "auto"
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))  # one folder for all: the run of another job
    for group in ("depth", None):
        assert arguments(tmp_path, group=group)["resume"] is None
    monkeypatch.setenv("WANDB_RESUME", "auto")
    assert arguments(tmp_path, group="depth")["resume"] == "never"


def test_an_agent_says_which_run_a_job_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named or not, it is one job, and no variable of the agent's is taken for the user's."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    for group in ("depth", None):
        found = arguments(tmp_path, LoggerConfig(project="mine"), group=group)
        for key in ("project", "entity", "id", "resume"):
            assert found[key] is None
        assert found["name"] == OWN["name"]


def test_the_jobs_of_a_real_sweep_are_runs_of_their_own(tmp_path: Path) -> None:
    job = tiny_job(
        tiny_texts(tmp_path / "texts.csv", 40), tiny_folder("bert", tmp_path / "bert"), tmp_path
    )
    words = [*job, "seeds=1", "fusion.width=4", "layers=last,all", "trainer.max_epochs=1"]
    words += [f"hydra.sweep.dir={tmp_path}/own"]  # not below outputs/sweeps
    words += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    here = {**os.environ, "WANDB_MODE": "offline", "WANDB_CONFIG_DIR": str(tmp_path)}
    here |= {f"WANDB_{name}": value for name, value in SET.items()}
    here.pop("WANDB_RUN_GROUP")
    done = subprocess.run(
        [sys.executable, "-m", "layerfusion", "train", "-m", *words],
        env=here,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "WANDB_RUN_ID would merge all jobs into one run" in done.stderr
    runs = _runs(tmp_path / "own")
    assert len(runs) == 2
    for key in ("run_id", "display_name"):
        assert len({run.run[key] for run in runs}) == 2
    for run in runs:
        assert run.run["display_name"].startswith("night texts ")
        assert (run.run["project"], run.run["entity"]) == ("theirs", "team")
        assert (run.run["run_group"], run.run["job_type"]) == ("own", "ablation")
        assert run.run["tags"][:2] == ["a", "b"]


def _runs(folder: Path) -> list[OfflineRun]:
    return [parse(path.read_bytes()) for path in folder.rglob("*.wandb")]
