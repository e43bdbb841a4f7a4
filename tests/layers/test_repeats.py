"""Rows that repeat a text."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import pytest
import torch

from layerfusion.fusion.calibration import temperature_of
from layerfusion.fusion.objective import find_shift
from layerfusion.fusion.pool_forms import PoolTask, choose_pool, judge_forms, serve
from layerfusion.fusion.race import Evaluation, race
from layerfusion.layers.probe import (
    HeldOut,
    cross_fitted,
    cross_validate,
    cross_validate_in_batches,
)
from layerfusion.layers.repeats import (
    deal_texts,
    distinct_share,
    number_texts,
    standard_error,
    standard_errors,
)


def test_texts_are_numbered_anew_without_a_gap() -> None:
    of_row, texts = number_texts(torch.tensor([9, 4, 9, 7]))
    assert of_row.tolist() == [2, 0, 2, 1]
    assert texts == 3
    assert number_texts(torch.tensor([], dtype=torch.long))[1] == 0
    assert distinct_share(torch.tensor([9, 4, 9, 7])) == 0.75
    assert distinct_share(None) == 1.0


def test_repeated_rows_make_a_mean_no_surer() -> None:
    values = torch.tensor([0.5, 2.0, -1.0, 0.25], dtype=torch.float64)
    alone = standard_error(values, text_of=None)
    assert alone == pytest.approx(float(values.std()) / 2)
    assert standard_error(values, torch.tensor([8, 1, 5, 3])) == alone
    text_of = torch.arange(4).repeat(10)
    assert standard_error(values.repeat(10), text_of) == pytest.approx(alone)
    assert standard_error(values.repeat(10), text_of=None) < alone / 3


def test_a_single_text_shows_no_spread() -> None:
    assert standard_error(torch.tensor([1.0]), text_of=None) == math.inf
    assert standard_error(torch.tensor([1.0, 1.0]), torch.tensor([3, 3])) == math.inf
    assert standard_error(torch.tensor([]), torch.tensor([], dtype=torch.long)) == math.inf


def test_errors_of_several_means_are_those_of_each() -> None:
    values = torch.randn(3, 2, 12, generator=torch.Generator().manual_seed(0))
    for text_of in (None, torch.arange(12) // 3, torch.arange(12)):
        found = standard_errors(values, text_of)
        assert found.shape == (3, 2)
        each = [standard_error(rows, text_of) for rows in values.flatten(0, 1)]
        assert found.flatten().tolist() == pytest.approx(each)
    assert standard_errors(values, torch.zeros(12)).tolist() == [[math.inf] * 2] * 3


def test_rows_of_a_text_are_dealt_to_one_fold() -> None:
    alone = deal_texts(None, 40, 5, seed=0)
    assert alone.bincount().tolist() == [8] * 5
    assert deal_texts(torch.arange(40) + 7, 40, 5, seed=0).equal(alone)
    assert deal_texts(torch.arange(40).repeat(3), 120, 5, seed=0).equal(alone.repeat(3))
    assert deal_texts(torch.zeros(4), 4, 5, seed=0).tolist() == [0] * 4


@pytest.mark.parametrize(
    "judge",
    [
        *(standard_error, standard_errors, temperature_of, find_shift, choose_pool, judge_forms),
        *(serve, PoolTask, race, Evaluation, HeldOut, cross_fitted, cross_validate),
        cross_validate_in_batches,
    ],
)
def test_whoever_asks_how_sure_a_mean_is_has_to_say_which_texts_are_repeated(
    judge: Callable[..., object],
) -> None:
    assert inspect.signature(judge).parameters["text_of"].default is inspect.Parameter.empty
