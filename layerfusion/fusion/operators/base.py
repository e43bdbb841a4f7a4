"""What every operator is, and the pieces that they share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerfusion.errors import UserError


class FusionOperator(nn.Module):
    """Fuses K sources of widths d_1 … d_K into one vector.

    Args:
        widths: width d_k of each source.
        width: width of the fused vector.
    """

    classifies = False
    """Whether what comes out are the classes' log-probabilities, so that no layer follows."""

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.width = width

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Fuse one batch.

        Args:
            sources: one standardised tensor a source. Shapes: (batch, d_k).

        Returns:
            The fused vectors, shape (batch, width), and the weight of each source in them, shape
            (batch, K), rows that sum to 1; none where the operator does not weight its sources.
        """
        raise NotImplementedError

    def forward(self, sources: list[Tensor]) -> Tensor:
        """The fused vectors alone. Shape: (batch, width)."""
        return self.fuse(sources)[0]

    def source_losses(self, sources: list[Tensor], target: Tensor) -> Tensor | None:
        """Loss of the sources' own heads, added to that of what they make together in training.

        None for operators whose sources have no heads of their own.

        Args:
            sources: one standardised tensor a source. Shapes: (batch, d_k).
            target: class indices. Shape: (batch,).
        """
        return None


class Projections(nn.Module):
    """y_k = W_k x_k + b_k: every source brought to one width.

    One product a source: 39 of them cost the same (within 5 %) as batched by equal width.

    Args:
        widths: width d_k of each source.
        width: to project to; one number, or one a source.
    """

    def __init__(self, widths: Sequence[int], width: int | Sequence[int]) -> None:
        super().__init__()
        self.out_widths = [width] * len(widths) if isinstance(width, int) else list(width)
        pairs = zip(widths, self.out_widths, strict=True)
        self.linear = nn.ModuleList(nn.Linear(source, target) for source, target in pairs)

    def forward(self, sources: list[Tensor]) -> list[Tensor]:
        """One tensor a source. Shapes: (batch, width)."""
        return [project(x) for project, x in zip(self.linear, sources, strict=True)]

    def activated(self, sources: list[Tensor]) -> Tensor:
        """z_k = GELU(y_k), stacked. Shape: (batch, K, width)."""
        return F.gelu(torch.stack(self(sources), dim=1))


def rescale(vector: Tensor) -> Tensor:
    """r(v) = v √n / ‖v‖, so that the n numbers have mean square 1. Shape: (…, n), as given."""
    return F.normalize(vector, dim=-1) * vector.shape[-1] ** 0.5


def log_shares(importance: Sequence[float] | None, num_sources: int) -> Tensor:
    """Logarithm of each source's share of the importance; zeros without one. Shape: (K,).

    Raises:
        UserError: where the importance has not one positive number a source.
    """
    if importance is None:
        return torch.zeros(num_sources)
    shares = torch.tensor(list(importance), dtype=torch.float64)
    usable = shares.shape == (num_sources,) and bool((shares.isfinite() & (shares > 0)).all())
    if not usable:
        raise UserError(
            f"importance: one positive number is needed for each of the {num_sources} sources, "
            f"found {list(importance)}"
        )
    return (shares / shares.sum()).log()


def check_divides(operator: str, width: int, part: int, key: str) -> None:
    """Raise a UserError where a width cannot be split into parts."""
    if width % part:
        below = width - width % part
        near = " or ".join(str(size) for size in (below, below + part) if size)
        raise UserError(
            f"fusion.width={width}: {operator} needs a multiple of {part} ({key}), such as {near}"
        )
