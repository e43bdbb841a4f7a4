"""Measure the time that a model takes to reach each of its layers, for one text and for a batch.

It is measured when a model is loaded to extract texts anyway, and saved beside the vectors: once
for each length of text, to within a quarter, as long texts take many times as long as short ones.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from layerfusion.assets.memo import read_kept, write_facts
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.memory import out_of_memory
from layerfusion.embeddings.shape import BATCH
from layerfusion.embeddings.tokens import Batch, TokenizedText, collate

LATENCY_FILES = re.compile(r"latency(-(\d+))?\.json")
"""Names of the files in a store's folder that hold measurements, each for texts of one length.
Older stores have one without a length, which is not read."""
NEAR = 1.25
"""Largest ratio of two lengths that are as good as the same."""
PASSES = 3
"""Largest number of passes that are timed; the fastest counts."""
PATIENCE = 2.0
"""Seconds after which we time no further pass."""


@dataclass(frozen=True)
class Latency:
    """Seconds from the start of a pass to each layer, taken from the fastest of a few passes."""

    length: int
    """Length of the single text, which is the median: see `middle_length`. In tokens that the model
    sees, or in characters where the vectors are computed elsewhere."""
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
    middle = sorted(texts, key=lambda text: (text.seen, text.cost))[len(texts) // 2]
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
    return Latency(middle.seen, _fastest(backbone, single), batch)


def middle_length(lengths: Sequence[int] | np.ndarray) -> int:
    """Return the median length of texts, one of theirs; 0 where there are none."""
    return int(np.sort(lengths)[len(lengths) // 2]) if len(lengths) else 0


def write_latency(latency: Latency, folder: Path) -> None:
    """Save a measurement in a store's folder."""
    name = f"latency-{latency.length}.json"
    write_facts(folder / name, asdict(latency), f"{folder.name}/{name}")


def read_latency(folder: Path, length: int) -> Latency | None:
    """Read the measurement in a store's folder for texts of a length, or of nearly this length.

    Args:
        folder: the store's folder.
        length: as in `Latency`.

    Returns:
        The measurement of the nearest length; None if none is near, or those are damaged.
    """
    lengths = {n: max(n, length) / max(1, min(n, length)) for n in _lengths(folder)}
    for n in sorted(lengths, key=lambda n: (lengths[n], n)):
        if lengths[n] <= NEAR and (found := _read(folder, n)) is not None:
            return found
    return None


def lacks_latency(folder: Path) -> bool:
    """Return True if a store's folder could have measurements and has none that can be read.

    A process that was killed after the last shard leaves none.
    """
    return os.access(folder, os.W_OK) and all(_read(folder, n) is None for n in _lengths(folder))


def needs_latency(folder: Path, lengths: Sequence[int] | np.ndarray) -> bool:
    """Tell whether texts of some lengths are to be timed.

    Fewer than a batch are timed only if nothing was before.
    """
    if len(lengths) < BATCH:
        return lacks_latency(folder)
    return read_latency(folder, middle_length(lengths)) is None


def _lengths(folder: Path) -> Iterator[int]:
    """Give the lengths that a folder has measurements of."""
    for path in folder.iterdir():
        named = LATENCY_FILES.fullmatch(path.name)
        if named is not None and named[2] is not None:
            yield int(named[2])


def _read(folder: Path, length: int) -> Latency | None:
    name = f"latency-{length}.json"
    return read_kept(folder / name, Latency, "latency", f"{folder.name}/{name}")


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
