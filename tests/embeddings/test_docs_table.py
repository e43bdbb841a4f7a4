"""The table of docs/add_a_model.md says what becomes of each kind of model folder."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from layerfusion.config.assets import SourceConfig
from layerfusion.config.check import check_backbone
from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings.source import open_source
from layerfusion.errors import UserError
from tests.tiny import CONFIGS, SIZES, VOCAB, tiny_folder, tiny_tokenizer

Settings = dict[str, Any]
PAGE = Path(__file__).parents[2] / "docs" / "add_a_model.md"
LONG: Settings = {"max_position_embeddings": 600}
"""Room for the default `max_length`."""
TEXTS = ["the crude fell", "the film was good", "a great plot and a good story", "oil price rose"]
Case = Callable[[Path], Settings | None]
"""Writes a model's folder, and returns settings of the backbone other than its path."""


def _changed(file: str, change: Callable[[dict[str, Any]], object], family: str = "bert") -> Case:
    """A tiny model, one of whose JSON files is changed."""

    def write(folder: Path) -> None:
        tiny_folder(family, folder, **LONG)
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return write


def _config(**settings: Any) -> Case:
    return _changed("config.json", lambda config: config.update(settings))


def _weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Case:
    def write(folder: Path) -> None:
        tiny_folder("bert", folder, **LONG)
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    return write


def _without(part: str) -> Case:
    return _weights(lambda arrays: {name: x for name, x in arrays.items() if part not in name})


def _nan(array: str, row: int) -> Case:
    def change(arrays: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        arrays[array][row] = torch.nan
        return arrays

    return _weights(change)


def _zeros(part: str) -> Case:
    """Weights of which all whose names hold that part are zero."""
    return _weights(
        lambda arrays: {
            name: torch.zeros_like(x) if part in name else x for name, x in arrays.items()
        }
    )


def _in_hub_cache(folder: Path) -> None:
    tiny_folder("bert", folder / "snapshots" / ("0" * 40))


def _with(name: str, content: bytes, *, gone: str = "") -> Case:
    """A tiny model with one more or another file, and perhaps without one."""

    def write(folder: Path) -> None:
        tiny_folder("bert", folder, **LONG)
        (folder / name).write_bytes(content)
        if gone:
            (folder / gone).unlink()

    return write


def _tiny(family: str, **changes: Any) -> Case:
    def write(folder: Path) -> None:
        tiny_folder(family, folder, **changes)

    return write


def _of_images(folder: Path) -> None:
    sizes = {name: SIZES[name] for name in SIZES if name.startswith(("num", "hidden", "inter"))}
    transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=32)).save_pretrained(folder)
    tiny_tokenizer(decoder=False).save_pretrained(folder)


def _elsewhere(folder: Path) -> None:
    tiny_folder("bert", folder, **LONG)
    arrays = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder.parent / "other.safetensors")
    index = {"weight_map": dict.fromkeys(arrays, "../other.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _cased(folder: Path) -> None:
    """A cased vocabulary under a class that makes lower case of it."""
    tiny_folder("bert", folder, **LONG)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "The", "the", *" ".join(TEXTS).split()]
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    core = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')


def _model(name: str, family: str, **changes: Any) -> Case:
    """A tiny model of a class of transformers."""

    def write(folder: Path) -> None:
        config, settings = CONFIGS[family]
        made = getattr(transformers, name)(getattr(transformers, config)(**settings | changes))
        made.save_pretrained(folder)
        tiny_tokenizer(decoder=False).save_pretrained(folder)

    return write


def _tokenizer(core: Any, **special: str) -> Case:
    def write(folder: Path) -> None:
        tiny_folder("bert", folder, **LONG)
        core.pre_tokenizer = pre_tokenizers.Whitespace()
        made = transformers.PreTrainedTokenizerFast(tokenizer_object=core, **special)
        made.save_pretrained(folder)

    return write


def _words(*kept: str) -> Any:
    words = {"<unk>": 0, "<pad>": 1} | {word: VOCAB[word] for word in kept}
    return Tokenizer(models.WordLevel(words, unk_token="<unk>"))


def _sentence(part: str, config: dict[str, Any], name: str = "config.json") -> Case:
    """A folder of sentence-transformers that pools the mean, with one more part."""

    def write(folder: Path) -> None:
        tiny_folder("bert", folder, **LONG)
        _modules(folder, "Transformer", *([part] if part else []))
        place = folder / f"1_{part}" if part else folder
        (place / name).write_text(json.dumps(config))

    return write


def _modules(folder: Path, first: str, *others: str, inside: str = "") -> None:
    places = [inside, *(f"{number}_{other}" for number, other in enumerate(others, 1))]
    kinds = [f"sentence_transformers.models.{kind}" for kind in (first, *others)]
    for place in places:
        (folder / place).mkdir(parents=True, exist_ok=True)
    modules = [{"path": path, "type": kind} for path, kind in zip(places, kinds, strict=True)]
    (folder / "modules.json").write_text(json.dumps(modules))


def _old_layout(folder: Path) -> None:
    tiny_folder("bert", folder / "0_Transformer", **LONG)
    _modules(folder, "Transformer", inside="0_Transformer")


def _pickles(folder: Path) -> None:
    tiny_folder("bert", folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut_off(folder: Path) -> None:
    file = tiny_folder("bert", folder) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _other_class(folder: Path) -> None:
    """A vocabulary of words under a class that reads SentencePiece models."""
    _with("vocab.txt", b"the\nfilm\n", gone="tokenizer.json")(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')


def _in_place(folder: Path) -> None:
    tiny_folder("bert", folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()


def _dangling(folder: Path) -> None:
    file = tiny_folder("bert", folder) / "model.safetensors"
    file.unlink()
    file.symlink_to(folder / "gone")


def _trusted(folder: Path) -> Settings:
    _config(auto_map={"AutoModel": "owner/name--c.Mine"})(folder)
    return {"trust_remote_code": True}


def _branch(folder: Path) -> Settings:
    return {"path": None, "sources": [SourceConfig(hub="owner/name")], "trust_remote_code": True}


OWN_CODE = {"AutoConfig": "c.Mine"}
CASES: dict[str, Case] = {
    "a model with a head, for example for classification": _model(
        "BertForSequenceClassification", "bert", **LONG
    ),
    "an encoder and a decoder, as of T5": _model("T5ForConditionalGeneration", "t5"),
    "only the encoder of such a model": _model("T5EncoderModel", "t5"),
    "weights without the pooler": _without("pooler"),
    "pickled weights beside safetensors": _with("pytorch_model.bin", b"pickle"),
    "pickled weights alone": _pickles,
    "a pointer of Git LFS instead of the weights": _with(
        "model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"
    ),
    "weights that were cut off": _cut_off,
    "a folder in the place of a file": _in_place,
    "a link to a file that is gone": _dangling,
    "weights that lack an array": _without("encoder.layer.2.output.LayerNorm.bias"),
    "weights whose names do not fit": _weights(
        lambda arrays: {f"module.{name}": x for name, x in arrays.items()}
    ),
    "weights whose shapes do not fit `config.json`": _config(hidden_size=64),
    "weights of more layers than `config.json` states": _config(num_hidden_layers=2),
    "`config.json` of far more layers than the weights": _config(num_hidden_layers=10**6),
    "`config.json` of a far larger model than the weights": _config(intermediate_size=10**8),
    "weights in the blocks that the model does not use": _weights(
        lambda arrays: arrays | {"encoder.layer.0.attention.lora_A.weight": torch.ones(2, 32)}
    ),
    "weights stored as integers without a quantisation": _weights(
        lambda arrays: {name: x.to(torch.int8) for name, x in arrays.items()}
    ),
    "quantised weights whose `config.json` does not say so (`weight_scale`, `SCB`)": _weights(
        lambda arrays: (
            arrays | {"encoder.layer.0.attention.self.query.weight_scale": torch.ones(32)}
        )
    ),
    "weights with NaN or infinity": _nan("encoder.layer.1.output.dense.weight", 0),
    "weights that are all zero": _zeros(""),
    "norms that are all zero": _zeros("LayerNorm"),
    "NaN in the vector of a token": _nan("embeddings.word_embeddings.weight", VOCAB["crude"]),
    "weights in parts that lie in another folder": _elsewhere,
    "weights in one file and in parts": _with(
        "model.safetensors.index.json", b'{"weight_map": {"x": "model-00001-of-00002.safetensors"}}'
    ),
    "an adapter (LoRA)": _with("adapter_config.json", b"{}"),
    "a folder of the hub's cache (`models--owner--name`)": _in_hub_cache,
    "a damaged `config.json`": _with("config.json", b'{"model_type":'),
    "`config.json` without `model_type`": _changed(
        "config.json", lambda config: config.pop("model_type")
    ),
    "an unknown `model_type`": _config(model_type="quantum"),
    "`architectures` of another family than `model_type`": _changed(
        "config.json", lambda config: config.update(model_type="roberta")
    ),
    "a model that does not read text alone": _of_images,
    "fewer positions than `max_length`": _tiny("bert"),
    "code of its own, for an unknown `model_type`": _config(model_type="mine", auto_map=OWN_CODE),
    "code of its own, for a known `model_type`": _config(auto_map=OWN_CODE),
    "`trust_remote_code=true` and code of another repository": _trusted,
    "`trust_remote_code=true` and a branch of the hub": _branch,
    "no tokenizer": _with("README.md", b"", gone="tokenizer.json"),
    "a damaged `tokenizer.model`": _with("tokenizer.model", b"<html>", gone="tokenizer.json"),
    "`vocab.json` without `merges.txt`": _with("vocab.json", b"{}", gone="tokenizer.json"),
    "a class of tokenizer whose files are not there": _other_class,
    "a limit of length that is no number": _changed(
        "tokenizer_config.json", lambda content: content.update(model_max_length="long")
    ),
    "a special token that is no token": _with(
        "special_tokens_map.json", b'{"unk_token": {"0": 0}}'
    ),
    "a damaged `tokenizer.json`": _with("tokenizer.json", b'{"version":'),
    "a `tokenizer.json` of a newer version": _changed(
        "tokenizer.json", lambda content: content.update(normalizer={"type": "Newer"})
    ),
    "a tokenizer without a padding token": _tiny("gpt2", n_positions=600),
    "a tokenizer that pads on the left": _tiny("bert", padding_side="left", **LONG),
    "a tokenizer that fails at a text": _tokenizer(
        Tokenizer(models.WordPiece({"the": 1}, unk_token="[UNK]"))
    ),
    "more tokens in the tokenizer than in the model": _tiny("bert", vocab_size=20, **LONG),
    "`tokenizer.json` and `tokenizer_config.json` that differ": _cased,
    "a tokenizer whose own class has no token for unknown words": _with(
        "README.md", b"", gone="tokenizer_config.json"
    ),
    "a tokenizer to which most tokens are unknown": _tokenizer(
        _words("the", "a"), unk_token="<unk>"
    ),
    "a tokenizer to which nearly all tokens are unknown": _tokenizer(_words(), unk_token="<unk>"),
    "a tokenizer that drops what it does not know": _tokenizer(
        Tokenizer(models.BPE({"a": 0, "e": 1, "o": 2}, []))
    ),
    "`max_seq_length` of sentence-transformers": _sentence(
        "", {"max_seq_length": 16}, "sentence_bert_config.json"
    ),
    "another pooling of sentence-transformers": _sentence(
        "Pooling", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    ),
    "prompts of sentence-transformers": _sentence(
        "", {"prompts": {"document": "", "query": "query: "}}, "config_sentence_transformers.json"
    ),
    "a layer after the pooling of sentence-transformers": _sentence("Dense", {"in_features": 32}),
    "the model in `0_Transformer`, as old versions saved it": _old_layout,
    "sentence-transformers without a language model": lambda folder: _modules(
        folder, "WordEmbeddings", inside="0_WordEmbeddings"
    ),
}


def _table() -> dict[str, tuple[str, str]]:
    """The rows of the page: what is in the folder, what becomes of it, and what is said."""
    section = PAGE.read_text().split("## What is accepted and what is refused")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    return {row[0]: (row[1].strip(" |"), row[2].strip()[1:-1] if len(row) > 2 else "")
            for row in rows[1:]}  # fmt: skip


def test_every_row_of_the_page_has_its_case() -> None:
    assert list(_table()) == list(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_row_of_the_page_holds(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome, message = _table()[case]
    pattern = ".*".join(re.escape(part) for part in message.split("…"))
    settings: Settings = {"path": str(tmp_path / "model")}
    settings |= CASES[case](tmp_path / "model") or {}

    def extract() -> list[str]:
        poolings = {"mean": PoolingConfig("mean")}
        config = BackboneConfig(**settings)
        check_backbone("NAME", config)
        with caplog.at_level(logging.INFO, logger="layerfusion"):
            source = open_source("NAME", config, poolings, tmp_path / "cache")
            source.extract([TEXTS], ExtractConfig(device="cpu", token_budget=512))
        return [m for m in caplog.messages if not m.startswith("backbone.NAME: from path")]

    if outcome == "refused":
        with pytest.raises(UserError, match=pattern) as caught:
            extract()
        assert "\n" not in str(caught.value)
        return
    said = extract()
    assert bool(said) == (outcome == "note"), said
    assert outcome == "read" or any(re.search(pattern, line) for line in said), said


@pytest.mark.parametrize("case", CASES)
def test_a_shape_without_weights_is_told_or_refused(case: str, tmp_path: Path) -> None:
    outcome, _ = _table()[case]
    settings: Settings = {"path": str(tmp_path / "model")}
    settings |= CASES[case](tmp_path / "model") or {}
    config = BackboneConfig(**settings)
    # What only the weights or the texts show is refused later.
    with suppress(UserError) if outcome == "refused" else nullcontext():
        check_backbone("NAME", config)
        source = open_source("NAME", config, {"mean": PoolingConfig("mean")}, tmp_path / "cache")
        assert source.expected_shape().layers[0] == "0"


@pytest.mark.parametrize("kind", ["vit", "wav2vec2", "whisper", "patchtst"])
def test_a_model_of_images_sound_or_numbers_is_refused_before_its_weights_are_read(
    kind: str, tmp_path: Path
) -> None:
    sizes: Settings = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
    config = {
        "vit": lambda: transformers.ViTConfig(**sizes, hidden_size=32, image_size=32),
        "wav2vec2": lambda: transformers.Wav2Vec2Config(
            **sizes, hidden_size=32, conv_dim=(16,), conv_kernel=(3,), conv_stride=(2,)
        ),
        "whisper": lambda: transformers.WhisperConfig(
            d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=48, decoder_ffn_dim=48,
            encoder_attention_heads=4, decoder_attention_heads=4, vocab_size=300, pad_token_id=1,
        ),
        "patchtst": lambda: transformers.PatchTSTConfig(
            d_model=32, num_hidden_layers=2, ffn_dim=48
        ),
    }[kind]()  # fmt: skip
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "model")
    tiny_tokenizer(decoder=False).save_pretrained(tmp_path / "model")
    config = BackboneConfig(path=str(tmp_path / "model"))
    source = open_source("NAME", config, {"mean": PoolingConfig("mean")}, tmp_path / "cache")
    with pytest.raises(UserError, match=r"does not read text alone: it reads (pixel|input|past)_"):
        source.expected_shape()
