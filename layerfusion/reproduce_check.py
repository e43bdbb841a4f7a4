"""The figures of a `layerfusion reproduce`, and whether another run gave the same ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from layerfusion.errors import UserError
from layerfusion.runs.record import RunRecord

RESULTS = "results.json"
HEAD_TOLERANCE = 0.015
"""Of the accuracies of heads. Sums in another order let a head stop at another epoch; on one
machine two runs give the same figures to the last digit."""
FLOOR_TOLERANCE = 0.005
"""Of the floor's accuracy: a convex problem, solved to a tolerance."""


def figures(rows: Iterable[tuple[str, RunRecord]]) -> dict[str, Any]:
    """What a run found, without a text of its data: data set to its rows.

    Args:
        rows: what each row is called, and its record.
    """
    found: dict[str, Any] = {}
    for name, record in rows:
        data = found.setdefault(
            record.dataset.name,
            {
                "fingerprint": record.dataset.fingerprint,
                "rows": record.dataset.rows,
                "floor": round(record.floor.test["accuracy"], 6),
                "jobs": {},
            },
        )
        data["jobs"][name] = {
            "job": record.job,
            "layers": [f"{x.backbone}:{x.layer}:{x.pooling}" for x in record.layers],
            "fusion": record.fusion,
            "seeds": len(record.seeds),
            "validation": round(record.validation["accuracy"].mean, 6),
            "test": round(record.test["accuracy"].mean, 6),
        }
    return found


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """One line for each figure that is not as expected; empty where all are.

    Data must have the same fingerprint, rows the same layers, and accuracies lie within
    `HEAD_TOLERANCE` and `FLOOR_TOLERANCE`. What only one of the two has is a difference too.
    """
    lines = _missing("data set", found, expected)
    for name in found.keys() & expected.keys():
        mine, other = found[name], expected[name]
        if mine["fingerprint"] != other["fingerprint"]:
            lines.append(f"{name}: other texts or labels: {mine['fingerprint']}")
            continue
        lines += _apart(f"{name}, floor", mine["floor"], other["floor"], FLOOR_TOLERANCE)
        lines += _missing(f"{name}, row", mine["jobs"], other["jobs"])
        for row in mine["jobs"].keys() & other["jobs"].keys():
            one, wanted = mine["jobs"][row], other["jobs"][row]
            if one["layers"] != wanted["layers"]:
                lines.append(
                    f"{name}, {row}: layers {', '.join(one['layers'])}, expected"
                    f" {', '.join(wanted['layers'])}"
                )
            lines += _apart(f"{name}, {row}", one["test"], wanted["test"], HEAD_TOLERANCE)
    return sorted(lines)


def read_figures(path: Path) -> dict[str, Any]:
    """Figures that an earlier run wrote.

    Raises:
        UserError: where there are none.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"check={path}: no figures of an earlier run ({error})") from error
    if not isinstance(found, dict) or not all(
        isinstance(data, dict) and data.keys() >= {"fingerprint", "floor", "jobs"}
        for data in found.values()
    ):
        raise UserError(
            f"check={path}: not figures of `layerfusion reproduce`, which writes them to {RESULTS}"
        )
    return found


def _missing(what: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    lines = [f"{what} {name}: missing" for name in expected.keys() - found.keys()]
    return lines + [f"{what} {name}: not expected" for name in found.keys() - expected.keys()]


def _apart(name: str, found: float, expected: float, tolerance: float) -> list[str]:
    if abs(found - expected) <= tolerance:
        return []
    return [
        f"{name}: accuracy {100 * found:.2f} %, expected {100 * expected:.2f} ±"
        f" {100 * tolerance:.1f}"
    ]
