"""The files that a source gives, and the error of a source that cannot give any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from layerfusion.config.assets import SourceConfig

Kind = Literal["backbone", "pipeline", "dataset"]


@dataclass(frozen=True)
class Asset:
    """Files with a pinned origin."""

    path: Path
    """The folder or file."""
    origin: str
    """The origin in words: `wheel NAME==VERSION`, `hub OWNER/NAME@COMMIT` or `path FOLDER`."""
    identity: str
    """Hex sha256 of the pinned hashes, the commit or the content itself; empty for a data set's
    own files."""
    source: SourceConfig
    """The source that gave the files."""


class SourceUnavailable(Exception):
    """A source cannot give its files now, but another one may. The message is the reason."""
