"""Computations side by side: in order, each on one core, with errors passed on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from layerfusion.layers.threads import each_on_a_core


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_two_items_are_computed_at_once_with_a_thread_each() -> None:
    both = threading.Barrier(2, timeout=20)

    def compute(item: int) -> tuple[int, int]:
        both.wait()  # passes only where two wait at once
        return item, torch.get_num_threads()

    assert list(each_on_a_core(compute, range(4))) == [(n, 1) for n in range(4)]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("items", [[1], [0, 1, 2]])
def test_an_error_is_passed_on_and_the_threads_are_put_back(items: list[int]) -> None:
    def compute(item: int) -> int:
        if item == 1:
            raise ValueError("one")
        return item

    with pytest.raises(ValueError, match="one"):
        list(each_on_a_core(compute, items))
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_a_reader_may_stop_early() -> None:
    results = each_on_a_core(lambda item: item, range(100))
    assert next(results) == 0
    del results
    assert torch.get_num_threads() == 2
