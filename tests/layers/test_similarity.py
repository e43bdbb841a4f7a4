"""Linear CKA against its formulas: in feature space where biased, by loops where debiased."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from layerfusion.errors import UserError
from layerfusion.layers import similarity
from layerfusion.layers.similarity import linear_cka


def layers(rows: int = 13, seed: int = 0) -> list[np.ndarray]:
    """Layers that share a part, of widths below and above the rows, one in the thousands."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(rows, 5))
    found = [
        common @ rng.normal(size=(5, width)) + rng.normal(size=(rows, width))
        for width in (3, 8, 8, 40)
    ]
    found[2] = 12_000 + 300 * found[2]
    return found


def cka(arrays: list[np.ndarray], *, debiased: bool) -> np.ndarray:
    return linear_cka([torch.from_numpy(each) for each in arrays], debiased=debiased).numpy()


def biased_reference(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    norm = np.linalg.norm
    return float(norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y)))


def hsic_1(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. (2012): K and L without their diagonals."""
    n = len(x)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    k, m = np.zeros((n, n)), np.zeros((n, n))
    for i, j in pairs:
        k[i, j], m[i, j] = x[i] @ x[j], y[i] @ y[j]
    trace = sum(k[i, j] * m[j, i] for i, j in pairs)
    sums = sum(k[i, j] for i, j in pairs) * sum(m[i, j] for i, j in pairs)
    cross = sum(k[i, j] * m[j, q] for i, j in pairs for q in range(n))
    inside = trace + sums / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)
    return float(inside / (n * (n - 3)))


def debiased_reference(x: np.ndarray, y: np.ndarray) -> float:
    return hsic_1(x, y) / math.sqrt(hsic_1(x, x) * hsic_1(y, y))


both = pytest.mark.parametrize("debiased", [False, True])


@both
@pytest.mark.parametrize("rows", [4, 5, 13])
def test_every_pair_is_its_formula(debiased: bool, rows: int) -> None:
    arrays = layers(rows)
    reference = debiased_reference if debiased else biased_reference
    # The loops lose digits to a mean of 12,000, which changes nothing.
    plain = [each - each.mean(axis=0) for each in arrays]
    expected = [[reference(x, y) for y in plain] for x in plain]
    np.testing.assert_allclose(cka(arrays, debiased=debiased), expected, atol=1e-9)


@both
@pytest.mark.parametrize("cells", [1, 4 * 13 * 5, 4 * 13 * 12])
def test_blocks_change_nothing(debiased: bool, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cka(layers(), debiased=debiased)
    monkeypatch.setattr(similarity, "CELLS", cells)
    np.testing.assert_allclose(cka(layers(), debiased=debiased), whole, atol=1e-12)


@both
def test_rotation_scale_shift_and_row_order_change_nothing(debiased: bool) -> None:
    arrays = layers()
    expected = cka(arrays, debiased=debiased)
    rng = np.random.default_rng(1)
    order = rng.permutation(len(arrays[0]))
    changed = []
    for scale, x in zip((1e4, 1e-6, 1.0, -30.0), arrays, strict=True):
        q, _ = np.linalg.qr(rng.normal(size=(x.shape[1], x.shape[1])))
        changed.append(scale * (x @ q + rng.normal(size=x.shape[1]))[order])
    np.testing.assert_allclose(cka(changed, debiased=debiased), expected, atol=1e-9)


@both
def test_symmetric_with_exact_ones(debiased: bool) -> None:
    found = cka([*layers(), np.full((13, 2), 0.1)], debiased=debiased)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(found.diagonal(), 1.0)
    assert np.abs(found).max() == 1.0


@both
def test_the_same_layer_rotated_is_alike(debiased: bool) -> None:
    for seed in range(20):
        x = layers(seed=seed)[1]
        q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))
        found = cka([x, x @ q], debiased=debiased)[0, 1]
        assert found == pytest.approx(1)
        assert found <= 1


def test_only_debiased_is_unrelated_layers_similarity_about_0() -> None:
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=(50, 200)) for _ in range(12)]
    off = ~np.eye(12, dtype=bool)
    assert cka(arrays, debiased=False)[off].min() > 0.5
    found = cka(arrays, debiased=True)[off]
    assert abs(found.mean()) < 0.01
    assert found.min() < 0 < found.max()


@both
@pytest.mark.parametrize("value", [0.0, 0.1, 12_000.3])
def test_constant_features_are_like_nothing(debiased: bool, value: float) -> None:
    arrays = [*layers()[:2], np.full((13, 6), value), np.full((13, 3), 2 * value)]
    found = cka(arrays, debiased=debiased)
    np.testing.assert_array_equal(found[2:, :2], 0.0)
    np.testing.assert_array_equal(found[2:, 2:], np.eye(2))
    np.testing.assert_allclose(found[:2, :2], cka(arrays[:2], debiased=debiased), atol=1e-12)


def test_rows_equally_far_apart_are_like_nothing_once_debiased() -> None:
    x = layers()[0]
    found = cka([x, np.eye(13)], debiased=True)
    np.testing.assert_array_equal(found, np.eye(2))


def test_float32_and_half_are_computed_in_double() -> None:
    single = [torch.from_numpy(each).float() for each in layers()]
    double = [each.double() for each in single]
    assert torch.equal(linear_cka(single), linear_cka(double))
    half = [each[:, :3].half() for each in single[:2]]
    kept = [each.clone() for each in half]
    assert torch.equal(linear_cka(half), linear_cka([each.double() for each in half]))
    assert all(torch.equal(a, b) for a, b in zip(half, kept, strict=True))


def test_too_few_rows_are_an_error() -> None:
    three = [torch.randn(3, 5)]
    with pytest.raises(UserError, match=r"^linear_cka: 3 rows; debiased takes 4 or more"):
        linear_cka(three)
    assert linear_cka(three, debiased=False).tolist() == [[1.0]]
    with pytest.raises(UserError, match=r"^linear_cka: 1 rows"):
        linear_cka([torch.randn(1, 5)], debiased=False)


def test_unequal_rows_and_no_layers_are_errors() -> None:
    with pytest.raises(UserError, match=r"^linear_cka: layers of 5 and 6 rows"):
        linear_cka([torch.randn(6, 2), torch.randn(5, 2)])
    with pytest.raises(UserError, match=r"^linear_cka: there are no layers"):
        linear_cka([])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_feature_that_is_not_finite_is_an_error(bad: float) -> None:
    x = torch.randn(6, 2)
    x[1, 1] = bad
    with pytest.raises(UserError, match=r"^linear_cka: a feature of layer 1 is not finite"):
        linear_cka([torch.randn(6, 2), x])
