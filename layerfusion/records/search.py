"""The record of `layerfusion search`: `search.json`, with every trial of a study."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerfusion.records.format import plural
from layerfusion.records.json_files import Damaged, read_all, read_json, write_json

HISTORY = "search.json"


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a study."""

    number: int
    state: str
    """`complete`, `pruned` or `fail`."""
    params: dict[str, Any]
    value: float | None
    """Mean validation log-loss over the seeds; None unless the trial is complete."""
    epochs: int
    """Number of epochs reported, over all seeds so far."""
    job: str | None
    """Name of its job's folder, which lies beside the history."""
    seconds: float | None


@dataclass(frozen=True)
class SearchHistory:
    """A study and its trials, in the order in which they started."""

    name: str
    job: str
    """Overrides that all trials share."""
    trials: list[TrialRecord]
    importance: dict[str, float] = field(default_factory=dict)
    """Share of the values' variance that each key of the space explains. Empty while the study is
    running, or with too few complete trials."""

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial with the lowest value; the first one if several tie."""
        done = [trial for trial in self.trials if trial.value is not None]
        return min(done, key=lambda trial: trial.value or 0.0, default=None)

    @property
    def counts(self) -> str:
        """Number of trials and how they ended, in words."""
        ended = Counter(trial.state for trial in self.trials)
        kinds = (("complete", "complete"), ("pruned", "pruned"), ("fail", "failed"))
        each = ", ".join(f"{ended[state]} {word}" for state, word in kinds if ended[state])
        return f"{plural(len(self.trials), 'trial')} ({each})"

    @property
    def best_so_far(self) -> list[float | None]:
        """Lowest value up to and including each trial."""
        found: list[float | None] = []
        for trial in self.trials:
            values = [v for v in (*found[-1:], trial.value) if v is not None]
            found.append(min(values, default=None))
        return found

    @property
    def improvements(self) -> list[tuple[int, float]]:
        """Numbers and values of the trials that were better than all before."""
        found: list[tuple[int, float]] = []
        for trial, value in zip(self.trials, self.best_so_far, strict=True):
            if value is not None and (not found or value < found[-1][1]):
                found.append((trial.number, value))
        return found


def write_history(history: SearchHistory, folder: Path) -> None:
    """Write `search.json`."""
    write_json(folder / HISTORY, history)


def find_histories(folder: Path, damaged: Damaged | None = None) -> list[SearchHistory]:
    """Read every study under a folder; see `json_files.read_all`."""

    def read(own: Path) -> SearchHistory:
        return read_json(own / HISTORY, SearchHistory, "the history of a search")

    return [history for _, history in read_all(folder, HISTORY, read, damaged)]
