"""Cross-validated probes, cached under a hash of everything that they depend on."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from layerfusion.assets.memo import hash_of, read_arrays, write_arrays
from layerfusion.config.job import STRENGTHS, LayersConfig
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.gpus import gpu_turn
from layerfusion.embeddings.lexical import LexicalSource
from layerfusion.embeddings.source import Source
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.labels import is_multilabel
from layerfusion.layers.lexical_regression import STRENGTHS as LEXICAL_STRENGTHS
from layerfusion.layers.lexical_regression import count, predict_folds
from layerfusion.layers.probe import (
    NEVER,
    TOLERANCE,
    HeldOut,
    cross_fitted,
    cross_validate_in_batches,
)
from layerfusion.layers.repeats import take_texts
from layerfusion.layers.score import Needs, Score
from layerfusion.progress import counted
from layerfusion.texts.groups import has_groups
from layerfusion.texts.sampling import first_rows

log = logging.getLogger(__name__)

VERSION = 9
"""Part of the cache key. Raise it with every change that gives other probes."""
SCORES_FOLDER = "scores"
"""Folder of a cache that keeps scores."""
SAVE_SECONDS = 30.0
"""Results are saved every this many seconds. A kill loses at most that, plus the current batch of
layers; with 52 classes a layer alone may take a minute."""

LOG_LOSS = Score("log_loss", lambda held_out: held_out.losses, Needs.PROBES, low_is_good=True)
ACCURACY = Score("accuracy", lambda held_out: held_out.right, Needs.PROBES)


@dataclass(frozen=True)
class _TimedProbe:
    held_out: HeldOut
    seconds: float
    """The probe's share of the time of its fit, on a core or GPU."""


def held_out_probes(
    candidates: Candidates, config: LayersConfig, device: torch.device
) -> tuple[tuple[HeldOut, ...], float]:
    """Predict the held-out rows of every candidate by its probes.

    The cache has one file for each model and pooling. Probes that it lacks are fitted in one
    optimisation, whatever model they belong to.

    Returns:
        The predictions for each candidate, and the seconds of a core or GPU that fitting takes, or
        took when the probes were first fitted.
    """
    lexical: dict[Path, list[int]] = {}
    models: dict[Path, list[int]] = {}
    for path, places in cache_files(candidates, lambda source: _key(source, config)).items():
        source = candidates.sources[candidates.layers[places[0]].backbone]
        (lexical if isinstance(source, LexicalSource) else models)[path] = places
    fit_layers = partial(_fit_layers, candidates, config=config, device=device)
    probes = _fitted_once(candidates, models, fit_layers, device)
    probes |= _fitted_once(candidates, lexical, partial(_fit_lexical, candidates), None)
    ordered = [probes[n] for n in range(len(candidates.layers))]
    return tuple(probe.held_out for probe in ordered), sum(probe.seconds for probe in ordered)


def _fitted_once(
    candidates: Candidates,
    paths: Mapping[Path, Sequence[int]],
    fit: Callable[[Sequence[int]], Iterator[dict[int, _TimedProbe]]],
    device: torch.device | None,
) -> dict[int, _TimedProbe]:
    """Read probes from the cache, and fit and keep those that it lacks.

    Args:
        candidates: the layers.
        paths: cache file to the positions of its layers.
        fit: fits the layers at some positions, batch by batch.
        device: where it does so; a GPU is waited for, see `gpu_turn`.

    Returns:
        The probe of each position.
    """
    layers = candidates.layers
    files, probes = _cached(candidates, paths)
    if len(probes) == sum(map(len, paths.values())):
        return probes
    with gpu_turn(device) as after_others:
        if after_others:
            files, probes = _cached(candidates, paths)
        missing = sorted(n for places in paths.values() for n in places if n not in probes)
        unsaved: set[int] = set()
        saved = time.perf_counter()
        for fresh in _counting(fit(missing), len(missing)):
            probes |= fresh
            unsaved |= set(fresh)
            if not set(missing) <= set(probes) and time.perf_counter() - saved < SAVE_SECONDS:
                continue
            for path, places in paths.items():
                if unsaved & set(places):
                    fitted = {layers[n].layer: probes[n] for n in places if n in probes}
                    _write(path, files[path] | fitted)
            unsaved, saved = set(), time.perf_counter()
    return probes


def _cached(
    candidates: Candidates, paths: Mapping[Path, Sequence[int]]
) -> tuple[dict[Path, dict[str, _TimedProbe]], dict[int, _TimedProbe]]:
    """Read cache files: all probes of each, by layer, and those of the candidates, by position."""
    layers = candidates.layers
    files = {path: _read(path, candidates) for path in paths}
    probes = {
        n: files[path][layers[n].layer]
        for path, places in paths.items()
        for n in places
        if layers[n].layer in files[path]
    }
    return files, probes


def _counting(
    batches: Iterable[dict[int, _TimedProbe]], layers: int
) -> Iterator[dict[int, _TimedProbe]]:
    """Give the probes of each batch of layers, and tell how many layers are done."""
    with counted("probes of layers", layers) as step:
        for batch in batches:
            yield batch
            for _ in batch:
                step()


def _fit_layers(
    candidates: Candidates, layers: Sequence[int], config: LayersConfig, device: torch.device
) -> Iterator[dict[int, _TimedProbe]]:
    """Fit the layers of all models in one optimisation."""
    for batch in cross_validate_in_batches(
        [candidates.features[n] for n in layers],
        candidates.labels,
        candidates.fold_of,
        num_classes=candidates.num_classes,
        text_of=candidates.text_of,
        strengths=config.strengths,
        device=device,
        # Strengths of the user's own are all that is tried.
        grow=list(config.strengths) == list(STRENGTHS),
    ):
        seconds = batch.seconds / len(batch.probes)
        yield {layers[place]: _TimedProbe(probe, seconds) for place, probe in batch.probes.items()}


def _fit_lexical(candidates: Candidates, places: Sequence[int]) -> Iterator[dict[int, _TimedProbe]]:
    """Fit all lexical sources side by side: classifiers on counts, learned anew for each fold."""
    owners = [candidates.sources[candidates.layers[n].backbone] for n in places]
    sources = [owner for owner in owners if isinstance(owner, LexicalSource)]
    begun = time.perf_counter()
    for n, probe in zip(places, _predict_by_counts(candidates, sources), strict=True):
        yield {n: _TimedProbe(probe, time.perf_counter() - begun)}
        begun = time.perf_counter()


def _predict_by_counts(
    candidates: Candidates, sources: Sequence[LexicalSource]
) -> Iterator[HeldOut]:
    """Predict held-out rows by classifiers on counts, each with the strength of the lowest loss."""
    texts = candidates.texts
    predicted = predict_folds(
        [
            (count(one.config.features, texts, one.config.max_features), one.config.learner)
            for one in sources
        ],
        candidates.labels.numpy(),
        candidates.fold_of.numpy(),
        num_classes=candidates.num_classes,
    )
    is_held_out = candidates.fold_of != NEVER
    target, folds = candidates.labels[is_held_out], candidates.fold_of[is_held_out]
    text_of = take_texts(candidates.text_of, is_held_out)
    for by_strength in predicted:
        said = {
            strength: torch.from_numpy(found)[is_held_out]
            for strength, found in by_strength.items()
        }
        yield cross_fitted(said, target, folds, text_of)


def _key(source: Source, config: LayersConfig) -> dict[str, Any]:
    """What the probes of a source depend on, besides the rows and vectors."""
    kind, strengths = "held-out probes", list(config.strengths)
    if isinstance(source, LexicalSource):
        learner = source.config.learner
        kind, strengths = f"held-out {learner}", list(LEXICAL_STRENGTHS[learner])
    return {"kind": kind, "version": VERSION, "strengths": strengths, "tolerance": TOLERANCE}


def cache_files(
    candidates: Candidates, key_of: Callable[[Source], Mapping[str, Any]]
) -> dict[Path, list[int]]:
    """Map the cache file of each model and pooling to the positions of its layers.

    Args:
        candidates: the layers, and the rows and folds that they are judged on.
        key_of: gives what the content depends on besides: its kind, version and settings.
    """
    rows = hashlib.sha256(b"".join(text_hash(text) for text in candidates.texts))
    if has_groups(candidates.units):
        rows.update(first_rows(candidates.units).tobytes())
    rows.update(candidates.labels.numpy().tobytes() + candidates.fold_of.numpy().tobytes())
    files: dict[Path, list[int]] = {}
    for n, layer in enumerate(candidates.layers):
        source = candidates.sources[layer.backbone]
        key = {
            **key_of(source),
            "spec": source.stores[layer.pooling].spec.canonical(),
            "rows": rows.hexdigest(),
            "classes": candidates.num_classes,
            **({"multilabel": True} if is_multilabel(candidates.labels) else {}),
        }
        name = hash_of(key, spaced=True)
        files.setdefault(source.cache / SCORES_FOLDER / f"{name}.safetensors", []).append(n)
    return files


def _read(path: Path, candidates: Candidates) -> dict[str, _TimedProbe]:
    """Read the probes of each layer; none where the file does not exist or is damaged."""
    kept = read_arrays(path, "probes", facts_key="layers")
    if kept is None:
        return {}
    arrays, facts = kept
    is_held_out = candidates.fold_of != NEVER
    target = candidates.labels[is_held_out]
    text_of = take_texts(candidates.text_of, is_held_out)

    def held_out(layer: str, strength: float) -> HeldOut:
        return HeldOut(torch.from_numpy(arrays[layer]), target, strength, text_of=text_of)

    return {
        layer: _TimedProbe(held_out(layer, strength), seconds)
        for layer, (strength, seconds) in facts.items()
    }


def _write(path: Path, probes: dict[str, _TimedProbe]) -> None:
    facts = {
        layer: (probe.held_out.strength, round(probe.seconds, 4)) for layer, probe in probes.items()
    }
    arrays = {layer: probe.held_out.log_probs.numpy() for layer, probe in probes.items()}
    write_arrays(path, arrays, facts)
