from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from layerfusion.config.job import FusionConfig, LoggerConfig, TrainerConfig
from layerfusion.fusion.operators import OPERATORS, build_operator

CONF = Path(__file__).parents[2] / "conf"
FILES = [
    *[(f"fusion/{name}.yaml", FusionConfig) for name in OPERATORS],
    ("trainer/default.yaml", TrainerConfig),
    ("logger/wandb.yaml", LoggerConfig),
    ("logger/none.yaml", LoggerConfig),
]


@pytest.mark.parametrize(("name", "schema"), FILES)
def test_a_shipped_file_has_every_field_with_its_type(name: str, schema: type[Any]) -> None:
    content = yaml.safe_load((CONF / name).read_text())
    known = [field.name for field in fields(schema)]
    assert list(content) == [name for name in known if name in content]
    # A head's file has the keys that its operator uses; the others have all.
    assert schema is FusionConfig or list(content) == known
    for key, default in asdict(schema()).items():
        assert key not in content or default is None or isinstance(content[key], type(default)), key


@pytest.mark.parametrize("name", OPERATORS)
def test_a_shipped_operator_can_be_built(name: str) -> None:
    config = FusionConfig(**yaml.safe_load((CONF / f"fusion/{name}.yaml").read_text()))
    assert config.name == name
    operator = build_operator(config, [3, 5], 2)
    assert operator.classifies or operator.width >= config.width
