from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from layerfusion.errors import UserError
from layerfusion.report.compare import (
    best_on_test,
    best_on_validation,
    paired_interval,
    unpaired_interval,
)
from layerfusion.report.load import load_groups
from tests.report.fabricate import dataset, write_job


def systems(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    a = rng.binomial(3, 0.8, size=rows) / 3
    return a, np.clip(a - rng.choice([-1 / 3, 0, 0, 1 / 3, 1 / 3], size=rows), 0, 1)


def test_paired_interval_agrees_with_scipy() -> None:
    a, b = systems()
    found = paired_interval(a, b)
    oracle = scipy.stats.bootstrap(
        (a, b),
        lambda x, y, axis: (x - y).mean(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.mean == pytest.approx((a - b).mean())
    assert found.low == pytest.approx(oracle.low, abs=2e-3)
    assert found.high == pytest.approx(oracle.high, abs=2e-3)


def test_paired_interval_is_antisymmetric_and_zero_against_itself() -> None:
    a, b = systems()
    ahead, behind = paired_interval(a, b), paired_interval(b, a)
    assert ahead.mean == -behind.mean
    assert ahead.low == pytest.approx(-behind.high, abs=2e-3)
    same = paired_interval(a, a)
    assert (same.low, same.mean, same.high, same.verdict) == (0, 0, 0, "open")


def test_pairing_narrows_the_interval_of_systems_that_agree() -> None:
    a, b = systems()
    paired = paired_interval(a, b)
    half = [1.96 * x.std() / np.sqrt(x.size) for x in (a, b)]
    unpaired = unpaired_interval(
        (a.mean(), a.mean() - half[0], a.mean() + half[0]),
        (b.mean(), b.mean() - half[1], b.mean() + half[1]),
        a.size,
    )
    assert unpaired.mean == pytest.approx(paired.mean)
    assert unpaired.high - unpaired.low == pytest.approx(2 * np.hypot(*half))
    assert paired.high - paired.low < unpaired.high - unpaired.low


def test_rows_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(UserError, match="3 and 2 test rows"):
        paired_interval(np.ones(3), np.ones(2))


def test_choice_is_the_argmax_of_validation_and_never_looks_at_test(tmp_path: Path) -> None:
    figures = {"2": (0.9, 0.70), "3": (0.6, 0.75), "4": (0.7, 0.72)}
    for layer, (test, validation) in figures.items():
        write_job(tmp_path, dataset(), [("minilm", layer)], test, validation)
    (group,) = load_groups(tmp_path)
    assert best_on_validation(group.singles).layer.layer == "3"
    assert best_on_test(group.singles).layer.layer == "2"


@pytest.mark.parametrize(("losses", "winner"), [((0.5, 0.4, 0.4), "3"), ((0.4, 0.4, 0.4), "2")])
def test_ties_go_to_lower_log_loss_then_to_the_lower_layer(
    tmp_path: Path, losses: tuple[float, ...], winner: str
) -> None:
    for layer, loss in zip(("2", "3", "5"), losses, strict=True):
        # A sum over seeds may end on another last bit; it must not break the tie.
        noise = 1e-16 * int(layer)
        write_job(tmp_path, dataset(), [("minilm", layer)], 0.7, 0.7 + noise, log_loss=loss)
    (group,) = load_groups(tmp_path)
    assert best_on_validation(group.singles).layer.layer == winner
