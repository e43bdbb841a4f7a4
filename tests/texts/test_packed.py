"""Packed files are unpacked to their last byte, or refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from layerfusion.errors import UserError
from layerfusion.texts.encoding import read_text
from layerfusion.texts.packed import BLOCK, blocks_of, unpacked

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("size", [0, 10, BLOCK, 3 * BLOCK + 1])
@pytest.mark.parametrize("even", [True, False])
def test_blocks_of_any_size_come_back(suffix: str, size: int, even: bool) -> None:
    raw = bytes(size) if even else random.Random(size).randbytes(size)
    packed = PACK[suffix](raw)
    for step in (len(packed), 1000, 7):
        blocks = [packed[start : start + step] for start in range(0, len(packed), step)]
        assert b"".join(unpacked(blocks, "a")) == raw
        # Several packed parts are one, and zeros behind them are none.
        assert b"".join(unpacked([*blocks, b"", *blocks, bytes(9)], "a")) == 2 * raw


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("more", [b"a film,good\n", b"\0\0a", b"\x1f\x8b", b"BZh9 and so on"])
def test_what_stands_behind_a_packed_part_is_not_lost(
    suffix: str, more: bytes, tmp_path: Path
) -> None:
    """As of rows that `cat >>` added to a packed file."""
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(PACK[suffix](b"text,label\n" * 100) + more)
    with pytest.raises(UserError, match=r"a\.csv.*: cannot be read: "):
        read_text(path, "utf-8")
    with pytest.raises(UserError, match=r"a\.csv.*: cannot be read: "):
        list(blocks_of(path))


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("left", [1, 7, 20])
def test_a_packed_file_without_its_end_is_refused(suffix: str, left: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.csv{suffix}"
    whole = PACK[suffix](random.Random(0).randbytes(200).hex().encode())
    path.write_bytes(whole[:-left])
    with pytest.raises(UserError, match="its end is missing, as of a download that was cut"):
        read_text(path, "utf-8")
