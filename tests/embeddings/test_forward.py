"""Batches that pass through a model, with a stand-in for the model and for what it computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from layerfusion.config.job import BackboneConfig, PoolingConfig
from layerfusion.embeddings import batch_size, forward
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.forward import TokenBudget, pass_batches
from layerfusion.embeddings.memory import free_memory, out_of_memory
from layerfusion.embeddings.packing import Packing
from layerfusion.embeddings.tokens import TokenizedText, Window
from layerfusion.errors import UserError
from layerfusion.layers import probe
from tests.pretended_gpu import pretended_gpu


@dataclass(frozen=True)
class Lengths:
    lengths: list[int]


def backbone(**facts: Any) -> Backbone:
    """Stand in for a model that passes texts of up to 2,048 tokens without padding."""
    usual = {
        "name": "tiny",
        "device": torch.device("cpu"),
        "packing": Packing(2048, 0),
        "masks_padding": True,
        "is_fed": True,
    }
    return cast(Backbone, SimpleNamespace(**{**usual, **facts}))


@pytest.mark.parametrize("packed", [True, False])
def test_after_too_large_a_batch_come_smaller_ones(packed: bool) -> None:
    """One long row among short ones: rows × longest row is far more than the packed tokens."""
    lengths = [512] + [100] * 1100
    asked: list[list[int]] = []

    def start(group: Lengths, rows: list[int]) -> Callable[[], list[int]]:
        asked.append(rows)
        assert len(asked) < 100, "the same batch is formed again and again"
        size = sum(group.lengths[row] for row in rows)
        if not packed:
            size = len(rows) * max(group.lengths[row] for row in rows)
        if size > 65_536:
            raise torch.OutOfMemoryError("out of memory")
        return lambda: rows

    model = backbone() if packed else backbone(packing=None)
    budget = TokenBudget(131_072)
    passed = [
        row
        for _, rows, landed in pass_batches(model, [Lengths(lengths)], budget, start)
        for row in landed
        if rows == landed
    ]
    assert sorted(passed) == list(range(len(lengths)))
    assert budget.tokens <= 65_536


@pytest.mark.parametrize(
    ("fed", "expected"), [(False, [[0], [1, 2, 3]]), (True, [[0, 1, 2, 3]])], ids=["cpu", "gpu"]
)
def test_a_cpu_does_not_pad_short_texts_to_a_long_one(fed: bool, expected: list[list[int]]) -> None:
    model = backbone(packing=None, is_fed=fed)
    group, budget = Lengths([100, 20, 19, 18]), TokenBudget(2048)
    made = [rows for _, rows, _ in pass_batches(model, [group], budget, lambda *_: lambda: None)]
    assert made == expected


def test_vectors_are_waited_for_on_the_device_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several GPUs the current one, whose stream PyTorch takes if none is named, is another."""
    second = torch.device("cuda", 1)
    monkeypatch.setattr(
        forward, "_pool_on_device", lambda *_: {("mean", "0"): torch.ones(1, 4, device=second)}
    )
    window = Window(np.arange(8, dtype=np.int32), 0, 8, opens=True)
    with pretended_gpu():
        stream = mock.Mock()
        monkeypatch.setattr(torch.cuda, "current_stream", stream)
        model = backbone(device=second, pad_id=0, packing=None)
        forward.launch(model, [window], {"mean": ["0"]}, {"mean": PoolingConfig()}).land()
    stream.assert_called_once_with(second)
    event = stream.return_value.record_event
    event.return_value.synchronize.assert_called_once_with()


# -- memory -------------------------------------------------------------------------------------


def test_blocks_that_pytorch_keeps_of_freed_tensors_are_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a second model in one process would get small batches, and its probes too."""
    gib = 2**30
    with pretended_gpu() as gpu:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 * gib, 80 * gib))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 78 * gib)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 18 * gib)
        assert free_memory(gpu) == 61 * gib
        shape = SimpleNamespace(block_weights=(7_000_000,) * 12, width=768)
        assert batch_size.packed_budget(backbone(device=gpu, shape=shape)) == 131_072
        layers = [torch.empty(20_000, 768, device="meta")] * 24
        assert list(probe._groups(layers, 2, 5, gpu)) == [list(range(24))]


# -- errors -------------------------------------------------------------------------------------

FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported", 2),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, max allowed: 9.07 GB)"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    MemoryError("Unable to allocate 8.00 EiB for an array"),
]


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_lack_of_memory_is_known_in_all_its_words(error: Exception) -> None:
    assert out_of_memory(error)


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**48), lambda: np.empty(2**48)])
def test_a_lack_of_memory_is_known_as_it_is_raised_here(allocate: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    assert out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: an illegal memory access"), ValueError("out of memory")]
)
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not out_of_memory(error)


def test_a_batch_for_which_numpy_has_no_memory_is_halved() -> None:
    def start(_group: Lengths, rows: list[int]) -> Callable[[], int]:
        if len(rows) > 2:
            raise MemoryError("Unable to allocate 8.00 EiB for an array")
        return lambda: len(rows)

    passed = pass_batches(backbone(), [Lengths([5] * 8)], TokenBudget(40), start)
    assert [landed for *_, landed in passed] == [2] * 4


def test_the_batch_size_is_measured_up_to_the_memory_of_numpy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def launch(_backbone: Backbone, windows: list[Window], *_rest: Any) -> Any:
        if len(windows) > 100:
            raise MemoryError("Unable to allocate 8.00 EiB for an array")
        return SimpleNamespace(land=lambda: None)

    monkeypatch.setattr(batch_size, "launch", launch)
    text = TokenizedText((Window(np.arange(8, dtype=np.int32), 0, 8, opens=True),), 8, 0)
    model = backbone(shape=SimpleNamespace(layers=("0", "1")))
    assert batch_size._fastest_budget(model, [text] * 300) == 512


@pytest.mark.parametrize("full", [False, True])
def test_a_model_that_fails_on_packed_texts_is_one_line(
    full: bool, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_backbone("tiny", llama_folder, BackboneConfig(max_length=64), "cpu")
    model = replace(plain, packing=Packing(64, 0))
    attend = F.scaled_dot_product_attention

    def fails(*args: Any, **how: Any) -> Any:
        if full:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return attend(*args, **{**how, "unheard_of": True})

    monkeypatch.setattr(F, "scaled_dot_product_attention", fails)
    texts = model.tokenize(["oil price rose", "net"], BackboneConfig())
    windows = [text.windows[0] for text in texts]
    expected = torch.OutOfMemoryError if full else UserError
    said = "CUDA out of memory" if full else "backbone tiny: LlamaModel fails at 64 packed tokens"
    with pytest.raises(expected, match=said):
        forward.launch(model, windows, {"mean": ["2"]}, {"mean": PoolingConfig()})
