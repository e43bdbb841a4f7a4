"""Two workers of each launcher, one of them killed midway: the same command does the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from layerfusion.cli import main
from layerfusion.embeddings.shards import open_shard
from tests.tiny import tiny_folder, tiny_job, tiny_texts

ROOT = Path(__file__).parents[2]
WORKERS = {
    "joblib": ("loky", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
    "submitit": (
        "submitit.core._submit",
        ["hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"],
    ),
    "ray": ("ray::run_elsewhere", ["hydra/launcher=ray", "hydra.launcher.init.num_cpus=2"]),
}
"""What the command line of a worker holds, and the words that start two of them."""


@pytest.mark.parametrize("launcher", WORKERS)
def test_a_killed_worker_costs_no_more_than_its_own_work(tmp_path: Path, launcher: str) -> None:
    """Two parts of the texts are extracted side by side, with shards of a few texts each."""
    marked, words = WORKERS[launcher]
    texts = tiny_texts(tmp_path / "texts.csv", 120)
    model = tiny_folder("bert", tmp_path / "bert")
    job = [*tiny_job(texts, model, tmp_path / "cache"), f"paths.outputs={tmp_path / 'out'}"]
    shards = ["extract.shard_texts=3", "extract.num_shards=2", "extract.shard=0,1"]
    command = ["extract", "-m", *job, *shards, *words]
    first = subprocess.Popen(
        [sys.executable, "-m", "layerfusion", *command],
        cwd=ROOT,
        env=dict(os.environ),
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(written(tmp_path)) < 6 and first.poll() is None:
        time.sleep(0.01)
    killed = [process for process in workers(first.pid) if marked in line_of(process)]
    for process in killed[:1]:
        process.kill()
    said = first.communicate(timeout=120)[1]
    if launcher != "joblib":  # a helper process of loky prints one of its own
        assert "Traceback" not in said
    kept = {path: path.stat().st_mtime_ns for path in written(tmp_path)}
    assert first.returncode in (0, 1), said  # Ray starts another worker by itself
    if first.returncode:
        assert "the launcher stopped" in said
        assert "the same command goes on" in said
    assert killed, "no worker was found"
    assert main([word for word in command if word not in words]) == 0
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in written(tmp_path)}.items()
    again = main(["extract", *job])  # nothing is left to do for one process
    assert again == 0
    (folder,) = (tmp_path / "cache/embeddings").iterdir()
    opened = [open_shard(path) for path in folder.glob("*.safetensors")]
    found = np.concatenate([hashes for _, hashes in opened])
    assert len(found) == len(np.unique(found, axis=0)) == 120  # each text once, in one part
    assert kept.keys() | {shard.path for shard, _ in opened} == {s.path for s, _ in opened}


def written(folder: Path) -> list[Path]:
    return list((folder / "cache/embeddings").glob("*/*.safetensors"))


def workers(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def line_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_workers_end_soon_after_a_killed_parent(tmp_path: Path) -> None:
    """Each finishes its job, and holds no memory for the next start to do without."""
    texts = tiny_texts(tmp_path / "texts.csv", 60)
    model = tiny_folder("bert", tmp_path / "bert")
    job = [*tiny_job(texts, model, tmp_path / "cache"), f"paths.outputs={tmp_path / 'out'}"]
    sweep = ["seeds=2", "layers=last,all", "fusion=gated,concat,sum", "logger=none"]
    words = WORKERS["joblib"][1]
    parent = subprocess.Popen(
        [sys.executable, "-m", "layerfusion", "train", "-m", *job, *sweep, *words],
        cwd=ROOT,
        env=dict(os.environ),
        stderr=subprocess.DEVNULL,
    )
    while not list(tmp_path.glob("out/**/metrics.json")) and parent.poll() is None:
        time.sleep(0.05)
    left = [x for x in workers(parent.pid) if "loky" in line_of(x) and "LokyProcess" in line_of(x)]
    assert left, "no worker was found"
    parent.kill()
    parent.wait(timeout=30)
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive
