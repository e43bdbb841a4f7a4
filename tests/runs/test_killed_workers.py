"""Two workers of each launcher, one of them killed midway: the same command does the rest.

The workers stop in a pooling until the test lets them go on, so that it finds them at their work on
a machine of any speed.
"""

from __future__ import annotations

import os
import signal
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
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"],
    "ray": ["hydra/launcher=ray", "hydra.launcher.init.num_cpus=2"],
}
"""The words that start two workers."""
SOON = 240
"""Seconds after which a worker would still be there if it waited for joblib's own end, of 300."""
BEFORE = 6
"""Shards that are written before the workers stop."""
HELD = f'''
import os
import time
from pathlib import Path

HERE = Path(__file__).parent


def held(hidden, start, stop):
    """The first token; a worker that has written enough says who it is, and waits."""
    if len(list(HERE.parent.glob("cache/embeddings/*/*.safetensors"))) >= {BEFORE}:
        (HERE / f"{{os.getpid()}}.held").touch()
        while not (HERE / "go").exists():
            time.sleep(0.01)
    return hidden[range(len(start)), start]
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with the pooling in which workers stop."""
    folder = tmp_path / "own"
    (folder / "pooling").mkdir(parents=True)
    (folder / "holding.py").write_text(HELD)
    (folder / "pooling/held.yaml").write_text("held:\n  pool: holding:held\n")
    return folder


def parts(folder: Path, own: Path) -> list[str]:
    """Two jobs: each extracts its part of some texts, in shards of a few."""
    texts = tiny_texts(folder / "texts.csv", 120)
    model = tiny_folder("bert", folder / "bert")
    job = [f"--config-dir={own}", *tiny_job(texts, model, folder / "cache"), "pooling=held"]
    job += [f"paths.outputs={folder / 'out'}"]
    return ["extract", "-m", *job, "extract.shard_texts=3", "extract.num_shards=2",
            "extract.shard=0,1"]  # fmt: skip


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "layerfusion", *words],
        cwd=ROOT,
        env=dict(os.environ),
        stderr=subprocess.PIPE,
        text=True,
    )


def held_workers(own: Path, parent: subprocess.Popen[str]) -> list[psutil.Process]:
    """Wait until both workers stand still; fewer where the command has ended before."""
    while len(found := list(own.glob("*.held"))) < 2 and parent.poll() is None:
        time.sleep(0.01)
    return [psutil.Process(int(one.stem)) for one in found]


@pytest.mark.parametrize("launcher", WORKERS)
def test_a_killed_worker_costs_no_more_than_its_own_work(
    tmp_path: Path, own: Path, launcher: str
) -> None:
    words = parts(tmp_path, own)
    first = start([*words, *WORKERS[launcher]])
    try:
        killed, _ = held_workers(own, first)
        killed.kill()
    finally:
        (own / "go").touch()
    said = first.communicate()[1]
    if launcher != "joblib":  # a helper process of loky prints one of its own
        assert "Traceback" not in said
    kept = {path: path.stat().st_mtime_ns for path in written(tmp_path)}
    assert len(kept) >= BEFORE
    assert first.returncode in (0, 1), said  # Ray starts another worker by itself
    if first.returncode:
        assert "the launcher stopped" in said
        assert "the same command goes on" in said
    assert main(words) == 0
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in written(tmp_path)}.items()
    whole = [word for word in words if word != "-m" and not word.startswith("extract.")]
    assert main(whole) == 0  # nothing is left to do for one process
    (folder,) = (tmp_path / "cache/embeddings").iterdir()
    opened = [open_shard(path) for path in folder.glob("*.safetensors")]
    found = np.concatenate([hashes for _, hashes in opened])
    assert len(found) == len(np.unique(found, axis=0)) == 120  # each text once, in one part
    assert kept.keys() | {shard.path for shard, _ in opened} == {s.path for s, _ in opened}


def written(folder: Path) -> list[Path]:
    return list((folder / "cache/embeddings").glob("*/*.safetensors"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(tmp_path: Path, own: Path, number: signal.Signals) -> None:
    """After a kill each finishes its job first; they hold no memory that the next start lacks."""
    words = parts(tmp_path, own)
    parent = start([*words, *WORKERS["joblib"]])
    try:
        left = held_workers(own, parent)
        assert len(left) == 2
        parent.send_signal(number)
        parent.wait()
        if number == signal.SIGKILL:
            (own / "go").touch()
        _, alive = psutil.wait_procs(left, timeout=SOON)
        assert not alive
    finally:
        (own / "go").touch()
    said = parent.communicate()[1]
    if number == signal.SIGKILL:
        before = written(tmp_path)
        assert main(words) == 0
        assert written(tmp_path) == before  # nothing was left to do
    else:
        assert parent.returncode == 128 + number
        assert "layerfusion: stopped; what was finished is kept, the same command goes on" in said
