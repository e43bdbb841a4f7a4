from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerfusion.findings.groups import DataGroup, load_groups
from layerfusion.findings.tests import find_all
from layerfusion.records.job import Estimate
from layerfusion.report.blocks.summary import Summary
from layerfusion.report.format import PERCENT, POINTS, bracket, p_value
from layerfusion.report.table import Column
from tests.report.fabricate import dataset, write_job

ROWS = 200


def group_with(runs: Path, *, fused: float, baseline: float = 0.5, **data: Any) -> DataGroup:
    """Layers 3 and 6 alone (70 and 60 %), and both fused; hard rows are hard for all."""
    toy = dataset(rows=ROWS, **data)
    jobs = [
        ([("minilm", "3")], 0.7),
        ([("minilm", "6")], 0.6),
        ([("minilm", "3"), ("minilm", "6")], fused),
    ]
    for sources, accuracy in jobs:
        right = np.tile(np.arange(ROWS) < round(accuracy * ROWS), (2, 1))
        write_job(
            runs,
            toy,
            sources,
            accuracy,
            accuracy,
            seeds=2,
            right=right,
            baseline_right=np.arange(ROWS) < round(baseline * ROWS),
        )
    (group,) = load_groups(runs)
    return group


def summarise(group: DataGroup) -> Summary:
    """As in a report on this data set alone."""
    return Summary(group, find_all([group])[group])


def words(summary: Summary) -> str:
    return " ".join((summary.headline, *summary.paragraphs)).replace("\u00a0", " ")


def test_a_layer_without_rivals_was_not_chosen(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(rows=ROWS), [("minilm", "6")], 0.6, 0.6)
    (group,) = load_groups(tmp_path)
    text = words(summarise(group))
    assert text.startswith("Layer 6 of minilm was the only one run alone")
    assert "One layer was run alone, layer 6 of minilm: " in text
    assert "Validation" not in text
    assert "indsight" not in text


def test_loss_is_called_loss(tmp_path: Path) -> None:
    text = words(summarise(group_with(tmp_path, fused=0.6)))
    assert "fusing lost 10.0 points [−14" in text
    assert "fusing gained" not in text


def test_gain_is_called_gain(tmp_path: Path) -> None:
    text = words(summarise(group_with(tmp_path, fused=0.8)))
    assert "fusing gained 10.0 points [+6" in text
    assert "fusing lost" not in text


def test_interval_that_contains_zero_shows_no_difference(tmp_path: Path) -> None:
    text = words(summarise(group_with(tmp_path, fused=0.705)))
    assert "fusing made no difference that the 200 test rows can show" in text
    assert "no difference that the 200 test rows can show (+0.5 points [0.0, +1.5])" in text
    assert "fusing gained" not in text
    assert "fusing lost" not in text


def test_a_gain_that_the_number_of_comparisons_takes_away_is_not_called_one(tmp_path: Path) -> None:
    """Six rows of 200 gained and none lost: p = 2 / 2⁶, which one more comparison doubles."""
    alone = group_with(tmp_path, fused=0.73)
    assert "fusing gained 3.0 points [+1" in words(summarise(alone))
    right = np.tile(np.arange(ROWS) < 0.7 * ROWS, (2, 1))
    layers = [("minilm", "2"), ("minilm", "3")]
    write_job(tmp_path, dataset(rows=ROWS), layers, 0.7, 0.7, seeds=2, right=right)
    (group,) = load_groups(tmp_path)
    text = words(summarise(group))
    assert "fusing made no difference that the 200 test rows can show" in text
    assert "(+3.0 points [+1.0, +5.5], adjusted p 0.062)" in text
    assert "fusing gained" not in text
    # The same in a report where another data set brings the comparison.
    other = group_with(tmp_path / "elsewhere", fused=0.7)
    found = find_all([alone, other])[alone]
    assert "fusing gained" not in words(Summary(alone, found))


@pytest.mark.parametrize(
    ("accuracy", "says"),
    [
        (0.71, " cannot be told from that layer."),
        (0.9, ", measured against that layer, is above it: minilm 2, 3, late (+20.2 points ["),
    ],
)
def test_a_single_other_fusion_is_not_counted(tmp_path: Path, accuracy: float, says: str) -> None:
    group_with(tmp_path, fused=0.7)
    layers = [("minilm", "2"), ("minilm", "3")]
    write_job(tmp_path, dataset(rows=ROWS), layers, accuracy, 0.6, fusion="late")
    (group,) = load_groups(tmp_path)
    assert f"The other fusion{says}" in words(summarise(group))


def test_chosen_layer_is_compared_with_the_last_and_with_hindsight(tmp_path: Path) -> None:
    text = words(summarise(group_with(tmp_path, fused=0.7)))
    assert "Validation (50 rows) chooses layer 3 of minilm among 2 single layers" in text
    assert "last layer of the same model (layer 6) reaches 60.0 %" in text
    assert "choosing gained 10.0 points" in text
    assert "Hindsight agrees" in text


def test_hindsight_is_named_as_such(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(), [("minilm", "2")], 0.9, 0.6)
    write_job(tmp_path, dataset(), [("minilm", "3")], 0.6, 0.8)
    (group,) = load_groups(tmp_path)
    text = words(summarise(group))
    assert "Validation chooses layer 3" in text
    assert "In hindsight layer 2 of minilm has the highest test accuracy" in text


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        (0.5, "the chosen layer beats it by 20.0 points"),
        (0.9, "the chosen layer falls behind it by 20.0 points"),
        (0.69, "between it and the chosen layer there is no difference that the 200 test rows"),
    ],
)
def test_baseline_is_beaten_only_beyond_the_interval(
    tmp_path: Path, baseline: float, expected: str
) -> None:
    assert expected in words(summarise(group_with(tmp_path, fused=0.7, baseline=baseline)))


@pytest.mark.parametrize(
    ("baseline", "end"),
    [
        (0.5, "can show"),
        (0.69, "nothing clearly beats the baseline"),
        (0.9, "the baseline does better"),
    ],
)
def test_headline_says_where_the_baseline_is_not_beaten(
    tmp_path: Path, baseline: float, end: str
) -> None:
    assert summarise(group_with(tmp_path, fused=0.7, baseline=baseline)).headline.endswith(end)


def test_sample_is_said_and_whole_data_is_not_called_one(tmp_path: Path) -> None:
    whole = summarise(group_with(tmp_path / "whole", fused=0.7))
    assert whole.sample is None
    available = {"train": 5485, "test": 2189}
    sample = summarise(group_with(tmp_path / "s", fused=0.7, sampled=True, available=available))
    assert sample.sample is not None
    assert "200 of 2,189 test rows, and 500 of 5,485 rows" in sample.sample


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.012, "+1.2"), (-0.0304, "−3.0"), (0.0, "0.0"), (0.0002, "+0.02"), (-1e-9, "0.0")],
)
def test_points(value: float, text: str) -> None:
    assert POINTS(value) == text


def test_numbers_that_are_missing_are_not_invented() -> None:
    assert bracket(Estimate(0.5, None)) == "–"
    assert Column("x", lambda x: x, PERCENT).cell(Estimate(0.5, None)).text == "50.0"


def test_p_values() -> None:
    assert p_value(0.0123) == "0.012"
    assert p_value(0.0123, bound=True).replace("\u00a0", " ") == "≤ 0.012"
    assert p_value(1e-9).replace("\u00a0", " ") == "< 0.001"
