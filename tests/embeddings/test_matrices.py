"""Vectors that fill the memory lie in files, and give the figures that they give in memory."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerfusion.cli import main
from layerfusion.embeddings import matrices, memory, standardise
from layerfusion.embeddings.matrices import LazyRows, new_matrices, take_rows
from layerfusion.embeddings.memory import free_host_memory
from layerfusion.embeddings.standardise import Standardiser
from layerfusion.errors import UserError
from layerfusion.fusion import together
from layerfusion.fusion.data import FusionDataModule
from tests.pretended_gpu import pretended_gpu
from tests.tiny import tiny_job, tiny_texts


@pytest.fixture
def full_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no memory for the vectors of a single row."""
    monkeypatch.setattr(matrices, "SMALL", 0)
    monkeypatch.setattr(matrices, "free_host_memory", lambda: 0.0)


@pytest.mark.parametrize(
    "words",
    [
        ["fusion=gated", "layers=adaptive", "seeds=2"],
        ["fusion=late_stack", "layers=all", "seeds=1"],
    ],
    ids=lambda words: words[0],
)
def test_a_job_whose_vectors_lie_in_files_gives_the_figures_of_memory(
    words: list[str],
    tmp_path: Path,
    bert_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    texts = tiny_texts(tmp_path / "texts.csv", 90)
    answers, in_files = [], []

    def in_file(*given: Any) -> np.ndarray:
        in_files.append(real(*given))
        return in_files[-1]

    real = matrices._in_file
    monkeypatch.setattr(matrices, "_in_file", in_file)
    for name in ("memory", "files"):
        if name == "files":
            assert not in_files
            request.getfixturevalue("full_memory")
        folder = tmp_path / name
        job = [*tiny_job(texts, bert_folder, tmp_path / "cache"), "logger=none", *words]
        assert main(["train", *job, f"hydra.run.dir={folder}"]) == 0
        answers.append(pd.read_parquet(next(folder.glob("*.parquet"))))
    assert sum(matrix.size for matrix in in_files) > 1000
    pd.testing.assert_frame_equal(*answers)


def test_matrices_in_files_leave_nothing_behind(tmp_path: Path, full_memory: None) -> None:
    shapes = {"0": (5, 3), "1": (5, 2), "none": (0, 4)}
    made = new_matrices(shapes, tmp_path)
    assert {name: matrix.shape for name, matrix in made.items()} == shapes
    made["0"][3] = 1.5
    assert made["0"].sum() == 4.5
    assert not [*tmp_path.iterdir()]
    assert np.array_equal(pickle.loads(pickle.dumps(made["0"])), made["0"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_matrix_in_a_file_takes_none_of_the_memory_of_the_process(
    tmp_path: Path, full_memory: None
) -> None:
    def own() -> int:
        """Bytes of memory that the system cannot drop."""
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return 1024 * int(next(x for x in lines if x.startswith("RssAnon")).split()[1])

    before = own()
    (matrix,) = new_matrices({"0": (2**15, 512)}, tmp_path).values()
    matrix[:] = 1
    assert own() - before < matrix.nbytes / 4


def test_a_full_disk_is_one_line_before_anything_is_written(
    tmp_path: Path, full_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError) as caught:
        new_matrices({"0": (1000, 250)}, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: 0.001 GB of vectors fit neither into the memory, nor onto this disk (No space"
        " left on device); fewer rows (limit.train=…) or layers need less"
    )


@given(
    rows=st.integers(1, 40),
    picked=st.lists(st.integers(0, 10**6), max_size=30),
    start=st.integers(0, 40),
    scaled=st.booleans(),
)
def test_rows_that_are_read_as_needed_are_those_of_a_copy(
    rows: int, picked: Sequence[int], start: int, scaled: bool
) -> None:
    vectors = torch.randn(rows, 3, generator=torch.Generator().manual_seed(rows))
    places = torch.tensor([n % rows for n in picked], dtype=torch.long)
    scale = (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 2.0, 4.0])) if scaled else None
    for chosen, copy in ((None, vectors), (places, vectors[places])):
        lazy = LazyRows(vectors, chosen, scale)
        if scale is not None:
            copy = (copy - scale[0]) / scale[1]
        assert (len(lazy), lazy.shape, lazy.nbytes) == (len(copy), copy.shape, copy.nbytes)
        assert torch.equal(lazy[:], copy)
        assert torch.equal(lazy[start : start + 5], copy[start : start + 5])
        some = torch.arange(0, len(copy), 2)
        assert torch.equal(lazy[some], copy[some])


def test_rows_are_taken_by_places_or_a_mask(full_memory: None) -> None:
    vectors = torch.arange(12.0).view(6, 2)
    mask = torch.tensor([True, False, True, False, False, True])
    for wanted in (mask, torch.where(mask)[0]):
        taken = take_rows(vectors, wanted)
        assert isinstance(taken, LazyRows)
        assert torch.equal(taken[:], vectors[mask])


def test_the_statistics_of_many_rows_are_summed_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = 5000 + torch.randn(1000, 4, dtype=torch.float64)
    whole = Standardiser.fit([vectors])
    monkeypatch.setattr(matrices, "CHUNK", 256)
    by_chunks = Standardiser.fit([vectors])
    torch.testing.assert_close(by_chunks.mean, whole.mean, rtol=1e-7, atol=0)
    torch.testing.assert_close(by_chunks.std, whole.std, rtol=1e-7, atol=0)


def test_numbers_that_are_not_finite_are_found_in_any_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matrices, "CHUNK", 8)
    vectors = torch.randn(10, 2)
    vectors[7, 1] = torch.nan
    features = {"train": [vectors], "validation": [torch.randn(3, 2)]}
    targets = {"train": torch.arange(10) % 2, "validation": torch.arange(3) % 2}
    with pytest.raises(UserError, match=r"source 0 of train holds NaN or infinity, first in row 7"):
        FusionDataModule(features, targets)


def test_what_a_container_may_take_is_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, said in {
        "memory.max": "1000\n",
        "memory.current": "700\n",
        "memory.stat": "anon 500\ninactive_file 150\n",
    }.items():
        (tmp_path / name).write_text(said)
    names = "memory.max", "memory.current", "inactive_file"
    monkeypatch.setattr(memory, "CONTAINER", [(tmp_path / "none", *names), (tmp_path, *names)])
    assert free_host_memory() == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert free_host_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_without_room_on_the_disk_the_memory_takes_what_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrices, "SMALL", 0)
    monkeypatch.setattr(matrices, "free_host_memory", lambda: 1500)
    shapes = {"0": (50, 3), "1": (50, 2)}
    made = new_matrices(shapes, tmp_path / "none", zeros=True)
    assert {name: matrix.shape for name, matrix in made.items()} == shapes
    assert not made["1"].any()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_matrices_that_are_read_together_share_a_file(tmp_path: Path, full_memory: None) -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    made = new_matrices({str(n): (3, 2) for n in range(20)}, tmp_path)
    assert len([*Path("/proc/self/fd").iterdir()]) <= before + 1
    for n, matrix in enumerate(made.values()):
        matrix[:] = n
    assert [matrix.mean() for matrix in made.values()] == [*range(20)]


@pytest.mark.parametrize("lack", ["of the host", "of the GPU"])
def test_batches_of_rows_that_stay_on_the_host_go_to_the_gpu(
    lack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = {"train": [torch.randn(9, 3)], "validation": [torch.randn(4, 3)]}
    targets = {"train": torch.arange(9) % 2, "validation": torch.arange(4) % 2}
    if lack == "of the host":
        monkeypatch.setattr(standardise, "fits", lambda _: False)
    else:
        monkeypatch.setattr(together, "free_memory", lambda _: 0)
    data = FusionDataModule(features, targets)
    expected = standardise.Standardiser.fit(features["train"])(features["train"])[0]
    with pretended_gpu() as gpu:
        batches = [*together._OnDevice(data, gpu).batches("train", 4, seed=0)]
        assert all(x.device == gpu for (sources, y) in batches for x in (*sources, y))
        rows = torch.cat([sources[0].cpu() for sources, _ in batches])
    assert sorted(rows[:, 0].tolist()) == sorted(expected[:, 0].tolist())
