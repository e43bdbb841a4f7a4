"""Settings of the commands that make jobs of their own: `reproduce` and `search`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from layerfusion.config.job import ExtractConfig, LimitConfig, LoggerConfig, PathsConfig


@dataclass
class ReproduceConfig:
    """A whole comparison: `conf/reproduce/NAME.yaml`."""

    profile: str
    """Name of the comparison: quick, full or paper."""
    backbone: list[str]
    """Names of backbones; those that cannot be had are skipped with a line that says so."""
    dataset: dict[str, LimitConfig]
    """Names of data sets, each with the size of its sample."""
    layer_seeds: int = 6
    """Training runs of each layer alone."""
    fusion_seeds: int = 6
    """Training runs of each fusion."""
    max_length: int = 512
    """Tokens of a text; the report counts what that cuts."""
    dtype: str | None = None
    """Precision of every model's pass: float32, bfloat16 or float16. Not set: each model's own."""
    token_budget: int | None = None
    """Tokens of one batch of a pass. Not set: as many as are fastest on this machine, which differ
    from run to run, and with them the last digits of vectors."""
    batch_size: int = 64
    """Texts of one step of a head's training."""
    validation_size: float = 0.1
    """Share of train that becomes validation where the data has no validation."""
    auto: bool = True
    """Run `experiment=auto` too, on all models together."""


@dataclass
class ReproduceCommand:
    """The config that `layerfusion reproduce` composes."""

    reproduce: ReproduceConfig
    plan: bool = False
    """Say what extraction would take, and stop."""
    check: str | None = None
    """A file with the figures of an earlier run, which this one has to give again."""
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    extract: ExtractConfig = field(default_factory=ExtractConfig)


@dataclass
class SearchConfig:
    """A study beyond grids: `conf/search/NAME.yaml`."""

    name: str
    """Name of the study and of its folder."""
    trials: int = 40
    """Number of trials in all, those of earlier runs of the same study included."""
    seconds: float | None = None
    """Seconds after which no new trial begins. Not set: no limit."""
    startup: int = 10
    """Trials drawn at random, before which nothing is pruned either."""
    warmup: int = 5
    """Epochs of a trial that are never pruned."""
    space: dict[str, Any] = field(default_factory=dict)
    """Key of a job to a list of values, or to a range {low, high} with `log` or `step`."""


@dataclass
class SearchCommand:
    """The config that `layerfusion search` composes; its other words are settings of the jobs."""

    search: SearchConfig
    paths: PathsConfig = field(default_factory=PathsConfig)
