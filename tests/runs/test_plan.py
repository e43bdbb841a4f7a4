"""What a plan says of models that are not here, and of the machine."""

from __future__ import annotations

from pathlib import Path

import torch

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.runs.plan import make_plan, matrix_speed, plan_lines
from tests.tiny import tiny_texts


def test_all_that_is_a_rule_of_thumb_is_said_to_be_about(tmp_path: Path) -> None:
    texts = tiny_texts(tmp_path / "texts.csv", 60)
    words = [f"dataset.path={texts}", f"paths.cache={tmp_path}", "backbone=[e5_large_v2]"]
    plan = make_plan(load(compose("plan", ["dataset=local", *words])))
    (line,) = [
        line for line in plan_lines(plan) if line.startswith("e5_large_v2: to be downloaded")
    ]
    assert "about 26 layers" in line  # it ends in no norm, which shows only once it is here
    assert line.count("about") == 4


def test_plans_one_below_the_other_count_on_the_same_speed() -> None:
    cpu = torch.device("cpu")
    assert matrix_speed(cpu) == matrix_speed(cpu) > 0
