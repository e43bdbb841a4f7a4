from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from layerfusion.embeddings.standardise import Standardiser
from layerfusion.errors import UserError
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.data import FusionDataModule, TensorBatches


def _features(rows: int, widths: tuple[int, ...] = (3, 5), seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [4 * torch.randn(rows, width, generator=generator) + 7 for width in widths]


def _data(**changes: object) -> FusionDataModule:
    features = {
        split: _features(rows, seed=k)
        for k, (split, rows) in enumerate([("train", 20), ("validation", 7), ("test", 9)])
    }
    targets = {split: torch.arange(len(x[0])) % 2 for split, x in features.items()}
    return FusionDataModule(features, targets, batch_size=8, **changes)  # pyright: ignore[reportArgumentType]


def test_standardiser_equals_scikit_learn() -> None:
    train, test = _features(50), _features(10, seed=1)
    standardise = Standardiser.fit(train)
    for k, (ours, source) in enumerate(zip(standardise(test), test, strict=True)):
        expected = np.asarray(StandardScaler().fit(train[k].numpy()).transform(source.numpy()))
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4, atol=1e-5)
        assert ours.dtype == torch.float32


@pytest.mark.parametrize("value", [0.0, 0.1, 12600.3])
def test_a_constant_feature_becomes_zero(value: float) -> None:
    train = [torch.full((31, 2), value)]
    standardise = Standardiser.fit(train)
    assert torch.equal(standardise.std[0], torch.ones(2))
    assert standardise(train)[0].abs().max() < 1e-2 * max(1, abs(value)) * 1e-4
    assert Standardiser.fit(train)([torch.full((1, 2), value + 3)])[0].mean() == pytest.approx(3)


def test_a_small_spread_on_a_large_mean_is_kept() -> None:
    values = 250 + torch.arange(64.0)[:, None] / 64
    standardised = Standardiser.fit([values])([values])[0]
    assert standardised.std(correction=0) == pytest.approx(1, abs=1e-2)


def test_what_hardly_varies_is_not_blown_up() -> None:
    """A feature below rounding: by its own size, or by that of the others around it."""
    noise = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    others = torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
    source = torch.cat([20 + 1e-5 * noise, 1e-9 * noise, 20 + noise, others], dim=1)
    found = Standardiser.fit([source])([source])[0].std(dim=0, correction=0)
    assert found[:2].max() < 1e-3
    torch.testing.assert_close(found[2:], torch.ones(4), atol=1e-4, rtol=0)


def test_features_in_float64_are_left_as_they_are() -> None:
    features = torch.arange(6.0, dtype=torch.float64)[:, None]
    Standardiser.fit([features])
    assert features.flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_float16_features_are_standardised_in_float32() -> None:
    half = [torch.full((4, 1), 60000.0, dtype=torch.float16) * torch.tensor([[1], [-1], [1], [-1]])]
    standardised = Standardiser.fit(half)(half)[0]
    assert standardised.flatten().tolist() == [1.0, -1.0, 1.0, -1.0]


def test_data_is_standardised_by_train_alone() -> None:
    data = _data()
    raw = _features(20)
    for k, rows in enumerate(data.features["train"]):
        source = rows[:]
        torch.testing.assert_close(source.mean(0), torch.zeros(source.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(source.std(0, correction=0), torch.ones(source.shape[1]))
        test = _features(9, seed=2)[k]
        expected = (test - raw[k].mean(0)) / raw[k].std(0, correction=0)
        torch.testing.assert_close(data.features["test"][k][:], expected)


def test_other_splits_do_not_move_the_statistics() -> None:
    features = {"train": _features(20), "validation": _features(7), "test": _features(9)}
    targets = {split: torch.zeros(len(x[0]), dtype=torch.long) for split, x in features.items()}
    plain = FusionDataModule(features, targets, 8)
    features |= {"validation": [x + 1e6 for x in features["validation"]]}
    features |= {"test": [x * 1e6 for x in features["test"]]}
    moved = FusionDataModule(features, targets, 8)
    for ours, theirs in zip(plain.features["train"], moved.features["train"], strict=True):
        assert torch.equal(ours[:], theirs[:])


@settings(max_examples=30)
@given(rows=st.integers(1, 40), batch_size=st.integers(1, 50), shuffle=st.booleans())
def test_an_epoch_has_every_row_once(rows: int, batch_size: int, shuffle: bool) -> None:
    target = torch.arange(rows)
    features = [target[:, None].float(), -target[:, None].float()]
    batches = TensorBatches(features, target, batch_size, shuffle=shuffle)
    seen = list(batches)
    assert len(seen) == len(batches)
    assert {len(y) for _, y in seen[:-1]} <= {batch_size}
    assert sorted(torch.cat([y for _, y in seen]).tolist()) == list(range(rows))
    for (x, negative), y in seen:
        assert torch.equal(x.flatten(), y.float())  # a row keeps its class and its other sources
        assert torch.equal(negative.flatten(), -y.float())


def _orders(batches: TensorBatches, epochs: int) -> list[list[int]]:
    return [torch.cat([y for _, y in batches]).tolist() for _ in range(epochs)]


def test_train_order_follows_the_seed_and_differs_between_epochs() -> None:
    rows = torch.arange(30)
    orders = [
        _orders(TensorBatches([rows[:, None]], rows, 8, shuffle=True, seed=seed), 3)
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert len({tuple(order) for order in orders[0]}) == 3


def test_train_order_neither_reads_nor_moves_the_global_generator() -> None:
    rows = torch.arange(30)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = _orders(TensorBatches([rows[:, None]], rows, 8, shuffle=True), 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert _orders(TensorBatches([rows[:, None]], rows, 8, shuffle=True), 2) == first


def test_validation_keeps_its_order() -> None:
    data = _data()
    batches = list(data.val_dataloader())
    torch.testing.assert_close(torch.cat([y for _, y in batches]), data.targets["validation"])
    assert torch.equal(batches[0][0][1], data.features["validation"][1][:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation": []}, r"sources of validation have shapes \[\], not"),
        ({"validation": _features(7, (3, 4))}, r"validation have shapes .*4.*, not .*\(7, 5\)"),
        ({"test": _features(8)}, r"test have shapes .*\(8, 3\).*, not .*\(9, 3\)"),
        ({"train": []}, "no source to fuse"),
    ],
)
def test_features_that_do_not_fit_are_named(change: dict[str, list[Tensor]], message: str) -> None:
    features = {"train": _features(20), "validation": _features(7), "test": _features(9)}
    targets = {split: torch.zeros(len(x[0]), dtype=torch.long) for split, x in features.items()}
    with pytest.raises(UserError, match=message):
        FusionDataModule(features | change, targets, 8)


def test_an_empty_validation_is_an_error() -> None:
    features = {"train": _features(20), "validation": _features(0)}
    targets = {split: torch.zeros(len(x[0]), dtype=torch.long) for split, x in features.items()}
    with pytest.raises(UserError, match="validation has no rows"):
        FusionDataModule(features, targets, 8)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (np.full((7, 3), 0.5), "targets of validation hold 0.5; 0 and 1 alone"),
        (np.full((7, 3), 2), "targets of validation hold 2; 0 and 1 alone"),
        (np.full(7, 0.5), "targets of validation hold 0.5; whole numbers"),
        (np.full(7, -1), "targets of validation hold -1; whole numbers"),
        (np.full(7, np.nan), "targets of validation hold nan"),
        (np.zeros((7, 3, 1)), r"targets of validation have the shape \(7, 3, 1\)"),
        (np.full(7, "a"), "targets of validation are no numbers"),
        (np.zeros(7, int), r"one kind.*train \(20, 3\), validation \(7,\)"),
        (np.zeros((7, 2), int), r"one kind.*train \(20, 3\), validation \(7, 2\)"),
    ],
)
def test_targets_that_are_no_labels_are_refused(target: np.ndarray, told: str) -> None:
    features = {"train": _features(20), "validation": _features(7)}
    with pytest.raises(UserError, match=told):
        FusionDataModule(features, {"train": np.zeros((20, 3), bool), "validation": target})


def test_labels_come_as_any_matrix() -> None:
    features = {"train": _features(20), "validation": _features(7)}
    marks = np.arange(60).reshape(20, 3) % 2
    for matrix in (marks, marks.astype(bool), marks.tolist(), marks * 1.0, torch.tensor(marks),
                   pd.DataFrame(marks), sparse.csr_matrix(marks)):  # fmt: skip
        data = FusionDataModule(features, {"train": matrix, "validation": marks[:7]})
        assert data.targets["train"].tolist() == marks.tolist()


# -- what users bring ---------------------------------------------------------------------------


def _with_train(source: object, batch_size: int = 8) -> FusionDataModule:
    features = {"train": [torch.randn(20, 3), source], "validation": _features(7)}
    targets = {"train": torch.arange(20) % 2, "validation": torch.arange(7) % 2}
    return FusionDataModule(features, targets, batch_size)


def _spoilt(value: float) -> Tensor:
    source = torch.randn(20, 5)
    source[4, 2] = value
    return source


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            _spoilt(float("nan")),
            r"source 1 of train holds NaN or infinity, first in row 4 \(from 0\)",
        ),
        (_spoilt(float("-inf")), "source 1 of train holds NaN or infinity, first in row 4"),
        (torch.randn(20), r"source 1 of train has the shape \(20,\); a vector for each row"),
        (torch.empty(20, 0), r"source 1 of train has the shape \(20, 0\)"),
        (np.full((20, 5), "a"), "source 1 of train holds no numbers, but <U1"),
        (pd.DataFrame({"a": ["x"] * 20}), "source 1 of train holds no numbers, but "),
    ],
)
def test_a_source_that_is_no_matrix_of_numbers_is_one_line(source: object, says: str) -> None:
    with pytest.raises(UserError, match=says):
        _with_train(source)


@pytest.mark.parametrize(
    "source",
    [
        pd.DataFrame(np.arange(100.0).reshape(20, 5)),
        sparse.csr_matrix(np.arange(100.0).reshape(20, 5)),
        np.arange(100).reshape(20, 5),
    ],
)
def test_tables_and_sparse_matrices_and_whole_numbers_are_sources(source: object) -> None:
    plain = _with_train(torch.arange(100.0).reshape(20, 5)).features["train"][1][:]
    torch.testing.assert_close(_with_train(source).features["train"][1][:].float(), plain)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_has_a_row_at_least(size: int) -> None:
    with pytest.raises(UserError, match="batch_size: a whole number from 1 is needed, found"):
        _with_train(torch.randn(20, 5), size)


@pytest.mark.parametrize("widths", [(3, 4), (3,), (3, 5, 5)])
def test_a_head_of_other_widths_is_told(widths: tuple[int, ...]) -> None:
    sources, target = next(iter(_data().train_dataloader()))
    head = FusionClassifier(widths, 2)
    with pytest.raises(
        UserError, match=r"sources of widths \[3, 5\] need a head with these widths"
    ):
        head.training_step((sources, target))


def test_a_head_needs_numbers_and_classes() -> None:
    with pytest.raises(UserError, match=r"widths: every source needs one number at least"):
        FusionClassifier((3, 0), 2)
    with pytest.raises(UserError, match="num_classes=1: at least two classes are needed"):
        FusionClassifier((3, 5), 1)
