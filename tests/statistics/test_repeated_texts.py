"""Intervals and tests where rows repeat a text, and that nothing changes where none does."""

from __future__ import annotations

import inspect
import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from layerfusion.errors import UserError
from layerfusion.findings.mistakes import Answers, share_of
from layerfusion.layers.repeats import standard_error
from layerfusion.published.selection_bias import selection_bias
from layerfusion.runs.familiar import Familiar
from layerfusion.statistics.crossed import crossed_interval
from layerfusion.statistics.exchanges import exchanged
from layerfusion.statistics.intervals import (
    bootstrap_interval,
    f1_interval,
    metric_intervals,
    p_of_any_ahead,
    paired_interval,
    ratio_interval,
    unseen_share,
)
from layerfusion.statistics.resampling import (
    Strata,
    independent_rows,
    mean_variance,
    repeated,
    total_rows,
)
from layerfusion.statistics.significance import mcnemar, sign_flips

ROWS = 120
ALL = [bootstrap_interval, metric_intervals, paired_interval, f1_interval, crossed_interval]
ALL += [ratio_interval, p_of_any_ahead, sign_flips, mcnemar, exchanged]


class Systems:
    """Answers of two systems to the same rows, each of which occurs some times."""

    def __init__(self, times: int = 1) -> None:
        rng = np.random.default_rng(11)
        target = np.sort(rng.integers(3, size=ROWS))
        self.preds, self.others = (
            np.where(rng.random((3, ROWS)) < right, target, rng.integers(3, size=(3, ROWS)))
            for right in (0.8, 0.7)
        )
        sets = rng.random((ROWS, 4)) < 0.4
        self.said = (sets ^ (rng.random((2, ROWS, 4)) < 0.2)).repeat(times, axis=1)
        self.other_said = (sets ^ (rng.random((2, ROWS, 4)) < 0.3)).repeat(times, axis=1)
        self.a, self.b = ((x == target).mean(0).repeat(times) for x in (self.preds, self.others))
        self.preds, self.others = (x.repeat(times, axis=1) for x in (self.preds, self.others))
        self.target, self.sets = target.repeat(times), sets.repeat(times, axis=0)

    def figures(self, text_of: np.ndarray | None) -> dict[str, Any]:
        """Every interval and p-value, as flat numbers."""
        a, b, target = self.a, self.b, self.target
        texts: dict[str, Any] = {"text_of": text_of}
        paired = paired_interval(a, b, target, **texts)
        crossed = crossed_interval(np.stack([a - b, a, b - a]), target, **texts)
        f1 = f1_interval("macro_f1", self.preds, self.others, target, **texts)
        micro = f1_interval("micro_f1", self.said, self.other_said, self.sets, **texts)
        parts, wholes = self.sets.sum(1), (self.sets | self.said[0]).sum(1)
        several = metric_intervals(self.sets, self.said, 2, **texts)
        return {
            "bootstrap": bootstrap_interval(a, target, 5, **texts),
            "paired": (paired.mean, paired.low, paired.high),
            "crossed": (crossed.mean, crossed.low, crossed.high, crossed.p),
            "any ahead": p_of_any_ahead([b, 1 - b, (a + b) / 2], b, target, **texts),
            **metric_intervals(target, self.preds, 2, **texts),
            **{f"sets {name}": ends for name, ends in several.items()},
            "f1": (f1.mean, f1.low, f1.high),
            "micro": (micro.mean, micro.low, micro.high),
            "ratio": ratio_interval(parts, wholes, **texts),
            "mcnemar": mcnemar(a > 0.5, b > 0.5, **texts).p,
            "flips": sign_flips(a, b, seeds=3, **texts).p,
            "exchanged": exchanged("macro_f1", self.preds, self.others, target, **texts).p,
        }


BEFORE = {
    "bootstrap": (0.861111111, 0.922222222),
    "paired": (0.05000000000000002, 0.005555556, 0.097222222),
    "any ahead": 0.02799300174956261,
    "accuracy": (0.8611111111111112, 0.9222222222222223),
    "macro_f1": (0.857355263513312, 0.9202665789524525),
    "sets accuracy": (0.30416666666666664, 0.425),
    "sets macro_f1": (0.7158347676197016, 0.7784348294744332),
    "sets micro_f1": (0.7194613801823175, 0.7818101971656256),
    "f1": (0.04861369015738415, 0.002049074775000003, 0.09640978809999994),
    "micro": (0.08644363397518628, 0.043198169375000005, 0.130909144275),
    "ratio": (0.7022879714863044, 0.8083540076335877),
    "mcnemar": 0.34374999999999994,
    "flips": 0.043809145764,
    "exchanged": 0.04229577042295771,
}
"""What the same calls gave before there was any notion of repeated texts."""


def test_without_repeats_every_figure_is_what_it_was() -> None:
    systems = Systems()
    plain = systems.figures(None)
    assert systems.figures(np.random.default_rng(9).permutation(ROWS) * 3) == plain
    for name, figure in BEFORE.items():
        assert plain[name] == pytest.approx(figure, rel=1e-12), name


def test_copies_of_every_row_make_nothing_surer() -> None:
    """The draws are the same ones, since texts with the same rows are drawn in the same order."""
    plain = Systems().figures(None)
    copied = Systems(times=4)
    together = copied.figures(np.arange(ROWS).repeat(4))
    for name, figure in plain.items():
        assert together[name] == pytest.approx(figure, abs=1e-9), name
    apart = copied.figures(None)
    assert apart["flips"] < plain["flips"] / 10
    for name in ("bootstrap", "f1", "sets micro_f1", "ratio"):
        low, high = apart[name][-2:]
        assert high - low < 0.6 * (plain[name][-1] - plain[name][-2]), name


def test_whole_texts_are_drawn() -> None:
    """Also those whose rows have several classes; their class is the first of these."""
    target = np.array([0, 0, 0, 1, 1, 2])
    patterns = np.arange(6)[:, None]
    text_of = np.array([7, 5, 7, 7, 9, 9])
    strata = Strata.of(patterns, target, text_of)
    assert strata.labels == [0, 1, 2]
    for draws in strata.draws(50, seed=0):
        drawn = np.concatenate(draws, axis=1)
        assert np.array_equal(drawn[:, 0], drawn[:, 2])
        assert np.array_equal(drawn[:, 0], drawn[:, 3])
        assert np.array_equal(drawn[:, 4], drawn[:, 5])
        assert np.array_equal(drawn[:, 0] + drawn[:, 1], np.full(50, 2))
        assert np.array_equal(drawn[:, 4], np.ones(50))  # the only text of its class
        assert np.array_equal(total_rows(draws), drawn.sum(axis=1))
        assert len(set(total_rows(draws).tolist())) > 1


def clustered(rng: np.random.Generator, texts: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Texts with one to eight rows, and how many texts each is."""
    text_of = np.arange(texts).repeat(rng.integers(1, 9, size=texts))
    return text_of, rng.permutation(len(text_of))


def test_where_no_resample_can_differ_f1_has_no_interval() -> None:
    """Each class has one text of which it is the first, though the rows of class 1 differ."""
    target, preds, text_of = np.array([0, 1, 1, 2]), np.array([[0, 0, 1, 1]]), [0, 0, 1, 1]
    assert set(metric_intervals(target, preds, text_of=np.array(text_of))) == {"accuracy"}


def test_an_interval_is_that_of_drawing_texts_one_by_one() -> None:
    rng = np.random.default_rng(0)
    text_of, order = clustered(rng)
    right = (rng.random(60) < 0.7)[text_of].astype(float)
    rows = [np.flatnonzero(text_of == text) for text in range(60)]
    means = [
        right[np.concatenate([rows[text] for text in rng.integers(60, size=60)])].mean()
        for _ in range(4000)
    ]
    one = np.zeros(len(right), int)
    found = bootstrap_interval(right, one, text_of=text_of, resamples=20_000)
    assert found == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)
    shuffled = bootstrap_interval(right[order], one, text_of=text_of[order], resamples=20_000)
    assert shuffled == found


def test_intervals_cover_the_truth_where_rows_repeat_texts() -> None:
    """Rows that are taken to be independent would make an interval that is far too narrow."""
    rng = np.random.default_rng(1)
    covered = {"texts": 0, "rows": 0}
    for trial in range(300):
        text_of, _ = clustered(rng)
        right = (rng.random(60) < 0.75)[text_of].astype(float)
        for name, texts in (("texts", text_of), ("rows", None)):
            low, high = bootstrap_interval(
                right, np.zeros(len(right), int), trial, text_of=texts, resamples=300
            )
            covered[name] += low <= 0.75 <= high
    assert 0.91 < covered["texts"] / 300 < 0.98
    assert covered["rows"] / 300 < 0.75


def test_tests_of_equal_systems_err_in_five_of_a_hundred_cases() -> None:
    """McNemar's test of rows errs several times as often where texts are repeated."""
    rng = np.random.default_rng(2)
    shown = {"texts": 0, "rows": 0, "interval": 0, "crossed": 0}
    for _ in range(400):
        text_of, _ = clustered(rng)
        a, b = ((rng.random(60) < 0.7)[text_of] for _ in range(2))
        one = np.zeros(len(a), int)
        shown["texts"] += mcnemar(a, b, text_of=text_of).p < 0.05
        shown["rows"] += mcnemar(a, b, text_of=None).p < 0.05
        difference = a.astype(float) - b
        found = paired_interval(a.astype(float), b, one, text_of=text_of, resamples=300)
        shown["interval"] += found.verdict != "open"
        crossed = crossed_interval(np.stack([difference] * 3), one, text_of=text_of)
        shown["crossed"] += crossed.verdict != "open"
    assert shown["texts"] / 400 <= 0.06
    assert shown["interval"] / 400 <= 0.09
    assert shown["crossed"] / 400 <= 0.09
    assert shown["rows"] / 400 > 0.25


def test_tests_of_a_difference_in_f1_err_in_five_of_a_hundred_cases() -> None:
    rng = np.random.default_rng(3)
    shown = {"texts": 0, "rows": 0}
    for seed in range(100):
        text_of, _ = clustered(rng)
        label = rng.integers(2, size=60)
        a, b = (np.where(rng.random(60) < 0.7, label, 1 - label)[text_of][None] for _ in range(2))
        for name, texts in (("texts", text_of), ("rows", None)):
            settings = {"text_of": texts, "resamples": 300, "seed": seed}
            shown[name] += exchanged("macro_f1", a, b, label[text_of], **settings).p < 0.05
    assert shown["texts"] <= 10
    assert shown["rows"] > 25


def test_signs_of_whole_texts_are_flipped() -> None:
    rng = np.random.default_rng(4)
    text_of = np.array([0, 0, 0, 1, 1, 2, 3, 4, 4, 5])
    a, b = rng.integers(3, size=(2, 10)) / 2
    sums = np.bincount(text_of, a - b)
    flips = np.array(list(itertools.product((1, -1), repeat=6))) @ sums
    found = sign_flips(a, b, text_of=text_of, seeds=2)
    assert found.p == pytest.approx((np.abs(flips) >= abs(sums.sum()) - 1e-9).mean())
    assert (found.only_a, found.only_b) == ((a > b).sum(), (b > a).sum())
    right = a > b
    as_one = sign_flips(right.astype(float), 1.0 - right, text_of=text_of)
    assert mcnemar(right, ~right, text_of=text_of) == as_one


def test_differences_that_cancel_within_every_text_show_nothing() -> None:
    a = np.array([1.0, 0.0, 1.0, 0.0])
    assert sign_flips(a, 1 - a, text_of=np.array([0, 0, 1, 1])).p == 1.0


def test_answers_to_whole_texts_are_exchanged() -> None:
    """Twelve texts, of which all exchanges can be written out."""
    rng = np.random.default_rng(5)
    text_of = np.arange(12).repeat([1, 2, 3] * 4)
    target = rng.integers(2, size=len(text_of))
    a = np.where(rng.random(len(target)) < 0.9, target, 1 - target)
    b = np.where(rng.random(len(target)) < 0.5, target, 1 - target)

    def macro(said: np.ndarray) -> np.ndarray:
        scores = []
        for label in (0, 1):
            hits = ((said == label) & (target == label)).sum(-1)
            scores.append(2 * hits / ((said == label).sum(-1) + (target == label).sum()))
        return np.mean(scores, axis=0)

    swaps = np.array(list(itertools.product((False, True), repeat=12)))[:, text_of]
    apart = np.abs(macro(np.where(swaps, b, a)) - macro(np.where(swaps, a, b)))
    exact = (apart >= abs(macro(a) - macro(b)) - 1e-12).mean()
    found = exchanged("macro_f1", a[None], b[None], target, text_of=text_of)
    assert found.p == pytest.approx(exact, abs=0.015)


def test_exchanges_of_texts_with_many_kinds_of_rows_take_little_memory() -> None:
    rng = np.random.default_rng(0)
    rows = 3000
    target = rng.random((rows, 16)) < 0.5
    a, b = (target[None] ^ (rng.random((1, rows, 16)) < 0.1) for _ in range(2))
    tracemalloc.start()
    found = exchanged("macro_f1", a, b, target, text_of=np.arange(rows) % 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.p > 0.1  # two texts show nothing
    assert peak < 100e6


def test_a_rival_that_is_ahead_on_two_texts_may_be_so_by_chance() -> None:
    """Each class has one text, so that no resample differs, however many rows there are."""
    texts = np.repeat([0, 1], 30)
    own = np.arange(60) % 10 > 0
    ahead = p_of_any_ahead([np.ones(60)], own.astype(float), texts, text_of=texts)
    assert ahead == 0.25


def test_the_variance_of_a_mean_is_that_of_the_scores_of_layers() -> None:
    rng = np.random.default_rng(6)
    text_of, _ = clustered(rng)
    values = rng.normal(size=len(text_of)) + rng.normal(size=60)[text_of]
    error = standard_error(torch.from_numpy(values), torch.from_numpy(text_of))
    found = mean_variance(values, np.zeros(len(values), int), text_of)
    assert found**0.5 == pytest.approx(error)


def test_rows_are_worth_the_texts_that_they_have() -> None:
    assert repeated(None) is None
    assert repeated(np.array([4, 2, 9])) is None
    np.testing.assert_array_equal(repeated(np.array([4, 2, 4])), [1, 0, 1])
    assert independent_rows(30, np.arange(10).repeat(3)) == 10
    assert independent_rows(100, np.minimum(np.arange(100), 50)) == pytest.approx(100**2 / 2550)
    low, _ = bootstrap_interval(np.ones(30), np.zeros(30, int), text_of=np.arange(10).repeat(3))
    assert low == pytest.approx(1 - unseen_share(10))


@pytest.mark.parametrize("text_of", [np.arange(3), np.zeros((4, 1)), np.array(0)])
def test_texts_of_other_rows_are_refused(text_of: np.ndarray) -> None:
    a, target = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 1, 0, 1])
    said = target[None]
    for ask in (
        lambda: bootstrap_interval(a, target, text_of=text_of),
        lambda: metric_intervals(target, said, text_of=text_of),
        lambda: metric_intervals(target[:, None] > 0, said[..., None] > 0, text_of=text_of),
        lambda: paired_interval(a, 1 - a, target, text_of=text_of),
        lambda: f1_interval("macro_f1", said, said, target, text_of=text_of),
        lambda: crossed_interval(np.stack([a, a]), target, text_of=text_of),
        lambda: ratio_interval(a, np.ones(4), text_of=text_of),
        lambda: p_of_any_ahead([a], 1 - a, target, text_of=text_of),
        lambda: sign_flips(a, 1 - a, text_of=text_of),
        lambda: mcnemar(a > 0, a < 1, text_of=text_of),
        lambda: exchanged("macro_f1", said, 1 - said, target, text_of=text_of),
    ):
        with pytest.raises(UserError, match=r"4 test rows and texts of shape \("):
            ask()


@pytest.mark.parametrize(
    "ask", [*ALL, share_of, Answers, selection_bias, Familiar.of, Familiar.of_job]
)
def test_whoever_asks_has_to_say_which_texts_are_repeated(ask: Callable[..., object]) -> None:
    assert inspect.signature(ask).parameters["text_of"].default is inspect.Parameter.empty
