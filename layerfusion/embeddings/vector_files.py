"""Vectors that somebody computed elsewhere and keeps in a file, beside the texts or row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from layerfusion.assets.paths import data_suffix, file_hash, find_path
from layerfusion.assets.source import SourceUnavailable
from layerfusion.config.job import BackboneConfig
from layerfusion.config.registry import READERS
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.endpoint import as_vector
from layerfusion.errors import UserError, library_errors, short, unknown
from layerfusion.texts.columns import Columns
from layerfusion.texts.readers import read_file
from layerfusion.texts.table import Table

PARQUET = ".parquet"


@dataclass(frozen=True)
class _Row:
    """A row of a file: where it is, and its vector as it was read."""

    where: str
    value: Any


@dataclass(frozen=True)
class VectorFile:
    """The vectors of a file by their texts, read when they are first asked for."""

    name: str
    """Name of the backbone."""
    config: BackboneConfig
    text: str
    """Column of the texts."""
    cache: Path

    @property
    def key(self) -> str:
        """Return the key of the config that names the file, for messages."""
        return f"backbone.{self.name}.vectors={self.config.vectors}"

    @property
    def origin(self) -> str:
        """Return where the vectors come from, for readers."""
        column = f", column {self.config.column}" if self.config.column else ""
        return f"{self.config.vectors}{column}"

    @cached_property
    def identity(self) -> str:
        """Identify the content of the files, and the column."""
        files = [*self._files, *([self._rows] if self._rows else [])]
        hashes = [file_hash(path, self.cache) for path in files]
        return f"vectors {' '.join(hashes)} {self.config.column} of {self.text}"

    def find(self, texts: Sequence[str]) -> np.ndarray:
        """Find the vectors of texts.

        Args:
            texts: the texts, with any repeats.

        Returns:
            Shape: (texts, width), float32.

        Raises:
            UserError: naming the row, for a text that has no vector or two, and for what is no
                vector or has another width.
        """
        found: dict[bytes, tuple[str, np.ndarray]] = {}
        for text in texts:
            key = text_hash(text)
            if key in found:
                continue
            rows = self._by_text.get(key, [])
            if not rows:
                raise UserError(f"{self.key}: no row has the text {short(text)}")
            vectors = [self._vector(row) for row in rows]
            for row, vector in zip(rows[1:], vectors[1:], strict=True):
                if not np.array_equal(vector, vectors[0]):
                    raise UserError(
                        f"{self.key}: {rows[0].where} and {row.where} have one text,"
                        f" {short(text)}, and two vectors"
                    )
            found[key] = rows[0].where, vectors[0]
            first, (_, usual) = next(iter(found.values()))[0], next(iter(found.values()))
            if len(vectors[0]) != len(usual):
                raise UserError(
                    f"{self.key}: {rows[0].where}: a vector of {len(vectors[0])} numbers, and"
                    f" {first} has one of {len(usual)}"
                )
        return np.stack([found[text_hash(text)][1] for text in texts])

    def _vector(self, row: _Row) -> np.ndarray:
        vector = as_vector(row.value)
        if vector is None:
            raise UserError(
                f"{self.key}: {row.where}: a list of numbers is needed, found {short(row.value)}"
            )
        return vector

    @cached_property
    def _by_text(self) -> Mapping[bytes, list[_Row]]:
        """All rows of the files, by the hash of their text."""
        found: dict[bytes, list[_Row]] = {}
        for path in self._files:
            table, values = self._read(path)
            for number, text in enumerate(table.texts):
                if isinstance(text, str) and text.strip():
                    row = _Row(table.where(number), values[number])
                    found.setdefault(text_hash(text.strip()), []).append(row)
        return found

    def _read(self, path: Path) -> tuple[Table, Sequence[Any] | np.ndarray]:
        if self._rows is not None:
            table = read_file(self._rows, Columns(self.text, None, {}))
            return table, self._array(path, len(table.texts))
        column = str(self.config.column)
        if data_suffix(path) == PARQUET:  # its numbers stay numbers, and become no objects
            return read_file(path, Columns(self.text, None, {})), self._parquet(path, column)
        table = read_file(path, Columns(self.text, None, {}, keep_others=True))
        if column not in table.others:
            raise self._no_column(path, column, list(table.others))
        return table, table.others[column]

    def _array(self, path: Path, rows: int) -> np.ndarray:
        with library_errors(f"{self.key}: not readable as .npy"):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu":
            raise UserError(f"{self.key}: an array of numbers with a row for each text is needed")
        if len(array) != rows:
            raise UserError(
                f"{self.key}: it has {len(array):,} rows, and backbone.{self.name}.rows="
                f"{self.config.rows} has {rows:,}"
            )
        return array

    def _parquet(self, path: Path, column: str) -> Sequence[Any]:
        """Read a column of lists; one of anything else is read as it is, and refused later."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with library_errors(f"{path}: not readable as parquet"):
            names = pq.read_schema(path).names
            if column not in names:
                raise self._no_column(path, column, names)
            read = pq.read_table(path, columns=[column]).column(column)
            read.validate(full=True)
            kind = read.type
            if pa.types.is_list(kind) or pa.types.is_large_list(kind):
                read = read.cast(pa.large_list(kind.value_type))
            elif not pa.types.is_fixed_size_list(kind):
                return read.to_pylist()
            # One row at a time, as a view.
            return _Lists([chunk for chunk in read.chunks if len(chunk)])

    def _no_column(self, path: Path, column: str, names: Sequence[str]) -> UserError:
        missing = unknown(f"backbone.{self.name}.column: {path.name}", column, names)
        return UserError(f"{missing}; predict takes other files by --vectors {self.name}=FILE")

    @cached_property
    def _files(self) -> list[Path]:
        place = self._found(str(self.config.vectors), "vectors")
        if not place.is_dir():
            return [place]
        files = [path for path in sorted(place.iterdir()) if data_suffix(path) in READERS]
        if not files:
            raise UserError(f"{self.key}: the folder holds no table ({', '.join(READERS)})")
        return files

    @cached_property
    def _rows(self) -> Path | None:
        return None if self.config.rows is None else self._found(self.config.rows, "rows")

    def _found(self, path: str, key: str) -> Path:
        try:
            return find_path(path, "dataset")
        except SourceUnavailable as error:
            raise UserError(f"backbone.{self.name}.{key}={path}: {error}") from None


class _Lists(Sequence[Any]):
    """The lists of a column of parquet, each as an array."""

    def __init__(self, chunks: Sequence[Any]) -> None:
        self._chunks = chunks
        self._ends = np.cumsum([len(chunk) for chunk in chunks])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, row: Any) -> Any:
        number = int(np.searchsorted(self._ends, row, side="right"))
        chunk = self._chunks[number]
        values = chunk[row - (int(self._ends[number - 1]) if number else 0)].values
        if values is None or values.null_count:
            return None if values is None else values.to_pylist()
        return values.to_numpy(zero_copy_only=False)
