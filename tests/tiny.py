"""Tiny random models of many families, saved as ordinary Hugging Face folders, and quick jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from layerfusion.cli import main

# fmt: off
WORDS = [
    "the", "a", "of", "in", "and", "to", "company", "said", "it", "shares", "profit", "loss",
    "wheat", "ship", "oil", "price", "rose", "fell", "film", "was", "good", "bad", "great",
    "awful", "plot", "actor", "story", "bank", "rate", "dollar", "trade", "crude", "acq", "earn",
    "net", "year", "mln",
]
# fmt: on
GOOD = ("good", "great", "film", "plot", "actor")
BAD = ("bad", "awful", "loss", "fell", "crude")
SPECIAL = ("<unk>", "<pad>", "<s>", "</s>")
VOCAB = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 200,
    "pad_token_id": 1,
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", SIZES),
    "roberta": ("RobertaConfig", SIZES),
    "deberta_v2": (
        "DebertaV2Config",
        {
            **SIZES,
            "relative_attention": True,
            "position_buckets": 8,
            "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
        },
    ),
    "deberta_v2_conv": (
        "DebertaV2Config",
        {**SIZES, "relative_attention": True, "conv_kernel_size": 3, "conv_act": "gelu"},
    ),
    "mpnet": ("MPNetConfig", SIZES),
    "modernbert": (
        "ModernBertConfig",
        {**SIZES, "global_attn_every_n_layers": 2, "local_attention": 8},
    ),
    "electra": ("ElectraConfig", {**SIZES, "embedding_size": 16}),
    "distilbert": (
        "DistilBertConfig",
        {
            "vocab_size": 300,
            "dim": 32,
            "n_layers": 3,
            "n_heads": 4,
            "hidden_dim": 48,
            "max_position_embeddings": 200,
            "pad_token_id": 1,
        },
    ),
    "xlm": (
        "XLMConfig",
        {
            "vocab_size": 300,
            "emb_dim": 32,
            "n_layers": 3,
            "n_heads": 4,
            "max_position_embeddings": 200,
            "pad_token_id": 1,
        },
    ),
    "flaubert": (
        "FlaubertConfig",
        {
            "vocab_size": 300,
            "emb_dim": 32,
            "n_layers": 3,
            "n_heads": 4,
            "max_position_embeddings": 200,
            "pad_token_id": 1,
        },
    ),
    "fnet": ("FNetConfig", SIZES),
    "convbert": ("ConvBertConfig", {**SIZES, "embedding_size": 32}),
    "albert": ("AlbertConfig", {**SIZES, "embedding_size": 16}),
    "t5": (
        "T5Config",
        {
            "vocab_size": 300,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 3,
            "num_heads": 4,
            "pad_token_id": 1,
            "decoder_start_token_id": 1,
        },
    ),
    "gpt2": (
        "GPT2Config",
        {
            "vocab_size": 300,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 200,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
    ),
    "llama": ("LlamaConfig", GROUPED),
    "qwen2": ("Qwen2Config", {k: v for k, v in GROUPED.items() if k != "head_dim"}),
    "gemma2": ("Gemma2Config", {**GROUPED, "sliding_window": 8}),
    "gemma3": (
        "Gemma3TextConfig",
        {**GROUPED, "sliding_window": 8, "query_pre_attn_scalar": 8},
    ),
    "mistral": ("MistralConfig", {**GROUPED, "sliding_window": 8}),
    "falcon": (
        "FalconConfig",
        {
            "vocab_size": 300,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "pad_token_id": 1,
        },
    ),
}
PROJECTED: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "word_embed_proj_dim": 16,
    "do_layer_norm_before": False,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "max_position_embeddings": 200,
    "pad_token_id": 1,
}
"""Config of an OPT that ends in a projection to fewer numbers, as the one of 350 million does."""
NO_BLOCKS = ("albert", "xlm", "flaubert")
"""Families without a list of whole blocks: one block is shared, or its parts lie in lists."""
DECODERS = ("gpt2", "llama", "qwen2", "gemma2", "gemma3", "mistral", "falcon")
WITH_NORM = (*DECODERS, "modernbert", "t5")
"""Families that end in a norm of their own (FACTS of transformers, read off their code)."""


def tiny_tokenizer(*, decoder: bool, padding_side: str = "right") -> Any:
    """Words with <s> … </s> for encoders; bytes, no special token and no pad for decoders."""
    special: dict[str, str] = {}
    if decoder:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocab = {character: number for number, character in enumerate(alphabet)}
        core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    else:
        core = Tokenizer(models.WordLevel(VOCAB, unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
        core.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
        )
        special |= {"unk_token": "<unk>", "pad_token": "<pad>"}
        special |= {"bos_token": "<s>", "eos_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=10**30, padding_side=padding_side, **special
    )


def tiny_folder(family: str, folder: Path, *, padding_side: str = "right", **changes: Any) -> Path:
    """Save a tiny random model and its tokenizer."""
    name, settings = CONFIGS[family]
    torch.manual_seed(sum(map(ord, family)))
    config = getattr(transformers, name)(**{**settings, **changes})
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Wider than the initialisation, so that layers differ and mistakes show.
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    decoder = family in DECODERS
    tiny_tokenizer(decoder=decoder, padding_side=padding_side).save_pretrained(folder)
    return folder


def tiny_texts(path: Path, rows: int) -> Path:
    """Write as many distinct texts, of two labels that their words tell apart."""
    generator = np.random.default_rng(0)
    made = [
        (f"the {' '.join(generator.choice((BAD, GOOD)[n % 2], 6))} {n}", ("neg", "pos")[n % 2])
        for n in range(rows)
    ]
    pd.DataFrame(made, columns=["text", "label"]).to_csv(path, index=False)
    return path


TOPICS = {
    "film": ("film", "plot", "actor"),
    "trade": ("wheat", "ship", "trade"),
    "bank": ("bank", "rate", "dollar"),
}
"""Labels that a text may have together, and the words that tell of them."""


def tiny_topics(rows: int) -> tuple[list[str], pd.DataFrame]:
    """Make distinct texts with any number of labels: a column of 0 and 1 for each."""
    generator = np.random.default_rng(0)
    has = generator.random((rows, len(TOPICS))) < 0.45
    texts = []
    for number, row in enumerate(has):
        words = [
            generator.choice(said, 3) for said, yes in zip(TOPICS.values(), row, strict=True) if yes
        ]
        texts.append(f"the {' '.join(np.concatenate([*words, ['said']]))} {number}")
    return texts, pd.DataFrame(has.astype(int), columns=list(TOPICS))


def tiny_job(texts: Path, model: Path, cache: Path) -> list[str]:
    """A quick job on the command line; seeds and tracking are each test's own."""
    return [
        "dataset=local",
        f"dataset.path={texts}",
        f"backbone.tiny.path={model}",
        f"paths.cache={cache}",
        "trainer.max_epochs=3",
        "extract.token_budget=512",
    ]


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command: its exit code, and what it says."""
    code = main(arguments)
    return code, capsys.readouterr().err.strip()
