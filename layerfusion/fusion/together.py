"""Training many heads of one structure as one model: the seeds of a job, or the folds of a race.

Their parameters are stacked, so that a step of all heads is one product of matrices for each layer,
and one step of the optimiser, where it would be as many small ones as there are heads. Each head
sees its own rows in its own order, drops what it would drop alone, and stops when it would stop
alone: `training.fit` trains the same head, one at a time and by Lightning.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.func import functional_call, vmap

from layerfusion.config.check import check_devices
from layerfusion.config.job import LOG_LOSS, UNWEIGHTED, FusionConfig, TrainerConfig
from layerfusion.config.user_code import is_ours
from layerfusion.embeddings.memory import free_memory
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.data import EVALUATED_ROWS, Batch, FusionDataModule, TensorBatches
from layerfusion.fusion.draws import Draw, drawn_by, playing, recorded
from layerfusion.fusion.head import classifier_settings
from layerfusion.fusion.objective import weights_of
from layerfusion.fusion.operators import FusionOperator
from layerfusion.fusion.training import (
    MONITOR,
    BestEpoch,
    Fitted,
    calibrate,
    deterministic,
    device_of,
    fit,
    monitor_of,
    require_finite,
)
from layerfusion.layers.labels import is_multilabel
from layerfusion.progress import counted

USED = ("train", "validation")
MOST_NUMBERS = {"cpu": 8_000_000, "cuda": 64_000_000}
"""Parameters that are stacked on a device. The gradients, the optimiser and the best epochs hold
four times as many numbers again. Larger stacks gain nothing on a CPU."""
MOST_VECTORS = 250_000_000
"""Numbers of the vectors of folds that are held at once, each fold's standardised on its own."""


@dataclass(frozen=True, eq=False)
class HeadTask:
    """A head to be trained; what all heads have in common is given to `fit_together`."""

    data: FusionDataModule
    """Its train and validation. Heads that share them should share the object."""
    fusion: FusionConfig
    seed: int = 0
    names: Sequence[str] | None = None
    """Names of the sources in the log."""
    importance: Sequence[float] | None = None
    """K positive numbers, for operators whose weights start from them."""
    logger: Logger | None = None
    """Gets the metrics of every epoch."""


def fit_together(
    tasks: Sequence[HeadTask],
    trainer: TrainerConfig | None = None,
    *,
    num_classes: int,
    objective: str = LOG_LOSS,
    class_weights: str = UNWEIGHTED,
    calibrated: bool = True,
) -> list[Fitted]:
    """Train heads as `fit` does, those of the same structure as one model.

    The figures are those of `fit` up to the rounding of sums, on a CPU. On a GPU heads drop other
    numbers than alone, which are as random and depend on the seed alone. A head whose operator is
    the user's own is trained by `fit`, as it may do what cannot be stacked.

    Args:
        tasks: the heads.
        trainer: epochs, patience, optimiser and device; the defaults if None.
        num_classes: number of classes, or of labels where targets have two dimensions.
        objective: measure that chooses the epoch: log_loss, accuracy, macro_f1 or micro_f1.
        class_weights: none, or balanced: every class has the same weight in the training loss.
        calibrated: as for `fit`.

    Returns:
        What `fit` gives for each task, in their order. The seconds are a head's share.

    Raises:
        UserError: if the training of one diverges in its first epoch.
    """
    trainer = trainer or TrainerConfig()
    check_devices(trainer)
    found: dict[int, Fitted] = {}
    device = device_of(trainer)
    if device is not None and len(tasks) > 1:
        data = {task.data: _OnDevice(task.data, device) for task in tasks}
        heads = [
            _build(task, data[task.data], trainer, num_classes, class_weights) for task in tasks
        ]
        for numbers in _groups(heads):
            group = [heads[n] for n in numbers]
            found |= zip(numbers, _train_group(group, trainer, objective), strict=True)
    common = {"num_classes": num_classes, "objective": objective, "class_weights": class_weights}
    for n, task in enumerate(tasks):
        if n not in found:
            found[n] = fit_alone(task, trainer, **common, calibrated=calibrated)
        elif calibrated:
            found[n] = calibrate(found[n], task.data, objective, class_weights)
    return [found[n] for n in range(len(tasks))]


def _train_group(
    heads: Sequence[_Head], trainer: TrainerConfig, objective: str
) -> Iterator[Fitted]:
    """Train heads of one structure; each has its share of the seconds."""
    begun = time.perf_counter()
    _Group(heads, trainer, objective).train()
    seconds = (time.perf_counter() - begun) / len(heads)
    for one in heads:
        fitted = Fitted(one.head.cpu(), one.best.epoch, one.best.epochs, seconds)
        require_finite(fitted, trainer)
        yield fitted


def fit_alone(task: HeadTask, trainer: TrainerConfig, **settings: Any) -> Fitted:
    """Train one head by `fit`, with the settings that it takes beside those of the task."""
    return fit(
        task.data,
        task.fusion,
        trainer,
        seed=task.seed,
        names=task.names,
        importance=task.importance,
        logger=task.logger,
        **settings,
    )


def folds_at_once(rows: int, width: int) -> int:
    """Return for how many folds the vectors may be held at once, at least one.

    Args:
        rows: number of all rows, of which the head of a fold has most.
        width: numbers of a row, of all sources together.
    """
    return max(1, MOST_VECTORS // max(1, rows * width))


class _OnDevice:
    """Train and validation on the device, once for all heads that learn from them.

    Rows that are read as needed stay where they are, and so do those that a GPU has no room for.
    """

    def __init__(self, data: FusionDataModule, device: torch.device) -> None:
        self.device = device
        sources = [source for split in USED for source in data.features[split]]
        room = device.type != "cuda" or (
            sum(source.nbytes for source in sources) <= free_memory(device) / 2
        )
        self.features = {
            split: [
                source.to(device) if room and isinstance(source, Tensor) else source
                for source in data.features[split]
            ]
            for split in USED
        }
        self.targets = {split: data.targets[split].to(device) for split in USED}

    def batches(self, split: str, size: int, seed: int | None = None) -> TensorBatches:
        """Give batches of a split, in a new order in every epoch where there is a seed."""
        rows = self.features[split], self.targets[split]
        shuffle = seed is not None
        return TensorBatches(*rows, size, shuffle=shuffle, seed=seed or 0, device=self.device)


@dataclass(eq=False)
class _Head:
    """A head on its way."""

    task: HeadTask
    head: FusionClassifier
    train: TensorBatches
    validation: TensorBatches
    generator: torch.Generator
    """Draws what the head drops."""
    best: BestEpoch = field(default_factory=BestEpoch)
    value: float = math.nan
    """What the metric that chooses the epoch was after the last one."""


def _build(
    task: HeadTask, data: _OnDevice, trainer: TrainerConfig, num_classes: int, class_weights: str
) -> _Head:
    """Initialise a head from its seed, as `fit` does."""
    target, device = data.targets["train"], data.device
    seed_everything(task.seed, verbose=False)
    head = FusionClassifier(
        task.data.widths,
        num_classes,
        **classifier_settings(task.fusion, trainer),
        names=task.names,
        importance=task.importance,
        multilabel=is_multilabel(target),
    )
    head.operator.class_weights = weights_of(class_weights, target.cpu(), num_classes)
    generator = torch.Generator(device)
    if device.type == "cpu":  # go on where the initialisation ended, as a head alone does
        generator.set_state(torch.get_rng_state())
    else:
        generator.manual_seed(task.seed)
    size = task.data.batch_size
    train = data.batches("train", size, task.seed)
    validation = data.batches("validation", max(size, EVALUATED_ROWS))
    return _Head(task, head.to(device), train, validation, generator)


def _groups(heads: Sequence[_Head]) -> list[list[int]]:
    """Put heads together that have the same structure and the same number of batches."""
    groups: dict[object, list[int]] = {}
    for n, one in enumerate(heads):
        if all(map(is_ours, _operators(one.head))):
            groups.setdefault(_structure(one), []).append(n)
    divided = []
    for numbers in groups.values():
        first = heads[numbers[0]]
        numbers_of_all = MOST_NUMBERS[first.train.target.device.type]
        most = max(1, numbers_of_all // max(1, first.head.num_parameters))
        divided += [numbers[start : start + most] for start in range(0, len(numbers), most)]
    return [numbers for numbers in divided if len(numbers) > 1]


def _operators(head: FusionClassifier) -> list[FusionOperator]:
    return [part for part in head.modules() if isinstance(part, FusionOperator)]


def _structure(one: _Head) -> tuple[str, int, int]:
    """Return what is equal for heads that can be stacked."""
    settings = {k: v for k, v in one.head.settings.items() if k not in ("names", "importance")}
    return json.dumps(settings, sort_keys=True), one.train.batch_size, len(one.train)


class _Group:
    """Heads of one structure, which take each step together.

    Args:
        heads: the heads, which have the same number of batches.
        trainer: epochs and patience.
        objective: measure that chooses the epoch.
    """

    def __init__(self, heads: Sequence[_Head], trainer: TrainerConfig, objective: str) -> None:
        self.heads = list(heads)
        """Those that have not stopped."""
        self.trainer = trainer
        self.monitor, mode = monitor_of(objective, heads[0].train.target)
        for one in heads:
            one.best = BestEpoch(mode)
        self.model = _Loss(heads[0].head)
        self.draws_of_rows: dict[int, list[Draw]] = {}
        """What a head draws in a step, by the rows of its batch."""
        self.parameters = _stacked(heads)
        self.optimizer = self._new_optimizer()

    def train(self) -> None:
        """Train each head to its end, and put the weights of its best epoch back."""
        epochs = counted("epochs", self.trainer.max_epochs)
        with deterministic(), epochs as step:
            for epoch in range(self.trainer.max_epochs):
                losses = self._take_steps().tolist()
                for one, loss in zip(self.heads, losses, strict=True):
                    self._judge(one, epoch, loss)
                step()
                going = [n for n, one in enumerate(self.heads) if not self._ends(one)]
                for n in {*range(len(self.heads))}.difference(going):
                    _take_out(self.heads[n])
                if not going:
                    return
                if len(going) < len(self.heads):
                    self._keep(going)
        for one in self.heads:
            _take_out(one)

    def _take_steps(self) -> Tensor:
        """Take the steps of an epoch; return the mean loss of each head. Shape: (heads,)."""
        self.model.train()
        device = self.heads[0].train.target.device
        rows = torch.tensor([len(one.train.target) for one in self.heads], device=device)
        sums = torch.zeros(len(self.heads), device=device)
        for batches in zip(*(one.train for one in self.heads), strict=True):
            losses = self._losses(batches)
            values = [*self.parameters.values()]
            slopes = torch.autograd.grad(losses.sum(), values, allow_unused=True)
            for own, slope in zip(values, slopes, strict=True):
                own.grad = slope  # `backward` would copy it
            self.optimizer.step()
            sums += losses.detach() * losses.new_tensor([len(target) for _, target in batches])
        return sums / rows

    def _losses(self, batches: Sequence[Batch]) -> Tensor:
        """Return the loss of each head on its batch. Shape: (heads,)."""
        drawn = [
            drawn_by(self._draws_of(batch), one.generator, batch[1].device)
            for one, batch in zip(self.heads, batches, strict=True)
        ]
        weights = [one.head.operator.class_weights for one in self.heads]
        if len({len(target) for _, target in batches}) > 1:  # the last ones of folds
            own = [{name: x[n] for name, x in self.parameters.items()} for n in range(len(batches))]
            return torch.stack([*map(self._loss, own, batches, weights, drawn)])
        sources = [torch.stack(some) for some in zip(*(x for x, _ in batches), strict=True)]
        batch = sources, torch.stack([target for _, target in batches])
        noise = [torch.stack(some) for some in zip(*drawn, strict=True)]
        of_classes = (
            None if weights[0] is None else torch.stack([x for x in weights if x is not None])
        )
        axes = 0, 0, None if of_classes is None else 0, 0
        return vmap(self._loss, axes)(self.parameters, batch, of_classes, noise)

    def _loss(
        self,
        parameters: Mapping[str, Tensor],
        batch: Batch,
        class_weights: Tensor | None,
        noise: list[Tensor],
    ) -> Tensor:
        """Return the loss of one head. Shape: ()."""
        own = {f"head.{name}": _transposed(values) for name, values in parameters.items()}
        with playing(noise):
            # Projections may have two names; as tied weights they would not be put back.
            return functional_call(self.model, own, (batch, class_weights), tie_weights=False)

    def _draws_of(self, batch: Batch) -> list[Draw]:
        """Return what the loss of a batch draws, which depends on its number of rows alone."""
        rows = len(batch[1])
        if rows not in self.draws_of_rows:
            with torch.no_grad(), recorded() as draws:
                self.model(batch, self.model.head.operator.class_weights)
            self.draws_of_rows[rows] = draws
        return self.draws_of_rows[rows]

    def _judge(self, one: _Head, epoch: int, loss: float) -> None:
        """Judge a head by validation after an epoch."""
        full = one.task.logger is not None or self.monitor != MONITOR
        figures = one.head.judge(one.validation, full=full)
        if one.task.logger is not None:
            told = {"train/loss": loss, **figures, "epoch": epoch}
            one.task.logger.log_metrics(told, step=epoch)
        one.value = figures[self.monitor]
        one.best.judge(one.value, figures[MONITOR], one.head)

    def _ends(self, one: _Head) -> bool:
        """Tell whether a head has trained its last epoch."""
        return not math.isfinite(one.value) or one.best.waited >= self.trainer.patience

    def _keep(self, numbers: Sequence[int]) -> None:
        """Go on with some of the heads alone."""
        before, optimizer = self.parameters, self.optimizer
        self.heads = [self.heads[n] for n in numbers]
        self.parameters = _stacked(self.heads)
        self.optimizer = self._new_optimizer()
        for name, values in self.parameters.items():
            state = optimizer.state[before[name]]
            self.optimizer.state[values] = {
                key: x[numbers] if x.shape == before[name].shape else x for key, x in state.items()
            }

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.parameters.values(),
            lr=self.trainer.learning_rate,
            weight_decay=self.trainer.weight_decay,
            fused=True,
        )


class _Loss(nn.Module):
    """The training loss of a head as what `functional_call` calls, in place of its logits."""

    def __init__(self, head: FusionClassifier) -> None:
        super().__init__()
        self.head = head

    def forward(self, batch: Batch, class_weights: Tensor | None) -> Tensor:
        """Return the loss of a batch with weights of the classes. Shape: ()."""
        operator, before = self.head.operator, self.head.operator.class_weights
        operator.class_weights = class_weights
        try:
            return self.head.loss(batch)
        finally:
            operator.class_weights = before


@torch.no_grad()
def _stacked(heads: Sequence[_Head]) -> dict[str, nn.Parameter]:
    """Stack the parameters of heads. Each head has its part, so that it follows every step.

    Matrices are stacked as their transposes: so their gradients come, and nothing is copied.
    """
    each = [dict(one.head.named_parameters()) for one in heads]
    found = {}
    for name in each[0]:
        found[name] = nn.Parameter(torch.stack([_transposed(own[name]) for own in each]))
        for n, own in enumerate(each):
            own[name].data = _transposed(found[name].data[n])
    return found


def _transposed(values: Tensor) -> Tensor:
    """Transpose a matrix; leave other tensors as they are."""
    return values.mT if values.ndim == 2 else values


@torch.no_grad()
def _take_out(one: _Head) -> None:
    """Give a head that has ended parameters of its own again, those of its best epoch."""
    for values in one.head.parameters():
        values.data = values.data.clone(memory_format=torch.contiguous_format)
    one.best.restore(one.head)
    one.head.train()  # as a `Trainer` leaves it
