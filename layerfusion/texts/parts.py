"""Texts that are parts of others, such as the phrases of a sentence: they tell one another's class.

A fold that holds out a phrase and learns from its sentence judges what it has seen. Whole texts
seldom stand inside others; where many do, the rows need groups (`dataset.group`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

LEAST_WORDS = 3
"""Shorter texts stand inside others by chance."""
OFTEN = 0.2
"""Share of the texts from which on it is told."""
READ = 50_000_000
"""Characters that are looked through, a tenth of a second."""
MOST, LEAST = 400, 20
"""Texts of a sample that are looked for, whatever there is to look through."""


def share_of_parts(texts: Sequence[str], others: Sequence[str]) -> float:
    """Estimate which share of texts stand inside longer ones, word for word but for case.

    Args:
        texts: the texts; those of fewer than three words are not counted.
        others: what they may stand in; of the same text again, only longer ones count.

    Returns:
        The share in an even sample of different texts; 0 where none has three words.

    Example:
        >>> share_of_parts(["a warm film", "so very dull"], ["It is A warm film .", "so very dull"])
        0.5
    """
    return _share(texts, _joined(others))


def _share(texts: Sequence[str], whole: str) -> float:
    """Estimate the share of texts that stand inside longer lines."""
    wanted = [text for text in dict.fromkeys(map(_plain, texts)) if text.count(" ") > LEAST_WORDS]
    if not wanted:
        return 0.0
    size = min(MOST, max(LEAST, READ // max(1, len(whole))), len(wanted))
    sample = [wanted[n * len(wanted) // size] for n in range(size)]
    return sum(_inside(text, whole) for text in sample) / size


def notes_on_parts(texts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Note where many texts of a split are parts of those of train.

    Args:
        texts: split to its texts.
    """
    whole = _joined(texts["train"])
    for split, own in texts.items():
        share = _share(own, whole)
        if share >= OFTEN:
            inside = "longer ones there" if split == "train" else "longer ones of train"
            yield (
                f"{split}: about {share:.0%} of its texts are parts of {inside}, as phrases are of"
                " a sentence, so that what is held out has been seen and figures are too good;"
                " dataset.group names a column of what they are parts of"
            )


def _joined(texts: Sequence[str]) -> str:
    """Put different texts on a line each."""
    return "\n".join(dict.fromkeys(map(_plain, texts)))


def _plain(text: str) -> str:
    """Put one space around every word, in lower case."""
    return f" {' '.join(text.casefold().split())} "


def _inside(text: str, whole: str) -> bool:
    """Tell whether a text stands in a line of its own and more."""
    place = whole.find(text)
    while place >= 0:
        end = place + len(text)
        if (place and whole[place - 1] != "\n") or (end < len(whole) and whole[end] != "\n"):
            return True
        place = whole.find(text, end - 1)
    return False
