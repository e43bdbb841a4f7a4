from __future__ import annotations

from pathlib import Path

import pytest

from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings import latency as latency_module
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.latency import LATENCY_FILE, measure_latency, read_latency
from layerfusion.embeddings.shape import BATCH
from layerfusion.embeddings.source import open_source
from layerfusion.embeddings.tokens import tokenize


@pytest.mark.parametrize("family", ["bert_folder", "llama_folder"])
def test_every_layer_has_its_time_and_higher_ones_take_longer(
    family: str, corpus: list[str], request: pytest.FixtureRequest
) -> None:
    config = BackboneConfig()
    backbone = load_backbone("tiny", request.getfixturevalue(family), config, "cpu")
    tokens = tokenize(backbone.tokenizer, corpus[:7], config, backbone.shape.max_length)
    windows = [window for text in tokens for window in text.windows]
    latency = measure_latency(backbone, tokens)
    for taken in (latency.one, latency.batch):
        assert tuple(taken) == backbone.shape.layers
        times = list(taken.values())
        assert times == sorted(times)
        assert times[0] > 0
    assert latency.tokens in {len(window.ids) for window in windows}
    assert len(windows) < BATCH  # rows came round again


def test_a_batch_has_32_rows_and_the_one_text_is_of_middling_length(
    bert_folder: Path, corpus: list[str]
) -> None:
    config = BackboneConfig()
    backbone = load_backbone("tiny", bert_folder, config, "cpu")
    tokens = tokenize(backbone.tokenizer, corpus, config, backbone.shape.max_length)
    windows = [window for text in tokens for window in text.windows]
    seen = set()
    handle = backbone.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.add(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    latency = measure_latency(backbone, tokens)
    handle.remove()
    lengths = sorted(len(window.ids) for window in windows)
    assert latency.tokens == lengths[len(lengths) // 2]
    assert {rows for rows, _ in seen} == {1, BATCH}
    assert max(length for _, length in seen) < lengths[-1]


def test_a_text_of_several_windows_takes_a_pass_of_all_of_them(
    bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BackboneConfig(long_texts="windows", window_overlap=0)
    backbone = load_backbone("tiny", bert_folder, config, "cpu")
    texts = ["oil " * 16, "oil " * 18, "wheat", "oil"]
    short, long = (tokenize(backbone.tokenizer, some, config, 8) for some in (texts[2:], texts[:3]))
    assert len(long[0].windows) == 3
    seen = []
    handle = backbone.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    latency = measure_latency(backbone, long)
    assert {*seen} == {3, BATCH}
    assert latency.tokens == long[0].cost
    seen.clear()
    assert measure_latency(backbone, short).tokens == 3
    assert {*seen} == {1, BATCH}
    handle.remove()
    monkeypatch.setattr(latency_module, "_pass", lambda _backbone, _batch: {"0": 2.0})
    assert measure_latency(backbone, long).batch == {"0": 6.0}


def test_a_store_keeps_the_first_measurement(
    tmp_path: Path, bert_folder: Path, corpus: list[str]
) -> None:
    config = BackboneConfig(path=str(bert_folder))
    source = open_source("tiny", config, {"mean": PoolingConfig()}, tmp_path)
    folder = source.stores["mean"].folder
    assert read_latency(folder) is None
    source.extract([corpus[:10]], ExtractConfig(device="cpu"))
    first = read_latency(folder)
    assert first is not None
    source.extract([corpus[10:20]], ExtractConfig(device="cpu"))
    assert read_latency(folder) == first


def test_a_store_whose_extraction_was_killed_before_it_was_timed_is_timed_later(
    tmp_path: Path, bert_folder: Path, corpus: list[str]
) -> None:
    config = BackboneConfig(path=str(bert_folder))
    source = open_source("tiny", config, {"mean": PoolingConfig()}, tmp_path)
    folder = source.stores["mean"].folder
    source.extract([corpus[:10]], ExtractConfig(device="cpu"))
    (folder / LATENCY_FILE).unlink()
    source.extract([corpus[:10]], ExtractConfig(device="cpu"))
    latency = read_latency(folder)
    assert latency is not None
    assert set(latency.one) == set(latency.batch) != set()
