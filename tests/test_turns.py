"""Benchmarks take turns, print ratios pair by pair, and keep every figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.turns import keep, show, take_turns


def test_runs_take_turns_forwards_and_backwards() -> None:
    calls: list[str] = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = take_turns(runs, 3)
    assert "".join(calls) == "abccbaabc"
    assert {name: len(each) for name, each in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    assert all(second >= 0 for each in seconds.values() for second in each)


def test_ratios_are_of_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "bench.json"
    keep("before", [1], path)
    show("a race", {"ours": [1.0, 2.0, 4.0], "a peer": [3.0, 4.0, 4.0]}, path)
    said = capsys.readouterr().out
    assert "ours: 2.00 (1.00 to 4.00) s\n" in said
    assert "a peer: 4.00 (3.00 to 4.00) s; 2.00 (1.00 to 3.00) times ours\n" in said
    assert json.loads(path.read_text()) == {
        "before": [1],
        "a race": {"ours": [1.0, 2.0, 4.0], "a peer": [3.0, 4.0, 4.0]},
    }
