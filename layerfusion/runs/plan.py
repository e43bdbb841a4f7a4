"""Estimates what a job would cost before it runs: texts, tokens, FLOPs, bytes and minutes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from layerfusion.assets import Asset, available
from layerfusion.config.check import require_honest
from layerfusion.config.job import (
    AUTO,
    FLOAT32,
    TRUNCATE,
    WINDOWS,
    BackboneConfig,
    PoolingConfig,
    TrainConfig,
)
from layerfusion.embeddings.backbone import choose_device
from layerfusion.embeddings.backbone_loading import empty_shape, load_tokenizer
from layerfusion.embeddings.cache_key import backbone_spec, model_identity, stored_as, text_hash
from layerfusion.embeddings.given import LAYER, given_spec_of, giver_of
from layerfusion.embeddings.pipeline import Pipeline
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.source import EMBEDDINGS, asset_sources, poolings_that_see
from layerfusion.embeddings.store import SPEC_FILE, EmbeddingStore
from layerfusion.embeddings.tokens import tally_unknown, tokenize
from layerfusion.progress import duration
from layerfusion.records.format import size
from layerfusion.runs.job_texts import dataset_of
from layerfusion.runs.long_texts import MANY, Lengths, reading_line, reading_of
from layerfusion.texts import TextDataset
from layerfusion.texts.table import SPLITS

CHARACTERS_PER_TOKEN = 4.0
"""Rule of thumb for a model whose tokenizer has not been downloaded yet."""
EFFICIENCY = 0.6
"""Speed of a whole forward pass, as a share of that of a plain matrix product."""


@dataclass(frozen=True)
class BackbonePlan:
    """Estimated cost of one backbone."""

    name: str
    download_bytes: int | None
    """0 if the model is already on this machine; None if its size is unknown."""
    texts: int
    """Number of distinct texts of the job."""
    missing: int
    """Number of these texts that are not in the store yet."""
    tokens: int
    """Number of tokens in the missing texts."""
    estimated: bool
    """True if tokens and shape are rules of thumb, because the model is not on this machine yet."""
    layers: int
    flops: float
    """FLOPs to extract all layers of the missing texts."""
    store_bytes: int
    seconds: float
    elsewhere: str = ""
    """Where the vectors are computed, if not by a model here; what they cost is then not known, and
    FLOPs, bytes and seconds are 0."""
    reads: BackboneConfig | None = None
    """Settings by which it reads long texts, where the job leaves that open (`long_texts=auto`)."""
    reading: str = ""
    """The same in a sentence, where many texts are too long for it."""
    truncated: BackbonePlan | None = None
    """The same model with long texts cut, where the job leaves it open and it would read them
    whole."""


@dataclass(frozen=True)
class Plan:
    """Estimated cost of a job."""

    dataset: str
    rows: dict[str, int]
    flops_per_second: float
    device: str
    backbones: tuple[BackbonePlan, ...]
    pilot: int | None = None
    """Number of train rows whose layers are all extracted at first; None without a pilot."""


def make_plan(config: TrainConfig) -> Plan:
    """Estimate what a job needs. Texts are read or fetched; no model is fetched or run."""
    require_honest(config, "plan")
    return plan_texts(config, dataset_of(config))


def plan_texts(config: TrainConfig, dataset: TextDataset) -> Plan:
    """Do the same for texts that are in memory, whatever data set the config names."""
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
    """Estimate what one backbone costs.

    Args:
        name: name of the backbone.
        config: config of the backbone.
        job: config of the whole job.
        dataset: texts of the job.
        speed: speed of a forward pass on this machine, in FLOP/s.
    """
    if config.is_given:
        return _plan_given(name, config, job, dataset)
    if config.long_texts != AUTO:
        return _plan_model(name, config, job, dataset, speed)
    cut = replace(config, long_texts=TRUNCATE)
    sources, cache = asset_sources(config), Path(job.paths.cache)
    asset = available(sources, key=f"backbone.{name}", kind="backbone", cache=cache)
    if asset is not None:
        reading = reading_of(name, config, job, dataset, asset)
        chosen, lengths, against = reading.config, reading.lengths, reading.against
    else:  # guessed, and decided once its tokenizer is there
        limit = config.max_length or _guessed_shape(config).max_length
        whole = replace(config, long_texts=WINDOWS)
        texts = dataset.splits["train"].texts
        lengths = Lengths.of([_guessed_length(text, whole) for text in texts], limit)
        against = lengths.against()
        chosen = cut if against else whole
    line = reading_line(name, chosen, lengths, against) if lengths.longer >= MANY else ""
    plan = replace(_plan_model(name, chosen, job, dataset, speed), reading=line)
    if chosen.long_texts == TRUNCATE:
        return replace(plan, reads=chosen)
    truncated = replace(_plan_model(name, cut, job, dataset, speed), reads=cut)
    return replace(plan, reads=config if asset is None else chosen, truncated=truncated)


def _plan_model(
    name: str, config: BackboneConfig, job: TrainConfig, dataset: TextDataset, speed: float
) -> BackbonePlan:
    """Estimate what a language model costs that reads long texts in a known way."""
    folder = Path(job.paths.cache)
    texts = {text_hash(text): text for s in SPLITS for text in dataset.splits[s].texts}
    sources = asset_sources(config)
    asset = available(sources, key=f"backbone.{name}", kind="backbone", cache=folder)
    poolings: Mapping[str, PoolingConfig] = job.pooling
    if asset is None:
        shape = _guessed_shape(config)
        todo = list(texts.values())
        vectors = len(todo) * len(poolings)
        passes = [n for text in todo for n in _guessed_passes(text, config)]
        known = [source.bytes for source in sources if source.bytes]
        download = known[0] if known else None
    else:
        poolings = poolings_that_see(name, asset.path, poolings)
        shape, todo, vectors = _known(name, config, job, asset, poolings, texts)
        tokenizer = load_tokenizer(name, asset.path, config)
        tokens = tokenize(tokenizer, todo, config, shape.max_length, name=name)
        tally_unknown(name, tokens).warn()
        passes = [len(window.ids) for text in tokens for window in text.windows]
        download = 0
    flops = shape.flops(shape.layers[-1], passes)
    stored = stored_as(job.extract.store_dtype, config.dtype)
    values = vectors * len(shape.layers) * shape.width
    return BackbonePlan(
        name=name,
        download_bytes=download,
        texts=len(texts),
        missing=len(todo),
        tokens=sum(passes),
        estimated=asset is None,
        layers=len(shape.layers),
        flops=flops,
        store_bytes=(4 if stored == FLOAT32 else 2) * values,
        seconds=flops / speed,
    )


def _plan_given(
    name: str, config: BackboneConfig, job: TrainConfig, dataset: TextDataset
) -> BackbonePlan:
    """Count the texts whose vectors would be asked for elsewhere; creates no store."""
    cache = Path(job.paths.cache)
    texts = {text_hash(text): text for s in SPLITS for text in dataset.splits[s].texts}
    giver = giver_of(name, config, cache, job.dataset.text)
    todo = list(texts.values())
    here = not isinstance(giver, Pipeline) or giver.present() is not None
    spec = given_spec_of(giver, job.extract.store_dtype) if here else None
    if spec is not None and (cache / EMBEDDINGS / spec.hash() / SPEC_FILE).exists():
        store = EmbeddingStore(cache / EMBEDDINGS, spec)
        missing = store.missing(list(texts), [LAYER])
        todo = [text for text, lacks in zip(texts.values(), missing, strict=True) if lacks]
    tokens = sum(_guessed_length(text, config) for text in todo)
    return BackbonePlan(
        name=name,
        download_bytes=0 if here else None,
        texts=len(texts),
        missing=len(todo),
        tokens=tokens,
        estimated=True,
        layers=1,
        flops=0.0,
        store_bytes=0,
        seconds=0.0,
        elsewhere=giver.origin,
    )


def _known(
    name: str,
    config: BackboneConfig,
    job: TrainConfig,
    asset: Asset,
    poolings: Mapping[str, PoolingConfig],
    texts: dict[bytes, str],
) -> tuple[ModelShape, list[str], int]:
    """Look up what the stores of a local model lack; creates no store.

    Returns:
        The model's shape, the texts that any pooling lacks, which pass through the model, and the
        number of texts that each pooling lacks, summed over the poolings: only these are written.
    """
    root = Path(job.paths.cache) / EMBEDDINGS
    shape, lacking, vectors = None, set(), 0
    for pooling in poolings.values():
        spec = backbone_spec(
            config,
            pooling,
            model=model_identity(asset, config),
            folder=asset.path,
            store_dtype=job.extract.store_dtype,
        )
        store = None
        if (root / spec.hash() / SPEC_FILE).exists():
            store = EmbeddingStore(root, spec)
            shape = store.shape or shape
        hashes = list(texts)
        found = set(hashes)
        if store is not None and shape is not None:
            missing = store.missing(hashes, shape.layers)
            found = {key for key, lacks in zip(hashes, missing, strict=True) if lacks}
        lacking |= found
        vectors += len(found)
    todo = [text for key, text in texts.items() if key in lacking]
    return shape or empty_shape(name, asset.path, config), todo, vectors


def _guessed_shape(config: BackboneConfig) -> ModelShape:
    """Assume a dense transformer of the stated depth and width: 12 · width² weights per block."""
    blocks, width = config.num_layers or 12, config.width or 768
    weights = (12 * width * width,) * blocks
    layers = (*(str(number) for number in range(blocks + 1)), "norm")
    limit = config.max_length or 512
    return ModelShape(layers, width, limit, sum(weights), 0, weights, weights)


def _guessed_length(text: str, config: BackboneConfig) -> int:
    limit = None if config.is_given else config.max_length
    length = 2 + round(len(config.template.replace("{text}", text)) / CHARACTERS_PER_TOKEN)
    return length if config.long_texts == WINDOWS else min(length, limit or length)


def _guessed_passes(text: str, config: BackboneConfig) -> list[int]:
    """Guess the lengths of the passes of a text: its windows, or the one of what is not cut."""
    length, limit = _guessed_length(text, config), config.max_length
    if config.long_texts != WINDOWS or not limit or length <= limit:
        return [length]
    overlap = min(config.window_overlap, limit - 1)
    return [min(limit, length - n) for n in range(0, length - overlap, limit - overlap)]


@cache
def matrix_speed(device: torch.device, width: int = 1024) -> float:
    """Measure the FLOP/s of a plain float32 matrix product, as the best of several.

    It is measured once in each process, so that several plans of the same work agree.
    """
    left, right = (torch.randn(width, width, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        begun = time.perf_counter()
        (left @ right).sum().item()
        best = min(best, time.perf_counter() - begun)
    return 2 * width**3 / best


def plan_lines(plan: Plan) -> list[str]:
    """Describe a plan, one line for each backbone."""
    rows = ", ".join(f"{count} {split}" for split, count in plan.rows.items())
    lines = [
        f"{plan.dataset}: {rows} rows",
        f"{plan.device}: about {plan.flops_per_second / 1e9:.0f} GFLOP/s of useful work",
    ]
    for backbone in plan.backbones:
        lines.append(_backbone_line(backbone))
        lines += [backbone.reading] if backbone.reading else []
    lines.append(
        f"together: {size(sum(b.store_bytes for b in plan.backbones))} on disk, about"
        f" {duration(sum(b.seconds for b in plan.backbones))} of extraction"
        + ", without what is computed elsewhere"
        * any(b.elsewhere for b in plan.backbones)
    )
    if plan.pilot is not None and any(backbone.missing for backbone in plan.backbones):
        lines.append(
            f"layers.pilot={plan.pilot}: this is an upper limit; the pilot extracts all layers of"
            f" {min(plan.pilot, plan.rows['train'])} rows of train, or of more if these do not"
            " settle the choice, and of all other texts only the layers up to those chosen"
        )
    return lines


def _backbone_line(plan: BackbonePlan) -> str:
    about = "about " if plan.estimated else ""
    fetch = {0: "", None: "to be downloaded; "}.get(
        plan.download_bytes, f"{size(plan.download_bytes or 0)} to download; "
    )
    if not plan.missing:
        return f"{plan.name}: all {plan.texts} texts are in the store already"
    if plan.elsewhere:
        return (
            f"{plan.name}: {fetch}{plan.missing} of {plan.texts} texts from {plan.elsewhere}, about"
            f" {plan.tokens:,} tokens; FLOPs and time not known: computed elsewhere"
        )
    return (
        f"{plan.name}: {fetch}{plan.missing} of {plan.texts} texts to extract,"
        f" {about}{plan.tokens:,} tokens, {about}{plan.flops / 1e12:.1f} TFLOP,"
        f" {about}{plan.layers} layers in {size(plan.store_bytes)}, about {duration(plan.seconds)}"
    )


def together(plans: Sequence[Plan]) -> float:
    """Return the seconds of extraction that several plans need in total."""
    return sum(backbone.seconds for plan in plans for backbone in plan.backbones)
