"""In which languages texts are written, and how long they are, as far as their letters tell.

Nothing is learned and nothing is fetched: the script of a text tells its language, or a few letters
that only some languages of the script have. Languages of the Latin script are told by their
commonest words. That suffices to say what a data set is made of, and not to sort single texts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

SAMPLE = 2000
"""Most texts that are looked at."""
NOT_TOLD = "not told"
"""Stands for the texts whose language cannot be told, most of which are short."""
LEAST = 0.05
"""Share of the texts from which on a language is named."""
MOSTLY = 0.5
"""Share of the texts that tell their language below which this is said too."""
CLEAR = 1.5
"""How many times the evidence for the next language that for a language is."""
KANA = 0.05
"""Share of a text's letters that are kana where it is Japanese, whose other letters are Chinese."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
"""Scripts that put no spaces between words, by the names that Unicode gives their letters."""

_OF_SCRIPT = {
    "CJK": "Chinese",
    "HANGUL": "Korean",
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "THAI": "Thai",
    "LAO": "Lao",
    "KHMER": "Khmer",
    "MYANMAR": "Burmese",
    "GREEK": "Greek",
    "HEBREW": "Hebrew",
    "ARMENIAN": "Armenian",
    "GEORGIAN": "Georgian",
    "TAMIL": "Tamil",
    "TELUGU": "Telugu",
    "KANNADA": "Kannada",
    "MALAYALAM": "Malayalam",
    "GUJARATI": "Gujarati",
    "SINHALA": "Sinhala",
}
"""Scripts that nearly only one language is written in."""

_BY_LETTERS = {
    "CYRILLIC": (("іїєґ", "Ukrainian"), ("ђћљњј", "Serbian"), ("ыэё", "Russian")),
    "ARABIC": (("ٹڈڑںے", "Urdu"), ("پچژگیک", "Persian"), ("يكةىأإ", "Arabic")),
}
"""Scripts of several languages: letters that tell one, in the order in which they are tried."""

_COMMONEST = {
    "English": "the of and to in is that it was for on with as are this be have not you i my at but"
    " they his her from or we an what so your can how me if just all do",
    "German": "der die und das ist nicht ich es mit sich auf für ein eine dem den von zu auch wie"
    " wir bei nur aus im so sie war man noch",
    "French": "le la les des et est une un dans que qui pour pas sur au avec ce il elle je nous"
    " vous mais plus du en à c'est ne se son",
    "Spanish": "el la los las de que y en un una es por con para no se lo su como más pero al del"
    " muy está me mi todo",
    "Portuguese": "o a os as de que e em um uma é por com para não se do da no na mais mas como seu"
    " muito ao dos foi",
    "Italian": "il la gli le di che e è un una per con non si del della dei nel sono ma come più"
    " anche ho mi questo lo alla",
    "Dutch": "de het een en van is dat niet ik op te zijn voor met die in aan er maar om hij ze was"
    " ook naar dit bij",
    "Swedish": "och att det en som är på för med inte jag av den till har ett om var men så",
    "Danish": "og at det en er på for med ikke jeg af den til har et som der de men så",
    "Norwegian": "og å det en er på for med ikke jeg av den til har et som men så var fra",
    "Finnish": "ja on ei että se hän oli mutta niin kun kuin myös ovat en tai",
    "Polish": "i w na z się nie to że jest do jak ale o po za są od przez czy dla",
    "Czech": "a v na se je že to z s do o jako ale za po by jsem které i k",
    "Romanian": "și în de la nu este un o cu pe care din pentru mai ca sunt",
    "Hungarian": "a az és hogy nem is egy van ez de meg csak ha már",
    "Turkish": "ve bir bu da de için ile çok ama gibi ne daha var olarak mi",
    "Indonesian": "yang dan di ini itu dengan untuk tidak dari dalam pada akan saya ke adalah ada",
    "Vietnamese": "là và của có không cho một những được người trong với này các đã",
}
"""The commonest words of languages of the Latin script that tell it from others."""


@dataclass(frozen=True)
class Writing:
    """What a set of texts is made of."""

    languages: dict[str, float]
    """Language to its share of the texts, the commonest first; texts that tell none are under
    `NOT_TOLD`. A script of several languages, none of which is told, is named itself."""
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
    some = different[:: -(-len(different) // SAMPLE)]
    found = Counter(map(language_of, some))
    order = sorted(found, key=lambda one: (one == NOT_TOLD, -found[one], one))
    spaced = sum(_script(text) in _WITHOUT_SPACES for text in some) < LEAST * len(some)
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
    script = _script(text)
    if script == "LATIN":
        return _by_words(text)
    if script in _BY_LETTERS:
        letters = text.lower()
        for told, language in _BY_LETTERS[script]:
            if any(letter in letters for letter in told):
                return language
    if not script:
        return NOT_TOLD
    return _OF_SCRIPT.get(script, f"{script.title()} script")


def _script(text: str) -> str:
    """Return the script of most letters, as Unicode names it; empty where there is no letter."""
    found = Counter(_script_of_letter(letter) for letter in text if letter.isalpha())
    if not found:
        return ""
    kana = found["HIRAGANA"] + found["KATAKANA"]
    if kana > KANA * found.total() and kana + found["CJK"] > found.total() / 2:
        return "HIRAGANA"
    return max(found, key=lambda script: found[script])


@cache
def _script_of_letter(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


@cache
def _evidence() -> dict[str, dict[str, float]]:
    """Map a word to the languages that it speaks for; one of several counts the less for each."""
    languages: dict[str, list[str]] = {}
    for language, words in _COMMONEST.items():
        for word in words.split():
            languages.setdefault(word, []).append(language)
    return {word: dict.fromkeys(own, 1 / len(own)) for word, own in languages.items()}


def _by_words(text: str) -> str:
    found: dict[str, float] = {}
    for word in _WORD.findall(text.lower().replace("’", "'")):
        for language, share in _evidence().get(word, {}).items():
            found[language] = found.get(language, 0.0) + share
    order = sorted(found, key=lambda language: -found[language])
    if not order or found[order[0]] < 1:
        return NOT_TOLD
    clear = len(order) == 1 or found[order[0]] >= CLEAR * found[order[1]]
    return order[0] if clear else NOT_TOLD
