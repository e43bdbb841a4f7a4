"""What an experiment takes by default can be had where there is nothing but a package index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

CONF = Path(__file__).parents[2] / "conf"
SWEEPS = [
    path.stem
    for path in sorted((CONF / "experiment").glob("*.yaml"))
    if "dataset" in yaml.safe_load(path.read_text()).get("hydra", {}).get("sweeper", {}).get(
        "params", {}
    )
]  # fmt: skip


def _named(text: str) -> set[str]:
    return set(text.replace("[", "").replace("]", "").split(","))


def test_there_are_sweeps() -> None:
    assert {"fusion_operators", "model_pairs", "model_count", "few_shot"} <= set(SWEEPS)


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_takes_data_and_models_of_packages(name: str) -> None:
    read: dict[str, Any] = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())
    swept = read["hydra"]["sweeper"]["params"]
    chosen = next(
        (one["override /backbone"] for one in read["defaults"] if "override /backbone" in one), []
    )
    models = {*chosen, *(_named(swept["backbone"]) if "backbone" in swept else ())}
    assert models
    for group, names in (("dataset", _named(swept["dataset"])), ("backbone", models)):
        for one in names:
            settings = yaml.safe_load((CONF / group / f"{one}.yaml").read_text())
            sources = settings.get(one, settings)["sources"]
            assert any(source.get("wheel") for source in sources), one
