"""Vectors of many texts: in memory or, where they would fill it, in files that vanish with them.

What the vectors of a job take is measured against the memory that is free when they are read. A
matrix in a file is an array as any other, of which the system keeps in memory what there is room
for. What would be a copy of such vectors is then computed for some rows at a time (`LazyRows`).
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from layerfusion.assets.files import DiskError
from layerfusion.embeddings.memory import free_host_memory

SHARE = 0.25
"""Share of the free memory that vectors which are read or made together may take."""
SMALL = 2**24
"""Bytes that fit always."""
CHUNK = 2**24
"""Numbers that are read at a time where all of them are looked at."""


@dataclass(frozen=True)
class LazyRows:
    """Rows of a matrix that are picked and standardised when they are asked for.

    What slicing and indexing return are tensors, with the numbers that a copy of the whole matrix
    would have.

    Attributes:
        vectors: the matrix. Shape: (rows of the matrix, width).
        places: the rows of the matrix; None means all. Shape: (rows,).
        scale: what is subtracted from each feature and then divides it, if anything. Shapes:
            (width,).
    """

    vectors: Tensor
    places: Tensor | None = None
    scale: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.vectors if self.places is None else self.places)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Return some of the rows. Shape: (rows, width)."""
        found = self.vectors[rows if self.places is None else self.places[rows]]
        if self.scale is None:
            return found
        mean, std = self.scale
        return (found.float() - mean) / std

    @property
    def shape(self) -> torch.Size:
        """Shape of the whole: (rows, width)."""
        return torch.Size((len(self), self.vectors.shape[1]))

    @property
    def device(self) -> torch.device:
        """Where the matrix is."""
        return self.vectors.device

    @property
    def nbytes(self) -> int:
        """Bytes that a copy would take, in float32."""
        return 4 * self.shape.numel()


Rows = Tensor | LazyRows
"""Vectors of a source, (rows, width), as a tensor or read as needed."""


def fits(nbytes: float) -> bool:
    """Return true if vectors of so many bytes leave most of the free memory to others."""
    return nbytes <= SMALL or nbytes <= SHARE * free_host_memory()


def chunks(rows: Rows) -> Iterator[Tensor]:
    """Give all rows in order, as tensors of some rows each; at least one tensor."""
    count = max(1, CHUNK // max(1, rows.shape[1]))
    for start in range(0, max(1, len(rows)), count):
        yield rows[start : start + count]


def take_rows(vectors: Tensor, places: Tensor) -> Rows:
    """Return some rows of a matrix: a copy or, where it would fill the memory, `LazyRows`.

    Args:
        vectors: the matrix. Shape: (rows of the matrix, width).
        places: the wanted rows, or a mask of them.
    """
    if places.dtype == torch.bool:
        places = torch.where(places)[0]
    lazy = LazyRows(vectors, places)
    return vectors[places] if fits(lazy.nbytes) else lazy


def new_matrices(
    shapes: Mapping[str, tuple[int, int]], folder: Path, *, zeros: bool = False
) -> dict[str, np.ndarray]:
    """Return matrices of float32 to be filled, in memory if all of them fit, else in files.

    A file has no name, so that nothing is left of it after a crash. Where there is no room on the
    disk, matrices that the memory can still take are made there.

    Args:
        shapes: the shape of each matrix.
        folder: folder for the file.
        zeros: begin with zeros in place of any numbers.

    Raises:
        DiskError: if they are too large for the memory and for the disk.
    """
    count = sum(rows * width for rows, width in shapes.values())
    make = np.zeros if zeros else np.empty
    if not count or fits(4 * count):
        return {name: make(shape, np.float32) for name, shape in shapes.items()}
    try:
        numbers = _in_file(count, folder)
    except OSError as error:
        if 4 * count > free_host_memory():
            raise DiskError(
                f"{folder}: {4 * count / 1e9:.3g} GB of vectors fit neither into the memory, nor"
                f" onto this disk ({error.strerror}); fewer rows (limit.train=…) or layers need"
                " less"
            ) from error
        numbers = make(count, np.float32)
    ends = np.cumsum([rows * width for rows, width in shapes.values()])
    parts = np.split(numbers, ends[:-1])
    return {name: part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)}


def _in_file(count: int, folder: Path) -> np.ndarray:
    """Return zeros in a file without a name, (count,). Their room on the disk is taken at once.

    Without room, writing to them later would kill the process. They are no `np.memmap`, as joblib
    would look for the name of the file.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, 4 * count)
        else:
            file.truncate(4 * count)
        return np.frombuffer(mmap.mmap(file.fileno(), 4 * count), np.float32)
