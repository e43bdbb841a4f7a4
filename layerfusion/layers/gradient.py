"""Gradient × activation: how strongly the loss of a task depends on each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerfusion.config.job import PoolingConfig
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.pooling import first_pooled, pool
from layerfusion.embeddings.tokens import Batch
from layerfusion.errors import UserError
from layerfusion.layers.probe import LinearProbe

LOSS_SCALE = 1024.0
"""Factor on the loss that keeps float16 gradients from vanishing. It is a power of two, so that it
changes no digit in other dtypes."""


def gradient_times_activation(
    backbone: Backbone,
    batch: Batch,
    target: Tensor,
    heads: Mapping[str, LinearProbe],
    poolings: Mapping[str, PoolingConfig],
) -> dict[tuple[str, str], Tensor]:
    """Size of gradient × activation at every layer, for each text and pooling.

    With L_i the cross-entropy of the linear head on the pooled last layer of text i, and h_l the
    hidden states of layer l, G_li = Σ_t Σ_j |∂L_i/∂h_ltj · h_ltj| over real tokens t and features
    j. To first order, the summand is the change of the loss if the feature were set
    to zero.

    The weights stay frozen and gather no gradients. This takes one forward pass, one backward pass
    for each pooling, and memory for all activations of the batch. Where `backbone.masks_padding`
    is true, rows do not depend on each other or on padding; otherwise all texts of a batch must
    have the same length.

    Args:
        backbone: the model.
        batch: one whole text in each row.
        target: class indices. Shape: (batch,).
        heads: pooling to the head on the last layer, on the CPU.
        poolings: settings of each pooling.

    Returns:
        (pooling, layer) to G on the CPU. Shape: (batch,), float32.

    Raises:
        UserError: for a model (XLNet) that returns copies of its hidden states, which the loss does
            not depend on.
    """
    layers = backbone.shape.layers
    batch = batch.to(backbone.device)
    hidden: dict[str, Tensor] = {}
    with torch.enable_grad(), _graph_from_embeddings(backbone.model):
        backbone.forward(batch.input_ids, batch.attention_mask, layers, hidden.__setitem__)
        losses = {
            name: LOSS_SCALE * _loss(hidden[layers[-1]], batch, target, head, poolings[name])
            for name, head in heads.items()
        }
    states = [hidden[layer] for layer in layers]
    tokens = batch.attention_mask.sum(dim=1)
    sizes: dict[tuple[str, str], Tensor] = {}
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss, states, retain_graph=True, allow_unused=True)
        for layer, state, gradient in zip(layers, states, gradients, strict=True):
            if gradient is None:
                raise UserError(
                    f"gradient: backbone {backbone.name} hands out copies of its hidden states"
                    f" ({type(backbone.model).__name__}), layer {layer} has no gradient; choose"
                    " layers.score=probe or logme"
                )
            size = _size(state.detach(), gradient, tokens.to(state.device))
            sizes[name, layer] = size.cpu()
    return sizes


def _size(hidden: Tensor, gradient: Tensor, tokens: Tensor) -> Tensor:
    """Sum of |gradient × activation| over the real tokens. Shape: (batch,), float32."""
    # The hidden states may be longer than the batch: some models (Longformer) add padding.
    padding = torch.arange(hidden.shape[1], device=hidden.device) >= tokens[:, None]
    product = (gradient.float() / LOSS_SCALE * hidden.float()).abs()
    return product.masked_fill(padding[:, :, None], 0.0).sum(dim=(1, 2))


def _loss(
    hidden: Tensor, batch: Batch, target: Tensor, head: LinearProbe, pooling: PoolingConfig
) -> Tensor:
    """Sum of the texts' losses. No text is part of another's loss, so gradients stay separate."""
    start = first_pooled(batch.start, batch.stop, batch.opens, pooling)
    where = hidden.device  # that of a model that is spread may be another than its inputs'
    # The head works in double precision, which some accelerators lack.
    pooled = pool(hidden, start.to(where), batch.stop.to(where), pooling.pool).cpu()
    return F.cross_entropy(head.logits(pooled), target.cpu(), reduction="sum")


@contextmanager
def _graph_from_embeddings(model: nn.Module) -> Iterator[None]:
    """Let the graph start at the embedded tokens, so that no weight needs a gradient."""

    def start(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        # A copy, because some models change it in place, which autograd forbids for a leaf.
        return output.detach().requires_grad_().clone()

    handle = model.get_input_embeddings().register_forward_hook(start)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()
