"""Passes of a text sample through a model for attention and gradients, cached by their content."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from layerfusion.assets.memo import hash_of, read_facts, write_facts
from layerfusion.config.job import TRUNCATE, ExtractConfig
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.batch_size import CPU_BUDGETS, GPU_BUDGETS
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.forward import TokenBudget, not_finite, pass_batches
from layerfusion.embeddings.gpus import gpu_turn
from layerfusion.embeddings.progress import TokenBar
from layerfusion.embeddings.source import EmbeddingSource
from layerfusion.embeddings.tokens import Batch, Window, collate
from layerfusion.errors import UserError
from layerfusion.layers.attention import attention_entropy
from layerfusion.layers.gradient import gradient_times_activation
from layerfusion.layers.held_out import SCORES_FOLDER
from layerfusion.layers.probe import LinearProbe

VERSION = 1
"""Part of the cache key. Raise it with every change that gives other values."""
ATTENTION = "attention_entropy"
GRADIENT = "gradient"
ATTENTION_CELLS = 64_000_000
"""Limit on the attention weights of one batch, over all blocks and heads: 256 MB in float32."""
IRRELEVANT = ("pool", "skip_first", "store_dtype", "long_texts", "window_overlap")
"""Parts of a spec that change nothing here: tokens are not pooled and long texts are truncated."""

K = TypeVar("K")


def sample_attention(
    source: EmbeddingSource, texts: Sequence[str], options: ExtractConfig
) -> tuple[dict[str, np.ndarray], float]:
    """Attention entropy of each head of each block, mean over the texts of two tokens or more.

    Block i is layer "i". Layer 0 and the final norm have no attention and are left out. Long texts
    are truncated. The model is loaded only if the cache lacks the result.

    Args:
        source: the model.
        texts: the sample.
        options: device and batch size.

    Returns:
        The entropies of each layer's heads, shape (heads,), float64; and the seconds that computing
        them takes, or took when they were first computed.

    Raises:
        UserError: if the model does not give a weight for each pair of tokens, a value is not
            finite, or no text has two tokens.
    """
    path = _path(source, ATTENTION, texts)
    values, seconds = _kept(path, options, lambda: _attention_means(source, texts, options))
    return {layer: np.array(heads) for layer, heads in values.items()}, seconds


def require_attention(source: EmbeddingSource, text: str, options: ExtractConfig) -> None:
    """Pass one text through a model, and refuse a model that gives no attention weights.

    Raises:
        UserError: naming what the model gives, and scores that it can have.
    """
    with gpu_turn(options.device):
        _pass_one(source, text, options)


def _pass_one(source: EmbeddingSource, text: str, options: ExtractConfig) -> None:
    backbone = load_backbone(
        source.name, source.asset.path, source.config, options.device, eager=True
    )
    batch = collate(_windows(source, backbone, [text]), backbone.pad_id)
    _attention_weights(backbone, batch.to(backbone.device))


def sample_gradient(
    source: EmbeddingSource,
    texts: Sequence[str],
    labels: Sequence[int],
    heads: Mapping[str, LinearProbe],
    options: ExtractConfig,
) -> tuple[dict[tuple[str, str], float], float]:
    """Gradient × activation of every layer, mean over the texts.

    Long texts are truncated. The model is loaded only if the cache lacks the result.

    Args:
        source: the model.
        texts: the sample.
        labels: class index of each text.
        heads: pooling to the linear head on the last layer.
        options: device and batch size.

    Returns:
        The mean of each (pooling, layer); and the seconds that computing them takes, or took when
        they were first computed.

    Raises:
        UserError: if a value is not finite.
    """
    poolings = {name: source.poolings[name] for name in heads}
    path = _path(
        source,
        GRADIENT,
        texts,
        labels=[int(label) for label in labels],
        poolings={name: asdict(pooling) for name, pooling in poolings.items()},
        heads={name: _head_hash(head) for name, head in heads.items()},
    )
    values, seconds = _kept(
        path, options, lambda: _gradient_means(source, texts, labels, heads, options)
    )
    means = {(pooling, layer): g for pooling in values for layer, g in values[pooling].items()}
    return means, seconds


# -- passing the sample -------------------------------------------------------------------------


def _attention_means(
    source: EmbeddingSource, texts: Sequence[str], options: ExtractConfig
) -> dict[str, list[float]]:
    backbone = load_backbone(
        source.name, source.asset.path, source.config, options.device, eager=True
    )
    windows = _windows(source, backbone, texts)
    lengths = torch.tensor([len(window.ids) for window in windows])
    longest = int(lengths.max())
    if longest < 2:
        raise UserError(f"{ATTENTION}: no text of the sample has two tokens for {source.name}")
    # The weights of all blocks are in memory at once, one for each pair of tokens and head.
    heads = getattr(backbone.model.config, "num_attention_heads", 1)
    room = ATTENTION_CELLS // (backbone.shape.num_blocks * heads * longest)
    budget = min(_budget(backbone, options), room)

    def entropies(batch: Batch, _rows: list[int]) -> dict[str, Tensor]:
        tokens = batch.attention_mask.sum(dim=1)
        weights = _attention_weights(backbone, batch)
        return {
            str(n): attention_entropy(block, tokens.to(block.device))
            for n, block in enumerate(weights, 1)
        }

    by_text = _over_batches(backbone, windows, budget, ATTENTION, entropies)
    means = {layer: heads[lengths > 1].double().mean(dim=0) for layer, heads in by_text.items()}
    for layer, values in means.items():
        if not bool(values.isfinite().all()):
            raise not_finite(source.name, layer, score=ATTENTION)
    return {layer: values.tolist() for layer, values in means.items()}


@torch.inference_mode()
def _attention_weights(backbone: Backbone, batch: Batch) -> Sequence[Tensor]:
    """Weights of every block. Shapes: (batch, heads, tokens, tokens)."""
    output = backbone.model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_attentions=True
    )
    weights = [block for block in getattr(output, "attentions", None) or () if block is not None]
    rows, tokens = batch.input_ids.shape
    odd = [tuple(x.shape) for x in weights if x.shape != (rows, x.shape[1], tokens, tokens)]
    if odd:
        reason = f"gives attention weights of shape {odd[0]}, not one a pair of {tokens} tokens"
    elif not weights:
        reason = "gives no attention weights"
    elif len(weights) != backbone.shape.num_blocks:
        reason = f"gives attention weights in {len(weights)} of {backbone.shape.num_blocks} blocks"
    else:
        return weights
    raise UserError(
        f"{ATTENTION}: backbone {backbone.name} {reason} ({type(backbone.model).__name__});"
        " choose layers.score=probe, gradient or logme"
    )


def _gradient_means(
    source: EmbeddingSource,
    texts: Sequence[str],
    labels: Sequence[int],
    heads: Mapping[str, LinearProbe],
    options: ExtractConfig,
) -> dict[str, dict[str, float]]:
    backbone = load_backbone(source.name, source.asset.path, source.config, options.device)
    windows = _windows(source, backbone, texts)
    target = torch.tensor(labels)

    def gradients(batch: Batch, rows: list[int]) -> dict[tuple[str, str], Tensor]:
        return gradient_times_activation(backbone, batch, target[rows], heads, source.poolings)

    by_text = _over_batches(backbone, windows, _budget(backbone, options), GRADIENT, gradients)
    means: dict[str, dict[str, float]] = {name: {} for name in heads}
    for (pooling, layer), values in by_text.items():
        if not bool(values.isfinite().all()):
            raise not_finite(source.name, layer, score=GRADIENT)
        means[pooling][layer] = float(values.double().mean())
    return means


def _windows(source: EmbeddingSource, backbone: Backbone, texts: Sequence[str]) -> list[Window]:
    """Tokenise each text to one row; long texts are truncated, whatever the embeddings do."""
    if not texts:
        raise UserError(f"backbone {source.name}: there is no text to score its layers with")
    config = replace(source.config, long_texts=TRUNCATE)
    return [text.windows[0] for text in backbone.tokenize(texts, config)]


def _budget(backbone: Backbone, options: ExtractConfig) -> int:
    """Tokens of a batch: the smallest number that extraction tries, as memory needs are larger."""
    smallest = CPU_BUDGETS[0] if backbone.device.type == "cpu" else GPU_BUDGETS[0]
    return options.token_budget or smallest


def _over_batches(
    backbone: Backbone,
    windows: Sequence[Window],
    budget: int,
    kind: str,
    score: Callable[[Batch, list[int]], Mapping[K, Tensor]],
) -> dict[K, Tensor]:
    """Score all rows in batches, with smaller ones if memory runs out.

    Returns:
        The values of all rows, under the keys that `score` gives. Shapes: (rows, …), float32.
    """
    sample = _Sample([len(window.ids) for window in windows])
    values: dict[K, Tensor] = {}

    def start(_sample: _Sample, rows: list[int]) -> Callable[[], Mapping[K, Tensor]]:
        batch = collate([windows[row] for row in rows], backbone.pad_id)
        scored = score(batch.to(backbone.device), rows)
        on_host = {key: value.float().cpu() for key, value in scored.items()}
        return lambda: on_host

    scored_batches = pass_batches(
        backbone, [sample], TokenBudget(budget), start, allow_packing=False
    )
    with TokenBar(f"{kind} {backbone.name}", sum(sample.lengths)) as bar:
        for _, rows, scored in scored_batches:
            for key, value in scored.items():
                if key not in values:
                    values[key] = torch.empty(len(windows), *value.shape[1:])
                values[key][rows] = value
            bar.update(sum(sample.lengths[row] for row in rows))
    return values


@dataclass(frozen=True)
class _Sample:
    """The numbers of tokens of the sample's texts."""

    lengths: Sequence[int]


# -- cache --------------------------------------------------------------------------------------


def _path(source: EmbeddingSource, kind: str, texts: Sequence[str], **more: Any) -> Path:
    """The cache file of a result, named by a hash of everything that the result depends on."""
    spec = json.loads(next(iter(source.stores.values())).spec.canonical())
    content = {
        "kind": kind,
        "version": VERSION,
        "backbone": {key: spec[key] for key in spec if key not in IRRELEVANT},
        "texts": [text_hash(text).hex() for text in texts],
        **more,
    }
    return source.cache / SCORES_FOLDER / f"{hash_of(content)}.json"


def _head_hash(head: LinearProbe) -> str:
    digest = hashlib.sha256(str(tuple(head.weight.shape)).encode())
    for tensor in (head.weight, head.bias):
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _kept(
    path: Path, options: ExtractConfig, compute: Callable[[], Mapping[str, Any]]
) -> tuple[Mapping[str, Any], float]:
    """Read a result from the cache, or compute and save it; return it and its seconds."""
    if (kept := _read(path)) is not None:
        return kept
    with gpu_turn(options.device) as after_others:
        if after_others and (kept := _read(path)) is not None:
            return kept
        begun = time.perf_counter()
        values = compute()
        seconds = round(time.perf_counter() - begun, 3)
        write_facts(path, {"values": values, "seconds": seconds})
    return values, seconds


def _read(path: Path) -> tuple[Mapping[str, Any], float] | None:
    kept = read_facts(path, "score")
    if kept is None or not {"values", "seconds"} <= kept.keys():
        return None
    return kept["values"], kept["seconds"]
