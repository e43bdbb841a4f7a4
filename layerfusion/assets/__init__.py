"""Files of models and data sets, from a path, a pinned wheel or the hub; never executed."""

from layerfusion.assets.resolve import NoSource, available, resolve
from layerfusion.assets.source import Asset, Kind

__all__ = ["Asset", "Kind", "NoSource", "available", "resolve"]
