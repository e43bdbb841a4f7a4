from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from layerfusion.errors import UserError
from layerfusion.texts.encoding import encoding_notes, read_text, whole_characters

TYPED = "the shop\u2019s \u201cparcel\u201d \u2013 5 \u20ac\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "utf-16-le"])
@pytest.mark.parametrize("name", ["a.csv", "A.CSV.GZ"])
def test_text_is_read_in_the_encoding_it_has(tmp_path: Path, encoding: str, name: str) -> None:
    raw = TYPED.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("GZ") else raw)
    asked = "utf-8" if encoding == "utf-8-sig" else encoding
    assert read_text(tmp_path / name, asked) == TYPED


@pytest.mark.parametrize(
    ("written", "asked", "advice"),
    [
        ("cp1252", "utf-8", "set dataset.encoding, for example to cp1252"),
        ("utf-16", "utf-8", "set dataset.encoding=utf-16"),
        ("utf-16-le", "utf-8", "utf-16-le"),
        ("utf-16-be", "latin-1", "utf-16-be"),
        ("utf-8-sig", "cp1252", "set dataset.encoding=utf-8"),
        ("utf-8", "ascii", "for example to utf-8"),
        ("utf-8", "nope", "there is no such encoding"),
    ],
)
def test_another_encoding_is_proposed(
    tmp_path: Path, written: str, asked: str, advice: str
) -> None:
    (tmp_path / "a.csv").write_bytes((TYPED * 20).encode(written))
    with pytest.raises(UserError, match=advice):
        read_text(tmp_path / "a.csv", asked)


def test_latin_1_that_is_latin_1_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    assert read_text(tmp_path / "a.txt", "latin-1") == "caf\xe9\n"
    with pytest.raises(UserError, match="for example to latin-1"):
        read_text(tmp_path / "a.txt", "utf-8")


def test_cp1252_that_is_read_as_latin_1_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(TYPED.encode("cp1252"))
    (note,) = encoding_notes(path, read_text(path, "latin-1"))
    assert note.startswith("a.csv: 5 characters are invisible controls")
    assert "dataset.encoding=cp1252" in note
    assert encoding_notes(path, read_text(path, "cp1252")) == ()


def test_files_that_are_cut_off_and_nul_characters_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text,label\n" * 100)[:-20])
    with pytest.raises(UserError, match=r"a\.csv\.gz: cannot be read"):
        read_text(tmp_path / "a.csv.gz", "utf-8")
    (tmp_path / "b.csv").write_bytes(b"text,label\na\0b,x\n")
    with pytest.raises(UserError, match="NUL"):
        read_text(tmp_path / "b.csv", "utf-8")


def test_half_characters_are_replaced_and_counted() -> None:
    assert whole_characters("a\ud83db\udc00") == ("a\ufffdb\ufffd", 2)
    assert whole_characters("\U0001f600") == ("\U0001f600", 0)
