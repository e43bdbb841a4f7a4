"""Each path that runs on a GPU, against the CPU. What needs no GPU runs everywhere."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings import extract as extract_module
from layerfusion.embeddings import forward, groups
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.cache_key import backbone_spec, text_hash
from layerfusion.embeddings.extract import extract
from layerfusion.embeddings.forward import embed
from layerfusion.embeddings.packing import find_packing
from layerfusion.embeddings.pooling import find_spans, pool_tokens
from layerfusion.embeddings.shards import open_shard
from layerfusion.embeddings.store import EmbeddingStore
from layerfusion.embeddings.tokens import tokenize
from layerfusion.errors import UserError
from layerfusion.layers.folds import stratified_folds
from layerfusion.layers.probe import cross_validate, fit_probes
from tests.tiny import tiny_folder

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use through CUDA"
)
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]
POOLINGS = {
    "mean": PoolingConfig(),
    "rest": PoolingConfig("mean", skip_first=True),
    "first": PoolingConfig("first"),
    "last": PoolingConfig("last"),
    "max": PoolingConfig("max"),
}
PACKED = ("bert", "roberta", "electra", "distilbert", "gpt2", "llama", "qwen2")
"""Families whose attention is plain enough to be confined to a text."""
PADDED = (
    "modernbert",
    "mistral",
    "gemma2",
    "gemma3",
    "falcon",
    "t5",
    "mpnet",
    "deberta_v2",
    "fnet",
)
"""Families with windows, caps or biases in their attention, or with none at all."""
LENGTH = 120


def load(family: str, folder: Path, device: str, dtype: str = "float32") -> Backbone:
    made = folder / family
    if not made.exists():
        tiny_folder(family, made)
    return load_backbone(family, made, BackboneConfig(dtype=dtype, max_length=LENGTH), device)


def vectors(backbone: Backbone, texts: list[str], budget: int = 400) -> dict[Any, np.ndarray]:
    """All poolings and layers, in the order of the texts."""
    tokens = tokenize(backbone.tokenizer, texts, BackboneConfig(), backbone.shape.max_length)
    order = sorted(range(len(texts)), key=lambda row: -tokens[row].cost)
    layers = dict.fromkeys(POOLINGS, backbone.shape.layers)
    found, _ = embed(backbone, [tokens[row] for row in order], layers, POOLINGS, budget)
    return {key: values[np.argsort(order)] for key, values in found.items()}


def with_packing(backbone: Backbone) -> Backbone:
    packing = find_packing(
        backbone.model, backbone.blocks, backbone.pad_id, backbone.shape.max_length, backbone.device
    )
    return replace(backbone, packing=packing)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


# -- pooling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("how", ["mean", "first", "last", "max"])
def test_pooling_without_a_copy_in_float32_is_as_exact_as_float64(
    how: str, dtype: torch.dtype, device: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([70, 64, 31, 9, 2, 1])
    tokens = 5 * torch.randn(int(lengths.sum()), 24, generator=generator) + 3
    offset = torch.cumsum(lengths, 0) - lengths
    tokens = tokens.to(dtype)
    tokens[offset[1]] = torch.nan  # the second row does not pool its first token
    first = offset + torch.tensor([0, 1, 0, 0, 0, 0])
    where = torch.device(device)
    spans = find_spans(first.to(where), (offset + lengths - 1).to(where), lengths.tolist())
    assert len(spans.parts) > 1
    found = pool_tokens(tokens.to(where), spans, how).cpu()
    for row, (begin, end) in enumerate(zip(first, offset + lengths, strict=True)):
        mine = tokens[begin:end].double()
        expected = {"mean": mine.mean(0), "first": mine[0], "last": mine[-1], "max": mine.amax(0)}
        torch.testing.assert_close(found[row].double(), expected[how], rtol=2e-6, atol=2e-6)


def test_spans_touch_no_more_than_twice_the_tokens() -> None:
    lengths = sorted(np.random.default_rng(0).integers(1, 500, 300).tolist(), reverse=True)
    last = torch.cumsum(torch.tensor(lengths), 0) - 1
    spans = find_spans(last + 1 - torch.tensor(lengths), last, lengths)
    assert sum(places.numel() for places, _ in spans.parts) <= 2 * sum(lengths)
    assert torch.cat([count for _, count in spans.parts]).tolist() == lengths


# -- packing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", PACKED)
def test_packed_texts_have_the_vectors_of_padded_ones(
    family: str, tmp_path: Path, corpus: list[str]
) -> None:
    backbone = load(family, tmp_path, "cpu")
    packed = with_packing(backbone)
    assert packed.packing is not None
    expected = vectors(backbone, corpus[:40])
    for key, values in vectors(packed, corpus[:40]).items():
        np.testing.assert_allclose(values, expected[key], rtol=1e-4, atol=1e-4, err_msg=str(key))


@pytest.mark.parametrize("family", PADDED)
def test_a_model_that_cannot_be_packed_is_found_out(family: str, tmp_path: Path) -> None:
    backbone = load(family, tmp_path, "cpu")
    assert with_packing(backbone).packing is None
    texts = ["a good film", "oil rose and the ship fell " * 4]
    vectors(backbone, texts)  # and the model is left as it was


def test_a_text_longer_than_was_checked_is_padded(
    tmp_path: Path, corpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerfusion.embeddings.packing.PROBED_TOKENS", 12)
    backbone = load("llama", tmp_path, "cpu")
    packed = with_packing(backbone)
    assert packed.packing is not None
    assert packed.packing.longest == 12
    expected = vectors(backbone, corpus[:20])
    for key, values in vectors(packed, corpus[:20]).items():
        np.testing.assert_allclose(values, expected[key], rtol=1e-4, atol=1e-4, err_msg=str(key))


@needs_gpu
@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_on_a_gpu_packed_and_padded_are_equally_near_the_cpu(
    family: str, dtype: str, tmp_path: Path, corpus: list[str]
) -> None:
    exact = vectors(load(family, tmp_path, "cpu"), corpus[:60])
    packed = load(family, tmp_path, "cuda", dtype)
    assert packed.packing is not None
    padded = vectors(replace(packed, packing=None), corpus[:60])
    for key, values in vectors(packed, corpus[:60]).items():
        reached = relative(values, exact[key])
        assert reached <= max(1.3 * relative(padded[key], exact[key]), 2e-3), key
        assert reached <= 0.1, key


@needs_gpu
@pytest.mark.parametrize("family", [*PACKED, *PADDED])
def test_on_a_gpu_float32_is_what_the_cpu_computes(
    family: str, tmp_path: Path, corpus: list[str]
) -> None:
    expected = vectors(load(family, tmp_path, "cpu"), corpus[:40])
    backbone = load(family, tmp_path, "cuda")
    assert backbone.packing is None
    for key, values in vectors(backbone, corpus[:40]).items():
        assert relative(values, expected[key]) <= 1e-4, key


# -- extraction ---------------------------------------------------------------------------------


@pytest.fixture(params=["cpu", "fed", pytest.param("cuda", marks=needs_gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a device. With "fed", the host does for a CPU all that it does for a GPU."""
    if request.param == "fed":
        monkeypatch.setattr(Backbone, "is_fed", True)
        return "cpu"
    return request.param


def run(
    backbone: Backbone, root: Path, texts: list[str], **options: Any
) -> tuple[EmbeddingStore, int]:
    pooling = {"mean": PoolingConfig()}
    config = BackboneConfig(dtype="bfloat16", max_length=LENGTH)
    store = EmbeddingStore(root, backbone_spec(config, pooling["mean"], model="m", folder=root))
    done = extract(
        backbone,
        {"mean": store},
        pooling,
        texts,
        config=config,
        options=ExtractConfig(**{"token_budget": 256, **options}),
        calibrations=root / "calibrations.json",
    )
    return store, done.texts


def read(store: EmbeddingStore, texts: list[str]) -> dict[str, np.ndarray]:
    assert store.shape is not None
    return store.read([text_hash(text) for text in texts], store.shape.layers)


@pytest.mark.parametrize("size", [(7, 2**26), (10**6, 300)])
def test_texts_in_many_parts_are_each_computed_once(
    device: str,
    size: tuple[int, int],
    tmp_path: Path,
    corpus: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parts of a corpus that is too large to be held as tokens, and waves ahead of a GPU."""
    backbone = load("llama", tmp_path, device, "bfloat16")
    whole, count = run(backbone, tmp_path / "whole", corpus)
    assert count == len(corpus)
    monkeypatch.setattr(groups, "STRETCH_TEXTS", size[0])
    monkeypatch.setattr(groups, "STRETCH_CHARACTERS", size[1])
    monkeypatch.setattr(groups, "WAVE_CHARACTERS", 100)
    twice = [text for text in corpus for _ in range(2)]
    store, count = run(backbone, tmp_path / "parts", twice)
    assert count == len(corpus)
    for layer, values in read(store, corpus).items():
        assert relative(values, read(whole, corpus)[layer]) <= 0.02
    assert run(backbone, tmp_path / "parts", corpus)[1] == 0


@pytest.mark.parametrize("device", ["fed", pytest.param("cuda", marks=needs_gpu)], indirect=True)
def test_on_a_gpu_what_goes_on_after_a_kill_forms_the_same_batches(
    device: str, tmp_path: Path, corpus: list[str]
) -> None:
    backbone = load("bert", tmp_path, device, "bfloat16")
    store, _ = run(backbone, tmp_path / "a", corpus, shard_texts=20)
    shards = {path.name for path in store.folder.glob("*.safetensors")}
    assert len(shards) > 3
    # The longest texts are written first: as if the run had been cut after two shards.
    longest = sorted(
        map(open_shard, store.folder.glob("*.safetensors")),
        key=lambda opened: -int(store.tokens(opened[1]).seen.max()),
    )
    for shard, _ in longest[2:]:
        shard.path.unlink()
    again, count = run(backbone, tmp_path / "a", corpus, shard_texts=20)
    assert count == len(corpus) - sum(len(hashes) for _, hashes in longest[:2])
    fresh, _ = run(backbone, tmp_path / "b", corpus, shard_texts=20)
    for layer, values in read(fresh, corpus).items():
        np.testing.assert_array_equal(read(again, corpus)[layer], values)


class Killed(Exception):
    """The end of a job, after which only what is on the disk is left."""


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[list[bytes]]:
    """Batches as they pass through the model, each as the ids of its windows."""
    made: list[list[bytes]] = []
    real = forward.launch

    def noted(backbone: Any, windows: Any, *rest: Any, **options: Any) -> Any:
        made.append([window.ids.tobytes() for window in windows])
        return real(backbone, windows, *rest, **options)

    monkeypatch.setattr(forward, "launch", noted)
    return made


@pytest.mark.parametrize("device", ["fed", pytest.param("cuda", marks=needs_gpu)], indirect=True)
@pytest.mark.parametrize("after", [1, 2, 4])
def test_on_a_gpu_batches_reach_over_waves_and_are_the_same_after_a_kill(
    device: str,
    after: int,
    tmp_path: Path,
    corpus: list[str],
    launched: list[list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No wave ends with a batch of its last few texts; here many waves make a batch."""
    monkeypatch.setattr(groups, "WAVE_CHARACTERS", 100)
    monkeypatch.setattr(groups, "STRETCH_TEXTS", 70)
    monkeypatch.setattr(extract_module, "SHARD_BYTES", 4_000)
    backbone = load("bert", tmp_path, device, "bfloat16")
    whole, _ = run(backbone, tmp_path / "whole", corpus)
    batches, launched[:] = launched[:], []
    for batch, following in pairwise(batches):
        longest = max(map(len, [*batch, following[0]])) // 4  # four bytes an id
        assert (len(batch) + 1) * longest > 256
    write, written = EmbeddingStore.write, []

    def killed(*args: Any, **how: Any) -> Any:
        if len(written) == after:
            raise Killed
        written.append(len(args[1]))
        return write(*args, **how)

    monkeypatch.setattr(EmbeddingStore, "write", killed)
    with pytest.raises(Killed):
        run(backbone, tmp_path / "killed", corpus)
    monkeypatch.setattr(EmbeddingStore, "write", write)
    launched.clear()
    again, count = run(backbone, tmp_path / "killed", corpus)
    assert 0 < count == len(corpus) - sum(written)
    assert launched == batches[-len(launched) :]
    for layer, values in read(whole, corpus).items():
        np.testing.assert_array_equal(read(again, corpus)[layer], values)


@pytest.mark.parametrize("device", ["fed"], indirect=True)
def test_a_batch_of_a_gpu_is_limited_by_its_tokens_alone(
    device: str, tmp_path: Path, corpus: list[str], launched: list[list[bytes]]
) -> None:
    backbone = load("bert", tmp_path, device)
    texts = [f"{text} {number}" for text in corpus for number in range(10)]
    run(backbone, tmp_path / "unset", texts, token_budget=10**6)
    assert [len(batch) for batch in launched] == [len(set(texts))]
    assert len(texts) > groups.CPU_TEXTS
    launched.clear()
    run(backbone, tmp_path / "set", texts, token_budget=10**6, shard_texts=500)
    assert max(map(len, launched)) == 500


@pytest.mark.parametrize("device", ["fed"], indirect=True)
def test_the_last_shards_of_a_gpu_are_smaller(
    device: str, tmp_path: Path, corpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that less is left to write when the last batch is done."""
    monkeypatch.setattr(groups, "WAVE_CHARACTERS", 2000)
    monkeypatch.setattr(extract_module, "SHARD_BYTES", 16_000)
    monkeypatch.setattr(extract_module, "LAST_BYTES", 4_000)
    closed: list[tuple[bool, int]] = []
    close = extract_module._OpenShard.close

    def noted(shard: Any, *args: Any) -> Any:
        closed.append((shard.is_last, shard._bytes))
        return close(shard, *args)

    monkeypatch.setattr(extract_module._OpenShard, "close", noted)
    run(load("bert", tmp_path, device, "bfloat16"), tmp_path / "store", corpus, token_budget=64)
    assert {is_last for is_last, _ in closed} == {False, True}
    assert all(size >= 16_000 for is_last, size in closed if not is_last)
    assert any(4_000 <= size < 16_000 for is_last, size in closed if is_last)


@needs_gpu
def test_on_a_gpu_a_vector_does_not_depend_on_its_neighbours(
    tmp_path: Path, corpus: list[str]
) -> None:
    backbone = load("llama", tmp_path, "cuda", "bfloat16")
    few, many = vectors(backbone, corpus[:5]), vectors(backbone, corpus, budget=2000)
    exact = vectors(load("llama", tmp_path, "cpu"), corpus[:5])
    for key, values in few.items():
        rounding = max(2e-3, relative(values, exact[key]))
        assert relative(many[key][:5], values) <= 1.5 * rounding, key


def test_out_of_memory_halves_the_batch_with_others_under_way(
    device: str, tmp_path: Path, corpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load("bert", tmp_path, device, "bfloat16")
    expected, _ = run(backbone, tmp_path / "calm", corpus)
    real, refused = forward.launch, []

    def small_memory(backbone: Any, windows: Any, *rest: Any, **options: Any) -> Any:
        if sum(len(window.ids) for window in windows) > 90:
            refused.append(len(windows))
            raise torch.OutOfMemoryError("out of memory")
        return real(backbone, windows, *rest, **options)

    monkeypatch.setattr(forward, "launch", small_memory)
    store, count = run(backbone, tmp_path / "tight", corpus)
    assert refused
    assert count == len(corpus)
    for layer, values in read(store, corpus).items():
        assert relative(values, read(expected, corpus)[layer]) <= 0.02


def test_not_finite_in_a_shard_that_is_written_behind_the_model(
    device: str, tmp_path: Path, corpus: list[str]
) -> None:
    backbone = load("llama", tmp_path, device, "bfloat16")
    assert backbone.blocks is not None
    with torch.no_grad():
        list(backbone.blocks[1].parameters())[-1].fill_(torch.inf)
    with pytest.raises(UserError, match=r"backbone llama, layer 2: .*not finite"):
        run(backbone, tmp_path / "store", corpus)


@needs_gpu
def test_weights_go_to_the_gpu_and_the_batch_size_is_found(
    tmp_path: Path, corpus: list[str]
) -> None:
    backbone = load("bert", tmp_path, "cuda")  # in float32 texts are padded, and it is measured
    assert {parameter.device.type for parameter in backbone.model.parameters()} == {"cuda"}
    _, count = run(backbone, tmp_path / "store", corpus, token_budget=None)
    assert count == len(corpus)
    assert (tmp_path / "store" / "calibrations.json").exists()


@pytest.mark.parametrize("device", ["fed", pytest.param("cuda", marks=needs_gpu)], indirect=True)
def test_vectors_that_are_rounded_on_the_device_are_those_that_the_host_rounds(
    device: str, tmp_path: Path, corpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer is too large for float16 in some batches, and arrives as it is."""
    backbone = load("llama", tmp_path, device, "float32")
    assert backbone.blocks is not None
    with torch.no_grad():
        dict(backbone.blocks[1].named_parameters())["mlp.down_proj.weight"].mul_(3e5)
    real, kinds = forward.launch, set()

    def exact(*args: Any, rounded: bool = False) -> Any:
        return real(*args)

    def watched(*args: Any, rounded: bool = False) -> Any:
        flight = real(*args, rounded=rounded)
        kinds.update(values.dtype for values in flight.land().values())
        return flight

    monkeypatch.setattr(forward, "launch", watched)
    store, _ = run(backbone, tmp_path / "rounded", corpus)
    assert kinds == {torch.float16, torch.float32}
    monkeypatch.setattr(forward, "launch", exact)
    expected, _ = run(backbone, tmp_path / "exact", corpus)
    for layer, values in read(expected, corpus).items():
        np.testing.assert_array_equal(read(store, corpus)[layer], values)
    assert store.folder.name == expected.folder.name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rounded", [False, True])
def test_poolings_of_several_widths_land_together(
    device: str, rounded: bool, tmp_path: Path, corpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load("bert", tmp_path, device)
    windows = [
        text.windows[0]
        for text in tokenize(backbone.tokenizer, corpus[:3], BackboneConfig(), LENGTH)
    ]
    width = backbone.shape.width
    made = {
        ("mean", "0"): torch.full((3, width), 0.1, device=device),
        ("quarters", "0"): torch.full((3, 4 * width), 70000.0, device=device),
    }
    monkeypatch.setattr(forward, "_pool_on_device", lambda *_: made)
    landed = forward.launch(backbone, windows, {}, {}, rounded=rounded).land()
    assert {key: values.shape for key, values in landed.items()} == {
        key: values.shape for key, values in made.items()
    }
    assert landed["mean", "0"].dtype == (torch.float16 if rounded else torch.float32)
    assert landed["quarters", "0"].cpu().unique().tolist() == [70000.0]


# -- probes -------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.parametrize("num_classes", [2, 5])
def test_probes_on_a_gpu_say_what_those_on_the_cpu_say(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (300,), generator=generator)
    layers = [torch.randn(300, 20, generator=generator) for _ in range(3)]
    for layer in layers:
        layer[:, 0] += labels
    folds = stratified_folds(labels.numpy(), [str(n) for n in range(300)], 3, seed=0)
    gpu = torch.device("cuda")
    ours = cross_validate(layers, labels, folds, num_classes=num_classes, device=gpu, text_of=None)
    theirs = cross_validate(layers, labels, folds, num_classes=num_classes, text_of=None)
    for one, other in zip(ours, theirs, strict=True):
        assert one.strength == other.strength
        torch.testing.assert_close(one.log_probs, other.log_probs, rtol=1e-2, atol=5e-3)
    fitted = fit_probes(layers, labels, [1.0] * 3, num_classes=num_classes, device=gpu)
    expected = fit_probes(layers, labels, [1.0] * 3, num_classes=num_classes)
    for one, other in zip(fitted, expected, strict=True):
        torch.testing.assert_close(one.weight, other.weight, rtol=1e-2, atol=1e-2)


def test_a_batch_has_as_many_texts_as_their_vectors_have_room() -> None:
    """Short texts of a wide and deep model: their tokens are few, and their vectors are not."""
    layers = {"mean": [str(n) for n in range(33)], "last": ["32"]}
    wide: Any = SimpleNamespace(shape=SimpleNamespace(width=4096))
    narrow: Any = SimpleNamespace(shape=SimpleNamespace(width=384))
    most = groups.most_texts(wide, layers, ExtractConfig())
    assert most * 34 * 4096 * 4 <= groups.POOLED_BYTES < (most + 1) * 34 * 4096 * 4
    assert groups.most_texts(narrow, {"mean": ["6"]}, ExtractConfig()) == 16_384
    assert groups.most_texts(narrow, layers, ExtractConfig(shard_texts=20)) == 20
