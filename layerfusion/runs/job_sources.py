"""Opens the sources of a job, and extracts its texts into their stores.

It imports nothing that trains, so that planning and extracting begin soon.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from layerfusion.config.job import AUTO, TRUNCATE, WINDOWS, TrainConfig
from layerfusion.embeddings.given import GivenSource, open_given
from layerfusion.embeddings.lexical import open_lexical
from layerfusion.embeddings.source import EmbeddingSource, Source, open_source
from layerfusion.errors import UserError
from layerfusion.runs.long_texts import settled
from layerfusion.runs.protocol import protocol_of
from layerfusion.runs.resources import share_cores
from layerfusion.texts import TextDataset
from layerfusion.texts.table import SPLITS


def extract_all(config: TrainConfig, dataset: TextDataset) -> dict[str, Source]:
    """Extract every text of a data set into the stores of every source."""
    # All files are looked up first, so a missing one is reported before hours of extraction.
    sources = open_sources(config, dataset)
    extract(config, dataset, sources)
    return sources


def extract(config: TrainConfig, dataset: TextDataset, sources: Mapping[str, Source]) -> None:
    """Extract every text of a data set into the stores of some sources."""
    splits = [dataset.splits[split].texts for split in SPLITS]
    for source in sources.values():
        source.extract(splits, config.extract)


def open_sources(config: TrainConfig, dataset: TextDataset) -> dict[str, Source]:
    """Open the files and stores of every backbone, and the lexical sources, without extracting.

    Where a model leaves open how long texts are read, its texts of train decide.
    """
    cache, models = Path(config.paths.cache), open_backbones(settled(config, dataset))
    train = dataset.splits["train"].texts
    texts = [text for split in SPLITS for text in dataset.splits[split].texts]
    lexical: dict[str, Source] = {
        name: open_lexical(name, one, train, texts, cache) for name, one in config.lexical.items()
    }
    return {**models, **lexical}


def open_models(config: TrainConfig) -> dict[str, EmbeddingSource]:
    """Open the files and stores of the language models among the backbones, as `open_backbones`."""
    sources = open_backbones(config)
    return {name: one for name, one in sources.items() if isinstance(one, EmbeddingSource)}


def open_backbones(config: TrainConfig) -> dict[str, EmbeddingSource | GivenSource]:
    """Open the files and stores of every backbone, under the poolings of the protocol.

    No pooling applies to one whose vectors are computed elsewhere.

    Raises:
        UserError: if a model's files cannot be had, or `long_texts=auto` has not been decided.
    """
    share_cores()
    for name, backbone in config.backbone.items():
        if backbone.long_texts == AUTO:
            raise UserError(
                f"backbone.{name}.long_texts=auto: texts of train decide, and there are none here;"
                f" {TRUNCATE} or {WINDOWS} is needed"
            )
    cache, dtype = Path(config.paths.cache), config.extract.store_dtype
    poolings = protocol_of(config).poolings(config)
    return {
        name: open_given(name, backbone, cache, text=config.dataset.text, store_dtype=dtype)
        if backbone.is_given
        else open_source(name, backbone, poolings, cache, dtype)
        for name, backbone in config.backbone.items()
    }
