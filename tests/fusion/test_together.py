from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor

from layerfusion.config.job import FusionConfig, TrainerConfig
from layerfusion.embeddings.matrices import Rows
from layerfusion.errors import UserError
from layerfusion.fusion import together
from layerfusion.fusion.data import FusionDataModule
from layerfusion.fusion.operators import FusionOperator, Projections
from layerfusion.fusion.together import HeadTask, fit_together, folds_at_once
from layerfusion.fusion.training import Fitted, fit

CLASSES = 3
WIDTHS = (6, 4, 5)
TRAINER = TrainerConfig(max_epochs=12, patience=2, batch_size=16, learning_rate=2e-2)
FUSION = FusionConfig(width=8)
OPERATORS = [
    "attention",
    "concat",
    "cooccurrence",
    "gated",
    "hadamard",
    "late",
    "matmul",
    "mean",
    "moe",
    "quaternion",
    "scalar_mix",
    "sum",
]


def _data(
    rows: int = 100, seed: int = 0, *, labels: bool = False, widths: tuple[int, ...] = WIDTHS
) -> FusionDataModule:
    """Classes, or labels, around centres that are not far from each other."""
    generator = torch.Generator().manual_seed(seed)
    features: dict[str, list[Tensor]] = {}
    targets: dict[str, Tensor] = {}
    directions = [torch.randn(CLASSES, width, generator=generator) for width in widths]
    for split, count in {"train": rows, "validation": 40}.items():
        of_class = torch.randint(CLASSES, (count,), generator=generator)
        many = torch.rand(count, CLASSES, generator=generator) < 0.4
        targets[split] = many.long() if labels else of_class
        centres = [many.float() @ x if labels else x[of_class] for x in directions]
        features[split] = [
            0.5 * centre + torch.randn(centre.shape, generator=generator) for centre in centres
        ]
    return FusionDataModule(features, targets, TRAINER.batch_size)


class _Epochs(DummyLogger):
    """Keeps what is logged of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: dict[int, dict[str, float]] = {}
        self.steps: list[int | None] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.epochs.setdefault(int(metrics["epoch"]), {}).update(metrics)
        self.steps.append(step)


class Noisy(FusionOperator):
    """A user's operator, which draws what no recording knows of."""

    def __init__(self, widths: list[int], width: int) -> None:
        super().__init__(widths, width)
        self.projections = Projections(widths, width)

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        fused = self.projections.activated(sources).sum(dim=1)
        return (fused + 0.1 * torch.randn(fused.shape) if self.training else fused), None


def _same(alone: Fitted, together: Fitted, rows: Sequence[Rows]) -> None:
    """Compare what heads say of rows: the keys' bias of attention is moved by rounding alone."""
    assert (alone.best_epoch, alone.epochs) == (together.best_epoch, together.epochs)
    said = [one.classifier.predict_logits(rows)[0] for one in (alone, together)]
    torch.testing.assert_close(*said, rtol=1e-3, atol=1e-3)
    assert all(weight.is_contiguous() for weight in together.classifier.parameters())
    assert (alone.temperature or 1) == pytest.approx(together.temperature or 1, rel=1e-3)
    assert (alone.temperature is None) == (together.temperature is None)
    assert (alone.shift is None) == (together.shift is None)
    assert alone.classifier.settings == together.classifier.settings
    assert alone.classifier.training == together.classifier.training
    gates = [torch.tensor(one.classifier.gate_epochs) for one in (alone, together)]
    torch.testing.assert_close(*gates, rtol=1e-3, atol=1e-4)


def _compare(
    tasks: list[HeadTask], trainer: TrainerConfig = TRAINER, **settings: Any
) -> list[Fitted]:
    """Train heads together, and each alone; return the former."""
    common: dict[str, Any] = {"num_classes": CLASSES} | settings
    found = fit_together(tasks, trainer, **common)
    for task, one in zip(tasks, found, strict=True):
        about = {"names": task.names, "importance": task.importance}
        alone = fit(task.data, task.fusion, trainer, seed=task.seed, **common, **about)
        _same(alone, one, task.data.features["validation"])
    return found


@pytest.fixture
def stacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of heads that were trained as one model; `fit` is refused."""
    sizes: list[int] = []
    train = together._Group.train

    def counted(group: together._Group) -> None:
        sizes.append(len(group.heads))
        train(group)

    monkeypatch.setattr(together._Group, "train", counted)
    return sizes


@pytest.mark.parametrize("name", OPERATORS)
def test_seeds_are_those_that_are_trained_alone(name: str, stacked: list[int]) -> None:
    data = _data()
    found = _compare(
        [
            HeadTask(data, FusionConfig(name, width=256 if name == "matmul" else 8), seed)
            for seed in range(4)
        ]
    )
    assert stacked == [4]
    first, second = (one.classifier.state_dict() for one in found[:2])
    assert any(not torch.equal(weight, second[key]) for key, weight in first.items())


def test_heads_stop_when_they_would_stop_alone(stacked: list[int]) -> None:
    found = _compare([HeadTask(_data(), FUSION, seed) for seed in range(4)])
    # The data are equal, but not the same object: nothing is shared.
    assert len({one.epochs for one in found}) > 1
    assert min(one.epochs for one in found) < TRAINER.max_epochs


@pytest.mark.parametrize(
    ("fusion", "settings"),
    [
        (FusionConfig(width=8, dropout=0.0), {}),
        (FusionConfig(width=8, entropy_penalty=0.1), {}),
        (FusionConfig(width=8, arguments={"source_dropout": 0.5}), {}),
        (FusionConfig(width=8, residual=True), {}),
        (FusionConfig(width=8, match_capacity=True), {}),
        (FUSION, {"class_weights": "balanced"}),
        (FusionConfig("late", width=8), {"class_weights": "balanced"}),
        (FUSION, {"objective": "macro_f1"}),
        (FUSION, {"objective": "accuracy"}),
        (FUSION, {"calibrated": False}),
    ],
)
def test_settings_are_those_of_a_head_alone(
    fusion: FusionConfig, settings: dict[str, Any], stacked: list[int]
) -> None:
    data = _data()
    importance = [0.5, 0.3, 0.2]
    _compare([HeadTask(data, fusion, seed, importance=importance) for seed in (0, 5)], **settings)
    assert stacked == [2]


@pytest.mark.parametrize("objective", ["log_loss", "micro_f1"])
def test_texts_with_several_labels(objective: str, stacked: list[int]) -> None:
    data = _data(labels=True)
    tasks = [
        HeadTask(data, FusionConfig(name, width=8), s) for name in ("gated", "late") for s in (0, 1)
    ]
    _compare(tasks, objective=objective)
    assert stacked == [2, 2]


def test_folds_may_differ_in_their_last_batch(stacked: list[int]) -> None:
    folds = [HeadTask(_data(rows, seed=rows), FUSION) for rows in (100, 101, 104)]
    _compare(folds)
    assert stacked == [3]


def test_folds_have_class_weights_of_their_own(stacked: list[int]) -> None:
    folds = [HeadTask(_data(100, seed=seed), FUSION) for seed in (1, 2)]
    counts = [task.data.targets["train"].bincount().tolist() for task in folds]
    assert counts[0] != counts[1]
    _compare(folds, class_weights="balanced")
    assert stacked == [2]


def test_heads_that_have_ended_keep_nothing_of_the_others(
    stacked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    keep = together._Group._keep

    def measured(group: together._Group, numbers: list[int]) -> None:
        keep(group, numbers)
        parameters = [list(one.head.parameters()) for one in everyone]
        storages = {
            x.untyped_storage().data_ptr(): x.untyped_storage() for some in parameters for x in some
        }
        held.append(sum(storage.nbytes() for storage in storages.values()))

    everyone: list[Any] = []
    build = together._build

    def built(*given: Any) -> Any:
        everyone.append(build(*given))
        return everyone[-1]

    monkeypatch.setattr(together._Group, "_keep", measured)
    monkeypatch.setattr(together, "_build", built)
    data = _data()
    fit_together([HeadTask(data, FUSION, n) for n in range(6)], TRAINER, num_classes=CLASSES)
    whole = sum(x.nbytes for one in everyone for x in one.head.parameters())
    assert len(held) > 1
    assert set(held) == {whole}


def test_an_epoch_whose_log_loss_overflows_is_waited_for_as_alone(stacked: list[int]) -> None:
    data = _data()
    wild = replace(TRAINER, learning_rate=1e3, patience=3)
    tasks = [HeadTask(data, FUSION, seed) for seed in range(4)]
    settings: dict[str, Any] = {"num_classes": CLASSES, "objective": "accuracy"}
    for task, one in zip(tasks, fit_together(tasks, wild, **settings), strict=True):
        alone = fit(data, FUSION, wild, seed=task.seed, **settings)
        assert (alone.best_epoch, alone.epochs) == (one.best_epoch, one.epochs)


def test_more_than_one_device_is_refused() -> None:
    tasks = [HeadTask(_data(), FUSION, seed) for seed in (0, 1)]
    with pytest.raises(UserError, match="devices"):
        fit_together(tasks, TrainerConfig(devices=2), num_classes=CLASSES)


def test_what_differs_in_structure_is_trained_apart(stacked: list[int]) -> None:
    data = _data()
    wide = FusionConfig(width=12)
    tasks = [
        HeadTask(data, FUSION),
        HeadTask(data, wide),
        HeadTask(_data(200), FUSION),  # twice the batches
        HeadTask(data, FUSION, 1),
        HeadTask(data, wide, 1),
        HeadTask(_data(widths=(3, 3)), FUSION),
    ]
    _compare(tasks)
    assert stacked == [2, 2]


def test_what_is_too_large_is_divided(stacked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    data = _data()
    size = fit(data, FUSION, TRAINER, num_classes=CLASSES).classifier.num_parameters
    monkeypatch.setattr(together, "MOST_NUMBERS", {"cpu": 2 * size})
    _compare([HeadTask(data, FUSION, seed) for seed in range(5)])
    assert stacked == [2, 2]


def test_an_operator_of_the_users_is_trained_alone(stacked: list[int]) -> None:
    data = _data()
    own = FusionConfig(f"{Noisy.__module__}:Noisy", width=8, target=f"{Noisy.__module__}:Noisy")
    _compare([HeadTask(data, own, seed) for seed in (0, 1)])
    assert stacked == []


def test_every_epoch_is_logged_as_a_trainer_logs_it(stacked: list[int]) -> None:
    data = _data()
    names = ["a:1:mean", "b:2:mean", "c:3:last"]
    ours, theirs = [_Epochs(), _Epochs()], [_Epochs(), _Epochs()]
    tasks = [HeadTask(data, FUSION, n, names=names, logger=ours[n]) for n in (0, 1)]
    fit_together(tasks, TRAINER, num_classes=CLASSES)
    for n in (0, 1):
        alone = {"seed": n, "names": names, "logger": theirs[n]}
        fit(data, FUSION, TRAINER, num_classes=CLASSES, **alone)
        assert ours[n].epochs.keys() == theirs[n].epochs.keys()
        for epoch, figures in theirs[n].epochs.items():
            assert ours[n].epochs[epoch] == pytest.approx(figures, rel=1e-3, abs=1e-4)
        assert {*ours[n].steps} == {*theirs[n].steps}
    assert stacked == [2]


def test_training_that_diverges_says_so() -> None:
    tasks = [HeadTask(_data(), FUSION, seed) for seed in (0, 1)]
    with pytest.raises(UserError, match=r"learning_rate=1e\+30: training diverged"):
        fit_together(tasks, replace(TRAINER, learning_rate=1e30), num_classes=CLASSES)


def test_nothing_stays_switched_on() -> None:
    settings: Any = torch.utils.deterministic
    before = settings.fill_uninitialized_memory
    fit_together([HeadTask(_data(), FUSION, n) for n in (0, 1)], TRAINER, num_classes=CLASSES)
    assert not torch.are_deterministic_algorithms_enabled()
    assert settings.fill_uninitialized_memory == before


def test_few_folds_are_held_at_once_where_vectors_are_many() -> None:
    assert folds_at_once(1_000, 800) > 5
    assert folds_at_once(100_000, 1_000) == 2
    assert folds_at_once(10_000_000, 4_096) == 1


def test_no_tasks_give_no_heads() -> None:
    assert fit_together([], num_classes=2) == []
