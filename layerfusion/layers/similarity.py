"""How alike two layers are, whatever their widths, by centred kernel alignment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from layerfusion.errors import UserError
from layerfusion.layers.transferability import centred

CELLS = 40_000_000
"""Gram entries of all layers held at once: 320 MB."""
NOTHING = 1e-10
"""Norm over trace of a centred Gram matrix that holds nothing but rounding."""


def linear_cka(features: Sequence[Tensor], *, debiased: bool = True) -> Tensor:
    """Linear CKA of all pairs of layers on the same rows.

        CKA(i, j) = ⟨G_i, G_j⟩ / (‖G_i‖ ‖G_j‖),   G = x x' centred

    Biased, G is centred by row and column, and CKA = ‖x_i' x_j‖² / (‖x_i' x_i‖ ‖x_j' x_j‖) of
    centred x lies in [0, 1]; it is far above 0 for unrelated layers wider than the rows are many.
    Debiased, the diagonal of G counts nothing and the rest is centred without it, which makes the
    inner product n (n − 3) times HSIC_1: about 0 for unrelated layers, so it may be below. Shift,
    scale and rotation of a layer change nothing. A layer that holds nothing (constant features;
    debiased, also rows that all are equally far apart) has 0 with all others.

    The Gram matrices are never held whole: blocks of their rows, of all layers, are compared by one
    matrix product. Complexity: O(layers · rows² · width + layers² · rows²) time; 320 MB and a
    few times a layer in float64.

    Args:
        features: one tensor a layer. Shapes: (rows, d_l), any floating dtype.
        debiased: take the diagonals out; needs four rows.

    Returns:
        Symmetric, ones on the diagonal. Shape: (layers, layers), float64.

    Raises:
        UserError: for no layer, unequal rows, a feature that is not finite, and too few rows.

    Source: Kornblith et al., "Similarity of neural network representations revisited", ICML 2019;
    HSIC_1: Song et al., "Feature selection via dependence maximization", JMLR 2012, used for CKA by
    Nguyen, Raghu & Kornblith, ICLR 2021; its form as an inner product: Székely & Rizzo, "Partial
    distance correlation with methods for dissimilarities", 2014.
    """
    rows = _checked(features, debiased)
    # Filled in place: small results kept between large temporaries would scatter the heap.
    norms = torch.empty(len(features), rows, dtype=torch.float64)
    for norm, layer in zip(norms, features, strict=True):
        norm.copy_(centred(layer).square().sum(dim=1))
    block = max(1, CELLS // (len(features) * rows))
    products = torch.zeros(len(features), len(features), dtype=torch.float64)
    for start in range(0, rows, block):
        products += _products(features, norms, slice(start, min(start + block, rows)), debiased)
    own = products.diagonal().sqrt()
    holds = own > NOTHING * norms.sum(dim=1)
    own = own.where(holds, torch.inf)
    # Sums and products of two commute exactly, so the result is exactly symmetric.
    similarity = ((products + products.T) / 2 / (own[:, None] * own)).clamp(-1, 1)
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
