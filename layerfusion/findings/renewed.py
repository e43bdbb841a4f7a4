"""Jobs that newer code has run again: the newest record of each counts.

A job's name is a hash of its settings and of the version of the code, so that new code gives the
same settings another name, and the folder of a sweep then holds both records. The settings that a
job keeps tell which they are: two records are of the same job where today's code gives their
settings the same name, and their data are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from layerfusion.config.identity import job_id
from layerfusion.config.job import HONEST
from layerfusion.errors import UserError
from layerfusion.findings.grouping import grouped
from layerfusion.records.format import plural
from layerfusion.records.job import RunRecord
from layerfusion.records.settings import config_of_job

Found = tuple[Path, RunRecord]
"""Folder and record of a job."""


def older_records(found: Iterable[Found]) -> dict[Path, RunRecord]:
    """Find the records of jobs of which there is a newer one, made by other code.

    A record whose settings cannot be read is its own job.

    Returns:
        Folder of each older record to the record that counts in its place.
    """
    older: dict[Path, RunRecord] = {}
    for alike in _alike(found):
        if len({record.job for _, record in alike}) == 1:
            continue  # nothing here can be the same job under another name
        for same in grouped(alike, _name_today).values():
            newest = max((record for _, record in same), key=lambda x: (x.created, x.job))
            older |= {folder: newest for folder, record in same if record.job != newest.job}
    return older


def older_words(number: int) -> str:
    """Say in a sentence how many records are left out, and how to see them."""
    return (
        f"Left out: {plural(number, 'older record')} of the same jobs, which newer code has run"
        " again. With --older they are here too."
    )


def _alike(found: Iterable[Found]) -> Iterator[list[Found]]:
    """Tell apart by their records what need not be told apart by config files, which take longer.

    A setting that newer code has added is missing in older records, so that those which all have
    are compared.
    """
    for same in grouped(found, _facts).values():
        common = sorted(set.intersection(*(set(record.settings) for _, record in same)))
        values = {id(record): [record.settings[key] for key in common] for _, record in same}
        yield from grouped(same, lambda pair, of=values: json.dumps(of[id(pair[1])])).values()


def _facts(pair: Found) -> tuple[object, ...]:
    record = pair[1]
    return (
        record.dataset.fingerprint,
        record.protocol,
        record.selection,
        record.chosen_by or record.fusion,
        tuple(seed.seed for seed in record.seeds),
        frozenset(record.considered),
        frozenset() if record.scored else frozenset((x.backbone, x.layer) for x in record.layers),
    )


def _name_today(pair: Found) -> str:
    folder, record = pair
    if record.protocol != HONEST:  # its settings are checked by code that a report does without
        return record.job
    try:
        return job_id(config_of_job(folder))
    except UserError:
        return record.job
