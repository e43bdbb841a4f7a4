"""Compare extracting all layers with one layer by sentence-transformers, and with the arithmetic.

Run: python -m benchmarks.extraction [--rows 400] [--repeats 5] [--json FILE]

The limit is the time that the matrix products of the blocks would take at the speed that this
machine reaches with products of the model's own shapes, in the same minute. Attention weights,
norms, the tokenizer and the disk are not in it.
"""

from __future__ import annotations

import itertools
import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from benchmarks.turns import parser, show, take_turns
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

BATCH = 1024
"""Tokens of a product of the limit, as in a batch."""


def main() -> None:
    from sentence_transformers import SentenceTransformer

    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=400)
    asked = options.parse_args()
    words = ["dataset=r8", "backbone=[minilm]", f"limit.train={asked.rows}"]
    config = load(compose("train", words))
    texts = list(dataset_of(config).splits["train"].texts)
    source = open_source("minilm", config.backbone["minilm"], config.pooling, Path("outputs/cache"))
    backbone = load_backbone("minilm", source.asset.path, config.backbone["minilm"], "cpu")
    peer = SentenceTransformer(str(source.asset.path), device="cpu")
    peer.max_seq_length = backbone.shape.max_length
    expected = peer.encode(texts)
    tokens = sum(text.cost for text in backbone.tokenize(texts, config.backbone["minilm"]))
    with tempfile.TemporaryDirectory() as scratch:
        folders = (Path(scratch) / str(number) for number in itertools.count())
        calibrations = Path(scratch) / "calibrations.json"
        store = _extract(config, backbone, texts, next(folders), calibrations)
        last = store.read([text_hash(text) for text in texts], ["6"])["6"]
        seconds = take_turns(
            {
                f"all {len(backbone.shape.layers)} layers, written": lambda: _extract(
                    config, backbone, texts, next(folders), calibrations
                ),
                "sentence-transformers, the last layer": lambda: peer.encode(texts),
                "the products of matrices alone": lambda: _products(backbone, tokens),
            },
            asked.repeats,
        )
    show(f"extraction: {len(texts)} texts of r8, minilm, {tokens} tokens", seconds, asked.json)
    last /= np.linalg.norm(last, axis=1, keepdims=True)
    print(f"  largest difference of the last layer: {np.abs(last - expected).max():.1e}")


@torch.inference_mode()
def _products(backbone: Backbone, tokens: int) -> None:
    """Multiply random vectors, as many as there are tokens, by each matrix of the blocks.

    It is done as the model does it, by copies of the matrices if there are any.
    """
    assert backbone.blocks is not None
    matrices = [x for x in backbone.blocks.parameters() if x.dim() == 2]
    rows = {width: torch.randn(BATCH, width) for width in {x.shape[1] for x in matrices}}
    with backbone.prepacked or nullcontext():
        for _ in range(-(-tokens // BATCH)):
            for matrix in matrices:
                torch.nn.functional.linear(rows[matrix.shape[1]], matrix)


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
    main()
