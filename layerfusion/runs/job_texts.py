"""Reads the texts of a job; the last few data sets stay in memory.

It imports nothing that trains, so that reading a data set takes no longer than it has to.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from layerfusion.assets.paths import find_path, is_readable, looking_also_in, state_of
from layerfusion.assets.source import SourceUnavailable
from layerfusion.config.job import PathsConfig, TrainConfig
from layerfusion.errors import UserError
from layerfusion.records.job import RunRecord
from layerfusion.texts import TextDataset, load_dataset

DATASETS_KEPT = 4

_datasets: dict[str, TextDataset] = {}


def dataset_of(config: TrainConfig) -> TextDataset:
    """Load the texts of a job. The last few data sets stay in memory, as sweeps use them again.

    A file that has changed since is read again.
    """
    places = [config.dataset.path, config.dataset.train, config.dataset.validation]
    places += [config.dataset.test, *config.dataset.files.values()]
    places += [source.path for source in config.dataset.sources]
    key = json.dumps(
        [
            asdict(config.dataset),
            asdict(config.limit),
            config.seed,
            config.paths.cache,
            [_state(place) for place in places if place is not None],
        ]
    )
    if key not in _datasets:
        while len(_datasets) >= DATASETS_KEPT:
            _datasets.pop(next(iter(_datasets)))
        _datasets[key] = load_dataset(
            config.dataset, config.limit, seed=config.seed, cache=Path(config.paths.cache)
        )
    return _datasets[key]


def texts_of(config: TrainConfig, record: RunRecord) -> TextDataset:
    """Read the texts of a job again, from here or from where the job has found them.

    Args:
        config: settings of the job, as `config_of_job` reads them.
        record: of the job.

    Raises:
        UserError: if its texts cannot be read, or they or the order of the labels are others now.
    """
    with looking_also_in(record.looked_in):
        dataset = dataset_of(config)
    if dataset.coding != (record.dataset.fingerprint, tuple(record.dataset.label_names)):
        raise UserError(
            f"dataset {dataset.name}: its texts or labels have changed since the job ran, or the"
            " order of the labels has"
        )
    return dataset


def with_own_cache(config: TrainConfig, record: RunRecord) -> TrainConfig:
    """Return the settings of a job with the cache that it has used, if there is none here.

    A cache that this user cannot read, as one in another's home, counts as none; the usual one
    takes its place.

    Args:
        config: settings of the job, as `config_of_job` reads them.
        record: of the job.
    """
    own = [str(Path(place, config.paths.cache)) for place in record.looked_in[:1]]
    places = (config.paths.cache, *own, PathsConfig().cache)
    cache = next((place for place in places if is_readable(place)), config.paths.cache)
    return replace(config, paths=replace(config.paths, cache=cache))


def _state(place: str) -> list[list[int]]:
    try:
        return state_of(find_path(place, "dataset"))
    except SourceUnavailable:  # told when the data set is loaded
        return []
