"""Similarity of layers of any width, by centred kernel alignment (CKA)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from layerfusion.errors import UserError
from layerfusion.layers.transferability import centred

CELLS = 40_000_000
"""Limit on the Gram matrix entries of all layers in memory at once: 320 MB."""
NOTHING = 1e-10
"""A centred Gram matrix holds only rounding if its norm is at most this share of its trace."""


def linear_cka(features: Sequence[Tensor], *, debiased: bool = True) -> Tensor:
    """Linear CKA of all pairs of layers on the same rows.

        CKA(i, j) = ⟨G_i, G_j⟩ / (‖G_i‖ ‖G_j‖),   G = x x' centred

    The biased CKA centres G by row and column and equals ‖x_i' x_j‖² / (‖x_i' x_i‖ ‖x_j' x_j‖) for
    centred x. It lies in [0, 1], but is far above 0 for unrelated layers with more features than
    rows. The debiased CKA leaves the diagonal of G out and centres the rest without it; the inner
    product is then n (n − 3) times HSIC_1, which is about 0 for unrelated layers and may be
    negative. Shift, scale and rotation of a layer change nothing. A layer without any structure
    (constant features; if debiased, also rows that are all equally far apart) has similarity 0 to
    all others.

    No Gram matrix is in memory as a whole: one matrix product compares a block of their rows for
    all layers. Complexity: O(layers · rows² · width + layers² · rows²) time, 320 MB of memory and
    a few times a layer in float64.

    Args:
        features: the vectors of each layer. Shapes: (rows, d_l), any floating dtype.
        debiased: true to leave the diagonals out, which needs four rows.

    Returns:
        Symmetric, with ones on the diagonal. Shape: (layers, layers), float64.

    Raises:
        UserError: if there is no layer, the numbers of rows differ, a feature is not finite, or
            there are too few rows.

    Example:
        >>> layer = torch.randn(50, 8)
        >>> similarity = linear_cka([layer, 2 * layer + 1, torch.randn(50, 3)])
        >>> similarity[0, 1].round(decimals=6).item(), bool(similarity[0, 2].abs() < 0.5)
        (1.0, True)

    Source: Kornblith et al., "Similarity of neural network representations revisited", ICML 2019;
    HSIC_1: Song et al., "Feature selection via dependence maximization", JMLR 2012, used for CKA by
    Nguyen, Raghu & Kornblith, ICLR 2021; its form as an inner product: Székely & Rizzo, "Partial
    distance correlation with methods for dissimilarities", 2014.
    """
    rows = _checked(features, debiased)
    # Filled in place, because small tensors between large temporary ones fragment the heap.
    norms = torch.empty(len(features), rows, dtype=torch.float64)
    for norm, layer in zip(norms, features, strict=True):
        norm.copy_(centred(layer).square().sum(dim=1))
    block = max(1, CELLS // (len(features) * rows))
    products = torch.zeros(len(features), len(features), dtype=torch.float64)
    for start in range(0, rows, block):
        products += _products(features, norms, slice(start, min(start + block, rows)), debiased)
    norm = products.diagonal().sqrt()
    holds = norm > NOTHING * norms.sum(dim=1)
    norm = norm.where(holds, torch.inf)
    # Sums and products of two commute exactly, so the result is exactly symmetric.
    similarity = ((products + products.T) / 2 / (norm[:, None] * norm)).clamp(-1, 1)
    return similarity.fill_diagonal_(1.0)


def _checked(features: Sequence[Tensor], debiased: bool) -> int:
    """The number of rows, the same for all."""
    if not features:
        raise UserError("linear_cka: there are no layers; it takes one or more")
    sizes = sorted({len(layer) for layer in features})
    if len(sizes) > 1:
        found = " and ".join(map(str, sizes))
        raise UserError(f"linear_cka: layers of {found} rows; all have to have the same rows")
    if sizes[0] < (4 if debiased else 2):
        raise UserError(
            f"linear_cka: {sizes[0]} rows; debiased takes 4 or more, debiased=False 2 or more"
        )
    for place, layer in enumerate(features):
        if not bool(layer.isfinite().all()):
            raise UserError(f"linear_cka: a feature of layer {place} is not finite; all have to be")
    return sizes[0]


def _products(features: Sequence[Tensor], norms: Tensor, block: slice, debiased: bool) -> Tensor:
    """Inner products of some rows of the centred Gram matrices. Shape: (layers, layers).

    Args:
        features: of the layers. Shapes: (rows, d_l).
        norms: ‖x_i‖² of centred features. Shape: (layers, rows).
        block: the rows.
        debiased: whether the diagonals are out.
    """
    layers, rows = norms.shape
    # Float64 holds the fourth powers of all that float32 can, so nothing needs to be scaled.
    grams = torch.empty(layers, block.stop - block.start, rows, dtype=torch.float64)
    for gram, layer, norm in zip(grams, features, norms, strict=True):
        x = centred(layer)
        torch.mm(x[block], x.T, out=gram)
        if debiased:
            _centre_without_diagonal(gram, norm, block.start)
    flat = grams.flatten(1)
    return flat @ flat.T


def _centre_without_diagonal(gram: Tensor, norms: Tensor, start: int) -> None:
    """Make rows and columns sum to 0 with a diagonal of 0, in place (Székely & Rizzo, 2014).

    With centred features the rows of the whole Gram matrix sum to 0, so those of the matrix without
    its diagonal sum to −‖x_i‖²: a block of rows can be centred alone.

    Args:
        gram: some rows of x x'. Shape: (block, rows).
        norms: ‖x_i‖². Shape: (rows,).
        start: the first row of the block.
    """
    rows = len(norms)
    shift = (norms - norms.sum() / (2 * (rows - 1))) / (rows - 2)
    gram += shift
    gram += shift[start : start + len(gram), None]
    gram.diagonal(start).zero_()
