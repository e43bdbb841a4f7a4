"""Embeddings on disk, addressed by content.

A text's vectors are a pure function of (spec, text), so each spec has one folder, its store, which
holds immutable shards. A shard is a safetensors file whose name is the sha256 of its content. It is
written under a temporary name, synced, and renamed. A shard under its final name is therefore
complete, the folder is its own manifest, and several writers need no lock. An interrupted job can
resume, no text is computed twice in or across data sets, and a store can grow by texts or layers.

Each array of a shard has a checksum, which is compared whenever the array is read. A damaged shard
is removed, and its texts are computed again. Shards may be merged while others read and write
(`layerfusion.embeddings.compact`).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfusion.assets.files import remove_leftovers, write_atomically
from layerfusion.assets.memo import read_kept, seal, unseal, warn_of_damage, write_facts
from layerfusion.embeddings.cache_key import ROUNDED, BackboneSpec
from layerfusion.embeddings.index import HashIndex, as_hashes
from layerfusion.embeddings.matrices import new_matrices
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.shards import (
    HASHES,
    TOKENS,
    DamagedShard,
    Layout,
    Shard,
    ShardReader,
    open_shard,
    save_undamaged,
    write_shard,
)
from layerfusion.embeddings.usage import hold
from layerfusion.errors import UserError

if TYPE_CHECKING:
    from layerfusion.embeddings.tokens import TokenizedText

SCHEMA = 1
"""Version of the format on disk."""
SPEC_FILE = "store.json"
"""File of a store that holds its schema and spec."""
SHAPE_FILE = "shape.json"
"""File of a store that holds the shape of the model."""
FILLING = ".filling.lock"
"""File of a store of vectors from elsewhere that the process holds that asks for them."""
ATTEMPTS = 3
"""Number of times that damaged shards are computed again before reading is given up."""
LISTING_SHARE = 0.05
"""Largest share of a writer's time that goes into looking for the shards of others."""
FLOAT16_MAX = float(np.finfo(np.float16).max)
"""Largest value that float16 can hold."""

Texts = Sequence[bytes] | np.ndarray
"""Hashes of texts: 16 bytes each, or an array. Shape: (texts, 16), uint8."""


class DamagedDescription(UserError):
    """The description of a store is not what was written."""


@dataclass(frozen=True)
class TokenCounts:
    """Numbers of tokens of texts. Shapes: (texts,), int64."""

    seen: np.ndarray
    """Tokens that the model saw."""
    cut: np.ndarray
    """Tokens that were cut off."""
    own: np.ndarray
    """Tokens of the text itself, without special ones and the template; 0 if not counted."""
    unknown: np.ndarray
    """Tokens of the text itself that the tokenizer does not know."""

    @classmethod
    def of(cls, texts: Iterable[TokenizedText]) -> TokenCounts:
        """Return the counts of tokenized texts."""
        counts = [(text.seen, text.cut, text.own, text.unknown) for text in texts]
        return cls(*np.array(counts, np.int64).T)

    def rows(self, wanted: np.ndarray) -> TokenCounts:
        """Return the counts of some of the texts."""
        return TokenCounts(*(getattr(self, field.name)[wanted] for field in fields(self)))

    @property
    def unknown_share(self) -> float | None:
        """Return the share of unknown tokens; None if they were not counted."""
        own = int(self.own.sum())
        return int(self.unknown.sum()) / own if own else None


class EmbeddingStore:
    """The pooled layers of texts under one spec.

    Args:
        root: folder of all stores; this store is `root/<hash of the spec>`.
        spec: settings that, together with a text, determine its vectors.

    Raises:
        UserError: if the folder was written under another schema.

    Attributes:
        refill: computes again, from the texts that were last extracted, what the store lacks.
    """

    def __init__(self, root: Path, spec: BackboneSpec) -> None:
        self.folder = root / spec.hash()
        self.spec = spec
        # While a GPU computes, one thread looks texts up and another one adds shards.
        self._lock = threading.RLock()
        self._shards: list[Shard | None] = []  # None for one that was forgotten
        self._numbers: dict[str, int] = {}
        self._index = HashIndex()
        self._damaged: set[str] = set()
        self._trusted: set[str] = set()
        self._look_again = 0.0
        self.refill: Callable[[], None] | None = None
        hold(self.folder, self)
        described = self.folder / SPEC_FILE
        # The folder's name is the hash of the spec, so the description can be written again.
        if _description(self.folder) != asdict(spec):
            content = seal({"schema": SCHEMA, "spec": asdict(spec)})
            write_atomically(described, json.dumps(content, indent=2).encode())
        remove_leftovers(self.folder)
        self.refresh()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock to this process."""
        return {key: value for key, value in vars(self).items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of another store, with a lock of one's own."""
        vars(self).update(state, _lock=threading.RLock())

    def refresh(self) -> None:
        """Add the shards that this or another writer has finished since the last look."""
        begun = time.monotonic()
        with self._lock:
            while self._look():
                pass
        now = time.monotonic()
        self._look_again = now + (now - begun) / LISTING_SHARE

    def _look(self) -> bool:
        """Open the new shards. Returns true if one was gone by then, since it may be merged now."""
        names = sorted(x.name for x in os.scandir(self.folder) if x.name.endswith(".safetensors"))
        new, gone = [], False
        for name in names:
            if name in self._numbers or name in self._damaged:
                continue
            try:
                shard, hashes = open_shard(self.folder / name)
            except FileNotFoundError:
                gone |= not os.path.lexists(self.folder / name)
                continue
            except DamagedShard as error:
                self._discard(name, error)
                continue
            new.append((self._number(shard), hashes))
        self._index.add(new)
        return gone

    def _number(self, shard: Shard) -> int:
        """Give a new shard its number."""
        self._numbers[shard.path.name] = len(self._shards)
        self._shards.append(shard)
        return len(self._shards) - 1

    def _discard(self, name: str, why: Exception) -> None:
        """Forget a shard that is damaged or gone, and remove its file where that can be done."""
        path = self.folder / name
        with self._lock:
            number = self._numbers.pop(name, None)
            if number is not None:
                self._shards[number] = None
        if isinstance(why, FileNotFoundError):
            return
        warn_of_damage("shard", path, why)
        self._damaged.add(name)
        if path.is_file() and os.access(self.folder, os.W_OK):
            save_undamaged(path)
            path.unlink(missing_ok=True)

    @property
    def shards(self) -> set[str]:
        """Return the names of the known shards."""
        return set(self._numbers)

    @property
    def shape(self) -> ModelShape | None:
        """Return the shape of the model; None before the first extraction, or if it is damaged."""
        path = self.folder / SHAPE_FILE
        return read_kept(path, ModelShape, "shape of the model", f"{self.name}/{SHAPE_FILE}")

    def describe_model(self, shape: ModelShape) -> None:
        """Save the shape of the model beside its vectors."""
        if self.shape != shape:
            write_facts(self.folder / SHAPE_FILE, asdict(shape), f"{self.name}/{SHAPE_FILE}")

    def missing(self, texts: Texts, layers: Iterable[str]) -> np.ndarray:
        """Find the texts that lack at least one of the layers.

        Args:
            texts: hashes of the texts.
            layers: names of the layers.

        Returns:
            True for each text that lacks a layer. Shape: (texts,), bool.
        """
        hashes, wanted = as_hashes(texts), frozenset(layers)
        if not wanted:
            return np.zeros(len(hashes), bool)
        missing = self._find(hashes, wanted)[0] < 0
        apart = np.flatnonzero(missing)  # their layers may lie in several shards
        if len(apart) and len(wanted) > 1:
            found = [self._find(hashes[apart], {layer})[0] >= 0 for layer in wanted]
            missing[apart] = ~np.all(found, axis=0)
        return missing

    def _find(self, hashes: np.ndarray, layers: AbstractSet[str]) -> tuple[np.ndarray, np.ndarray]:
        """Find a shard with all the layers for each text, as `HashIndex.find` does."""
        with self._lock:
            return self._index.find(hashes, self._with(layers))

    def _with(self, layers: AbstractSet[str]) -> np.ndarray:
        """Mark the shards that hold all the layers, by their number. Shape: (shards,), bool."""
        fits: dict[Layout | None, bool] = {None: False}
        for layout in {shard.layout for shard in self._shards if shard is not None}:
            fits[layout] = layers <= layout.layers
        return np.array([fits[x.layout if x else None] for x in self._shards], bool)

    def read(self, texts: Texts, layers: Sequence[str]) -> dict[str, np.ndarray]:
        """Read the vectors of texts; only the wanted rows and layers are read from disk.

        Args:
            texts: hashes of the texts in any order; repeats are allowed.
            layers: names of the layers.

        Returns:
            The vectors of each layer. Shape: (texts, width), float32.

        Raises:
            KeyError: if the store lacks a layer of a text.
            UserError: if a shard is damaged and its texts cannot be computed again here.
        """
        hashes, wanted = as_hashes(texts), list(dict.fromkeys(layers))
        if not len(hashes):
            width = self.shape.width if self.shape is not None else 0
            return {layer: np.empty((0, width), np.float32) for layer in wanted}
        found = self._find(hashes, frozenset(wanted))
        if (found[0] >= 0).all():
            return self._gather(hashes, wanted, frozenset(wanted), found=found)
        return {x: self._gather(hashes, [x], {x})[x] for x in wanted}

    def tokens(self, texts: Texts) -> TokenCounts:
        """Read the numbers of tokens of each text; those that a shard does not have are 0."""
        counts = self._gather(as_hashes(texts), [TOKENS], frozenset(), len(fields(TokenCounts)))
        return TokenCounts(*counts[TOKENS].astype(np.int64).T)

    def holds(self, texts: Iterable[bytes]) -> list[bytes]:
        """Return those of the texts that the store has a layer of."""
        asked = list(texts)
        here = self._find(as_hashes(asked), frozenset())[0] >= 0
        return [text for text, held in zip(asked, here, strict=True) if held]

    def _gather(
        self,
        hashes: np.ndarray,
        arrays: Sequence[str],
        layers: AbstractSet[str],
        columns: int | None = None,
        found: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Read the rows of texts from arrays of their shards, which all have some layers.

        Where shards of older versions have fewer than `columns`, the others are 0. Shards that
        another process has merged are found again. The texts of a damaged shard are computed again,
        and then everything is read anew.
        """
        lost: dict[str, Exception] = {}
        attempts = 0
        while attempts < ATTEMPTS:
            numbers, rows = found or self._find(hashes, layers)
            found = None
            if (numbers < 0).any():
                text = hashes[np.argmax(numbers < 0)].tobytes().hex()
                raise KeyError(f"{self.folder}: no {sorted(layers)} of text {text}")
            results, lost = self._copy(arrays, numbers, rows, columns)
            if not lost:
                return results
            for name, error in lost.items():
                self._discard(name, error)
            self.refresh()
            attempts += any(isinstance(error, DamagedShard) for error in lost.values())
            if (self._find(hashes, layers)[0] < 0).any():
                if self.refill is None or attempts == ATTEMPTS:
                    break
                self.refill()
                if (self._find(hashes, layers)[0] < 0).any():
                    break
        raise UserError(
            f"{self.folder / next(iter(lost))}: it is damaged and left out; the same command"
            " computes its texts again"
        )

    def _copy(
        self, arrays: Sequence[str], numbers: np.ndarray, rows: np.ndarray, columns: int | None
    ) -> tuple[dict[str, np.ndarray], dict[str, Exception]]:
        """Copy rows of shards to new arrays. Returns these, and an error for each lost shard."""
        first = self._shards[numbers[0]] if len(numbers) else None
        shapes = {}
        for array in arrays:
            width = columns or (first.layout.columns(array) if first else 0)
            shapes[array] = len(numbers), width
        results = new_matrices(shapes, self.folder, zeros=columns is not None)
        lost: dict[str, Exception] = {}
        for shard, positions in self._by_shard(numbers, rows):
            name = shard.path.name
            try:
                reader = ShardReader(shard, trusted=name in self._trusted)
                self._trusted |= set() if reader.has_sums else {name}
                for array, result in results.items():
                    reader.copy(array, rows[positions], result, positions)
            except (DamagedShard, FileNotFoundError) as error:
                lost[name] = error
        return results, lost

    def _by_shard(
        self, numbers: np.ndarray, rows: np.ndarray
    ) -> Iterator[tuple[Shard, np.ndarray]]:
        """Yield each shard and the positions of its texts, in the order of its rows."""
        order = np.argsort(numbers.astype(np.int64) << 32 | rows)
        edges = np.flatnonzero(np.diff(numbers[order], prepend=-2, append=len(self._shards)))
        for begin, end in pairwise(edges.tolist()):
            number = int(numbers[order[begin]])
            shard = self._shards[number] if number >= 0 else None
            if shard is not None:
                yield shard, order[begin:end]

    def write(
        self,
        texts: Sequence[bytes],
        layers: Mapping[str, np.ndarray],
        tokens: TokenCounts,
        *,
        seconds: float,
    ) -> Path:
        """Write one shard.

        Args:
            texts: hashes of the texts.
            layers: vectors of each layer. Shape: (texts, width), finite. What is float16 stays it.
            tokens: token counts of the texts.
            seconds: duration of the forward pass.

        Raises:
            UserError: if the disk is full; earlier shards stay.
        """
        arrays: dict[str, np.ndarray] = {
            HASHES: as_hashes(texts),
            TOKENS: np.stack(list(asdict(tokens).values()), axis=1).astype(np.int32),
        }
        for layer, values in layers.items():
            arrays[layer] = self._rounded(np.ascontiguousarray(values))
        shard = write_shard(self.folder, arrays, seconds=seconds)
        name = shard.path.name
        with self._lock:
            self._damaged.discard(name)
            if name not in self._numbers:
                self._index.add([(self._number(shard), arrays[HASHES])])
        if time.monotonic() >= self._look_again:
            self.refresh()
        return shard.path

    def _rounded(self, values: np.ndarray) -> np.ndarray:
        """Round vectors to float16 if the store is to do so, all of them fit and none are yet."""
        if values.dtype == np.float16:
            return values
        values = values.astype(np.float32, copy=False)
        largest = max(float(values.max()), -float(values.min()))
        if self.spec.store_dtype != ROUNDED or largest > FLOAT16_MAX:
            return values
        import torch  # imported here, so that opening a store does not load it

        # It rounds as numpy does, but several times as fast.
        return torch.from_numpy(values).half().numpy()

    def seconds_per_text(self, texts: Iterable[bytes], layer: str) -> float | None:
        """Estimate the mean time of a text's pass up to a layer, from the times of the shards.

        Texts whose passes all ended below the layer are left out. Returns None if no text is left.
        """
        numbers, rows = self._find(as_hashes(sorted(set(texts))), {layer})
        found = self._by_shard(numbers, rows)
        times = [shard.seconds_of(rows[positions]) for shard, positions in found]
        return float(np.concatenate(times).mean()) if times else None

    def bytes_per_text(self, layers: Iterable[str]) -> float:
        """Return the bytes that layers take on disk for one text, averaged over their shards."""
        wanted = set(layers)
        total = rows = 0
        for shard in self._shards:
            if shard is not None and wanted <= shard.layers:
                total += shard.rows * sum(shard.layout.bytes_per_text(x) for x in wanted)
                rows += shard.rows
        return total / rows if rows else 0.0

    @property
    def index_bytes(self) -> int:
        """Return the memory of the index, in bytes."""
        return self._index.nbytes

    @property
    def name(self) -> str:
        """Return the hash of the spec."""
        return self.folder.name

    def __len__(self) -> int:
        """Return the number of texts."""
        with self._lock:
            return self._index.count(self._with(frozenset()))


# -- description ---------------------------------------------------------------------------------


def read_description(folder: Path) -> dict[str, Any]:
    """Read the spec and schema of a store's folder.

    Raises:
        DamagedDescription: if it is damaged.
        UserError: if it has another schema.
    """
    path = folder / SPEC_FILE
    try:
        raw = unseal(json.loads(path.read_text(encoding="utf-8")))
        schema, _ = raw["schema"], raw["spec"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedDescription(f"{path}: not the description of a store ({error})") from error
    if schema != SCHEMA:
        raise UserError(
            f"{folder}: written under schema {schema}, this version reads schema {SCHEMA};"
            " choose another paths.cache or delete the folder"
        )
    return raw


def spec_of(folder: Path) -> BackboneSpec:
    """Read the spec of a store's folder.

    Raises:
        UserError: as `read_description` does, or if its settings are of another version.
    """
    spec = read_description(folder)["spec"]
    if not isinstance(spec, dict) or spec.keys() != {x.name for x in fields(BackboneSpec)}:
        raise UserError(f"{folder / SPEC_FILE}: its settings are of another version")
    return BackboneSpec(**spec)


def _description(folder: Path) -> dict[str, Any] | None:
    """Read the spec of a store's folder; None where it is not described, or by a damaged file."""
    if not (folder / SPEC_FILE).exists():
        return None
    try:
        return read_description(folder)["spec"]
    except DamagedDescription as error:
        warn_of_damage("store", folder / SPEC_FILE, error)
        return None
