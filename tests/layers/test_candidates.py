"""Which layers tell texts apart."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from layerfusion.embeddings.lexical import LexicalSource
from layerfusion.embeddings.source import Source
from layerfusion.embeddings.standardise import largest_spread
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.layer_id import LayerId

ROWS, WIDTH = 700, 24


class _Unread(LexicalSource):
    """A lexical source whose vectors nobody may ask for."""

    def __init__(self) -> None:
        pass


def _of(*features: Tensor, lexical: bool = False) -> Candidates:
    layers = [
        LayerId("words" if lexical else "tiny", str(n), "first") for n in range(len(features))
    ]
    source = _Unread() if lexical else cast("Source", object())
    return Candidates(
        tuple(layers),
        features,
        torch.zeros(ROWS, dtype=torch.int64),
        torch.arange(ROWS) % 5,
        ("a text",) * ROWS,
        2,
        {layer.backbone: source for layer in layers},
    )


def _vectors(spread: float) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(WIDTH) * (1 + spread * torch.randn(ROWS, WIDTH))


def test_a_layer_that_hardly_differs_between_texts_tells_nothing() -> None:
    features = [_vectors(0.0), _vectors(0.01), _vectors(0.1), torch.randn(ROWS, WIDTH)]
    assert _of(*features).varying() == [2, 3]
    assert [largest_spread(one) < 0.05 for one in features] == [True, True, False, False]


def test_a_layer_with_a_single_feature_that_differs_is_kept() -> None:
    counts = torch.zeros(ROWS, WIDTH)
    counts[::3, 5] = 1.0
    assert _of(_vectors(0.001), counts).varying() == [1]


def test_the_size_of_the_numbers_does_not_matter() -> None:
    for factor in (1e-12, 1e-3, 1e12):
        assert _of(factor * _vectors(0.001), factor * _vectors(0.1)).varying() == [1]


def test_where_no_layer_differs_all_are_kept() -> None:
    assert _of(torch.zeros(ROWS, WIDTH), torch.ones(ROWS, WIDTH)).varying() == [0, 1]


def test_a_lexical_source_is_not_decomposed_for_it() -> None:
    unread = cast("Tensor", None)
    assert _of(unread, lexical=True).varying() == [0]
