"""Scores over a sample against transformers' own outputs, and what is kept of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from layerfusion.config import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings.shape import NORM
from layerfusion.embeddings.source import EmbeddingSource, open_source
from layerfusion.errors import UserError
from layerfusion.layers import backbone_scores
from layerfusion.layers.probe import LinearProbe
from tests import tiny
from tests.tiny import WITH_NORM, tiny_folder

POOLINGS = {"mean": PoolingConfig("mean"), "first": PoolingConfig("first")}
TEXTS = [
    "oil price rose",
    "the film was good and the plot was great and the actor was awful and the story was bad",
    "net",
    "company said profit fell in the year to the bank of trade",
    "bad plot",
    "oil price fell",
]
LABELS = [2, 0, 1, 2, 0, 2]
CPU = ExtractConfig(device="cpu", token_budget=60)
WITH_ATTENTION = (
    "bert",
    "deberta_v2",
    "modernbert",
    "convbert",
    "albert",
    "t5",
    "gpt2",
    "llama",
    "falcon",
)


def sample_attention(*arguments: Any) -> dict[str, np.ndarray]:
    values, seconds = backbone_scores.sample_attention(*arguments)
    assert seconds >= 0
    return values


def sample_gradient(*arguments: Any) -> dict[tuple[str, str], float]:
    values, seconds = backbone_scores.sample_gradient(*arguments)
    assert seconds >= 0
    return values


def head(seed: int) -> LinearProbe:
    generator = torch.Generator().manual_seed(seed)
    return LinearProbe(
        0.1 * torch.randn(3, 32, generator=generator), torch.randn(3, generator=generator)
    )


HEADS = {"mean": head(0), "first": head(1)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = (*WITH_ATTENTION, "fnet")
    return {name: tiny_folder(name, tmp_path_factory.mktemp(name)) for name in names}


def opened(
    folder: Path, cache: Path, poolings: dict[str, PoolingConfig] = POOLINGS, **settings: Any
) -> EmbeddingSource:
    config = BackboneConfig(path=str(folder), **settings)
    return open_source("tiny", config, poolings, cache)


def token_ids(folder: Path, text: str) -> Tensor:
    return torch.tensor([transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"]])


def plain_model(folder: Path, **settings: Any) -> Any:
    model = transformers.AutoModel.from_pretrained(folder, **settings)
    return (model.get_encoder() if model.config.is_encoder_decoder else model).eval()


def forbid_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(backbone_scores, "load_backbone", refuse)


def kept_files(cache: Path) -> list[Path]:
    return sorted((cache / "scores").glob("*"))


# -- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", WITH_ATTENTION)
def test_attention_is_the_mean_over_texts_each_alone(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model = plain_model(folders[family], attn_implementation="eager")
    values: dict[str, list[list[float]]] = {}
    for text in TEXTS:
        ids = token_ids(folders[family], text)
        with torch.no_grad():
            found = model(input_ids=ids, output_attentions=True).attentions
        for number, block in enumerate(found, 1):
            n = ids.shape[1]
            heads = [
                float(np.mean([-sum(p * math.log(p) for p in row if p > 0) for row in head]))
                for head in block[0].double().tolist()
            ]
            values.setdefault(str(number), []).append([head / math.log(n) for head in heads])
    found = sample_attention(opened(folders[family], tmp_path), TEXTS, CPU)
    assert list(found) == ["1", "2", "3"]
    for layer, heads in found.items():
        assert heads.dtype == np.float64
        np.testing.assert_allclose(heads, np.mean(values[layer], axis=0), rtol=1e-5)


def gradients_of(model: Any, last_block: Any, ids: Tensor, label: int) -> dict[Any, float]:
    """By autograd on transformers' own hidden states, the inputs being given as embeddings."""
    before: list[Any] = []
    if last_block is not None:
        last_block.register_forward_hook(lambda _m, _a, output: before.append(output))
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    output = model(inputs_embeds=embedded, output_hidden_states=True)
    states = dict(zip(map(str, range(4)), output.hidden_states, strict=True))
    if last_block is not None:
        block = before[0] if isinstance(before[0], Tensor) else before[0][0]
        states |= {"3": block, NORM: output[0]}
    pooled = {"mean": output[0][0].mean(dim=0), "first": output[0][0, 0]}
    found = {}
    for name, vector in pooled.items():
        logits = HEADS[name].weight @ vector + HEADS[name].bias
        loss = -logits.log_softmax(dim=0)[label]
        grads = torch.autograd.grad(loss, list(states.values()), retain_graph=True)
        for (layer, state), grad in zip(states.items(), grads, strict=True):
            found[name, layer] = float((grad * state.detach()).abs().sum())
    return found


@pytest.mark.parametrize(
    ("family", "blocks"),
    [
        ("bert", None),
        ("albert", None),
        ("deberta_v2", None),
        ("modernbert", "layers"),
        ("t5", "block"),
        ("gpt2", "h"),
        ("llama", "layers"),
    ],
)
def test_gradient_is_the_mean_over_texts_each_alone(
    family: str, blocks: str | None, folders: dict[str, Path], tmp_path: Path
) -> None:
    assert (blocks is not None) == (family in WITH_NORM)
    total: dict[Any, float] = {}
    for text, label in zip(TEXTS, LABELS, strict=True):
        model = plain_model(folders[family]).requires_grad_(False)
        last = getattr(model, blocks)[-1] if blocks else None
        for key, value in gradients_of(
            model, last, token_ids(folders[family], text), label
        ).items():
            total[key] = total.get(key, 0.0) + value / len(TEXTS)
    found = sample_gradient(opened(folders[family], tmp_path), TEXTS, LABELS, HEADS, CPU)
    assert list(found) == list(total)
    for key, value in found.items():
        assert value == pytest.approx(total[key], rel=1e-4), key


@pytest.mark.parametrize("family", ["bert", "gpt2", "fnet", "convbert"])
def test_batches_change_nothing(family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    found = []
    for budget in (1, 30, 10_000, None):
        options = ExtractConfig(device="cpu", token_budget=budget)
        source = opened(folders[family], tmp_path / str(budget))
        values = dict(sample_gradient(source, TEXTS, LABELS, HEADS, options))
        if family != "fnet":
            for layer, heads in sample_attention(source, TEXTS, options).items():
                values |= {(layer, str(n)): value for n, value in enumerate(heads)}
        found.append(values)
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-4)


def test_a_text_of_one_token_has_no_attention_to_count(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """gpt2's tokens are bytes here."""
    source = opened(folders["gpt2"], tmp_path)
    found = sample_attention(source, ["a", *TEXTS, "b"], CPU)
    for layer, heads in sample_attention(source, TEXTS, CPU).items():
        np.testing.assert_allclose(found[layer], heads, rtol=1e-6)
    with pytest.raises(UserError, match=r"^attention_entropy: no text of the sample has two token"):
        sample_attention(source, ["a", "b"], CPU)


def test_long_texts_are_truncated_even_where_embeddings_read_windows(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    long = [" ".join([text] * 4) for text in TEXTS]
    cut = opened(folders["bert"], tmp_path / "cut", max_length=8)
    windows = {"long_texts": "windows", "window_overlap": 3}
    read = opened(folders["bert"], tmp_path / "windows", max_length=8, **windows)
    attention = [sample_attention(source, long, CPU) for source in (cut, read)]
    gradient = [sample_gradient(source, long, LABELS, HEADS, CPU) for source in (cut, read)]
    assert gradient[0] == gradient[1]
    for layer, heads in attention[0].items():
        np.testing.assert_array_equal(heads, attention[1][layer])
    names = [[path.name for path in kept_files(tmp_path / cache)] for cache in ("cut", "windows")]
    assert names[0] == names[1]
    assert len(names[0]) == 2


def test_the_attention_of_a_batch_stays_within_its_memory(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sample_attention(opened(folders["bert"], tmp_path / "a"), TEXTS, CPU)
    shapes: list[tuple[int, ...]] = []
    plain = backbone_scores.attention_entropy

    def watch(weights: Tensor, lengths: Tensor) -> Tensor:
        shapes.append(tuple(weights.shape))
        return plain(weights, lengths)

    cells = 2 * 3 * 4 * 21 * 21  # two of the longest texts: blocks, heads, pairs of 21 tokens
    monkeypatch.setattr(backbone_scores, "attention_entropy", watch)
    monkeypatch.setattr(backbone_scores, "ATTENTION_CELLS", cells)
    options = ExtractConfig(device="cpu", token_budget=10_000)
    found = sample_attention(opened(folders["bert"], tmp_path / "b"), TEXTS, options)
    assert max(3 * math.prod(shape) for shape in shapes) <= cells
    assert max(shape[0] for shape in shapes) > 1
    for layer, heads in found.items():
        np.testing.assert_allclose(heads, expected[layer], rtol=1e-5)


def test_batches_that_do_not_fit_are_halved(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sample_gradient(opened(folders["bert"], tmp_path / "a"), TEXTS, LABELS, HEADS, CPU)
    plain = backbone_scores.gradient_times_activation
    most = 2

    def small(backbone: Any, batch: Any, *rest: Any) -> Any:
        if len(batch.input_ids) > most:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")
        return plain(backbone, batch, *rest)

    monkeypatch.setattr(backbone_scores, "gradient_times_activation", small)
    options = ExtractConfig(device="cpu", token_budget=10_000)
    source = opened(folders["bert"], tmp_path / "b")
    assert sample_gradient(source, TEXTS, LABELS, HEADS, options) == pytest.approx(
        expected, rel=1e-4
    )
    most = 0
    with pytest.raises(UserError, match=r"^gradient: .*for one text of 21 tokens on cpu; lower"):
        sample_gradient(source, TEXTS[:3], LABELS[:3], HEADS, options)


# -- keeping ------------------------------------------------------------------------------------


def test_what_is_kept_needs_no_model(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(folders["modernbert"], tmp_path)
    attention = sample_attention(source, TEXTS, CPU)
    gradient = sample_gradient(source, TEXTS, LABELS, HEADS, CPU)
    forbid_the_model(monkeypatch)
    again = opened(folders["modernbert"], tmp_path)
    other = replace(CPU, token_budget=7)
    kept = sample_attention(again, TEXTS, other)
    assert list(kept) == list(attention)
    for layer, heads in kept.items():
        assert heads.dtype == np.float64
        np.testing.assert_array_equal(heads, attention[layer])
    labels = np.array(LABELS)  # any integers will do
    found = sample_gradient(again, TEXTS, labels, HEADS, other)  # type: ignore[arg-type]
    assert list(found.items()) == list(gradient.items())
    # A pooling of the embeddings changes no attention.
    pooled = opened(folders["modernbert"], tmp_path, {"max": PoolingConfig("max")})
    assert list(sample_attention(pooled, TEXTS, CPU)) == list(attention)


def test_whatever_changes_a_value_changes_its_address(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    source = opened(folders["bert"], tmp_path)
    moved = replace(HEADS["mean"], bias=HEADS["mean"].bias + torch.tensor([0.0, 1e-3, 0.0]))
    calls: list[tuple[EmbeddingSource, list[str], list[int], dict[str, LinearProbe]]] = [
        (source, TEXTS, LABELS, HEADS),
        (source, TEXTS[::-1], LABELS[::-1], HEADS),
        (source, TEXTS[:-1], LABELS[:-1], HEADS),
        (source, TEXTS, [0, *LABELS[1:]], HEADS),
        (source, TEXTS, LABELS, {"mean": HEADS["mean"]}),
        (source, TEXTS, LABELS, {**HEADS, "mean": moved}),
        (opened(folders["bert"], tmp_path, template="it was {text}"), TEXTS, LABELS, HEADS),
        (opened(folders["bert"], tmp_path, max_length=5), TEXTS, LABELS, HEADS),
        (opened(folders["bert"], tmp_path, dtype="bfloat16"), TEXTS, LABELS, HEADS),
        (
            opened(folders["bert"], tmp_path, {**POOLINGS, "first": PoolingConfig("last")}),
            *(TEXTS, LABELS, HEADS),
        ),
        (opened(folders["albert"], tmp_path), TEXTS, LABELS, HEADS),
    ]
    for count, (where, texts, labels, heads) in enumerate(calls, 1):
        for _ in range(2):
            sample_gradient(where, texts, labels, heads, CPU)
            assert len(kept_files(tmp_path)) == count
    for where, texts, labels, heads in calls:
        sample_gradient(where, texts, labels, heads, CPU)
    assert len(kept_files(tmp_path)) == len(calls)
    sample_attention(source, TEXTS, CPU)
    assert len(kept_files(tmp_path)) == len(calls) + 1


def test_a_damaged_file_is_computed_again(folders: dict[str, Path], tmp_path: Path) -> None:
    source = opened(folders["bert"], tmp_path)
    expected = sample_gradient(source, TEXTS, LABELS, HEADS, CPU)
    (path,) = kept_files(tmp_path)
    whole = path.read_text()
    values = json.loads(whole)["values"]
    digit = whole.replace(str(values["mean"]["0"]), "1.5")
    assert digit != whole
    for damaged in ("", whole[:-40], digit, "[]", "null", '{"values": {}}', "\x00" * 80):
        path.write_text(damaged)
        assert sample_gradient(source, TEXTS, LABELS, HEADS, CPU) == expected
        again = json.loads(path.read_text())
        assert (again["values"], again["sha256"]) == (values, json.loads(whole)["sha256"])
    path.write_bytes(b"\xff\xfe" + whole.encode())
    assert sample_gradient(source, TEXTS, LABELS, HEADS, CPU) == expected


# -- errors -------------------------------------------------------------------------------------


CHOOSE = "choose layers.score=probe, gradient or logme"


def test_a_model_without_attention_says_so(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        sample_attention(opened(folders["fnet"], tmp_path), TEXTS, CPU)
    assert str(error.value) == (
        f"attention_entropy: backbone tiny gives no attention weights (FNetModel); {CHOOSE}"
    )
    assert not kept_files(tmp_path)
    assert len(sample_gradient(opened(folders["fnet"], tmp_path), TEXTS, LABELS, HEADS, CPU)) == 8


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        (
            "Mamba",
            {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 4},
            "gives no attention weights",
        ),
        (
            "Longformer",
            {**tiny.SIZES, "attention_window": 4},
            "gives attention weights of shape (2, 4, 21, 5), not one a pair of 21 tokens",
        ),
        (
            "Lfm2",
            {
                **{k: v for k, v in tiny.GROUPED.items() if k != "head_dim"},
                "layer_types": ["conv", "full_attention", "conv"],
            },
            "gives attention weights in 1 of 3 blocks",
        ),
    ],
)
def test_attention_of_another_kind_is_refused(
    name: str,
    settings: dict[str, Any],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(tiny.CONFIGS, name, (f"{name}Config", settings))
    source = opened(tiny_folder(name, tmp_path / "model"), tmp_path)
    options = ExtractConfig(device="cpu", token_budget=42)
    with pytest.raises(UserError) as error:
        sample_attention(source, TEXTS, options)
    assert str(error.value) == (
        f"attention_entropy: backbone tiny {reason} ({name}Model); {CHOOSE}"
    )


def test_a_value_that_is_not_finite_names_model_and_layer(tmp_path: Path) -> None:
    folder = tiny_folder("albert", tmp_path / "model")
    model = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        model.encoder.albert_layer_groups[0].albert_layers[0].ffn.bias[0] = torch.nan
    model.save_pretrained(folder)
    source = opened(folder, tmp_path)
    reason = r"a value that is not finite; try backbone\.tiny\.dtype=float32$"
    with pytest.raises(UserError, match=rf"^attention_entropy: backbone tiny, layer 2: {reason}"):
        sample_attention(source, TEXTS, CPU)
    with pytest.raises(UserError, match=rf"^gradient: backbone tiny, layer 0: {reason}"):
        sample_gradient(source, TEXTS, LABELS, HEADS, CPU)
    assert not kept_files(tmp_path)


def test_no_texts_are_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    source = opened(folders["bert"], tmp_path)
    with pytest.raises(UserError, match=r"^backbone tiny: there is no text to score its layers"):
        sample_gradient(source, [], [], HEADS, CPU)
    with pytest.raises(UserError, match=r"^backbone tiny: there is no text to score its layers"):
        sample_attention(source, [], CPU)
