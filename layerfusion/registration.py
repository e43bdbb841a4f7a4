"""What Hydra has to know of the project before it composes, in whatever process."""

from __future__ import annotations

from layerfusion.command_config import ReproduceCommand, SearchCommand
from layerfusion.config import ComposedConfig
from layerfusion.runs.identity import register_resolver
from layerfusion.runs.machine import processes_that_fit

VERSION_BASE = "1.3"
"""Of Hydra, whose defaults changed over its versions."""


def register() -> None:
    """Make the typed schema and the resolvers known to Hydra."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    ConfigStore.instance().store(name="schema", node=ComposedConfig)
    ConfigStore.instance().store(name="reproduce_schema", node=ReproduceCommand)
    ConfigStore.instance().store(name="search_schema", node=SearchCommand)
    register_resolver()
    OmegaConf.register_new_resolver("layerfusion.processes", processes_that_fit, replace=True)
