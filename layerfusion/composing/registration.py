"""Registers schemas and resolvers with Hydra, which every process does before it composes."""

from __future__ import annotations

from layerfusion.config.commands import ReproduceCommand, SearchCommand
from layerfusion.config.identity import register_resolver
from layerfusion.config.job import ComposedConfig, TrainConfig
from layerfusion.runs.resources import processes_that_fit

VERSION_BASE = "1.3"
"""Hydra version whose defaults we rely on."""
SCHEMAS = {"reproduce": ReproduceCommand, "search": SearchCommand}
"""Schema of each primary config that does not compose a job."""


def schema_of(name: str) -> type:
    """Return the schema of a primary config, which is that of a job unless `SCHEMAS` differs."""
    return SCHEMAS.get(name, TrainConfig)


def register() -> None:
    """Register the typed schemas and the resolvers with Hydra and OmegaConf."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    schemas = {"schema": ComposedConfig, **{f"{name}_schema": x for name, x in SCHEMAS.items()}}
    for name, schema in schemas.items():
        if f"{name}.yaml" not in store.repo:  # once a process, as it takes a tenth of composing
            store.store(name=name, node=schema)
    register_resolver()
    OmegaConf.register_new_resolver("layerfusion.processes", processes_that_fit, replace=True)
