"""What Hydra has to know of the project before it composes, in whatever process."""

from __future__ import annotations

from layerfusion.config.commands import ReproduceCommand, SearchCommand
from layerfusion.config.job import ComposedConfig, TrainConfig
from layerfusion.runs.identity import register_resolver
from layerfusion.runs.resources import processes_that_fit

VERSION_BASE = "1.3"
"""Of Hydra, whose defaults changed over its versions."""
SCHEMAS = {"reproduce": ReproduceCommand, "search": SearchCommand}
"""Primary config to what it composes, where that is not a job."""


def schema_of(name: str) -> type:
    """What a primary config composes; a job's where it says nothing else."""
    return SCHEMAS.get(name, TrainConfig)


def register() -> None:
    """Make the typed schema and the resolvers known to Hydra."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    ConfigStore.instance().store(name="schema", node=ComposedConfig)
    for name, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    register_resolver()
    OmegaConf.register_new_resolver("layerfusion.processes", processes_that_fit, replace=True)
