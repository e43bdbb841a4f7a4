"""The encoding that the bytes of a text most likely have, for a message that proposes one.

Long texts in another script than the Latin one are told by how often their letters come, as
`charset_normalizer` counts it. That needs many letters, and the encodings of Latin letters differ
in few bytes. In other texts, an encoding is likely under which all letters beyond ASCII are of one
language.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter

from charset_normalizer import from_bytes

_SAMPLE = 1 << 16
"""Bytes of a file that are looked at, from the first line with one beyond ASCII."""
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_MANY_BYTES = ("gb18030", "big5", "shift_jis", "euc_jp", "euc_kr")
_ONE_BYTE = ("cp1251", "koi8_r", "cp866", "cp1253", "cp1255", "cp1256", "cp874")
"""Encodings of other scripts that are proposed, by how they write a character."""
_FEW = 20
"""With fewer bytes beyond ASCII, no script is guessed."""
_COHERENT, _CHAOTIC = 0.2, 0.05
"""More of `charset_normalizer`'s coherence, or less of its chaos, is a likely guess."""

_WESTERN = (
    "éèêñïöüçáàóôíä",  # foreign words in English
    "àâæçéèêëîïôœùûüÿ",  # French
    "äöüß",  # German
    "áéíñóúüªº",  # Spanish
    "àçéèíïóòúü",  # Catalan
    "áâãàçéêíóôõúüªº",  # Portuguese
    "àèéìíîòóùúªº",  # Italian
    "åäöéü",  # Swedish, Finnish
    "æøåéôòóâêà",  # Danish, Norwegian
    "áéíóúýþæöð",  # Icelandic
    "áéëïóöüèêç",  # Dutch
    "äõöüšž",  # Estonian
)
_CENTRAL = (
    "ąćęłńóśźż",  # Polish
    "áäčďéěíĺľňóôŕřšťúůýž",  # Czech, Slovak
    "áéíóöőúüű",  # Hungarian
    "ăâîşţ",  # Romanian
    "čćđšž",  # Croatian, Slovene
)
_TURKISH = ("çğıİöşüâîû",)
_BALTIC = ("ąčęėįšųūž", "āčēģīķļņšūž")  # Lithuanian, Latvian
_VIETNAMESE = ("àáâãèéêìíòóôõùúýăđĩũơư\u0300\u0301\u0303\u0309\u0323",)  # with marks of tones
_RUSSIAN = ("абвгдеёжзийклмнопрстуфхцчшщъыьэюя",)
ALPHABETS = {
    "cp1252": _WESTERN,
    "cp1250": _CENTRAL,
    "iso8859_2": _CENTRAL,
    "cp1254": _TURKISH,
    "cp1257": _BALTIC,
    "cp1258": _VIETNAMESE,
    "mac_roman": _WESTERN,
    "cp850": _WESTERN,
    "cp1251": (*_RUSSIAN, "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя"),  # and Ukrainian
    "koi8_r": _RUSSIAN,
    "cp866": _RUSSIAN,
    "iso8859_5": _RUSSIAN,
    "cp1253": ("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ",),
    "cp1255": ("אבגדהוזחטיךכלםמןנסעףפץצקרשת",),
    "cp1256": (
        "ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىي\u064b\u064c\u064d\u064e\u064f\u0650\u0651،؛؟",
    ),
    "cp874": ("".join(map(chr, range(0x0E01, 0x0E5C))),),
}
"""Encodings, likeliest first, to the alphabets beyond ASCII of the languages that they are for."""
_SCRIPTS = tuple(ALPHABETS)[list(ALPHABETS).index("cp1251") :]
"""Encodings whose letters never stand beside letters of ASCII in one word."""
_MARKS = "‘’“”„‚–—…•€£§©®™°´·«»‹›¿¡²½\xa0"
"""Marks that a text of any language may have."""
_MOSTLY = 4
"""A file with invalid bytes is UTF-8 if it has so many valid characters for each such byte."""
_SURE = 0.98
"""A text with such a fit is of a Western language, however its letters are counted elsewhere."""
_BETTER = 0.1
"""So much more of the letters have to fit an encoding than fit cp1252."""
_MANY = 200
"""With more bytes beyond ASCII, the guess is clear."""
_SEVERAL = 3
"""Most encodings that are proposed for a text that is too short to be sure."""
_SELDOM = ("mac_roman", "cp850", "iso8859_2", "cp1258")
"""Encodings of Latin letters that are proposed only where they fit better than all others."""
_COMMON = {
    **dict.fromkeys(("cp1251", "koi8_r", "cp866", "iso8859_5"), "оеаинтсрвлкмд"),
    "cp1253": "αοιετσνηυρπκς",
    "cp1255": "יוהלאמרבתשםנ",
    "cp1256": "اليمونرتبةعد",
    "cp874": "านรอกเงมยลวดท่้ี",
}
"""Encodings of a script to its commonest letters, which are about three of four in a text."""


_KANA = (
    "".join(map(chr, range(0x3041, 0x30FB)))
    + "ー最高良悪人気大好本当日年中上下小新店品料理買思見食"
)
_HANZI = (
    "的一是了不在有人中大上我到好和地出也年得就那要下以生自去之可她里小么心多天而能都然日起成"
    "事只作想看文手用方又如前本面公同三已老工很太差非常喜欢推荐值快慢物流包装服务质量便宜贵电影"
    "店家客服买卖收货退发商品评垃圾满意失望漂亮精彩最真棒"
    "這個們說來國對時過沒會還後電價錢買賣貨評質務裝貴氣開讓覺無聊"
)
_HANGUL = (
    "이다는을가에고하지의도로사한어리기자나대시부인보수정그아스일라해서만은들있게제마우주원장과상전"
    "거구동조여비요오실안신좋습니너무배송최별말안영화추천품질"
)
_EASTERN = {
    "gb18030": ("gb2312", b"\xb0\xa1", b"\xd7\xf9", _HANZI),
    "big5": ("big5", b"\xa4\x40", b"\xc6\x7e", _HANZI),
    "shift_jis": ("shift_jis", b"\x82\x9f", b"\x98\x72", _KANA),
    "euc_jp": ("euc_jp", b"\xa4\xa1", b"\xcf\xd3", _KANA),
    "euc_kr": ("euc_kr", b"\xb0\xa1", b"\xc8\xfe", _HANGUL),
}
"""Eastern encodings to the codec, the first and the last code of their commoner characters, and
the commonest of these in what people write about things."""
_HALF = 0.5
"""Where so many characters are among the commonest, an Eastern encoding is proposed first."""


def guess_encodings(raw: bytes, asked: str) -> list[str]:
    """Guess the encoding of a text.

    Args:
        raw: its bytes.
        asked: name of the codec that does not fit, and is not proposed.

    Returns:
        The likeliest one, and where a text is too short to be sure, others under which it reads in
        another way, but all letters are of one language as well.
    """
    start = raw[:_SAMPLE]
    if start.count(0) > len(start) // 5:
        little = start[1::2].count(0) >= start[::2].count(0)
        return ["utf-16-le" if little else "utf-16-be"]
    beyond = _BEYOND_ASCII.search(raw)
    line = raw.rfind(b"\n", 0, beyond.start()) + 1 if beyond else 0
    sample = raw[line:][:_SAMPLE]
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        fits = _fits(sample, asked)
        western = fits.get("cp1252", 0.0) >= _SURE
        first = (None if western else _other_script(sample, asked)) or _likeliest(fits, sample)
        sure = sum(byte >= 0x80 for byte in sample) > _MANY
        ranked = _ranked(first, fits, sample)
        return ranked[:1] if sure else _with_eastern(ranked, sample, asked)[:_SEVERAL]
    return ["utf-8"]


def wrong_bytes(raw: bytes) -> int | None:
    """Count the places of a text in UTF-8 that are not; none where it is hardly in UTF-8 at all."""
    text = raw.decode("utf-8", errors="replace")
    wrong = text.count("\ufffd")
    whole = sum(not letter.isascii() for letter in text) - wrong
    return wrong if whole >= _MOSTLY * wrong else None


def _other_script(sample: bytes, asked: str) -> str | None:
    """The encoding of a text in another script than the Latin one; none if it looks like none."""
    others = [name for name in (*_MANY_BYTES, *_ONE_BYTE) if codecs.lookup(name).name != asked]
    found = from_bytes(sample, cp_isolation=[*others, "cp1252", "latin_1"])
    best = max(found, key=lambda one: one.coherence - one.chaos, default=None)
    if best is None or sum(byte >= 0x80 for byte in sample) < _FEW:
        return None
    likely = best.coherence > _COHERENT or (best.encoding in _MANY_BYTES and best.chaos < _CHAOTIC)
    likely = likely and not _is_half_width(sample.decode(best.encoding, errors="replace"))
    return best.encoding if likely and best.encoding in others else None


def _with_eastern(names: list[str], sample: bytes, asked: str) -> list[str]:
    """Add the Eastern encodings that fit a short text, in front where its characters are common.

    A short text may as well be in a single-byte encoding, which the readings tell.
    """
    shares = {
        name: share
        for name in _EASTERN
        if codecs.lookup(name).name != asked and (share := _eastern(sample, name)) is not None
    }
    order = sorted(shares, key=lambda name: -shares[name])
    first = [name for name in order if shares[name] >= _HALF][:1]
    return list(dict.fromkeys([*first, *names[:1], *order, *names[1:]]))


def _eastern(sample: bytes, encoding: str) -> float | None:
    """Share of the commonest among the letters beyond ASCII under an Eastern encoding.

    None unless each of them is one of its first level, which holds what most texts are written in,
    and stands beside no letter of ASCII.
    """
    codec, low, high, common = _EASTERN[encoding]
    text = sample.decode(encoding, errors="replace")
    odd = re.compile("[\ufffd\ue000-\uf8ff]")  # what has no meaning of its own
    letters = [c for c in text if not c.isascii() and (c.isalpha() or odd.match(c))]
    if not letters or re.search(r"[A-Za-z][^\W\d_a-zA-Z]|[^\W\d_a-zA-Z][A-Za-z]", text):
        return None
    if not all(low <= letter.encode(codec, errors="ignore") <= high for letter in letters):
        return None
    return sum(letter in common for letter in letters) / len(letters)


def _is_half_width(text: str) -> bool:
    """Tell what no Japanese text is: letters of half the width, beside hardly any other."""
    beyond = [letter for letter in text if not letter.isascii()]
    half = sum("\uff61" <= letter <= "\uff9f" for letter in beyond)
    return 2 * half > len(beyond)


def _ranked(first: str, fits: dict[str, float], sample: bytes) -> list[str]:
    """The encoding that is guessed and those that fit as well: the likeliest, and then the others.

    Of these, the encodings of Russian go first, since files are in several of them.
    """
    if first in _MANY_BYTES:
        return [first]
    read = sample.decode(first, errors="replace")
    in_a_row = re.search(rb"[\x80-\xff]{2}", sample) is not None
    rivals = [
        name
        for name, fit in fits.items()
        if fit >= _SURE
        and name not in _SELDOM
        and (in_a_row or name not in _SCRIPTS)
        and sample.decode(name, errors="replace") != read
    ]
    best, *others = sorted([first, *rivals], key=lambda name: -_common(sample, name))
    return [best, *sorted(others, key=lambda name: _COMMON.get(name) != _COMMON["koi8_r"])]


def _common(sample: bytes, encoding: str) -> float:
    """Share of the letters beyond ASCII that are common ones under the encoding of a script.

    Several encodings may make a text of one script, and all but one of them of rare letters or of
    capitals, which count half. Latin letters beyond ASCII are too few to count, so that of their
    encodings is the half.
    """
    if encoding not in _COMMON:
        return 0.5
    letters = [c for c in sample.decode(encoding, errors="replace") if not c.isascii()]
    known = sum((c in _COMMON[encoding]) + (c.lower() in _COMMON[encoding]) for c in letters)
    return known / max(1, 2 * len(letters))


def _fits(sample: bytes, asked: str) -> dict[str, float]:
    """Encoding to the share of letters beyond ASCII under it that are of one language."""
    return {
        name: max(
            _fit(sample.decode(name, errors="replace"), alphabet, apart=name in _SCRIPTS)
            for alphabet in alphabets
        )
        for name, alphabets in ALPHABETS.items()
        if codecs.lookup(name).name != asked
    }


def _likeliest(fits: dict[str, float], sample: bytes) -> str:
    """The encoding of the best fit, the first of several; near that of cp1252, a Western one."""
    best = max(fits, key=lambda name: (min(fits[name], _SURE), _common(sample, name)))
    if best != "cp1252" and fits[best] > fits.get("cp1252", 0.0) + _BETTER:
        return best
    controls = any(0x80 <= byte <= 0x9F for byte in sample)
    return "cp1252" if controls and "cp1252" in fits else "latin-1"


def _fit(text: str, alphabet: str, *, apart: bool) -> float:
    """Share of a text's characters beyond ASCII that its language writes.

    A capital after a small letter is none of them, as other encodings make such of the `é` in
    `café`. Nor is one beside a letter of ASCII, where the letters stand `apart`, and where they do
    not, one between two others beyond ASCII.
    """
    known, total = 0, 0
    around = zip(f" {text}", text, f"{text[1:]} ", strict=False)
    for (before, letter, after), count in Counter(around).items():
        if not letter.isascii():
            total += count
            of_language = letter in alphabet or letter.lower() in alphabet
            strange = letter.isupper() and before.islower()
            beside = [c for c in (before, after) if c.isalpha()]
            if apart:
                strange |= any(c.isascii() for c in beside)
            else:
                strange |= len(beside) == 2 and not any(c.isascii() for c in beside)
            known += count * ((of_language and not strange) or letter in _MARKS)
    return known / total if total else 0.0
