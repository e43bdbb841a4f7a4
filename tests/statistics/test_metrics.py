from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss

from layerfusion.errors import UserError
from layerfusion.statistics.metrics import METRICS, evaluate

ZERO: Any = 0
"""F1 where there is nothing to compute it from; scikit-learn declares it as a text."""


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _calibration_error(probabilities: np.ndarray, target: np.ndarray) -> float:
    """Naive: for each of 15 bins, share of rows × |accuracy - confidence|."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == target
    error = 0.0
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@settings(max_examples=40)
@given(
    rows=st.integers(1, 60),
    num_classes=st.integers(2, 9),
    scale=st.sampled_from([0.1, 1.0, 4.0]),
    seed=st.integers(0, 10_000),
)
def test_equals_scikit_learn(rows: int, num_classes: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, num_classes)) * scale
    target = rng.integers(num_classes, size=rows)
    found = evaluate(logits, target)
    preds, probabilities = logits.argmax(axis=1), _softmax(logits)
    assert tuple(found) == METRICS
    assert found["accuracy"] == pytest.approx(accuracy_score(target, preds), abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn tells of classes without predictions
        macro_f1 = f1_score(target, preds, average="macro")
    assert found["macro_f1"] == pytest.approx(macro_f1, abs=1e-6)
    expected = log_loss(target, probabilities, labels=list(range(num_classes)))
    assert found["log_loss"] == pytest.approx(expected, rel=1e-6)
    naive = _calibration_error(probabilities, target)
    assert found["calibration_error"] == pytest.approx(naive, abs=1e-6)


def test_logits_inside_the_unit_interval_are_still_logits() -> None:
    logits, target = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0])
    expected = _calibration_error(_softmax(logits), target)
    assert evaluate(logits, target)["calibration_error"] == pytest.approx(expected, abs=1e-6)


def test_macro_f1_leaves_out_classes_that_do_not_occur() -> None:
    logits = torch.eye(5)[[0, 1, 0, 1]]
    found = evaluate(logits, torch.tensor([0, 1, 0, 1]))
    assert found["macro_f1"] == found["accuracy"] == 1.0


def test_tensors_and_arrays_that_cannot_be_written_are_taken() -> None:
    target = np.array([1, 0])
    target.flags.writeable = False
    logits = torch.randn(2, 3)
    assert evaluate(logits, target) == evaluate(logits.numpy(), torch.tensor([1, 0]))


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0), "at least one row"),
        (np.zeros((3, 2)), np.zeros(2), r"logits of shape \(3, 2\) and target of shape \(2,\)"),
        (np.zeros(3), np.zeros(3), r"logits of shape \(3,\)"),
        (np.array([[0, np.nan], [0, 1]]), np.zeros(2), "1 of 2 rows are not finite"),
    ],
)
def test_what_cannot_be_measured_is_named(
    logits: np.ndarray, target: np.ndarray, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(logits, target)


# -- several labels a row -------------------------------------------------------------------------


def _log_sigmoid(logits: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -logits)


def _binary_calibration_error(probabilities: np.ndarray, target: np.ndarray) -> float:
    """Naive: for each of 15 bins, share of the decisions × |share with the label - probability|."""
    p, has = probabilities.ravel(), target.ravel()
    places = np.minimum((p * 15).astype(int), 14)
    return sum(
        (places == k).mean() * abs(has[places == k].mean() - p[places == k].mean())
        for k in range(15)
        if (places == k).any()
    )


@settings(max_examples=40)
@given(
    rows=st.integers(1, 60),
    labels=st.integers(1, 9),
    scale=st.sampled_from([0.1, 1.0, 4.0]),
    seed=st.integers(0, 10_000),
)
def test_sets_of_labels_have_the_figures_of_scikit_learn(
    rows: int, labels: int, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, labels)) * scale
    target = rng.random((rows, labels)) < 0.3
    found = evaluate(_log_sigmoid(logits), target)
    preds = logits >= 0
    assert found.keys() == {*METRICS, "micro_f1"}
    as_number = target.astype(int)
    right = (target == preds).all(axis=1).mean()
    assert found["accuracy"] == pytest.approx(right, abs=1e-6)
    if labels > 1:  # scikit-learn takes a single column for classes
        assert right == pytest.approx(accuracy_score(as_number, preds.astype(int)))
    occurs = np.flatnonzero((target | preds).any(axis=0))
    micro = f1_score(target.ravel(), preds.ravel(), zero_division=ZERO)
    assert found["micro_f1"] == pytest.approx(micro, abs=1e-6)
    macro = [f1_score(target[:, k], preds[:, k], zero_division=ZERO) for k in occurs]
    assert found["macro_f1"] == pytest.approx(np.mean(macro) if macro else 0.0, abs=1e-6)
    if labels > 1 and len(occurs) == labels:
        whole = f1_score(as_number, preds.astype(int), average="macro", zero_division=ZERO)
        assert found["macro_f1"] == pytest.approx(whole, abs=1e-6)
    p = 1 / (1 + np.exp(-logits))
    expected = log_loss(target.ravel(), p.ravel(), labels=[False, True])
    assert found["log_loss"] == pytest.approx(expected, rel=1e-6)
    error = _binary_calibration_error(p, target)
    assert found["calibration_error"] == pytest.approx(error, abs=1e-6)


def test_a_label_that_is_in_neither_does_not_count() -> None:
    log_probs = np.log([[0.9, 0.1, 0.1], [0.9, 0.1, 0.1]])
    target = np.array([[True, False, False], [False, False, False]])
    found = evaluate(log_probs, target)
    assert found["macro_f1"] == found["micro_f1"] == pytest.approx(2 / 3)


def test_rows_without_a_label_and_an_answer_are_right_and_have_no_f1() -> None:
    found = evaluate(np.log(np.full((2, 3), 0.25)), np.zeros((2, 3), dtype=bool))
    assert (found["accuracy"], found["micro_f1"], found["macro_f1"]) == (1.0, 0.0, 0.0)
    assert found["log_loss"] == pytest.approx(-np.log(0.75))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_probability_of_one_half_is_an_answer_and_a_sure_mistake_is_finite(
    kind: torch.dtype,
) -> None:
    half = torch.nn.functional.logsigmoid(torch.zeros(1, 1, dtype=kind))
    assert evaluate(half, torch.ones(1, 1, dtype=torch.bool))["accuracy"] == 1.0
    sure = torch.nn.functional.logsigmoid(torch.full((1, 1), 30.0, dtype=kind))
    assert evaluate(sure, torch.zeros(1, 1))["log_loss"] == pytest.approx(30.0, rel=1e-6)
    assert np.isfinite(evaluate(torch.zeros(1, 1), torch.zeros(1, 1))["log_loss"])


@pytest.mark.parametrize(
    ("log_probs", "target", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 3)), r"target of shape \(3, 3\); .* or both \(rows, lab"),
        (np.array([[0.0, 1.5]]), np.zeros((1, 2)), "up to 1.5; none may lie above zero"),
        (np.array([[0.0, -np.inf]]), np.zeros((1, 2)), "1 of 1 rows are not finite"),
    ],
)
def test_what_cannot_be_measured_of_sets_is_named(
    log_probs: np.ndarray, target: np.ndarray, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(log_probs, target)
