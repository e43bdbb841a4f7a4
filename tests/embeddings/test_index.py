from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from layerfusion.embeddings.index import HashIndex, as_hashes

# Few values of either half, so that halves repeat as they never do by chance.
HASH = st.builds(lambda a, b: bytes([a] * 8 + [b] * 8), st.integers(0, 3), st.integers(0, 3))
SHARD = st.lists(HASH, max_size=12)


@given(
    batches=st.lists(st.lists(SHARD, min_size=1, max_size=3), max_size=5),
    refused=st.sets(st.integers(0, 14)),
    asked=st.lists(HASH, max_size=20),
)
def test_the_index_agrees_with_a_dictionary(
    batches: list[list[list[bytes]]], refused: set[int], asked: list[bytes]
) -> None:
    index, places, number = HashIndex(), {}, 0
    for batch in batches:
        added = []
        for texts in batch:
            added.append((number, as_hashes(texts)))
            if number not in refused:
                for row, text in enumerate(texts):
                    places.setdefault(text, (number, row))
            number += 1
        index.add(added)
    accepted = np.array([n not in refused for n in range(number)], bool)
    shards, rows = index.find(as_hashes(asked), accepted)
    for text, shard, row in zip(asked, shards.tolist(), rows.tolist(), strict=True):
        if text not in places:
            assert shard == -1
        else:
            found, first = places[text]
            assert shard == found
            assert batches_row(batches, shard)[row] == text
            assert first <= row or batches_row(batches, shard)[first] == text
    assert index.count(accepted) == len(places)


def batches_row(batches: list[list[list[bytes]]], number: int) -> list[bytes]:
    return [texts for batch in batches for texts in batch][number]


def test_an_entry_takes_24_bytes_and_no_object() -> None:
    index = HashIndex()
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 256, (10_000, 16), np.uint8)
    for start in range(0, 10_000, 100):
        index.add([(start // 100, hashes[start : start + 100])])
    assert index.nbytes == 24 * 10_000
    shards, rows = index.find(hashes[::-1], np.ones(100, bool))
    assert shards.tolist() == [n // 100 for n in range(9_999, -1, -1)]
    assert rows.tolist() == [n % 100 for n in range(9_999, -1, -1)]
