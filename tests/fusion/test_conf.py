from __future__ import annotations

import inspect
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from layerfusion.config.job import FusionConfig, LoggerConfig, TrainerConfig
from layerfusion.config.operators import EVERY_HEAD, find_operator, operator_names
from layerfusion.fusion.operators import build_operator, operator_class
from layerfusion.fusion.operators.build import GIVEN

CONF = Path(__file__).parents[2] / "conf"
GROUPS = [
    ("trainer/default.yaml", TrainerConfig),
    ("logger/wandb.yaml", LoggerConfig),
    ("logger/none.yaml", LoggerConfig),
]


@pytest.mark.parametrize(("name", "schema"), GROUPS)
def test_a_shipped_file_has_every_field_with_its_type(name: str, schema: type[Any]) -> None:
    content = yaml.safe_load((CONF / name).read_text())
    assert list(content) == [field.name for field in fields(schema)]
    for key, default in asdict(schema()).items():
        assert default is None or isinstance(content[key], type(default)), key


@pytest.mark.parametrize("name", operator_names())
def test_an_operators_file_has_the_arguments_and_defaults_of_its_class(name: str) -> None:
    content = yaml.safe_load((CONF / f"fusion/{name}.yaml").read_text())
    head, entry = asdict(FusionConfig()), find_operator(name)
    assert content["name"] == name
    assert all(content[key] == head[key] for key in content if key in EVERY_HEAD[1:])
    parameters = inspect.signature(operator_class(FusionConfig(name))).parameters
    own = {key: item.default for key, item in parameters.items() if key not in GIVEN}
    assert entry is not None
    assert entry.arguments == own
    operator = build_operator(FusionConfig(name), [3, 5], 2)
    assert operator.classifies or operator.width >= content["width"]
