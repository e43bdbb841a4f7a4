"""The contracts of the tap, on tiny random models of every family."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from layerfusion import embed
from layerfusion.assets.models import is_causal
from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.backbone_loading import empty_shape, load_backbone
from layerfusion.embeddings.cache_key import backbone_spec, text_hash
from layerfusion.embeddings.extract import extract
from layerfusion.embeddings.forward import pool_layers
from layerfusion.embeddings.shape import NORM
from layerfusion.embeddings.source import open_source
from layerfusion.embeddings.store import EmbeddingStore
from layerfusion.embeddings.taps import find_layers
from layerfusion.embeddings.tokens import collate, tokenize
from layerfusion.errors import UserError
from tests.tiny import (
    CONFIGS,
    NO_BLOCKS,
    PROJECTED,
    SIZES,
    WITH_NORM,
    WORDS,
    tiny_folder,
    tiny_tokenizer,
)

UNMASKED = ("fnet", "convbert")
"""They mix positions without heeding the mask: extraction never pads them."""
FAMILIES = tuple(CONFIGS)
POOLINGS = {
    "mean": PoolingConfig("mean"),
    "first": PoolingConfig("first"),
    "last": PoolingConfig("last"),
    "max": PoolingConfig("max"),
    "rest": PoolingConfig("mean", skip_first=True),
}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS, size)) for size in (1, 2, 5, 9, 17, 30)]


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tiny_folder(request.param, tmp_path_factory.mktemp(request.param))
    return load_backbone(request.param, folder, BackboneConfig(), "cpu")


def vectors(
    backbone: Backbone, texts: list[str], layers: tuple[str, ...] | None = None
) -> dict[tuple[str, str], np.ndarray]:
    tokens = tokenize(backbone.tokenizer, texts, BackboneConfig(), backbone.shape.max_length)
    batch = collate([text.windows[0] for text in tokens], backbone.pad_id)
    wanted = dict.fromkeys(POOLINGS, layers or backbone.shape.layers)
    pooled = pool_layers(backbone, batch, wanted, POOLINGS)
    return {key: value.numpy() for key, value in pooled.items()}


def reference(backbone: Backbone, text: str) -> tuple[list[np.ndarray], np.ndarray]:
    """The model's own hidden states of one text alone, and what its last block returns."""
    ids = torch.tensor([backbone.tokenizer(text)["input_ids"]])
    before: list[torch.Tensor] = []
    handle = None
    if backbone.blocks is not None:
        handle = backbone.blocks[-1].register_forward_hook(
            lambda _module, _args, output: before.append(
                output if isinstance(output, torch.Tensor) else output[0]
            )
        )
    with torch.no_grad():
        states = backbone.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
        ).hidden_states
    if handle is not None:
        handle.remove()
    last = before[-1] if before else states[-1]
    return [state[0].double().numpy() for state in states], last[0].double().numpy()


def pooled_by_hand(hidden: np.ndarray, name: str) -> np.ndarray:
    if name == "first":
        return hidden[0]
    if name == "last":
        return hidden[-1]
    if name == "max":
        return np.array([max(column) for column in hidden.T])
    if name == "rest" and len(hidden) > 1:
        hidden = hidden[1:]
    return np.array([sum(column) / len(hidden) for column in hidden.T])


def assert_close(actual: np.ndarray, expected: np.ndarray, relative: float = 1e-5) -> None:
    difference = np.linalg.norm(actual - expected, axis=-1)
    assert (difference <= relative * np.linalg.norm(expected, axis=-1) + 1e-12).all()


def test_every_tapped_layer_is_the_models_own_hidden_state(
    backbone: Backbone, texts: list[str]
) -> None:
    for text in texts:
        states, last = reference(backbone, text)
        found = vectors(backbone, [text])
        expected = dict(zip(map(str, range(len(states))), states, strict=True))
        expected[str(len(states) - 1)] = last
        if NORM in backbone.shape.layers:
            expected[NORM] = states[-1]
        assert set(expected) == set(backbone.shape.layers)
        for (pooling, layer), vector in found.items():
            assert_close(vector[0], pooled_by_hand(expected[layer], pooling))


def test_norm_is_a_layer_exactly_where_the_model_ends_in_one(backbone: Backbone) -> None:
    assert (NORM in backbone.shape.layers) == (backbone.name in WITH_NORM)
    assert backbone.shape.num_blocks == 3
    assert (backbone.blocks is None) == (backbone.name in NO_BLOCKS)


def test_a_projection_after_the_last_block_is_no_layer(
    texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in (False, True):
        settings = {**PROJECTED, "do_layer_norm_before": first}
        monkeypatch.setitem(CONFIGS, "opt", ("OPTConfig", settings))
        folder = tiny_folder("opt", tmp_path / str(first))
        backbone = load_backbone("opt", folder, BackboneConfig(), "cpu")
        assert backbone.shape.layers == ("0", "1", "2", "3")
        assert backbone.blocks is not None
        widths = {vector.shape[1] for vector in vectors(backbone, texts).values()}
        assert widths == {backbone.shape.width} == {32}


def test_the_last_layer_is_named_after_a_pass_where_only_that_tells_it(
    texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGS, "roformer", ("RoFormerConfig", {**SIZES, "embedding_size": 32}))
    folder, cache = tiny_folder("roformer", tmp_path / "roformer"), tmp_path / "cache"
    assert NORM in empty_shape("m", folder, BackboneConfig()).layers
    last = embed(texts, folder, cache=cache)
    every = embed(texts, folder, "all", cache=cache)
    assert list(every) == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(last, every["3"])


def test_a_model_that_counts_from_the_first_output_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8}
    monkeypatch.setitem(CONFIGS, "mamba", ("MambaConfig", settings))
    with caplog.at_level("INFO", "layerfusion"):
        load_backbone("m", tiny_folder("mamba", tmp_path / "mamba"), BackboneConfig(), "cpu")
        load_backbone("m", tiny_folder("xlm", tmp_path / "xlm"), BackboneConfig(), "cpu")
    said = [line for line in caplog.messages if "layers" in line]
    assert said == [
        "m: MambaModel counts its layers from what leaves the first block: layer i leaves block"
        " i + 1 here, and layer 3 is its last state",
        "m: its layers are not a list of blocks, so a pass keeps all hidden states",
    ]


UNTRACED = ("convbert",)
"""It looks at values on its way: whether it ends in a norm shows only when it runs."""


def test_a_shape_without_weights_is_that_of_the_loaded_model(
    backbone: Backbone, tmp_path: Path
) -> None:
    folder = tiny_folder(backbone.name, tmp_path)
    empty = empty_shape(backbone.name, folder, BackboneConfig())
    if backbone.name in UNTRACED:
        assert empty.layers == (*backbone.shape.layers, NORM)
        empty = replace(empty, layers=backbone.shape.layers)
    assert empty == backbone.shape


def test_a_length_without_weights_is_the_tokenizers_where_that_is_less(tmp_path: Path) -> None:
    folder = tiny_folder("bert", tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 50}))
    assert load_backbone("bert", folder, BackboneConfig(), "cpu").shape.max_length == 50
    assert empty_shape("bert", folder, BackboneConfig()).max_length == 50


def extracted(backbone: Backbone, texts: list[str], root: Path) -> dict[str, np.ndarray]:
    """What a user gets: through batches and the store, in float32."""
    config = BackboneConfig()
    spec = backbone_spec(
        config, POOLINGS["mean"], model=backbone.name, folder=root, store_dtype="float32"
    )
    store = EmbeddingStore(root, spec)
    extract(
        backbone,
        {"mean": store},
        {"mean": POOLINGS["mean"]},
        texts,
        config=config,
        options=ExtractConfig(token_budget=400),
        calibrations=root / "calibrations.json",
    )
    return store.read([text_hash(text) for text in texts], backbone.shape.layers)


def test_a_text_does_not_depend_on_its_neighbours(
    backbone: Backbone, texts: list[str], tmp_path: Path
) -> None:
    together = extracted(backbone, texts, tmp_path / "together")
    for row, text in enumerate(texts):
        for layer, vector in extracted(backbone, [text], tmp_path / str(row)).items():
            assert_close(together[layer][row], vector[0])


def test_every_pooling_ignores_padding(backbone: Backbone, texts: list[str]) -> None:
    assert backbone.masks_padding == (backbone.name not in UNMASKED)
    if not backbone.masks_padding:
        return
    together = vectors(backbone, texts)
    for row, text in enumerate(texts):
        for key, vector in vectors(backbone, [text]).items():
            assert_close(together[key][row], vector[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokenizers_side_of_padding_changes_nothing(
    family: str, texts: list[str], tmp_path: Path
) -> None:
    sides = []
    for side in ("left", "right"):
        folder = tiny_folder(family, tmp_path / side, padding_side=side)
        sides.append(vectors(load_backbone(family, folder, BackboneConfig(), "cpu"), texts))
    for key, vector in sides[0].items():
        assert_close(vector, sides[1][key])


def test_cutting_the_model_changes_nothing_below(backbone: Backbone, texts: list[str]) -> None:
    whole = vectors(backbone, texts)
    for top in backbone.shape.layers:
        kept = backbone.shape.layers[: backbone.shape.layers.index(top) + 1]
        ran: list[int] = []
        handles = [
            block.register_forward_hook(lambda *_, number=number, ran=ran: ran.append(number))
            for number, block in enumerate(backbone.blocks or ())
        ]
        cut = vectors(backbone, texts, kept)
        for handle in handles:
            handle.remove()
        assert set(cut) == {(pooling, layer) for pooling in POOLINGS for layer in kept}
        for key, vector in cut.items():
            np.testing.assert_array_equal(vector, whole[key])
        if backbone.blocks is not None:
            assert ran == list(range(backbone.shape.blocks_below(top)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_causal_model_is_one_whose_first_token_sees_no_other(family: str, tmp_path: Path) -> None:
    folder = tiny_folder(family, tmp_path / family)
    backbone = load_backbone(family, folder, BackboneConfig(), "cpu")
    one, other = (" ".join(words) for words in (WORDS[:4], [WORDS[0], *WORDS[6:9]]))
    found = vectors(backbone, [one, other])
    first = found["first", backbone.shape.layers[-1]]
    assert is_causal(folder) == np.allclose(first[0], first[1], atol=1e-6)


def test_the_first_token_of_a_causal_model_is_taken_only_where_it_is_asked_for_alone(
    tmp_path: Path,
) -> None:
    for family, causal in (("llama", True), ("bert", False)):
        config = BackboneConfig(path=str(tiny_folder(family, tmp_path / family)))
        for names in (["mean", "first"], ["first"], ["last", "mean"]):
            source = open_source(family, config, {x: POOLINGS[x] for x in names}, tmp_path)
            left_out = causal and len(names) > 1
            assert list(source.stores) == [x for x in names if not (left_out and x == "first")]


def test_a_missing_pad_token_is_never_added(backbone: Backbone) -> None:
    rows = backbone.model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    assert rows == 300
    assert 0 <= backbone.pad_id < rows


def test_parameters_and_flops_count_the_blocks_below(backbone: Backbone) -> None:
    shape = backbone.shape
    total = sum(parameter.numel() for parameter in backbone.model.parameters())
    assert shape.parameters(shape.layers[-1]) <= total
    per_layer = [shape.flops(layer, [7, 3]) for layer in shape.layers if layer != NORM]
    if backbone.blocks is None:  # its pass cannot end at a layer
        assert per_layer[0] > 0
        assert len(set(per_layer)) == 1
        return
    assert per_layer[0] == 0
    steps = np.diff(per_layer)
    assert (steps > 0).all()
    matrices = [m for m in backbone.blocks[0].modules() if isinstance(m, torch.nn.Linear)]
    linear = sum(m.weight.numel() for m in matrices)
    if linear:
        assert steps[0] >= 2 * linear * 10


def test_roberta_gets_as_many_tokens_as_it_has_positions(tmp_path: Path) -> None:
    folder = tiny_folder("roberta", tmp_path)
    backbone = load_backbone("roberta", folder, BackboneConfig(), "cpu")
    assert backbone.shape.max_length == 200 - 2  # its table starts after the padding index 1
    found = vectors(backbone, [" ".join(["oil"] * 400)])
    assert all(np.isfinite(vector).all() for vector in found.values())


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("CanineConfig", {}, "gives (1, 1, 32) numbers for 4 tokens; a layer needs a vector for"),
        ("PegasusXConfig", {"encoder_layers": 3}, "numbers for 4 tokens; a layer needs a vector"),
    ],
)
def test_states_that_are_no_vector_for_each_token_are_refused(
    kind: str, settings: dict[str, int], message: str
) -> None:
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "d_model": 32,
             "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48,
             "decoder_ffn_dim": 48, "num_hidden_layers": 3, "decoder_layers": 1, "vocab_size": 300,
             "max_position_embeddings": 600}  # fmt: skip
    config = getattr(transformers, kind)(**{**sizes, **settings})
    model = transformers.AutoModel.from_config(config).eval()
    part = model.get_encoder() if kind == "PegasusXConfig" else model
    with pytest.raises(UserError, match=re.escape(message)):
        find_layers("tiny", part, torch.device("cpu"))


def test_an_encoder_that_is_no_model_by_itself_is_refused(tmp_path: Path) -> None:
    sizes = {"d_model": 32, "encoder_layers": 3, "decoder_layers": 1, "encoder_ffn_dim": 48,
             "encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_ffn_dim": 48,
             "src_vocab_size": 300, "tgt_vocab_size": 300, "langs": ["en", "de"]}  # fmt: skip
    model = transformers.AutoModel.from_config(transformers.FSMTConfig(**sizes))
    model.save_pretrained(tmp_path)
    tiny_tokenizer(decoder=False).save_pretrained(tmp_path)
    for load in (load_backbone, empty_shape):
        more = ("cpu",) if load is load_backbone else ()
        with pytest.raises(UserError, match=r"no model by itself \(FSMTEncoder\)"):
            load("tiny", tmp_path, BackboneConfig(), *more)


def test_a_quantized_model_that_fails_is_said_to_be_one(
    bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = transformers.AutoModel.from_pretrained(bert_folder)
    model.config.quantization_config = {"quant_method": "bitsandbytes"}

    def fail(*_args: object, **_kwargs: object) -> None:
        raise AttributeError("no attribute 'CB'")

    monkeypatch.setattr(model, "forward", fail)
    with pytest.raises(UserError, match=r"cannot run on cpu as config.json quantizes it"):
        find_layers("tiny", model, torch.device("cpu"))
