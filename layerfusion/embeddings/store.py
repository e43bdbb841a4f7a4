"""Embeddings on disk, addressed by content.

A text's vectors are a pure function of (spec, text), so each spec has one folder, its store, which
holds immutable shards. A shard is a safetensors file whose name is the sha256 of its content. It is
written under a temporary name, synced, and renamed. A shard under its final name is therefore
complete, the folder is its own manifest, and several writers need no lock. An interrupted job can
resume, no text is computed twice in or across data sets, and a store can grow by texts or layers.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from layerfusion.assets.files import remove_stale, write_atomically
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.spec import BackboneSpec
from layerfusion.errors import UserError

if TYPE_CHECKING:
    from layerfusion.embeddings.tokens import TokenizedText

SCHEMA = 1
"""Version of the format on disk."""
SPEC_FILE = "store.json"
"""File of a store that holds its schema and spec."""
SHAPE_FILE = "shape.json"
"""File of a store that holds the shape of the model."""
HASHES = "hashes"
"""Array of a shard that holds the hashes of its texts."""
TOKENS = "tokens"
"""Array of a shard that holds the token counts of its texts, in the order of `TokenCounts`. Shards
of earlier versions have the first two only."""
FLOAT16_MAX = float(np.finfo(np.float16).max)
"""Largest value that float16 can hold."""

Places = tuple[list[int], list[int]]
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
        UserError: if the folder was written under another schema or is damaged.
    """

    def __init__(self, root: Path, spec: BackboneSpec) -> None:
        self.folder = root / spec.hash()
        self.spec = spec
        self._shards: dict[str, Shard] = {}
        self._rows: dict[bytes, list[tuple[str, int]]] = {}
        described = self.folder / SPEC_FILE
        if described.exists():
            raw = read_description(self.folder)
            if raw["spec"] != asdict(spec):
                raise UserError(f"{described}: it describes another spec; was it edited?")
        else:
            content = json.dumps({"schema": SCHEMA, "spec": asdict(spec)}, indent=2)
            write_atomically(described, content.encode())
        remove_stale(self.folder)
        self.refresh()

    def refresh(self) -> None:
        """Add the shards that this or another writer has finished since the last look."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name not in self._shards:
                shard = open_shard(path)
                self._shards[path.name] = shard
                for row, text in enumerate(shard.hashes):
                    self._rows.setdefault(text, []).append((path.name, row))

    @property
    def shards(self) -> set[str]:
        """Return the names of the known shards."""
        return set(self._shards)

    @property
    def shape(self) -> ModelShape | None:
        """Return the shape of the model; None before the first extraction."""
        path = self.folder / SHAPE_FILE
        if not path.exists():
            return None
        return ModelShape.from_json(json.loads(path.read_text()))

    def describe_model(self, shape: ModelShape) -> None:
        """Save the shape of the model beside its vectors."""
        if self.shape != shape:
            content = json.dumps(asdict(shape), indent=2)
            write_atomically(self.folder / SHAPE_FILE, content.encode())

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
        """
        together = self._places(texts, frozenset(layers))
        return {
            layer: self._gather(
                len(texts), layer, together or self._places(texts, {layer}, must=True)
            )
            for layer in layers
        }

    def tokens(self, texts: Sequence[bytes]) -> TokenCounts:
        """Read the numbers of tokens of each text."""
        counts = np.zeros((len(texts), len(fields(TokenCounts))), np.int64)
        for name, (positions, rows) in self._places(texts, frozenset(), must=True).items():
            with safe_open(self._shards[name].path, framework="numpy") as file:
                values = file.get_tensor(TOKENS)
            counts[positions, : values.shape[1]] = values[rows]
        return TokenCounts(*counts.T)

    def holds(self, texts: Iterable[bytes]) -> list[bytes]:
        """Return those of the texts that the store has a layer of."""
        return [text for text in texts if text in self._rows]

    def _places(
        self, texts: Sequence[bytes], layers: AbstractSet[str], *, must: bool = False
    ) -> dict[str, Places]:
        """Find a shard for each text that has all the layers. Returns positions and rows by shard.

        If a text has no such shard, the result is empty or, with `must`, a KeyError is raised.
        """
        places: dict[str, Places] = {}
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
        return places

    def _gather(self, count: int, array: str, places: Mapping[str, Places]) -> np.ndarray:
        result = np.empty((count, 0), np.float32)
        for name, (positions, rows) in places.items():
            with safe_open(self._shards[name].path, framework="numpy") as file:
                values = file.get_tensor(array)
            if not result.shape[1]:
                result = np.empty((count, values.shape[1]), np.float32)
            result[positions] = values[rows]
        return result

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
        content = save(arrays, metadata={"seconds": f"{seconds:.6f}"})
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        try:
            write_atomically(path, content)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"{self.folder}: the disk is full; the {len(self)} texts finished so far are"
                    " kept: free some space and start again"
                ) from error
            raise
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
        UserError: if the description is damaged or has another schema.
    """
    path = folder / SPEC_FILE
    try:
        raw = json.loads(path.read_text())
        schema = raw["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the description of a store ({error})") from error
    if schema != SCHEMA:
        raise UserError(
            f"{folder}: written under schema {schema}, this version reads schema {SCHEMA};"
            " choose another paths.cache or delete the folder"
        )
    return raw


def open_shard(path: Path) -> Shard:
    """Read the layer names and text hashes of a shard, but not its vectors.

    Raises:
        UserError: if the file is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            raw = np.ascontiguousarray(file.get_tensor(HASHES)).tobytes()
            layers = frozenset(file.keys()) - {HASHES, TOKENS}
            seconds = float(file.metadata()["seconds"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: damaged shard ({error}); `layerfusion cache verify --delete` removes it"
        ) from error
    hashes = tuple(raw[start : start + 16] for start in range(0, len(raw), 16))
    return Shard(path, layers, hashes, seconds)


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
