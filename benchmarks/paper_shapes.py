"""Run the profile `paper` end to end on models of its shapes, with two blocks each.

Run: python -m benchmarks.paper_shapes FOLDER [KEY=VALUE ...]

The widths, heads and feed-forwards are those of the real models; the weights are random, the
vocabulary is that of bytes, and NV-Embed-v2 is built as the Mistral model that it extends. So this
shows that the profile runs, and what a block costs, not what accuracy comes out.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from layerfusion.cli import main as layerfusion

BLOCKS = 2
DECODER = {"num_hidden_layers": BLOCKS, "max_position_embeddings": 4096}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma-2-2b": (
        "Gemma2Config",
        {
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
        },
    ),
    "Qwen2.5-7B": (
        "Qwen2Config",
        {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
    ),
    "Llama-2-7b-chat-hf": (
        "LlamaConfig",
        {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32},
    ),
    "Falcon3-7B-Instruct": (
        "LlamaConfig",
        {
            "hidden_size": 3072,
            "intermediate_size": 23040,
            "num_attention_heads": 12,
            "num_key_value_heads": 4,
            "head_dim": 256,
        },
    ),
    "Mistral-7B-v0.3": (
        "MistralConfig",
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
    ),
    "NV-Embed-v2": (
        "MistralConfig",
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
    ),
    "e5-large-v2": (
        "BertConfig",
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "max_position_embeddings": 512,
        },
    ),
}
"""Name of a model's folder to its kind and shape."""


def main(folder: Path, words: list[str]) -> int:
    """Write the models, and run the profile on them."""
    for name, (kind, shape) in SHAPES.items():
        if not (folder / name / "tokenizer.json").exists():
            write_model(folder / name, kind, {**DECODER, **shape})
    os.environ["LAYERFUSION_MODELS"] = str(folder)
    return layerfusion(["reproduce", "reproduce=paper", *words])


def write_model(folder: Path, kind: str, shape: dict[str, Any]) -> None:
    """Write a model with random weights in bfloat16, and a tokenizer of bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(["<pad>", *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    config = getattr(transformers, kind)(vocab_size=len(vocabulary), pad_token_id=0, **shape)
    torch.manual_seed(0)
    with torch.device("cpu"):
        model = transformers.AutoModel.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", model_max_length=512
    )
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
