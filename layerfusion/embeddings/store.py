"""Embeddings on disk, addressed by content.

A text's vectors are a pure function of (spec, text), so each spec has one folder, its store, which
holds immutable shards. A shard is a safetensors file whose name is the sha256 of its content. It is
written under a temporary name, synced, and renamed. A shard under its final name is therefore
complete, the folder is its own manifest, and several writers need no lock. An interrupted job can
resume, no text is computed twice in or across data sets, and a store can grow by texts or layers.

Each array of a shard has a checksum, which is compared whenever the array is read. A damaged shard
is removed, and its texts are computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from layerfusion.assets.files import remove_leftovers, write_atomically
from layerfusion.assets.memo import (
    CHECKSUM,
    hash_of,
    read_kept,
    seal,
    unseal,
    warn_of_damage,
    write_facts,
)
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.spec import BackboneSpec
from layerfusion.errors import UserError

if TYPE_CHECKING:
    from layerfusion.embeddings.tokens import TokenizedText

SCHEMA = 1
"""Version of the format on disk."""
SECONDS, SUMS = "seconds", "sums"
"""Metadata of a shard: duration of its pass, and the checksum of each of its arrays as JSON."""
SPEC_FILE = "store.json"
"""File of a store that holds its schema and spec."""
SHAPE_FILE = "shape.json"
"""File of a store that holds the shape of the model."""
ATTEMPTS = 3
"""Number of times that damaged shards are computed again before reading is given up."""
HASHES = "hashes"
"""Array of a shard that holds the hashes of its texts."""
TOKENS = "tokens"
"""Array of a shard that holds the token counts of its texts, in the order of `TokenCounts`. Shards
of earlier versions have the first two only."""
FLOAT16_MAX = float(np.finfo(np.float16).max)
"""Largest value that float16 can hold."""

Places = tuple[np.ndarray, np.ndarray]
"""Positions in a result, and the rows of a shard that belong there."""


@dataclass(frozen=True)
class Shard:
    """An immutable file of a store."""

    path: Path
    layers: frozenset[str]
    hashes: tuple[bytes, ...]
    """128-bit hashes of the texts, in the order of the rows."""
    seconds: float
    """Duration of the forward pass of the texts."""
    sums: Mapping[str, str] = field(default_factory=dict)
    """Checksum of each array; empty for a shard of an older version."""


class DamagedShard(ValueError):
    """A shard's content is not what was written."""


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
    """Those of them that the tokenizer does not know."""

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
        self._shards: dict[str, Shard] = {}
        self._rows: dict[bytes, list[tuple[str, int]]] = {}
        self._damaged: set[str] = set()
        self._compared: set[str] = set()
        self.refill: Callable[[], None] | None = None
        described = self.folder / SPEC_FILE
        # The folder's name is the hash of the spec, so the description can be written again.
        if _description(self.folder) != asdict(spec):
            content = seal({"schema": SCHEMA, "spec": asdict(spec)})
            write_atomically(described, json.dumps(content, indent=2).encode())
        remove_leftovers(self.folder)
        self.refresh()

    def refresh(self) -> None:
        """Add the shards that this or another writer has finished since the last look."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name not in self._shards and path.name not in self._damaged:
                try:
                    shard = open_shard(path)
                except FileNotFoundError:
                    continue  # another process found it damaged
                except DamagedShard as error:
                    self._discard(path.name, error)
                    continue
                self._shards[path.name] = shard
                for row, text in enumerate(shard.hashes):
                    self._rows.setdefault(text, []).append((path.name, row))

    def _discard(self, name: str, why: Exception) -> None:
        """Forget a shard that is damaged or gone, and remove its file where that can be done."""
        path = self.folder / name
        if not isinstance(why, FileNotFoundError):
            warn_of_damage("shard", path, why)
        self._damaged.add(name)
        shard = self._shards.pop(name, None)
        for text in shard.hashes if shard else ():
            rows = [place for place in self._rows[text] if place[0] != name]
            self._rows[text] = rows
            if not rows:
                del self._rows[text]
        if path.is_file() and os.access(self.folder, os.W_OK):
            path.unlink(missing_ok=True)

    @property
    def shards(self) -> set[str]:
        """Return the names of the known shards."""
        return set(self._shards)

    @property
    def shape(self) -> ModelShape | None:
        """Return the shape of the model; None before the first extraction, or if it is damaged."""
        path = self.folder / SHAPE_FILE
        return read_kept(path, ModelShape, "shape of the model", f"{self.name}/{SHAPE_FILE}")

    def describe_model(self, shape: ModelShape) -> None:
        """Save the shape of the model beside its vectors."""
        if self.shape != shape:
            write_facts(self.folder / SHAPE_FILE, asdict(shape), f"{self.name}/{SHAPE_FILE}")

    def missing(self, texts: Sequence[bytes], layers: Iterable[str]) -> np.ndarray:
        """Find the texts that lack at least one of the layers.

        Args:
            texts: hashes of the texts.
            layers: names of the layers.

        Returns:
            True for each text that lacks a layer. Shape: (texts,), bool.
        """
        wanted = frozenset(layers)
        return np.array([not wanted <= self._layers_of(text) for text in texts], dtype=bool)

    def _layers_of(self, text: bytes) -> frozenset[str]:
        rows = self._rows.get(text, ())
        return frozenset().union(*(self._shards[name].layers for name, _ in rows))

    def read(self, texts: Sequence[bytes], layers: Sequence[str]) -> dict[str, np.ndarray]:
        """Read the vectors of texts; only the wanted layers are read from disk.

        Args:
            texts: hashes of the texts in any order; repeats are allowed.
            layers: names of the layers.

        Returns:
            The vectors of each layer. Shape: (texts, width), float32.

        Raises:
            KeyError: if the store lacks a layer of a text.
            UserError: if a shard is damaged and its texts cannot be computed again here.
        """
        if not texts:
            width = self.shape.width if self.shape is not None else 0
            return {layer: np.empty((0, width), np.float32) for layer in layers}
        together = self._places(texts, frozenset(layers))
        return {layer: self._gather(texts, layer, {layer}, together or None) for layer in layers}

    def tokens(self, texts: Sequence[bytes]) -> TokenCounts:
        """Read the numbers of tokens of each text."""
        counts = self._gather(texts, TOKENS, frozenset(), columns=len(fields(TokenCounts)))
        return TokenCounts(*counts.astype(np.int64).T)

    def holds(self, texts: Iterable[bytes]) -> list[bytes]:
        """Return those of the texts that the store has a layer of."""
        return [text for text in texts if text in self._rows]

    def _places(
        self, texts: Sequence[bytes], layers: AbstractSet[str], *, must: bool = False
    ) -> dict[str, Places]:
        """Find a shard for each text that has all the layers. Returns positions and rows by shard.

        If a text has no such shard, the result is empty or, with `must`, a KeyError is raised.
        """
        places: dict[str, tuple[list[int], list[int]]] = {}
        for position, text in enumerate(texts):
            for name, row in self._rows.get(text, ()):
                if layers <= self._shards[name].layers:
                    positions, rows = places.setdefault(name, ([], []))
                    positions.append(position)
                    rows.append(row)
                    break
            else:
                if must:
                    raise KeyError(f"{self.folder}: no {sorted(layers)} of text {text.hex()}")
                return {}
        return {name: (np.array(where), np.array(rows)) for name, (where, rows) in places.items()}

    def _gather(
        self,
        texts: Sequence[bytes],
        array: str,
        layers: AbstractSet[str],
        places: Mapping[str, Places] | None = None,
        columns: int = 0,
    ) -> np.ndarray:
        """Read the rows of texts from one array of their shards, which all have some layers.

        Where shards of older versions have fewer than `columns`, the others are 0. The texts of a
        damaged shard are computed again, and then everything is read anew.
        """
        damaged: dict[str, Exception] = {}
        for attempt in range(ATTEMPTS):
            if places is None or not places.keys() <= self._shards.keys():
                places = self._places(texts, layers, must=True)
            result = np.zeros((len(texts), columns), np.float32)
            damaged = {}
            for name, (positions, rows) in places.items():
                try:
                    values = self._array(self._shards[name], array)
                except (DamagedShard, FileNotFoundError) as error:
                    damaged[name] = error
                    continue
                if not result.shape[1]:
                    result = np.empty((len(texts), values.shape[1]), np.float32)
                result[positions, : values.shape[1]] = values[rows]
            if not damaged:
                return result
            for name, error in damaged.items():
                self._discard(name, error)
            if self.refill is not None and attempt < ATTEMPTS - 1:
                self.refill()
                if not self.missing(texts, layers).any():
                    continue
            break
        raise UserError(
            f"{self.folder / next(iter(damaged))}: it is damaged and left out; the same command"
            " computes its texts again"
        )

    def _array(self, shard: Shard, name: str) -> np.ndarray:
        """Read an array; a shard of an older version is compared with its name once."""
        values = read_array(shard, name)
        if not shard.sums and shard.path.name not in self._compared:
            if not is_whole(shard.path):
                raise DamagedShard("its content does not match its name")
            self._compared.add(shard.path.name)
        return values

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
            layers: vectors of each layer. Shape: (texts, width), finite.
            tokens: token counts of the texts.
            seconds: duration of the forward pass.

        Raises:
            UserError: if the disk is full; earlier shards stay.
        """
        arrays: dict[str, np.ndarray] = {
            HASHES: np.frombuffer(b"".join(texts), np.uint8).reshape(len(texts), 16),
            TOKENS: np.stack(list(asdict(tokens).values()), axis=1).astype(np.int32),
        }
        for layer, values in layers.items():
            arrays[layer] = np.ascontiguousarray(values, np.float32)
            largest = max(float(values.max()), -float(values.min()))
            if self.spec.store_dtype == "auto" and largest <= FLOAT16_MAX:
                import torch  # imported here, so that reading a store does not load it

                # It rounds as numpy does, but several times as fast.
                arrays[layer] = torch.from_numpy(arrays[layer]).half().numpy()
        metadata = {SECONDS: f"{seconds:.6f}", SUMS: json.dumps(_sums(arrays))}
        content = save(arrays, metadata=metadata | {CHECKSUM: _header_sum(metadata, self.name)})
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        write_atomically(path, content)
        self._damaged.discard(path.name)
        self.refresh()
        return path

    def seconds_per_text(self, texts: Iterable[bytes], layer: str) -> float | None:
        """Estimate the mean time of a text's pass up to a layer, from the times of the shards.

        Texts whose passes all ended below the layer are left out. Returns None if no text is left.
        """
        times = []
        for text in set(texts):
            shards = [self._shards[name] for name, _ in self._rows.get(text, ())]
            shares = [x.seconds / len(x.hashes) for x in shards if layer in x.layers]
            times += shares[:1]
        return sum(times) / len(times) if times else None

    def bytes_per_text(self, layers: Iterable[str]) -> float:
        """Return the bytes that layers take on disk for one text, averaged over their shards."""
        wanted = set(layers)
        total = rows = 0
        for shard in self._shards.values():
            if wanted <= shard.layers:
                header = read_header(shard.path)
                total += sum(_size(header[layer]) for layer in wanted)
                rows += len(shard.hashes)
        return total / rows if rows else 0.0

    @property
    def name(self) -> str:
        """Return the hash of the spec."""
        return self.folder.name

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._rows)


# -- files --------------------------------------------------------------------------------------


def read_description(folder: Path) -> dict[str, Any]:
    """Read the spec and schema of a store's folder.

    Raises:
        DamagedDescription: if it is damaged.
        UserError: if it has another schema.
    """
    path = folder / SPEC_FILE
    try:
        raw = unseal(json.loads(path.read_text()))
        schema, _ = raw["schema"], raw["spec"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedDescription(f"{path}: not the description of a store ({error})") from error
    if schema != SCHEMA:
        raise UserError(
            f"{folder}: written under schema {schema}, this version reads schema {SCHEMA};"
            " choose another paths.cache or delete the folder"
        )
    return raw


def _description(folder: Path) -> dict[str, Any] | None:
    """Read the spec of a store's folder; None where it is not described, or by a damaged file."""
    if not (folder / SPEC_FILE).exists():
        return None
    try:
        return read_description(folder)["spec"]
    except DamagedDescription as error:
        warn_of_damage("store", folder / SPEC_FILE, error)
        return None


def open_shard(path: Path) -> Shard:
    """Read the layer names and text hashes of a shard, but not its vectors.

    A shard of an older version has no checksums of its arrays. All of it is compared with its name
    when vectors are read from it.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedShard: if the file is damaged.
    """
    with _damage_told(path), safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        sums: dict[str, str] = {}
        if metadata.keys() != {SECONDS}:
            if metadata[CHECKSUM] != _header_sum(metadata, path.parent.name):
                raise DamagedShard("the checksum of its header differs")
            sums = json.loads(metadata[SUMS])
            if sums.keys() != set(file.keys()):
                raise DamagedShard("it has other arrays than its header says")
        shard = Shard(
            path,
            frozenset(file.keys()) - {HASHES, TOKENS},
            (),
            float(metadata[SECONDS]),
            sums,
        )
    raw = read_array(shard, HASHES).tobytes()
    hashes = tuple(raw[start : start + 16] for start in range(0, len(raw), 16))
    return replace(shard, hashes=hashes)


def read_array(shard: Shard, name: str) -> np.ndarray:
    """Read one array of a shard, and compare it with its checksum.

    Raises:
        FileNotFoundError: if the file is gone.
        DamagedShard: if the array is damaged.
    """
    with _damage_told(shard.path), safe_open(shard.path, framework="numpy") as file:
        values = np.ascontiguousarray(file.get_tensor(name))
    if shard.sums and _sum(values) != shard.sums[name]:
        raise DamagedShard(f"the checksum of {name!r} differs")
    return values


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    if path.is_dir():
        raise DamagedShard("a folder lies in its place")
    try:
        yield
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        if not path.exists():
            raise FileNotFoundError(path) from error
        raise DamagedShard(" ".join(str(error).split())) from error


def _sums(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {name: _sum(array) for name, array in arrays.items()}


def _sum(array: np.ndarray) -> str:
    """Compute the XXH3 checksum of an array's bytes, its type and its shape."""
    digest = xxhash.xxh3_128(f"{array.dtype} {array.shape}".encode())
    digest.update(array.data)
    return digest.hexdigest()


def _header_sum(metadata: Mapping[str, str], store: str) -> str:
    """Compute the checksum of a header and its store.

    With the store's name in it, no shard passes for one of another model.
    """
    return hash_of([store, metadata[SECONDS], metadata[SUMS]])


def read_header(path: Path) -> dict[str, Any]:
    """Read the JSON header of a safetensors file."""
    with path.open("rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))


def is_whole(path: Path) -> bool:
    """Return true if the content of a shard still matches the checksum in its name."""
    return _sha256(path) == path.stem


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(entry: dict[str, Any]) -> int:
    start, stop = entry["data_offsets"]
    return stop - start
