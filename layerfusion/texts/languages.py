"""In which languages texts are written, and how long they are.

Languages are told by py3langid, a naive Bayes classifier of bytes. That suffices to say what a data
set is made of, and not to sort single texts, of which short ones often tell nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

SAMPLE = 2000
"""Most texts that are looked at."""
NOT_TOLD = "not told"
"""Stands for the texts whose language cannot be told, most of which are short."""
CONFIDENT = 0.2
"""Probability from which on a language is told, as py3langid recommends."""
LEAST = 0.05
"""Share of the texts from which on a language is named."""
MOSTLY = 0.5
"""Share of the texts that tell their language below which this is said too."""
_WITHOUT_SPACES = {"Burmese", "Chinese", "Japanese", "Khmer", "Lao", "Thai"}
"""Languages that put no spaces between words."""
_NO_LANGUAGE = "zxx"
"""Code of what is no language, such as numbers."""
_TOLD = """
    af=Afrikaans am=Amharic ar=Arabic as=Assamese az=Azerbaijani be=Belarusian bg=Bulgarian
    bn=Bengali br=Breton bs=Bosnian ca=Catalan cs=Czech cy=Welsh da=Danish de=German el=Greek
    en=English eo=Esperanto es=Spanish et=Estonian eu=Basque fa=Persian fi=Finnish fr=French
    ga=Irish gl=Galician gu=Gujarati ha=Hausa he=Hebrew hi=Hindi hr=Croatian hu=Hungarian
    hy=Armenian id=Indonesian ig=Igbo is=Icelandic it=Italian ja=Japanese jv=Javanese
    ka=Georgian kk=Kazakh km=Khmer kn=Kannada ko=Korean ku=Kurdish ky=Kyrgyz la=Latin lo=Lao
    lt=Lithuanian lv=Latvian mg=Malagasy mk=Macedonian ml=Malayalam mn=Mongolian mr=Marathi
    ms=Malay mt=Maltese my=Burmese ne=Nepali nl=Dutch no=Norwegian or=Odia pa=Punjabi pl=Polish
    ps=Pashto pt=Portuguese ro=Romanian ru=Russian rw=Kinyarwanda si=Sinhala sk=Slovak
    sl=Slovenian sn=Shona so=Somali sq=Albanian sr=Serbian sv=Swedish sw=Swahili ta=Tamil
    te=Telugu tg=Tajik th=Thai tl=Tagalog tr=Turkish tt=Tatar ug=Uyghur uk=Ukrainian ur=Urdu
    uz=Uzbek vi=Vietnamese xh=Xhosa yo=Yoruba zh=Chinese zu=Zulu
"""
"""Codes of ISO 639 and the languages that are told. Rarer ones are left out, as short texts of
others are taken for them."""


@dataclass(frozen=True)
class Writing:
    """The languages and lengths of some texts."""

    languages: dict[str, float]
    """Language to its share of the texts, the largest share first, `NOT_TOLD` last."""
    spaced: bool
    """True where words are counted, since practically all texts put spaces between them."""
    middle: int
    """Length of the middle text, in words, or in characters where words have no spaces."""
    most: int
    """Length up to which 95 of 100 texts are."""

    @property
    def words(self) -> str:
        """This in a clause, with shares of the texts that tell their language."""
        told = 1 - self.languages.get(NOT_TOLD, 0.0)
        shares = {one: own / told for one, own in self.languages.items() if one != NOT_TOLD}
        named = [f"{one} ({own:.0%})" for one, own in shares.items() if own >= LEAST]
        words = ", ".join(named) or "in no language that can be told"
        if named and told < MOSTLY:
            words += f" of the {told:.0%} that tell their language"
        unit = "words" if self.spaced else "characters"
        return (
            f"{words}; the middle one has {self.middle:,} {unit}, 95 of 100 have at most"
            f" {self.most:,}"
        )


def writing_of(texts: Sequence[str]) -> Writing:
    """Describe texts, or a sample of them that their order does not change.

    Args:
        texts: one or more.

    Example:
        >>> writing_of(["the cat is on the mat", "where is the dog?"]).languages
        {'English': 1.0}
    """
    different = sorted(set(texts))
    return _described(tuple(different[:: -(-len(different) // SAMPLE)]))


@lru_cache(maxsize=8)  # the jobs of a sweep describe the same texts
def _described(some: tuple[str, ...]) -> Writing:
    found = Counter(map(language_of, some))
    order = sorted(found, key=lambda one: (one == NOT_TOLD, -found[one], one))
    spaced = sum(found[language] for language in _WITHOUT_SPACES) < LEAST * len(some)
    lengths = [len(text.split()) if spaced else len(text) for text in some]
    middle, most = np.percentile(lengths, [50, 95], method="higher").tolist()
    shares = {one: found[one] / len(some) for one in order}
    return Writing(shares, spaced, int(middle), int(most))


def language_of(text: str) -> str:
    """Tell the language of a text; `NOT_TOLD` where nothing tells it.

    Example:
        >>> [language_of(text) for text in ("Das ist nicht der Hund", "今天天气很好", ":-)")]
        ['German', 'Chinese', 'not told']
    """
    code, _ = _identifier().classify(text)
    return _names().get(code, NOT_TOLD)


@cache
def _names() -> dict[str, str]:
    """Map each code to the name of its language."""
    pairs = [entry.partition("=") for entry in _TOLD.split()]
    return {code: name for code, _, name in pairs}


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(
        MODEL_FILE, norm_probs=True, min_confidence=CONFIDENT
    )
    identifier.set_languages([*_names(), _NO_LANGUAGE])
    return identifier
