"""The published pooling against a loop that pads with Hugging Face's own tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.source import open_source
from layerfusion.published.padded import (
    PADDED_MEAN,
    PADDED_POOLING,
    extract_padded,
    padded_addresses,
    padded_lengths,
)
from tests.tiny import tiny_folder

OPTIONS = ExtractConfig(device="cpu", shard_texts=16)


def naive(folder: Path, texts: list[str]) -> np.ndarray:
    """Batches of two, padded to the longer one; the mean over all positions."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    vectors = []
    for start in range(0, len(texts), 2):
        batch = texts[start : start + 2]
        kept = tokenizer(batch, padding=True, truncation=True, max_length=30, return_tensors="pt")
        with torch.no_grad():
            output = model(input_ids=kept["input_ids"], attention_mask=kept["attention_mask"])
        vectors.append(output.last_hidden_state.mean(1))
    return torch.cat(vectors).numpy()


@pytest.mark.parametrize(
    ("family", "side"),
    [("bert", "right"), ("bert", "left"), ("llama", "right"), ("llama", "left"), ("fnet", "right")],
)
def test_vectors_equal_a_naive_loop_and_not_the_honest_mean(
    family: str, side: str, corpus: list[str], tmp_path: Path
) -> None:
    folder = tiny_folder(family, tmp_path / "model", padding_side=side)
    texts = corpus[:31]  # the last text has no neighbour
    config = BackboneConfig(path=str(folder), max_length=30)
    source = open_source("tiny", config, PADDED_POOLING, tmp_path / "cache", "float32")
    extract_padded(source, [texts], OPTIONS)
    store, top = source.stores[PADDED_MEAN], source.shape.layers[-1]
    found = store.read(padded_addresses(texts), [top])[top]
    np.testing.assert_allclose(found, naive(folder, texts), atol=2e-5)

    honest = open_source("tiny", config, {"mean": PoolingConfig()}, tmp_path / "cache", "float32")
    honest.extract([texts], OPTIONS)
    hashes = [text_hash(text) for text in texts]
    mean = honest.stores["mean"].read(hashes, [top])[top]
    tokens = honest.stores["mean"].tokens(hashes).seen.tolist()
    assert store.tokens(padded_addresses(texts)).seen.tolist() == tokens
    padded = np.array(padded_lengths(tokens)) > tokens
    gap = np.abs(found - mean).max(axis=1)
    assert padded.any()
    assert (gap[padded] > 1e-3).all()
    assert (gap[~padded] < 1e-4).all()
    assert honest.stores["mean"].name != store.name


def test_an_address_is_that_of_a_text_beside_its_neighbour() -> None:
    a, b, c = "a", "b", "c"
    first, second = padded_addresses([a, b])
    assert padded_addresses([b, a]) == [second, first]
    others = [padded_addresses([a, c])[0], padded_addresses([a])[0], text_hash(a)]
    assert len({first, second, *others}) == 5
    assert padded_addresses([c, a, a, b])[2] == first


def test_what_is_in_the_store_is_not_computed_again(
    bert_folder: Path, corpus: list[str], tmp_path: Path
) -> None:
    config = BackboneConfig(path=str(bert_folder), max_length=30)
    source = open_source("tiny", config, PADDED_POOLING, tmp_path, "float32")
    extract_padded(source, [corpus[:20], corpus[20:30]], OPTIONS)
    files = set(source.stores[PADDED_MEAN].folder.glob("*.safetensors"))
    again = open_source("tiny", config, PADDED_POOLING, tmp_path, "float32")
    extract_padded(again, [corpus[:20], corpus[20:30]], OPTIONS)
    assert set(again.stores[PADDED_MEAN].folder.glob("*.safetensors")) == files
    extract_padded(again, [corpus[:20], corpus[20:32]], OPTIONS)
    assert len(again.stores[PADDED_MEAN]) == 32


def test_processes_share_the_batches(bert_folder: Path, corpus: list[str], tmp_path: Path) -> None:
    config = BackboneConfig(path=str(bert_folder), max_length=30)
    source = open_source("tiny", config, PADDED_POOLING, tmp_path, "float32")
    for shard in (0, 1):
        options = ExtractConfig(device="cpu", num_shards=2, shard=shard)
        extract_padded(source, [corpus[:40]], options)
        assert (len(source.stores[PADDED_MEAN]) == 40) == (shard == 1)
