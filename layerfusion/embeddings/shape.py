"""What a model is made of: its layers, and what it costs to reach each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from layerfusion.errors import unknown

NORM = "norm"
BATCH = 32
"""Texts of the batch whose latency is measured."""


@dataclass(frozen=True)
class ModelShape:
    """Facts of a loaded model, kept beside its embeddings so that reading needs no model."""

    layers: tuple[str, ...]
    """"0" for what enters the first block, "1" … "L" for what leaves block i, and `norm` for the
    output of the model's own final norm where it has one."""
    width: int
    max_length: int
    """Most tokens of a window, special ones included."""
    total_parameters: int
    embedding_parameters: int
    block_parameters: tuple[int, ...]
    """Of each block."""
    block_weights: tuple[int, ...]
    """Entries of each block's matrices: each is multiplied once a token."""
    ends_early: bool = True
    """Whether a pass can end at a layer; a model that shares its blocks always runs to its end."""

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> ModelShape:
        """Rebuild the shape from its JSON form."""
        lists = {key: tuple(value) for key, value in raw.items() if isinstance(value, list)}
        return cls(**{**raw, **lists})

    @property
    def num_blocks(self) -> int:
        """How many blocks the model has."""
        return len(self.block_weights)

    def blocks_below(self, layer: str) -> int:
        """How many blocks have to be computed for a layer."""
        return self.num_blocks if layer == NORM else int(layer)

    def blocks_run(self, layer: str) -> int:
        """How many blocks are computed for a layer."""
        return self.blocks_below(layer) if self.ends_early else self.num_blocks

    def depth(self, layer: str) -> float:
        """Relative depth: 0 for what enters the first block, 1 for what leaves the last."""
        return self.blocks_below(layer) / self.num_blocks if self.num_blocks else 1.0

    def parameters(self, layer: str) -> int:
        """Parameters needed for a layer: the embeddings and the blocks below it."""
        if layer == NORM:
            return self.total_parameters
        return self.embedding_parameters + sum(self.block_parameters[: int(layer)])

    def flops(self, layer: str, tokens: Sequence[int]) -> float:
        """Floating-point operations of the forward pass of some texts up to a layer.

        Two for every weight of a matrix and token, and 4 · width · tokens² a block for the scores
        and the weighted sum of the attention. Norms, activations and look-ups are left out.

        Args:
            layer: the highest layer computed.
            tokens: tokens of each text.
        """
        count = self.blocks_run(layer)
        squares = float(sum(length * length for length in tokens))
        weights = float(sum(self.block_weights[:count]))
        return 2.0 * weights * sum(tokens) + 4.0 * self.width * count * squares

    def resolve(self, backbone: str, asked: object) -> str:
        """The name of a layer given as an index (negative: counted from the last) or `norm`.

        Raises:
            UserError: listing the layers that exist.
        """
        text = str(asked)
        indices = [layer for layer in self.layers if layer != NORM]
        if text.startswith("-") and text[1:].isdigit() and 0 < int(text[1:]) <= len(indices):
            return indices[int(text)]
        if text not in self.layers:
            raise unknown(f"layers of {backbone}", asked, self.layers)
        return text
