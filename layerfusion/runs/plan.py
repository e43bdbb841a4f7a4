"""What a job would cost, said before any work: texts, tokens, FLOPs, bytes and minutes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from layerfusion.assets import Asset, available
from layerfusion.config.check import require_honest
from layerfusion.config.job import BackboneConfig, TrainConfig
from layerfusion.embeddings.backbone import choose_device, empty_shape, load_tokenizer
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.source import EMBEDDINGS, asset_sources
from layerfusion.embeddings.spec import backbone_spec, text_hash
from layerfusion.embeddings.store import SPEC_FILE, EmbeddingStore
from layerfusion.embeddings.tokens import tokenize
from layerfusion.records.format import duration, size
from layerfusion.runs.inputs import SPLITS, dataset_of
from layerfusion.texts import TextDataset

CHARACTERS_PER_TOKEN = 4.0
"""Rule of thumb for a model whose tokenizer is not on this machine yet."""
EFFICIENCY = 0.6
"""Share of the speed of a plain matrix product that a whole forward pass reaches."""


@dataclass(frozen=True)
class BackbonePlan:
    """What one backbone would cost."""

    name: str
    download_bytes: int | None
    """0: here already; None: to be fetched, size unknown."""
    texts: int
    """Different texts of the job."""
    missing: int
    """Those that are not in the store yet."""
    tokens: int
    """Of the missing texts."""
    estimated: bool
    """Whether tokens and shape are rules of thumb because the model is not here yet."""
    layers: int
    flops: float
    """To extract all layers of the missing texts."""
    store_bytes: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a job would cost."""

    dataset: str
    rows: dict[str, int]
    flops_per_second: float
    device: str
    backbones: tuple[BackbonePlan, ...]
    pilot: int | None = None
    """Rows of train that are extracted whole at first; the rest only as far as they then ask."""


def make_plan(config: TrainConfig) -> Plan:
    """Count what a job needs. Texts are read, fetched if need be; no model is fetched or run."""
    require_honest(config, "plan")
    dataset = dataset_of(config)
    device = choose_device(config.extract.device)
    speed = EFFICIENCY * matrix_speed(device)
    plans = tuple(
        plan_backbone(name, backbone, config, dataset, speed)
        for name, backbone in config.backbone.items()
    )
    rows = {split: len(dataset.splits[split].texts) for split in SPLITS}
    return Plan(dataset.name, rows, speed, str(device), plans, config.layers.pilot)


def plan_backbone(
    name: str, config: BackboneConfig, job: TrainConfig, dataset: TextDataset, speed: float
) -> BackbonePlan:
    """The part of a plan that one backbone makes up.

    Args:
        name: of the backbone.
        config: of the backbone.
        job: the whole job.
        dataset: its texts.
        speed: FLOP/s that a forward pass reaches here.
    """
    folder = Path(job.paths.cache)
    texts = {text_hash(text): text for s in SPLITS for text in dataset.splits[s].texts}
    sources = asset_sources(config)
    asset = available(sources, key=f"backbone.{name}", kind="backbone", cache=folder)
    if asset is None:
        shape = _guessed_shape(config)
        todo = list(texts.values())
        lengths = [_guessed_length(text, config) for text in todo]
        known = [source.bytes for source in sources if source.bytes]
        download = known[0] if known else None
    else:
        shape, todo = _known(name, config, job, asset, texts)
        tokens = tokenize(load_tokenizer(name, asset.path, config), todo, config, shape.max_length)
        lengths = [text.cost for text in tokens]
        download = 0
    flops = shape.flops(shape.layers[-1], lengths)
    values = len(todo) * len(shape.layers) * shape.width * len(job.pooling)
    return BackbonePlan(
        name=name,
        download_bytes=download,
        texts=len(texts),
        missing=len(todo),
        tokens=sum(lengths),
        estimated=asset is None,
        layers=len(shape.layers),
        flops=flops,
        store_bytes=2 * values,
        seconds=flops / speed,
    )


def _known(
    name: str, config: BackboneConfig, job: TrainConfig, asset: Asset, texts: dict[bytes, str]
) -> tuple[ModelShape, list[str]]:
    """Shape of a model that is here, and the texts that a store lacks; creates no store."""
    root = Path(job.paths.cache) / EMBEDDINGS
    shape, lacking = None, set()
    for pooling in job.pooling.values():
        spec = backbone_spec(
            config,
            pooling,
            model=asset.identity,
            folder=asset.path,
            store_dtype=job.extract.store_dtype,
        )
        store = None
        if (root / spec.hash() / SPEC_FILE).exists():
            store = EmbeddingStore(root, spec)
            shape = store.shape or shape
        hashes = list(texts)
        if store is None or shape is None:
            lacking |= set(hashes)
        else:
            missing = store.missing(hashes, shape.layers)
            lacking |= {key for key, lacks in zip(hashes, missing, strict=True) if lacks}
    todo = [text for key, text in texts.items() if key in lacking]
    return shape or empty_shape(name, asset.path, config), todo


def _guessed_shape(config: BackboneConfig) -> ModelShape:
    """A dense transformer of the stated depth and width: 12 · width² weights a block."""
    blocks, width = config.num_layers or 12, config.width or 768
    weights = (12 * width * width,) * blocks
    layers = (*(str(number) for number in range(blocks + 1)), "norm")
    limit = config.max_length or 512
    return ModelShape(layers, width, limit, sum(weights), 0, weights, weights)


def _guessed_length(text: str, config: BackboneConfig) -> int:
    length = 2 + round(len(config.template.replace("{text}", text)) / CHARACTERS_PER_TOKEN)
    return length if config.long_texts == "windows" else min(length, config.max_length or length)


@cache
def matrix_speed(device: torch.device, width: int = 1024) -> float:
    """FLOP/s of a plain float32 matrix product, the best of a few.

    Measured once a process: plans of the same work, one below the other, say the same of it.
    """
    left, right = (torch.randn(width, width, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        begun = time.perf_counter()
        (left @ right).sum().item()
        best = min(best, time.perf_counter() - begun)
    return 2 * width**3 / best


def plan_lines(plan: Plan) -> list[str]:
    """The plan in words."""
    rows = ", ".join(f"{count} {split}" for split, count in plan.rows.items())
    lines = [
        f"{plan.dataset}: {rows} rows",
        f"{plan.device}: about {plan.flops_per_second / 1e9:.0f} GFLOP/s of useful work",
    ]
    lines += [_backbone_line(backbone) for backbone in plan.backbones]
    lines.append(
        f"together: {size(sum(b.store_bytes for b in plan.backbones))} on disk, about"
        f" {duration(sum(b.seconds for b in plan.backbones))} of extraction"
    )
    if plan.pilot is not None and any(backbone.missing for backbone in plan.backbones):
        lines.append(
            f"layers.pilot={plan.pilot}: that is the most it can take; all layers of"
            f" {min(plan.pilot, plan.rows['train'])} rows of train first, then the others only up"
            " to the layers chosen, and more whole rows where these do not settle the choice"
        )
    return lines


def _backbone_line(plan: BackbonePlan) -> str:
    about = "about " if plan.estimated else ""
    fetch = {0: "", None: "to be downloaded; "}.get(
        plan.download_bytes, f"{size(plan.download_bytes or 0)} to download; "
    )
    if not plan.missing:
        return f"{plan.name}: all {plan.texts} texts are in the store already"
    return (
        f"{plan.name}: {fetch}{plan.missing} of {plan.texts} texts to extract,"
        f" {about}{plan.tokens:,} tokens, {about}{plan.flops / 1e12:.1f} TFLOP,"
        f" {about}{plan.layers} layers in {size(plan.store_bytes)}, about {duration(plan.seconds)}"
    )


def together(plans: Sequence[Plan]) -> float:
    """Seconds of extraction that several plans ask for."""
    return sum(backbone.seconds for plan in plans for backbone in plan.backbones)
