"""`dataset=mteb/NAME`: the classification tasks of MTEB, as its library keeps them on the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence

from layerfusion.composing.own_models import found

OWNER = "mteb"
_TASK = re.compile(rf"\b{OWNER}/([\w.-]+)")


def register_tasks(arguments: Sequence[str]) -> None:
    """Register a config with Hydra for each `mteb/NAME` that `dataset=` names.

    A folder `mteb/NAME`, here or in one that `LAYERFUSION_DATA` names, goes before the hub; there a
    subset is a folder inside. The columns are those that MTEB's library reads from every task.
    """
    subset = any(re.match(r"\+*dataset\.subset=", word) for word in arguments)
    words = [word for word in arguments if re.match(r"\+*dataset=", word)]
    for name in dict.fromkeys(name for word in words for name in _TASK.findall(word)):
        _register(name, subset)


def _register(name: str, subset: bool) -> None:
    from hydra.core.config_store import ConfigStore

    place = f"{OWNER}/{name}"
    inside = f"{place}/${{dataset.subset}}" if subset else place
    origin = {"path": inside} if found("dataset", place) else {"hub": place}
    node = {"name": name, "text": "text", "label": "label", **origin}
    ConfigStore.instance().store(group=f"dataset/{OWNER}", name=name, node=node, package="dataset")
