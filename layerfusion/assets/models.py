"""Checks of a model's folder before anything is loaded from it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from layerfusion.assets.archives import is_pickle
from layerfusion.assets.files import parse_json
from layerfusion.assets.paths import models_inside
from layerfusion.assets.vocabularies import check_vocabulary, vocabulary_files
from layerfusion.errors import UserError, one_line

INDEX = "model.safetensors.index.json"
"""The file that lists the weight files of a model saved in parts."""
ADAPTER = "adapter_config.json"
"""The file that describes an adapter, a small change of another model's weights."""
MODULES = "modules.json"
"""The file in which sentence-transformers lists the parts of a model."""
_READ = re.compile(
    r"(generation_)?config|tokenizer(_config)?|special_tokens_map|added_tokens|vocab"
    r"|model\.safetensors\.index"
)
"""Names, without `.json`, of the files of a model's folder that transformers reads as objects."""
_BOTH_WAYS = ("bert-generation", "xlnet")
"""Families that may write text and yet see it both ways."""
LFS_POINTER = b"version https://git-lfs"
"""First bytes of the small file that Git LFS puts in the place of a large one."""


def check_model_folder(folder: Path, key: str) -> None:
    """Check that a Hugging Face folder holds a config, a tokenizer and all weights as safetensors.

    Without a tokenizer transformers would make up an empty one, which knows no word.

    Raises:
        UserError: naming the folder and what is missing, cut off or refused.
    """
    if (folder / ADAPTER).is_file():
        raise UserError(
            f"{key}: {folder} holds an adapter ({ADAPTER}), which is not applied; merge it into its"
            " model (merge_and_unload of peft) and save that"
        )
    links = sorted(x.name for x in folder.iterdir() if x.is_symlink() and not x.exists())
    if links:
        raise UserError(
            f"{key}: {folder}: {links[0]} is a link to nothing; copy the file itself there"
        )
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]):
        if not file.is_file():
            raise UserError(f"{key}: {file} is a folder, not a file")
    if not (folder / "config.json").is_file():
        holds = f"{_listing(folder)}{models_inside(folder)}"
        raise UserError(f"{key}: {folder} has no config.json; it holds {holds}")
    missing = missing_weights(folder)
    if elsewhere := [name for name in missing if Path(name).name != name]:
        raise UserError(
            f"{key}: {folder}: {INDEX} names {elsewhere[0]}, which does not lie in this folder;"
            " copy the weights there"
        )
    if missing and (folder / INDEX).is_file():
        raise UserError(f"{key}: {folder} lacks {', '.join(missing)}, which {INDEX} names")
    if missing:
        pickles = sorted(file.name for file in folder.iterdir() if is_pickle(file.name))
        if pickles:
            raise UserError(
                f"{key}: {folder} holds pickled weights only ({', '.join(pickles)}), which may"
                " run code: refused; save the model as safetensors (save_pretrained does)"
            )
        raise UserError(f"{key}: {folder} has no {missing[0]}; it holds {_listing(folder)}")
    vocabulary = vocabulary_files(folder)
    if not vocabulary:
        raise UserError(
            f"{key}: {folder} has no tokenizer (no tokenizer.json, vocab.txt or the like); save it"
            f" beside the model (tokenizer.save_pretrained does); it holds {_listing(folder)}"
        )
    for file in sorted({*folder.glob("*.safetensors"), *folder.glob("*.json"), *vocabulary}):
        check_whole(file, key)
    check_vocabulary(folder, key)


def check_whole(file: Path, key: str) -> None:
    """Refuse a pointer of Git LFS in the place of a file, and weights that are cut off."""
    with file.open("rb") as opened:
        refuse_pointer(file, opened.read(len(LFS_POINTER)), key)
        if file.suffix != ".safetensors":
            return
        # Eight bytes say how long the header is; the header says where each array ends.
        opened.seek(0)
        size = file.stat().st_size
        length = int.from_bytes(opened.read(8), "little")
        header = opened.read(length) if length < size else b""
    try:
        arrays = parse_json(header).items()
        end = max(
            (entry["data_offsets"][1] for name, entry in arrays if name[:2] != "__"), default=0
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{key}: {file} is damaged or cut off: its header is not whole") from error
    if size != 8 + length + end:
        raise UserError(
            f"{key}: {file} is damaged or cut off: it has {size:,} bytes, and its header asks for"
            f" {8 + length + end:,}"
        )


def refuse_pointer(file: Path, content: bytes, key: str) -> None:
    """Refuse the pointer that Git LFS puts in the place of a file.

    Args:
        file: the file.
        content: its first bytes.
        key: config key, for messages.

    Raises:
        UserError: if the content is one.
    """
    if content.startswith(LFS_POINTER):
        raise UserError(
            f"{key}: {file} is a pointer of Git LFS, not the file itself; fetch it with"
            " git lfs pull"
        )


def missing_weights(folder: Path) -> list[str]:
    """List the weight files that are missing in a model's folder, or lie elsewhere."""
    wanted = ["model.safetensors"]
    index = folder / INDEX
    if index.is_file() and not (folder / wanted[0]).is_file():
        try:
            named = parse_json(index.read_text("utf-8"))["weight_map"].values()
            wanted = sorted({os.fspath(name) for name in named})
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise UserError(f"{index} is broken: {one_line(error)}") from error
    here = {file.name for file in folder.iterdir() if file.is_file()}
    return [name for name in wanted if name not in here]


def not_json(folder: Path) -> str | None:
    """Say which JSON file in a model's folder does not hold an object, and why; None if all do.

    Only files that transformers reads are looked at; others may hold what they like.
    """
    for file in sorted(folder.glob("*.json")):
        if not _READ.fullmatch(file.stem):
            continue
        try:
            content = parse_json(file.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                return f"{file.name} is no JSON object"
        except ValueError as error:
            return f"{file.name} is no valid JSON: {one_line(error)}"
    return None


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON file that may be missing or damaged; it is empty then."""
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_causal(folder: Path) -> bool:
    """Tell whether no token of a model sees a later one, by the family that config.json names.

    False where the family has encoders too, where the config or code of its own says otherwise, and
    where nothing is known.
    """
    from transformers.models.auto import modeling_auto as auto

    config = read_object(folder / "config.json")
    family = config.get("model_type")
    both_ways = config.get("is_causal") is False or config.get("use_bidirectional_attention")
    others = {
        *auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        *auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        *_BOTH_WAYS,
    }
    decoders = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - others
    return family in decoders and not both_ways and not own_code(folder)[1]


def own_code(folder: Path) -> tuple[str, list[str]]:
    """Find the code that comes with a model, as `auto_map` in its configs names it.

    Returns:
        The type of the model, and the classes as `file.Class`, or `owner/name--file.Class` where
        they are in another repository.
    """
    config = read_object(folder / "config.json")
    maps = [config, read_object(folder / "tokenizer_config.json")]
    named: list[str] = []
    for values in (found.get("auto_map") for found in maps):
        for value in values.values() if isinstance(values, dict) else [values]:
            named += [x for x in (value if isinstance(value, list) else [value]) if x]
    return str(config.get("model_type")), [str(place) for place in named]


def weight_arrays(folder: Path) -> Iterator[tuple[str, str]]:
    """Name every array of a model's weight files, with the type of its numbers.

    Raises:
        UserError: for a file whose header does not say it.
    """
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        if not isinstance(header, dict):
            raise UserError(f"{file} is damaged: its header is no JSON object")
        for array, entry in header.items():
            if array == "__metadata__":
                continue
            if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
                raise UserError(f"{file} is damaged: its header states no type of {array}")
            yield array, entry["dtype"]


def integer_arrays(folder: Path) -> list[str]:
    """Name the arrays that are stored as integers: quantised weights, masks and positions."""
    integers = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL")
    return [array for array, kind in weight_arrays(folder) if kind in integers]


def weight_bytes(folder: Path) -> int:
    """Return the size of a model's weight files."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def find_gguf(path: Path, key: str) -> Path | None:
    """Find the GGUF file: the path itself, or the only one in a folder without safetensors.

    Raises:
        UserError: if the path is a file of another kind, or a folder with several GGUF files.
    """
    if path.is_file():
        if path.suffix.lower() == ".gguf":
            return path
        refused = "a pickle, which may run code: refused" if is_pickle(path.name) else "a file"
        raise UserError(f"{key}: {path} is {refused}; a Hugging Face folder or a .gguf is allowed")
    if any(path.glob("*.safetensors")):
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UserError(f"{key}: {path} holds several .gguf files; name one of {names}")
    return files[0] if files else None


def _listing(folder: Path) -> str:
    names = sorted(file.name for file in folder.iterdir())
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") or "nothing"
