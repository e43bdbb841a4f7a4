"""Decides on texts of train whether a model reads texts that are too long for it whole or not.

`long_texts=auto` stands for one of the two other ways, which the vectors and their stores are named
by. Windows pay where many texts are cut. Each is one more pass, now and at every prediction, so
that there is a bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from layerfusion.assets import Asset, resolve
from layerfusion.assets.memo import computed_once, hash_of, read_kept, write_facts
from layerfusion.config.job import AUTO, TRUNCATE, WINDOWS, BackboneConfig, TrainConfig
from layerfusion.embeddings.backbone_loading import empty_shape, load_tokenizer
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.source import EmbeddingSource, Source, asset_sources
from layerfusion.embeddings.tokens import TokenizedText, tokenize
from layerfusion.layers.budget import too_high
from layerfusion.records.job import RunRecord
from layerfusion.texts import TextDataset

MANY = 0.1
"""Share of texts that are too long from which `auto` reads them whole, and from which a line tells
that they are cut."""
MOST_TIMES = 6.0
"""Most tokens that `auto` reads, in multiples of those that the beginnings of the texts have."""
SAMPLE = 2000
"""Most texts of train that the decision looks at."""
OVERLAP = 8
"""A window repeats at most one part in so many of the one before where `auto` has chosen windows;
an overlap that is longer would cost more than the texts themselves."""

VERSION = 1
"""Part of the cache key. Raise it with every change that gives other decisions."""
FOLDER = "readings"
"""Folder of a cache that holds what the texts have decided."""

_decided: dict[str, Reading] = {}
"""By the hash of all that decides, as the jobs of a sweep ask again."""


@dataclass(frozen=True)
class Lengths:
    """How long texts are for a model."""

    limit: int
    """Tokens that the model takes at once."""
    longer: float
    """Share of the texts that have more."""
    times: float
    """Tokens of whole texts, in multiples of those up to the limit."""

    @classmethod
    def of(cls, tokens: Sequence[int] | np.ndarray, limit: int) -> Lengths:
        """Compare the tokens of each text with what a model takes. Shape: (texts,)."""
        whole = np.asarray(tokens, np.int64)
        if not len(whole):
            return cls(limit, 0.0, 1.0)
        beginnings = np.minimum(whole, limit)
        return cls(limit, float((whole > limit).mean()), float(whole.sum() / beginnings.sum()))

    def against(self) -> str:
        """Say what speaks against windows; nothing where they pay."""
        if self.longer < MANY:
            return f"fewer than {MANY:.0%} of the texts are longer"
        if self.times > MOST_TIMES:
            return f"long_texts=auto takes at most {MOST_TIMES:g} times"
        return ""


@dataclass(frozen=True)
class Reading:
    """How a model reads long texts."""

    config: BackboneConfig
    """Settings of the model, in which `long_texts` is no longer `auto`, but what was chosen."""
    lengths: Lengths
    """Lengths of the texts that decided the choice."""
    against: str
    """What spoke against windows; empty where they were chosen."""


def settled(config: TrainConfig, dataset: TextDataset) -> TrainConfig:
    """Return a config in which no model leaves open how long texts are read.

    Texts of train alone decide. The files of a model are fetched where they are missing.
    """
    return replace(
        config,
        backbone={
            name: reading_of(name, one, config, dataset).config if one.long_texts == AUTO else one
            for name, one in config.backbone.items()
        },
    )


def as_recorded(config: TrainConfig, record: RunRecord) -> TrainConfig:
    """Return the config of a finished job in which its models read texts as they did then."""
    if not record.long_texts:
        return config
    return replace(
        config,
        backbone={
            name: replace(one, **record.long_texts.get(name, {})) if one.long_texts == AUTO else one
            for name, one in config.backbone.items()
        },
    )


def decided_readings(
    config: TrainConfig, sources: Mapping[str, Source]
) -> dict[str, dict[str, Any]]:
    """Return, for the record, the settings of the models that left open how they read."""
    return {
        name: {key: getattr(source.config, key) for key in ("long_texts", "window_overlap")}
        for name, source in sources.items()
        if isinstance(source, EmbeddingSource) and config.backbone[name].long_texts == AUTO
    }


def reading_of(
    name: str,
    backbone: BackboneConfig,
    config: TrainConfig,
    dataset: TextDataset,
    asset: Asset | None = None,
) -> Reading:
    """Decide how a model whose `long_texts` is `auto` reads the texts of a data set.

    Args:
        name: name of the backbone.
        backbone: its settings.
        config: the job, for its budget and its cache.
        dataset: texts, of which a sample of train decides, whatever their order.
        asset: files of the model; looked up, or fetched, if None.
    """
    cache = Path(config.paths.cache)
    planned = asset is not None
    if asset is None:
        asset = resolve(
            asset_sources(backbone), key=f"backbone.{name}", kind="backbone", cache=cache
        )
    settings = asdict(backbone), asdict(config.layers.budget), (MANY, MOST_TIMES, SAMPLE, OVERLAP)
    key = hash_of([VERSION, asset.identity, settings, dataset.fingerprint])[:32]
    if key not in _decided:

        def measure() -> _Measured:
            return _measure(name, asset, backbone, config, dataset)

        # A plan leaves the cache as it is.
        path = cache / FOLDER / f"{key}.json"
        measured = measure() if planned else computed_once(path, measure, _write, _read)
        windows = _in_windows(backbone, measured.lengths.limit)
        chosen = replace(backbone, long_texts=TRUNCATE) if measured.against else windows
        _decided[key] = Reading(chosen, measured.lengths, measured.against)
    return _decided[key]


@dataclass(frozen=True)
class _Measured:
    """What the texts of train have decided."""

    lengths: Lengths
    against: str


def _measure(
    name: str, asset: Asset, backbone: BackboneConfig, config: TrainConfig, dataset: TextDataset
) -> _Measured:
    shape = empty_shape(name, asset.path, backbone)
    windows = _in_windows(backbone, shape.max_length)
    texts = sorted(set(dataset.splits["train"].texts), key=text_hash)[:SAMPLE]
    tokenizer = load_tokenizer(name, asset.path, backbone)
    read = tokenize(tokenizer, texts, windows, shape.max_length, name=name)
    lengths = Lengths.of([text.seen for text in read], shape.max_length)
    return _Measured(lengths, lengths.against() or _beyond_budget(config, shape, read))


def _write(path: Path, measured: _Measured) -> None:
    write_facts(path, asdict(measured))


def _read(path: Path) -> _Measured | None:
    return read_kept(path, _Measured, "reading of long texts")


def _in_windows(backbone: BackboneConfig, limit: int) -> BackboneConfig:
    overlap = min(backbone.window_overlap, limit // OVERLAP)
    return replace(backbone, long_texts=WINDOWS, window_overlap=overlap)


def _beyond_budget(config: TrainConfig, shape: ModelShape, read: Sequence[TokenizedText]) -> str:
    """Say that windows would shut out layers that the budget of the job allows otherwise."""
    limits = config.layers.budget
    if limits.ms_per_text is not None:
        return f"whether it keeps to layers.budget.ms_per_text={limits.ms_per_text:g} is not known"
    if limits.flops_per_text is None:
        return ""
    top = [layer for layer in shape.layers if not too_high(layer, shape, limits)][-1]
    lengths = [len(window.ids) for text in read for window in text.windows]
    flops = shape.flops(top, lengths) / max(1, len(read))
    if flops <= limits.flops_per_text:
        return ""
    return f"{flops:.3g} FLOPs a text, above layers.budget.flops_per_text={limits.flops_per_text:g}"


def reading_lines(
    config: TrainConfig, dataset: TextDataset, sources: Mapping[str, Source]
) -> list[str]:
    """Say of each model that many texts of train are too long for, how it reads them.

    Args:
        config: the job as the user gave it.
        dataset: its texts.
        sources: what has read them.
    """
    train = list({text_hash(text) for text in dataset.splits["train"].texts})
    lines = []
    for name, source in sources.items():
        if not isinstance(source, EmbeddingSource):
            continue
        store = next(iter(source.stores.values()))
        counts = store.tokens(store.holds(set(train)))
        lengths = Lengths.of(counts.seen + counts.cut, source.shape.max_length)
        against = ""
        if config.backbone[name].long_texts == AUTO:
            against = reading_of(name, config.backbone[name], config, dataset).against
        if lengths.longer >= MANY or (source.config.long_texts == WINDOWS and lengths.longer):
            lines.append(reading_line(name, source.config, lengths, against))
    return lines


def reading_line(name: str, config: BackboneConfig, lengths: Lengths, against: str = "") -> str:
    """Say how a model reads long texts, and with which setting it reads them in the other way."""
    share, key = f"{lengths.longer:.0%} of the texts of train", f"backbone.{name}.long_texts"
    if config.long_texts == WINDOWS:
        return (
            f"{name}: {share} are longer than {lengths.limit} tokens and read whole, in windows,"
            f" {lengths.times:.1f} times the tokens of their beginnings; {key}={TRUNCATE} reads"
            " these alone"
        )
    why = f" ({against})" if against else ""
    return (
        f"{name}: {share} are cut at {lengths.limit} tokens; {key}={WINDOWS} reads them whole,"
        f" {lengths.times:.1f} times the tokens{why}"
    )
