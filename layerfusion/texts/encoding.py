"""Text files as strings: unpacked, decoded, and refused with the encoding that would read them."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path

from charset_normalizer import from_bytes

from layerfusion.config.options import as_option
from layerfusion.config.registry import PACKED
from layerfusion.errors import UserError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_UNPACK: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
}
"""What packed files begin with, in the order of `PACKED`, to what unpacks them."""
NO_TEXT = {
    b"PK\x03\x04": "a zip archive, as Excel's .xlsx is too; unpack it, or save it as csv",
    b"PAR1": "a parquet file; give it a name that ends in .parquet",
    b"ARROW1": "an Arrow file; give it a name that ends in .arrow",
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls); save it as csv",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"Rar!\x1a\x07": "a rar archive; unpack it",
    b"SQLite format 3\x00": "an SQLite database; export its table as csv",
    b"%PDF-": "a PDF file; save its texts as csv",
    b"\x93NUMPY": "a NumPy array; save its texts as csv",
    b"version https://git-lfs": "a Git LFS pointer, which stands for the data; `git lfs pull`"
    " fetches them",
}
"""What files begin with that hold no table of texts, and what they are."""
_TAR_AT = 257
"""Where a tar archive says that it is one."""
CONTROLS = re.compile("[\x80-\x9f]")
"""Letters and quotes in cp1252, but invisible controls in latin-1, where no text has them."""
_MANY_BYTES = ("gb18030", "big5", "shift_jis", "euc_jp", "euc_kr")
_ONE_BYTE = ("cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256", "tis_620")
"""Encodings of other scripts that are proposed, by how they write a character."""
_FEW = 20
"""With fewer bytes beyond ASCII, no script is guessed."""
_COHERENT, _CHAOTIC = 0.2, 0.05
"""More of `charset_normalizer`'s coherence, or less of its chaos, is a likely guess."""
_SHOWN = 20
"""Bytes to each side of a wrong one that a message shows at most."""
SURROGATES = re.compile("[\ud800-\udfff]")
"""Halves of a character that no encoding can write. JSON can spell them out one by one."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def read_text(path: Path, encoding: str, key: str = "dataset.encoding") -> str:
    """Read a text file whole. A byte-order mark is left out, line ends stay as they are.

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
    suffix = path.suffix.lower()
    if suffix in PACKED and not raw.startswith(list(_UNPACK)[PACKED.index(suffix)]):
        raise UserError(
            f"{path}: cannot be read: its name ends in {suffix}, and it is not packed so"
        )
    return decoded(raw, str(path), encoding, key)


def decoded(raw: bytes, path: str, encoding: str, key: str) -> str:
    """Give the text of a file's bytes. Arguments and errors are as for `read_text`."""
    try:
        codec = codecs.lookup(encoding).name
        b"".decode(codec)  # fails for the codecs that make bytes of bytes, such as hex
    except LookupError as error:
        raise UserError(
            f"{as_option(key, encoding)}: there is no such encoding of texts"
        ) from error
    raw = _unpacked(raw, path)
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if raw.startswith(mark)), None)
    if marked is not None and not codec.startswith(marked):
        raise UserError(
            f"{path}: it begins with the mark of {marked}; set {as_option(key, marked)}"
        )
    try:
        text = raw.decode(codec).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        found = f"byte {raw[error.start]:#04x} at position {error.start:,}"
        guess = _guess(raw, codec)
        word = _around(raw, error.start).decode(guess, errors="replace")
        raise UserError(
            f"{path}: {found} is not {encoding}; set {key}, for example to {guess}, which reads"
            f" {word!r} there"
        ) from error
    except UnicodeError as error:  # UTF-16 without a mark, for one
        raise UserError(f"{path}: not readable as {encoding}: {error}; set {key}") from error
    if "\0" in text:
        raise UserError(
            f"{path}: it holds NUL characters, as {_guess(raw, codec)} read as {encoding} does; set"
            f" {key}, or remove them"
        )
    return text


def encoding_notes(path: Path, text: str, key: str = "dataset.encoding") -> tuple[str, ...]:
    """Note the controls that a text holds where its file is cp1252 and was read as latin-1."""
    controls = len(CONTROLS.findall(text))
    if not controls:
        return ()
    return (
        f"{path.name}: {controls:,} characters are invisible controls; in cp1252 their bytes are"
        f" quotes, dashes and €: {as_option(key, 'cp1252')} may be the right one",
    )


def whole_characters(text: str) -> tuple[str, int]:
    """Put U+FFFD in the place of half characters (lone surrogates), and count them."""
    return SURROGATES.subn(REPLACEMENT, text)


def _unpacked(raw: bytes, path: str) -> bytes:
    """Unpack what gzip and its like packed, and refuse files that hold no text."""
    for mark, unpack in _UNPACK.items():
        if raw.startswith(mark):
            try:
                raw = unpack(raw)
                break
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                if raw.isascii():
                    break  # a text that begins with the same letters
                reason = str(error).strip().splitlines() or [type(error).__name__]
                raise UserError(f"{path}: cannot be read: {reason[0]}") from error
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


def _guess(raw: bytes, asked: str) -> str:
    """The encoding that these bytes most likely have, other than the one that was asked for."""
    sample = raw[: 1 << 16]
    if sample.count(0) > len(sample) // 5:
        little = sample[1::2].count(0) >= sample[::2].count(0)
        return "utf-16-le" if little else "utf-16-be"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        windows = asked != "cp1252" and any(0x80 <= byte <= 0x9F for byte in sample)
        return _other_script(sample, asked) or ("cp1252" if windows else "latin-1")
    return "utf-8"


def _other_script(sample: bytes, asked: str) -> str | None:
    """The encoding of a text in another script than the Latin one; none if it looks like none."""
    others = [name for name in (*_MANY_BYTES, *_ONE_BYTE) if codecs.lookup(name).name != asked]
    found = from_bytes(sample, cp_isolation=[*others, "cp1252", "latin_1"])
    best = max(found, key=lambda one: one.coherence - one.chaos, default=None)
    if best is None or sum(byte >= 0x80 for byte in sample) < _FEW:
        return None
    likely = best.coherence > _COHERENT or (best.encoding in _MANY_BYTES and best.chaos < _CHAOTIC)
    return best.encoding if likely and best.encoding in others else None


def _around(raw: bytes, place: int) -> bytes:
    """The cell of a table, or the line, in which a byte stands, cut to a few words."""
    start = max(raw.rfind(mark, 0, place) for mark in (b"\n", b"\r", b",", b"\t", b";", b'"')) + 1
    return re.split(rb'[\r\n,\t;"]', raw[max(start, place - _SHOWN) :][: 2 * _SHOWN])[0]
