"""Write the results of `benchmarks.combinations` as tables and as JSON.

Every method is compared with that of `fusion=auto` on the same members: the difference is that of
the mean over the sets of members of a draw, so that a draw counts once. An interval over draws says
what other draws of as many rows, from the same texts, would give on the same test rows. That over
data sets takes each data set (the mean of its numbers of rows) as one unit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from benchmarks.combination_methods import HOUSE, METHODS

Cell = Mapping[str, Any]
MEASURES = ("accuracy", "log_loss")
"""What the first two figures of a method are."""
LEVEL = 0.95
BY_ROWS = ("data", "rows")
"""What the cells have in common whose draws are averaged."""


def interval(values: Sequence[Any]) -> tuple[float, float, float]:
    """Mean of independent units with its 95 % interval (t); NaN for the ends of a single one."""
    units = np.asarray(values, dtype=float)
    if len(units) < 2:
        return float(units.mean()), float("nan"), float("nan")
    half = stdtrit(len(units) - 1, (1 + LEVEL) / 2) * units.std(ddof=1) / len(units) ** 0.5
    return float(units.mean()), float(units.mean() - half), float(units.mean() + half)


def over_draws(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Average each method over the draws of one data set and number of rows.

    A method counts on those of the cells on which it was run.

    Returns:
        By method: accuracy and log-loss, each with the mean difference to the house's pool and the
        ends of its interval.
    """
    found: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        ran = [cell for cell in cells if method in cell["figures"]]
        if not ran:
            continue
        found[method] = {}
        for place, measure in enumerate(MEASURES):
            values, ahead = [], []
            for of_draw in _grouped(ran, ("draw",)).values():
                own = np.mean([cell["figures"][method][place] for cell in of_draw])
                house = np.mean([cell["figures"][HOUSE][place] for cell in of_draw])
                values.append(own)
                ahead.append(own - house)
            found[method][measure] = [float(np.mean(values)), *interval(ahead)]
        found[method]["seconds"] = float(np.mean([cell["figures"][method][2] for cell in ran]))
    return found


def over_datasets(
    by_rows: Sequence[Mapping[str, Any]], former: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Average the differences of each method over data sets, which are the units.

    Args:
        by_rows: the figures of each data set and number of rows.
        former: what this function returned for some data sets, with more digits.

    Returns:
        By method: for accuracy and log-loss, the mean difference to the house's pool, the ends of
        its interval, and the difference on each data set, the mean of its numbers of rows.
    """
    found: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        for measure in MEASURES:
            each: dict[str, list[float]] = {}
            for part in by_rows:
                if method in part["methods"]:
                    ahead = part["methods"][method][measure][1]
                    each.setdefault(part["data"], []).append(ahead)
            if each:
                units = {data: float(np.mean(values)) for data, values in each.items()}
                if former is not None:
                    units |= former[method][measure][3]
                found.setdefault(method, {})[measure] = [*interval(list(units.values())), units]
    return found


def as_json(cells: Sequence[Cell], former: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return all figures: over data sets, by data set and rows, and by set of members.

    Args:
        cells: figures of sets of members.
        former: figures as this function returned them, of which those of other data sets and
            numbers of rows are kept.
    """
    by_rows = _listed(cells, BY_ROWS, lambda of: of)
    by_members = _listed(
        cells,
        (*BY_ROWS, "models", "lexical"),
        lambda of: [*of["accuracy"][:2], *of["log_loss"][:2]],  # without intervals, for size
    )
    kept = None
    if former is not None:
        kept = _without(former["over_datasets"], {cell["data"] for cell in cells})
        known = {_place(one) for one in by_rows}
        by_rows, by_members = (
            _in_order([one for one in former[name] if _place(one) not in known] + new)
            for name, new in (("by_rows", by_rows), ("by_members", by_members))
        )
    return {
        "over_datasets": _rounded(over_datasets(by_rows, kept), 6),
        "by_rows": by_rows,
        "by_members": by_members,
    }


def _without(over: Mapping[str, Any], data: Collection[str]) -> dict[str, Any]:
    """Leave some data sets out of what `over_datasets` returned."""

    def units(of: Sequence[Any]) -> dict[str, float]:
        return {name: value for name, value in of[3].items() if name not in data}

    return {
        method: {measure: [*of[:3], units(of)] for measure, of in measures.items()}
        for method, measures in over.items()
    }


def _place(one: Mapping[str, Any]) -> tuple[str, str]:
    return one["data"], one["rows"]


def _in_order(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort by data set, in the order in which they come, and by the number of rows, all last."""
    data = list(dict.fromkeys(one["data"] for one in figures))

    def key(one: Mapping[str, Any]) -> tuple[int, float]:
        rows = one["rows"]
        return data.index(one["data"]), float(rows) if rows.isdigit() else float("inf")

    return sorted(figures, key=key)


def _listed(
    cells: Sequence[Cell], names: Sequence[str], kept: Callable[[Mapping[str, Any]], Any]
) -> list[dict[str, Any]]:
    """List what is kept of the figures over draws, by the facts that cells have in common."""
    return [
        {
            **dict(zip(names, key, strict=True)),
            "draws": _draws(some),
            "test_rows": some[0]["test_rows"],
            "members": sorted({cell["members"] for cell in some}),
            "methods": _rounded({method: kept(of) for method, of in over_draws(some).items()}, 5),
        }
        for key, some in _grouped(cells, names).items()
    ]


def as_text(cells: Sequence[Cell]) -> str:
    """Write Markdown tables: over data sets, and of each measure by data set and rows."""
    overall = over_datasets(_listed(cells, BY_ROWS, lambda of: of))
    names = list(dict.fromkeys(cell["data"] for cell in cells))
    lines = [
        f"Accuracy (points) and log-loss less those of {HOUSE}, over data sets.",
        "",
        _row(["", *names, "accuracy over data sets", "log-loss over data sets"]),
        _row(["---", *["---:"] * (len(names) + 2)]),
    ]
    for method, of in overall.items():
        *accuracy, units = of["accuracy"]
        each = [f"{100 * units[name]:+.1f}" if name in units else "" for name in names]
        lines.append(_row([method, *each, _points(accuracy), _nats(of["log_loss"][:3])]))
    groups = _grouped(cells, BY_ROWS)
    parts = {key: over_draws(some) for key, some in groups.items()}
    for measure, shown, value in (
        ("accuracy", _points, lambda x: f"{100 * x:.1f}"),
        ("log_loss", _nats, lambda x: f"{x:.3f}"),
    ):
        lines += [
            "",
            f"Difference in {measure} to {HOUSE}, whose row has the {measure} itself, by data set,"
            " rows and (draws).",
            "",
            _row(["", *(f"{x}, {n} ({_draws(some)})" for (x, n), some in groups.items())]),
            _row(["---", *["---:"] * len(groups)]),
        ]
        for method in overall:
            found = [part[method][measure] if method in part else None for part in parts.values()]
            words = [
                "" if one is None else value(one[0]) if method == HOUSE else shown(one[1:])
                for one in found
            ]
            lines.append(_row([method, *words]))
    return "\n".join(lines)


def _row(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"


def _draws(cells: Sequence[Cell]) -> int:
    return len({cell["draw"] for cell in cells})


def _points(figures: Sequence[float]) -> str:
    mean, low, high = (100 * one for one in figures)
    return f"{mean:+.1f}" + (f" [{low:+.1f}, {high:+.1f}]" if np.isfinite(low) else "")


def _nats(figures: Sequence[float]) -> str:
    mean, low, high = figures
    return f"{mean:+.3f}" + (f" [{low:+.3f}, {high:+.3f}]" if np.isfinite(low) else "")


def _grouped(cells: Sequence[Cell], names: Sequence[str]) -> dict[tuple[Any, ...], list[Cell]]:
    found: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        values = ("+".join(cell[x]) if x == "models" else cell[x] for x in names)
        found.setdefault(tuple(values), []).append(cell)
    return found


def _rounded(value: Any, digits: int) -> Any:
    """Round every number to some digits after the point; None for an end that is not known."""
    if isinstance(value, Mapping):
        return {name: _rounded(one, digits) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one, digits) for one in value]
    if isinstance(value, float):
        return round(value, digits) if np.isfinite(value) else None
    return value
