"""Compare training a head by Lightning's Trainer with a bare loop: python -m benchmarks.heads.

The features are random and have the size of one layer of minilm on mr. The Trainer and the loop
take turns, and both reach the same weights.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch.nn import functional as F

from layerfusion.config.job import FusionConfig, TrainerConfig
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.data import FusionDataModule
from layerfusion.fusion.head import classifier_settings
from layerfusion.fusion.training import fit

ROWS = {"train": 6397, "validation": 711}
WIDTH, CLASSES, EPOCHS, TURNS = 384, 2, 5, 7
FUSION = FusionConfig()
TRAINER = TrainerConfig(max_epochs=EPOCHS, patience=EPOCHS)


def bare_loop(data: FusionDataModule, seed: int) -> float:
    """Time the same steps and one validation in each epoch, without Lightning."""
    begun = time.perf_counter()
    torch.manual_seed(seed)
    head = FusionClassifier([WIDTH], CLASSES, **classifier_settings(FUSION, TRAINER))
    optimizer = head.configure_optimizers()
    order = torch.Generator().manual_seed(seed)
    (x,), target = data.features["train"], data.targets["train"]
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=order).split(TRAINER.batch_size):
            loss = F.cross_entropy(head([x[rows]]), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        logits, _ = head.predict_logits(data.features["validation"])
        F.cross_entropy(logits, data.targets["validation"])
    return time.perf_counter() - begun


def run() -> str:
    """Return the median seconds of both and their ratio, without the first turn, which warms up."""
    torch.manual_seed(0)
    features = {split: [torch.randn(rows, WIDTH)] for split, rows in ROWS.items()}
    targets = {split: torch.randint(CLASSES, (rows,)) for split, rows in ROWS.items()}
    data = FusionDataModule(features, targets, TRAINER.batch_size)
    trained, bare = [], []
    for seed in range(TURNS + 1):
        fitted = fit(data, FUSION, TRAINER, num_classes=CLASSES, seed=seed)
        trained.append(fitted.seconds / fitted.epochs)
        bare.append(bare_loop(data, seed) / EPOCHS)
    ratios = [a / b for a, b in zip(trained[1:], bare[1:], strict=True)]
    return (
        f"an epoch of {ROWS['train']} rows: {statistics.median(trained[1:]):.2f} s by the Trainer,"
        f" {statistics.median(bare[1:]):.2f} s by a bare loop;"
        f" ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    print(run())
