"""Pools on predictions made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

from layerfusion.fusion.objective import costs, find_shift, label_shares
from layerfusion.fusion.pool import FACTS, KEPT_FORMS, WORDS, Pool, agreement, evidence
from layerfusion.fusion.pool_fitting import (
    ANCHOR_ROWS,
    GATE_ROWS,
    MOVE_ROWS,
    WEIGHT_ROWS,
    anchored_weights,
    fit_pool,
    fit_pools,
)
from layerfusion.fusion.pool_forms import (
    GATED_SOURCES,
    PoolTask,
    choose_pool,
    judge_forms,
    judge_pools,
    serve,
)
from layerfusion.fusion.pool_forms import _supported as supported

CLASSES = 3


def _said(rows: int, quality: list[float], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sources that see the label through noise of their own; the higher, the better."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(CLASSES, (rows,), generator=generator)
    truth = F.one_hot(target, CLASSES).double()
    noise = torch.randn(len(quality), rows, CLASSES, generator=generator, dtype=torch.float64)
    strength = torch.tensor(quality, dtype=torch.float64)[:, None, None]
    return (strength * truth + noise).log_softmax(dim=2), target


def _unequal(rows: int, quality: list[float], seed: int = 0) -> tuple[Tensor, Tensor]:
    """The same of classes that are not equally frequent, a share that every source counts whole."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.tensor([0.7, 0.25, 0.05]).double()
    target = torch.multinomial(shares, rows, replacement=True, generator=generator)
    truth = F.one_hot(target, CLASSES).double()
    noise = torch.randn(len(quality), rows, CLASSES, generator=generator, dtype=torch.float64)
    strength = torch.tensor(quality, dtype=torch.float64)[:, None, None]
    evidence_of = strength * (strength * truth + noise)  # the log-likelihoods of the classes
    return (evidence_of + shares.log()).log_softmax(dim=2), target


def _loss(pool: Pool, said: Tensor, target: Tensor) -> float:
    return float(F.nll_loss(pool(said)[0], target))


# -- the formula, against numpy one row at a time -----------------------------------------------


def test_pool_equals_the_reference() -> None:
    said, _ = _said(5, [1.0, 2.0])
    generator = torch.Generator().manual_seed(3)
    gate = torch.randn(2, 2 * FACTS, generator=generator, dtype=torch.float64)
    pool = Pool(
        "gated",
        torch.tensor([0.2, -0.4]).double(),
        torch.tensor(1.5).double(),
        gate,
        torch.arange(6).double() / 10,
        torch.arange(1, 7).double(),
    )
    pooled, gates = pool(said)
    for row in range(5):
        own = said[:, row].numpy()
        probs = np.exp(own)
        entropy = [-(probs[k] * own[k]).sum() for k in range(2)]
        largest = [own[k].max() for k in range(2)]
        distance = [np.abs(probs[k] - probs.mean(axis=0)).sum() for k in range(2)]
        facts = np.array([*entropy, *largest, *distance])
        scores = pool.bias.numpy() + gate.numpy() @ ((facts - pool.mean.numpy()) / pool.std.numpy())
        g = np.exp(scores) / np.exp(scores).sum()
        mixed = 1.5 * (g[0] * own[0] + g[1] * own[1])
        expected = mixed - np.log(np.exp(mixed).sum())
        np.testing.assert_allclose(gates[row].numpy(), g, rtol=1e-9)
        np.testing.assert_allclose(pooled[row].numpy(), expected, rtol=1e-9)


def test_weights_are_at_the_optimum_that_scipy_finds() -> None:
    said, target = _said(200, [0.5, 1.0, 2.0])
    pool = fit_pool(said, target, "weighted")
    own = said.numpy()

    def loss(x: np.ndarray) -> float:
        g = np.exp(x[:3]) / np.exp(x[:3]).sum()
        mixed = np.exp(x[3]) * np.einsum("k,knc->nc", g, own)
        log_probs = mixed - np.log(np.exp(mixed).sum(axis=1, keepdims=True))
        picked = log_probs[np.arange(200), target.numpy()]
        return -picked.mean() + WEIGHT_ROWS / 200 * ((x[:3] ** 2).sum() + x[3] ** 2)

    found = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(pool.bias.numpy(), found[:3], atol=1e-3)
    assert float(pool.scale) == pytest.approx(np.exp(found[3]), rel=1e-3)


def test_gates_start_from_the_weights_and_are_pulled_towards_them() -> None:
    said, target = _said(300, [1.0, 1.5])
    weighted, gated = (fit_pool(said, target, form) for form in ("weighted", "gated"))
    assert not weighted.gate.any()
    assert gated.gate.any()
    pull = GATE_ROWS / 300 * float(gated.gate.square().sum())
    assert _loss(gated, said, target) + pull <= _loss(weighted, said, target) + 1e-6


# -- what it is for -----------------------------------------------------------------------------


def test_a_useless_source_gets_little_weight_and_does_no_harm() -> None:
    said, target = _said(1000, [2.0, 0.0])
    fresh, fresh_target = _said(1000, [2.0, 0.0], seed=1)
    pool = choose_pool(said, target, text_of=None).pool
    alone = fit_pool(said[:1], target, "single")
    assert float(pool(fresh)[1].mean(dim=0)[1]) < 0.15
    assert _loss(pool, fresh, fresh_target) < _loss(alone, fresh[:1], fresh_target) + 0.005


def test_anchored_weights_let_a_source_correct_the_others() -> None:
    """A second source that repeats the first's mistake helps by a weight below zero."""
    said, target = _said(2000, [1.5, 0.0])
    mistake = said[1]  # knows nothing of the class
    both = torch.stack([said[0] + mistake, mistake]).log_softmax(dim=2)
    pool = fit_pool(both, target, "anchored")
    assert pool.form == "anchored"
    gates = pool(both)[1]
    assert float(gates[0, 1]) < -0.05
    assert torch.equal(gates, gates[:1].expand(len(target), -1))
    assert float(gates[0].abs().sum()) == pytest.approx(1)
    assert _loss(pool, both, target) < _loss(fit_pool(both, target, "weighted"), both, target)
    pooled = pool(both)[0].exp().sum(dim=1)
    torch.testing.assert_close(pooled, torch.ones_like(pooled))


def test_sets_of_many_sources_compete_without_gates() -> None:
    said, target = _said(200, [1.0] * (GATED_SOURCES + 1))
    ((_, compared),) = judge_pools([PoolTask(said, target, text_of=None)])
    assert set(compared) == {"single", "anchored"}
    kept = choose_pool(said, target, text_of=None).losses
    assert set(kept) == {"single", "anchored", "anchored_gated"}
    alone = choose_pool(said, target, gated=True, text_of=None).losses
    assert set(alone) == {"anchored_gated"}


def _now_and_then_blind(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Many sources that are sure, of which two texts in three make each say a class by chance."""
    said, target = _said(rows, [0.6] * (GATED_SOURCES + 1), seed)
    generator = torch.Generator().manual_seed(seed + 1)
    blind = torch.rand(rows, generator=generator) < 2 / 3
    by_chance = F.one_hot(torch.randint(CLASSES, said.shape[:2], generator=generator), CLASSES)
    return torch.where(blind[:, None], 3 * by_chance, 3 * said).log_softmax(dim=2), target


def test_gates_of_many_sources_are_taken_where_held_out_rows_are_sure_of_them() -> None:
    said, target = _now_and_then_blind(3000, seed=0)
    chosen = choose_pool(said, target, text_of=None)
    pool, losses, reason = chosen.pool, chosen.losses, chosen.reason
    assert pool.form == "anchored_gated"
    assert losses["anchored_gated"] < losses["anchored"]
    assert reason == (
        "weights that move a little from text to text, held-out log-loss"
        f" {losses['anchored_gated']:.4f}; the best source alone {losses['single']:.4f}; weights"
        f" held near equal ones {losses['anchored']:.4f}"
    )
    fresh, fresh_target = _now_and_then_blind(3000, seed=7)
    still = fit_pool(said, target, "anchored")
    assert _loss(pool, fresh, fresh_target) < _loss(still, fresh, fresh_target)


def test_gates_of_many_sources_that_are_alike_on_all_texts_are_not_taken() -> None:
    for seed in range(5):
        said, target = _said(300, [0.3] * (GATED_SOURCES + 1), seed)
        assert choose_pool(said, target, text_of=None).pool.form == "anchored"


@pytest.mark.parametrize(("gain", "form"), [(0.019, "anchored"), (0.021, "anchored_gated")])
def test_gates_of_anchored_weights_have_to_gain_two_standard_errors(gain: float, form: str) -> None:
    base = torch.full((100,), 1.0, dtype=torch.float64)
    spread = torch.linspace(-1, 1, 100, dtype=torch.float64)
    noise = 0.01 * spread / (spread.std() / 100**0.5)  # whose standard error is 0.01
    losses = {"single": base + 1, "anchored": base, "anchored_gated": base - gain + noise}
    assert supported(losses, text_of=None) == form


def test_gates_of_anchored_weights_are_fitted_alone_as_beside_the_weights() -> None:
    said, target = _said(100, [0.5, 1.0, 2.0])
    beside = fit_pools(said, target, KEPT_FORMS)
    for form, pool in zip(KEPT_FORMS, beside, strict=True):
        assert pool.form == form
        torch.testing.assert_close(pool(said)[0], fit_pool(said, target, form)(said)[0])


def test_equal_sources_are_better_together_than_any_alone() -> None:
    said, target = _said(1000, [1.5, 1.5, 1.5])
    fresh, fresh_target = _said(1000, [1.5, 1.5, 1.5], seed=1)
    chosen = choose_pool(said, target, text_of=None)
    pool, losses, reason = chosen.pool, chosen.losses, chosen.reason
    assert pool.form != "single"
    assert losses["weighted"] < losses["single"]
    assert reason.startswith(WORDS[pool.form])
    assert _loss(pool, fresh, fresh_target) < 0.8 * _loss(
        fit_pool(said, target, "single"), fresh, fresh_target
    )


def test_gates_are_taken_where_each_source_knows_its_own_half() -> None:
    generator = torch.Generator().manual_seed(4)
    said, target = _said(1200, [3.0, 3.0])
    knows = torch.rand(1200, generator=generator) < 0.5
    blind = torch.full((1200, CLASSES), 1 / 3, dtype=torch.float64)
    blind = (blind + 0.3 * torch.rand(1200, CLASSES, generator=generator)).log_softmax(dim=1)
    wrong = said.roll(1, dims=2)  # confident enough to mislead a fixed weight
    mixed = torch.stack(
        [
            torch.where(knows[:, None], said[0], 0.3 * wrong[0] + 0.7 * blind),
            torch.where(knows[:, None], 0.3 * wrong[1] + 0.7 * blind, said[1]),
        ]
    ).log_softmax(dim=2)
    chosen = choose_pool(mixed, target, text_of=None)
    pool, losses = chosen.pool, chosen.losses
    assert losses["gated"] < losses["weighted"]
    assert pool.form == "gated"
    gates = pool(mixed)[1]
    assert float(gates[knows, 0].mean()) > float(gates[~knows, 0].mean())


def test_overconfident_sources_are_calibrated() -> None:
    said, target = _said(2000, [1.0])
    over = (4 * said).log_softmax(dim=2)
    pool = fit_pool(over, target, "single")
    right = float(fit_pool(said, target, "single").scale)
    assert float(pool.scale) == pytest.approx(right / 4, rel=0.05)
    assert _loss(pool, over, target) < float(F.nll_loss(over[0], target))


@pytest.mark.parametrize("form", KEPT_FORMS)
@pytest.mark.parametrize(("rows", "classes"), [(40, 2), (150, 2), (100, 8)])
def test_sources_that_are_right_on_all_rows_are_no_surer_than_the_rows_allow(
    form: str, rows: int, classes: int
) -> None:
    """Every source gives the right class, by a margin that grows without any bound."""
    target = torch.arange(rows) % classes
    said = (
        F.one_hot(target, classes).double() * torch.tensor([40.0, 50.0])[:, None, None]
    ).log_softmax(dim=2)
    wrong = 1 - float(fit_pool(said, target, form)(said)[0].exp()[0, target[0]])
    assert wrong == pytest.approx((1 - 1 / classes) / (rows + 1), rel=0.05)


@pytest.mark.parametrize("form", KEPT_FORMS)
def test_sources_that_err_are_as_sure_as_their_mistakes_allow(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, target = _said(400, [0.5, 1.0])
    bounded = fit_pool(said, target, form)
    monkeypatch.setattr("layerfusion.fusion.pool_fitting.UNKNOWN_ROWS", 0.0)
    torch.testing.assert_close(
        bounded(said)[0], fit_pool(said, target, form)(said)[0], rtol=0.01, atol=0
    )


def test_the_bound_leaves_every_answer_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said, target = _said(60, [9.0, 8.0, 9.0])
    fresh, _ = _said(1000, [3.0, 2.0, 1.0], seed=1)
    bounded = fit_pool(said, target, "anchored")
    monkeypatch.setattr("layerfusion.fusion.pool_fitting.UNKNOWN_ROWS", 0.0)
    free = fit_pool(said, target, "anchored")
    assert float(bounded.scale) < 0.9 * float(free.scale)
    assert torch.equal(bounded(fresh)[0].argmax(dim=1), free(fresh)[0].argmax(dim=1))


def test_evidence_does_not_depend_on_the_other_rows() -> None:
    said, _ = _said(10, [1.0, 2.0])
    torch.testing.assert_close(evidence(said)[:4], evidence(said[:, :4]))


@pytest.mark.parametrize("form", ["weighted", "gated", "anchored_gated"])
def test_the_order_of_the_sources_does_not_matter(form: str) -> None:
    said, target = _said(200, [0.5, 1.0, 2.0])
    order = [2, 0, 1]
    pooled, gates = fit_pool(said, target, form)(said)
    moved, moved_gates = fit_pool(said[order], target, form)(said[order])
    torch.testing.assert_close(pooled, moved, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gates[:, order], moved_gates, atol=1e-4, rtol=1e-3)


def test_the_same_seed_gives_the_same_stack() -> None:
    said, target = _said(100, [1.0, 1.2])
    first, again = (choose_pool(said, target, seed=3, text_of=None).pool(said)[0] for _ in range(2))
    assert torch.equal(first, again)


def test_anchored_weights_are_at_the_optimum_that_scipy_finds() -> None:
    said, target = _said(150, [0.5, 1.0, 2.0])
    anchor = np.full(3, 1 / 3)

    def loss(w: np.ndarray) -> float:
        mixed = np.einsum("k,knc->nc", w, said.numpy())
        log_probs = mixed - np.log(np.exp(mixed).sum(axis=1, keepdims=True))
        picked = log_probs[np.arange(150), target.numpy()]
        return -picked.mean() + ANCHOR_ROWS * 3**0.5 / 150 * ((w - anchor) ** 2).sum()

    found = minimize(loss, anchor, method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(anchored_weights(said, target).numpy(), found, atol=1e-4)
    single = anchored_weights(said.float(), target).numpy()
    np.testing.assert_allclose(single, found, atol=1e-3)


def test_what_a_pool_adds_to_classes_is_at_the_optimum_that_scipy_finds() -> None:
    said, target = _unequal(150, [0.5, 1.0, 2.0])
    pool = fit_pool(said, target, "anchored")
    shares = (target.bincount(minlength=CLASSES).numpy() + 1) / (150 + CLASSES)
    anchor = np.array([1 / 3, 1 / 3, 1 / 3, 0])

    def loss(w: np.ndarray) -> float:
        mixed = np.einsum("k,knc->nc", w[:3], said.numpy()) + w[3] * np.log(shares)
        log_probs = mixed - np.log(np.exp(mixed).sum(axis=1, keepdims=True))
        picked = log_probs[np.arange(150), target.numpy()]
        return -picked.mean() + ANCHOR_ROWS * 4**0.5 / 150 * ((w - anchor) ** 2).sum()

    found = minimize(loss, anchor, method="BFGS", options={"gtol": 1e-9}).x
    assert pool.shift is not None
    sure = float(pool.scale) / np.abs(found[:3]).sum()  # the factor of a pool that is not too sure
    assert 0.9 < sure <= 1.0001
    np.testing.assert_allclose((pool.scale * pool.bias).numpy(), sure * found[:3], atol=1e-3)
    np.testing.assert_allclose(pool.shift.numpy(), sure * found[3] * np.log(shares), atol=3e-3)


def test_a_pool_of_members_that_all_count_a_frequency_counts_it_once() -> None:
    said, target = _unequal(2000, [0.6] * 8)
    pool = fit_pool(said, target, "anchored")
    assert pool.shift is not None
    assert pool.shift.argmax() == target.bincount().argmin()  # the rarest class gains most
    fresh, fresh_target = _unequal(4000, [0.6] * 8, seed=1)
    without = replace(pool, shift=None)
    assert _loss(pool, fresh, fresh_target) < _loss(without, fresh, fresh_target) - 0.05
    said_share = pool(fresh)[0].exp().mean(dim=0)
    np.testing.assert_allclose(said_share, fresh_target.bincount() / 4000, atol=0.03)


def test_classes_that_are_equally_frequent_get_nothing() -> None:
    said, _ = _said(90, [0.5, 1.0])
    target = torch.arange(90) % CLASSES
    pool = fit_pool(said, target, "anchored")
    assert pool.shift is not None
    assert float(pool.shift.max() - pool.shift.min()) < 1e-9


def test_gates_on_anchored_weights_are_at_the_optimum_that_scipy_finds() -> None:
    said, target = _said(80, [0.5, 1.0, 2.0])
    pool = fit_pool(said, target, "anchored_gated")
    plain = fit_pool(said, target, "anchored")
    weights = plain.scale * plain.bias
    torch.testing.assert_close(pool.scale * pool.bias, weights)
    assert pool.shift is not None
    added = pool.shift.numpy()
    facts = ((agreement(said, weights) - pool.mean) / pool.std).numpy()

    def loss(flat: np.ndarray) -> float:
        moving = weights.numpy() + facts @ flat.reshape(3, 4).T
        mixed = np.einsum("nk,knc->nc", moving, said.numpy()) + added
        log_probs = mixed - np.log(np.exp(mixed).sum(axis=1, keepdims=True))
        picked = log_probs[np.arange(80), target.numpy()]
        return -picked.mean() + MOVE_ROWS / 80 * (flat**2).sum()

    found = minimize(loss, np.zeros(12), method="BFGS", options={"gtol": 1e-10}).x
    gates = (pool.scale * pool.gate).flatten().numpy()
    np.testing.assert_allclose(gates, found, atol=1e-6)
    assert float(np.abs(found).max()) > 1e-5  # they have moved


def test_gates_on_anchored_weights_follow_sources_that_know_different_texts() -> None:
    said, target = _said(1000, [0.3, 0.3])
    knows = torch.arange(1000) % 2 == 0
    right = F.one_hot(target, CLASSES).double() * 3
    mixed = torch.stack([said[0] + right * knows[:, None], said[1] + right * ~knows[:, None]])
    mixed = mixed.log_softmax(dim=2)
    plain, moving = (fit_pool(mixed, target, form) for form in ("anchored", "anchored_gated"))
    assert _loss(moving, mixed, target) < _loss(plain, mixed, target)


def test_the_choice_of_sources_never_sees_the_rows_that_judge_it() -> None:
    """Sources of pure luck look good to a choice among them on all rows, and never outside."""
    said, target = _said(60, [0.0] * 200)

    def luckiest(log_probs: Tensor, labels: Tensor, _: float) -> list[int]:
        return [int(torch.stack([F.nll_loss(one, labels) for one in log_probs]).argmin())]

    _, honest = judge_forms(said, target, choose=luckiest, text_of=None)
    best = said[luckiest(said, target, 1.0)]
    _, flattering = judge_forms(best, target, text_of=None)
    assert float(F.nll_loss(flattering["single"], target)) < np.log(CLASSES) - 0.02
    assert float(F.nll_loss(honest["single"], target)) > np.log(CLASSES) - 0.01


@pytest.mark.parametrize("form", ["single", "weighted", "anchored", "anchored_gated"])
def test_rows_that_repeat_their_texts_teach_no_more_than_the_texts(form: str) -> None:
    """Repeated rows are how a weight of ten, or a text that many have copied, comes to a pool."""
    said, target = _said(40, [0.3, 0.1, 0.0, 0.2])
    many, labels = said.repeat(1, 10, 1), target.repeat(10)
    once = fit_pool(said, target, form)
    again = fit_pool(many, labels, form, 1 / 10)
    torch.testing.assert_close(again(said)[0], once(said)[0], rtol=1e-3, atol=1e-3)
    bold = fit_pool(many, labels, form)
    assert _loss(bold, said, target) < _loss(again, said, target)


def test_all_rows_of_a_text_are_in_one_fold() -> None:
    """A source that has learned each text by heart, wrongly, is seen through."""
    said, target = _said(60, [0.0] * 12)
    many, labels, text_of = said.repeat(1, 10, 1), target.repeat(10), torch.arange(60).repeat(10)
    _, once = judge_forms(said, target, text_of=None)
    _, apart = judge_forms(many, labels, text_of=None)
    _, together = judge_forms(many, labels, text_of=text_of)
    honest, flattering = (float(F.nll_loss(x["anchored"], labels)) for x in (together, apart))
    assert honest > flattering + 0.05
    assert abs(honest - float(F.nll_loss(once["anchored"], target))) < 0.05
    _, unmarked = judge_forms(said, target, text_of=torch.arange(60).flip(0) + 7)
    assert float(F.nll_loss(unmarked["anchored"], target)) == pytest.approx(
        float(F.nll_loss(once["anchored"], target)), abs=0.05
    )


def test_predictions_serve_the_objective_as_the_pool_that_is_kept_does() -> None:
    said, target = _unequal(900, [1.0, 0.5])
    _, predicted = judge_forms(said, target, text_of=None)
    plain = predicted["weighted"]
    for objective, weights in (("macro_f1", "none"), ("log_loss", "balanced")):
        served = serve(objective, weights, plain, target, text_of=None)
        assert not torch.equal(served, plain)
        chosen = choose_pool(said, target, objective=objective, class_weights=weights, text_of=None)
        kept = chosen.pool
        assert chosen.shift.endswith("of the classes' log-frequencies are taken off")
        assert chosen.reason.endswith(f"; {chosen.shift}")
        names = served.argmax(1).bincount(minlength=CLASSES) / len(target)
        kept_names = kept(said)[0].argmax(1).bincount(minlength=CLASSES) / len(target)
        torch.testing.assert_close(names, kept_names, rtol=0, atol=0.08)
    assert torch.equal(serve("log_loss", "none", plain, target, text_of=None), plain)
    assert choose_pool(said, target, text_of=None).shift == ""
    f1 = [float(costs("macro_f1", x, target).mean()) for x in (served, plain)]
    assert f1[0] < f1[1]


def test_a_shift_is_never_found_on_the_rows_that_it_judges() -> None:
    """Where there is nothing to find, what is best on these very rows seems a gain."""
    said, target = _unequal(60, [0.0])
    predicted = said[0].double()
    own = [
        find_shift(
            "macro_f1", "none", predicted, target, label_shares(target, CLASSES), text_of=None
        )
    ]
    served = serve("macro_f1", "none", predicted, target, text_of=None)
    fooled = predicted if own[0] is None else (predicted + own[0].values).log_softmax(1)
    assert float(costs("macro_f1", fooled, target).mean()) <= float(
        costs("macro_f1", served, target).mean()
    )
