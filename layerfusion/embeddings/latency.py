"""How long a model takes for one text and for a batch, up to each of its layers.

Measured once a store, when a model is loaded to extract texts anyway, and kept beside its vectors.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from layerfusion.assets.files import write_atomically
from layerfusion.embeddings.backbone import Backbone, out_of_memory
from layerfusion.embeddings.shape import BATCH
from layerfusion.embeddings.tokens import Batch, Window, collate

LATENCY_FILE = "latency.json"
PASSES = 3
PATIENCE = 2.0
"""Seconds after which no further pass is timed."""


@dataclass(frozen=True)
class Latency:
    """Seconds of a pass from its start to each layer, the fastest of a few passes."""

    tokens: int
    """Of the one text, which is of middling length."""
    one: dict[str, float]
    batch: dict[str, float]
    """Of 32 texts about as long; empty where they did not fit into memory."""


def measure_latency(backbone: Backbone, windows: Sequence[Window]) -> Latency:
    """Time one text and a batch of 32, of middling length.

    Args:
        backbone: the model.
        windows: what it is to read; repeated where there are fewer than 32.
    """
    ordered = sorted(windows, key=lambda window: len(window.ids))
    middle = len(ordered[len(ordered) // 2].ids)
    near = sorted(ordered, key=lambda window: abs(len(window.ids) - middle))
    one = collate(near[:1], backbone.pad_id)
    _pass(backbone, one)  # the first pass also sets things up
    try:
        together = _fastest(backbone, collate(list(islice(cycle(near), BATCH)), backbone.pad_id))
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        together = {}
    return Latency(middle, _fastest(backbone, one), together)


def write_latency(latency: Latency, folder: Path) -> None:
    """Keep a measurement in a store's folder."""
    write_atomically(folder / LATENCY_FILE, json.dumps(asdict(latency), indent=1).encode())


def read_latency(folder: Path) -> Latency | None:
    """The measurement in a store's folder; none where there is none."""
    try:
        return Latency(**json.loads((folder / LATENCY_FILE).read_text()))
    except FileNotFoundError:
        return None


def _fastest(backbone: Backbone, batch: Batch) -> dict[str, float]:
    begun = time.perf_counter()
    passes = []
    while len(passes) < PASSES and (not passes or time.perf_counter() - begun < PATIENCE):
        passes.append(_pass(backbone, batch))
    return min(passes, key=lambda taken: max(taken.values()))


@torch.inference_mode()
def _pass(backbone: Backbone, batch: Batch) -> dict[str, float]:
    """Layer to the seconds until it is there."""
    batch = batch.to(backbone.device)
    taken: dict[str, float] = {}
    _settle(backbone.device)
    begun = time.perf_counter()

    def visit(layer: str, _hidden: Tensor) -> None:
        _settle(backbone.device)
        taken[layer] = time.perf_counter() - begun

    backbone.forward(batch.input_ids, batch.attention_mask, backbone.shape.layers, visit)
    return taken


def _settle(device: torch.device) -> None:
    """Wait for what the device was given: else the clock shows when it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
