"""Open one store in a process of its own and print its figures, for `benchmarks.scaling`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch  # before the measurement, since a job has loaded it

from layerfusion.embeddings.cache_key import BackboneSpec
from layerfusion.embeddings.store import EmbeddingStore, read_description

SAMPLE = 20_000


def main(folder: Path, texts: int) -> None:
    """Measure the opening, the index, and reading some texts."""
    from benchmarks.scaling import hashes_of

    torch.set_num_threads(1)
    spec = BackboneSpec(**read_description(folder)["spec"])
    before = memory()
    begun, cpu = time.perf_counter(), time.process_time()
    store = EmbeddingStore(folder.parent, spec)
    opened, cpu_opened = time.perf_counter() - begun, time.process_time() - cpu
    grown = memory() - before
    hashes = hashes_of(folder)
    chosen = np.random.default_rng(3).choice(len(hashes), min(SAMPLE, texts), replace=False)
    sample = hashes[chosen]
    store.read(sample, ["0"])
    cpu = time.process_time()
    store.read(sample, ["0"])
    read = time.process_time() - cpu
    cpu = time.process_time()
    store.missing(hashes, ["0"])
    looked_up = time.process_time() - cpu
    figures = {
        "open_seconds": opened,
        "open_cpu_seconds": cpu_opened,
        "index_bytes_per_text": store.index_bytes / texts,
        "grown_bytes_per_text": grown / texts,
        "sample": len(sample),
        "sample_seconds": read,
        "look_up_all_seconds": looked_up,
    }
    print(json.dumps(figures))


def memory() -> int:
    """Return the memory of this process in bytes, as the system counts it."""
    pages = Path("/proc/self/statm").read_text().split()
    return 4096 * (int(pages[1]) - int(pages[2]))  # without pages of files


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
