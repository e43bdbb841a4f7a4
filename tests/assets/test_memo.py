from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from layerfusion.assets.memo import (
    computed_once,
    hash_of,
    read_arrays,
    read_facts,
    write_arrays,
    write_facts,
)

FACTS = {"seconds": 1.5, "rows": [1, 2, 3]}
ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, 2])}


def test_facts_and_arrays_are_read_back(tmp_path: Path) -> None:
    write_facts(tmp_path / "x.json", FACTS)
    assert read_facts(tmp_path / "x.json", "x") == FACTS
    write_arrays(tmp_path / "sub/x.safetensors", ARRAYS, FACTS)
    kept = read_arrays(tmp_path / "sub/x.safetensors", "x")
    assert kept is not None
    assert kept[1] == FACTS
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(kept[0][name], array)
    assert read_facts(tmp_path / "none.json", "x") is None
    assert read_arrays(tmp_path / "none.safetensors", "x") is None


@pytest.mark.parametrize("kind", ["facts", "arrays"])
def test_every_byte_that_changes_and_every_cut_is_noticed(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x"
    if kind == "facts":
        write_facts(path, FACTS)
    else:
        write_arrays(path, ARRAYS, FACTS)
    whole = path.read_bytes()
    noticed = 0
    for place in range(len(whole)):
        for damaged in (
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
            whole[:place],
        ):
            path.write_bytes(damaged)
            with caplog.at_level(logging.CRITICAL):
                found = read_facts(path, "x") if kind == "facts" else read_arrays(path, "x")
            if found is None:
                noticed += 1
            elif kind == "facts":
                assert found == FACTS  # a space between values, for one
            else:
                assert found[1] == FACTS  # type: ignore[index]
                for name, array in ARRAYS.items():
                    np.testing.assert_array_equal(found[0][name], array)  # type: ignore[index]
    assert noticed > 1.8 * len(whole)


def test_files_of_older_versions_have_no_checksum_and_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(FACTS))
    assert read_facts(tmp_path / "x.json", "x") == FACTS
    content = save(ARRAYS, metadata={"layers": json.dumps(FACTS)})
    (tmp_path / "x.safetensors").write_bytes(content)
    kept = read_arrays(tmp_path / "x.safetensors", "x", facts_key="layers")
    assert kept is not None
    assert kept[1] == FACTS


def test_a_result_is_computed_once_and_again_where_it_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def compute() -> dict[str, object]:
        calls.append(1)
        return dict(FACTS)

    path = tmp_path / "sub" / "x.json"
    for _ in range(2):
        assert computed_once(path, compute, write_facts, lambda p: read_facts(p, "x")) == FACTS
    assert len(calls) == 1
    path.write_text(path.read_text().replace("1.5", "2.5"))
    assert computed_once(path, compute, write_facts, lambda p: read_facts(p, "x")) == FACTS
    assert len(calls) == 2
    assert "x.json is damaged (its checksum differs); computing it again" in caplog.text


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1}) != hash_of({"a": 1, "b": 3})
