"""The forward pass: batches of texts through a frozen model, each layer pooled as it appears."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.job import PoolingConfig
from layerfusion.embeddings.backbone import Backbone, out_of_memory
from layerfusion.embeddings.pooling import combine, first_pooled, pool
from layerfusion.embeddings.tokens import Batch, TokenizedText, batches, collate
from layerfusion.errors import UserError

log = logging.getLogger(__name__)

Vectors = dict[tuple[str, str], np.ndarray]
"""(pooling, layer) to the vectors of some texts. Shape: (texts, width), float32."""


def embed(
    backbone: Backbone,
    texts: Sequence[TokenizedText],
    layers: Mapping[str, Sequence[str]],
    poolings: Mapping[str, PoolingConfig],
    budget: int,
    progress: Callable[[int], object] = lambda tokens: None,
) -> tuple[Vectors, int]:
    """Pass some texts through a model, in batches that fit, and pool each wanted layer.

    Args:
        backbone: the model.
        texts: its input, the longest first.
        layers: pooling to the layers wanted; blocks above are not computed.
        poolings: pooling to how it pools.
        budget: tokens of a batch, padding included.
        progress: told the tokens of each batch.

    Returns:
        The vectors, and the budget: smaller than before where memory ran out.

    Raises:
        UserError: where there is no memory for a single text.
    """
    windows = [window for text in texts for window in text.windows]
    lengths = [len(window.ids) for window in windows]
    pooled: dict[tuple[str, str], Tensor] = {}
    equal = not backbone.masks_padding
    pending = deque(batches(lengths, budget, equal=equal))
    while pending:
        rows = pending.popleft()
        batch = collate([windows[row] for row in rows], backbone.pad_id)
        try:
            done = pool_layers(backbone, batch, layers, poolings)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(rows) == 1:
                raise UserError(
                    f"backbone {backbone.name}: no memory for one text of {lengths[rows[0]]}"
                    f" tokens on {backbone.device}; lower backbone.{backbone.name}.max_length"
                ) from error
            budget = len(rows) // 2 * lengths[rows[0]]
            log.warning("%s: out of memory, going on with %d tokens", backbone.name, budget)
            rest = sorted([*rows, *(row for later in pending for row in later)])
            again = batches([lengths[row] for row in rest], budget, equal=equal)
            pending = deque([rest[place] for place in places] for places in again)
            continue
        for key, vectors in done.items():
            if key not in pooled:
                pooled[key] = torch.empty(len(windows), vectors.shape[1])
            pooled[key][rows] = vectors
        progress(sum(lengths[row] for row in rows))
    return _by_text(texts, pooled, poolings), budget


def _by_text(
    texts: Sequence[TokenizedText],
    pooled: Mapping[tuple[str, str], Tensor],
    poolings: Mapping[str, PoolingConfig],
) -> Vectors:
    windows = [window for text in texts for window in text.windows]
    owner = torch.tensor([n for n, text in enumerate(texts) for _ in text.windows])
    spans = collate(windows, pad_id=0)
    vectors = {}
    for (name, layer), values in pooled.items():
        how = poolings[name]
        tokens = spans.stop - first_pooled(spans.start, spans.stop, spans.opens, how)
        vectors[name, layer] = combine(values, tokens, owner, len(texts), how.pool).numpy()
    return vectors


@torch.inference_mode()
def pool_layers(
    backbone: Backbone,
    batch: Batch,
    layers: Mapping[str, Sequence[str]],
    poolings: Mapping[str, PoolingConfig],
) -> dict[tuple[str, str], Tensor]:
    """Pass a batch through the model and pool each wanted layer as it appears.

    Args:
        backbone: the model.
        batch: its input.
        layers: pooling to the layers wanted.
        poolings: pooling to how it pools.

    Returns:
        (pooling, layer) to vectors on the CPU. Shape: (batch, width), float32.
    """
    batch = batch.to(backbone.device)
    pooled: dict[tuple[str, str], Tensor] = {}

    def visit(layer: str, hidden: Tensor) -> None:
        for name, wanted in layers.items():
            if layer in wanted:
                how = poolings[name]
                start = first_pooled(batch.start, batch.stop, batch.opens, how)
                pooled[name, layer] = pool(hidden, start, batch.stop, how.pool)

    together = list(dict.fromkeys(layer for wanted in layers.values() for layer in wanted))
    backbone.forward(batch.input_ids, batch.attention_mask, together, visit)
    return {key: vectors.cpu() for key, vectors in pooled.items()}
