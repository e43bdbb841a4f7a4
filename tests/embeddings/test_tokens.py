from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings import tokens
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.cache_key import backbone_spec, text_hash
from layerfusion.embeddings.extract import extract
from layerfusion.embeddings.store import EmbeddingStore
from layerfusion.embeddings.tokens import UnknownTally, batches, collate, tokenize
from layerfusion.errors import UserError

WINDOWS = {"long_texts": "windows", "window_overlap": 3, "max_length": 10}


@pytest.fixture(scope="module")
def bert(bert_folder: Path) -> Backbone:
    return load_backbone("bert", bert_folder, BackboneConfig(), "cpu")


def vectors_of(
    backbone: Backbone, texts: list[str], config: BackboneConfig, pool: PoolingConfig, root: Path
) -> dict[str, np.ndarray]:
    spec = backbone_spec(config, pool, model=str(config), folder=root, store_dtype="float32")
    store = EmbeddingStore(root, spec)
    limited = Backbone(
        **{
            **backbone.__dict__,
            "shape": type(backbone.shape)(
                **{**backbone.shape.__dict__, "max_length": config.max_length or 200}
            ),
        }
    )
    extract(
        limited,
        {"pool": store},
        {"pool": pool},
        texts,
        config=config,
        options=ExtractConfig(token_budget=64),
        calibrations=root / "calibrations.json",
    )
    return store.read([text_hash(text) for text in texts], backbone.shape.layers)


@given(lengths=st.lists(st.integers(1, 300), max_size=60), budget=st.integers(1, 600))
def test_batches_hold_every_row_once_longest_first_within_the_budget(
    lengths: list[int], budget: int
) -> None:
    made = list(batches(lengths, budget))
    assert sorted(row for batch in made for row in batch) == list(range(len(lengths)))
    order = [lengths[row] for batch in made for row in batch]
    assert order == sorted(order, reverse=True)
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget


@given(
    lengths=st.lists(st.integers(1, 300), max_size=60),
    budget=st.integers(1, 2000),
    most=st.integers(0, 200),
)
def test_a_batch_ends_where_its_padding_costs_more_than_another_batch(
    lengths: list[int], budget: int, most: int
) -> None:
    made = [[lengths[row] for row in rows] for rows in batches(lengths, budget, most_padding=most)]
    assert [length for batch in made for length in batch] == sorted(lengths, reverse=True)
    for batch, after in zip(made, [*made[1:], None], strict=False):
        assert len(batch) * batch[0] - sum(batch) <= most
        if after is not None:  # one row more would be too many
            more = (len(batch) + 1) * batch[0]
            assert more > budget or more - sum(batch) - after[0] > most


def test_the_mask_comes_from_lengths_not_from_the_pad_id(bert: Backbone) -> None:
    tokens = tokenize(bert.tokenizer, ["oil <pad> oil", "oil"], BackboneConfig(), 50)
    batch = collate([text.windows[0] for text in tokens], pad_id=1)
    assert batch.attention_mask.sum(dim=1).tolist() == [len(t.windows[0].ids) for t in tokens]


def test_truncation_counts_what_it_cuts_on_either_side(bert: Backbone) -> None:
    text = "oil ship wheat rate bank"
    for side, kept in (("right", ["oil", "ship", "wheat"]), ("left", ["wheat", "rate", "bank"])):
        config = BackboneConfig(truncation_side=side)
        (found,) = tokenize(bert.tokenizer, [text], config, 5)
        words = bert.tokenizer.convert_ids_to_tokens(found.windows[0].ids.tolist())
        assert words == ["<s>", *kept, "</s>"]
        assert (found.seen, found.cut) == (5, 2)


def test_the_template_goes_around_the_text(bert: Backbone) -> None:
    config = BackboneConfig(template="film was {text} good")
    (found,) = tokenize(bert.tokenizer, ["oil {text}"], config, 50)
    (plain,) = tokenize(bert.tokenizer, ["film was oil {text} good"], BackboneConfig(), 50)
    np.testing.assert_array_equal(found.windows[0].ids, plain.windows[0].ids)


@pytest.mark.parametrize("words", [1, 7, 8, 9, 13, 14, 40])
def test_windows_pool_every_token_of_a_text_once(bert: Backbone, words: int) -> None:
    text = " ".join(["oil", "ship", "wheat", "rate"] * 10).split()[:words]
    config = BackboneConfig(**WINDOWS)
    (found,) = tokenize(bert.tokenizer, [" ".join(text)], config, 10)
    pooled = [
        token
        for window in found.windows
        for token in bert.tokenizer.convert_ids_to_tokens(
            window.ids[window.start : window.stop].tolist()
        )
    ]
    assert pooled == ["<s>", *text, "</s>"]
    assert found.seen == len(pooled)
    assert found.cut == 0
    for window in found.windows[1:]:
        assert window.start == 1 + 3  # <s> and the overlap are context
    assert all(len(window.ids) <= 10 for window in found.windows)


@pytest.mark.parametrize("pool", ["mean", "first", "last", "max", "rest"])
def test_windows_of_a_short_text_equal_truncation(
    bert: Backbone, tmp_path: Path, pool: str
) -> None:
    how = PoolingConfig("mean", skip_first=True) if pool == "rest" else PoolingConfig(pool)
    texts = ["oil ship", "wheat", "rate bank good bad film plot"]
    cut = vectors_of(bert, texts, BackboneConfig(max_length=10), how, tmp_path)
    windows = vectors_of(bert, texts, BackboneConfig(**WINDOWS), how, tmp_path)
    for layer, expected in cut.items():
        np.testing.assert_allclose(windows[layer], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("pool", ["mean", "first", "last", "max", "rest"])
def test_windows_of_a_long_text_pool_all_its_tokens(
    bert: Backbone, tmp_path: Path, pool: str
) -> None:
    """Layer 0 of a model whose positions are switched off sees no context: pooling is exact."""
    bert.model.embeddings.position_embeddings.weight.zero_()  # type: ignore[union-attr, operator]
    how = PoolingConfig("mean", skip_first=True) if pool == "rest" else PoolingConfig(pool)
    text = " ".join(["oil", "ship", "wheat", "rate", "bank"] * 6)
    whole = vectors_of(bert, [text], BackboneConfig(max_length=200), how, tmp_path)
    windows = vectors_of(bert, [text, "oil"], BackboneConfig(**WINDOWS), how, tmp_path)
    np.testing.assert_allclose(windows["0"][0], whole["0"][0], rtol=1e-5, atol=1e-6)


def test_an_overlap_that_fills_the_window_is_refused(bert: Backbone) -> None:
    config = BackboneConfig(long_texts="windows", window_overlap=8, max_length=10)
    with pytest.raises(UserError, match="overlap of at most 7"):
        tokenize(bert.tokenizer, ["oil"], config, 10)


def test_a_text_without_tokens_is_named(llama_folder: Path) -> None:
    llama = load_backbone("llama", llama_folder, BackboneConfig(), "cpu")
    with pytest.raises(UserError, match="no token of the text ''"):
        tokenize(llama.tokenizer, ["fine", ""], BackboneConfig(), 10)


# -- unknown tokens -----------------------------------------------------------------------------


def counted(core: Tokenizer, text: str, **settings: Any) -> tuple[int, int]:
    """The tokens of a text itself, and those of them that are unknown."""
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core)
    (found,) = tokenize(tokenizer, [text], BackboneConfig(**settings), 50)
    return found.own, found.unknown


def words(unknown: str = "<unk>") -> Tokenizer:
    core = Tokenizer(models.WordLevel({unknown: 0, "oil": 1, "film": 2}, unk_token=unknown))
    core.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    return core


def test_unknown_words_are_counted_though_transformers_is_told_no_unknown_token() -> None:
    assert counted(words(), "oil ship wheat film") == (4, 2)
    assert counted(words("[UNK]"), "oil ship") == (2, 1)


def test_special_tokens_and_the_template_are_no_tokens_of_the_text(bert: Backbone) -> None:
    assert counted(words(), "ship oil", template="film film: {text}") == (2, 1)
    (found,) = tokenize(bert.tokenizer, ["oil ship nothing"], BackboneConfig(), 50)
    assert (found.seen, found.own, found.unknown) == (5, 3, 1)


def test_spaces_of_sentencepiece_are_not_known_words() -> None:
    vocabulary = [("<unk>", 0.0), ("▁", -2.0), ("▁oil", -1.0)]
    core = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    core.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    (found,) = tokenize(tokenizer, ["oil Ж Ю"], BackboneConfig(), 50)
    assert (found.own, found.unknown) == (3, 2)


def test_bytes_know_every_text(llama_folder: Path) -> None:
    llama = load_backbone("llama", llama_folder, BackboneConfig(), "cpu")
    assert [text.unknown for text in llama.tokenize(["東京 Ж", "oil"], BackboneConfig())] == [0, 0]


def test_letters_that_a_tokenizer_drops_are_counted() -> None:
    core = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    core.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    assert counted(core, "ab xyz") == (5, 3)


def test_a_tokenizer_that_takes_only_what_it_knows_is_used_while_it_does() -> None:
    core = Tokenizer(models.WordPiece({"oil": 0}, unk_token="[UNK]"))
    assert counted(core, "oil") == (1, 0)
    with pytest.raises(UserError, match="fails at the text 'ship': WordPiece error: Missing"):
        counted(core, "ship")


@pytest.mark.parametrize("windows", [False, True])
def test_long_texts_are_counted_in_every_window(windows: bool) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words())
    how = BackboneConfig(long_texts="windows", window_overlap=0) if windows else BackboneConfig()
    (found,) = tokenize(tokenizer, ["oil ship " * 10], how, 8)
    assert (found.own, found.unknown) == ((20, 10) if windows else (8, 4))


def test_a_few_unknown_texts_beside_known_ones_are_not_refused() -> None:
    tally = UnknownTally("tiny").add([90], [0])
    tally.add([10], [10]).refuse()
    with pytest.raises(UserError, match="96% of the texts' tokens are unknown"):
        UnknownTally("tiny").add([4], [0]).add([96], [96]).refuse()


class Encodings(list[Any]):
    """A list that can be referred to weakly."""


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("settings", [{"max_length": 10}, WINDOWS])
def test_the_encodings_of_one_piece_are_gone_when_the_next_one_is_encoded(
    drops: bool,
    settings: dict[str, Any],
    bert: Backbone,
    corpus: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They take hundreds of bytes a token, also beyond the length limit."""
    config = BackboneConfig(**settings)

    def found() -> list[Any]:
        texts = tokenize(bert.tokenizer, corpus, config, 10)
        windows = [[(*x.ids, x.start, x.stop, x.opens) for x in text.windows] for text in texts]
        return [(x.seen, x.cut, x.own, x.unknown, *w) for x, w in zip(texts, windows, strict=True)]

    counting, encode = tokens._Counting.of, tokens._encode
    monkeypatch.setattr(tokens._Counting, "of", lambda *how: replace(counting(*how), drops=drops))
    expected = found()
    sizes, alive = [], []

    def watched(tokenizer: Any, prompts: list[str], *rest: Any, **how: Any) -> Encodings:
        assert not any(one() for one in alive)
        sizes.append(sum(map(len, prompts)))
        made = Encodings(encode(tokenizer, prompts, *rest, **how))
        alive.append(weakref.ref(made))
        return made

    monkeypatch.setattr(tokens, "_encode", watched)
    monkeypatch.setattr(tokens, "PIECE_CHARACTERS", 200)
    assert found() == expected
    assert len(sizes) > 10
    assert max(sizes) < 200 + max(map(len, corpus))
