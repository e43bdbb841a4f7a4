"""Measure how a store grows: bytes, writing, opening, reading, compacting; synthetic vectors.

Run: python -m benchmarks.scaling [--texts N] [--index N] [--folder DIR] [--json FILE] [--plot FILE]

Nothing here depends on a model: a shard's vectors are random numbers, and its hashes are random.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from layerfusion.config.job import BackboneConfig, PoolingConfig
from layerfusion.embeddings.cache_key import BackboneSpec, backbone_spec
from layerfusion.embeddings.compact import compact
from layerfusion.embeddings.store import EmbeddingStore, TokenCounts

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000)
SHARD_TEXTS = 256
"""Texts of a shard, as many as a CPU writes at a time at 64 tokens a text."""
LAYERS, WIDTH = ("0", "1", "2"), 64
INDEX_SHARD_TEXTS = 65_536
INDEX_WIDTH = 8
SAMPLE = 50_000
REPEATS = 5


def main(words: list[str]) -> None:
    """Measure the growth and the opening of a large store, and print and keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--texts", type=int, default=SIZES[-1], help="size up to which it grows")
    parser.add_argument("--index", type=int, default=10_000_000, help="texts of the store to open")
    parser.add_argument("--folder", type=Path, help="where a few gigabytes are free for a while")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        found: dict[str, Any] = {
            "growth": grow(Path(scratch), [n for n in SIZES if n <= options.texts]),
            "index": large_index(Path(scratch), options.index),
            "gather": gather(Path(scratch)),
        }
    for part in found.values():
        for row in part:
            print("  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    if options.plot:
        plot(found["growth"], options.plot)


def grow(scratch: Path, sizes: list[int]) -> list[dict[str, float]]:
    """Write a store shard by shard, and measure it at some sizes, before and after compaction."""
    spec = spec_of("none")
    store = EmbeddingStore(scratch / "grown", spec)
    generator = np.random.default_rng(0)
    warm = spec_of("warm")
    write(EmbeddingStore(scratch / "warm", warm), generator, SHARD_TEXTS, WIDTH, LAYERS)
    texts, rows = 0, []
    for size in sizes:
        begun, before = time.perf_counter(), texts
        while texts < size:
            count = min(SHARD_TEXTS, size - texts)
            write(store, generator, count, WIDTH, LAYERS)
            texts += count
        seconds = time.perf_counter() - begun
        small = measured(scratch / "grown", spec.hash(), size)
        folder = scratch / "compacted" / spec.hash()
        folder.mkdir(parents=True)
        for path in store.folder.iterdir():
            if path.suffix in (".safetensors", ".json"):
                os.link(path, folder / path.name)
        begun = time.perf_counter()
        compact(folder)
        compacting = time.perf_counter() - begun
        large = measured(scratch / "compacted", spec.hash(), size)
        shutil.rmtree(scratch / "compacted")
        row: dict[str, float] = {"texts": size, "compact_seconds": compacting}
        row["write_ms_per_shard"] = 1000 * seconds * SHARD_TEXTS / (size - before)
        row |= {f"small_{key}": value for key, value in small.items()}
        row |= {f"large_{key}": value for key, value in large.items()}
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    shutil.rmtree(scratch / "grown")
    return rows


def spec_of(model: str, dtype: str = "float16") -> BackboneSpec:
    """Spec of a store of vectors of no model."""
    config, nowhere = BackboneConfig(), Path("/none")
    return backbone_spec(config, PoolingConfig(), model=model, folder=nowhere, store_dtype=dtype)


def write(
    store: EmbeddingStore,
    generator: np.random.Generator,
    count: int,
    width: int,
    layers: tuple[str, ...],
) -> None:
    """Write a shard of random vectors."""
    hashes = generator.integers(0, 256, (count, 16), np.uint8)
    vectors = generator.standard_normal((count, width), np.float32)
    tokens = TokenCounts(*np.ones((4, count), np.int64))
    store.write(list(map(bytes, hashes)), dict.fromkeys(layers, vectors), tokens, seconds=1.0)


def large_index(scratch: Path, texts: int) -> list[dict[str, float]]:
    """Open a store of many texts with small vectors."""
    spec = spec_of("large")
    store = EmbeddingStore(scratch / "large", spec)
    generator = np.random.default_rng(1)
    for start in range(0, texts, INDEX_SHARD_TEXTS):
        count = min(INDEX_SHARD_TEXTS, texts - start)
        write(store, generator, count, INDEX_WIDTH, ("0",))
    del store
    row = {"texts": texts, **measured(scratch / "large", spec.hash(), texts)}
    shutil.rmtree(scratch / "large")
    print(row, file=sys.stderr, flush=True)
    return [row]


def measured(root: Path, name: str, texts: int) -> dict[str, float]:
    """Measure a store in a process of its own, so that nothing is in memory yet."""
    words = [sys.executable, "-m", "benchmarks.scaling_open", str(root / name), str(texts)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    shards = [path.stat().st_size for path in (root / name).glob("*.safetensors")]
    return {"shards": len(shards), "bytes_per_text": sum(shards) / texts, **json.loads(said)}


def gather(scratch: Path) -> list[dict[str, float]]:
    """Compare reading with copying the same array in memory, for two widths and both types."""
    return [
        gathered(scratch / f"{dtype}-{width}", width, texts, dtype)
        for dtype in ("float16", "float32")
        for width, texts in ((384, 200_000), (4096, 20_000))
    ]


def gathered(root: Path, width: int, texts: int, dtype: str) -> dict[str, float]:
    """Measure the reading of a whole layer, the best of some runs."""
    spec = spec_of("g", dtype)
    store = EmbeddingStore(root, spec)
    generator = np.random.default_rng(2)
    for _ in range(0, texts, SHARD_TEXTS):
        write(store, generator, SHARD_TEXTS, width, ("0",))
    compact(store.folder)
    store = EmbeddingStore(root, spec)
    hashes = hashes_of(store.folder)
    mixed = hashes[generator.permutation(len(hashes))]
    vectors = store.read(hashes, ["0"])["0"]
    into = vectors.copy()
    half = vectors.astype(np.float16)
    ways: dict[str, Callable[[], object]] = {
        "in_order": lambda: store.read(hashes, ["0"]),
        "mixed": lambda: store.read(mixed, ["0"]),
        "copy": vectors.copy,
        "copy_in_place": lambda: np.copyto(into, vectors),
        "convert": lambda: half.astype(np.float32),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            times[name].append(cpu_seconds(way))
    row = {"width": width, "texts": len(hashes), "bytes_per_number": 2 if dtype == "float16" else 4}
    row |= {f"{name}_gb_per_s": vectors.nbytes / 1e9 / min(x) for name, x in times.items()}
    print(row, file=sys.stderr, flush=True)
    shutil.rmtree(root)
    return row


def hashes_of(folder: Path) -> np.ndarray:
    """Return the hashes of all texts of a store. Shape: (texts, 16), uint8."""
    from layerfusion.embeddings.shards import open_shard

    return np.concatenate([open_shard(path)[1] for path in sorted(folder.glob("*.safetensors"))])


def cpu_seconds(way: Callable[[], object]) -> float:
    """Measure the time of this process, which other busy processes do not lengthen much."""
    begun = resource.getrusage(resource.RUSAGE_SELF)
    way()
    ended = resource.getrusage(resource.RUSAGE_SELF)
    return ended.ru_utime - begun.ru_utime + ended.ru_stime - begun.ru_stime


def plot(rows: list[dict[str, float]], path: Path) -> None:
    """Draw opening, index and writing over the number of texts."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    texts = [row["texts"] for row in rows]
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for kind, label in (("small", f"shards of {SHARD_TEXTS} texts"), ("large", "compacted")):
        axes[0].plot(texts, [row[f"{kind}_open_cpu_seconds"] for row in rows], "o-", label=label)
        rates = [row[f"{kind}_sample_seconds"] / row[f"{kind}_sample"] * 1e6 for row in rows]
        axes[1].plot(texts, rates, "o-", label=label)
    axes[2].plot(texts, [row["write_ms_per_shard"] for row in rows], "o-", color="tab:gray")
    titles = ("opening, seconds of a core", "reading at random, µs a text", "writing a shard, ms")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xscale="log", xlabel="texts in the store")
    axes[0].set(yscale="log")
    axes[1].set(ylim=(0, None))
    axes[2].set(ylim=(0, None))
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main(sys.argv[1:])
