"""Counts of the texts that a classifier was trained and judged on, and of new ones beside them.

A text counts once, however many rows have it: repeated ones say no more of their kind than one, and
by chance alone many rows of one text would look like a shift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from layerfusion.embeddings.source import EmbeddingSource
from layerfusion.embeddings.tokens import UNKNOWN_SHARES, UnknownTally, unknown_shares
from layerfusion.errors import UserError
from layerfusion.statistics.drift import (
    CONFIDENCES,
    MOST_LABELS,
    SOMEWHAT,
    UNLIKE,
    Shift,
    answer_counts,
    compare_counts,
    confidence_counts,
)
from layerfusion.statistics.significance import ALPHA, holm

if TYPE_CHECKING:
    from pandas import DataFrame

    from layerfusion.runs.inputs import Inputs

FACT = "familiar"
"""Fact of a classifier that holds these counts."""
HELD_OUT = "held-out"
"""Stands for rows of train that nothing of the classifier had seen, or of validation."""
ALIKE = "alike"
"""Verdict where nothing shows a difference that matters."""


@dataclass
class ReadTexts:
    """How a language model reads some texts."""

    texts: int = 0
    cut: int = 0
    """Texts that are cut off."""
    unknown: list[int] = field(default_factory=list)
    """Texts by their share of unknown tokens: see `unknown_shares`. Caches of older versions do not
    have the tokens of all texts."""


@dataclass
class _Kept:
    """The counts as JSON holds them."""

    texts: int
    confidence: list[int]
    answers: list[int]
    models: dict[str, ReadTexts]
    rows: str = "test"


@dataclass
class Familiar:
    """Counts of texts: answers to known rows, or to new texts, and how models read them."""

    texts: int
    """Different texts that were answered; rows in classifiers of older versions."""
    confidence: np.ndarray
    """Answers in each range of confidence: see `statistics.drift`. Shape: (ranges,), int64."""
    answers: np.ndarray
    """Texts by answer: see `statistics.drift`. Shape: (classes,) or (numbers of labels,), int64."""
    models: dict[str, ReadTexts]
    """How each language model reads texts of train, or the new ones."""
    rows: str = "test"
    """Which rows were answered: those of test, or, where there are none, `HELD_OUT` ones."""

    @classmethod
    def of(
        cls, probabilities: np.ndarray, *, multilabel: bool, text_of: np.ndarray | None
    ) -> Familiar:
        """Count answers, one for each text.

        Args:
            probabilities: of the classes or labels. Shape: (rows, classes).
            multilabel: whether a text has any number of labels.
            text_of: number of the text of each row, of which the first counts; None if all differ.
                Shape: (rows,).
        """
        if text_of is not None:
            probabilities = probabilities[np.unique(text_of, return_index=True)[1]]
        return cls(
            len(probabilities),
            confidence_counts(probabilities, multilabel=multilabel),
            answer_counts(probabilities, multilabel=multilabel),
            {},
        )

    @classmethod
    def of_job(
        cls,
        inputs: Inputs,
        probabilities: np.ndarray,
        *,
        text_of: np.ndarray | None,
        rows: str = "test",
    ) -> Familiar:
        """Count the answers to some rows, and how models read the texts of train.

        Args:
            inputs: of the job.
            probabilities: of each seed, for each of these rows. Shape: (seeds, rows, classes).
            text_of: number of the text of each row; None if all differ. Shape: (rows,).
            rows: which rows these are, as in the attribute of this name.
        """
        multilabel = inputs.dataset.multilabel
        found = cls.of(probabilities.mean(axis=0), multilabel=multilabel, text_of=text_of)
        found.rows = rows
        train = set(inputs.hashes["train"])
        for name in dict.fromkeys(layer.backbone for layer in inputs.selection.layers):
            source = inputs.sources[name]
            if isinstance(source, EmbeddingSource):
                store = next(iter(source.stores.values()))
                counts = store.tokens(store.holds(train))
                known = counts.own > 0
                unknown = unknown_shares(counts.own[known], counts.unknown[known]).tolist()
                cut = int((counts.cut > 0).sum())
                found.models[name] = ReadTexts(len(counts.cut), cut, unknown)
        return found

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any], classes: int, *, multilabel: bool) -> Familiar:
        """Read what `facts` has returned.

        Args:
            facts: the counts.
            classes: number of classes or labels.
            multilabel: whether a text has any number of them.

        Raises:
            ValueError: if it is something else, as in the file of another version.
        """
        kept = TypeAdapter(_Kept).validate_python(facts)
        sizes = [(len(one.unknown), len(UNKNOWN_SHARES)) for one in kept.models.values()]
        sizes.append((len(kept.confidence), len(CONFIDENCES)))
        sizes.append((len(kept.answers), MOST_LABELS if multilabel else classes - 1))
        if any(size != limits + 1 for size, limits in sizes):
            raise ValueError("its counts have other ranges")
        counts = np.array(kept.confidence), np.array(kept.answers)
        return cls(kept.texts, *counts, kept.models, kept.rows)

    def facts(self) -> dict[str, Any]:
        """Return the counts as JSON can hold them."""
        return {
            "texts": self.texts,
            "confidence": self.confidence.tolist(),
            "answers": self.answers.tolist(),
            "models": {name: vars(one) for name, one in self.models.items()},
            "rows": self.rows,
        }

    def plus(self, other: Familiar) -> Familiar:
        """Return the counts of these texts and others, without how models read them."""
        return Familiar(
            self.texts + other.texts,
            self.confidence + other.confidence,
            self.answers + other.answers,
            {},
        )

    def add_read(self, tallies: Mapping[str, UnknownTally]) -> None:
        """Add how models have read the texts."""
        for name, one in tallies.items():
            self.models[name] = ReadTexts(int(one.shares.sum()), one.cut, one.shares.tolist())


def compared(
    before: Familiar, now: Familiar, names: Sequence[str], *, multilabel: bool
) -> DataFrame:
    """Compare new texts with those that a classifier was trained and judged on.

    Args:
        before: counts of its job.
        now: counts of the new texts.
        names: names of the classes.
        multilabel: whether texts have any number of them.

    Returns:
        A row for each comparison. `what` is compared; `where` has the largest difference, and
        `before` and `now` are the shares there; `index` is the population stability index; `shown`
        is the least one that could be told from chance; `p`, and `p_holm` over all comparisons;
        `verdict`: alike, somewhat unlike or unlike.

    Raises:
        UserError: if there is no new text.
    """
    import pandas

    if not now.texts:
        raise UserError("drift: there is no text to compare")
    rows = list(_rows(before, now, () if multilabel else names))
    adjusted = holm([shift.p for *_, shift in rows])
    return pandas.DataFrame(
        [
            (*row, shift.index, shift.shown, shift.p, p, _verdict(shift.index, p))
            for (*row, shift), p in zip(rows, adjusted, strict=True)
        ],
        columns=["what", "where", "before", "now", "index", "shown", "p", "p_holm", "verdict"],
    )


def _rows(
    before: Familiar, now: Familiar, names: Sequence[str]
) -> Iterator[tuple[str, str, float, float, Shift]]:
    limits = [f"{100 * limit:g}" for limit in CONFIDENCES]
    ranges = [f"below {limits[0]} %"]
    ranges += [f"{low} to {high} %" for low, high in pairwise(limits)]
    yield _row(
        "confidence", [*ranges, f"{limits[-1]} % or more"], before.confidence, now.confidence
    )
    numbers = [*map(str, range(MOST_LABELS)), f"{MOST_LABELS} or more"]
    what, kinds = ("answers", names) if names else ("labels of a text", numbers)
    yield _row(what, kinds, before.answers, now.answers)
    ends = [f"{100 * limit:g}" for limit in UNKNOWN_SHARES[1:]]
    shares = ["none", *(f"up to {end} %" for end in ends), f"more than {ends[-1]} %"]
    for name, read in now.models.items():
        if name not in before.models:
            continue
        own = before.models[name]
        cut = (np.array([one.cut, one.texts - one.cut]) for one in (own, read))
        yield _row(f"texts that {name} cuts off", [""], *cut)
        if sum(own.unknown):
            unknown = (np.array(one.unknown) for one in (own, read))
            yield _row(f"share of tokens unknown to {name}", shares, *unknown)


def _row(
    what: str, kinds: Sequence[str], before: np.ndarray, now: np.ndarray
) -> tuple[str, str, float, float, Shift]:
    """Compare counts, and find the kind whose share differs most; of those, the most frequent."""
    first, second = before / max(1, before.sum()), now / max(1, now.sum())
    most = max(range(len(kinds)), key=lambda kind: (abs(second - first)[kind], first[kind]))
    return what, kinds[most], first[most], second[most], compare_counts(before, now)


def _verdict(index: float, p: float) -> str:
    if p >= ALPHA or index < SOMEWHAT:
        return ALIKE
    return "unlike" if index >= UNLIKE else "somewhat unlike"
