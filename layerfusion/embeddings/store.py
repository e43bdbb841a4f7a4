"""Embeddings on disk, addressed by content.

A text's vectors are a pure function of (spec, text), so a store is one folder a spec, and in it
immutable shards. A shard is a safetensors file whose name is the sha256 of its content: it is
written under a temporary name, synced, and renamed, so a shard that has a name is whole, the folder
is its own manifest, and several writers need no lock. From this follow resuming, no duplicate work
inside or between data sets, and growth by texts or by layers.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from layerfusion.assets.files import remove_stale, write_atomically
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.spec import BackboneSpec
from layerfusion.errors import UserError

SCHEMA = 1
SPEC_FILE = "store.json"
SHAPE_FILE = "shape.json"
HASHES = "hashes"
TOKENS = "tokens"
FLOAT16_MAX = float(np.finfo(np.float16).max)

Places = tuple[list[int], list[int]]
"""Positions in the result, and the rows of a shard that go there."""


@dataclass(frozen=True)
class Shard:
    """One immutable file of a store."""

    path: Path
    layers: frozenset[str]
    hashes: tuple[bytes, ...]
    """128-bit hashes of its texts, in the order of its rows."""
    seconds: float
    """Time that the forward pass of its texts took."""


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of some texts: seen by the model, and cut off by the limited length."""

    seen: np.ndarray
    cut: np.ndarray


class EmbeddingStore:
    """The pooled layers of texts under one spec.

    Args:
        root: the folder of all stores; this one is `root/<hash of the spec>`.
        spec: what its vectors are a function of.

    Raises:
        UserError: where the folder was written under another schema or is damaged.
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
                raise UserError(f"{described}: it describes another spec; is it edited?")
        else:
            content = json.dumps({"schema": SCHEMA, "spec": asdict(spec)}, indent=2)
            write_atomically(described, content.encode())
        remove_stale(self.folder)
        self.refresh()

    def refresh(self) -> None:
        """Take in the shards that have appeared since, other writers' too."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name not in self._shards:
                shard = open_shard(path)
                self._shards[path.name] = shard
                for row, text in enumerate(shard.hashes):
                    self._rows.setdefault(text, []).append((path.name, row))

    @property
    def shards(self) -> set[str]:
        """Names of the shards that it knows of."""
        return set(self._shards)

    @property
    def shape(self) -> ModelShape | None:
        """Shape of the model; none before the first extraction."""
        path = self.folder / SHAPE_FILE
        if not path.exists():
            return None
        return ModelShape.from_json(json.loads(path.read_text()))

    def describe_model(self, shape: ModelShape) -> None:
        """Keep the model's shape beside its vectors."""
        if self.shape != shape:
            content = json.dumps(asdict(shape), indent=2)
            write_atomically(self.folder / SHAPE_FILE, content.encode())

    def missing(self, texts: Sequence[bytes], layers: Iterable[str]) -> np.ndarray:
        """Which texts lack at least one of the layers.

        Args:
            texts: hashes.
            layers: names.

        Returns:
            Shape: (texts,), bool.
        """
        wanted = frozenset(layers)
        return np.array([not wanted <= self._layers_of(text) for text in texts], dtype=bool)

    def _layers_of(self, text: bytes) -> frozenset[str]:
        rows = self._rows.get(text, ())
        return frozenset().union(*(self._shards[name].layers for name, _ in rows))

    def read(self, texts: Sequence[bytes], layers: Sequence[str]) -> dict[str, np.ndarray]:
        """Gather the rows of some layers; only those layers are read from disk.

        Args:
            texts: hashes, in the order wanted; repeats are allowed.
            layers: names.

        Returns:
            Layer to its vectors. Shape: (texts, width), float32.

        Raises:
            KeyError: for a text and layer that the store does not hold.
        """
        together = self._places(texts, frozenset(layers))
        return {
            layer: self._gather(
                len(texts), layer, together or self._places(texts, {layer}, must=True)
            )
            for layer in layers
        }

    def tokens(self, texts: Sequence[bytes]) -> TokenCounts:
        """Tokens seen and cut for each text."""
        counts = self._gather(len(texts), TOKENS, self._places(texts, frozenset(), must=True))
        return TokenCounts(seen=counts[:, 0].astype(np.int64), cut=counts[:, 1].astype(np.int64))

    def _places(
        self, texts: Sequence[bytes], layers: AbstractSet[str], *, must: bool = False
    ) -> dict[str, Places]:
        """Where the rows of some texts lie: shard to positions and rows.

        Empty where not every text has all the layers in one shard; an error where it `must`.
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
        """Add one shard.

        Args:
            texts: hashes.
            layers: layer to its vectors. Shape: (texts, width), finite.
            tokens: counts of the texts.
            seconds: time that the forward pass took.

        Raises:
            UserError: where the disk is full; what was written before stays.
        """
        arrays: dict[str, np.ndarray] = {
            HASHES: np.frombuffer(b"".join(texts), np.uint8).reshape(len(texts), 16),
            TOKENS: np.stack([tokens.seen, tokens.cut], axis=1).astype(np.int32),
        }
        for layer, values in layers.items():
            arrays[layer] = np.ascontiguousarray(values, np.float32)
            largest = max(float(values.max()), -float(values.min()))
            if self.spec.store_dtype == "auto" and largest <= FLOAT16_MAX:
                import torch  # here, as what only reads stores does without it

                # It rounds as numpy does, several times as fast.
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
        """Time that the pass up to a layer took a text, from the shares of its shards.

        Texts of which only passes that ended below it are known are left out; none if all are.
        """
        times = []
        for text in set(texts):
            shards = [self._shards[name] for name, _ in self._rows.get(text, ())]
            found = [shard.seconds / len(shard.hashes) for shard in shards if layer in shard.layers]
            times += found[:1]
        return sum(times) / len(times) if times else None

    def bytes_per_text(self, layers: Iterable[str]) -> float:
        """Bytes that some layers of a text take, averaged over the shards that hold them."""
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
        """The spec's hash."""
        return self.folder.name

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._rows)


# -- files --------------------------------------------------------------------------------------


def read_description(folder: Path) -> dict[str, Any]:
    """Spec and schema of a store's folder.

    Raises:
        UserError: where it is damaged or of another schema.
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
    """Read names and hashes of a shard, not its vectors.

    Raises:
        UserError: where the file is damaged.
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
    """The JSON header of a safetensors file."""
    with path.open("rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))


def is_whole(path: Path) -> bool:
    """Whether a shard still has the content that its name states."""
    return _sha256(path) == path.stem


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(entry: dict[str, Any]) -> int:
    start, stop = entry["data_offsets"]
    return stop - start
