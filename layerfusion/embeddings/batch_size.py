"""How many tokens a batch has: computed for packed texts, measured for padded ones."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path

import torch

from layerfusion.assets.memo import read_facts, write_facts
from layerfusion.config.job import PoolingConfig
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.forward import launch
from layerfusion.embeddings.memory import free_memory, out_of_memory
from layerfusion.embeddings.tokens import TokenizedText

log = logging.getLogger(__name__)

CPU_BUDGETS = (512, 1024, 2048)
"""Batch sizes in tokens that the calibration tries on a CPU."""
GPU_BUDGETS = (8192, 16384, 32768, 65536, 131072)
"""Batch sizes in tokens that the calibration tries on a GPU."""
LEAST_PACKED, MOST_PACKED = 4096, 131_072
"""Smallest and largest number of tokens in a batch of packed texts."""
PACKED_WORK = 6e14
"""Limit on the floating-point operations of a batch of packed texts."""
TOKEN_WIDTHS = 24
"""Upper estimate of the numbers that a token takes in a block, in multiples of the width."""
CALIBRATION_BLOCKS = 3
"""Number of blocks that the calibration runs."""
CALIBRATION_TEXTS = 512
"""Number of texts that the calibration on a GPU reads."""
ENOUGH = 0.97
"""Share of the best rate on a GPU at which a smaller batch is chosen, as it needs less memory."""


def packed_budget(backbone: Backbone) -> int | None:
    """Compute the tokens of a batch of packed texts; None for a model whose texts are padded.

    Without padding, the rate hardly depends on the size of a batch that fills the device. With a
    model of 7 billion parameters, an H200 reaches 480 TFLOP/s at 16,384 tokens and 490 at 65,536.
    We therefore measure nothing. Batches of small models are large enough to hide the launching of
    kernels, those of large models take about a second, and all fit into a part of the memory.
    """
    if backbone.packing is None:
        return None
    weights = sum(backbone.shape.block_weights)
    by_work = PACKED_WORK / (2 * max(1, weights))
    quarter = free_memory(backbone.device) / 4
    numbers = quarter / 2  # of two bytes each
    by_memory = numbers / (TOKEN_WIDTHS * backbone.shape.width)
    tokens = MOST_PACKED
    while tokens > LEAST_PACKED and tokens > min(by_work, by_memory):
        tokens //= 2
    return tokens


def calibrated_budget(backbone: Backbone, texts: Sequence[TokenizedText], path: Path) -> int:
    """Measure the batch size, in tokens, at which this model is fastest on this machine.

    A few real texts of about median length pass through the lowest blocks with each candidate size.
    The result is saved, so that a job that resumes after an interruption forms the same batches.
    """
    saved = read_facts(path, "batch sizes") or {}
    key = f"{platform.node()} {backbone.device} {backbone.model.dtype} {backbone.shape.layers[-1]}"
    key += f" {backbone.shape.width}x{backbone.shape.num_blocks} {torch.get_num_threads()} threads"
    if key not in saved:
        saved[key] = _fastest_budget(backbone, texts)
        write_facts(path, saved)
        log.info("%s: batches of %d tokens are fastest here", backbone.name, saved[key])
    return saved[key]


def _fastest_budget(backbone: Backbone, texts: Sequence[TokenizedText]) -> int:
    gpu = backbone.device.type != "cpu"
    candidates = GPU_BUDGETS if gpu else CPU_BUDGETS
    middle = [window for text in texts for window in text.windows]
    middle.sort(key=lambda window: len(window.ids))
    length = len(middle[len(middle) // 2].ids)
    near = sorted(middle, key=lambda window: abs(len(window.ids) - length))
    layers = {"mean": backbone.shape.layers[: CALIBRATION_BLOCKS + 1]}
    rates: dict[int, float] = {}
    for budget in candidates:
        rows = near[: max(1, budget // length)]
        if gpu:  # a few texts are repeated to fill the batch
            rows = list(islice(cycle(near), max(1, budget // length)))
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            try:
                launch(backbone, rows, layers, {"mean": PoolingConfig()}).land()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                return _smallest_of_best(rates, gpu) if rates else candidates[0]
            times.append(time.perf_counter() - begun)
        rates[budget] = sum(len(row.ids) for row in rows) / min(times)
        if not gpu and len(rows) == len(near):
            break
    return _smallest_of_best(rates, gpu)


def _smallest_of_best(rates: Mapping[int, float], gpu: bool) -> int:
    enough = max(rates.values()) * (ENOUGH if gpu else 1.0)
    return min(budget for budget, rate in rates.items() if rate >= enough)
