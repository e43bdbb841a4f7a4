"""Stacks with a trained head as one more member of the pool."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.job import FusionConfig, TrainerConfig
from layerfusion.embeddings.lexical import LexicalConfig, open_lexical
from layerfusion.errors import UserError
from layerfusion.fusion import member_training
from layerfusion.fusion.head_files import StackHead, head_from, head_state
from layerfusion.fusion.head_member import MOST_LAYERS, HeadMember, read_by_head
from layerfusion.fusion.member_training import MemberRecipe, member_recipe
from layerfusion.fusion.stacking import Stack, fit_stack, refit
from layerfusion.fusion.together import HeadTask
from layerfusion.fusion.training import Fitted
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.discriminant import Blend
from layerfusion.layers.labels import mean_loss
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import cross_validate
from layerfusion.runs.fitting import needs_validation

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")

ROWS, LABELS = 400, 3
LATE = FusionConfig("late_stack", width=16)
TRAINER = TrainerConfig(max_epochs=20, patience=20, batch_size=64, learning_rate=0.03)
QUICK = TrainerConfig(max_epochs=2, batch_size=64)
LEARNED = slice(0, 300)
LAYERS = tuple(LayerId("a", str(number), "mean") for number in range(2))


def data() -> tuple[list[Tensor], Tensor]:
    """Two sources, and labels of which the last is where two numbers have the same sign."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 8, generator=generator)
    labels = torch.stack([x[:, 0] > 0, x[:, 4] > 1, x[:, 1] * x[:, 2] > 0], dim=1)
    return [x[:, :4], x[:, 4:]], labels


def candidates(
    place: Path, features: list[Tensor], labels: Tensor, layers: tuple[LayerId, ...] = LAYERS
) -> Candidates:
    spec: Any = SimpleNamespace(canonical=lambda: {"model": "a"})
    source: Any = SimpleNamespace(cache=place, stores={"mean": SimpleNamespace(spec=spec)})
    rows = range(len(labels))
    return Candidates(
        layers,
        features,
        labels,
        torch.tensor([row % 5 for row in rows]),
        tuple(f"text {row}" for row in rows),
        LABELS,
        {"a": source},
    )


def fitted(place: Path, **settings: Any) -> tuple[Stack, Stack, list[Tensor], Tensor]:
    """A stack with a head, and one without, fitted on the same rows."""
    features, labels = data()
    known = [source[LEARNED] for source in features]
    some = candidates(place, known, labels[LEARNED])
    found = cross_validate(known, some.labels, some.fold_of, num_classes=LABELS, text_of=None)
    held = [Blend(one.log_probs, one.target, one.strength, text_of=None) for one in found]
    recipe = member_recipe(LATE, TRAINER, some, held, seed=0)
    assert recipe is not None
    member = recipe.train(known, some.labels, some.texts)
    plain, dear = (
        fit_stack(known, some.labels, held, num_classes=LABELS, beside=beside, **settings)
        for beside in (None, (member, recipe.held_out(some)))
    )
    return dear, plain, features, labels


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stack, Stack, list[Tensor], Tensor]:
    return fitted(tmp_path_factory.mktemp("cache"))


def test_a_head_says_what_no_probe_can(both: tuple[Stack, Stack, list[Tensor], Tensor]) -> None:
    dear, plain, features, labels = both
    new = [source[300:] for source in features]
    losses = [float(mean_loss(one.predict(new)[0], labels[300:])) for one in (dear, plain)]
    assert losses[0] < 0.8 * losses[1]
    assert dear.held_out["anchored"] < 0.8 * plain.held_out["anchored"]


def test_the_head_is_the_last_member_and_its_weight_that_of_its_sources(
    both: tuple[Stack, Stack, list[Tensor], Tensor],
) -> None:
    dear, _, features, _ = both
    assert dear.member is not None
    said = torch.cat([dear.each_source(features), dear.member.log_probs(features)[None]])
    pooled, weights = dear.pool(said)
    log_probs, gates = dear.predict(features)
    torch.testing.assert_close(log_probs, pooled.float())
    assert gates.shape == (ROWS, 2)
    assert dear.each_source(features).shape == (2, ROWS, LABELS)
    torch.testing.assert_close(gates.sum(dim=1), weights.sum(dim=1).float())
    shares = dear.member.head.classifier.predict_logits(features)[1]
    assert shares is not None
    torch.testing.assert_close(gates, (weights[:, :2] + weights[:, 2:] * shares).float())


def test_its_cost_counts(both: tuple[Stack, Stack, list[Tensor], Tensor]) -> None:
    dear, _, _, _ = both
    stack = replace(dear, pool=replace(dear.pool, form="anchored"))
    probes = 2 * (4 * LABELS + LABELS)
    head = 2 * (4 * 16 + 16 + 16 * LABELS + LABELS) + 2  # projections, heads and their weights
    assert stack.num_parameters == probes + head + 3 + 1  # weights of the members, and the offset
    products = 2 * 4 * LABELS + 2 * (4 * 16 + 16 * LABELS)
    assert stack.num_flops - 2 * (products + 3 * LABELS) in range(20)  # the sum of two heads


def test_it_comes_back_from_its_file(both: tuple[Stack, Stack, list[Tensor], Tensor]) -> None:
    dear, _, features, _ = both
    tensors, facts = head_state(StackHead(dear))
    again = head_from(tensors, json.loads(json.dumps(facts)))
    assert isinstance(again, StackHead)
    for one, other in zip(again.predict(features), dear.predict(features), strict=True):
        torch.testing.assert_close(one, other)
    facts["member"]["sources"] = [0]
    with pytest.raises(UserError, match="its head is a LateFusion of 2 sources, and a LateFusion"):
        head_from(tensors, facts)
    facts["member"]["head"] = {"kind": "stack", "sources": 0, "form": "single"}
    with pytest.raises((UserError, KeyError)):
        head_from(tensors, facts)


def test_on_one_layer_the_head_is_plain_and_its_weight_is_the_layers(tmp_path: Path) -> None:
    features, labels = data()
    some = candidates(tmp_path, features, labels)
    recipe = MemberRecipe(FusionConfig("late", width=4), QUICK, 0, LABELS, (1,))
    member = recipe.train(features, labels, some.texts)
    weights = torch.tensor([[0.5, 0.2, 0.3]])
    torch.testing.assert_close(member.share_out(weights), torch.tensor([[0.5, 0.5]]))
    assert member.log_probs(features).shape == (ROWS, LABELS)


def test_a_stack_fitted_again_has_the_head_that_it_is_given(tmp_path: Path) -> None:
    dear, _, features, labels = fitted(tmp_path)
    held = [Blend(x.new_zeros(0, LABELS), labels[:0], 0.1, text_of=None) for x in features]
    assert dear.member is not None
    other = HeadMember(dear.member.head, (0, 1))
    assert refit(dear, features, labels, held, member=other).member is other
    assert refit(dear, features, labels, held).member is None


@pytest.mark.parametrize("kind", ["labels", "classes"])
def test_a_head_learns_nothing_from_the_fold_that_it_judges(kind: str, tmp_path: Path) -> None:
    features, labels = data()
    if kind == "classes":
        labels = labels[:, 0].long()
    recipe = MemberRecipe(FusionConfig("late", width=4), QUICK, 0, LABELS, (0, 1))
    one = candidates(tmp_path, features, labels)
    out = one.fold_of == 4
    flipped = labels.clone()
    flipped[out] = ~labels[out] if kind == "labels" else 1 - labels[out]
    other = candidates(tmp_path, features, flipped)
    first, second = recipe.held_out(one), recipe.held_out(other)
    torch.testing.assert_close(first[out], second[out])
    assert not torch.equal(first[~out], second[~out])


def test_what_was_predicted_is_read_again_and_not_for_another_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = data()
    some = candidates(tmp_path, features, labels)
    recipe = MemberRecipe(FusionConfig("late", width=4), QUICK, 0, LABELS, (0, 1))
    first = recipe.held_out(some)
    trained: list[HeadTask] = []
    fit = member_training.fit_together

    def fit_together(tasks: list[HeadTask], *args: Any, **settings: Any) -> list[Fitted]:
        trained.extend(tasks)
        return fit(tasks, *args, **settings)

    monkeypatch.setattr(member_training, "fit_together", fit_together)
    assert torch.equal(recipe.held_out(some), first)
    assert not trained
    fewer = MemberRecipe(FusionConfig("late", width=4), QUICK, 0, LABELS, (1,))
    for change in (fewer, MemberRecipe(recipe.fusion, QUICK, 1, LABELS, (0, 1))):
        assert not torch.equal(change.held_out(some), first)
    assert len(trained) == 10


def test_rows_with_the_same_text_are_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    _, labels = data()
    texts = [f"text {row // 2}" for row in range(ROWS)]
    seen: dict[str, Tensor] = {}

    def fit_together(tasks: list[HeadTask], *_: Any, **__: Any) -> Any:
        (task,) = tasks
        seen.update({split: task.data.features[split][0][:] for split in ("train", "validation")})
        raise UserError("seen")

    monkeypatch.setattr(member_training, "fit_together", fit_together)
    recipe = MemberRecipe(FusionConfig("late", width=4), QUICK, 0, LABELS, (0,))
    marked = torch.tensor([row // 2 for row in range(ROWS)], dtype=torch.float32)[:, None]
    with pytest.raises(UserError, match="seen"):
        recipe.train([marked, None], labels, texts)
    values = {split: {round(float(x), 4) for x in rows} for split, rows in seen.items()}
    assert len(seen["validation"]) == 0.1 * ROWS
    assert not values["train"] & values["validation"]


def test_too_few_rows_are_told() -> None:
    recipe = MemberRecipe(FusionConfig("late", width=4), QUICK, 0, LABELS, (0,))
    with pytest.raises(
        UserError, match=r"fusion=late_stack: .*one row only, so none can become rows to stop on"
    ):
        recipe.train([torch.randn(2, 3)], torch.tensor([0, 1]), ["a", "b"])


def test_a_head_reads_the_best_layers_and_no_words(tmp_path: Path) -> None:
    many = [f"{number}" for number in range(12)]
    losses = {name: float(number % 10) for number, name in enumerate(many)}
    assert read_by_head(many, losses) == [0, 1, 2, 3, 4, 5, 10, 11]
    assert len(read_by_head(many, losses)) == MOST_LAYERS
    features, labels = data()
    words = LayerId("words", "tfidf", "")
    texts = [f"text {row}" for row in range(ROWS)]
    some = candidates(tmp_path, [*features, features[0]], labels, (words, *LAYERS))
    lexical = open_lexical("words", LexicalConfig(width=2), texts, texts, tmp_path)
    some.sources["words"] = lexical  # type: ignore[index]
    held = [Blend(torch.zeros(ROWS, LABELS), labels, text_of=None) for _ in range(3)]
    recipe = member_recipe(LATE, QUICK, some, held, seed=0)
    assert recipe is not None
    assert recipe.sources == (1, 2)
    assert member_recipe(FusionConfig("stacked"), QUICK, some, held, seed=0) is None
    assert member_recipe(LATE, QUICK, some.take([0]), held[:1], seed=0) is None


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("fusion=late_stack", False),
        ("fusion=auto dataset.multilabel=true", False),
        ("fusion=auto fusion.among=[late_stack,late]", True),
    ],
)
def test_a_stack_with_a_head_keeps_no_row_from_its_fit(words: str, needed: bool) -> None:
    assert needs_validation(load(compose("train", words.split()))) is needed
