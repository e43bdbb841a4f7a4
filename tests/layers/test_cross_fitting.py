"""No row is predicted with a setting that was chosen on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from layerfusion.layers.cross_fitting import choose_setting
from layerfusion.layers.discriminant import cross_validate_discriminant
from layerfusion.layers.folds import stratified_folds
from layerfusion.layers.lexical_regression import count, predict_folds
from layerfusion.layers.probe import cross_fitted, cross_validate

WORDS = np.array([f"word{n}" for n in range(60)])


def test_the_setting_of_a_row_depends_on_the_other_folds_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(5, 40, generator=generator)
    folds = torch.arange(40) % 4
    _, before = choose_setting(losses, folds)
    here = folds == 2
    losses[:, here] = torch.rand(5, 10, generator=generator)
    best, after = choose_setting(losses, folds)
    assert torch.equal(before[here], after[here])
    assert not torch.equal(before, after)
    assert best == int(losses.mean(dim=1).argmin())


def test_a_setting_that_lacks_some_rows_is_not_chosen() -> None:
    """Those of a fold lack it, where it was left out after the folds before."""
    losses = torch.tensor([[0.0, 0.0, torch.inf, torch.inf], [1.0, 1.0, 1.0, 1.0]])
    best, by_row = choose_setting(losses, torch.tensor([0, 0, 1, 1]))
    assert best == 1
    assert by_row.tolist() == [1, 1, 1, 1]


def test_a_single_fold_is_predicted_with_the_best_setting() -> None:
    best, by_row = choose_setting(torch.tensor([[2.0, 3.0], [1.0, 0.0]]), torch.zeros(2).long())
    assert (best, by_row.tolist()) == (1, [1, 1])


def of_a_layer(labels: Tensor, folds: Tensor, generator: torch.Generator) -> Tensor:
    features = torch.randn(len(labels), 8, generator=generator)
    (held_out,) = cross_validate([features], labels, folds, num_classes=2, text_of=None)
    return held_out.losses


def of_a_discriminant(labels: Tensor, folds: Tensor, generator: torch.Generator) -> Tensor:
    features = torch.randn(len(labels), 30, generator=generator)
    predicted, _ = cross_validate_discriminant(features, labels, folds, num_classes=2)
    return -predicted[torch.arange(len(labels)), labels]


def of_words(labels: Tensor, folds: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(len(WORDS), (len(labels), 8), generator=generator).numpy()
    counted = count("words", [" ".join(row) for row in WORDS[drawn]])
    kinds = [(counted, "bayes")]
    (said,) = predict_folds(kinds, labels.numpy(), folds.numpy(), num_classes=2)
    by_strength = {strength: torch.from_numpy(found) for strength, found in said.items()}
    return cross_fitted(by_strength, labels, folds, text_of=None).losses


@pytest.mark.parametrize("losses_of", [of_a_layer, of_a_discriminant, of_words])
def test_noise_promises_nothing(
    losses_of: Callable[[Tensor, Tensor, torch.Generator], Tensor],
) -> None:
    """With 20 rows, the best of several strengths seems better than chance by luck alone.

    If the strengths are chosen on the rows themselves, the means are 0.67.
    """
    labels = torch.arange(20) % 2
    promised = []
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        folds = stratified_folds(labels.numpy(), range(20), 5, seed=seed)
        promised.append(losses_of(labels, folds, generator).mean())
    assert float(torch.stack(promised).mean()) > np.log(2) - 0.008
