"""Searches under a folder: how the best value came down, what was drawn, what mattered."""

from __future__ import annotations

from pathlib import Path

from layerfusion.records.format import duration, plural
from layerfusion.records.search import SearchHistory, TrialRecord, find_histories
from layerfusion.report.blocks import Block
from layerfusion.report.names import NONE
from layerfusion.report.search_figure import history_figure
from layerfusion.report.tables import Column, Row, Table

UNTOLD = ("paths.", "logger", "extract.", "--config-dir")
"""Starts of overrides that say where and how fast trials were made."""


def search_blocks(runs: Path) -> tuple[Block, ...]:
    """One part of the page a study."""
    return tuple(
        _block(history, f"search-{number}")
        for number, history in enumerate(find_histories(runs), start=1)
    )


def _block(history: SearchHistory, key: str) -> Block:
    best = history.best
    importance = (_importance_table(history),) if history.importance else ()
    return Block(
        f"Search: {history.name}",
        _text(history, best),
        () if best is None else (history_figure(history, best, key),),
        importance,
        (_history_table(history, best),),
    )


def _text(history: SearchHistory, best: TrialRecord | None) -> str:
    said = (
        f"{history.counts} of {_told(history.job)}, judged by the"
        " mean validation log-loss of their seeds. Test was not looked at for any choice here."
    )
    if best is None:
        return f"{said} None has come to an end."
    drawn = ", ".join(f"{key}={_value(value)}" for key, value in best.params.items())
    return f"{said} The best is trial {best.number}, with {best.value:.4f}: {drawn}."


def _told(job: str) -> str:
    return " ".join(w for w in job.split(" ") if not w.startswith(UNTOLD)) or "the default job"


def _history_table(history: SearchHistory, best: TrialRecord | None) -> Table:
    keys = list(dict.fromkeys(key for trial in history.trials for key in trial.params))
    rows = []
    for trial, so_far in zip(history.trials, history.best_so_far, strict=True):
        drawn = (_value(trial.params.get(key)) for key in keys)
        cells = (
            str(trial.number),
            *drawn,
            _outcome(trial),
            NONE if so_far is None else f"{so_far:.4f}",
            NONE if trial.seconds is None else duration(trial.seconds),
            trial.job or NONE,
        )
        rows.append(Row(cells, "chosen" if trial is best else ""))
    titles = ("Trial", *keys, "Validation log-loss", "Best so far", "Time", "Job")
    columns = tuple(
        Column(title, numeric=title in ("Trial", "Validation log-loss", "Best so far", "Time"))
        for title in titles
    )
    return Table(
        f"Search history: {history.name}",
        columns,
        tuple(rows),
        "A pruned trial was behind the median of the earlier ones at the same epoch.",
    )


def _importance_table(history: SearchHistory) -> Table:
    ordered = sorted(history.importance.items(), key=lambda item: -item[1])
    return Table(
        f"What mattered: {history.name}",
        (Column("Setting", numeric=False), Column("Share, %")),
        tuple(Row((key, f"{100 * share:.0f}")) for key, share in ordered),
        "Share of the variance of the validation log-loss over the space that each setting explains"
        " by itself (fANOVA: random forests fitted to the complete trials). With few trials it is"
        " a rough guide, and it tells nothing of values that were not in the space.",
    )


def _outcome(trial: TrialRecord) -> str:
    if trial.value is not None:
        return f"{trial.value:.4f}"
    return f"pruned after {plural(trial.epochs, 'epoch')}" if trial.state == "pruned" else "failed"


def _value(value: object) -> str:
    if value is None:
        return NONE
    return f"{value:.3g}" if isinstance(value, float) else str(value)
