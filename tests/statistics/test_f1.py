"""F1 of answers: what rows add to it, its interval, and its randomisation test."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from layerfusion.errors import UserError
from layerfusion.fusion.objective import costs
from layerfusion.statistics.exchanges import exchanged
from layerfusion.statistics.f1 import f1_of_rows, f1_scores
from layerfusion.statistics.intervals import f1_interval
from layerfusion.statistics.metrics import evaluate

RNG = np.random.default_rng(0)
TARGET = RNG.choice(3, 120, p=[0.8, 0.1, 0.1])
PREDS = RNG.choice(3, (2, 120), p=[0.7, 0.2, 0.1])
SETS = RNG.random((60, 4)) < 0.3
SAID = RNG.random((2, 60, 4)) < 0.3


def log_probs(answers: np.ndarray) -> np.ndarray:
    return np.log(np.eye(3)[answers] + 1e-6)


def log_probs_of_sets(answers: np.ndarray) -> np.ndarray:
    return np.log(np.where(answers, 0.9, 0.1))


@pytest.mark.parametrize("metric", ["macro_f1", "micro_f1"])
def test_f1_is_that_of_the_metrics_and_of_the_costs_of_training(metric: str) -> None:
    said = [evaluate(log_probs_of_sets(one), SETS)[metric] for one in SAID]
    assert f1_scores(metric, SETS, SAID) == pytest.approx(said, abs=1e-6)
    each = f1_of_rows(metric, SETS, SAID[:1])
    own = 1 - costs(metric, torch.from_numpy(log_probs_of_sets(SAID[0])), torch.from_numpy(SETS))
    assert each == pytest.approx(own.numpy())
    assert f1_of_rows(metric, SETS, SAID).mean() == pytest.approx(np.mean(said), abs=1e-6)


def test_f1_is_0_where_there_is_neither_a_label_nor_an_answer() -> None:
    nothing = np.zeros((5, 4), bool)
    log_probs = torch.from_numpy(log_probs_of_sets(nothing))
    for metric in ("macro_f1", "micro_f1"):
        assert f1_scores(metric, nothing, nothing[None]).tolist() == [0]
        assert costs(metric, log_probs, torch.from_numpy(nothing)).tolist() == [1] * 5


def test_macro_f1_of_classes_is_that_of_the_metrics() -> None:
    said = [evaluate(log_probs(one), TARGET)["macro_f1"] for one in PREDS]
    assert f1_scores("macro_f1", TARGET, PREDS) == pytest.approx(said, abs=1e-6)
    assert f1_of_rows("macro_f1", TARGET, PREDS).mean() == pytest.approx(np.mean(said), abs=1e-6)


def test_the_interval_is_of_the_difference_in_f1_not_in_accuracy() -> None:
    target = np.repeat([0, 1, 2], [90, 5, 5])
    often = np.zeros((1, 100), int)  # right on 90 %, but of one class alone
    rare = target[None].copy()
    rare[0, :20] = 1  # right on 80 %, and finds both rare classes
    found = f1_interval("macro_f1", rare, often, target, text_of=None)
    assert found.mean == pytest.approx(
        evaluate(log_probs(rare[0]), target)["macro_f1"]
        - evaluate(log_probs(often[0]), target)["macro_f1"],
        abs=1e-6,
    )
    assert found.verdict == "gain"
    with pytest.raises(UserError, match="cannot be paired"):
        f1_interval("macro_f1", rare, often[:, 1:], target, text_of=None)


def test_the_test_agrees_with_all_exchanges_of_few_rows() -> None:
    target = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    a = np.array([[0, 0, 0, 1, 1, 1, 2, 0]])
    b = np.array([[0, 0, 1, 1, 0, 1, 0, 0]])

    def difference(flips: tuple[bool, ...]) -> float:
        flipped = np.array(flips)
        one, other = np.where(flipped, b, a), np.where(flipped, a, b)
        return float(
            f1_scores("macro_f1", target, one)[0] - f1_scores("macro_f1", target, other)[0]
        )

    every = [abs(difference(one)) for one in itertools.product([False, True], repeat=8)]
    far = abs(difference((False,) * 8))
    exact = np.mean([one >= far - 1e-12 for one in every])
    found = exchanged("macro_f1", a, b, target, text_of=None)
    assert found.p == pytest.approx(exact, abs=0.02)
    assert (found.only_a, found.only_b) == (3, 0)


def test_the_test_takes_other_numbers_of_seeds_and_has_no_difference_in_the_same_answers() -> None:
    assert exchanged("macro_f1", PREDS, PREDS, TARGET, text_of=None).p == 1.0
    assert (
        exchanged("macro_f1", PREDS[:1].repeat(3, axis=0), PREDS[:1], TARGET, text_of=None).p == 1.0
    )
    assert exchanged("micro_f1", SAID, SETS[None], SETS, text_of=None).p < 0.001
    with pytest.raises(UserError, match="cannot be paired"):
        exchanged("macro_f1", PREDS, PREDS[:, 1:], TARGET, text_of=None)
