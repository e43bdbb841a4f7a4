"""Cross-validated probes, kept under the content of what they were made from."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from layerfusion.assets.files import write_atomically
from layerfusion.config import LayersConfig
from layerfusion.embeddings.spec import text_hash
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.probe import NEVER, TOLERANCE, HeldOut, cross_validate

log = logging.getLogger(__name__)

VERSION = 1
"""Raised with any change that changes a probe."""
SCORES = "scores"
"""Folder of a cache that scores are kept in."""


def held_out_probes(
    candidates: Candidates, config: LayersConfig, device: torch.device
) -> tuple[tuple[HeldOut, ...], float]:
    """Probes of every candidate on the rows that they are judged on.

    Those of each model and pooling are kept in one file of the cache; what is missing, of all
    models, is fitted in one optimisation.

    Returns:
        One result a candidate, and the seconds that fitting them takes or once took.
    """
    layers = candidates.layers
    found: dict[int, HeldOut] = {}
    seconds = 0.0
    for path, places in _files(candidates, config).items():
        kept = _read(path, [layers[n].layer for n in places], candidates)
        if kept is not None:
            found |= dict(zip(places, kept[0], strict=True))
            seconds += kept[1]
    missing = [n for n in range(len(layers)) if n not in found]
    if missing:
        begun = time.perf_counter()
        fresh = cross_validate(
            [candidates.features[n] for n in missing],
            candidates.labels,
            candidates.fold_of,
            num_classes=candidates.num_classes,
            strengths=config.strengths,
            device=device,
        )
        found |= dict(zip(missing, fresh, strict=True))
        taken = time.perf_counter() - begun
        seconds += taken
        for path, places in _files(candidates, config).items():
            if places[0] in missing:
                share = taken * len(places) / len(missing)
                _write(path, {layers[n].layer: found[n] for n in places}, share)
    return tuple(found[n] for n in range(len(layers))), seconds


def _files(candidates: Candidates, config: LayersConfig) -> dict[Path, list[int]]:
    """File to the positions of its layers."""
    rows = hashlib.sha256(b"".join(text_hash(text) for text in candidates.texts))
    rows.update(candidates.labels.numpy().tobytes() + candidates.fold_of.numpy().tobytes())
    found: dict[Path, list[int]] = {}
    for n, layer in enumerate(candidates.layers):
        source = candidates.sources[layer.backbone]
        key = {
            "kind": "held-out probes",
            "version": VERSION,
            "spec": source.stores[layer.pooling].spec.canonical(),
            "rows": rows.hexdigest(),
            "classes": candidates.num_classes,
            "strengths": list(config.strengths),
            "tolerance": TOLERANCE,
        }
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        found.setdefault(source.cache / SCORES / f"{name}.safetensors", []).append(n)
    return found


def _read(
    path: Path, layers: list[str], candidates: Candidates
) -> tuple[list[HeldOut], float] | None:
    """What a file keeps of some layers, and the seconds they took; none where it lacks one."""
    if not path.exists():
        return None
    target = candidates.labels[candidates.fold_of != NEVER]
    try:
        with safe_open(path, framework="pt") as file:
            strengths = json.loads(file.metadata()["strengths"])
            held = [HeldOut(file.get_tensor(x), target, strengths[x]) for x in layers]
            return held, float(file.metadata()["seconds"])
    except (SafetensorError, KeyError, ValueError) as error:
        log.warning("%s: %s; its probes are fitted again", path, error)
        return None


def _write(path: Path, held: dict[str, HeldOut], seconds: float) -> None:
    strengths = json.dumps({layer: one.strength for layer, one in held.items()})
    tensors = {layer: one.log_probs.contiguous() for layer, one in held.items()}
    write_atomically(
        path, save(tensors, metadata={"strengths": strengths, "seconds": f"{seconds:.3f}"})
    )
