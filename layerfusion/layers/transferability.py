"""Scores in closed form: they measure how well features predict the labels without any training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from layerfusion.errors import UserError
from layerfusion.layers.labels import require_classes
from layerfusion.layers.score import Score

TOLERANCE = 1e-10
"""LogME's iteration ends once no log evidence per row changes by more than this, in nats."""
MAX_STEPS = 500
"""Limit on the steps of LogME's iteration."""
EXACT = 1e-10
"""LogME counts at least this share of a target's sum of squares as unexplained."""
SEPARATE = 1e-12
"""Fisher's ratio counts at least this share of the scatter as within the classes."""
ROUNDING = 1e-7
"""A column whose standard deviation is at most this share of its mean counts as constant: the rest
is rounding of float32."""


def logme(features: Tensor, labels: Tensor) -> float:
    """LogME: the largest log evidence of a linear model of the labels. Higher is better.

    Each class is a target y of zeros and ones, y = F w + noise, with w ~ N(0, 1/α) and noise of
    precision β. The evidence p(y | F, α, β) is maximised over α and β by the fixed-point iteration
    of the paper. With λ = α / β the best β has a closed form, which leaves the one number λ:

        λ ← γ ‖F m − y‖² / ((n − γ) ‖m‖²),   γ = Σ s_i / (s_i + λ),   m = (λ + F'F)⁻¹ F' y

    with s_i the squared singular values of F. The evidence may have several maxima, so λ starts at
    the best of a grid; the iteration ends when no target's log evidence changes by more than 1e-10
    nats a row. Features are used as given, neither centred nor standardised; a
    factor that is common to all of them changes nothing.

    Classes without rows are left out. A target that is an exact linear function of fewer features
    than rows has no finite maximum, so 1e-10 of its square always counts as noise.

    Complexity: O(rows · width · m + m³) with m the smaller of rows and width.

    Args:
        features: Shape: (rows, width), any floating dtype; computed in float64.
        labels: class indices. Shape: (rows,), int64.

    Returns:
        Mean over the classes of the log evidence per row, in nats.

    Raises:
        UserError: for features that are empty or not finite, and for fewer than two classes.

    Source: You, Liu, Wang & Long, "LogME: practical assessment of pre-trained models for transfer
    learning", ICML 2021 (arXiv 2102.11005), algorithm 1; with λ alone: You et al., "Ranking and
    tuning pre-trained models", JMLR 2022 (arXiv 2110.10545).
    """
    x = _scaled("logme", features)
    codes, counts = _classes("logme", labels)
    rows = len(x)
    s, squares = _left_coordinates(x, codes, len(counts))
    unexplained = torch.zeros_like(counts)
    if len(s) < rows:
        unexplained = (counts - squares.sum(dim=1)).maximum(EXACT * counts)
    return float(_largest_log_evidence(s, squares, unexplained, rows).mean())


def h_score(features: Tensor, labels: Tensor) -> float:
    """H-score with a shrunk covariance: variance of the class means relative to all variance.

        H = (1 − a) tr(Σ_a⁻¹ Σ_z),   Σ_a = (1 − a) Σ + a (tr Σ / width) I

    with Σ the covariance of the features, Σ_z that of the class means, weighted by the rows of the
    classes, and a the shrinkage of Ledoit and Wolf. Both covariances divide by the rows. Between 0
    and the number of classes less one; higher is better. 0 for constant features. Where a is 0 and
    Σ singular, its pseudo-inverse is taken.

    Complexity: O(rows · width · m + m³) with m the smaller of rows and width.

    Args:
        features: Shape: (rows, width), any floating dtype; computed in float64.
        labels: class indices. Shape: (rows,), int64.

    Raises:
        UserError: for features that are empty or not finite, and for fewer than two classes.

    Source: Bao et al., "An information-theoretic approach to transferability in task transfer
    learning", ICIP 2019; shrinkage: Ibrahim, Ponomareva & Mazumder, arXiv 2110.06893; Ledoit &
    Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004.
    """
    x = centred(_scaled("h_score", features))
    codes, counts = _classes("h_score", labels)
    rows, width = x.shape
    s, squares = _left_coordinates(x, codes, len(counts))
    if not len(s):
        return 0.0
    variances = s / rows
    fourth = float(x.square().sum(dim=1).square().mean())
    shrinkage = _ledoit_wolf(variances, fourth, rows, width)
    # In the left singular basis U, class means are U's own, times the singular values.
    between = variances * (squares / counts[:, None]).sum(dim=0)
    shrunk = (1 - shrinkage) * variances + shrinkage * float(variances.sum()) / width
    return (1 - shrinkage) * float((between / shrunk).sum())


def fisher(features: Tensor, labels: Tensor) -> float:
    """Fisher's ratio: scatter between the classes over scatter within them. Higher is better.

        Σ_c n_c ‖μ_c‖² / Σ_i ‖x_i − μ_(y_i)‖²,   of features x standardised by column

    Shift and scale of a column change nothing. Constant columns are left out, and the score is 0 if
    all columns are constant. It is at most 1e12, if the rows of each class are equal.

    Complexity: O(rows · width).

    Args:
        features: Shape: (rows, width), any floating dtype; computed in float64.
        labels: class indices. Shape: (rows,), int64.

    Raises:
        UserError: for features that are empty or not finite, and for fewer than two classes.

    Source: Fisher, "The use of multiple measurements in taxonomic problems", 1936.
    """
    x = centred(_scaled("fisher", features))
    codes, counts = _classes("fisher", labels)
    scatter = x.square().sum(dim=0)
    varies = scatter > 0
    if not bool(varies.any()):
        return 0.0
    # Standardising gives every column the same scatter; per column, within is what is not between.
    between = (_sums(x, codes, len(counts)).square() / counts[:, None]).sum(dim=0)[varies]
    share = float((between / scatter[varies]).mean())
    return share / max(1 - share, SEPARATE)


def effective_rank(features: Tensor) -> float:
    """Effective rank: the number of directions that the features spread over. It needs no labels.

        exp(− Σ p_i log p_i),   p_i = σ_i / Σ σ_j,   σ the singular values of the centred features

    Between 1 and the smaller of width and rows less one; 0 for constant features.

    Complexity: O(rows · width · m + m³) with m the smaller of rows and width.

    Args:
        features: Shape: (rows, width), any floating dtype; computed in float64.

    Raises:
        UserError: for features that are empty or not finite.

    Source: Roy & Vetterli, "The effective rank", EUSIPCO 2007.
    """
    x = centred(_scaled("effective_rank", features))
    values = torch.linalg.eigvalsh(_gram(x))
    sigma = values[_resolved(values)].sqrt()
    if not len(sigma):
        return 0.0
    shares = sigma / sigma.sum()
    return math.exp(-float((shares * shares.log()).sum()))


LOGME = Score("logme", logme, compares_classes=True)
H_SCORE = Score("h_score", h_score, compares_classes=True)
FISHER = Score("fisher", fisher, compares_classes=True)
EFFECTIVE_RANK = Score(
    "effective_rank", lambda features, _labels: effective_rank(features), within_model=True
)


def centred(features: Tensor) -> Tensor:
    """Subtract the column means, and set constant columns to exactly zero.

    A deviation of 1e-7 of the mean is rounding of float32, not signal.

    Shape: (rows, width), float64, from (rows, width).
    """
    mean = features.mean(dim=0, dtype=torch.float64)
    x = features - mean
    constant = x.square().mean(dim=0).sqrt() <= ROUNDING * mean.abs()
    return x.masked_fill_(constant, 0.0)


# -- the parts ----------------------------------------------------------------------------------


def _scaled(score: str, features: Tensor) -> Tensor:
    """Scale features to at most 1, in float64. No score depends on a common factor."""
    if not features.numel():
        shape = tuple(features.shape)
        raise UserError(f"{score}: features of shape {shape}; it takes a row and a column")
    x = features.double()
    largest = x.abs().max()
    if not bool(largest.isfinite()):
        raise UserError(f"{score}: a feature is {float(largest)}; all have to be finite")
    return x / largest.where(largest > 0, 1.0)


def _classes(score: str, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Renumber the classes that have rows; return the class of each row, and each class's count."""
    require_classes(f"score {score}", labels)
    classes, codes, counts = labels.unique(return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise UserError(f"{score}: all rows are of class {int(classes[0])}; it takes two classes")
    return codes, counts.double()


def _sums(values: Tensor, codes: Tensor, classes: int) -> Tensor:
    """Sum over the rows of each class. Shape: (classes, columns), from (rows, columns)."""
    return values.new_zeros(classes, values.shape[1]).index_add_(0, codes, values)


def _gram(x: Tensor) -> Tensor:
    """The smaller of x'x and x x', which have the same eigenvalues except for zeros."""
    return x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T


def _resolved(values: Tensor) -> Tensor:
    """True for eigenvalues of a Gram matrix above its rounding errors. Shape: (m,), bool.

    This loses singular values below about 4e-7 of the largest, which float32 features hardly hold.
    """
    return values > len(values) * torch.finfo(values.dtype).eps * values.max()


def _left_coordinates(x: Tensor, codes: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Squared singular values of x = U √s V', and squared coordinates of the classes in U.

    Shapes: (rank,) and (classes, rank). A class is its indicator, 1 for its rows and else 0.
    """
    values, vectors = torch.linalg.eigh(_gram(x))
    kept = _resolved(values)
    s, vectors = values[kept], vectors[:, kept]
    if x.shape[1] <= x.shape[0]:
        return s, (_sums(x, codes, classes) @ vectors).square() / s
    return s, _sums(vectors, codes, classes).square()


def _largest_log_evidence(s: Tensor, squares: Tensor, unexplained: Tensor, rows: int) -> Tensor:
    """Log evidence per row at the best α and β, of each target. Shape: (classes,).

    Args:
        s: squared singular values of the features, above 0. Shape: (rank,).
        squares: squared coordinates of the targets. Shape: (classes, rank).
        unexplained: squares of the targets outside the span of the features. Shape: (classes,).
        rows: number of rows.
    """
    if not len(s):
        return _log_evidence(s, squares, unexplained, rows)
    s = s / s.max()
    # The grid reaches from below the smallest eigenvalue to far above the largest; further out, the
    # evidence has reached its limits.
    grid = torch.logspace(-16, 4, 81, dtype=torch.float64)
    evidences = torch.stack([_log_evidence(s / each, squares, unexplained, rows) for each in grid])
    best, places = evidences.max(dim=0)
    ratio, before = grid[places], best
    for _ in range(MAX_STEPS):
        ratio = _next_ratio(s, squares, unexplained, rows, ratio)
        now = _log_evidence(s / ratio[:, None], squares, unexplained, rows)
        best = best.maximum(now)
        if bool(((now - before).abs() <= TOLERANCE).all()):
            break
        before = now
    return best


def _log_evidence(ratios: Tensor, squares: Tensor, unexplained: Tensor, rows: int) -> Tensor:
    """Log evidence per row at the best β for a λ. Shape: (classes,).

    Args:
        ratios: s / λ. Shape: (rank,) or (classes, rank).
        squares: as in `_largest_log_evidence`.
        unexplained: as in `_largest_log_evidence`.
        rows: number of rows.
    """
    quadratic = unexplained + (squares / (1 + ratios)).sum(dim=1)
    determinant = ratios.log1p().sum(dim=-1) / rows
    return -((2 * math.pi / rows * quadratic).log() + 1 + determinant) / 2


def _next_ratio(
    s: Tensor, squares: Tensor, unexplained: Tensor, rows: int, ratio: Tensor
) -> Tensor:
    """One step of the fixed-point iteration of λ. Shape: (classes,)."""
    ratios = s / ratio[:, None]
    shrunk = 1 / (1 + ratios)
    residual = unexplained + (squares * shrunk.square()).sum(dim=1)
    norm = (squares * ratios * shrunk.square()).sum(dim=1)  # λ ‖m‖²
    gamma = (ratios * shrunk).sum(dim=1)
    freedom = rows - len(s) + shrunk.sum(dim=1)  # n − γ, without its cancellation
    # λ goes to infinity if the features do not predict a target, and to 0 if they interpolate it.
    return (ratio * gamma * residual / (freedom * norm)).clamp(1e-20, 1e20)


def _ledoit_wolf(variances: Tensor, fourth: float, rows: int, width: int) -> float:
    """Shrinkage of Ledoit and Wolf, in [0, 1].

    Args:
        variances: nonzero eigenvalues of the covariance. Shape: (rank,).
        fourth: mean over the rows of ‖x‖⁴.
        rows: number of rows.
        width: number of columns.
    """
    squared = float(variances.square().sum())  # ‖Σ‖²
    distance = squared - float(variances.sum()) ** 2 / width  # ‖Σ − (tr Σ / width) I‖²
    if distance <= 1e-12 * squared:
        return 0.0  # the covariance already is the shrinkage target
    error = (fourth - squared) / rows
    return min(max(error, 0.0), distance) / distance
