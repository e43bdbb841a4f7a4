"""Checks of the files that a tokenizer is made from, where a model has no tokenizer.json."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from layerfusion.errors import UserError

TOKENIZERS = ("tokenizer.json", "vocab*", "merges*", "*.model", "*.tiktoken", "*.vocab")
"""Files that a tokenizer is made from; a folder needs one that fits one of these patterns."""
PAIR = ("vocab.json", "merges.txt")
"""Two files of which neither makes a tokenizer without the other: without merges, every word would
be split into letters."""
TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+=* \d+\r?\n")
"""First line of a file of tiktoken: a token in base64, and its number."""


def vocabulary_files(folder: Path) -> list[Path]:
    """List the files of a folder that a tokenizer may be made from."""
    found = {file for pattern in TOKENIZERS for file in folder.glob(pattern)}
    return sorted(file for file in found if file.is_file())


def check_vocabulary(folder: Path, key: str) -> None:
    """Check that the files of a tokenizer belong together and are whole.

    A tokenizer.json needs no other file, so that the others are not looked at then.

    Raises:
        UserError: naming the file that is missing or damaged.
    """
    if (folder / "tokenizer.json").is_file():
        return
    there = [name for name in PAIR if (folder / name).is_file()]
    if len(there) == 1:
        (lacks,) = set(PAIR) - set(there)
        raise UserError(
            f"{key}: {folder} has {there[0]} and lacks {lacks}, which belongs to it; copy it there,"
            " or save the tokenizer as tokenizer.json"
        )
    for file in sorted(folder.glob("*.model")):
        reason = _damage_of_sentencepiece(file.read_bytes())
        if reason is not None:
            raise UserError(
                f"{key}: {file} is no whole SentencePiece model ({reason}); copy it there again, or"
                " save the tokenizer as tokenizer.json"
            )


def _damage_of_sentencepiece(content: bytes) -> str | None:
    """Say what is wrong about a SentencePiece model; nothing is about a file of tiktoken."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    if TIKTOKEN.match(content):
        return None
    messages: Any = sentencepiece_model_pb2  # its classes are made when it is imported
    model = messages.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        return "it is damaged or cut off"
    if not len(model.pieces) or not model.HasField("trainer_spec"):
        return "it is empty or cut off"
    return None
