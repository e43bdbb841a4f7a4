"""Measure the overhead of a job in a sweep beyond its training.

Run: python -m benchmarks.sweep [KEY=VALUE ...] [--jobs 20] [--repeats 5] [--json FILE]
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.turns import REPEATS, keep, parser, spread
from layerfusion.cli import main

JOBS = 20
DATA = ("dataset=sms_spam", "limit.train=1000", "limit.test=500", "backbone=[minilm]")
QUICK = ("logger=none", "seeds=1", "trainer.max_epochs=2")


def run(
    jobs: int = JOBS,
    data: Sequence[str] = DATA,
    repeats: int = REPEATS,
    path: Path | None = None,
) -> None:
    """Sweep over quick jobs on cached layers; report the seconds of a job and of its training."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        words = [*data, *QUICK, "fusion=concat"]
        main(["train", *words, f"paths.outputs={folder}/warm"])  # downloads, extraction, imports
        for repeat in range(repeats):
            figures.append(_sweep([*words, f"paths.outputs={folder}/{repeat}"], jobs))
    title = f"sweep: {jobs} jobs of {' '.join(data)} in one process"
    each, training = ([one[n] for one in figures] for n in range(2))
    print(f"{title}, seconds a job")
    print(f"  in all: {spread(each)}")
    print(f"  of it training: {spread(training)}")
    print(f"  overhead: {spread([a - b for a, b in figures])}")
    keep(title, {"a job": each, "training": training}, path)


def _sweep(words: Sequence[str], jobs: int) -> tuple[float, float]:
    """Return the seconds of a job, and those that its training took."""
    widths = ",".join(str(width) for width in range(8, 8 + jobs))
    begun = time.perf_counter()
    code = main(["train", "-m", *words, f"fusion.width={widths}"])
    seconds = (time.perf_counter() - begun) / jobs
    place = words[-1].partition("=")[2]
    records = Path(place).glob("sweeps/main/*/metrics.json")
    trained = [json.loads(record.read_text())["cost"]["train_seconds"] for record in records]
    if code or len(trained) != jobs:
        raise SystemExit(f"{len(trained)} of {jobs} jobs finished")
    return seconds, statistics.mean(trained)


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("words", nargs="*", help="settings KEY=VALUE of the jobs")
    options.add_argument("--jobs", type=int, default=JOBS)
    asked = options.parse_intermixed_args()
    run(asked.jobs, asked.words or DATA, asked.repeats, asked.json)
