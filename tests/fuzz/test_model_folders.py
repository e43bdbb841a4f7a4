"""Damaged folders of models: they load as their files say, or one line refuses them."""

from __future__ import annotations

import io
import itertools
import json
import logging
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from layerfusion.config.job import BackboneConfig, PoolingConfig
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.forward import embed
from layerfusion.embeddings.shape import NORM
from layerfusion.embeddings.source import open_source
from layerfusion.errors import UserError
from tests.fuzz.fuzzing import attempt, changed_json, examples, mutations
from tests.tiny import SPECIAL, WORDS, tiny_folder

TEXTS = ("the film was good", "a bad plot and a great actor")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
DEEP = b"[" * 100_000
MEAN = {"mean": PoolingConfig("mean")}
LINES = 3
"""Warnings that a command may give about one model."""
SECONDS = 20
"""CPU time that a refusal may take: a config of a billion layers would take hours to build."""


# -- folders --------------------------------------------------------------------------------------


def sentence_transformer(folder: Path) -> None:
    """BERT with tokenizer.json, as sentence-transformers saves it."""
    tiny_folder("bert", folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.Pooling"},
    ]
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
    (folder / "1_Pooling").mkdir()
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": {"max_seq_length": 64, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {"query": "query: "}},
        "special_tokens_map.json": {"unk_token": "<unk>", "pad_token": "<pad>"},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


def word_pieces(folder: Path) -> None:
    """DistilBERT with vocab.txt."""
    tiny_folder("distilbert", folder)
    (folder / "tokenizer.json").unlink()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    described = {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))


def byte_pairs(folder: Path) -> None:
    """RoBERTa with vocab.json and merges.txt."""
    tiny_folder("roberta", folder)
    (folder / "tokenizer.json").unlink()
    merges = ["t h", "th e", "Ġ f", "i l", "il m", "o o", "oo d", "Ġ g", "Ġ b", "a d"]
    letters = [*"abcdefghijklmnopqrstuvwxyz", "Ġ"]
    words = [*SPECIAL, *letters, *(merge.replace(" ", "") for merge in merges)]
    vocab = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{x}\n" for x in merges))
    described = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 190}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))


def sentence_piece(folder: Path) -> None:
    """Llama with tokenizer.model."""
    tiny_folder("llama", folder)
    (folder / "tokenizer.json").unlink()
    sentences = [" ".join(words) for words in itertools.permutations(WORDS[:8], 3)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*sentences, *[" ".join(WORDS)] * 5]), model_writer=model,
        vocab_size=60, model_type="bpe", normalization_rule_name="identity", minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    described = {"tokenizer_class": "LlamaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))


def in_parts(folder: Path) -> None:
    """GPT-2 with weights in several files."""
    tiny_folder("gpt2", folder)
    model = transformers.AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")


FOLDERS: tuple[Callable[[Path], None], ...] = (
    sentence_transformer, word_pieces, byte_pairs, sentence_piece, in_parts,
)  # fmt: skip


# -- damage ---------------------------------------------------------------------------------------


def empty(file: Path) -> None:
    file.write_bytes(b"")


def to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def to_pointer(file: Path) -> None:
    file.write_bytes(POINTER)


def to_broken_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("no such file")


WHOLE = (empty, to_folder, to_pointer, to_broken_link, Path.unlink)


@st.composite
def changed(draw: st.DrawFn, name: str, content: bytes) -> bytes:
    """A file with a few of its values or bytes changed."""
    if name.endswith(".json") and draw(st.integers(0, 4)):
        return json.dumps(draw(changed_json(json.loads(content)))).encode()
    if name.endswith(".safetensors") and draw(st.booleans()):
        size = int.from_bytes(content[:8], "little")
        header = json.dumps(draw(changed_json(json.loads(content[8 : 8 + size])))).encode()
        return len(header).to_bytes(8, "little") + header + content[8 + size :]
    return draw(mutations(content, (DEEP, b"\xff", b"\xef\xbb\xbf", b"\0", b"\n"))).content


@st.composite
def damages(draw: st.DrawFn, files: dict[str, bytes]) -> tuple[str, Any]:
    """A file's name, and its new content or a function that spoils the whole file."""
    name = draw(st.sampled_from(sorted(files)))
    if draw(st.integers(0, 3)) == 0:
        return name, draw(st.sampled_from(WHOLE))
    return name, draw(changed(name, files[name]))


# -- what has to be right -------------------------------------------------------------------------


def vectors(folder: Path, cache: Path) -> dict[str, np.ndarray]:
    """Do with a folder what the commands do: look at its shape, load it, and pass texts."""
    config = BackboneConfig(path=str(folder))
    source = open_source("tiny", config, MEAN, cache)
    source.expected_shape()
    source.count_tokens(TEXTS)
    backbone = load_backbone("tiny", source.asset.path, config, "cpu")
    texts = backbone.tokenize(TEXTS, config)
    order = sorted(range(len(texts)), key=lambda row: -texts[row].cost)
    layers = {"mean": backbone.shape.layers}
    found, _ = embed(backbone, [texts[row] for row in order], layers, MEAN, 512)
    back = np.argsort(order)
    limit = np.array(backbone.shape.max_length)
    return {"limit": limit, **{layer: values[back] for (_, layer), values in found.items()}}


def reference(folder: Path, limit: int) -> list[np.ndarray]:
    """The means of the model's own hidden states of each text alone, layer by layer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    means = []
    for text in TEXTS:
        ids = tokenizer(text, truncation=True, max_length=limit)["input_ids"]
        with torch.no_grad():
            output = model(torch.tensor([ids]), output_hidden_states=True)
        means.append(torch.stack([state[0].mean(dim=0) for state in output.hidden_states]))
    return list(torch.stack(means, dim=1).numpy())


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of a file, where it fails
@pytest.mark.parametrize("make", FOLDERS, ids=lambda make: make.__name__)
def test_a_damaged_model_folder_loads_as_it_says_or_is_refused(
    make: Callable[[Path], None],
    tmp_path: Path,
    counts: Counter[str],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "model"
    make(whole)
    paths = [path for path in whole.rglob("*") if path.is_file()]
    files = {path.relative_to(whole).as_posix(): path.read_bytes() for path in paths}
    caplog.set_level(logging.WARNING)

    def check() -> None:
        caplog.clear()
        capfd.readouterr()
        begun = time.process_time()
        with warnings.catch_warnings(record=True, action="always") as warned:
            found = attempt(counts, lambda: vectors(folder, tmp_path / "cache"))
        assert time.process_time() - begun < SECONDS
        shown = [*caplog.messages, *(str(warning.message) for warning in warned)]
        assert len(shown) <= LINES, shown
        assert capfd.readouterr() == ("", "")
        if isinstance(found, UserError):
            return
        right = reference(folder, int(found.pop("limit")))
        last = found.get(NORM, found[str(len(right) - 1)])
        for layer, values in enumerate(right):
            ours = last if layer == len(right) - 1 else found[str(layer)]
            scale = max(1.0, float(np.abs(values).max()))
            np.testing.assert_allclose(ours, values, atol=1e-4 * scale, err_msg=f"layer {layer}")

    shutil.copytree(whole, folder)
    check()
    assert counts == {"accepted": 1}, "the whole folder does not load"

    @examples(8, share=0.2)
    @given(damages(files))
    def run(damage: tuple[str, Any]) -> None:
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        name, what = damage
        file = folder / name
        what(file) if callable(what) else file.write_bytes(what)
        check()

    run()
