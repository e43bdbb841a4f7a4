"""Checks of a model's folder before anything is loaded from it."""

from __future__ import annotations

import json
from pathlib import Path

from layerfusion.assets.archives import is_pickle
from layerfusion.errors import UserError

INDEX = "model.safetensors.index.json"
"""The file that lists the weight files of a model saved in parts."""


def check_model_folder(folder: Path, key: str) -> None:
    """Check that a Hugging Face folder holds a config and all its weights as safetensors.

    Raises:
        UserError: naming the folder and what is missing or refused.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{key}: {folder} has no config.json; it holds {_listing(folder)}")
    missing = missing_weights(folder)
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


def missing_weights(folder: Path) -> list[str]:
    """List the weight files that are missing in a model's folder."""
    wanted = ["model.safetensors"]
    index = folder / INDEX
    if index.is_file() and not (folder / wanted[0]).is_file():
        try:
            wanted = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{index} is broken: {error}") from error
    return [name for name in wanted if not (folder / name).is_file()]


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
