"""Rows that repeat a text."""

from __future__ import annotations

import math

import pytest
import torch

from layerfusion.layers.repeats import distinct_share, number_texts, standard_error


def test_texts_are_numbered_anew_without_a_gap() -> None:
    of_row, texts = number_texts(torch.tensor([9, 4, 9, 7]))
    assert of_row.tolist() == [2, 0, 2, 1]
    assert texts == 3
    assert number_texts(torch.tensor([], dtype=torch.long))[1] == 0
    assert distinct_share(torch.tensor([9, 4, 9, 7])) == 0.75
    assert distinct_share(None) == 1.0


def test_repeated_rows_make_a_mean_no_surer() -> None:
    values = torch.tensor([0.5, 2.0, -1.0, 0.25], dtype=torch.float64)
    alone = standard_error(values)
    assert alone == pytest.approx(float(values.std()) / 2)
    assert standard_error(values, torch.tensor([8, 1, 5, 3])) == alone
    text_of = torch.arange(4).repeat(10)
    assert standard_error(values.repeat(10), text_of) == pytest.approx(alone)
    assert standard_error(values.repeat(10)) < alone / 3


def test_a_single_text_shows_no_spread() -> None:
    assert standard_error(torch.tensor([1.0])) == math.inf
    assert standard_error(torch.tensor([1.0, 1.0]), torch.tensor([3, 3])) == math.inf
    assert standard_error(torch.tensor([]), torch.tensor([], dtype=torch.long)) == math.inf
