"""The history of searches under a folder, as tables."""

from __future__ import annotations

from pathlib import Path

from layerfusion.report.names import NONE
from layerfusion.report.tables import Column, Row, Table
from layerfusion.runs.search_record import SearchHistory, TrialRecord, find_histories
from layerfusion.runs.words import duration


def search_tables(runs: Path) -> tuple[Table, ...]:
    """One table a study: every trial, what was drawn, and the best so far."""
    return tuple(_table(history) for history in find_histories(runs))


def _table(history: SearchHistory) -> Table:
    keys = list(dict.fromkeys(key for trial in history.trials for key in trial.params))
    best = min((t.value for t in history.trials if t.value is not None), default=None)
    rows, so_far = [], None
    for trial in history.trials:
        if trial.value is not None and (so_far is None or trial.value < so_far):
            so_far = trial.value
        drawn = (_value(trial.params.get(key)) for key in keys)
        cells = (
            str(trial.number),
            *drawn,
            _outcome(trial),
            NONE if so_far is None else f"{so_far:.4f}",
            NONE if trial.seconds is None else duration(trial.seconds),
            trial.job or NONE,
        )
        rows.append(Row(cells, "chosen" if best is not None and trial.value == best else ""))
    titles = ("Trial", *keys, "Validation log-loss", "Best so far", "Time", "Job")
    columns = tuple(
        Column(title, numeric=title in ("Trial", "Validation log-loss", "Best so far", "Time"))
        for title in titles
    )
    return Table(
        f"Search history: {history.name}",
        columns,
        tuple(rows),
        f"Trials of `{history.job}`, judged by the mean validation log-loss of their seeds. Test"
        " was not looked at for any choice here; a pruned trial was behind the median of the"
        " earlier ones at the same epoch.",
    )


def _outcome(trial: TrialRecord) -> str:
    if trial.value is not None:
        return f"{trial.value:.4f}"
    return f"pruned after {trial.epochs} epochs" if trial.state == "pruned" else "failed"


def _value(value: object) -> str:
    if value is None:
        return NONE
    return f"{value:.3g}" if isinstance(value, float) else str(value)
