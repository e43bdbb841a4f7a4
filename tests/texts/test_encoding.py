from __future__ import annotations

import gzip
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from layerfusion.errors import UserError
from layerfusion.texts.encoding import EncodingSigns, read_text, whole_characters


def encoding_notes(place: str, texts: Sequence[Any], key: str) -> list[str]:
    signs = EncodingSigns()
    signs.add(texts)
    return signs.notes(place, key)


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
        ("utf-8", "utf9", "did you mean dataset.encoding=utf-8"),
        ("utf-8", "a\0b", "there is no such encoding"),
        ("utf-16-le", "utf-16-be", "the other way round; set dataset.encoding=utf-16-le"),
        ("utf-16-be", "utf-16", "the other way round; set dataset.encoding=utf-16-be"),
        ("utf-8", "hex", "there is no such encoding"),
        ("utf-8", "rot13", "there is no such encoding"),
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
    path, key = tmp_path / "a.csv", "dataset.encoding"
    path.write_bytes(TYPED.encode("cp1252"))
    (note,) = encoding_notes("a.csv", [read_text(path, "latin-1")], key)
    assert note.startswith("a.csv: 5 characters are invisible controls")
    assert "dataset.encoding=cp1252" in note
    assert encoding_notes("a.csv", [read_text(path, "cp1252")], key) == []


def test_files_that_are_cut_off_and_nul_characters_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text,label\n" * 100)[:-20])
    with pytest.raises(UserError, match=r"a\.csv\.gz: cannot be read"):
        read_text(tmp_path / "a.csv.gz", "utf-8")
    (tmp_path / "b.csv").write_bytes(b"text,label\na\0b,x\n")
    with pytest.raises(UserError, match=r"NUL characters \(line 2\); remove them"):
        read_text(tmp_path / "b.csv", "utf-8")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "a Git LFS pointer"),
        (b"# xet version 0\nfilesize = 12\n", "a pointer of Xet"),
        (pickle.dumps(["text"]), "a pickle"),
        (b"\x04\x22\x4d\x18 and so on", "packed by lz4"),
        (b"Obj\x01\x04 and so on", "an Avro file"),
    ],
)
def test_what_stands_for_data_is_named_whatever_it_is_called(
    tmp_path: Path, content: bytes, what: str
) -> None:
    for name in ("a.csv", "a.csv.gz", "a.txt"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: it is {what}"):
            read_text(tmp_path / name, "utf-8")


def test_the_word_that_is_shown_is_whole_in_utf_16(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text,label\nschön und gut,x\n".encode("utf-16-le") * 20)
    with pytest.raises(UserError, match="utf-16-le, which reads 'schön und gut"):
        read_text(tmp_path / "a.csv", "utf-8")


def test_half_characters_are_replaced_and_counted() -> None:
    assert whole_characters("a\ud83db\udc00") == ("a\ufffdb\ufffd", 2)
    assert whole_characters("\U0001f600") == ("\U0001f600", 0)


OF_LANGUAGES = {
    "cp1250": [
        "Obsługa bardzo słaba, nigdy więcej nie kupię",
        "Tento výrobek je skvělý, všem doporučuji",
        "A csomag későn érkezett, őszintén csalódtam, a kiszolgálás szörnyű volt",
        "Acest produs este minunat, îl recomand şi mulţumesc",
        "Pošiljka je stigla kasno, više nikad neću kupiti, baš šteta",
    ],
    "iso8859_2": ["Przesyłka przyszła spóźniona, ale gorąco polecam sklep"],
    "cp1251": ["Этот товар отличный, всем рекомендую"],
    "koi8_r": ["Этот товар отличный, всем рекомендую"],
    "cp866": ["Этот товар отличный, всем рекомендую"],
    "cp1253": ["Αυτό το προϊόν είναι υπέροχο, το συνιστώ σε όλους"],
    "cp1254": ["Bu ürün harika, herkese tavsiye ederim, çok beğendim, hızlı kargo"],
    "cp1255": ["המוצר הזה נהדר, ממליץ לכולם, המשלוח הגיע באיחור"],
    "cp1256": ["هذا المنتج رائع جدا وأنصح به الجميع"],
    "cp1257": ["Siuntinys atėjo vėlai, žiauriai, daugiau nepirksiu, ačiū, jūsų kainos"],
    "cp1258": ["Di\u0323ch vu\u0323 quá tê\u0323, tôi se\u0303 không bao giơ\u0300 mua đươ\u0323c"],
    "cp874": ["สินค้านี้ดีมาก แนะนำให้ทุกคน"],
    "cp1252": [
        "café “x” " * 40,
        "Ce produit est génial… c’est dommage à ce prix",
        "it’s a “great” film",
    ],
    "latin-1": [
        "Die Bedienung war äußerst schlecht, schön ärgerlich",
        "El envío llegó tarde y mal, ¡qué decepción! Mañana",
        "café, naïve, Zürich, jalapeño",
    ],
    "mac_roman": ["“Très mauvais” à l’arrivée, le colis est abîmé…"],
}


@pytest.mark.parametrize(
    ("encoding", "text"),
    [(encoding, text) for encoding, texts in OF_LANGUAGES.items() for text in texts],
)
def test_the_encoding_of_a_language_is_proposed(tmp_path: Path, encoding: str, text: str) -> None:
    rows = "text,label\n" + "an English row,good\n" * 6000  # more than is looked at
    (tmp_path / "a.csv").write_bytes(f"{rows}{text},bad\n".encode(encoding))
    with pytest.raises(UserError, match=f"for example to {encoding}, which reads"):
        read_text(tmp_path / "a.csv", "utf-8")


@pytest.mark.parametrize(
    ("encoding", "text", "first"),
    [
        ("koi8_r", "хороший фильм", "koi8_r"),
        ("koi8_r", "фильм", "koi8_r"),
        ("koi8_r", "ПЛОХО", "cp1251"),
        ("cp1251", "ПЛОХО", "koi8_r"),
        ("cp1251", "хороший фильм", "cp1251"),
        ("iso8859_5", "хороший фильм", "iso8859_5"),
        ("cp1250", "się", "latin-1"),
    ],
)
def test_a_text_too_short_to_be_sure_is_shown_in_each_encoding_that_fits(
    tmp_path: Path, encoding: str, text: str, first: str
) -> None:
    (tmp_path / "a.csv").write_bytes(f"text,label\n{text},bad\n".encode(encoding))
    with pytest.raises(UserError) as error:
        read_text(tmp_path / "a.csv", "utf-8")
    assert f"for example to {first}, which reads" in str(error.value)
    assert f"to {encoding}, which reads {text!r}" in str(error.value)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        *(("gb18030", text) for text in ("很好", "好", "差评", "太差了", "物流很快")),
        *(("big5", text) for text in ("很棒", "不好", "這個很便宜")),
        *(("shift_jis", text) for text in ("良い", "最高", "とても良い", "ダメ")),
        *(("euc_jp", text) for text in ("すごい", "とても良い")),
        *(("euc_kr", text) for text in ("좋아요", "최고", "별로예요")),
    ],
)
def test_a_few_eastern_characters_are_read_in_their_encoding(
    tmp_path: Path, encoding: str, text: str
) -> None:
    (tmp_path / "a.csv").write_bytes(f"text,label\n{text},bad\n".encode(encoding))
    with pytest.raises(UserError, match=f"for example to {encoding}, which reads {text!r}"):
        read_text(tmp_path / "a.csv", "utf-8")


def test_a_long_text_has_one_likely_encoding(tmp_path: Path) -> None:
    rows = "хороший фильм, смотреть можно не один раз,good\n" * 20
    (tmp_path / "a.csv").write_bytes(f"text,label\n{rows}".encode("koi8_r"))
    with pytest.raises(UserError, match=r"for example to koi8_r, which reads '[^']*' there$"):
        read_text(tmp_path / "a.csv", "utf-8")


def test_some_wrong_bytes_do_not_make_all_else_another_encoding(tmp_path: Path) -> None:
    lines = [f"café {number}".encode() for number in range(20)]
    lines[3], lines[7] = b"caf\xe9", "so“".encode()[:-1]
    (tmp_path / "a.txt").write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=r"0xe9 at position 27 \(line 4, and 1 more\) .* all else"):
        read_text(tmp_path / "a.txt", "utf-8")


def test_utf_8_that_was_read_as_cp1252_is_noted() -> None:
    texts = ["plain", "It costs 5 €, ‘naïve’ café", "Spaß…"]
    for wrong in ("cp1252", "latin-1"):
        read = [text.encode().decode(wrong) for text in texts[:2]]
        *_, note = encoding_notes("a.csv", read, "--encoding")
        assert note.startswith("a.csv: 1 text looks like utf-8 that was read as cp1252")
        assert "€" in note
        assert "--encoding utf-8 may be the right one" in note
    assert encoding_notes("a.csv", [*texts, None, 7], "--encoding") == []
