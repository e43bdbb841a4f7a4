from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings import latency as latency_module
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.latency import (
    Latency,
    measure_latency,
    middle_length,
    read_latency,
    write_latency,
)
from layerfusion.embeddings.shape import BATCH
from layerfusion.embeddings.source import EmbeddingSource, open_source
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
    assert latency.length in {len(window.ids) for window in windows}
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
    assert latency.length == lengths[len(lengths) // 2]
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
    assert latency.length == long[0].seen
    seen.clear()
    assert measure_latency(backbone, short).length == 3
    assert {*seen} == {1, BATCH}
    handle.remove()
    monkeypatch.setattr(latency_module, "_pass", lambda _backbone, _batch: {"0": 2.0})
    assert measure_latency(backbone, long).batch == {"0": 6.0}


def test_a_store_has_a_measurement_for_each_length_of_text(
    tmp_path: Path, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = timed(tmp_path, bert_folder)
    folder = source.stores["mean"].folder
    assert read_latency(folder, 12) is None
    words = ["oil", "wheat", "corn", "market", "rises", "falls"]
    pairs = [*product(words, repeat=2)]
    short, long = (
        [f"{one} {other} " + "oil " * more for one, other in pairs] for more in (8, 28)
    )  # with two special tokens
    source.extract([short], ExtractConfig(device="cpu"))
    first = read_latency(folder, 12)
    assert first is not None
    assert first.length == 12
    assert read_latency(folder, 15) == read_latency(folder, 10) == first  # nearly the same length
    assert read_latency(folder, 16) is None
    assert read_latency(folder, 9) is None
    source.extract([long[: BATCH - 1]], ExtractConfig(device="cpu"))
    assert read_latency(folder, 32) is None  # so few are not worth the time
    source.extract([[*short[:1], *long]], ExtractConfig(device="cpu"))
    second = read_latency(folder, 32)
    assert second is not None
    assert second.length == 32
    assert read_latency(folder, 12) == first
    monkeypatch.setattr(latency_module, "measure_latency", None)  # nothing is timed again
    source.extract([[f"{text} corn" for text in short]], ExtractConfig(device="cpu"))
    assert read_latency(folder, 13) == first


def test_the_text_that_is_timed_is_the_median_of_all_wherever_it_stands(
    tmp_path: Path, bert_folder: Path
) -> None:
    source = timed(tmp_path, bert_folder)
    texts = ["oil " * (1 + n // 10) for n in range(600)]  # sorted: the first 200 are short
    source.extract([texts], ExtractConfig(device="cpu"))
    lengths = sorted(source.stores["mean"].tokens([*map(text_hash, texts)]).seen)
    assert read_latency(source.stores["mean"].folder, lengths[300]) is not None
    names = [path.name for path in source.stores["mean"].folder.glob("latency*")]
    assert names == [f"latency-{lengths[300]}.json"]


def test_a_damaged_measurement_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for length in (10, 12):
        write_latency(Latency(length, {"0": length / 1000}, {}), tmp_path)
    found = read_latency(tmp_path, 10)
    assert found is not None
    assert found.one == {"0": 0.01}
    (tmp_path / "latency-10.json").write_text("{}")
    found = read_latency(tmp_path, 10)
    assert found is not None
    assert found.one == {"0": 0.012}
    assert "latency-10.json" in caplog.text


def test_a_store_whose_extraction_was_killed_before_it_was_timed_is_timed_later(
    tmp_path: Path, bert_folder: Path, corpus: list[str]
) -> None:
    source = timed(tmp_path, bert_folder)
    folder = source.stores["mean"].folder
    source.extract([corpus[:10]], ExtractConfig(device="cpu"))
    [path] = folder.glob("latency-*")
    path.unlink()
    source.extract([corpus[:10]], ExtractConfig(device="cpu"))
    assert path.exists()
    counts = source.stores["mean"].tokens([*map(text_hash, corpus[:10])])
    latency = read_latency(folder, middle_length(counts.seen))
    assert latency is not None
    assert set(latency.one) == set(latency.batch) != set()


def timed(cache: Path, folder: Path) -> EmbeddingSource:
    config = BackboneConfig(path=str(folder))
    return open_source("tiny", config, {"mean": PoolingConfig()}, cache)
