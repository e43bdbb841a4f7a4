"""Successive halving against known worths, and what a trained head may see of a fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from layerfusion.config.job import FusionConfig, LexicalConfig, TrainerConfig
from layerfusion.embeddings.cache_key import TFIDF
from layerfusion.embeddings.lexical import LexicalSource, open_lexical
from layerfusion.errors import UserError
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.deadline import Deadline
from layerfusion.fusion.head import classifier_settings
from layerfusion.fusion.held_out_heads import HeldOutHeads
from layerfusion.fusion.layer_sets import LayerSet
from layerfusion.fusion.operators.capacity import head_parameters
from layerfusion.fusion.race import (
    Evaluation,
    FusionCandidate,
    list_fusion_candidates,
    prefer,
    race,
)
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.selection import Choice, Selection

A, B = LayerId("a", "1", "mean"), LayerId("b", "2", "mean")


def layer_set(name: str, *layers: LayerId, only_stacked: bool = False) -> LayerSet:
    selection = Selection(tuple(Choice(layer, "") for layer in layers))
    return LayerSet(name, selection, lambda *_: [], only_stacked)


BOTH = layer_set("both", A, B)
ONE = layer_set("one", A)
FOLD_OF = torch.tensor([0, 1, 2, 3, 4, -1] * 20)


def log_probs_of(losses: Tensor) -> Tensor:
    """Log-probabilities of two classes with these log-losses, if every target is class 0."""
    return torch.stack([-losses, torch.zeros_like(losses)], dim=1)


TARGET = torch.zeros(len(FOLD_OF), dtype=torch.int64)


def candidate(name: str, width: int = 8) -> FusionCandidate:
    return FusionCandidate(BOTH, FusionConfig(name=name, width=width), 1)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_wins_and_the_worse_half_is_dropped_at_each_rung(seed: int) -> None:
    heads = [candidate("gated", width) for width in range(1, 9)]
    generator = torch.Generator().manual_seed(seed)
    asked: Counter[int] = Counter()

    def trained(one: FusionCandidate, folds: Sequence[int]) -> list[Tensor]:
        asked[one.fusion.width] += len(folds)
        noise = torch.randn(len(folds), 20, generator=generator, dtype=torch.float64)
        width = one.fusion.width
        return [log_probs_of(width + 0.1 * noise[n] + fold) for n, fold in enumerate(folds)]

    stack = candidate("stacked")
    evaluations = race(
        [*heads, stack],
        lambda some: [log_probs_of(torch.full((100,), 3.5, dtype=torch.float64))] * len(some),
        trained,
        FOLD_OF,
        TARGET,
        num_classes=2,
        text_of=None,
    )
    assert [asked[width] for width in range(1, 9)] == [5, 5, 2, 2, 1, 1, 1, 1]
    assert [one.folds for one in evaluations] == [5, 5, 5, 2, 2, 1, 1, 1, 1]
    # A fold's own difficulty (0 … 4) is the same for all, and 2 on average.
    assert evaluations[0].candidate.fusion.width == 1
    assert evaluations[0].log_loss == pytest.approx(3, abs=0.1)
    assert evaluations[1].candidate is stack
    assert bool(evaluations[0].seen.all())
    difference, error = evaluations[-1].behind(evaluations[0])
    assert difference == pytest.approx(evaluations[-1].candidate.fusion.width - 1, abs=0.2)
    assert 0 < error < 0.1


@pytest.mark.parametrize(
    ("limit", "folds", "line"),
    [
        (100, [5, 5, 2, 1, 1], ""),
        # 4 heads on the first fold, then 2 on the second: 6 s; the rest of one takes 3, and 1 after
        (9, [5, 2, 2, 1, 1], "evaluated 5 of 5 candidates, 1 of them on all 5 folds"),
        (12, [5, 5, 2, 1, 1], ""),
        (6.5, [5, 2, 1, 1, 1], "evaluated 5 of 5 candidates, 1 of them on all 5 folds"),
        (3.5, [5, 1, 1], "evaluated 3 of 5 candidates, 1 of them on all 5 folds"),
        (1, [5, 1], "evaluated 2 of 5 candidates, 1 of them on all 5 folds"),
        (-1, [5], "evaluated 1 of 5 candidates, 1 of them on all 5 folds"),
    ],
)
def test_no_head_is_begun_that_would_end_too_late(
    limit: float, folds: list[int], line: str
) -> None:
    """Each takes a second for a fold, and one more is kept for the head that is chosen."""
    clock = [0.0]
    deadline = Deadline(limit, now=lambda: clock[0])

    def trained(one: FusionCandidate, folds: Sequence[int]) -> list[Tensor]:
        clock[0] += 1
        assert len(folds) == 1
        return [log_probs_of(torch.full((20,), one.fusion.width, dtype=torch.float64))]

    candidates = [*(candidate("gated", width) for width in range(1, 5)), candidate("stacked")]
    stack = log_probs_of(torch.full((100,), 3.5, dtype=torch.float64))
    found = race(
        candidates, lambda _: [stack], trained, FOLD_OF, TARGET, 2, deadline=deadline, text_of=None
    )
    assert [one.folds for one in found] == folds
    assert all(bool(one.seen.sum() == 20 * one.folds) for one in found)
    assert deadline.left_out == ([f"fusion=auto {line}; there was no time for more"
                                  f" (time_limit={limit:g})"] if line else [])  # fmt: skip
    assert clock[0] <= max(limit, 0)


def test_without_stacks_one_head_is_evaluated_whatever_the_time() -> None:
    heads = [candidate("gated", width) for width in (1, 2, 3)]
    deadline = Deadline(1, begun=0, now=lambda: 5)
    (only,) = race(
        heads, lambda _: [], lambda *_: [log_probs_of(torch.ones(20))], FOLD_OF, TARGET, 2,
        deadline=deadline, text_of=None,
    )  # fmt: skip
    assert only.candidate is heads[0]
    assert only.folds == 1
    assert deadline.left_out[0].startswith("fusion=auto evaluated 1 of 3 candidates, 0 of them on")


@pytest.mark.parametrize(("rows", "preferred"), [(30, "wide"), (3000, "narrow")])
@pytest.mark.parametrize("rival", ["stacked", "gated"])
def test_the_stack_of_the_most_layers_is_preferred_unless_another_is_surely_better(
    rows: int, preferred: str, rival: str
) -> None:
    """The other is better by a tenth of a nat in both cases, which few rows cannot tell."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(rows, generator=generator, dtype=torch.float64)
    losses = {"wide": 2 + 0 * noise, "narrow": 1.9 + (noise - noise.mean())}
    found = {"wide": candidate("stacked"), "narrow": FusionCandidate(ONE, FusionConfig(rival), 1)}
    evaluations = {
        name: Evaluation(one, log_probs_of(losses[name]), torch.zeros(rows).long(), 5, text_of=None)
        for name, one in found.items()
    }
    dropped = Evaluation(
        found["narrow"], log_probs_of(losses["narrow"] - 9), TARGET[:rows], 1, text_of=None
    )
    ranked = [evaluations["narrow"], evaluations["wide"], dropped]
    assert prefer(ranked) is evaluations[preferred]


def test_without_stacks_the_best_head_is_preferred() -> None:
    heads = [
        Evaluation(
            candidate("gated", width),
            log_probs_of(width + torch.rand(9)),
            TARGET[:9],
            5,
            text_of=None,
        )
        for width in (1, 2)
    ]
    assert prefer(heads) is heads[0]


def test_a_stack_alone_needs_no_heads() -> None:
    def never(*_: object) -> list[Tensor]:
        raise AssertionError

    alone = [candidate("stacked")]
    (only,) = race(
        alone, lambda _: [log_probs_of(torch.ones(100))], never, FOLD_OF, TARGET, 2, text_of=None
    )
    assert only.log_loss == 1
    assert only.folds == 5


def test_candidates_are_all_fusions_of_all_layer_sets_at_all_widths() -> None:
    settings = FusionConfig(among=["stacked", "gated", "late"], widths=[4, 16], dropout=0.1)
    found = list_fusion_candidates([ONE, BOTH], settings, {A: 6, B: 10}, 3)
    names = [(one.layer_set.name, one.fusion.name, one.fusion.width) for one in found]
    # Of a single layer the head is plain, whatever the operator.
    assert names == [
        ("one", "stacked", settings.width),
        ("one", "gated", 4),
        ("one", "gated", 16),
        ("both", "stacked", settings.width),
        ("both", "gated", 4),
        ("both", "gated", 16),
        ("both", "late", 4),
        ("both", "late", 16),
    ]
    assert all(one.fusion.dropout == 0.1 for one in found)
    assert found[0].parameters == 7 * 3
    assert found[-1].parameters == head_parameters(found[-1].fusion, [6, 10], 3)


def test_a_stack_with_a_head_is_tried_where_a_text_may_have_several_labels() -> None:
    default, widths = FusionConfig(widths=[4, 16]), {A: 6, B: 10}
    large = layer_set("large", A, B, only_stacked=True)
    losses = {A: 0.2, B: 0.3}

    def names(settings: FusionConfig, **facts: Any) -> list[tuple[str, str, int]]:
        found = list_fusion_candidates([ONE, large], settings, widths, 3, **facts)
        return [(one.layer_set.name, one.fusion.name, one.parameters) for one in found]

    plain = [("one", "stacked", 7 * 3), ("large", "stacked", 18 * 3)]
    assert names(default, losses=losses) == plain
    several = names(default, losses=losses, multilabel=True)
    late = FusionConfig("late", width=4)
    heads = [head_parameters(late, [6], 3), head_parameters(late, [6, 10], 3)]
    assert several == [
        plain[0],
        ("one", "late_stack", 7 * 3 + heads[0]),
        plain[1],
        ("large", "late_stack", 18 * 3 + heads[1]),
    ]
    # What the user says counts, and words have no layer that a head could read.
    only = FusionConfig(among=["stacked"])
    assert names(only, losses=losses, multilabel=True) == plain
    assert names(default, losses={}, multilabel=True) == plain
    asked = FusionConfig(among=["late_stack"], widths=[4, 16])
    assert names(asked, losses=losses) == [several[1], several[3]]
    with pytest.raises(UserError, match="the head of a stack reads layers of models"):
        names(asked, losses={})


def _dear_race(**settings: Any) -> tuple[list[str], list[str]]:
    """Race stacks of two sets of layers, of which the second is better, with and without heads."""
    tried: list[str] = []

    def log_probs(one: FusionCandidate) -> Tensor:
        tried.append(one.words)
        if settings.get("fails") and one.fusion.name == "late_stack":
            raise UserError("too few rows")
        worse = {"one": 2.0, "both": 1.0}[one.layer_set.name]
        return log_probs_of(torch.full((100,), worse - 0.5 * (one.fusion.name == "late_stack")))

    def stacked(some: Sequence[FusionCandidate]) -> list[Tensor]:
        return [*map(log_probs, some)]

    stacks = [
        FusionCandidate(layers, FusionConfig(name), 1)
        for layers in (ONE, BOTH)
        for name in settings.get("among", ("stacked", "late_stack"))
    ]

    def never(*_: object) -> list[Tensor]:
        raise AssertionError

    late = Deadline(1, begun=0, now=lambda: 5) if settings.get("late") else None
    ranked = race(stacks, stacked, never, FOLD_OF, TARGET, 2, deadline=late, text_of=None)
    if late is not None:
        assert late.left_out[0].startswith("fusion=auto did not try late_stack on both (2 sources)")
    return tried, [one.candidate.words for one in ranked]


def test_a_stack_with_a_head_is_tried_on_the_layers_where_stacks_are_best() -> None:
    plain = ["stacked on one (1 source)", "stacked on both (2 sources)"]
    dear = ["late_stack on one (1 source)", "late_stack on both (2 sources)"]
    assert _dear_race() == ([*plain, dear[1]], [dear[1], plain[1], plain[0]])
    assert _dear_race(among=["late_stack"]) == (dear, dear[::-1])


def test_a_head_that_cannot_be_trained_costs_the_race_its_candidate_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    plain = ["stacked on both (2 sources)", "stacked on one (1 source)"]
    assert _dear_race(fails=True)[1] == plain
    assert "left out late_stack on both (2 sources): too few rows" in caplog.text
    with pytest.raises(UserError, match="too few rows"):
        _dear_race(fails=True, among=["late_stack"])
    assert _dear_race(late=True)[1] == plain


def test_a_candidate_has_the_parameters_of_the_head_that_is_trained() -> None:
    settings = FusionConfig(among=["gated", "moe"], widths=[64], match_capacity=True)
    for one in list_fusion_candidates([ONE, BOTH], settings, {A: 60, B: 100}, 3):
        widths = [60, 100][: len(one.layers)]
        trained = FusionClassifier(widths, 3, **classifier_settings(one.fusion, TrainerConfig()))
        assert one.parameters == trained.num_parameters


def test_a_head_that_cannot_have_the_capacity_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    settings = FusionConfig(among=["matmul", "gated"], widths=[20], match_capacity=True)
    found = list_fusion_candidates([BOTH], settings, {A: 384, B: 384}, 2)
    assert [one.fusion.name for one in found] == ["gated"]
    assert "left out on both: fusion.match_capacity: matmul cannot have" in caplog.text
    none = FusionConfig(among=["matmul"], widths=[20], match_capacity=True)
    with pytest.raises(UserError, match="matmul cannot have"):
        list_fusion_candidates([BOTH], none, {A: 384, B: 384}, 2)


def test_a_head_learns_nothing_from_the_fold_that_judges_it(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = torch.from_numpy(np.arange(60) % 2)
    texts = [f"{'good fine' if n % 2 else 'bad poor'} {n}" for n in range(60)]
    vectors = torch.from_numpy(generator.normal(size=(60, 5)).astype(np.float32))
    vectors[:, 0] += labels
    fold_of = torch.arange(60) // 20
    lexical = LayerId("w", "tfidf", TFIDF)

    class Model:
        pass

    def heads(labels: Tensor, texts: list[str]) -> HeldOutHeads:
        words: LexicalSource = open_lexical("w", LexicalConfig(width=4), texts, texts, tmp_path)
        candidates = Candidates(
            (A, lexical),
            (vectors, torch.full((60, 4), torch.nan)),  # never read: learned anew for the fold
            labels,
            fold_of,
            tuple(texts),
            2,
            {"a": Model(), "w": words},  # type: ignore[dict-item]
        )
        trainer = TrainerConfig(max_epochs=3, batch_size=16)
        return HeldOutHeads(candidates, {A: vectors[:10]}, texts[:10], labels[:10], trainer, seed=0)

    one = FusionCandidate(layer_set("both", A, lexical), FusionConfig(name="concat", width=4), 1)
    (predicted,) = heads(labels, texts)(one, [2])
    assert predicted.shape == (20, 2)
    torch.testing.assert_close(predicted.exp().sum(dim=1), torch.ones(20).double())
    flipped = labels.clone()
    flipped[fold_of == 2] = 1 - flipped[fold_of == 2]
    together = heads(labels, texts)(one, [0, 1, 2])
    torch.testing.assert_close(together[2], predicted, rtol=1e-4, atol=1e-4)
    # With every label of the fold turned, the head is the same: it saw none of them.
    torch.testing.assert_close(heads(flipped, texts)(one, [2])[0], predicted)
    # Words of the fold alone change nothing of what is learned, and so nothing of other rows.
    other = [f"{text} unseen" if n == 59 else text for n, text in enumerate(texts)]
    torch.testing.assert_close(heads(labels, other)(one, [2])[0][:19], predicted[:19])


def test_a_text_of_the_fold_that_is_in_validation_too_does_not_choose_the_epoch() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, texts = torch.arange(60) % 2, [f"text {n}" for n in range(60)]
    vectors = torch.randn(60, 5, generator=generator)
    vectors[:, 0] += labels
    again = list(range(35, 50))  # validation repeats five rows of fold 1 and ten of fold 2

    def predicted(labels: Tensor) -> Tensor:
        candidates = Candidates(
            (A,),
            (vectors,),
            labels,
            torch.arange(60) // 20,
            tuple(texts),
            2,
            {"a": None},  # type: ignore[dict-item]
        )
        trainer = TrainerConfig(max_epochs=20, patience=20, batch_size=4, learning_rate=0.05)
        repeated = [texts[n] for n in again]
        validation = {A: vectors[again]}
        heads = HeldOutHeads(candidates, validation, repeated, labels[again], trainer, seed=0)
        return heads(FusionCandidate(ONE, FusionConfig(name="concat", width=4), 1), [2])[0]

    flipped = labels.clone()
    flipped[40:] = 1 - flipped[40:]
    torch.testing.assert_close(predicted(flipped), predicted(labels))


def test_a_head_of_a_fold_knows_which_rows_of_validation_repeat_a_text() -> None:
    texts = tuple(f"text {n}" for n in range(60))
    candidates = Candidates(
        (A,),
        (torch.randn(60, 5),),
        torch.arange(60) % 2,
        torch.arange(60) // 20,
        texts,
        2,
        {"a": None},  # type: ignore[dict-item]
    )
    validation = ["other", "text 50", "new", "other"]
    heads = HeldOutHeads(
        candidates, {A: torch.randn(4, 5)}, validation, torch.arange(4) % 2, TrainerConfig(), seed=0
    )
    data = heads._data(FusionCandidate(ONE, FusionConfig(name="concat", width=4), 1), 2)
    assert data.text_of is not None
    assert data.text_of.tolist() == [0, 1, 0]  # without the row of the fold


def test_rows_that_repeat_a_text_make_no_difference_sure() -> None:
    generator = torch.Generator().manual_seed(0)
    losses = 1 + torch.rand(40, generator=generator, dtype=torch.float64)
    better = losses - 0.1 + 0.5 * torch.randn(40, generator=generator, dtype=torch.float64)
    target = torch.zeros(40, dtype=torch.int64)

    def behind(times: int, text_of: Tensor | None) -> tuple[float, float]:
        one, other = (
            Evaluation(
                candidate("stacked"),
                log_probs_of(x.clamp_min(0).repeat(times)),
                target.repeat(times),
                5,
                text_of=text_of,
            )
            for x in (losses, better)
        )
        return one.behind(other)

    once = behind(1, None)
    assert behind(9, torch.arange(40).repeat(9)) == pytest.approx(once)
    assert behind(9, None)[1] < once[1] / 2
    assert behind(1, torch.arange(40)) == pytest.approx(once)


RARE = (torch.arange(len(FOLD_OF)) % 12 == 0).long()


@pytest.mark.parametrize(("weights", "best"), [("none", "often"), ("balanced", "alike")])
@pytest.mark.parametrize("target", [RARE, torch.stack([1 - RARE, RARE], dim=1).bool()])
def test_with_balanced_classes_a_rare_class_counts_as_much(
    weights: str, best: str, target: Tensor
) -> None:
    """One holds the rare class for rare; the other, for as likely as the frequent one."""
    say = {"often": torch.tensor([[0.9, 0.1]]), "alike": torch.tensor([[0.5, 0.5]])}
    candidates = [
        FusionCandidate(BOTH, FusionConfig("stacked", arguments={"n": n}), 1) for n in say
    ]
    out = FOLD_OF >= 0
    found = race(
        candidates,
        lambda some: [
            say[one.fusion.arguments["n"]].log().double().expand(int(out.sum()), 2) for one in some
        ],
        lambda *_: [],
        FOLD_OF,
        target,
        2,
        class_weights=weights,
        text_of=None,
    )
    assert found[0].candidate.fusion.arguments["n"] == best
