"""Sweeps that survive: failures, kills, two at once, launchers; the same records every time."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from layerfusion.cli import main
from layerfusion.errors import UserError
from layerfusion.records.sweep import FAILED, is_held, read_jobs, short_labels
from layerfusion.runs import honest
from layerfusion.runs.job_texts import _datasets
from layerfusion.runs.sweep import JobBusy, held, status_lines, write_plan
from tests.tiny import tiny_folder, tiny_job, tiny_texts

STOPPED = "layerfusion: stopped; what was finished is kept, the same command goes on\n"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A tiny model, a tiny file, and a cache that all sweeps here share."""
    folder = tmp_path_factory.mktemp("sweeps")
    texts = tiny_texts(folder / "texts.csv", 120)
    job = tiny_job(texts, tiny_folder("bert", folder / "bert"), folder / "cache")
    return [*job, "logger=none", "seeds=1", "fusion.width=8"]


def sweep_words(base: list[str], outputs: Path, *more: str) -> list[str]:
    return ["train", "-m", *base, f"paths.outputs={outputs}", *more]


GRID = ("layers=last,all", "fusion=gated,concat")


@pytest.fixture(scope="session")
def undisturbed(base: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the grid gives when nothing goes wrong."""
    outputs = tmp_path_factory.mktemp("undisturbed")
    assert main(sweep_words(base, outputs, *GRID)) == 0
    found = results(outputs / "sweeps/main")
    assert len(found) == 4
    return found


def results(folder: Path) -> dict[str, Any]:
    """Job to all of its record that does not depend on when and how fast it was made."""
    found = {}
    for path in sorted(folder.glob("*/metrics.json")):
        record = json.loads(path.read_text())
        predictions = pd.read_parquet(path.parent / "predictions.parquet")
        found[path.parent.name] = (
            record["test"],
            record["validation"],
            record["layers"],
            [seed["best_epoch"] for seed in record["seeds"]],
            predictions.pred.tolist(),
            np.stack(predictions.prob.to_list()).tolist(),
        )
    return found


# -- failures -------------------------------------------------------------------------------------


def test_a_failed_job_keeps_its_traceback_and_runs_again(
    base: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right = honest.train_heads

    def wrong(config: Any, *rest: Any) -> Any:
        if config.fusion.name == "concat":
            raise RuntimeError("the lamp is broken")
        return right(config, *rest)

    words = sweep_words(base, tmp_path, "layers=last,all", "fusion=concat,gated")
    monkeypatch.setattr(honest, "train_heads", wrong)
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "RuntimeError: the lamp is broken; traceback in" in said
    folder = tmp_path / "sweeps/main"
    assert len(results(folder)) == 2
    failed = [path.parent for path in folder.glob(f"*/{FAILED}")]
    assert len(failed) == 2
    for job in failed:
        for text in ((job / FAILED).read_text(), (job / "train.log").read_text()):
            assert "Traceback" in text
            assert "in wrong" in text
        assert (job / FAILED).read_text().startswith("layerfusion train dataset=local")
        assert not (job / "metrics.json").exists()
    assert main(["status", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "4 jobs: 2 done, 2 failed, 0 running, 0 missing" in told
    assert "failed: layers=all fusion=concat\n  RuntimeError: the lamp is broken" in told

    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/metrics.json")}
    monkeypatch.setattr(honest, "train_heads", right)
    assert main(words) == 0
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert not list(folder.glob(f"*/{FAILED}"))
    assert "4 jobs: 4 done" in status_lines(folder)[0]


def test_a_job_that_was_done_and_fails_now_is_shown_as_failed(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tiny_texts(tmp_path / "texts.csv", 120)
    words = sweep_words(base, tmp_path, f"dataset.path={texts}")
    assert main(words) == 0
    texts.rename(tmp_path / "away.csv")
    _datasets.clear()  # as in another process
    assert main(words) == 1
    capsys.readouterr()
    folder = tmp_path / "sweeps/main"
    assert main(["status", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "1 job: 0 done, 1 failed" in told
    assert "texts.csv: it does not exist" in told
    (tmp_path / "away.csv").rename(texts)
    before = next(folder.glob("*/metrics.json")).stat().st_mtime_ns
    assert main(words) == 0
    assert "1 done, 0 failed" in status_lines(folder)[0]
    assert next(folder.glob("*/metrics.json")).stat().st_mtime_ns == before


def test_a_folder_that_cannot_be_written_is_told_in_one_line(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for words in (
        sweep_words(base, tmp_path / "file"),
        ["train", *base, f"paths.outputs={tmp_path / 'file'}"],
        ["search", *base, f"paths.outputs={tmp_path / 'file'}"],
    ):
        assert main(words) == 2
        *before, told = capsys.readouterr().err.splitlines()
        assert re.fullmatch(
            r"layerfusion: \S+/file: a file lies where a folder is needed; move it elsewhere", told
        )
        assert before in ([], ["given, so not searched over: fusion.width"])


def test_a_mistake_in_the_grid_is_told_before_any_job(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(sweep_words(base, tmp_path, "fusion.dropout=0.1,3")) == 2
    assert "fusion.dropout=3.0: it must lie in [0, 1)" in capsys.readouterr().err
    assert main(sweep_words(base, tmp_path, "trainer.devices=1,2")) == 2
    assert "DDP would start each of its processes" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.log"))


def test_a_key_of_a_backbone_is_for_the_jobs_that_select_it(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own/backbone"
    own.mkdir(parents=True)
    (path,) = [word.partition("=")[2] for word in base if word.startswith("backbone.tiny.path=")]
    for name in ("one", "two"):
        (own / f"{name}.yaml").write_text(f"{name}: {{sources: [{{path: {path}}}]}}\n")
    words = [word for word in base if not word.startswith("backbone")]
    grid = ["backbone=[one],[two],[one,two]", "backbone.two.max_length=16"]
    grid += ["layers=fixed", "layers.fixed.one=[1]", "layers.fixed.two=[2]"]
    _, _, *given = sweep_words(words, tmp_path, f"--config-dir={own.parent}", *grid)
    assert main(["train", *given, "-m"]) == 0  # flags may stand anywhere
    lengths = {}
    for file in (tmp_path / "sweeps/main").glob("*/config.yaml"):
        models = yaml.safe_load(file.read_text())["backbone"]
        lengths["+".join(models)] = [one["max_length"] for one in models.values()]
    default = lengths["one"]
    assert lengths == {"one": default, "two": [16], "one+two": [*default, 16]}
    assert default != [16]
    capsys.readouterr()
    assert main(["train", "-m", *given, "backbone.minilm.max_length=16"]) == 2  # no job selects it
    assert "backbone.minilm: it has no path; is it selected" in capsys.readouterr().err


def test_jobs_with_the_same_result_run_once(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # `k` means nothing to layers=last, and where a store lies nothing to any result.
    words = sweep_words(base, tmp_path, "layers.k=2,3", "extract.shard_texts=8,9")
    assert main(words) == 0
    assert "3 of 4 jobs give the same result as another" in capsys.readouterr().err
    assert len(results(tmp_path / "sweeps/main")) == 1


@pytest.mark.parametrize("command", ["extract", "plan"])
def test_parts_of_an_extraction_leave_the_jobs_of_a_sweep_alone(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    words = [*base, f"paths.outputs={tmp_path}", "dataset.path=gone.csv", "extract.num_shards=2"]
    assert main([command, "-m", *words, "extract.shard=0,1"]) == 1
    said = capsys.readouterr().err
    assert f"failed.txt in their folders under {tmp_path / command / 'main'} says why" in said
    failed = list(tmp_path.rglob(FAILED))
    assert len({path.parent for path in failed}) == 2
    assert all(path.is_relative_to(tmp_path / command) for path in failed)


# -- status ---------------------------------------------------------------------------------------


def test_labels_leave_out_what_all_jobs_share() -> None:
    planned = {
        "a": ["dataset=r8", "seeds=2", "fusion=gated", "hydra/launcher=joblib"],
        "b": ["dataset=r8", "seeds=2", "fusion=concat"],
    }
    assert short_labels(planned) == {"a": "fusion=gated", "b": "fusion=concat"}
    assert short_labels({"a": ["dataset=r8"]}) == {"a": "dataset=r8"}


@pytest.mark.parametrize("content", ['{"comm', "[]", "{}", '{"command": "train", "jobs": 3}'])
def test_a_damaged_plan_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    write_plan(tmp_path, "train", {"a": ["seed=1"]})
    (tmp_path / ".plans/damaged.json").write_text(content)
    assert main(["status", str(tmp_path)]) == 2
    assert f"{tmp_path}/.plans/damaged.json: not the plan of a sweep" in capsys.readouterr().err


def test_status_counts_and_estimates(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sweep was started here"):
        status_lines(tmp_path)
    write_plan(tmp_path, "train", {name: [f"seed={name}"] for name in "abcd"})
    write_plan(tmp_path, "train", {name: [f"seed={name}"] for name in "de"})  # another grid
    assert [job.label for job in read_jobs(tmp_path)] == [f"seed={n}" for n in "abcde"]
    assert "unknown until the first job" in status_lines(tmp_path)[1]
    for name, seconds in (("a", 100), ("b", 300)):
        (tmp_path / name).mkdir()
        for file, when in (("config.yaml", 1000), ("metrics.json", 1000 + seconds)):
            (tmp_path / name / file).write_text('{"job": "abc"}')
            os.utime(tmp_path / name / file, (when, when))
    with held(tmp_path / "c", wait=False), held(tmp_path / "d", wait=False):
        lines = status_lines(tmp_path)
        assert "5 jobs: 2 done, 0 failed, 2 running, 1 missing" in lines[0]
        # three jobs of 200 s, two at a time
        assert "about 5 min (3 min a job, 2 at a time)" in lines[1]
    assert "3 missing" in status_lines(tmp_path)[0]
    assert "about 10 min" in status_lines(tmp_path)[1]


def test_a_folder_is_held_by_one_process_and_freed_by_a_kill(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from layerfusion.runs.sweep import held\n"
        "with held(Path(sys.argv[1]), wait=False): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    assert is_held(tmp_path)
    with pytest.raises(JobBusy), held(tmp_path, wait=False):
        pass
    other.kill()
    other.wait()
    other.stdout.close()
    assert not is_held(tmp_path)


def test_looking_at_a_folder_needs_no_more_than_to_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plan(tmp_path, "train", {"a": ["seed=1"], "b": ["seed=2"]})
    right = os.open

    def read_only(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return right(path, flags, *rest, **more)

    with held(tmp_path / "b", wait=False):
        pass
    with held(tmp_path / "a", wait=False):
        monkeypatch.setattr(os, "open", read_only)
        assert "2 jobs: 0 done, 0 failed, 1 running, 1 missing" in status_lines(tmp_path)[0]
        monkeypatch.undo()


# -- kills and company ----------------------------------------------------------------------------


def start(words: list[str], **changes: str) -> subprocess.Popen[str]:
    environment = {**os.environ, **changes}
    return subprocess.Popen(
        [sys.executable, "-m", "layerfusion", *words],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_was_stopped_goes_on(
    base: list[str], tmp_path: Path, undisturbed: dict[str, Any], number: signal.Signals
) -> None:
    words = sweep_words(base, tmp_path, *GRID)
    folder = tmp_path / "sweeps/main"
    process = start(words)
    generator = np.random.default_rng()
    while not list(folder.glob("*/train.log")) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(generator.uniform(0, 2))
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    if number != signal.SIGKILL and process.returncode != 0:
        # Python itself ends by the signal where it comes while the interpreter shuts down.
        assert process.returncode in (128 + number, -number)
        if process.returncode > 0:
            assert said.endswith(STOPPED)
    states = {job.state for job in read_jobs(folder)}
    assert "running" not in states
    assert "failed" not in states
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/metrics.json")}
    assert main(words) == 0
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert results(folder) == undisturbed


def test_two_sweeps_on_one_folder_share_the_jobs(
    base: list[str], tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    words = sweep_words(base, tmp_path, *GRID)
    both = [start(words), start(words)]
    for process in both:
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 0, said
    folder = tmp_path / "sweeps/main"
    assert results(folder) == undisturbed
    for log in folder.glob("*/train.log"):
        assert log.read_text().count("test accuracy") >= 1
        made = [line for line in log.read_text().splitlines() if "][INFO] record: " in line]
        before = [line for line in log.read_text().splitlines() if "finished before" in line]
        assert len(made) - len(before) == 1  # trained by one of them only


# -- launchers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        ["hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"],
        ["hydra/launcher=ray", "hydra.launcher.init.num_cpus=2"],
    ],
    ids=["joblib", "submitit", "ray"],
)
def test_every_launcher_gives_the_same_numbers(
    base: list[str], tmp_path: Path, undisturbed: dict[str, Any], launcher: list[str]
) -> None:
    """One job is there already, from another launcher, and two fail."""
    if launcher[0].endswith("ray") and find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'layerfusion[ray]'")
    assert main(sweep_words(base, tmp_path, "layers=last", "fusion=gated")) == 0
    done = next((tmp_path / "sweeps/main").glob("*/metrics.json"))
    before = done.stat().st_mtime_ns
    grid = ["layers=last,all", "fusion=gated", "dataset.text=text,words"]
    ran = start(sweep_words(base, tmp_path, *grid, *launcher))
    said = ran.communicate(timeout=500)[1]
    assert ran.returncode == 1, said
    assert "Traceback" not in said
    assert "2 of 4 jobs failed; `layerfusion status" in said
    folder = tmp_path / "sweeps/main"
    found = results(folder)
    assert len(found) == 2
    assert found == {name: undisturbed[name] for name in found}
    assert done.stat().st_mtime_ns == before
    failed = [job for job in read_jobs(folder) if job.state == "failed"]
    assert len(failed) == 2
    assert all("words" in job.reason for job in failed)


def test_an_unknown_launcher_is_told(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(sweep_words(base, tmp_path, "hydra/launcher=slurm")) == 2
    said = capsys.readouterr().err
    assert "hydra/launcher: there is no 'slurm'; there are: joblib, ray, basic, submitit" in said


# -- a folder holds the result of one job ----------------------------------------------------------


@pytest.mark.parametrize("other", ["layers=all", "fusion=concat", "seeds=2", "seed=1"])
def test_a_folder_with_the_result_of_other_settings_is_refused(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    words = ["train", *base, f"hydra.run.dir={tmp_path / 'job'}"]
    assert main([*words, "layers=last"]) == 0
    before = (tmp_path / "job/metrics.json").read_bytes()
    assert main([*words, "layers=last", other]) == 2
    assert "it holds the result of a job with other settings" in capsys.readouterr().err
    assert (tmp_path / "job/metrics.json").read_bytes() == before
    assert main([*words, "layers=last"]) == 0  # its own job is read


@pytest.mark.parametrize(
    "word",
    [
        "sweep=../../outside",
        "sweep=../a,../b",
        "sweep=FOLDER/outside",
        "hydra.sweep.subdir=../../../outside",
        "hydra.sweep.subdir=FOLDER/outside",
        "hydra.sweep.subdir=../../../${layers.name}",
    ],
)
def test_no_name_leads_out_of_the_outputs(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    word = word.replace("FOLDER", str(tmp_path))
    outputs = f"paths.outputs={tmp_path}/outputs"
    assert main(["train", "-m", *base, outputs, "layers=last,all", word]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"layerfusion: {word.partition('=')[0]}")
    assert not list(tmp_path.iterdir())


def test_jobs_that_would_share_a_folder_are_refused_before_the_first(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = "hydra.sweep.subdir=${fusion.name}"
    assert main([*sweep_words(base, tmp_path, *GRID), shared]) == 2
    error = capsys.readouterr().err
    assert "hydra.sweep.subdir=gated: jobs of different settings would share" in error
    assert "(layers=last and layers=all)" in error
    assert not list(tmp_path.rglob("metrics.json"))
    words = sweep_words(base, tmp_path, "fusion=gated,concat", shared)
    assert main([*words, "layers=last"]) == 0
    assert main([*words, "layers=last"]) == 0  # the same jobs again
    assert main([*words, "layers=all"]) == 2
    assert "it holds the result of a job with other settings" in capsys.readouterr().err


def test_a_sweep_numbers_its_jobs_and_says_what_they_share_once(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(sweep_words(base, tmp_path, *GRID)) == 0
    said = [re.sub(r" … .* left$", "", one) for one in capsys.readouterr().err.splitlines()]
    jobs = [f"[{n}/4] {one}" for n, one in enumerate(read_labels(tmp_path / "sweeps/main"), 1)]
    assert [one for one in said if re.match(r"\[\d/4\]", one)] == jobs
    shared = [one for one in said if ": note: " in one or ": baseline " in one or ": from " in one]
    assert len(shared) >= 4
    assert len(set(shared)) == len(shared)
    logs = [path.read_text() for path in (tmp_path / "sweeps/main").glob("*/train.log")]
    assert len(logs) == 4
    for log in logs:  # each job's own log has it all, and nothing of another job
        lines = [line.partition("][INFO] ")[2] for line in log.splitlines()]
        assert len(set(lines)) == len(lines)
        assert {one for one in shared if ": note: " in one} <= set(lines)
        assert sum(line.startswith("[") for line in lines) == 1
        assert lines[0] in [re.sub(r" … .* left$", "", one) for one in jobs] or "left" in lines[0]


def read_labels(folder: Path) -> list[str]:
    """What sets the jobs of a sweep apart, in the order of the plan."""
    return [job.label for job in read_jobs(folder)]
