"""Chooses layers on a sample, so that a large corpus is extracted only up to those layers."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from layerfusion.config.identity import job_id
from layerfusion.config.job import TrainConfig
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.given import GivenSource
from layerfusion.embeddings.source import Source
from layerfusion.embeddings.store import EmbeddingStore
from layerfusion.errors import UserError
from layerfusion.fusion.deadline import Deadline, Pace
from layerfusion.layers.budget import Budget
from layerfusion.layers.candidates import all_layers
from layerfusion.layers.folds import dealt_by
from layerfusion.layers.repeats import standard_error
from layerfusion.layers.scores import compute_scores
from layerfusion.layers.selection import Selection, pooled_losses
from layerfusion.progress import duration
from layerfusion.records.job import PilotRecord
from layerfusion.runs.select_layers import (
    budget_of,
    candidates_of,
    layers_to_score,
    select_scored,
    selection_lines,
)
from layerfusion.texts import TextDataset
from layerfusion.texts.sampling import sample

log = logging.getLogger(__name__)

GROWTH = 1.5
"""Growth factor of a pilot sample that is too small. Doubling overshoots."""
PURPOSE = "layers.pilot"


def run_pilot(
    config: TrainConfig,
    dataset: TextDataset,
    sources: Mapping[str, Source],
    deadline: Deadline | None = None,
) -> tuple[Selection, PilotRecord]:
    """Choose on a stratified sample of train, then extract the rest only up to the chosen layers.

    All layers of the sample are extracted. The sample grows until the choice made on half of it is
    about as good as the choice made on all of it: on the whole sample, their held-out log-losses
    (of the averaged log-probabilities) differ by at most one standard error. A sample that grows to
    all of train saves nothing.

    Where the time is limited, the sample grows no further than there is time for, and only layers
    up to which all other texts can pass in time are chosen.
    """
    deadline = deadline or Deadline()
    pace = Pace(deadline)
    train = dataset.splits["train"]
    labels = train.labels
    size = min(config.layers.pilot or 0, len(labels))
    sizes: list[int] = []
    whole: set[str] = set()
    while True:
        sizes.append(size)
        rows = _rows(labels, size, config.seed)
        texts = [train.texts[row] for row in rows]
        with pace.step():
            for source in sources.values():
                source.extract([texts], config.extract)
        whole.update(texts)
        budget = budget_of(config, dataset, sources, rows)
        within = _in_time(budget, dataset, sources, deadline)
        half = _half(labels, rows, config.seed)
        everything = size >= len(labels)
        if everything or np.bincount(dealt_by(labels[half])).max() >= config.layers.folds:
            selection, loss = _choose(config, dataset, sources, rows, half, within)
            if everything or loss <= 0:
                break
            if not pace.allows():
                deadline.leave_out(f"layers.pilot grew no further than {size} rows")
                break
        log.info("pilot: %d rows do not settle the choice yet", size)
        size = min(math.ceil(GROWTH * size), len(labels))
    for line in selection_lines(selection):
        log.info(line)
    _tell_limits(within, sources, deadline)
    splits = [split.texts for split in dataset.splits.values()]
    for name, layers in wanted(selection).items():
        sources[name].extract(splits, config.extract, layers)
    full_job = job_id(replace(config, layers=replace(config.layers, pilot=None)))
    counts = (len(whole), len(set(chain(*splits))))
    record = _record(sizes, counts, selection, sources, budget, full_job)
    saved = [f"{100 * (1 - record.bytes / record.bytes_full):.0f} % fewer bytes"]
    if record.flops is not None and record.flops_full is not None:
        saved.insert(0, f"{100 * (1 - record.flops / record.flops_full):.0f} % fewer FLOPs")
    log.info(
        "pilot: %d of %d texts extracted whole; %s",
        record.texts_whole,
        record.texts,
        ", ".join(saved),
    )
    return selection, record


def _in_time(
    budget: Budget, dataset: TextDataset, sources: Mapping[str, Source], deadline: Deadline
) -> Budget:
    """Limit the FLOPs of layers so that the texts beside the pilot can pass in the time left.

    What enters the first block costs none, so that there is always something to choose. A server
    of vectors counts no FLOPs; it is left out if the other texts would take it too long.

    Raises:
        UserError: if no source is left.
    """
    if deadline.limit is None:
        return budget
    hashes = list({text_hash(text) for split in dataset.splits.values() for text in split.texts})
    slow, missing, timed = {}, [0], []
    for name, source in sources.items():
        model, left = budget.models[name], _missing(source, hashes)
        if isinstance(source, GivenSource):
            seconds = left * (model.milliseconds or 0) / 1000
            if seconds > deadline.for_extraction():
                slow[name] = seconds
        elif model.milliseconds:
            timed.append(model)
            missing.append(left)
    if slow and len(slow) == len(sources):
        name = min(slow, key=lambda name: slow[name])
        raise UserError(
            f"{deadline.key}: there is no time for the other texts of {name}, which would take"
            f" {duration(math.ceil(slow[name]))}; what it gave is kept; ways out: more time, or"
            " fewer texts (of a job: limit.train)"
        )
    if not any(missing):
        return budget.limited_by_time(math.inf, slow)
    flops = sum(model.flops[model.shape.layers[-1]] for model in timed)
    speed = 1000 * flops / sum(model.milliseconds or 0 for model in timed)
    return budget.limited_by_time(speed * deadline.for_extraction() / max(missing), slow)


def _missing(source: Source, hashes: Sequence[bytes]) -> int:
    """Count the texts that a store of a source lacks; 0 for a lexical source, which lacks none."""
    stores = [store for store in source.stores.values() if isinstance(store, EmbeddingStore)]
    lacking = [
        int(np.sum(store.missing(hashes, store.shape.layers)))
        for store in stores
        if store.shape is not None
    ]
    return max(lacking, default=0)


def _tell_limits(within: Budget, sources: Mapping[str, Source], deadline: Deadline) -> None:
    """Say which layers could not be chosen for lack of time."""
    for name in sources:
        if name in within.too_slow:
            deadline.leave_out(
                f"after the pilot {name} could not be chosen; there was no time to ask it for all"
                " texts"
            )
    layers = [x for x in all_layers(sources) if x.backbone not in within.too_slow]
    if not within.has_time_for(layers):
        deadline.leave_out(
            f"after the pilot only layers of at most {within.in_time / 1e9:.3g} GFLOPs a text could"
            " be chosen; there was no time to pass all texts further"
        )


def wanted(selection: Selection) -> dict[str, dict[str, list[str]]]:
    """Return the layers that a selection needs, by source and pooling."""
    result: dict[str, dict[str, list[str]]] = {}
    for layer in selection.layers:
        result.setdefault(layer.backbone, {}).setdefault(layer.pooling, []).append(layer.layer)
    return result


def _rows(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    if size >= len(labels):
        return np.arange(len(labels))
    return np.flatnonzero(sample(labels, size, seed=seed, purpose=PURPOSE))


def _half(labels: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    return rows[sample(labels[rows], len(rows) // 2, seed=seed, purpose=PURPOSE)]


def _choose(
    config: TrainConfig,
    dataset: TextDataset,
    sources: Mapping[str, Source],
    rows: np.ndarray,
    half: np.ndarray,
    budget: Budget,
) -> tuple[Selection, float]:
    """Choose on some rows, and compare with the choice on half of them.

    The comparison is the difference in held-out log-loss minus its standard error: above 0, the
    choice on the half is worse. It is 0 if the rows are all of train, which cannot grow further.
    """
    layers = layers_to_score(config, budget, all_layers(sources))
    candidates = candidates_of(config, dataset, sources, layers, rows)
    selection, table = select_scored(config, candidates, budget)
    if len(rows) == len(dataset.splits["train"].texts):
        return selection, 0.0
    earlier, _ = select_scored(
        config, candidates_of(config, dataset, sources, layers, half), budget
    )
    if not table.held_out:  # the score of this selection fits no probes
        table = compute_scores(candidates, ["probe"], config.layers, config.extract)
    worse = pooled_losses(table, earlier.layers) - pooled_losses(table, selection.layers)
    return selection, float(worse.mean()) - standard_error(worse, table.held_out[0].text_of)


def _record(
    sizes: list[int],
    counts: tuple[int, int],
    selection: Selection,
    sources: Mapping[str, Source],
    budget: Budget,
    full_job: str,
) -> PilotRecord:
    """Compare the costs of the pilot with a full extraction; each text costs the pilot's mean."""
    whole, texts = counts
    rest = texts - whole
    needed = wanted(selection)
    flops = flops_full = size = size_full = 0.0
    seconds: float | None = 0.0
    seconds_full: float | None = 0.0
    for name, source in sources.items():
        model = budget.models[name]
        top = model.shape.layers[-1]
        flops_full += texts * model.flops[top]
        flops += whole * model.flops[top]
        everything = sum(s.bytes_per_text(model.shape.layers) for s in source.stores.values())
        size_full += texts * everything
        size += whole * everything
        time = model.ms(top)
        seconds_full = _add(seconds_full, texts, time)
        seconds = _add(seconds, whole, time)
        if name in needed:
            chosen = [layer for layers in needed[name].values() for layer in layers]
            highest = max(chosen, key=model.shape.layers.index)
            flops += rest * model.flops[highest]
            seconds = _add(seconds, rest, model.ms(highest))
            for pooling, layers in needed[name].items():
                size += rest * source.stores[pooling].bytes_per_text(layers)
    return PilotRecord(
        rows=sizes,
        texts_whole=whole,
        texts=texts,
        flops=flops if math.isfinite(flops_full) else None,
        flops_full=flops_full if math.isfinite(flops_full) else None,
        bytes=round(size),
        bytes_full=round(size_full),
        seconds=seconds,
        seconds_full=seconds_full,
        full_job=full_job,
    )


def _add(total: float | None, texts: int, milliseconds: float | None) -> float | None:
    if total is None or milliseconds is None:
        return None
    return total + texts * milliseconds / 1000
