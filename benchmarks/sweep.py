"""Measure the overhead of a job in a sweep beyond its training: python -m benchmarks.sweep."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from layerfusion.cli import main

JOBS = 100
DATA = ("dataset=sms_spam", "limit.train=1000", "limit.test=500", "backbone=[minilm]")
QUICK = ("logger=none", "seeds=1", "trainer.max_epochs=2")


def run(jobs: int = JOBS, data: tuple[str, ...] = DATA) -> str:
    """Sweep over quick jobs on cached layers; report the seconds of a job and of its training."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*data, *QUICK, f"paths.outputs={folder}", "fusion=concat"]
        main(["train", *words])  # downloads, extraction, imports
        widths = ",".join(str(width) for width in range(8, 8 + jobs))
        begun = time.perf_counter()
        code = main(["train", "-m", *words, f"fusion.width={widths}"])
        seconds = (time.perf_counter() - begun) / jobs
        records = Path(folder).glob("sweeps/main/*/metrics.json")
        trained = [json.loads(path.read_text())["cost"]["train_seconds"] for path in records]
    if code or len(trained) != jobs:
        raise SystemExit(f"{len(trained)} of {jobs} jobs finished")
    training = statistics.mean(trained)
    return (
        f"{jobs} jobs in one process: {seconds:.2f} s a job, {training:.2f} s of that training,"
        f" {seconds - training:.2f} s overhead"
    )


if __name__ == "__main__":
    print(run(data=tuple(sys.argv[1:]) or DATA))
