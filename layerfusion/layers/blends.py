"""Held-out predictions of the blend of a logistic probe and a discriminant, cached by layer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from layerfusion.assets.memo import read_arrays, write_arrays
from layerfusion.config.job import LayersConfig
from layerfusion.embeddings.lexical import LexicalSource
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.discriminant import (
    SCALES,
    SHRINKAGES,
    Discriminant,
    blend,
    cross_validate_discriminant,
)
from layerfusion.layers.held_out import cache_files, held_out_probes
from layerfusion.layers.probe import HeldOut
from layerfusion.layers.threads import each_on_a_core

VERSION = 1
"""Part of the cache key. Raise it with every change that gives other discriminants."""


def held_out_blends(
    candidates: Candidates, config: LayersConfig, device: torch.device
) -> tuple[HeldOut, ...]:
    """Predict the held-out rows of every candidate by what a stack has for it.

    That is the blend of a logistic probe and a discriminant for a layer, and the regression on
    counts for a lexical source.
    """
    probes, _ = held_out_probes(candidates, config, device)
    found = _discriminants(candidates, device)
    return tuple(blend(probe, *found[n]) if n in found else probe for n, probe in enumerate(probes))


def _discriminants(
    candidates: Candidates, device: torch.device
) -> dict[int, tuple[Tensor, Discriminant]]:
    """Predict the held-out rows of every layer by its discriminant, by the layer's position."""
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

    found: dict[int, tuple[Tensor, Discriminant]] = {}
    for path, places in cache_files(candidates, lambda _: key).items():
        if isinstance(candidates.sources[candidates.layers[places[0]].backbone], LexicalSource):
            continue
        cached = _read(path)
        names = {n: candidates.layers[n].layer for n in places}
        missing = [n for n, name in names.items() if name not in cached]
        if missing:
            fresh = each_on_a_core(judge, missing, device)
            cached |= {names[n]: one for n, one in zip(missing, fresh, strict=True)}
            _write(path, cached)
        found |= {n: cached[name] for n, name in names.items()}
    return found


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
