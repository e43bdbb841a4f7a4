"""Training as published scripts do it: no row held out, test looked at after every epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from layerfusion.config.job import FusionConfig
from layerfusion.fusion.data import TensorBatches
from layerfusion.published.operators import build_head, build_published
from layerfusion.published.settings import PUBLISHED_TRAINER

EpochDone = Callable[[int, float, float], None]
"""Called with the epoch, counted from 1, its mean training loss and its test accuracy."""


@dataclass(frozen=True)
class PublishedFit:
    """One training run."""

    correct: np.ndarray
    """True where a test row is right after an epoch. Shape: (epochs, rows), bool."""
    probabilities: np.ndarray
    """Probabilities of test after the claimed epoch. Shape: (rows, classes), float32."""
    parameters: int
    flops: int
    """FLOPs of the head for one text."""
    seconds: float

    @property
    def claimed(self) -> int:
        """Index of the epoch with the best test accuracy, the first of several."""
        return int(self.correct.mean(axis=1).argmax())


def fit_as_published(
    train: tuple[Sequence[Tensor], Tensor],
    test: tuple[Sequence[Tensor], Tensor],
    fusion: FusionConfig,
    *,
    num_classes: int,
    seed: int,
    device: torch.device,
    epoch_done: EpochDone = lambda *_: None,
) -> PublishedFit:
    """Train one head: Adam, a rate of 1e-4, batches of 1024 rows, 100 epochs, cross-entropy.

    No weight decay, no schedule, no early stopping, no standardisation. The rows are shuffled in
    every epoch. Published runs have no seed; here all that is random follows from `seed`.

    Args:
        train: one tensor a source, shapes (rows, d_k), and the class indices, shape (rows,).
        test: the same of the rows that the epoch is chosen on, which is the protocol's fault.
        fusion: a published operator, with or without its residual form.
        num_classes: number of classes.
        seed: of this training run.
        device: where to train.
        epoch_done: told of every epoch.
    """
    started = time.perf_counter()
    torch.manual_seed(seed)
    operator = build_published(fusion, [source.shape[1] for source in train[0]])
    head = build_head(operator.width, num_classes)
    model = nn.ModuleList([operator, head]).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=PUBLISHED_TRAINER["learning_rate"])
    size = int(PUBLISHED_TRAINER["batch_size"])
    batches = TensorBatches(*_on(train, device), size, shuffle=True, seed=seed)
    judged = TensorBatches(*_on(test, device), size)

    correct: list[np.ndarray] = []
    best, probabilities = -1, np.empty(0)
    for epoch in range(1, int(PUBLISHED_TRAINER["max_epochs"]) + 1):
        model.train()
        losses = []
        for sources, target in batches:
            optimiser.zero_grad()
            loss = F.cross_entropy(head(operator(sources)), target)
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        model.eval()
        with torch.inference_mode():
            logits = torch.cat([head(operator(sources)) for sources, _ in judged])
        right = (logits.argmax(dim=1) == judged.target).cpu().numpy()
        if right.sum() > best:
            best, probabilities = int(right.sum()), logits.softmax(dim=1).float().cpu().numpy()
        correct.append(right)
        epoch_done(epoch, float(torch.stack(losses).mean()), float(right.mean()))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    seconds = time.perf_counter() - started
    with FlopCounterMode(display=False) as counter:
        head(operator([source[:1] for source in judged.features]))
    flops = counter.get_total_flops()
    return PublishedFit(np.stack(correct), probabilities, parameters, flops, seconds)


def _on(rows: tuple[Sequence[Tensor], Tensor], device: torch.device) -> tuple[list[Tensor], Tensor]:
    return [source.to(device) for source in rows[0]], rows[1].to(device)
