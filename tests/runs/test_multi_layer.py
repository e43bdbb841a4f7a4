"""Which layers a probe of several layers gets, and what is said of a probe that gets none."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from layerfusion.errors import UserError
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.multi_layer import MultiLayerKind, MultiLayerProbe
from layerfusion.layers.probe import HeldOut, LinearProbe
from layerfusion.runs import multi_layer
from layerfusion.runs.multi_layer import fit_multi_layer_probes

LAYERS = tuple(LayerId(name, layer, "mean") for name in ("one", "two") for layer in ("0", "1"))
LABELS = torch.tensor([0, 1, 0, 1])


def budget(most: int) -> Any:
    """A budget that allows any layer, and so many together."""
    return SimpleNamespace(
        affordable=lambda layers: list(layers),
        allows=lambda layers: len(layers) <= most,
        limits=lambda: "flops_per_text=1",
    )


def candidates(*models: str) -> Any:
    features = [torch.full((4, 2), float(n)) for n in range(len(LAYERS))]
    return SimpleNamespace(
        layers=LAYERS,
        features=features,
        labels=LABELS,
        fold_of=torch.arange(4) % 2,
        num_classes=2,
        models=dict.fromkeys(models),
    )


def even(features: Any, labels: Any, *_: Any) -> MultiLayerProbe:
    """The lower the features, the better its held-out log-loss."""
    sure = 1 / (2 + float(features[0].mean()))
    log_probs = torch.tensor([[1 - sure, sure]] * 4).log()
    probe = LinearProbe(torch.zeros(2, 2 * len(features)), torch.zeros(2))
    return MultiLayerProbe(
        (1 / len(features),) * len(features), HeldOut(log_probs, labels, 1, text_of=None), probe
    )


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        "all": MultiLayerKind("all", even),
        "mix": MultiLayerKind("mix", even, same_width=True),
        "broken": MultiLayerKind("broken", lambda *_: "words"),  # type: ignore[arg-type, return-value]
    }
    monkeypatch.setattr(multi_layer, "find_multi_layer", known.__getitem__)


@pytest.mark.usefixtures("kinds")
def test_a_probe_that_adds_vectors_gets_the_layers_of_one_model() -> None:
    both, mix = fit_multi_layer_probes(["all", "mix"], candidates("one", "two"), budget(4))
    assert both.places == (0, 1, 2, 3)
    assert mix.places == (0, 1)
    (rest,) = fit_multi_layer_probes(["all"], candidates("two"), budget(4))
    assert rest.places == (2, 3)


def test_a_scalar_mix_chooses_among_the_strengths_of_the_job() -> None:
    for strengths in ((0.01,), (100.0,)):
        both = fit_multi_layer_probes(
            ["scalar_mix", "group_lasso"], candidates("one"), budget(4), strengths
        )
        assert both[0].record.strength == strengths[0]
        assert both[1].record.strength < 1  # a share of the largest penalty, and no C


@pytest.mark.usefixtures("kinds")
def test_what_the_budget_does_not_allow_is_left_out_with_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        (mix,) = fit_multi_layer_probes(["all", "mix"], candidates("one", "two"), budget(2))
    assert mix.record.name == "mix"
    (line,) = caplog.messages
    assert "all is left out: layers.budget (flops_per_text=1) allows no such layers" in line


@pytest.mark.usefixtures("kinds")
def test_a_probe_that_gives_something_else_is_named() -> None:
    with pytest.raises(UserError, match="several layers broken: it gave 'words'"):
        fit_multi_layer_probes(["broken"], candidates("one"), budget(4))
