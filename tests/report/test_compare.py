from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layerfusion.findings.compare import (
    best_chosen,
    best_on_test,
    paired_interval,
    unpaired_interval,
)
from layerfusion.findings.groups import load_groups
from tests.report.fabricate import dataset, write_job


def systems(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    a = rng.binomial(3, 0.8, size=rows) / 3
    return a, np.clip(a - rng.choice([-1 / 3, 0, 0, 1 / 3, 1 / 3], size=rows), 0, 1)


def test_pairing_narrows_the_interval_of_systems_that_agree() -> None:
    a, b = systems()
    paired = paired_interval(a, b, np.zeros(a.size, int), text_of=None)
    half = [1.96 * x.std() / np.sqrt(x.size) for x in (a, b)]
    unpaired = unpaired_interval(
        (a.mean(), a.mean() - half[0], a.mean() + half[0]),
        (b.mean(), b.mean() - half[1], b.mean() + half[1]),
        a.size,
    )
    assert unpaired.mean == pytest.approx(paired.mean)
    assert unpaired.high - unpaired.low == pytest.approx(2 * np.hypot(*half))
    assert paired.high - paired.low < unpaired.high - unpaired.low


def test_choice_is_the_argmax_of_validation_and_never_looks_at_test(tmp_path: Path) -> None:
    figures = {"2": (0.9, 0.70), "3": (0.6, 0.75), "4": (0.7, 0.72)}
    for layer, (test, validation) in figures.items():
        write_job(tmp_path, dataset(), [("minilm", layer)], test, validation)
    (group,) = load_groups(tmp_path)
    assert best_chosen(group.singles).layer.layer == "3"
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
    assert best_chosen(group.singles).layer.layer == winner
