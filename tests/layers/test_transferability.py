"""Every score against its paper's formula, written out in numpy; then what must not change it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.optimize import minimize
from sklearn.covariance import LedoitWolf

from layerfusion.errors import UserError
from layerfusion.layers.transferability import effective_rank, fisher, h_score, logme

Score = Callable[[torch.Tensor, torch.Tensor], float]


def rank_score(features: torch.Tensor, _labels: torch.Tensor) -> float:
    return effective_rank(features)


SUPERVISED: dict[str, Score] = {"logme": logme, "h_score": h_score, "fisher": fisher}
SCORES: dict[str, Score] = {**SUPERVISED, "effective_rank": rank_score}


def data(
    rows: int, width: int, classes: int, kind: str = "signal"
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows + width)
    labels = np.arange(rows) % classes
    rng.shuffle(labels)
    x = rng.normal(size=(rows, width))
    if kind != "noise":
        x += rng.normal(size=(classes, width))[labels]
    if kind == "graded":
        x = x * np.logspace(2, -2, width) + 3
    if kind == "massive":
        x[:, 0] = 12_000 + 300 * x[:, 0]
    if kind == "deficient":
        x[:, width // 2 :] = x[:, : width - width // 2]
    return x, labels


SHAPES = [(60, 9, 3), (40, 25, 2), (24, 40, 3), (30, 30, 4)]
KINDS = ["signal", "noise", "graded", "massive", "deficient"]
cases = pytest.mark.parametrize(("shape", "kind"), [(s, k) for s in SHAPES for k in KINDS])


def score(name: str, x: np.ndarray, labels: np.ndarray) -> float:
    return SCORES[name](torch.from_numpy(x), torch.from_numpy(labels))


# -- references ---------------------------------------------------------------------------------


def log_evidence(f: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> float:
    """Equation 2 of You et al. (2021)."""
    n, d = f.shape
    a = alpha * np.eye(d) + beta * f.T @ f
    m = beta * np.linalg.solve(a, f.T @ y)
    return (
        n / 2 * math.log(beta)
        + d / 2 * math.log(alpha)
        - n / 2 * math.log(2 * math.pi)
        - beta / 2 * ((f @ m - y) ** 2).sum()
        - alpha / 2 * (m @ m)
        - np.linalg.slogdet(a)[1] / 2
    )


def logme_reference(x: np.ndarray, labels: np.ndarray) -> float:
    x = x / np.abs(x).max()  # so that one range of starts suits all
    per_class = []
    for c in np.unique(labels):
        y = (labels == c).astype(float)

        def loss(logs: np.ndarray, y: np.ndarray = y) -> float:
            logs = logs.clip(-25, 25)
            return -log_evidence(x, y, math.exp(logs[0]), math.exp(logs[1])) / len(y)

        starts = [np.array([float(a), float(b)]) for a in range(-24, 22) for b in range(8)]
        starts = sorted(starts, key=loss)[:2]
        settings = {"xatol": 1e-6, "fatol": 1e-12, "maxiter": 4000}
        found = [minimize(loss, s, method="Nelder-Mead", options=settings).fun for s in starts]
        per_class.append(-min(found))
    return float(np.mean(per_class))


def h_score_reference(x: np.ndarray, labels: np.ndarray) -> float:
    estimate = LedoitWolf().fit(x)
    alpha = float(estimate.shrinkage_)
    z = np.array([x[labels == label].mean(axis=0) for label in labels])
    z = z - z.mean(axis=0)
    sigma_z = z.T @ z / len(z)
    return float(np.trace(np.linalg.inv(estimate.covariance_) @ sigma_z) * (1 - alpha))


def fisher_reference(x: np.ndarray, labels: np.ndarray) -> float:
    between = within = 0.0
    for place in range(x.shape[1]):
        column = x[:, place]
        z = (column - column.mean()) / column.std()
        for c in set(labels.tolist()):
            mine = [value for value, label in zip(z, labels, strict=True) if label == c]
            mean = sum(mine) / len(mine)
            between += len(mine) * mean**2
            within += sum((value - mean) ** 2 for value in mine)
    return between / within


def effective_rank_reference(x: np.ndarray) -> float:
    sigma = np.asarray(scipy.linalg.svdvals(x - x.mean(axis=0)))
    p = sigma / sigma.sum()
    return math.exp(-sum(each * math.log(each) for each in p if each > 1e-12))


# -- against them -------------------------------------------------------------------------------


@cases
def test_logme_is_the_largest_log_evidence(shape: tuple[int, int, int], kind: str) -> None:
    x, labels = data(*shape, kind)
    assert score("logme", x, labels) == pytest.approx(logme_reference(x, labels), abs=2e-6)


@cases
def test_h_score_is_its_formula_with_scikit_learns_shrinkage(
    shape: tuple[int, int, int], kind: str
) -> None:
    x, labels = data(*shape, kind)
    assert score("h_score", x, labels) == pytest.approx(h_score_reference(x, labels), rel=1e-6)


@cases
def test_fisher_is_its_sums(shape: tuple[int, int, int], kind: str) -> None:
    x, labels = data(*shape, kind)
    assert score("fisher", x, labels) == pytest.approx(fisher_reference(x, labels), rel=1e-9)


@cases
def test_effective_rank_is_that_of_scipys_singular_values(
    shape: tuple[int, int, int], kind: str
) -> None:
    x, labels = data(*shape, kind)
    expected = effective_rank_reference(x)
    assert score("effective_rank", x, labels) == pytest.approx(expected, rel=1e-7)


def test_logme_finds_the_higher_of_two_maxima() -> None:
    # Columns of very different size: algorithm 1 of the paper, from α = β = 1, ends at a lower
    # maximum of the evidence of either class.
    rng = np.random.default_rng(26)
    labels = np.arange(40) % 2
    x = rng.normal(size=(40, 12)) * np.logspace(3, -1, 12) + 1
    x += 0.2 * np.outer(labels, rng.normal(size=12))
    x[:, -1] += 0.5 * labels
    plain = []
    for c in (0, 1):
        y = (labels == c).astype(float)
        alpha = beta = 1.0
        s = np.linalg.eigvalsh(x.T @ x)
        for _ in range(50):
            m = beta * np.linalg.solve(alpha * np.eye(12) + beta * x.T @ x, x.T @ y)
            gamma = (beta * s / (alpha + beta * s)).sum()
            alpha, beta = gamma / (m @ m), (40 - gamma) / ((x @ m - y) ** 2).sum()
        plain.append(log_evidence(x, y, alpha, beta) / 40)
    assert score("logme", x, labels) > np.mean(plain) + 0.01
    assert score("logme", x, labels) == pytest.approx(logme_reference(x, labels), abs=2e-6)


def test_effective_rank_of_k_equal_directions_is_k() -> None:
    basis = scipy.linalg.hadamard(16)[:, 1:6].astype(float)  # columns of mean 0, equal and at right
    labels = np.arange(16) % 2
    assert score("effective_rank", basis, labels) == pytest.approx(5)


def test_h_score_approaches_the_number_of_classes_less_one() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(3000) % 4
    x = 1e-4 * rng.normal(size=(3000, 3)) + np.eye(4)[labels][:, :3]
    assert score("h_score", x, labels) == pytest.approx(3, abs=0.02)


def test_scores_rank_a_layer_with_signal_above_one_without() -> None:
    x, labels = data(200, 30, 4)
    noise, _ = data(200, 30, 4, "noise")
    for name in SUPERVISED:
        assert score(name, x, labels) > score(name, noise, labels)


# -- what must not change them ------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SCORES)
def test_row_order_class_names_scale_and_dtype_change_nothing(
    name: str, shape: tuple[int, int, int]
) -> None:
    x, labels = data(*shape)
    x = x.astype(np.float32).astype(np.float64)
    expected = score(name, x, labels)
    order = np.random.default_rng(0).permutation(len(x))
    renamed = np.array([7, 2, 11, 3])[labels]  # classes between them have no row
    for variant in (
        score(name, x[order], labels[order]),
        score(name, x, renamed),
        score(name, 1e4 * x, labels),
        score(name, 1e-6 * x, labels),
        score(name, x.astype(np.float32), labels),
    ):
        assert variant == pytest.approx(expected, rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["logme", "h_score", "effective_rank"])
def test_rotation_changes_nothing(name: str, shape: tuple[int, int, int]) -> None:
    x, labels = data(*shape)
    q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(x.shape[1], x.shape[1])))
    assert score(name, x @ q, labels) == pytest.approx(score(name, x, labels), rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("name", ["h_score", "fisher", "effective_rank"])
def test_a_shift_changes_nothing(name: str) -> None:
    x, labels = data(60, 9, 3)
    shifted = x + np.linspace(-50, 50, 9)
    assert score(name, shifted, labels) == pytest.approx(score(name, x, labels), rel=1e-9)


def test_copies_of_every_text_change_only_what_counts_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (150,), generator=generator)
    features = torch.randn(150, 20, generator=generator)
    features[:, :3] += torch.nn.functional.one_hot(labels, 3)
    copies, their_labels = features.repeat(4, 1), labels.repeat(4)
    assert fisher(copies, their_labels) == pytest.approx(fisher(features, labels))
    assert effective_rank(copies) == pytest.approx(effective_rank(features))
    for score in (logme, h_score):  # less noise, and less shrinkage
        assert score(copies, their_labels) > score(features, labels) + 0.01


def test_fisher_heeds_no_columns_scale_and_no_constant_column() -> None:
    x, labels = data(60, 9, 3)
    expected = score("fisher", x, labels)
    assert score("fisher", x * np.logspace(-3, 4, 9), labels) == pytest.approx(expected, rel=1e-9)
    wider = np.concatenate([x, np.full((60, 1), 0.1), np.full((60, 1), 12_000.3)], axis=1)
    assert score("fisher", wider, labels) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", SCORES)
def test_largest_floats_of_a_dtype_do_not_overflow(name: str) -> None:
    x, labels = data(60, 9, 3)
    largest = torch.from_numpy(x / np.abs(x).max() * 3e38).float()
    found = SCORES[name](largest, torch.from_numpy(labels))
    assert found == pytest.approx(score(name, x, labels), rel=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_half_precision_is_computed_in_double(name: str) -> None:
    x, labels = data(60, 9, 3)
    half = torch.from_numpy(x).to(torch.bfloat16)
    expected = score(name, half.double().numpy(), labels)
    assert SCORES[name](half, torch.from_numpy(labels)) == expected
    assert torch.equal(half, torch.from_numpy(x).to(torch.bfloat16))  # arguments stay as they were


# -- degenerate inputs --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 0.1, 12_000.3])
@pytest.mark.parametrize("rows", [5, 40])
def test_constant_features(value: float, rows: int) -> None:
    labels = np.arange(rows) % 2
    x = np.full((rows, 8), value)
    for name in ("h_score", "fisher", "effective_rank"):
        assert score(name, x, labels) == 0.0
    if value == 0:
        # y ~ N(0, 1/β): the best β is 1 / mean(y²).
        expected = np.mean(
            [
                -(math.log(2 * math.pi * np.mean(labels == c)) + 1) / 2
                for c in (0, 1)
            ]
        )  # fmt: skip
        assert score("logme", x, labels) == pytest.approx(expected)
    else:
        assert score("logme", x, labels) == pytest.approx(logme_reference(x, labels), abs=2e-6)


def test_labels_that_features_hold_exactly() -> None:
    labels = np.arange(60) % 3
    x = np.eye(3)[labels]
    assert score("fisher", x, labels) == pytest.approx(1e12)
    # No finite maximum: what 1e-10 of the target as noise leaves, at three free weights.
    assert 9 < score("logme", x, labels) < 12
    assert score("effective_rank", x, labels) == pytest.approx(2)
    wide = np.repeat(x, 30, axis=1)
    assert score("logme", wide, labels) == pytest.approx(score("logme", x, labels), rel=1e-6)


def test_features_at_right_angles_to_the_labels_say_as_much_as_zeros() -> None:
    labels = np.tile([0, 1], 8)
    x = np.repeat([[1.0], [-1.0], [1.0], [-1.0]], 4, axis=0)
    assert score("logme", x, labels) == pytest.approx(score("logme", 0 * x, labels))
    assert score("h_score", x, labels) == score("fisher", x, labels) == 0.0


def test_few_rows_of_noise_are_shrunk_to_nothing() -> None:
    x, labels = data(20, 3, 2, "noise")
    assert LedoitWolf().fit(x).shrinkage_ == 1
    assert score("h_score", x, labels) == 0.0


def test_two_rows() -> None:
    # ‖x x' − Σ‖ is 0 for both rows: no shrinkage, and a singular covariance of one direction.
    x, labels = np.array([[1.0, 2.0, 3.0], [2.0, 0.0, 1.0]]), np.array([0, 1])
    assert score("h_score", x, labels) == pytest.approx(1)
    assert score("effective_rank", x, labels) == pytest.approx(1)


def test_one_column() -> None:
    x, labels = data(60, 1, 3)
    assert score("h_score", x, labels) == pytest.approx(h_score_reference(x, labels))
    assert score("effective_rank", x, labels) == pytest.approx(1)
    assert score("logme", x, labels) == pytest.approx(logme_reference(x, labels), abs=2e-6)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_feature_that_is_not_finite_is_an_error(name: str, bad: float) -> None:
    x, labels = data(10, 4, 2)
    x[3, 2] = bad
    with pytest.raises(UserError, match=rf"^{name}: a feature is (nan|inf); all have to be finite"):
        score(name, x, labels)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_no_features_are_an_error(name: str, shape: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=rf"^{name}: features of shape \({shape[0]}, {shape[1]}\)"):
        score(name, np.zeros(shape), np.arange(shape[0]))


@pytest.mark.parametrize("name", SUPERVISED)
def test_one_class_is_an_error(name: str) -> None:
    x, _ = data(10, 4, 2)
    with pytest.raises(UserError, match=rf"^{name}: all rows are of class 3; it takes two classes"):
        score(name, x, np.full(10, 3))
