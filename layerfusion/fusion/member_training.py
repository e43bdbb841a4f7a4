"""Trains the head that is a member of a stack, on all rows and on those outside of each fold."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from layerfusion.assets.memo import hash_of, read_arrays, write_arrays
from layerfusion.config.job import LATE_STACK, FusionConfig, TrainerConfig
from layerfusion.embeddings.lexical import LexicalSource
from layerfusion.errors import UserError
from layerfusion.fusion.data import FusionDataModule
from layerfusion.fusion.head import classifier_settings
from layerfusion.fusion.head_member import HeadMember, head_of, read_by_head
from layerfusion.fusion.operator_head import OperatorHead
from layerfusion.fusion.together import HeadTask, fit_together, folds_at_once
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.held_out import cache_files
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import NEVER, Predictions
from layerfusion.texts.groups import hold_out_units

VERSION = 2
"""Part of the cache key. Raise it with every change that gives other heads."""
STOPPING = 0.1
"""Share of the rows that the head does not learn from, and stops on."""


@dataclass(frozen=True)
class MemberRecipe:
    """How the head of a stack is trained.

    It keeps some of the texts that it is given to stop on. So it needs no validation, and the
    probes beside it learn from every row.
    """

    fusion: FusionConfig
    """Its operator and width."""
    trainer: TrainerConfig
    seed: int
    num_classes: int
    sources: tuple[int, ...]
    """Positions, among the sources of the stack, of those that the head reads."""

    def train(
        self, features: Sequence[Tensor | None], labels: Tensor, units: Sequence[Hashable]
    ) -> HeadMember:
        """Train the head on all rows but those that it stops on.

        Args:
            features: one tensor for each source of the stack, shapes (rows, d_k); those that the
                head does not read may be None.
            labels: class indices, shape (rows,), or labels, shape (rows, classes).
            units: what tells apart independent rows, as `Split.units`; none is divided.

        Raises:
            UserError: if there are too few rows to keep some of them, or the training diverges.
        """
        read = [_present(features[k]) for k in self.sources]
        (head,) = self._fit([self._data(read, labels, units)])
        return HeadMember(head, self.sources)

    def held_out(self, candidates: Candidates) -> Tensor:
        """Predict the rows of each fold by a head that is trained without it, or read it again.

        Args:
            candidates: the sources of the stack, on the rows that it learns from.

        Returns:
            Log-probabilities of the held-out rows. Shape: (rows, classes), float32.

        Raises:
            UserError: as `train`.
        """
        read = candidates.take(self.sources)
        path = self._cache_file(read)
        kept = read_arrays(path, "heads")
        if kept is not None:
            return torch.from_numpy(kept[0]["log_probs"])
        found = self._predict_folds(read)
        write_arrays(path, {"log_probs": found.numpy()}, {"sources": [*map(str, read.layers)]})
        return found

    def _predict_folds(self, read: Candidates) -> Tensor:
        features, fold_of = list(read.features), read.fold_of
        found = torch.zeros(len(read.labels), self.num_classes)
        folds = torch.arange(int(fold_of.max()) + 1)
        width = sum(source.shape[1] for source in features)
        for some in folds.split(folds_at_once(len(fold_of), width)):
            held_out = [fold_of == fold for fold in some]
            data = []
            for out in held_out:
                units = [read.units[row] for row in torch.where(~out)[0].tolist()]
                known = [source[~out] for source in features]
                data.append(self._data(known, read.labels[~out], units))
            for out, head in zip(held_out, self._fit(data), strict=True):
                found[out] = head.log_probs([source[out] for source in features])
        return found[fold_of != NEVER]

    def _data(
        self, features: Sequence[Tensor], labels: Tensor, units: Sequence[Hashable]
    ) -> FusionDataModule:
        """Keep some texts, or groups, to stop on."""
        try:
            stops = hold_out_units(
                labels.numpy(), units, STOPPING, seed=self.seed, purpose="rows to stop on"
            )
        except UserError as error:
            raise UserError(f"fusion={LATE_STACK}: {error}") from error
        kept = torch.from_numpy(stops)
        return FusionDataModule(
            {
                "train": [source[~kept] for source in features],
                "validation": [source[kept] for source in features],
            },
            {"train": labels[~kept], "validation": labels[kept]},
            batch_size=self.trainer.batch_size,
        )

    def _fit(self, data: Sequence[FusionDataModule]) -> list[OperatorHead]:
        fitted = fit_together(
            [HeadTask(one, self.fusion, self.seed) for one in data],
            self.trainer,
            num_classes=self.num_classes,
            calibrated=False,  # the pool gives each of its members a factor
        )
        heads = zip(fitted, data, strict=True)
        return [OperatorHead(own.classifier, one.standardiser) for own, one in heads]

    def _cache_file(self, read: Candidates) -> Path:
        """Name the file of the held-out predictions by all that they depend on."""
        trainer = asdict(self.trainer)
        key = {
            "kind": "held-out heads",
            "version": VERSION,
            "stopping": STOPPING,
            "head": classifier_settings(self.fusion, self.trainer),
            "trainer": {name: trainer[name] for name in ("max_epochs", "patience", "batch_size")},
            "seed": self.seed,
        }
        files = cache_files(read, lambda _: key)
        layers = [
            [path.name, *(read.layers[n].layer for n in places)] for path, places in files.items()
        ]
        return next(iter(files)).with_name(f"{hash_of(layers)}.safetensors")


def member_recipe(
    fusion: FusionConfig,
    trainer: TrainerConfig,
    candidates: Candidates,
    held_out: Sequence[Predictions],
    seed: int,
) -> MemberRecipe | None:
    """Say how the head of a stack is trained; None where the stack has none.

    A lexical source is a regression in a stack, so that its head reads layers alone.

    Args:
        fusion: the stack.
        trainer: settings of the training.
        candidates: the sources of the stack.
        held_out: predictions of each source's probe.
        seed: seed of the training.
    """
    if fusion.name != LATE_STACK:
        return None
    losses = losses_of_layers(candidates, held_out)
    sources = tuple(read_by_head(candidates.layers, losses))
    if not sources:
        return None
    return MemberRecipe(head_of(fusion), trainer, seed, candidates.num_classes, sources)


def losses_of_layers(
    candidates: Candidates, held_out: Sequence[Predictions]
) -> dict[LayerId, float]:
    """Return the held-out log-loss, in nats, of those sources that are layers of a model."""
    return {
        layer: one.log_loss
        for layer, one in zip(candidates.layers, held_out, strict=True)
        if not isinstance(candidates.sources[layer.backbone], LexicalSource)
    }


def _present(source: Tensor | None) -> Tensor:
    if source is None:
        raise ValueError("a head reads vectors of layers alone")
    return source
