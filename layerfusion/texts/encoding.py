"""Text files as strings: unpacked, decoded, and refused with the encoding that would read them."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from pathlib import Path

from layerfusion.config.options import as_option
from layerfusion.errors import UserError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
GZIP = b"\x1f\x8b"
NO_TEXT = {
    b"PK\x03\x04": "a zip archive, as Excel's .xlsx is too; unpack it, or save it as csv",
    b"PAR1": "a parquet file; give it a name that ends in .parquet",
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls); save it as csv",
}
"""What files begin with that hold no text, and what they are."""
CONTROLS = re.compile("[\x80-\x9f]")
"""Letters and quotes in cp1252, but invisible controls in latin-1, where no text has them."""
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
    if path.suffix.lower() == ".gz" and not raw.startswith(GZIP):
        raise UserError(f"{path}: cannot be read: its name ends in .gz, and gzip did not pack it")
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
        raise UserError(
            f"{path}: {found} is not {encoding}; set {key}, for example to {_guess(raw, codec)}"
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
    """Unpack what gzip packed, and refuse files that hold no text."""
    if raw.startswith(GZIP):
        try:
            return gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"{path}: cannot be read: {reason[0]}") from error
    for mark, kind in NO_TEXT.items():
        if raw.startswith(mark):
            raise UserError(f"{path}: it is {kind}")
    return raw


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
        return "cp1252" if windows else "latin-1"
    return "utf-8"
