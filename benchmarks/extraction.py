"""Compare extracting all layers at once with one layer by sentence-transformers.

Run: python -m benchmarks.extraction [rows] [repeats]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.job import ExtractConfig, TrainConfig
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.cache_key import backbone_spec, text_hash
from layerfusion.embeddings.extract import extract
from layerfusion.embeddings.source import open_source
from layerfusion.embeddings.store import EmbeddingStore
from layerfusion.runs.job_texts import dataset_of


def main(rows: int = 400, repeats: int = 3) -> None:
    from sentence_transformers import SentenceTransformer

    config = load(compose("train", ["dataset=r8", "backbone=[minilm]", f"limit.train={rows}"]))
    texts = list(dataset_of(config).splits["train"].texts)
    source = open_source("minilm", config.backbone["minilm"], config.pooling, Path("outputs/cache"))
    backbone = load_backbone("minilm", source.asset.path, config.backbone["minilm"], "cpu")
    peer = SentenceTransformer(str(source.asset.path), device="cpu")
    peer.max_seq_length = backbone.shape.max_length
    peer.encode(texts[:16])
    ours: list[float] = []
    theirs: list[float] = []
    differences: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        calibrations = Path(scratch) / "calibrations.json"
        _extract(config, backbone, texts[:64], Path(scratch) / "warm", calibrations)
        for repeat in range(repeats):
            begun = time.perf_counter()
            store = _extract(config, backbone, texts, Path(scratch) / str(repeat), calibrations)
            ours.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            expected = peer.encode(texts)
            theirs.append(time.perf_counter() - begun)
            last = store.read([text_hash(text) for text in texts], ["6"])["6"]
            last /= np.linalg.norm(last, axis=1, keepdims=True)
            differences.append(float(np.abs(last - expected).max()))
    print(f"{len(texts)} texts of r8, minilm, {repeats} repeats, median seconds")
    print(f"  all {len(backbone.shape.layers)} layers, written: {statistics.median(ours):.2f}")
    print(f"  sentence-transformers, 1 layer: {statistics.median(theirs):.2f}")
    ratios = [mine / peers for mine, peers in zip(ours, theirs, strict=True)]
    print(f"  ratio, pair by pair: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    print(f"  largest difference of the last layer: {max(differences):.1e}")


def _extract(
    config: TrainConfig, backbone: Backbone, texts: list[str], root: Path, calibrations: Path
) -> EmbeddingStore:
    pooling = config.pooling["mean"]
    spec = backbone_spec(config.backbone["minilm"], pooling, model="bench", folder=root)
    store = EmbeddingStore(root, spec)
    extract(
        backbone,
        {"mean": store},
        {"mean": pooling},
        texts,
        config=config.backbone["minilm"],
        options=ExtractConfig(),
        calibrations=calibrations,
    )
    return store


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
