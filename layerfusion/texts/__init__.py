"""Labelled texts: this room reads, cleans and splits them, and computes their fingerprint.

Each name is imported when it is first used, since some modules of this room are asked for a help
page, which needs no reader of data.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerfusion.texts.dataset import TextDataset, fingerprint, load_dataset
    from layerfusion.texts.splits import Split

_HOME = {
    "Split": "splits",
    "TextDataset": "dataset",
    "fingerprint": "dataset",
    "load_dataset": "dataset",
}
__all__ = ["Split", "TextDataset", "fingerprint", "load_dataset"]


def __getattr__(name: str) -> Any:
    """Import a name of `__all__`."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
