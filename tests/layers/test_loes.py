"""The selection `loes` on vectors made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from layerfusion.config.job import LayersConfig
from layerfusion.errors import UserError
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.loes import LOES
from layerfusion.layers.scores import ScoreTable
from tests.layers.test_selection import DIFFERENT, LAYERS, budget, held_out, table

ROWS, WIDTH = 200, 8


def with_vectors(signals: list[float], *, multilabel: bool = False) -> ScoreTable:
    """A table whose layers show the classes this clearly; each sees one class of four.

    All layers have the same covariance, and so the same isotropy, which outweighs the other terms.
    """
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(ROWS) % 4
    features = []
    for n, signal in enumerate(signals):
        vectors = torch.randn(ROWS, WIDTH, generator=draw)
        vectors[:, 0] += signal * (labels == n % 4)
        centred = vectors - vectors.mean(dim=0)
        white = centred @ torch.linalg.qr(centred).R.inverse() * ROWS**0.5
        features.append(white * torch.linspace(0.5, 1.5, WIDTH))
    target = F.one_hot(labels, 4).bool() if multilabel else labels
    candidates = Candidates(LAYERS, features, target, torch.arange(ROWS) % 5, (), 4, {})
    return replace(table(held_out([0.5] * len(LAYERS))), candidates=candidates)


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_layers_that_explain_the_labels_are_taken(multilabel: bool) -> None:
    scores = with_vectors([0, 9, 9, 0, 0, 0, 0, 9], multilabel=multilabel)
    chosen = LOES.select(LayersConfig("loes", k=3), scores, DIFFERENT, budget())
    places = {LAYERS.index(layer) for layer in chosen.layers}
    assert places == {1, 2, 7}
    assert all("LOES" in choice.reason for choice in chosen.choices)


def test_a_copy_of_a_chosen_layer_explains_nothing_new() -> None:
    scores = with_vectors([9, 9, 0, 0, 0, 0, 0, 0])
    assert scores.candidates is not None
    features = list(scores.candidates.features)
    features[4] = features[0].clone()  # as good as the best alone
    copied = replace(scores, candidates=replace(scores.candidates, features=features))
    chosen = LOES.select(LayersConfig("loes", k=2), copied, DIFFERENT, budget())
    assert {0, 4} != {LAYERS.index(layer) for layer in chosen.layers}


def test_all_layers_are_taken_where_there_are_fewer_than_k() -> None:
    scores = with_vectors([1.0] * 8)
    chosen = LOES.select(LayersConfig("loes", k=20), scores, DIFFERENT, budget())
    assert len(chosen.layers) == len(LAYERS)
    assert "only 8 of k=20" in chosen.notes[0]


def test_without_vectors_it_says_so() -> None:
    with pytest.raises(UserError, match="needs the vectors"):
        LOES.select(LayersConfig("loes"), table(held_out([0.5] * 8)), DIFFERENT, budget())
