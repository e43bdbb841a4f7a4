"""Products by copies of weights: the same vectors, and plain products where copies do not do."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from layerfusion.config.job import BackboneConfig
from layerfusion.embeddings import prepacking
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.backbone_loading import load_backbone
from tests.tiny import tiny_folder

FAMILIES = ("bert", "llama", "gpt2", "albert")

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="PyTorch has no oneDNN here"
)


def load(family: str, folder: Path, dtype: str = "float32") -> Backbone:
    config = BackboneConfig(dtype=dtype)
    return load_backbone(family, tiny_folder(family, folder), config, "cpu")


@torch.no_grad()
def visit(backbone: Backbone) -> tuple[dict[str, Tensor], int]:
    """Return each layer's states of two texts, and the number of products by copies."""
    ids = torch.arange(4, 22).view(2, 9)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    states: dict[str, Tensor] = {}
    with torch.profiler.profile() as profile:
        backbone.forward(ids, mask, backbone.shape.layers, states.__setitem__)
    counts = {event.key: event.count for event in profile.key_averages()}
    return states, counts.get("mkldnn::_linear_pointwise", 0)


def plain(backbone: Backbone) -> Backbone:
    return replace(backbone, prepacked=None)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_states_are_as_near_to_those_of_float64_as_without_copies(
    family: str, tmp_path: Path
) -> None:
    backbone = load(family, tmp_path)
    found, used = visit(backbone)
    expected, none = visit(plain(backbone))
    # GPT-2 has layers of its own kind, which stay as they are.
    assert (used > 0, none) == (family != "gpt2", 0)
    exact, _ = visit(replace(plain(backbone), model=backbone.model.double()))
    for layer, states in exact.items():
        allowed = 2 * (expected[layer] - states).norm() + 1e-6 * states.norm()
        assert (found[layer] - states).norm() <= allowed


def test_bfloat16_is_multiplied_by_copies_too(tmp_path: Path) -> None:
    backbone = load("bert", tmp_path, "bfloat16")
    found, used = visit(backbone)
    assert used
    for layer, states in visit(plain(backbone))[0].items():
        torch.testing.assert_close(found[layer], states, rtol=0.05, atol=0.05)


def test_a_weight_that_changes_after_loading_is_what_counts(tmp_path: Path) -> None:
    backbone = load("bert", tmp_path)
    _, before = visit(backbone)
    assert backbone.blocks is not None
    with torch.no_grad():
        backbone.blocks[1].get_parameter("intermediate.dense.weight").mul_(2)
    found, after = visit(backbone)
    assert after == before - 1
    for layer, states in visit(plain(backbone))[0].items():
        torch.testing.assert_close(found[layer], states)


def test_gradients_flow_as_without_copies(tmp_path: Path) -> None:
    backbone = load("bert", tmp_path)
    table = backbone.model.get_input_embeddings().weight  # type: ignore[operator, union-attr]
    table.requires_grad_(True)
    ids = torch.arange(4, 10)[None]

    def gradient(of: Backbone) -> Tensor:
        states: dict[str, Tensor] = {}
        of.forward(ids, torch.ones_like(ids), of.shape.layers, states.__setitem__)
        (found,) = torch.autograd.grad(states["3"].square().sum(), table)
        return found

    torch.testing.assert_close(gradient(backbone), gradient(plain(backbone)))
    assert gradient(backbone).any()


def test_copies_take_no_more_than_their_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = visit(load("bert", tmp_path))
    monkeypatch.setattr(prepacking, "MOST_BYTES", 6 * 32 * 32 * 4)
    found, some = visit(load("bert", tmp_path))
    assert 0 < some < whole
    monkeypatch.setattr(prepacking, "MOST_BYTES", 0)
    backbone = load("bert", tmp_path)
    assert backbone.prepacked is None
    for layer, states in visit(backbone)[0].items():
        torch.testing.assert_close(found[layer], states)


def test_a_model_that_is_loaded_for_inference_alone_has_no_copies(tmp_path: Path) -> None:
    """What is written to its tensors is not counted, so that a copy could be out of date."""
    with torch.inference_mode():
        backbone = load("bert", tmp_path)
        counted = not next(backbone.model.parameters()).is_inference()
    assert (backbone.prepacked is not None) == counted
    expected, _ = visit(plain(backbone))
    for layer, states in visit(backbone)[0].items():
        torch.testing.assert_close(states, expected[layer])


@pytest.mark.parametrize("shape", [(0, 32), (3, 0, 32), (32,), (2, 3, 5, 32)])
def test_rows_of_any_shape_are_taken(shape: Sequence[int]) -> None:
    layer = torch.nn.Linear(32, 8).requires_grad_(False)
    faster = prepacking.prepack(layer)
    assert faster is not None
    for rows in (torch.randn(*shape), torch.randn(*shape[::-1]).permute(*range(len(shape))[::-1])):
        expected = layer(rows)
        with torch.no_grad(), faster:
            torch.testing.assert_close(layer(rows), expected)
        with torch.no_grad(), faster, pytest.raises(RuntimeError):
            layer(rows.double())


def test_what_onednn_cannot_copy_is_multiplied_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    strided = torch.nn.Linear(4, 3)
    strided.bias = torch.nn.Parameter(torch.randn(6)[::2])
    empty = torch.nn.Linear(4, 3, bias=False)
    empty.weight = torch.nn.Parameter(torch.empty(0, 4))
    assert prepacking.prepack(torch.nn.Sequential(strided, empty)) is None
    # As on a CPU without AVX512.
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert prepacking.prepack(torch.nn.Linear(4, 3).bfloat16()) is None
    assert prepacking.prepack(torch.nn.Linear(4, 3)) is not None


@torch.no_grad()
def test_another_place_of_a_weight_and_autocast_are_multiplied_as_without_copies() -> None:
    layer, rows = torch.nn.Linear(32, 8), torch.randn(3, 32)
    faster = prepacking.prepack(layer)
    assert faster is not None
    with faster, torch.autocast("cpu"):
        assert layer(rows).dtype == torch.bfloat16
    layer.weight.data = 3 * layer.weight.data
    expected = layer(rows)
    with faster:
        torch.testing.assert_close(layer(rows), expected)


def test_a_copy_of_a_model_has_weights_alone(tmp_path: Path) -> None:
    backbone = load("bert", tmp_path)
    copied = copy.deepcopy(backbone)
    expected, _ = visit(plain(backbone))
    for layer, states in visit(copied)[0].items():
        torch.testing.assert_close(states, expected[layer])
