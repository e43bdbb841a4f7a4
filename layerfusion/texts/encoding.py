"""Text files as strings: unpacked, decoded, and refused with the encoding that would read them."""

from __future__ import annotations

import codecs
import difflib
import encodings.aliases
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from layerfusion.config.options import as_option
from layerfusion.errors import Mendable, UserError
from layerfusion.texts.encoding_guess import guess_encodings, wrong_bytes
from layerfusion.texts.packed import is_packed, refuse_not_packed, unpacked

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NO_TEXT = {
    b"PK\x03\x04": "a zip archive, as Excel's .xlsx is too; unpack it, or save it as csv",
    b"PAR1": "a parquet file; give it a name that ends in .parquet",
    b"ARROW1": "an Arrow file; give it a name that ends in .arrow",
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls); save it as csv",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it",
    b"\x04\x22\x4d\x18": "packed by lz4; unpack it",
    b"\x1f\x9d": "packed by compress; unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"Rar!\x1a\x07": "a rar archive; unpack it",
    b"SQLite format 3\x00": "an SQLite database; export its table as csv",
    b"\x89HDF": "an HDF5 file; save its table as csv",
    b"Obj\x01": "an Avro file; save its table as csv",
    b"FEA1": "a file of the first version of Feather; write it anew",
    b"%PDF-": "a PDF file; save its texts as csv",
    b"{\\rtf": "a document in RTF; save it as plain text",
    b"\x93NUMPY": "a NumPy array; save its texts as csv",
    b"version https://git-lfs": "a Git LFS pointer, which stands for the data; `git lfs pull`"
    " fetches them",
    b"# xet version": "a pointer of Xet, which stands for the data; download the file itself",
    **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
                    "a pickle, which may run code when it is opened; save its table as csv"),
}  # fmt: skip
"""What files begin with that hold no table of texts, and what they are."""
_PAGES = {
    **dict.fromkeys((b"<!doctype html", b"<html"), "a web page; was its address that of the data?"),
    b"<?xml": "an XML file; save its texts as csv",
}
"""First bytes of files that may be texts themselves, to what such a file is."""
_TAR_AT = 257
"""Position of the bytes by which a tar archive says that it is one."""
CONTROLS = re.compile("[\x80-\x9f]")
"""Letters and quotes in cp1252, but invisible controls in latin-1, where no text has them."""
_SHOWN = 20
"""Bytes to each side of a wrong one that a message shows at most."""
SURROGATES = re.compile("[\ud800-\udfff]")
"""Halves of a character that no encoding can write. JSON can spell them out one by one."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def read_text(path: Path, encoding: str, key: str = "dataset.encoding") -> str:
    """Read a text file whole. Byte-order marks are left out, line ends stay as they are.

    Args:
        path: the file; one that gzip packed is unpacked.
        encoding: of the file; one that begins with a byte-order mark must agree with it.
        key: the option that sets the encoding, for messages.

    Raises:
        UserError: where the encoding is unknown or is not that of the file, naming one that is.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    refuse_no_text(raw, str(path))
    refuse_not_packed(path, raw)
    return decoded(raw, str(path), encoding, key)


def decoded(raw: bytes, path: str, encoding: str, key: str) -> str:
    """Give the text of a file's bytes. Arguments and errors are as for `read_text`."""
    codec = _codec(encoding, key)
    raw = _unpacked(raw, path)
    _refuse_other_mark(raw, path, codec, key)
    try:
        text = raw.decode(codec).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise _not_readable(path, error, encoding, codec, key) from error
    except UnicodeError as error:  # UTF-16 without a mark, for one
        raise UserError(f"{path}: not readable as {encoding}: {error}; set {key}") from error
    if "\0" in text:
        raise _with_nul(raw, text, path, encoding, codec, key)
    _refuse_swapped(text, path, codec, key)
    return text


def _refuse_swapped(text: str, path: str, codec: str, key: str) -> None:
    """Refuse UTF-16 that was read with the two bytes of each character the other way round."""
    if codec.startswith("utf-16") and "\n" not in text and "\u0a00" in text:
        other = "utf-16-le" if codec == "utf-16-be" else "utf-16-be"
        option = as_option(key, other)
        raise Mendable(
            f"{path}: the two bytes of each character are the other way round; set {option}", option
        )


def decoded_blocks(blocks: Iterable[bytes], path: str, encoding: str, key: str) -> Iterator[str]:
    """Give the text of unpacked bytes as they come; an empty block gives an empty text.

    Arguments and errors are as for `read_text`.
    """
    codec = _codec(encoding, key)
    decoder = codecs.getincrementaldecoder(codec)()
    position = lines = 0
    for block in chain(blocks, [None]):
        if position == 0 and block:
            refuse_no_text(block, path)
            _refuse_other_mark(block, path, codec, key)
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block or b"", final=block is None)
        except UnicodeDecodeError as error:
            raise _not_readable(
                path, error, encoding, codec, key, before=position - pending, lines=lines
            ) from error
        except UnicodeError as error:
            raise UserError(f"{path}: not readable as {encoding}: {error}; set {key}") from error
        if "\0" in text:
            raise _with_nul(block or b"", text, path, encoding, codec, key, lines=lines)
        if position == 0:
            text = text.lstrip("\ufeff")
            _refuse_swapped(text, path, codec, key)
        position += len(block or b"")
        lines += text.count("\n")
        if block is not None or text:
            yield text


def _codec(encoding: str, key: str) -> str:
    """The codec of an encoding of texts."""
    try:
        codec = codecs.lookup(encoding).name
        with suppress(UnicodeError):
            b"a".decode(codec)  # fails for the codecs that make bytes of bytes, such as hex
    except (LookupError, ValueError) as error:
        named = {*encodings.aliases.aliases.values()} - {"mbcs", "oem"}  # on Windows alone
        line = f"{as_option(key, encoding)}: there is no such encoding of texts"
        near = difflib.get_close_matches(encoding.lower().replace("-", "_"), named, n=1)
        if not near:
            raise UserError(line) from error
        option = as_option(key, near[0].replace("_", "-"))
        raise Mendable(f"{line}; did you mean {option}?", option) from error
    return codec


def marked_encoding(raw: bytes) -> str | None:
    """Return the encoding whose byte-order mark some bytes begin with; None if with no mark.

    Example:
        >>> marked_encoding("a".encode("utf-16")), marked_encoding(b"a")
        ('utf-16', None)
    """
    return next((name for mark, name in BYTE_ORDER_MARKS.items() if raw.startswith(mark)), None)


def _refuse_other_mark(raw: bytes, path: str, codec: str, key: str) -> None:
    """Refuse a byte-order mark that is of another encoding than the one that is set."""
    marked = marked_encoding(raw)
    if marked is not None and not codec.startswith(marked):
        option = as_option(key, marked)
        raise Mendable(f"{path}: it begins with the mark of {marked}; set {option}", option)


def _not_readable(
    path: str,
    error: UnicodeDecodeError,
    encoding: str,
    codec: str,
    key: str,
    *,
    before: int = 0,
    lines: int = 0,
) -> UserError:
    """Say which byte is wrong, and name an encoding that reads it.

    Args:
        path: the file.
        error: of the codec, with the bytes that it had.
        encoding: as the user gave it.
        codec: its usual name.
        key: the option that sets it.
        before: bytes of the file that the codec had before these.
        lines: line ends in them.
    """
    raw = error.object
    found = f"byte {raw[error.start]:#04x} at position {before + error.start:,}"
    if codec == "utf-8" and (wrong := wrong_bytes(raw)):
        line = lines + raw.count(b"\n", 0, error.start) + 1
        others = f", and {wrong - 1:,} more" if wrong > 1 else ""
        return UserError(
            f"{path}: {found} (line {line:,}{others}) is not {encoding}, and all else is;"
            " repair the text there, or remove it"
        )
    guesses = guess_encodings(raw, codec)
    readings = [
        f"to {guess}, which reads {_around(raw, error.start, guess).decode(guess, 'replace')!r}"
        for guess in guesses
    ]
    return Mendable(
        f"{path}: {found} is not {encoding}; set {key}, for example {', or '.join(readings)} there",
        as_option(key, guesses[0]),
    )


def _with_nul(
    raw: bytes, text: str, path: str, encoding: str, codec: str, key: str, *, lines: int = 0
) -> UserError:
    """Say where a text holds NUL characters. Arguments are as for `_not_readable`."""
    guess, *_ = guess_encodings(raw, codec)
    line = lines + text.count("\n", 0, text.index("\0")) + 1
    other = f", as {guess} read as {encoding} does; set {key}, or" if guess != codec else ";"
    return UserError(f"{path}: it holds NUL characters (line {line:,}){other} remove them")


@dataclass
class EncodingSigns:
    """What shows that texts were read in another encoding than they were written in."""

    controls: int = 0
    """Characters that are invisible controls."""
    beyond: int = 0
    """Texts that are not ASCII alone."""
    marked: int = 0
    """Those that begin with a byte-order mark."""
    garbled: int = 0
    """Texts that look like UTF-8 read as cp1252."""
    example: tuple[str, str] | None = None
    """The first garbled text, and what it was before."""

    def add(self, texts: Sequence[Any]) -> None:
        """Look at texts; other values are passed over."""
        beyond = [text for text in texts if isinstance(text, str) and not text.isascii()]
        self.beyond += len(beyond)
        self.marked += sum(text.startswith("\ufeff") for text in beyond)
        self.controls += sum(len(CONTROLS.findall(text)) for text in beyond)
        for text in beyond:
            if (whole := _ungarbled(text)) is not None:
                self.garbled += 1
                self.example = self.example or (text, whole)

    def notes(self, place: str, key: str) -> list[str]:
        """Say it of all texts that were looked at.

        Args:
            place: the file, for messages.
            key: the option that sets the encoding.
        """
        notes = []
        if self.marked:
            begin = "1 text begins" if self.marked == 1 else f"{self.marked:,} texts begin"
            notes.append(
                f"{place}: {begin} with a byte-order mark (U+FEFF), as where files were joined; it"
                " is read as part of the text"
            )
        if self.controls:
            one = self.controls == 1
            are = "1 character is an" if one else f"{self.controls:,} characters are"
            notes.append(
                f"{place}: {are} invisible control{'' if one else 's'}; in cp1252 their"
                f" bytes are quotes, dashes and €: {as_option(key, 'cp1252')} may be the right one,"
                " unless the file was written so"
            )
        if self.example is not None and self.garbled > self.beyond / 2:
            look = "1 text looks" if self.garbled == 1 else f"{self.garbled:,} texts look"
            before, after = self.example
            pairs = enumerate(zip(before, after, strict=False))
            at = max(0, next(n for n, (old, new) in pairs if old != new) - _SHOWN)
            notes.append(
                f"{place}: {look} like utf-8 that was read as cp1252"
                f" ({before[at:][: 2 * _SHOWN]!r} for {after[at:][: 2 * _SHOWN]!r}):"
                f" {as_option(key, 'utf-8')} may be the right one, unless the file was written so"
            )
        return notes


def _ungarbled(text: str) -> str | None:
    """What a text was if its UTF-8 was read as cp1252 or latin-1; none if it was not."""
    for codec in ("cp1252", "latin-1"):
        try:
            return text.encode(codec).decode("utf-8")
        except UnicodeError:
            continue
    return None


def whole_characters(text: str) -> tuple[str, int]:
    """Put U+FFFD in the place of half characters (lone surrogates), and count them."""
    return SURROGATES.subn(REPLACEMENT, text)


def _unpacked(raw: bytes, path: str) -> bytes:
    """Unpack what gzip and its like packed, and refuse files that hold no text."""
    if is_packed(raw):
        raw = b"".join(unpacked([raw], path))
        if is_packed(raw):
            raise UserError(f"{path}: it is packed twice; unpack it once")
    refuse_no_text(raw, path)
    return raw


def refuse_no_text(raw: bytes, path: str, *, but: bytes = b"") -> None:
    """Refuse a file whose first bytes say that it holds no table of texts.

    Args:
        raw: its bytes, the first 512 at least.
        path: the file, for messages.
        but: beginning of the files that are right.

    Raises:
        UserError: saying what it is.
    """
    for mark, kind in NO_TEXT.items():
        if raw.startswith(mark) and mark != but:
            raise UserError(f"{path}: it is {kind}")
    if raw[_TAR_AT:].startswith(b"ustar"):
        raise UserError(f"{path}: it is a tar archive; unpack it")


def refuse_page(path: Path) -> None:
    """Refuse a web page in the place of a table, as servers answer for data that they lack."""
    with path.open("rb") as file:
        begin = file.read(64).removeprefix(codecs.BOM_UTF8).lstrip().lower()
    for mark, kind in _PAGES.items():
        if begin.startswith(mark):
            raise UserError(f"{path}: it is {kind}")


def _around(raw: bytes, place: int, guess: str) -> bytes:
    """The cell of a table, or the line, in which a byte stands, cut to a few words."""
    start = max(raw.rfind(mark, 0, place) for mark in (b"\n", b"\r", b",", b"\t", b";", b'"')) + 1
    start = max(start, place - _SHOWN)
    if guess.startswith("utf-16"):
        start += start % 2
    return re.split(rb'[\r\n,\t;"]', raw[start:][: 2 * _SHOWN])[0]
