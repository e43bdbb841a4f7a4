"""Doubts about the names of classes: what may be one class, what may be none, what is no name."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation

from layerfusion.errors import short
from layerfusion.texts.cells import NO_LABEL

GAPS = {
    "nan", "nat", "none", "null", "nil", "na", "n/a", "n.a.", "#n/a", "<na>", "\\n", "unknown",
    "undefined", "missing", "-", "?", "-1",
}  # fmt: skip
"""What programs write for a missing value, in lower case."""
_AROUND = "\"'`“”‘’«».,;:"
"""Marks around a name that make no other class of it."""
_LOOKS_LIKE = str.maketrans(
    "асԁеһіјкмоԛрѕтухАВСЕНІЈКМОРЅТХУΑΒΕΖΗΙΚΜΝΟΡΤΥΧονıΙ",
    "acdehijkmoqpstyxABCEHIJKMOPSTXYABEZHIKMNOPTYXoviI",
)
"""Letters of Cyrillic and Greek that look like Latin ones."""
_UNSEEN = re.compile("[\u034f\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Marks without a form of their own, such as that which gives a sign its colours (`❤️`)."""
_YES_OR_NO = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y", "on"), "yes"),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n", "off"), "no"),
}
"""What people write for yes and for no, in lower case."""
_PRINTED = re.compile(
    r"""b?'.+'|b?".+"|[\[({]['"].+['"],?[\])}]|(tensor|array|np\.\w+)\(.+\)""", re.DOTALL
)
"""A value as Python prints it: `b'good'`, `['good']`, `tensor(1)`; or a name in quotation marks."""


def notes_on_names(names: Sequence[str], way_out: str) -> tuple[str, ...]:
    """Notes on classes that may be one, or none.

    These are the same but for case, marks around them or marks that nobody sees; or named like a
    gap, or as a program prints a value.
    """
    notes = [
        f"labels: {' and '.join(map(written_out, same))} are different classes; if they are one,"
        " write them the same"
        for same in alike_names(names)
    ]
    notes += [
        f"labels: {short(name)} is a class of its own; if it marks rows without a label, {way_out}"
        for name in names
        if name.casefold() in GAPS and not (name == str(NO_LABEL) and len(names) == 2)
    ]
    if printed := [name for name in names if _PRINTED.fullmatch(name)]:
        are = "is a name" if len(printed) == 1 else "and the like are names"
        notes.append(
            f"labels: {short(printed[0])} {are} with what Python or another program prints around"
            " it; if that is no part of it, write it without"
        )
    return tuple(notes)


def alike_names(names: Iterable[str]) -> list[list[str]]:
    """Group names that are the same but for case, letters that look alike, and marks.

    The marks are those around a name, and those that nobody sees. Where all names are words of yes
    and no, those that say the same are grouped.
    """
    names = list(names)
    alike: dict[str | Decimal, list[str]] = {}
    yes_or_no = len(names) > 2 and all(name.casefold() in _YES_OR_NO for name in names)
    for name in names:
        form = _UNSEEN.sub("", unicodedata.normalize("NFKC", html.unescape(name)))
        form = "".join(c for c in form if c.isprintable())
        form = _YES_OR_NO[name.casefold()] if yes_or_no else form.translate(_LOOKS_LIKE)
        form = re.sub(r"(?<=\w)[-_\s]+(?=\w)", " ", form.strip(f"{_AROUND} \t\r\n").casefold())
        plain = as_number(name.strip())  # before the point of `.5` counts as a mark around it
        number = as_number(form) if plain is None else plain
        alike.setdefault(form or name if number is None else number, []).append(name)
    return [same for same in alike.values() if len(same) > 1]


def as_number(form: str) -> Decimal | None:
    """A number without rounding, so that `01`, `+1` and `1e0` are alike; none for what is none."""
    try:
        number = Decimal(form)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def written_out(name: str) -> str:
    """A name in quotes, with marks and letters that nobody sees in their place written out."""
    looks_latin = not name.isascii() and name.translate(_LOOKS_LIKE).isascii()
    unseen = looks_latin or _UNSEEN.search(name) is not None
    visible = unicodedata.is_normalized("NFC", name) and not unseen
    return short(name) if visible else ascii(name)
