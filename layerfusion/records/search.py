"""What `layerfusion search` leaves for readers: `search.json`, every trial of a study."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerfusion.records.format import plural
from layerfusion.records.json_files import read_json, write_json

HISTORY = "search.json"


@dataclass(frozen=True)
class TrialRecord:
    """One trial."""

    number: int
    state: str
    """complete, pruned or fail."""
    params: dict[str, Any]
    value: float | None
    """Mean validation log-loss over the seeds; none unless complete."""
    epochs: int
    """Epochs reported, over all seeds so far."""
    job: str | None
    """Its job's folder beside the history."""
    seconds: float | None


@dataclass(frozen=True)
class SearchHistory:
    """A study and its trials, in the order in which they were begun."""

    name: str
    job: str
    """The overrides that all trials share."""
    trials: list[TrialRecord]
    importance: dict[str, float] = field(default_factory=dict)
    """Key of the space to the share of the values' variance that it explains; none while the study
    goes on, or with too few complete trials."""

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial of the least value, the first of several."""
        done = [trial for trial in self.trials if trial.value is not None]
        return min(done, key=lambda trial: trial.value or 0.0, default=None)

    @property
    def counts(self) -> str:
        """In words: how many trials, and how they ended."""
        ended = Counter(trial.state for trial in self.trials)
        kinds = (("complete", "complete"), ("pruned", "pruned"), ("fail", "failed"))
        each = ", ".join(f"{ended[state]} {word}" for state, word in kinds if ended[state])
        return f"{plural(len(self.trials), 'trial')} ({each})"

    @property
    def best_so_far(self) -> list[float | None]:
        """For each trial the least value up to it."""
        found: list[float | None] = []
        for trial in self.trials:
            values = [v for v in (*found[-1:], trial.value) if v is not None]
            found.append(min(values, default=None))
        return found


def write_history(history: SearchHistory, folder: Path) -> None:
    """Write `search.json`."""
    write_json(folder / HISTORY, history)


def find_histories(folder: Path) -> list[SearchHistory]:
    """Read every study under a folder.

    Raises:
        UserError: for a file that is no history.
    """
    paths = sorted(folder.rglob(HISTORY))
    return [read_json(path, SearchHistory, "a search's history") for path in paths]
