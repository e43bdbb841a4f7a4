"""Compare training a head by Lightning's Trainer with a bare loop.

Run: python -m benchmarks.heads [--repeats 5] [--json FILE]

The features are random and have the size of one layer of minilm on mr. The Trainer and the loop
take turns, and both reach the same weights.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.turns import REPEATS, parser, show, take_turns
from layerfusion.config.job import FusionConfig, TrainerConfig
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.data import FusionDataModule
from layerfusion.fusion.head import classifier_settings
from layerfusion.fusion.training import fit

ROWS = {"train": 6397, "validation": 711}
WIDTH, CLASSES, EPOCHS = 384, 2, 5
FUSION = FusionConfig()
TRAINER = TrainerConfig(max_epochs=EPOCHS, patience=EPOCHS)


def bare_loop(data: FusionDataModule, seed: int) -> None:
    """Take the same steps and one validation in each epoch, without Lightning."""
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


def run(repeats: int = REPEATS, path: Path | None = None) -> None:
    """Let both take turns, after one turn that warms up."""
    torch.manual_seed(0)
    features = {split: [torch.randn(rows, WIDTH)] for split, rows in ROWS.items()}
    targets = {split: torch.randint(CLASSES, (rows,)) for split, rows in ROWS.items()}
    data = FusionDataModule(features, targets, TRAINER.batch_size)
    seeds = count()
    runs = {
        "by the Trainer": lambda: fit(data, FUSION, TRAINER, num_classes=CLASSES, seed=next(seeds)),
        "by a bare loop": lambda: bare_loop(data, next(seeds)),
    }
    take_turns(runs, 1)
    title = f"heads: {EPOCHS} epochs of {ROWS['train']} rows, width {WIDTH}"
    show(title, take_turns(runs, repeats), path)


if __name__ == "__main__":
    asked = parser(__doc__).parse_args()
    run(asked.repeats, asked.json)
