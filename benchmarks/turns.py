"""Runs that take turns, so that a machine that becomes slower is so for all of them."""

from __future__ import annotations

import json
import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

REPEATS = 5


def parser(description: str | None) -> ArgumentParser:
    """Make a parser with the options of every benchmark."""
    made = ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--repeats", type=int, default=REPEATS, help="how often all take turns")
    made.add_argument("--json", type=Path, help="file that keeps the seconds of every run")
    return made


def take_turns(
    runs: Mapping[str, Callable[[], object]], repeats: int = REPEATS
) -> dict[str, list[float]]:
    """Time some runs, each once a repeat, forwards and backwards in turn.

    Returns:
        The seconds of each run in the order of the repeats.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats):
        for name in list(runs)[:: 1 if repeat % 2 == 0 else -1]:
            begun = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def show(title: str, seconds: Mapping[str, Sequence[float]], path: Path | None) -> None:
    """Print each run's median and range, and its ratios to the first one, pair by pair.

    Args:
        title: what was measured. It is the key in the file.
        seconds: the seconds of each run; the first is ours.
        path: JSON that keeps them beside those of other benchmarks, if any.
    """
    ours, *_ = seconds
    print(title)
    for name, each in seconds.items():
        ratios = [other / own for other, own in zip(each, seconds[ours], strict=True)]
        beside = "" if name == ours else f"; {spread(ratios)} times ours"
        print(f"  {name}: {spread(each)} s{beside}", flush=True)
    keep(title, {name: list(each) for name, each in seconds.items()}, path)


def keep(title: str, figures: Any, path: Path | None) -> None:
    """Write figures to a JSON file under a key, if there is a file; others stay."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(kept | {title: figures}, indent=1) + "\n")


def spread(values: Sequence[float]) -> str:
    """Write a median with the range, such as `1.20 (1.10 to 1.40)`."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
