"""Write the results of `benchmarks.rivals` as tables and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerfusion.statistics.intervals import Difference, paired_interval
from layerfusion.statistics.significance import PairedTest, holm, mcnemar

TITLES = (
    "test %",
    "macro-F1 %",
    "auto ahead by, points",
    "p (Holm)",
    "seconds",
    "GFLOPs a text",
)


@dataclass(frozen=True)
class Result:
    """Result of one rival on one data set."""

    name: str
    correct: np.ndarray
    """Share of the runs that predict each test row correctly. Shape: (rows,)."""
    agreed: np.ndarray
    """True where the consensus of the runs is correct. Shape: (rows,), bool."""
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    """Confidence intervals of accuracy and macro-F1."""
    seconds: float
    flops: float | None
    """FLOPs for one text; None if they are not counted."""
    what: str = ""
    """Settings or layers that the rival chose."""


@dataclass(frozen=True)
class Race:
    """Results of all rivals on one data set, `auto` first."""

    name: str
    rows: Mapping[str, int]
    fingerprint: str
    target: np.ndarray
    text_of: np.ndarray
    """The first row of test that has the text of each. Shape: (rows,), int64."""
    results: tuple[Result, ...]

    def compared(self) -> list[tuple[Result, Difference, PairedTest]]:
        """Compare `auto` with each rival: the paired difference, and the exact test."""
        auto = self.results[0]
        return [
            (
                rival,
                paired_interval(auto.correct, rival.correct, self.target, text_of=self.text_of),
                mcnemar(auto.agreed, rival.agreed, text_of=self.text_of),
            )
            for rival in self.results[1:]
        ]


def as_json(races: Sequence[Race], settings: Sequence[str]) -> dict[str, Any]:
    """Return all figures, with p values adjusted over the comparisons of all data sets."""
    adjusted = iter(holm([test.p for race in races for *_, test in race.compared()]))
    found: dict[str, Any] = {"settings": list(settings), "datasets": {}}
    for race in races:
        against = {
            rival.name: {
                "difference": difference.mean,
                "low": difference.low,
                "high": difference.high,
                "only_auto": test.only_a,
                "only_rival": test.only_b,
                "p": test.p,
                "p_holm": next(adjusted),
            }
            for rival, difference, test in race.compared()
        }
        found["datasets"][race.name] = {
            "rows": dict(race.rows),
            "fingerprint": race.fingerprint,
            "rivals": {
                one.name: {
                    **dict(one.metrics),
                    "intervals": {name: list(ends) for name, ends in one.intervals.items()},
                    "seconds": one.seconds,
                    "flops_per_text": one.flops,
                    "what": one.what,
                    **({"auto_ahead": against[one.name]} if one.name in against else {}),
                }
                for one in race.results
            },
        }
    return found


def as_text(races: Sequence[Race]) -> str:
    """Write one Markdown table for each data set."""
    figures = as_json(races, ())["datasets"]
    lines = []
    for race in races:
        rows = race.rows
        learned = rows["train"] + rows["validation"]
        lines += [
            f"{race.name}: {learned} rows to learn and choose from, {rows['test']} test rows.",
            "",
            f"| | {' | '.join(TITLES)} |",
            f"|---|{'---:|' * len(TITLES)}",
        ]
        for name, one in figures[race.name]["rivals"].items():
            lines.append(f"| {name} | {' | '.join(_cells(one))} |")
        lines += ["", *(f"{one.name}: {one.what}" for one in race.results if one.what), ""]
    return "\n".join(lines)


def _cells(one: Mapping[str, Any]) -> list[str]:
    ahead = one.get("auto_ahead")
    cells = [
        f"{100 * one[name]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        for name, (low, high) in one["intervals"].items()
    ]
    if ahead is None:
        cells += ["", ""]
    else:
        ends = f"[{100 * ahead['low']:+.1f}, {100 * ahead['high']:+.1f}]"
        cells += [f"{100 * ahead['difference']:+.1f} {ends}", f"{ahead['p_holm']:.3g}"]
    flops = one["flops_per_text"]
    return [*cells, f"{one['seconds']:.1f}", "" if flops is None else f"{flops / 1e9:.2f}"]
