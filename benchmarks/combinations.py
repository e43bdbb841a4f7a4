"""Compare ways to combine all held-out predictions, over many draws of the training rows.

Run: python -m benchmarks.combinations mr r8 'backbone=[minilm,granite]' limit.test=1500
         --rows 200:10,1000:10,2000:5,all:2 --cells outputs/combinations.jsonl

Arguments with `=` are settings of the job; all other arguments are data sets. `--rows` has the
numbers of labelled rows to learn from, and after the colon the number of draws. Each draw is
another stratified sample of train and validation together, and deals its folds anew. Draws of all
rows differ in their folds alone.

The members are those of a stack: the blend of a logistic probe and a discriminant for the best
layers of each model, a discriminant for its others, and two regressions on TF-IDF (words,
characters). Each has predicted the held-out rows of the draw and, after a fit on all rows of the
draw, test. They are computed once for each draw. All methods then combine the same members, for
every pair of models and for all models, with and without the two regressions. No method sees test.

Figures of each set of members are appended to the file of `--cells` as soon as they are known; what
it holds is not computed again. The tables are written from it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.combination_methods import methods_for
from benchmarks.combination_tables import as_json, as_text
from layerfusion.assets.files import write_atomically
from layerfusion.assets.memo import hash_of
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.job import TrainConfig
from layerfusion.embeddings.backbone import choose_device
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.lexical import LexicalSource
from layerfusion.embeddings.source import Source
from layerfusion.fusion.stacking import fit_sources
from layerfusion.layers.blends import held_out_blends
from layerfusion.layers.candidates import all_layers, read_layers
from layerfusion.layers.discriminant import Blend
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.lexical_regression import LexicalRegression
from layerfusion.runs.job_sources import extract_all, open_sources
from layerfusion.runs.job_texts import dataset_of
from layerfusion.runs.select_layers import candidates_of
from layerfusion.texts import TextDataset
from layerfusion.texts.sampling import sample
from layerfusion.texts.splits import Split

LEXICAL = "lexical=[words,characters]"
ALL = "all"
Cell = dict[str, Any]
"""Figures of all methods on one set of members: a line of the file of `--cells`."""


def main(arguments: Sequence[str] | None = None) -> list[Cell]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", default="200:10,1000:10,2000:5", help="rows:draws, …")
    parser.add_argument("--cells", type=Path, default=Path("outputs/combinations.jsonl"))
    parser.add_argument(
        "--json",
        type=Path,
        help="file for the figures over draws; it keeps those of other data sets and rows",
    )
    known, words = parser.parse_known_args(arguments)
    datasets = [word for word in words if "=" not in word]
    settings = [word for word in words if "=" in word]
    sizes = [size.split(":") for size in known.rows.split(",")] if datasets else []
    for name in datasets:
        config = load(compose("train", [f"dataset={name}", "logger=none", LEXICAL, *settings]))
        dataset = dataset_of(config)
        extract_all(replace(config, lexical={}), dataset)
        for rows, draws in sizes:
            for draw in range(int(draws)):
                compare(config, dataset, rows, draw, known.cells)
    cells = read_cells(known.cells)
    if known.json:
        former = json.loads(known.json.read_text()) if known.json.exists() else None
        figures = json.dumps(as_json(cells, former), separators=(",", ":"))
        write_atomically(known.json, figures.encode())
    print(as_text(cells))
    return cells


def compare(config: TrainConfig, dataset: TextDataset, rows: str, draw: int, file: Path) -> None:
    """Compare all methods on the sets of members of one draw that the file lacks."""
    drawn = draw_rows(dataset, rows, draw)
    config = replace(config, seed=draw)
    sources = open_sources(config, drawn)
    known = [named(cell) for cell in read_cells(file)]
    cells = [
        {
            "data": dataset.name,
            "rows": rows,
            "draw": draw,
            "models": models,
            "lexical": lexical,
            "inputs": inputs_of(dataset, [sources[name] for name in models]),
            "test_rows": len(drawn.splits["test"]),
        }
        for models, lexical in sets_of_members(list(config.backbone))
    ]
    lacking = [cell for cell in cells if named(cell) not in known]
    if not lacking:
        return
    members = members_of(config, drawn, sources)
    for cell in lacking:
        chosen = members.of([*cell["models"], *(config.lexical if cell["lexical"] else ())])
        append(file, {**cell, "members": len(chosen.layers), "figures": figures(chosen)})


def named(cell: Cell) -> Cell:
    """Keep what tells one cell from another."""
    return {name: cell[name] for name in ("data", "rows", "draw", "models", "lexical", "inputs")}


def draw_rows(dataset: TextDataset, rows: str, draw: int) -> TextDataset:
    """Draw a stratified sample of train and validation together, and leave validation empty."""
    train, validation, test = (dataset.splits[name] for name in ("train", "validation", "test"))
    labels = np.concatenate([train.labels, validation.labels])
    whole = Split((*train.texts, *validation.texts), labels)
    if rows != ALL:
        purpose = f"combinations.{draw}"
        whole = whole.take(sample(labels, int(rows), seed=0, purpose=purpose))
    nothing = Split((), labels[:0])
    return replace(dataset, splits={"train": whole, "validation": nothing, "test": test})


def sets_of_members(models: Sequence[str]) -> Iterator[tuple[list[str], bool]]:
    """Give every pair of models, and all of them, without and with lexical members."""
    sets = [list(pair) for pair in combinations(models, 2)]
    if len(models) != 2:
        sets.append(list(models))
    for some in sets:
        yield from ((some, lexical) for lexical in (False, True))


def inputs_of(dataset: TextDataset, models: Sequence[Source]) -> str:
    """Name the texts and vectors that figures depend on."""
    specs = [[store.spec.canonical() for store in one.stores.values()] for one in models]
    return hash_of([dataset.fingerprint, specs])[:12]


# -- the members --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Members:
    """What the members say of held-out rows and of test."""

    layers: Sequence[LayerId]
    held_out: Tensor
    """Log-probabilities of the held-out rows. Shape: (members, rows, classes)."""
    target: Tensor
    test: Tensor
    """Log-probabilities of the test rows. Shape: (members, test rows, classes)."""
    test_target: Tensor

    def of(self, names: Sequence[str]) -> Members:
        """Keep the members of some models and lexical sources."""
        places = [n for n, layer in enumerate(self.layers) if layer.backbone in names]
        layers = [self.layers[n] for n in places]
        return replace(self, layers=layers, held_out=self.held_out[places], test=self.test[places])


def members_of(config: TrainConfig, drawn: TextDataset, sources: Mapping[str, Source]) -> Members:
    """Predict held-out rows and test by every layer of every model and every lexical source.

    The best layers of each model have a regression too, whatever other models there are.
    """
    device = choose_device(config.extract.device)
    train, test = drawn.splits["train"], drawn.splits["test"]
    labels, classes = torch.from_numpy(train.labels), len(drawn.label_names)
    layers: list[LayerId] = []
    blends: list[Blend] = []
    said: list[Tensor] = []
    for name, source in sources.items():
        own = all_layers({name: source})
        candidates = candidates_of(config, drawn, sources, own)
        held = held_out_blends(candidates, config.layers, device)
        layers += own
        blends += held
        if isinstance(source, LexicalSource):
            said += [regression_on(source, train, test, held[0], classes)]
            continue
        probes, _ = fit_sources(list(candidates.features), labels, held, classes, {}, device)
        vectors = read_layers(sources, own, [text_hash(text) for text in test.texts])
        pairs = zip(probes, vectors, strict=True)
        said += [probe.logits(x).log_softmax(dim=1) for probe, x in pairs]
    return Members(
        layers,
        torch.stack([blend.log_probs for blend in blends]),
        blends[0].target,
        torch.stack(said),
        torch.from_numpy(test.labels),
    )


def regression_on(
    source: LexicalSource, train: Split, test: Split, held: Blend, classes: int
) -> Tensor:
    """Predict test by the regression of a lexical source. Shape: (test rows, classes)."""
    if held.strength is None:
        raise ValueError(f"{source.name}: a lexical source is a regression")
    regression = LexicalRegression.fit(
        source.config.features,
        train.texts,
        train.labels,
        held.strength,
        num_classes=classes,
        max_features=source.config.max_features,
        learner=source.config.learner,
    )
    return regression.vectors(test.texts)


def figures(members: Members) -> dict[str, list[float]]:
    """Combine the members by every method: its test accuracy, log-loss, and seconds."""
    found: dict[str, list[float]] = {}
    for name, method in methods_for(*members.held_out.shape[1:]).items():
        begun = time.perf_counter()
        log_probs = method(members.held_out, members.target)(members.test)
        seconds = time.perf_counter() - begun
        right = log_probs.argmax(dim=1) == members.test_target
        loss = F.nll_loss(log_probs.double(), members.test_target)
        found[name] = [round(x, 6) for x in (float(right.double().mean()), float(loss), seconds)]
    return found


# -- the file of cells --------------------------------------------------------------------------


def read_cells(file: Path) -> list[Cell]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def append(file: Path, cell: Cell) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps(cell) + "\n")


if __name__ == "__main__":
    main()
