"""The fused layers of a classifier as embeddings, for sentence-transformers.

This file lies in the folder of an exported classifier and is read by
`SentenceTransformer(folder, trust_remote_code=True)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor
from transformers import AutoModel, AutoTokenizer

try:
    from sentence_transformers.sentence_transformer.modules import InputModule
except ImportError:  # before version 6
    from sentence_transformers.models import InputModule  # type: ignore[no-redef]


class LayerFusionEmbedding(InputModule):  # type: ignore[misc]
    """Embeds texts with the layers that the heads of a classifier see, side by side.

    Args:
        model: a `LayerFusionModel`.
        tokenizer: the tokenizer of the same folder.
    """

    save_in_root = True

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """Prepare texts, each behind the prompt where there is one."""
        texts = [f"{prompt or ''}{text}" for text in inputs]
        return dict(self.tokenizer(texts, return_tensors="pt"))

    def tokenize(self, texts: list[str], **more: Any) -> dict[str, Any]:
        """Prepare texts, under the name that older versions call."""
        return self.preprocess(texts, **more)

    def forward(self, features: dict[str, Tensor | Any], **_: Any) -> dict[str, Tensor | Any]:
        """Add `sentence_embedding`, shape (batch, width), to what `preprocess` gave."""
        names = ("input_ids", "attention_mask", "pooled_tokens", "lexical_")
        inputs = {key: x for key, x in features.items() if key.startswith(names)}
        return {**features, "sentence_embedding": self.model(**inputs).pooler_output}

    def get_sentence_embedding_dimension(self) -> int:
        """Return the width of the embeddings."""
        return self.model.config.embedding_width

    get_embedding_dimension = get_sentence_embedding_dimension

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write model and tokenizer to a folder."""
        self.model.save_pretrained(output_path)
        self.tokenizer.save_pretrained(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **more: Any) -> Self:
        """Load model and tokenizer of a folder, or of the hub."""
        passed = ("token", "revision", "local_files_only")
        options = {key: more[key] for key in passed if more.get(key) is not None}
        options |= {
            "trust_remote_code": bool(more.get("trust_remote_code")),
            "subfolder": subfolder,
        }
        if more.get("cache_folder"):
            options["cache_dir"] = more["cache_folder"]
        model = AutoModel.from_pretrained(model_name_or_path, **options)
        tokenizer = AutoTokenizer.from_pretrained(model_name_or_path, **options)
        return cls(model.eval(), tokenizer)
