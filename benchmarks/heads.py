"""Compare training the heads of a job as one model with seed by seed, and with peers.

Run: python -m benchmarks.heads [KEY=VALUE ...] [--rows 1000] [--repeats 5] [--json FILE]

All learn from the same rows of r8, two layers of minilm that are cached, with the same width, rows
of a batch, learning rate and patience. The peers are what one would write: a LightningModule with
DataLoaders, and scikit-learn's MLPClassifier, which stops by the accuracy on its own share of the
rows. The limit is the time of the products of matrices of all steps alone, each head's by itself.
Test accuracy is printed for each, as the mean over the seeds.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import partial
from statistics import mean
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.turns import parser, show, take_turns
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.job import FusionConfig, TrainConfig
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.fusion.data import FusionDataModule
from layerfusion.fusion.together import HeadTask, fit_together
from layerfusion.fusion.training import fit
from layerfusion.layers.candidates import all_layers, read_layers
from layerfusion.runs.job_sources import extract_all
from layerfusion.runs.job_texts import dataset_of

LAYERS = (3, -1)


class Plain(LightningModule):
    """Two layers side by side, a hidden layer and the classes, as in the documentation."""

    def __init__(self, width: int, config: TrainConfig, classes: int) -> None:
        super().__init__()
        hidden, dropout = config.fusion.width, config.fusion.dropout
        self.config = config.trainer
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, classes)
        )

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("loss", F.cross_entropy(self.layers(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        settings = self.config
        return torch.optim.AdamW(
            self.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("words", nargs="*", help="settings KEY=VALUE of the job")
    options.add_argument("--rows", type=int, default=1000)
    asked = options.parse_intermixed_args()
    words = ["dataset=r8", "backbone=[minilm]", "logger=none", f"limit.train={asked.rows}"]
    config = load(compose("train", [*words, *asked.words]))
    data, classes = _data(config)
    seeds = range(config.seed, config.seed + config.seeds)
    test, target = data.features["test"], data.targets["test"]
    flat = {
        split: torch.cat([source[:] for source in sources], dim=1)
        for split, sources in data.features.items()
    }

    def as_one_model() -> list[Tensor]:
        tasks = [HeadTask(data, fusion, seed) for seed in seeds]
        heads = fit_together(tasks, config.trainer, num_classes=classes)
        epochs[:] = [one.epochs for one in heads]
        return [one.classifier.predict_logits(test)[0].argmax(dim=1) for one in heads]

    def products() -> list[Tensor]:
        _multiply(config, data, classes, sum(epochs))
        return []

    def seed_by_seed() -> list[Tensor]:
        heads = [fit(data, fusion, config.trainer, num_classes=classes, seed=s) for s in seeds]
        return [one.classifier.predict_logits(test)[0].argmax(dim=1) for one in heads]

    def by_lightning() -> list[Tensor]:
        return [_by_lightning(config, data, flat, classes, seed) for seed in seeds]

    def by_scikit_learn() -> list[Tensor]:
        trainer, found = config.trainer, []
        settings: dict[str, Any] = {
            "hidden_layer_sizes": (config.fusion.width,),
            "batch_size": trainer.batch_size,
            "learning_rate_init": trainer.learning_rate,
            "max_iter": trainer.max_epochs,
            "early_stopping": True,
            "n_iter_no_change": trainer.patience,
        }
        for seed in seeds:
            peer = MLPClassifier(**settings, random_state=seed)
            peer.fit(flat["train"].numpy(), data.targets["train"].numpy())
            found.append(torch.from_numpy(peer.predict(flat["test"].numpy())))
        return found

    epochs: list[int] = []
    for name in ("concat", "gated"):
        fusion = FusionConfig(name, width=config.fusion.width)
        said: dict[str, list[Tensor]] = {}
        runs = {
            f"{len(seeds)} seeds as one model": as_one_model,
            "one seed after the other": seed_by_seed,
            "a LightningModule with DataLoaders": by_lightning,
            "scikit-learn's MLPClassifier": by_scikit_learn,
            "the products of matrices alone": products,
        }
        seconds = take_turns(
            {name: partial(_keep, said, name, run) for name, run in runs.items()}, asked.repeats
        )
        title = f"heads: {name}, {len(data.targets['train'])} rows of r8, {len(seeds)} seeds"
        show(title, seconds, asked.json)
        for run, answers in filter(lambda pair: pair[1], said.items()):
            right = mean(float((one == target).double().mean()) for one in answers)
            print(f"  test accuracy, {run}: {100 * right:.1f} %")


def _keep(said: dict[str, list[Tensor]], name: str, run: Callable[[], list[Tensor]]) -> None:
    said[name] = run()


def _data(config: TrainConfig) -> tuple[FusionDataModule, int]:
    dataset = dataset_of(config)
    sources = extract_all(config, dataset)
    layers = [all_layers(sources)[n] for n in LAYERS]
    features, targets = {}, {}
    for split, rows in dataset.splits.items():
        hashes = [text_hash(text) for text in rows.texts]
        features[split] = read_layers(sources, layers, hashes)
        targets[split] = torch.from_numpy(rows.labels)
    size = config.trainer.batch_size
    return FusionDataModule(features, targets, batch_size=size), len(dataset.label_names)


@torch.inference_mode()
def _multiply(config: TrainConfig, data: FusionDataModule, classes: int, epochs: int) -> None:
    """Multiply vectors by the weights of a head, and by what their gradients come from."""
    rows, hidden = config.trainer.batch_size, config.fusion.width
    shapes = [(sum(data.widths), hidden), (hidden, classes)]
    factors = [[torch.randn(rows, width) for width in shape] for shape in shapes]
    weights = [torch.randn(shape) for shape in shapes]
    for _ in range(epochs * -(-len(data.targets["train"]) // rows)):
        for (x, slope), weight in zip(factors, weights, strict=True):
            torch.mm(x, weight)
            torch.mm(x.T, slope)
        torch.mm(factors[1][1], weights[1].T)


def _by_lightning(
    config: TrainConfig,
    data: FusionDataModule,
    flat: dict[str, Tensor],
    classes: int,
    seed: int,
) -> Tensor:
    seed_everything(seed, verbose=False)
    head = Plain(flat["train"].shape[1], config, classes)
    train, validation = (
        DataLoader(
            TensorDataset(flat[split], data.targets[split]),
            batch_size=config.trainer.batch_size,
            shuffle=split == "train",
        )
        for split in ("train", "validation")
    )
    trainer = Trainer(
        max_epochs=config.trainer.max_epochs,
        accelerator="cpu",
        callbacks=[EarlyStopping("loss", patience=config.trainer.patience)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(head, train, validation)
    with torch.inference_mode():
        return head.eval().layers(flat["test"]).argmax(dim=1)


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    main()
