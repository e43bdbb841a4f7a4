"""What help says of groups, options and keys, held against what Hydra composes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from omegaconf import OmegaConf

from layerfusion.composing.hydra import compose
from layerfusion.config.describe import GROUPS, glossary, keys, options, written
from layerfusion.config.operators import config_folder


def test_every_group_of_conf_is_described_and_every_option_has_a_line() -> None:
    folders = {path.parent.name for path in config_folder().glob("*/*.yaml")}
    assert set(GROUPS) == folders
    for group in GROUPS:
        assert len(options(group)) == len(list((config_folder() / group).glob("*.yaml")))
        for option in options(group):
            assert len(option.meaning) >= 10, f"{option.file} begins with no comment"
            assert option.comment


def test_every_key_has_a_meaning() -> None:
    assert [key.name for key in keys().values() if len(key.meaning) < 10] == []


def test_every_default_is_the_one_that_is_composed() -> None:
    jobs, study = compose("profile", ["lexical=[words]"]), compose("search", [])
    comparison = compose("reproduce", [])
    options_of = {"backbone": "minilm", "pooling": "mean", "lexical": "words"}
    compared = 0
    for key in keys().values():
        group = key.name.partition(".")[0]
        name = key.name.replace("NAME", options_of.get(group, ""))
        if group == "dataset" or name.rpartition(".")[2] in ("description", "num_layers"):
            continue
        # Each model has its own width; Hydra fills up the samples of a comparison.
        if name in ("backbone.minilm.width", "reproduce.dataset"):
            continue
        node: Any = {"search": study, "reproduce": comparison}.get(group, jobs)
        found = True
        for part in name.split("."):
            found = found and part in node
            node = node[part] if found else None
        if found:  # a key that no file names has the default of its dataclass
            value = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
            assert key.default == written(value), key.name
            compared += 1
    assert compared > 60


@pytest.mark.parametrize("word", ["gate", "held out", "stack"])
def test_the_glossary_is_found(word: str) -> None:
    assert len(glossary()[word]) > 20


def test_what_happens_where_a_key_is_not_set_is_said_in_words() -> None:
    """`if none` and the like leave open what has none of what."""
    values = {"class_weights", "logger.name", "logger.upload"}  # which may be `none`
    riddles = {
        name: key.meaning
        for name, key in keys().items()
        if re.search(r"\bnone\b", key.meaning, re.IGNORECASE) and name not in values
    }
    assert riddles == {}
