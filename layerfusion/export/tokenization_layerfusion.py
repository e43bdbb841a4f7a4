"""The tokenizers of a classifier on several language models, for transformers alone.

This file lies in the folder of an exported classifier and is read by
`AutoTokenizer.from_pretrained(folder, trust_remote_code=True)`. It needs transformers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer
from transformers import BatchEncoding, PreTrainedTokenizerFast

from .words_layerfusion import Words, padded  # relative, as the files lie side by side everywhere

FILE = "layerfusion_tokenizers.json"
"""File that holds all tokenizers and vocabularies."""


class LayerFusionTokenizer(PreTrainedTokenizerFast):
    """Prepares texts for every language model and lexical source of an exported classifier.

    Texts are stripped of outer white space, put into the template of each model, cut at its length,
    and padded on the right to the longest of the batch. For a model that reads long texts whole,
    they are taken apart into windows that overlap.

    Args:
        tokenizers_file: file with the tokenizers.
    """

    vocab_files_names: ClassVar = {"tokenizers_file": FILE}

    def __init__(self, tokenizers_file: str, **more: Any) -> None:
        content = json.loads(Path(tokenizers_file).read_text(encoding="utf-8"))
        self.tokenizers_file = tokenizers_file
        self.parts = [(tokenizer_of(about), about) for about in content["models"]]
        self.lexical = [Words(about) for about in content["lexical"]]
        given = {"pad_token": "[PAD]", "padding_side": "right", **more}
        given.pop("tokenizer_object", None)
        first = self.parts[0][0] if self.parts else Tokenizer.from_str(EMPTY)
        super().__init__(tokenizer_object=first, **given)

    def __call__(  # type: ignore[override]
        self,
        text: str | Sequence[str],
        text_pair: None = None,
        return_tensors: str | None = None,
        **_: Any,
    ) -> BatchEncoding:
        """Prepare a text, or several.

        Args:
            text: the texts.
            text_pair: has to be None.
            return_tensors: `pt` for tensors of torch; `np` or None for arrays of numpy.

        Raises:
            ValueError: for a pair of texts, or an empty text.
        """
        if text_pair is not None:
            raise ValueError("this classifier reads single texts, not pairs")
        texts = [one.strip() for one in ([text] if isinstance(text, str) else text)]
        if "" in texts:
            raise ValueError(f"text {texts.index('') + 1} of {len(texts)} is empty")
        arrays: dict[str, np.ndarray] = {}
        for number, (tokenizer, about) in enumerate(self.parts):
            end = "" if number == 0 else f"_{number}"
            found = encoded(tokenizer, about, texts)
            arrays |= {f"{name}{end}": values for name, values in found.items()}
        for number, words in enumerate(self.lexical):
            ids, weights = words(texts)
            arrays |= {f"lexical_ids_{number}": ids, f"lexical_weights_{number}": weights}
        return BatchEncoding(arrays, tensor_type=return_tensors or "np")

    def save_vocabulary(
        self, save_directory: str, filename_prefix: str | None = None
    ) -> tuple[str]:
        """Copy the file with the tokenizers."""
        target = Path(save_directory, f"{filename_prefix}-{FILE}" if filename_prefix else FILE)
        if target.resolve() != Path(self.tokenizers_file).resolve():
            shutil.copyfile(self.tokenizers_file, target)
        return (str(target),)


EMPTY = json.dumps({"model": {"type": "WordLevel", "vocab": {"[PAD]": 0}, "unk_token": "[PAD]"}})
"""A tokenizer for a classifier without language models."""


def tokenizer_of(about: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer of one language model, which cuts texts at its length."""
    tokenizer = Tokenizer.from_str(json.dumps(about["tokenizer"]))
    tokenizer.no_padding()
    windows = about["window_overlap"] is not None
    tokenizer.enable_truncation(
        about["max_length"],
        stride=about["window_overlap"] if windows else 0,
        direction="right" if windows else about["truncation_side"],
    )
    tokenizer.encode_special_tokens = about["split_special_tokens"]
    return tokenizer


def encoded(
    tokenizer: Tokenizer, about: Mapping[str, Any], texts: Sequence[str]
) -> dict[str, np.ndarray]:
    """Encode texts for one language model.

    Returns:
        `input_ids` and `attention_mask`, 1 on real tokens. Shapes: (texts, tokens), int64. For a
        model that reads windows, shapes (texts, windows, tokens), always as many tokens as a window
        has at most, so that texts can be put together later; and `pooled_tokens`, of the same
        shape, 1 on the tokens that count, since a window repeats some of the one before.
    """
    prompts = [about["template"].replace("{text}", text) for text in texts]
    encodings = tokenizer.encode_batch(prompts)
    if about["window_overlap"] is None:
        rows = [encoding.ids for encoding in encodings]
        return {
            "input_ids": padded(rows, about["pad_id"], np.int64),
            "attention_mask": padded([[1] * len(row) for row in rows], 0, np.int64),
        }
    windows = [[encoding, *encoding.overflowing] for encoding in encodings]
    shape = len(texts), max(map(len, windows)), about["max_length"]
    found = {
        "input_ids": np.full(shape, about["pad_id"], np.int64),
        "attention_mask": np.zeros(shape, np.int64),
        "pooled_tokens": np.zeros(shape, np.int64),
    }
    for row, parts in enumerate(windows):
        for number, part in enumerate(parts):
            start, stop = counted(part, number, len(parts), about["window_overlap"])
            found["input_ids"][row, number, : len(part.ids)] = part.ids
            found["attention_mask"][row, number, : len(part.ids)] = 1
            found["pooled_tokens"][row, number, start:stop] = 1
    return found


def counted(part: Any, number: int, windows: int, overlap: int) -> tuple[int, int]:
    """Find the tokens of a window that count, so that each token of the text counts once.

    Special tokens count at the two ends of the text.
    """
    content = [at for at, special in enumerate(part.special_tokens_mask) if not special]
    start = content[min(overlap, len(content) - 1)] if number > 0 else 0
    return start, content[-1] + 1 if number < windows - 1 else len(part.ids)
