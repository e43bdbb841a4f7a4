"""A long sweep in one process: memory, threads and open files stay flat."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from tests.trust.world import Ended, World, start

JOBS = int(os.environ.get("TRUST_JOBS", "0"))
FROM = 0.4
"""Share of the jobs after which nothing may grow any more."""
SLACK = 2
"""Threads or files that a job may have more of at the moment of a look."""
GROWTH = 1.10
"""Largest growth of the memory from there to the end."""


@pytest.mark.skipif(not JOBS, reason="it takes minutes: `make trust` runs it")
def test_a_long_sweep_stays_flat(tmp_path: Path) -> None:
    world = World(tmp_path / "world").make()
    words = [*world.commands["sweep"], "layers=last", "lexical=[]", "trainer.max_epochs=1"]
    words = [word for word in words if not word.startswith(("fusion=", "fusion.width="))]
    said = world.root / ".said"
    sweep = start([*words, f"fusion.width=range(4,{4 + JOBS})"], said, world.root)
    process = psutil.Process(sweep.pid)
    seen: list[tuple[int, float, int, int]] = []
    while sweep.is_alive():
        done = len(list(world.out.glob("sweeps/grid/*/metrics.json")))
        try:
            with process.oneshot():
                facts = (
                    process.memory_info().rss / 2**20,
                    process.num_threads(),
                    process.num_fds(),
                )
        except psutil.Error:
            break
        if done and (not seen or done > seen[-1][0]):
            seen.append((done, *facts))
        time.sleep(0.1)
    sweep.join()
    assert Ended(sweep.exitcode, said.read_text()).code == 0, said.read_text()[-2000:]
    assert len(list(world.out.glob("sweeps/grid/*/metrics.json"))) == JOBS
    for done, memory, threads, files in seen[:: max(1, len(seen) // 10)]:
        print(f"\n{done:4d} jobs: {memory:7.1f} MB, {threads} threads, {files} open files", end="")
    late = [x for x in seen if x[0] >= FROM * JOBS]
    middle = late[: max(1, len(late) // 4)]
    assert max(x[1] for x in late) <= GROWTH * max(x[1] for x in middle)
    for number in (2, 3):
        assert max(x[number] for x in late) <= SLACK + max(x[number] for x in middle)
