from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerfusion.findings import compare
from layerfusion.findings.compare import best_chosen, best_on_test, unpaired_interval
from layerfusion.findings.groups import load_groups
from layerfusion.statistics.exchanges import exchanged
from layerfusion.statistics.intervals import f1_interval, paired_interval
from layerfusion.statistics.significance import sign_flips
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


def test_which_texts_are_repeated_is_known_from_either_job(tmp_path: Path) -> None:
    """An older job did not keep it, and one that did predicts the same rows."""
    for layer, accuracy in (("3", 0.8), ("6", 0.74)):
        write_job(tmp_path, dataset(), [("minilm", layer)], accuracy, accuracy)
    (group,) = load_groups(tmp_path)
    old, other = group.singles
    assert old.text_of is None
    texts = np.arange(300) // 6
    new = replace(other, text_of=texts)
    plain = compare.tested(old, other)
    assert plain == sign_flips(old.correct, other.correct, text_of=None, seeds=36)
    together = compare.tested(old, new)
    assert together == sign_flips(old.correct, other.correct, text_of=texts, seeds=36)
    assert together.p != plain.p
    assert compare.tested(new, old).p == together.p
    expected = paired_interval(old.correct, other.correct, old.target, text_of=texts)
    assert compare.over(old, new) == expected
    assert compare.over(new, old).high == pytest.approx(-expected.low)
    old, new = (replace(job, metric="macro_f1") for job in (old, new))
    systems = "macro_f1", old.preds, new.preds, old.target
    assert compare.tested(old, new) == exchanged(*systems, text_of=texts)
    assert compare.over(old, new) == f1_interval(*systems, text_of=texts)
    words = 1 - new.target
    judged = replace(new, baseline=np.zeros(300, bool), baseline_preds=words)
    systems = "macro_f1", new.preds, words[None], new.target
    assert compare.over_baseline(judged) == f1_interval(*systems, text_of=texts)
    assert compare.tested_over_baseline(judged) == exchanged(*systems, text_of=texts)


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
