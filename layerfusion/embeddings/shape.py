"""The layers of a model, and the cost of reaching each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from layerfusion.errors import unknown

NORM = "norm"
"""Name of the layer that holds the output of a model's final norm."""
BATCH = 32
"""Number of texts in the batch whose latency we measure."""


@dataclass(frozen=True)
class ModelShape:
    """Layers and sizes of a model, saved beside its embeddings so that reading needs no model."""

    layers: tuple[str, ...]
    """Names of the layers: "0" enters the first block, "1" to "L" leave the blocks in turn, and
    `norm` is the output of the final norm, if the model has one."""
    width: int
    max_length: int
    """Largest number of tokens in a window, special tokens included."""
    total_parameters: int
    embedding_parameters: int
    """Numbers in the table of token embeddings; those of positions, a hundredth of it, are left
    out."""
    block_parameters: tuple[int, ...]
    """Number of parameters of each block."""
    block_weights: tuple[int, ...]
    """Number of matrix entries of each block; each is multiplied once for every token."""
    ends_early: bool = True
    """True if a pass can end at a layer. A model that shares its blocks always runs to its end."""

    is_given: bool = False
    """True for vectors that were computed elsewhere, so that nobody knows what they cost."""

    @property
    def num_blocks(self) -> int:
        """Return the number of blocks of the model."""
        return len(self.block_weights)

    def blocks_below(self, layer: str) -> int:
        """Return the number of blocks that a layer depends on."""
        return self.num_blocks if layer == NORM else int(layer)

    def blocks_run(self, layer: str) -> int:
        """Return the number of blocks that a pass up to a layer computes."""
        return self.blocks_below(layer) if self.ends_early else self.num_blocks

    def depth(self, layer: str) -> float:
        """Return the relative depth: 0 before the first block, 1 after the last."""
        return self.blocks_below(layer) / self.num_blocks if self.num_blocks else 1.0

    def parameters(self, layer: str) -> int:
        """Count the parameters that a layer needs: token embeddings and the blocks below it."""
        if layer == NORM:
            return self.total_parameters
        return self.embedding_parameters + sum(self.block_parameters[: int(layer)])

    def flops(self, layer: str, tokens: Sequence[int]) -> float:
        """Estimate the floating-point operations of a forward pass up to a layer.

        We count two operations for each matrix weight and token, and 4 · width · tokens² in each
        block for the scores and the weighted sum of the attention. We leave out norms, activations
        and look-ups.

        Args:
            layer: the highest layer that the pass computes.
            tokens: number of tokens of each text.

        Returns:
            Infinity for vectors that were computed elsewhere: no limit allows them, and nothing is
            dearer.
        """
        if self.is_given:
            return math.inf
        count = self.blocks_run(layer)
        squares = float(sum(length * length for length in tokens))
        weights = float(sum(self.block_weights[:count]))
        return 2.0 * weights * sum(tokens) + 4.0 * self.width * count * squares

    def resolve(self, backbone: str, asked: object) -> str:
        """Return the name of a layer given as `norm` or as an index, negative from the end.

        Raises:
            UserError: if there is no such layer; the message lists those that exist.
        """
        text = str(asked)
        indices = [layer for layer in self.layers if layer != NORM]
        if text.startswith("-") and text[1:].isdigit() and 0 < int(text[1:]) <= len(indices):
            return indices[int(text)]
        if text not in self.layers:
            raise unknown(f"layers of {backbone}", asked, self.layers)
        return text


def layer_name(layer: str | int, known: Sequence[str]) -> str:
    """Return the name of a layer of a model, which may be counted from its end.

    Raises:
        UserError: if the model has no such layer.
    """
    name = str(layer)
    if name.startswith("-") and name[1:].isdigit() and int(name[1:]) <= len(known):
        return known[int(name)]
    if name not in known:
        raise unknown("layers", layer, known)
    return name
