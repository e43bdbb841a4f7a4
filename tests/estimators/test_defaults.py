from __future__ import annotations

from typing import Any

from layerfusion.composing.hydra import compose


def test_what_is_chosen_among_is_what_the_command_line_has(make: Any) -> None:
    composed = compose("train", ["experiment=auto", "dataset=r8", "backbone=minilm"])
    config = make()._config(0)
    for group in ("pooling", "lexical"):
        assert list(getattr(config, group)) == list(composed[group])
    for chosen in ({"layers": "last"}, {"fusion": "stacked"}):
        config = make(**chosen)._config(0)
        assert (list(config.pooling), list(config.lexical)) == (["mean"], [])
    config = make(pooling="last", lexical=())._config(0)
    assert (list(config.pooling), list(config.lexical)) == (["last"], [])
