"""Jobs that newer code has run again: the newest record of each counts.

A job's name is a hash of its settings and of the version of the code, so that new code gives the
same settings another name, and the folder of a sweep then holds both records. The settings that a
job keeps tell which they are: two records are of the same job where today's code gives their
settings the same name, and their data are the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from layerfusion.config.identity import job_id, profile_id
from layerfusion.config.job import HONEST
from layerfusion.errors import UserError
from layerfusion.findings.grouping import grouped
from layerfusion.records.format import plural
from layerfusion.records.job import RunRecord, find_records
from layerfusion.records.json_files import Damaged
from layerfusion.records.profile import Profile, find_profiles
from layerfusion.records.settings import PROFILED, config_of_job

Found = tuple[Path, RunRecord]
"""Folder and record of a job."""
Kept = TypeVar("Kept", RunRecord, Profile)


def older_records(found: Iterable[Found]) -> dict[Path, RunRecord]:
    """Find the records of jobs of which there is a newer one, made by other code.

    A record whose settings cannot be read is its own job.

    Returns:
        Folder of each older record to the record that counts in its place.
    """
    older: dict[Path, RunRecord] = {}
    for alike in _alike(found):
        older |= _older(alike, _name_today)
    return older


def older_profiles(found: Iterable[tuple[Path, Profile]]) -> dict[Path, Profile]:
    """Find the layer profiles of which there is a newer one, made by other code.

    Returns:
        Folder of each older profile to the one that counts in its place.
    """
    older: dict[Path, Profile] = {}
    alike = grouped(found, lambda pair: (pair[1].dataset.fingerprint, frozenset(pair[1].backbones)))
    for same in alike.values():
        older |= _older(same, _profile_name_today)
    return older


def _older(
    alike: Sequence[tuple[Path, Kept]], name: Callable[[tuple[Path, Kept]], str]
) -> dict[Path, Kept]:
    """Find those that share the name of today's code with a newer one, which counts."""
    older: dict[Path, Kept] = {}
    if len({record.job for _, record in alike}) == 1:
        return older  # nothing here can be the same job under another name
    for same in grouped(alike, name).values():
        newest = max((record for _, record in same), key=lambda x: (x.created, x.job))
        older |= {folder: newest for folder, record in same if record.job != newest.job}
    return older


def older_folders(folder: Path) -> set[Path]:
    """Find the folders of all finished jobs and profiles that newer code has run again.

    What cannot be read is passed over.
    """
    damaged: Damaged = {}
    jobs, profiles = find_records(folder, damaged), find_profiles(folder, damaged)
    return {*older_records(jobs), *older_profiles(profiles)}


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


def _profile_name_today(pair: tuple[Path, Profile]) -> str:
    folder, profile = pair
    try:
        return profile_id(config_of_job(folder, PROFILED))
    except UserError:
        return profile.job
