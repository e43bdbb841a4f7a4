"""Held-out predictions of what a stack has for each source, cached by layer.

Every layer has a discriminant, which is quick. The best of them have a logistic regression too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.assets.memo import read_arrays, write_arrays
from layerfusion.config.job import LayersConfig
from layerfusion.embeddings.gpus import gpu_turn
from layerfusion.embeddings.lexical import LexicalSource
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.discriminant import (
    SCALES,
    SHRINKAGES,
    Blend,
    Discriminant,
    blend,
    cross_validate_discriminant,
)
from layerfusion.layers.held_out import cache_files, held_out_probes
from layerfusion.layers.labels import is_multilabel
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import NEVER, HeldOut
from layerfusion.layers.repeats import take_texts
from layerfusion.layers.threads import each_on_a_core
from layerfusion.progress import steps

VERSION = 4
"""Part of the cache key. Raise it with every change that gives other discriminants."""
REGRESSIONS = 16
"""Layers that have a logistic regression beside their discriminant: those with the best of these.
Stacks of 28 and 92 layers lost and gained nothing that is sure by leaving it out for the others:
see `docs/fusion.md`."""
MANY_CLASSES = 32
"""Number of classes from which on half as many layers have a regression: with so many classes,
regressions take most of a job's time."""


def held_out_blends(
    candidates: Candidates, config: LayersConfig, device: torch.device
) -> tuple[Blend, ...]:
    """Predict the held-out rows of every candidate by what a stack has for it.

    That is the blend of a logistic probe and a discriminant for the best layers, a discriminant for
    the others, and the regression on counts for a lexical source. A discriminant separates classes;
    of labels, every layer has a logistic probe.
    """
    out = candidates.fold_of != NEVER
    target = candidates.labels[out]
    text_of = take_texts(candidates.text_of, out)
    if is_multilabel(target):
        every = _probes(candidates, range(len(candidates.layers)), config, device)
        return tuple(
            Blend(one.log_probs, target, one.strength, text_of=text_of) for one in every.values()
        )
    found = _discriminants(candidates, device)
    losses = {n: float(F.nll_loss(log_probs, target)) for n, (log_probs, _) in found.items()}
    most = REGRESSIONS if candidates.num_classes < MANY_CLASSES else REGRESSIONS // 2
    best = sorted(losses, key=losses.__getitem__)[:most]
    lexical = [n for n in range(len(candidates.layers)) if n not in found]
    probes = _probes(candidates, sorted([*best, *lexical]), config, device)
    results: list[Blend] = []
    for n in range(len(candidates.layers)):
        if n in found and n in probes:
            results.append(blend(probes[n], *found[n]))
        elif n in found:
            log_probs, chosen = found[n]
            results.append(Blend(log_probs, target, discriminant=chosen, text_of=text_of))
        else:
            results.append(Blend(probes[n].log_probs, target, probes[n].strength, text_of=text_of))
    return tuple(results)


def _probes(
    candidates: Candidates, places: Sequence[int], config: LayersConfig, device: torch.device
) -> dict[int, HeldOut]:
    """Predict the held-out rows of some of the candidates by logistic regressions."""
    probes, _ = held_out_probes(candidates.take(places), config, device)
    return dict(zip(places, probes, strict=True))


def _discriminants(
    candidates: Candidates, device: torch.device
) -> dict[int, tuple[Tensor, Discriminant]]:
    """Predict the held-out rows of every layer by its discriminant, by the layer's position."""
    layers = candidates.layers
    key = {
        "kind": "held-out discriminants",
        "version": VERSION,
        "shrinkages": list(SHRINKAGES),
        "scales": list(SCALES),
    }

    def judge(n: int) -> tuple[Tensor, Discriminant]:
        return cross_validate_discriminant(
            candidates.features[n],
            candidates.labels,
            candidates.fold_of,
            num_classes=candidates.num_classes,
            device=device,
        )

    paths = {
        path: places
        for path, places in cache_files(candidates, lambda _: key).items()
        if not isinstance(candidates.sources[layers[places[0]].backbone], LexicalSource)
    }
    cached = {path: _read(path) for path in paths}
    if not any(_missing(layers, paths, cached).values()):
        return _by_place(layers, paths, cached)
    with gpu_turn(device) as after_others:
        if after_others:
            cached = {path: _read(path) for path in paths}
        missing = _missing(layers, paths, cached)
        todo = [*chain(*missing.values())]
        with closing(each_on_a_core(judge, todo, device)) as judged:
            told = steps(judged, "discriminants of layers", len(todo))
            for path, places in missing.items():
                fresh = dict(zip(places, islice(told, len(places)), strict=True))
                cached[path] |= {layers[n].layer: one for n, one in fresh.items()}
                if fresh:
                    _write(path, cached[path])
    return _by_place(layers, paths, cached)


_Found = Mapping[Path, Mapping[str, tuple[Tensor, Discriminant]]]
"""Cache file to layer to what is known of its discriminant."""


def _missing(
    layers: Sequence[LayerId], paths: Mapping[Path, Sequence[int]], cached: _Found
) -> dict[Path, list[int]]:
    """Find the positions of the layers that each cache file lacks."""
    return {
        path: [n for n in places if layers[n].layer not in cached[path]]
        for path, places in paths.items()
    }


def _by_place(
    layers: Sequence[LayerId], paths: Mapping[Path, Sequence[int]], cached: _Found
) -> dict[int, tuple[Tensor, Discriminant]]:
    return {n: cached[path][layers[n].layer] for path, places in paths.items() for n in places}


def _read(path: Path) -> dict[str, tuple[Tensor, Discriminant]]:
    kept = read_arrays(path, "discriminants")
    if kept is None:
        return {}
    arrays, facts = kept
    return {
        layer: (torch.from_numpy(arrays[layer]), Discriminant(*settings))
        for layer, settings in facts.items()
    }


def _write(path: Path, found: dict[str, tuple[Tensor, Discriminant]]) -> None:
    facts = {layer: (one.shrinkage, one.scale) for layer, (_, one) in found.items()}
    write_arrays(path, {layer: x.numpy() for layer, (x, _) in found.items()}, facts)
