"""The settings that tell jobs apart, as their records have them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from layerfusion.findings.grouping import grouped
from layerfusion.records.job import RunRecord

Job = TypeVar("Job")


def own_settings(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Find the settings in which each record differs from another.

    There are none where a record is older than settings in records.
    """
    if not all(record.settings for record in records):
        return [{} for _ in records]

    def differs(key: str) -> bool:
        return len({_written(record.settings.get(key)) for record in records}) > 1

    keys = dict.fromkeys(key for record in records for key in record.settings)
    apart = [key for key in keys if differs(key)]
    return [{x: record.settings[x] for x in apart if x in record.settings} for record in records]


def settings_words(records: Sequence[RunRecord]) -> list[str]:
    """Write the settings in which each record differs: `fusion.width=64, objective=macro_f1`.

    Records are compared where they have the same selection and fusion; others are told apart by
    these.
    """
    same = grouped(
        range(len(records)),
        lambda n: (records[n].selection, records[n].chosen_by or records[n].fusion),
    )
    words = [""] * len(records)
    for places in same.values():
        for place, own in zip(places, own_settings([records[n] for n in places]), strict=True):
            words[place] = ", ".join(f"{key}={setting_text(own[key])}" for key in own)
    return words


def with_settings(
    names: Mapping[Job, str], record_of: Callable[[Job], RunRecord]
) -> dict[Job, str]:
    """Add to each name that several jobs share the settings in which they differ."""
    told = dict(names)
    for jobs in grouped(names, names.__getitem__).values():
        for job, words in zip(jobs, settings_words([record_of(x) for x in jobs]), strict=True):
            told[job] += f" ({words})" if words else ""
    return told


def setting_text(value: object) -> str:
    """Write a value as on the command line: `0.1`, `true`, `mean`."""
    return value if isinstance(value, str) else _written(value)


def _written(value: object) -> str:
    return json.dumps(value, sort_keys=True)
