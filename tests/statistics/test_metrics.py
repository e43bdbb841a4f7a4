from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss

from layerfusion.errors import UserError
from layerfusion.statistics.metrics import METRICS, evaluate


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
