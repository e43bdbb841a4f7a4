"""Texts that come bit by bit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerfusion.texts.streaming import read_parts

LINES = "10%\r100% done\nb\n"


def test_a_return_within_the_first_line_holds_no_answer_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A progress bar at the head of a log: only line feeds end its rows."""
    ours, theirs = os.pipe()
    with os.fdopen(ours) as read, os.fdopen(theirs, "wb", buffering=0) as write:
        monkeypatch.setattr("sys.stdin", read)
        write.write(LINES.encode())
        parts = iter(read_parts("-", "text"))
        assert list(next(parts).texts) == ["10%\r100% done", "b"]  # the other end is still open
        write.write(b"last\n")
        write.close()
        assert [list(part.texts) for part in parts] == [["last"]]


def test_such_a_file_is_read_in_parts_as_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_bytes(LINES.encode() * 60_000)
    parts = list(read_parts(str(file), "text"))
    assert len(parts) > 1
    texts = [text for part in parts for text in part.texts]
    assert texts == ["10%\r100% done", "b"] * 60_000
