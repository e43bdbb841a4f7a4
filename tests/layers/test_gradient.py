"""Gradient × activation against central differences, a closed form, and texts on their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.models.bert.modeling_bert import BertEmbeddings

from layerfusion.config.job import BackboneConfig, PoolingConfig
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.shape import NORM
from layerfusion.embeddings.tokens import Batch, collate, tokenize
from layerfusion.errors import UserError
from layerfusion.layers.gradient import gradient_times_activation
from layerfusion.layers.probe import LinearProbe
from tests.tiny import CONFIGS, DECODERS, SIZES, WITH_NORM, tiny_folder

MEAN = {"mean": PoolingConfig("mean")}
POOLINGS = {
    **MEAN,
    "first": PoolingConfig("first"),
    "last": PoolingConfig("last"),
    "max": PoolingConfig("max"),
    "rest": PoolingConfig("mean", skip_first=True),
}
TEXTS = [
    "oil price rose",
    "the film was good and the plot was great and the actor was awful and the story was bad",
    "net",
    "company said profit fell in the year to the bank of trade",
]
TARGET = torch.tensor([2, 0, 1, 2])
CLASSES = 3


def head(width: int = 32, seed: int = 0, scale: float = 0.1) -> LinearProbe:
    generator = torch.Generator().manual_seed(seed)
    return LinearProbe(
        scale * torch.randn(CLASSES, width, generator=generator),
        torch.randn(CLASSES, generator=generator),
    )


HEADS = {name: head(seed=n) for n, name in enumerate(POOLINGS)}


def tiny(family: str, folder: Path, dtype: str = "float32") -> Backbone:
    config = BackboneConfig(dtype=dtype)
    return load_backbone(family, tiny_folder(family, folder), config, "cpu")


@pytest.fixture(scope="module", params=tuple(CONFIGS))
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return tiny(request.param, tmp_path_factory.mktemp(request.param))


def batch_of(backbone: Backbone, texts: list[str]) -> Batch:
    tokens = tokenize(backbone.tokenizer, texts, BackboneConfig(), backbone.shape.max_length)
    return collate([text.windows[0] for text in tokens], backbone.pad_id)


def scores(
    backbone: Backbone, rows: list[int], poolings: dict[str, PoolingConfig] = POOLINGS
) -> dict[tuple[str, str], Tensor]:
    batch = batch_of(backbone, [TEXTS[row] for row in rows])
    heads = {name: HEADS[name] for name in poolings}
    return gradient_times_activation(backbone, batch, TARGET[rows], heads, poolings)


def test_a_text_does_not_depend_on_neighbours_and_padding(backbone: Backbone) -> None:
    groups = [[0, 1, 2, 3]] if backbone.masks_padding else [[row, row] for row in range(4)]
    for rows in groups:
        together = scores(backbone, rows)
        assert list(together) == [(name, x) for name in POOLINGS for x in backbone.shape.layers]
        for place, row in enumerate(rows):
            for key, value in scores(backbone, [row]).items():
                assert value.dtype == torch.float32
                assert value[0] > 0
                assert together[key][place] == pytest.approx(float(value[0]), rel=2e-4), key


def test_a_pooling_does_not_depend_on_the_others(backbone: Backbone) -> None:
    together = scores(backbone, [1])
    for name, pooling in POOLINGS.items():
        for key, value in scores(backbone, [1], {name: pooling}).items():
            assert torch.equal(value, together[key])


def test_the_last_layer_is_its_closed_form(backbone: Backbone) -> None:
    """Under a mean, the gradient is W'(p - y) / T at every token."""
    last = backbone.shape.layers[-1]
    for row, text in enumerate(TEXTS):
        batch = batch_of(backbone, [text])
        with torch.no_grad():
            output = backbone.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        hidden = output[0][0].double()
        probe = HEADS["mean"]
        logits = probe.weight.double() @ hidden.mean(dim=0) + probe.bias.double()
        error = logits.softmax(dim=0)
        error[TARGET[row]] -= 1
        expected = float(((probe.weight.double().T @ error) * hidden).abs().sum()) / len(hidden)
        found = scores(backbone, [row], MEAN)["mean", last]
        assert float(found[0]) == pytest.approx(expected, rel=1e-4)


def test_nothing_of_the_model_changes(backbone: Backbone) -> None:
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    embeddings: Any = backbone.model.get_input_embeddings()  # type: ignore[operator]
    hooks = len(embeddings._forward_hooks)
    with torch.no_grad():  # whatever surrounds the call
        first = scores(backbone, [0])
    with pytest.raises(RuntimeError, match="shape"):
        gradient_times_activation(
            backbone, batch_of(backbone, TEXTS[:1]), TARGET[:1], {"mean": head(width=5)}, MEAN
        )
    assert len(embeddings._forward_hooks) == hooks
    for parameter in backbone.model.parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None
    for name, value in backbone.model.state_dict().items():
        assert torch.equal(value, before[name])
    for key, value in scores(backbone, [0]).items():
        assert torch.equal(value, first[key])


def test_a_model_that_pads_on_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SIZES, "attention_window": 4}
    monkeypatch.setitem(CONFIGS, "longformer", ("LongformerConfig", settings))
    backbone = tiny("longformer", tmp_path)
    together = scores(backbone, [0, 1, 2, 3])
    for row in range(4):
        for key, value in scores(backbone, [row]).items():
            assert together[key][row] == pytest.approx(float(value[0]), rel=2e-4), key


def test_a_table_kept_from_the_first_pass_can_be_differentiated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As models of their own code keep their rotary positions."""
    kept: list[Tensor] = []
    plain = BertEmbeddings.forward

    def forward(self: BertEmbeddings, *args: Any, **kwargs: Any) -> Tensor:
        if not kept:
            kept.append(torch.linspace(0.5, 1.5, 32))
        return plain(self, *args, **kwargs) * kept[0]

    monkeypatch.setattr(BertEmbeddings, "forward", forward)
    assert all(float(value) > 0 for value in scores(tiny("bert", tmp_path), [0]).values())


def test_hidden_states_that_are_copies_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"d_model": 32, "n_layer": 3, "n_head": 4, "d_inner": 48, "vocab_size": 300}
    monkeypatch.setitem(CONFIGS, "xlnet", ("XLNetConfig", {**sizes, "pad_token_id": 1}))
    with pytest.raises(UserError) as error:
        scores(tiny("xlnet", tmp_path), [0])
    assert str(error.value) == (
        "gradient: backbone xlnet hands out copies of its hidden states (XLNetModel), layer 0 has"
        " no gradient; choose layers.score=probe or logme"
    )


# -- central differences ------------------------------------------------------------------------

Change = Callable[[Tensor], Tensor]


def run_changed(backbone: Backbone, ids: Tensor, layer: str, change: Change) -> Tensor:
    """The model's output with `change` made to what a layer hands on."""
    number = len(backbone.shape.layers) - 1 - (NORM in backbone.shape.layers)
    if backbone.blocks is None:
        blocks = [m for m in backbone.model.modules() if type(m).__name__ == "AlbertLayerGroup"]
        calls = iter(range(number))
    else:
        blocks, calls = list(backbone.blocks), None

    def enters(index: int) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            at = index if calls is None else next(calls)
            if str(at) != layer:
                return args, kwargs
            if args:
                return (change(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

        return hook

    def leaves(_module: Any, _args: Any, output: Any) -> Any:
        if layer != str(number):
            return output
        return change(output) if isinstance(output, Tensor) else (change(output[0]), *output[1:])

    handles = [
        block.register_forward_pre_hook(enters(n), with_kwargs=True)
        for n, block in enumerate(blocks)
    ]
    if backbone.blocks is not None:
        handles.append(blocks[-1].register_forward_hook(leaves))
    if backbone.name == "deberta_v2_conv" and layer == "0":
        # Its convolution reads what enters block 1 from beside the block.
        handles.pop(0).remove()
        embeddings: Any = backbone.model.embeddings
        handles.append(embeddings.register_forward_hook(lambda _m, _a, output: change(output)))
    try:
        with torch.no_grad():
            output = backbone.model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    finally:
        for handle in handles:
            handle.remove()
    top = str(number) if backbone.blocks is None else NORM
    return change(output) if layer == top else output


def loss(hidden: Tensor, row: int) -> Tensor:
    """Cross-entropy of the mean's head, in double precision. Shape: (batch,)."""
    probe = HEADS["mean"]
    logits = hidden.mean(dim=1) @ probe.weight.double().T + probe.bias.double()
    return logits.logsumexp(dim=1) - logits[:, TARGET[row]]


def by_differences(backbone: Backbone, row: int, layer: str, step: float = 3e-3) -> float:
    """Every feature of every token moved up and down, each in a row of its own.

    The step is a long one because some norms (Llama's) work in float32 whatever they are given.
    """
    ids = batch_of(backbone, [TEXTS[row]]).input_ids
    seen: list[Tensor] = []

    def look(hidden: Tensor) -> Tensor:
        seen.append(hidden[0].clone())
        return hidden

    run_changed(backbone, ids, layer, look)
    hidden = seen[0]
    moves = torch.eye(hidden.numel(), dtype=torch.float64).view(-1, *hidden.shape)
    many = ids.expand(len(moves), -1)
    up = loss(run_changed(backbone, many, layer, lambda h: h + step * moves), row)
    down = loss(run_changed(backbone, many, layer, lambda h: h - step * moves), row)
    gradient = ((up - down) / (2 * step)).view_as(hidden)
    return float((gradient * hidden).abs().sum())


@pytest.mark.parametrize(
    "family",
    ["bert", "deberta_v2_conv", "modernbert", "albert", "t5", "gpt2", "llama", "gemma2", "fnet"],
)
def test_every_layer_is_its_central_differences(family: str, tmp_path: Path) -> None:
    backbone = tiny(family, tmp_path)
    backbone.model.double()
    row = 2 if family in DECODERS else 0  # a short text: their tokens are bytes
    found = scores(backbone, [row], MEAN)
    assert (NORM in backbone.shape.layers) == (family in WITH_NORM)
    for layer in backbone.shape.layers:
        expected = by_differences(backbone, row, layer)
        assert float(found["mean", layer][0]) == pytest.approx(expected, rel=3e-4), layer


# -- other precisions ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize(("dtype", "relative"), [("bfloat16", 0.1), ("float16", 0.02)])
@pytest.mark.parametrize("scale", [0.1, 1e-5])
def test_half_precision_comes_near(
    family: str, dtype: str, relative: float, scale: float, tmp_path: Path
) -> None:
    """A small loss too: its gradients would be 0 in float16 as they are."""
    heads = {"mean": head(scale=scale)}
    found = []
    for name in ("float32", dtype):
        backbone = tiny(family, tmp_path, name)
        batch = batch_of(backbone, TEXTS)
        found.append(gradient_times_activation(backbone, batch, TARGET, heads, MEAN))
    for key, expected in found[0].items():
        assert found[1][key].dtype == torch.float32
        np.testing.assert_allclose(found[1][key], expected, rtol=relative)
