"""The published operators against float64 NumPy, and the published training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from layerfusion.config.job import FusionConfig
from layerfusion.errors import UserError
from layerfusion.published.operators import PUBLISHED, build_head, build_published
from layerfusion.published.settings import PUBLISHED_OPERATORS
from layerfusion.published.training import EpochDone, PublishedFit, fit_as_published

WIDTHS = [(7, 5), (5, 7), (6, 6)]
Weights = dict[str, np.ndarray]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum(axis=1, keepdims=True))


def linear(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def concat(a: np.ndarray, b: np.ndarray, w: Weights) -> np.ndarray:
    return np.hstack([a, b])


def hadamard(a: np.ndarray, b: np.ndarray, w: Weights) -> np.ndarray:
    larger, smaller = (a, b) if a.shape[1] >= b.shape[1] else (b, a)
    return unit(linear(larger, w, "project")) * smaller


def add(a: np.ndarray, b: np.ndarray, w: Weights) -> np.ndarray:
    return unit(linear(a, w, "project.0")) + unit(linear(b, w, "project.1"))


def matmul(a: np.ndarray, b: np.ndarray, w: Weights) -> np.ndarray:
    rows = []
    for one, two in zip(linear(a, w, "project.0"), linear(b, w, "project.1"), strict=True):
        product = np.dot(one.reshape(32, 32), two.reshape(32, 32)).ravel()
        rows.append(product / np.linalg.norm(product))
    return np.array(rows)


def quaternion(a: np.ndarray, b: np.ndarray, w: Weights) -> np.ndarray:
    p, q = linear(a, w, "project.0"), linear(b, w, "project.1")
    result = np.empty((len(a), 1024))
    for start in range(0, 1024, 4):
        a1, b1, c1, d1 = p[:, start : start + 4].T
        a2, b2, c2, d2 = q[:, start : start + 4].T
        result[:, start] = a1 * a2 - b1 * b2 - c1 * c2 - d1 * d2
        result[:, start + 1] = a1 * b2 + b1 * a2 + c1 * d2 - d1 * c2
        result[:, start + 2] = a1 * c2 - b1 * d2 + c1 * a2 + d1 * b2
        result[:, start + 3] = a1 * d2 + b1 * c2 - c1 * b2 + d1 * a2
    return result


def experts(a: np.ndarray, b: np.ndarray, w: Weights) -> np.ndarray:
    x = np.hstack([unit(a), unit(b)])
    hidden = np.maximum(linear(x, w, "gate.0"), 0)
    scores = linear(np.maximum(linear(hidden, w, "gate.2"), 0), w, "gate.4")
    assert (hidden.shape[1], scores.shape[1]) == (512, 5)
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    total = np.zeros((len(a), 1024))
    for k in range(5):
        rows = slice(1024 * k, 1024 * (k + 1))
        said = x @ w["experts.weight"][rows].T + w["experts.bias"][rows]
        total += shares[:, [k]] * np.maximum(said, 0)
    return total


REFERENCES: dict[str, tuple[Callable[..., np.ndarray], Callable[[int, int], int]]] = {
    "published_concat": (concat, lambda d, e: d + e),
    "published_hadamard": (hadamard, min),
    "published_sum": (add, min),
    "published_matmul": (matmul, lambda d, e: 1024),
    "published_quaternion": (quaternion, lambda d, e: 1024),
    "published_moe": (experts, lambda d, e: 1024),
}


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("name", REFERENCES)
def test_an_operator_equals_its_formula(name: str, widths: tuple[int, int]) -> None:
    torch.manual_seed(3)
    reference, width = REFERENCES[name]
    operator = build_published(FusionConfig(name), widths).double()
    sources = [torch.randn(4, d, dtype=torch.float64) for d in widths]
    weights = {key: value.numpy() for key, value in operator.state_dict().items()}
    expected = reference(*(x.numpy() for x in sources), weights)
    assert expected.shape == (4, width(*widths)) == (4, operator.width)
    np.testing.assert_allclose(operator(sources).detach().numpy(), expected, rtol=1e-10)
    if name != "published_concat":
        form = build_published(FusionConfig(name, residual=True), widths).double()
        form.load_state_dict({f"operator.{k}": v for k, v in operator.state_dict().items()})
        beside = np.hstack([*(x.numpy() for x in sources), expected])
        assert form.width == beside.shape[1]
        np.testing.assert_allclose(form(sources).detach().numpy(), beside, rtol=1e-10)


def test_the_operators_are_those_that_the_protocol_names() -> None:
    assert tuple(PUBLISHED) == PUBLISHED_OPERATORS == tuple(REFERENCES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_one_source_is_the_vector_itself_and_three_are_refused(name: str) -> None:
    x = torch.randn(3, 5)
    assert torch.equal(build_published(FusionConfig(name, residual=True), [5])([x]), x)
    with pytest.raises(UserError, match="take one or two sources, found 3"):
        build_published(FusionConfig(name), [5, 5, 5])


def test_the_head_is_the_published_one() -> None:
    head = build_head(40, 3)
    said = [
        (layer.in_features, layer.out_features)
        if isinstance(layer, nn.Linear)
        else layer.p
        if isinstance(layer, nn.Dropout)
        else type(layer).__name__
        for layer in head
    ]
    assert said == [(40, 1024), "ReLU", 0.5, (1024, 256), "ReLU", 0.3, (256, 3)]


def test_training_is_seeded_and_keeps_the_epoch_that_is_best_on_test() -> None:
    generator = torch.Generator().manual_seed(1)
    target = torch.arange(90) % 3
    x = torch.randn(90, 6, generator=generator) + torch.eye(3)[target].repeat(1, 2)
    told: list[tuple[int, float, float]] = []

    def note(epoch: int, loss: float, accuracy: float) -> None:
        told.append((epoch, loss, accuracy))

    def run(seed: int, epoch_done: EpochDone = lambda *_: None) -> PublishedFit:
        train, test = ([x[:60], x[:60, :3]], target[:60]), ([x[60:], x[60:, :3]], target[60:])
        config, device = FusionConfig("published_sum"), torch.device("cpu")
        return fit_as_published(
            train,
            test,
            config,
            num_classes=3,
            seed=seed,
            device=device,
            epoch_done=epoch_done,
        )

    fit = run(0, note)
    torch.manual_seed(99)  # what ran before does not matter
    again, other = run(0), run(1)
    assert np.array_equal(fit.correct, again.correct)
    assert np.array_equal(fit.probabilities, again.probabilities)
    assert not np.array_equal(fit.probabilities, other.probabilities)
    accuracy = fit.correct.mean(axis=1)
    assert fit.correct.shape == (100, 30)
    assert [epoch for epoch, _, _ in told] == list(range(1, 101))
    assert [value for _, _, value in told] == pytest.approx(accuracy)
    assert told[-1][1] < told[0][1]  # it learns
    assert accuracy[fit.claimed] == accuracy.max() > 0.5
    assert (accuracy[: fit.claimed] < accuracy.max()).all()
    kept = fit.probabilities.argmax(axis=1) == target[60:].numpy()
    assert np.array_equal(kept, fit.correct[fit.claimed])
