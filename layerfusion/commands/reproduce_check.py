"""Writes the figures of `layerfusion reproduce`, and compares them with those of another run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from layerfusion.assets.files import write_atomically
from layerfusion.composing.hydra import split_config_dirs
from layerfusion.errors import UserError
from layerfusion.records.job import RunRecord

RESULTS = "results.json"
HEAD_TOLERANCE = 0.015
"""Tolerance of a head's accuracy. On another machine, sums in another order may let a head stop at
another epoch; on one machine, two runs agree to the last digit."""
BASELINE_TOLERANCE = 0.005
"""Tolerance of the baseline's accuracy, since its convex problem is solved to a tolerance."""
ASIDE = ("check", "plan", "paths", "logger", "extract", "hydra")
"""Keys that change no figure."""


@dataclass(frozen=True)
class Results:
    """The content of `results.json`."""

    overrides: list[str]
    """Overrides that gave the figures, without the keys in `ASIDE` and without `--config-dir`."""
    data: dict[str, Any]
    """Figures by data set, as returned by `figures`."""


def expected_by(arguments: Sequence[str]) -> Results | None:
    """Read the figures that `check=FILE` names; None without that key.

    Raises:
        UserError: if the file has no figures.
    """
    named = [word.partition("=")[2] for word in arguments if word.startswith("check=")]
    return read_results(Path(named[-1])) if named and named[-1] else None


def replayed(arguments: Sequence[str], expected: Results) -> list[str]:
    """Combine the overrides that gave the expected figures with those of the command line.

    The command line takes precedence. If it names another profile, its overrides are used alone.
    """
    given = {_key(word) for word in arguments}
    kept = expected.overrides
    if "reproduce" in given and not set(kept) & {w for w in arguments if _key(w) == "reproduce"}:
        return list(arguments)
    return [*(word for word in kept if _key(word) not in given), *arguments]


def write_results(path: Path, arguments: Sequence[str], data: dict[str, Any]) -> None:
    """Write figures together with the overrides that gave them."""
    rest, _ = split_config_dirs(arguments)
    overrides = [word for word in rest if _key(word).split("/")[0].split(".")[0] not in ASIDE]
    content = json.dumps(asdict(Results(overrides, data)), indent=1, sort_keys=True)
    write_atomically(path, content.encode())


def figures(rows: Iterable[tuple[str, RunRecord]]) -> dict[str, Any]:
    """Return the figures of a run by data set, without any text of its data.

    Args:
        rows: name and record of each row.
    """
    found: dict[str, Any] = {}
    for name, record in rows:
        data = found.setdefault(
            record.dataset.name,
            {
                "fingerprint": record.dataset.fingerprint,
                "rows": record.dataset.rows,
                "baseline": round(record.baseline.test["accuracy"], 6),
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
    """Describe each figure that is not as expected in one line; empty if all are.

    Data sets must have the same fingerprint, rows must have the same layers, and accuracies must
    agree within `HEAD_TOLERANCE` and `BASELINE_TOLERANCE`. A row or data set that only one of the
    two has is a difference too.
    """
    lines = _missing("data set", found, expected)
    for name in found.keys() & expected.keys():
        mine, other = found[name], expected[name]
        if mine["fingerprint"] != other["fingerprint"]:
            lines.append(f"{name}: texts or labels differ: fingerprint {mine['fingerprint']}")
            continue
        lines += _apart(
            f"{name}, baseline", mine["baseline"], other["baseline"], BASELINE_TOLERANCE
        )
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


def read_results(path: Path) -> Results:
    """Read the figures that an earlier run wrote.

    Raises:
        UserError: if the file has none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"check={path}: no figures of an earlier run ({error})") from error
    data = found.get("data") if isinstance(found, dict) else None
    if not isinstance(data, dict) or not all(
        isinstance(one, dict) and one.keys() >= {"fingerprint", "baseline", "jobs"}
        for one in data.values()
    ):
        raise UserError(
            f"check={path}: not figures of `layerfusion reproduce`, which writes them to {RESULTS}"
        )
    return Results([str(word) for word in found.get("overrides", [])], data)


def _key(word: str) -> str:
    return word.lstrip("~+").partition("=")[0]


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
