from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.job import ExtractConfig, LoggerConfig, PathsConfig


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, ["experiment=auto"]),
        ({"layers": "last"}, ["fusion=auto"]),
        ({"fusion": "stacked"}, ["layers=adaptive", "fusion=stacked"]),
        ({"layers": "all", "fusion": "gated"}, ["layers=all"]),
        (
            {"pooling": "last", "lexical": (), "class_weight": "balanced", "random_state": 5},
            ["experiment=auto", "pooling=last", "lexical=[]", "class_weights=balanced", "seed=5"],
        ),
    ],
)
def test_what_is_not_given_is_what_the_command_line_has(
    params: dict[str, Any], words: list[str]
) -> None:
    from layerfusion import LayerFusionClassifier

    def compared(config: Any) -> Any:
        """All that a classifier may depend on, but for the rows."""
        places = {"paths": PathsConfig(), "logger": LoggerConfig(), "extract": ExtractConfig()}
        return replace(config, dataset=expected.dataset, **places)

    expected = load(compose("train", ["backbone=minilm", *words]))
    seed = params.get("random_state", 0)
    assert compared(LayerFusionClassifier("minilm", **params)._config(seed)) == compared(expected)
