"""Learning curves: samples of one data set with the same test rows and fewer rows to learn from.

A single draw only compares two trained heads. A learning curve should tell which models to train on
so many rows, so the draws count as a sample, as the test rows do: see
`statistics.crossed.crossed_interval`. In each draw the model alone is the one that is
chosen there, so that choosing it is part of the comparison. The result holds for other draws
of as many rows from the same training texts, and for other test texts of the same classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from layerfusion.config.job import ACCURACY
from layerfusion.findings.choice import metric_words
from layerfusion.findings.compare import texts_of
from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.identities import (
    JobIdentity,
    best_part,
    by_identity,
    identity_of,
    models_of,
    recipe_names,
)
from layerfusion.findings.jobs import FinishedJob
from layerfusion.records.job import DataRecord, Estimate
from layerfusion.statistics.crossed import CrossedDifference, crossed_interval
from layerfusion.statistics.intervals import mean_sd
from layerfusion.statistics.power_law import Estimated, PowerLaw, fit_power_law
from layerfusion.statistics.significance import ALPHA, holm

Size = int | None
"""Rows drawn of each class; None for all rows."""


BASELINE = "TF-IDF baseline"


@dataclass(frozen=True, eq=False)
class LearningLine:
    """One line of a learning curve."""

    name: str
    sizes: Mapping[Size, Sequence[float]]
    """Test figures by size, one a draw: accuracies, or the F1 that jobs are compared by."""
    short: str
    """The name beside the line."""
    models: Sequence[str] = ()
    """Models to choose layers of; none for the baseline."""
    variant: int = 0
    """Number of its settings and lexical sources among those of the curve."""
    chosen: bool = False
    """True for what is chosen with the most rows."""

    @property
    def is_baseline(self) -> bool:
        """True for the line without any language model."""
        return self.name == BASELINE

    def figure(self, size: Size) -> Estimate | None:
        """Mean figure over draws, and its standard deviation; none without a draw."""
        return over_draws(self.sizes[size]) if size in self.sizes else None


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """All samples of a data set that are evaluated on the same test rows."""

    label: str
    key: str
    groups: tuple[DataGroup, ...]

    @property
    def sizes(self) -> list[Size]:
        """Sizes of the samples, in rows of each class; all rows last."""
        found = {group.data.per_class for group in self.groups}
        return sorted(found, key=lambda size: (size is None, size or 0))

    @property
    def measure(self) -> str:
        """What a reader knows the figure as that jobs are compared by."""
        return metric_words(self.metric, self.data)

    @cached_property
    def metric(self) -> str:
        """The figure that the samples are compared by; accuracy where theirs differ."""
        found = {group.judge.metric for group in self.groups}
        return found.pop() if len(found) == 1 else ACCURACY

    @property
    def kind(self) -> str:
        """What a reader knows one of the label names as."""
        return self.data.kind

    @property
    def size_words(self) -> str:
        """What tells the samples apart; of several labels a row counts for its rarest one."""
        return f"rows a {self.kind}"

    @property
    def data(self) -> DataRecord:
        """The data of the first sample."""
        return self.groups[0].data

    def rows(self, size: Size) -> float:
        """Mean number of rows of each class in the samples of one size."""
        data = [group.data for group in self.groups if group.data.per_class == size]
        learned = [one.rows["train"] + one.rows["validation"] for one in data]
        return float(np.mean(learned)) / len(data[0].label_names)

    @property
    def draws(self) -> int:
        """Most samples of one size."""
        return max(map(len, self.baseline.values()))

    @cached_property
    def jobs(self) -> list[tuple[JobIdentity, FinishedJob]]:
        """One job for each identity in each of the samples."""
        pairs = [pair for group in self.groups for pair in by_identity(group.jobs).items()]
        return [(identity, replace(job, metric=self.metric)) for identity, job in pairs]

    @cached_property
    def scores(self) -> dict[JobIdentity, dict[Size, list[float]]]:
        """Test figures by identity and size, one a draw, where there are several sizes."""
        found: dict[JobIdentity, dict[Size, list[float]]] = {}
        for identity, job in sorted(self.jobs, key=lambda pair: pair[0].order):
            sizes = found.setdefault(identity, {})
            sizes.setdefault(job.record.dataset.per_class, []).append(job.score.mean)
        return {identity: sizes for identity, sizes in found.items() if len(sizes) > 1}

    @property
    def baseline(self) -> dict[Size, list[float]]:
        """Test figures of the baseline by size, one for each draw."""
        by_size = grouped(self.groups, lambda group: group.data.per_class)
        return {
            size: [group.jobs[0].record.baseline.test[self.metric] for group in groups]
            for size, groups in by_size.items()
        }

    @property
    def recipes(self) -> dict[str, str]:
        """Recipe to its name."""
        return recipe_names(dict(self.jobs))

    @cached_property
    def chosen(self) -> JobIdentity | None:
        """What is chosen with the most rows: the highest mean over draws on the rows that choose.

        None where nothing was tried with the most rows and with fewer.
        """
        there = grouped(
            [
                pair
                for pair in self.jobs
                if pair[0] in self.scores and pair[1].record.dataset.per_class == self.sizes[-1]
            ],
            lambda pair: pair[0],
        )

        def order(identity: JobIdentity) -> tuple[float, float, object]:
            own = [job for _, job in there[identity]]
            score = float(np.mean([job.choosing_score.mean for job in own]))
            loss = float(np.mean([job.choosing["log_loss"].mean for job in own]))
            return -round(score, 9), round(loss, 9), identity.order

        return min(there, key=order, default=None)

    @property
    def baseline_line(self) -> LearningLine:
        """The line of the baseline."""
        return LearningLine(BASELINE, self.baseline, BASELINE)

    @property
    def lines(self) -> list[LearningLine]:
        """A line for each identity; names are short as long as they stay distinct."""
        recipes = list(dict.fromkeys(identity.recipe for identity in self.scores))
        lines: list[LearningLine] = []
        for identity, sizes in self.scores.items():
            several = f", {self.recipes[identity.recipe]}" if len(recipes) > 1 else ""
            name, short = f"{identity.name}{several}", identity.short_name
            if any(line.short == short for line in lines):
                short = name
            models = [model.name for model in identity.models]
            variant, chosen = recipes.index(identity.recipe), identity == self.chosen
            variant = 2 * variant + bool(identity.lexical)
            lines.append(LearningLine(name, sizes, short, models, variant, chosen))
        return lines

    def outlook(self, sizes: Mapping[Size, Sequence[float]]) -> Outlook | None:
        """Fit how errors fall with the rows; none where the samples are too few for that.

        Args:
            sizes: test figures by size, one for each draw.
        """
        law = fit_power_law({self.rows(size): found for size, found in sizes.items()})
        largest = max(sizes, key=self.rows)
        return law and Outlook(self.rows(largest), over_draws(sizes[largest]).mean, law)


def learning_curves(groups: Sequence[DataGroup]) -> tuple[LearningCurve, ...]:
    """Join groups that differ only in how many rows of each class there are to learn from."""
    known = [group for group in groups if group.data.test_fingerprint]
    alike = grouped(known, lambda group: (group.data.name, group.data.test_fingerprint))
    found = []
    for samples in alike.values():
        if len({group.data.per_class for group in samples}) > 1:
            first = next((g for g in samples if g.data.per_class is None), samples[0])
            found.append(LearningCurve(samples[0].data.name, first.key, tuple(samples)))
    return tuple(found)


A_POINT = 0.01
FAR = 10
"""Times the rows at hand beyond which a law that was fitted to them says nothing."""


@dataclass(frozen=True)
class Outlook:
    """What more labels would give, by the errors on samples of several sizes."""

    rows: float
    """Rows of each class in the largest samples."""
    score: float
    """Mean test figure with these: accuracy, or the F1 that jobs are compared by."""
    law: PowerLaw

    @property
    def doubled(self) -> Estimated:
        """Figure to expect of twice the rows."""
        return self.law.doubled(self.score)

    @property
    def rows_for_a_point(self) -> float | None:
        """Rows of each class that one point more would take; None where that cannot be told."""
        needed = self.rows * self.law.factor(self.score, A_POINT)
        return needed if self.law.falls and needed < FAR * self.rows else None


def over_draws(values: Sequence[float]) -> Estimate:
    """Mean and standard deviation over draws."""
    return Estimate(*mean_sd(values))


# -- several models against the best one of them ------------------------------------------------


@dataclass(frozen=True, eq=False)
class DrawFinding:
    """Several models together against one of them alone, each trained on several draws."""

    identity: JobIdentity
    size: int
    """Rows of each class in a draw."""
    pairs: tuple[tuple[FinishedJob, FinishedJob], ...]
    """One pair for each draw: the fused job, and the single model that is chosen."""
    difference: CrossedDifference
    adjusted: float
    """The p-value after Holm's adjustment over all such comparisons of the report."""
    family: int
    """Number of these comparisons."""

    @property
    def alone(self) -> str | None:
        """The models alone, each with its draws: mpnet (2), smollm2 (1)."""
        names = Counter(models_of(alone) for _, alone in self.pairs)
        return ", ".join(f"{name} ({times})" for name, times in sorted(names.items())) or None

    @property
    def mark(self) -> str:
        """▲ for a gain and ▼ for a loss that the adjusted test shows, else nothing."""
        shown = "▲" if self.difference.mean > 0 else "▼"
        return shown if self.adjusted < ALPHA else ""


def find_over_draws(
    curves: Sequence[LearningCurve],
) -> dict[LearningCurve, tuple[DrawFinding, ...]]:
    """Compare all jobs on several models with the best one alone, where there are several draws.

    Every model has to be run alone under the same settings, in at least two draws. All rows of a
    data set make one draw only; the section of that data set compares the jobs on it.
    """
    found = [(curve, one) for curve in curves for one in _compare(curve)]
    adjusted = holm([one.difference.p for _, one in found])
    return {
        curve: tuple(
            replace(one, adjusted=p, family=len(found))
            for (owner, one), p in zip(found, adjusted, strict=True)
            if owner is curve
        )
        for curve in curves
    }


def _compare(curve: LearningCurve) -> list[DrawFinding]:
    pairs = [pair for group in curve.groups for pair in best_part(group.jobs).items()]
    alike = grouped(pairs, lambda pair: (identity_of(pair[0]), pair[0].record.dataset.per_class))

    def difference(own: Sequence[tuple[FinishedJob, FinishedJob]]) -> CrossedDifference:
        metric = {"metric": curve.metric}
        ahead = [replace(x, **metric).rows_score - replace(y, **metric).rows_score for x, y in own]
        text_of = texts_of(*(job for pair in own for job in pair))
        return crossed_interval(np.stack(ahead), own[0][0].target, text_of=text_of)

    found = [
        DrawFinding(identity, size, tuple(own), difference(own), 1.0, 0)
        for (identity, size), own in alike.items()
        if identity is not None and size is not None and len(own) > 1
    ]
    return sorted(found, key=lambda one: (*one.identity.order, one.size))
