"""What a plan says of models that are not here, and of the machine."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.embeddings.backbone_loading import empty_shape
from layerfusion.runs.plan import _guessed_shape, make_plan, matrix_speed, plan_lines
from tests.tiny import run, tiny_job, tiny_texts


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


@pytest.mark.parametrize("model", ["tiny", "e5_large_v2"])
def test_attention_of_windows_is_that_of_each_window(
    model: str, bert_folder: Path, tmp_path: Path
) -> None:
    """Attention grows with the square of a pass, and each window is one."""
    texts = tmp_path / "texts.csv"
    long = [f"{' '.join(['good film'] * 400)} {n}" for n in range(40)]
    pd.DataFrame({"text": long, "label": [0, 1] * 20}).to_csv(texts, index=False)
    here = model == "tiny"
    words = ["dataset=local", f"dataset.path={texts}", f"paths.cache={tmp_path}"]
    words += [f"backbone.tiny.path={bert_folder}" if here else f"backbone=[{model}]"]
    words += [f"backbone.{model}.{key}" for key in ("max_length=34", "window_overlap=2")]
    config = load(compose("plan", [*words, "long_texts=windows"]))
    (plan,) = make_plan(config).backbones
    backbone = config.backbone[model]
    shape = empty_shape(model, bert_folder, backbone) if here else _guessed_shape(backbone)
    windows, rest = divmod(plan.tokens, 34)
    expected = shape.flops(shape.layers[-1], [34] * windows + [rest])
    assert plan.flops == pytest.approx(expected, rel=0.02)
    whole = [plan.tokens // plan.texts] * plan.texts
    assert plan.flops < 0.9 * shape.flops(shape.layers[-1], whole)


def test_only_the_vectors_of_a_pooling_that_lacks_them_are_forecast(
    bert_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tiny_job(tiny_texts(tmp_path / "texts.csv", 60), bert_folder, tmp_path / "cache")
    code, said = run(["extract", *words, "pooling=[mean]"], capsys)
    assert code == 0, said
    (first,) = make_plan(load(compose("plan", [*words, "pooling=[max]"]))).backbones
    (both,) = make_plan(load(compose("plan", [*words, "pooling=[mean,max]"]))).backbones
    assert both.missing == first.missing > 0
    assert both.store_bytes == first.store_bytes > 0
