"""Measure the time that a model takes to reach each of its layers, for one text and for a batch.

It is measured once for each store, when a model is loaded to extract texts anyway, and saved beside
the vectors.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from layerfusion.assets.memo import read_kept, write_facts
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.memory import out_of_memory
from layerfusion.embeddings.shape import BATCH
from layerfusion.embeddings.tokens import Batch, TokenizedText, collate

LATENCY_FILE = "latency.json"
"""Name of the file in a store's folder that holds the measurement."""
PASSES = 3
"""Largest number of passes that are timed; the fastest counts."""
PATIENCE = 2.0
"""Seconds after which we time no further pass."""


@dataclass(frozen=True)
class Latency:
    """Seconds from the start of a pass to each layer, taken from the fastest of a few passes."""

    tokens: int
    """Number of tokens of the single text, which has the median length."""
    one: dict[str, float]
    """Seconds by layer for the single text."""
    batch: dict[str, float]
    """Seconds by layer for 32 texts of similar length; empty if they did not fit into memory."""


def measure_latency(backbone: Backbone, texts: Sequence[TokenizedText]) -> Latency:
    """Time one text of median length, and a batch of 32 texts of similar length.

    A text of several windows takes a pass of all of them. A batch of such texts is timed as one of
    32 windows, as many times as a text has windows.

    Args:
        backbone: the model.
        texts: tokenized texts to choose from; repeated if there are fewer than 32.
    """
    middle = sorted(texts, key=lambda text: text.cost)[len(texts) // 2]
    length = len(middle.windows[0].ids)
    windows = (window for text in texts for window in text.windows)
    near = sorted(windows, key=lambda window: (abs(len(window.ids) - length), len(window.ids)))
    single = collate(middle.windows, backbone.pad_id)
    _pass(backbone, single)  # not timed: the first pass also sets things up
    try:
        together = _fastest(backbone, collate(list(islice(cycle(near), BATCH)), backbone.pad_id))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        together = {}
    batch = {layer: len(middle.windows) * seconds for layer, seconds in together.items()}
    return Latency(middle.cost, _fastest(backbone, single), batch)


def write_latency(latency: Latency, folder: Path) -> None:
    """Save a measurement in a store's folder."""
    write_facts(folder / LATENCY_FILE, asdict(latency), f"{folder.name}/{LATENCY_FILE}")


def read_latency(folder: Path) -> Latency | None:
    """Read the measurement in a store's folder; return None if there is none, or it is damaged."""
    path = folder / LATENCY_FILE
    return read_kept(path, Latency, "latency", f"{folder.name}/{LATENCY_FILE}")


def lacks_latency(folder: Path) -> bool:
    """Return True if a store's folder could have a measurement and has none that can be read.

    A process that was killed after the last shard leaves none.
    """
    return os.access(folder, os.W_OK) and read_latency(folder) is None


def _fastest(backbone: Backbone, batch: Batch) -> dict[str, float]:
    begun = time.perf_counter()
    passes = []
    while len(passes) < PASSES and (not passes or time.perf_counter() - begun < PATIENCE):
        passes.append(_pass(backbone, batch))
    return min(passes, key=lambda taken: max(taken.values()))


@torch.inference_mode()
def _pass(backbone: Backbone, batch: Batch) -> dict[str, float]:
    """Time one pass. Returns the seconds from its start to each layer."""
    batch = batch.to(backbone.device)
    taken: dict[str, float] = {}
    _settle(backbone.device)
    begun = time.perf_counter()

    def visit(layer: str, hidden: Tensor) -> None:
        _settle(hidden.device)
        taken[layer] = time.perf_counter() - begun

    backbone.forward(batch.input_ids, batch.attention_mask, backbone.shape.layers, visit)
    return taken


def _settle(device: torch.device) -> None:
    """Wait until the device has finished, as its calls return before the work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
