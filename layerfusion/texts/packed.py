"""Files that gzip, bzip2 or xz packed, unpacked while they come, to their last byte."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from layerfusion.config.registry import PACKED
from layerfusion.errors import UserError

BLOCK = 1 << 18
"""Bytes that are read, or unpacked, at once."""


class _Unpacker(Protocol):
    """Unpacks one of the packed parts that a file may have."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """zlib as `bz2` and `lzma` have it: what was not unpacked yet is kept."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)  # with gzip's header and checksum

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, most: int, /) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, most)


MARKS: dict[bytes, Callable[[], _Unpacker]] = {
    b"\x1f\x8b": _Gzip,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
}
"""What packed files begin with, in the order of `PACKED`, to what unpacks a part of them."""
_LONGEST = max(map(len, MARKS))


def is_packed(begin: bytes) -> bool:
    """Tell a packed file by its first bytes from a text that begins with the same letters."""
    return begin.startswith(tuple(MARKS)) and not begin.isascii()


def refuse_not_packed(path: Path, begin: bytes) -> None:
    """Refuse a file that is packed by its name, and not by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in PACKED and not begin.startswith(list(MARKS)[PACKED.index(suffix)]):
        raise UserError(
            f"{path}: cannot be read: its name ends in {suffix}, and it is not packed so"
        )


def unpacked(blocks: Iterable[bytes], place: str) -> Iterator[bytes]:
    """Unpack the blocks of a packed file, which may be several packed files one after another.

    Args:
        blocks: its bytes; an empty block says that nothing has come for now, and is given on.
        place: the file, for messages.

    Raises:
        UserError: where it is damaged or cut off, and where something that is not packed follows
            its end, but for zeros, with which some devices fill what they write.
    """
    unpacker: _Unpacker | None = None
    data, begun = b"", False
    with _errors(place):
        for block in blocks:
            if not block:
                yield b""
            data += block
            while data or unpacker is not None:
                if unpacker is None:
                    data = data.lstrip(b"\0") if begun else data
                    if len(data) < _LONGEST:
                        break
                    unpacker, begun = _next_part(data), True
                piece = unpacker.decompress(data, BLOCK)
                data = b""
                if piece:
                    yield piece
                if unpacker.eof:
                    data, unpacker = unpacker.unused_data, None
                elif len(piece) < BLOCK:
                    break
        if unpacker is not None or not begun:
            raise EOFError("it is packed, and its end is missing, as of a download that was cut")
        if data.strip(b"\0"):
            raise _not_packed(data)


def _next_part(data: bytes) -> _Unpacker:
    for mark, unpacker in MARKS.items():
        if data.startswith(mark):
            return unpacker()
    raise _not_packed(data)


def _not_packed(data: bytes) -> ValueError:
    return ValueError(f"behind what is packed it has {data[:20]!r}, which is not")


def blocks_of(path: Path) -> Iterator[bytes]:
    """Read a text file in unpacked blocks.

    Raises:
        UserError: if it cannot be read.
    """
    with _errors(str(path)), path.open("rb") as file:
        begin = file.read(BLOCK)
        refuse_not_packed(path, begin)
        blocks = _read(begin, file.read)
        yield from unpacked(blocks, str(path)) if is_packed(begin) else blocks


def _read(begin: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
    block = begin
    while block:
        yield block
        block = read(BLOCK)


@contextmanager
def _errors(place: str) -> Iterator[None]:
    """Turn the error about a file that is not packed as it should be into one line."""
    try:
        yield
    except UserError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{place}: cannot be read: {reason[0]}") from error
