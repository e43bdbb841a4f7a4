"""Several models against the best one of them alone, over draws of few rows to learn from.

A single draw says what two trained systems do on the test rows; what is asked of a learning curve
is which of them to train on so many rows. So the draws count as a sample, as the test rows do: see
`runs.statistics.crossed_interval`. In each draw the model alone is the one that validation of that
draw prefers, so that the choice is part of what is compared. What is found holds for other draws of
as many rows from the same training texts, and for other test texts of the same classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerfusion.records.format import plural
from layerfusion.report.jobs import Job
from layerfusion.report.names import NONE, count, listing, p_value, point_interval, points
from layerfusion.report.systems import (
    System,
    best_part,
    model_names,
    system_name,
    system_of,
)
from layerfusion.report.tables import Column, Row, Table
from layerfusion.report.trials import Trial
from layerfusion.statistics.intervals import CrossedDifference, crossed_interval, mean_sd
from layerfusion.statistics.significance import ALPHA, holm


@dataclass(frozen=True, eq=False)
class DrawFinding:
    """One system on several models, trained on several draws, against one model alone."""

    system: System
    size: int
    """Rows of each class in a draw."""
    pairs: tuple[tuple[Job, Job], ...]
    """Of each draw the job, and that on the one of its models that validation prefers."""
    difference: CrossedDifference
    adjusted: float
    """P after Holm's adjustment over all such comparisons of the report."""
    family: int
    """How many they are."""

    @property
    def mark(self) -> str:
        """▲ for a gain, ▼ for a loss that the adjusted test shows, else nothing."""
        if self.adjusted >= ALPHA:
            return ""
        return "▲" if self.difference.mean > 0 else "▼"


def find_over_draws(trials: Sequence[Trial]) -> dict[Trial, tuple[DrawFinding, ...]]:
    """Compare all jobs on several models with the best one alone, where there are several draws.

    Only systems of which every model was run alone under the same settings in at least two draws;
    of all rows there is but one draw, which the section of its data set is about.
    """
    found = [(trial, one) for trial in trials for one in _compare(trial)]
    adjusted = holm([one.difference.p for _, one in found])
    return {
        trial: tuple(
            replace(one, adjusted=p, family=len(found))
            for (owner, one), p in zip(found, adjusted, strict=True)
            if owner is trial
        )
        for trial in trials
    }


def draw_table(found: Sequence[DrawFinding], recipes: Mapping[str, str]) -> Table:
    """Every comparison of a trial.

    Args:
        found: the comparisons, at least one.
        recipes: recipe to its name.
    """
    rows = []
    for one in found:
        together, alone = (_accuracies(one, place) for place in (0, 1))
        rows.append(
            Row(
                (
                    system_name(one.system),
                    recipes[one.system.recipe],
                    count(one.size),
                    count(one.difference.draws),
                    together,
                    _chosen(one),
                    alone,
                    f"{points(one.difference.mean)} {point_interval(one.difference)}",
                    p_value(one.difference.p),
                    p_value(one.adjusted),
                    one.mark,
                )
            )
        )
    return Table(
        "Several models and one of them alone, by rows a class",
        (
            Column("Models", numeric=False),
            Column("Layers, fusion", numeric=False),
            Column("Rows a class"),
            Column("Draws"),
            Column("Test %"),
            Column("Alone, by validation", numeric=False),
            Column("Its test %"),
            Column("Difference, points"),
            Column("p"),
            Column("p (Holm)"),
            Column("Shown", numeric=False),
        ),
        tuple(rows),
        "Alone: in each draw the model that validation prefers, with the number of draws. Paired"
        " differences on the same test rows; draws and test rows both count as samples, so the"
        " interval is of what to expect of another draw of as many rows and of other test texts."
        " With few draws it is wide, and errs to the wide side. p (Holm): adjusted for the"
        f" {plural(found[0].family, 'comparison')} over draws in this report. ▲ better, ▼ worse:"
        " adjusted p below 0.05.",
    )


def draws_in_words(found: Sequence[DrawFinding]) -> str:
    """The comparisons as a sentence for a caption; nothing where there is none."""
    if not found:
        return ""
    said = []
    for system in dict.fromkeys(one.system for one in found):
        own = [one for one in found if one.system == system]
        sizes = ", ".join(
            f"{points(one.difference.mean)} {point_interval(one.difference)}{one.mark} with"
            f" {count(one.size)} rows a class"
            for one in own
        )
        said.append(f"{_short(system)}: {sizes}")
    return (
        " Several models against the best one of them alone, in points, with 95 % intervals over"
        f" draws and test rows: {'; '.join(said)}."
    )


# -- comparing ----------------------------------------------------------------------------------


def _compare(trial: Trial) -> list[DrawFinding]:
    pairs: dict[tuple[System, int], list[tuple[Job, Job]]] = {}
    for group in trial.groups:
        for job, alone in best_part(group.jobs).items():
            system, size = system_of(job), group.data.per_class
            if system is not None and size is not None:
                pairs.setdefault((system, size), []).append((job, alone))
    found = [
        DrawFinding(system, size, tuple(own), _difference(own), 1.0, 0)
        for (system, size), own in pairs.items()
        if len(own) > 1
    ]
    return sorted(found, key=_order)


def _order(one: DrawFinding) -> tuple[object, ...]:
    system = one.system
    lexical = sorted(system.lexical)
    return system.recipe, len(system.models), model_names(system), lexical, one.size


def _difference(pairs: Sequence[tuple[Job, Job]]) -> CrossedDifference:
    differences = np.stack([job.correct - alone.correct for job, alone in pairs])
    return crossed_interval(differences, pairs[0][0].target)


# -- in words -----------------------------------------------------------------------------------


def _accuracies(one: DrawFinding, place: int) -> str:
    mean, sd = mean_sd([pair[place].record.test["accuracy"].mean for pair in one.pairs])
    return f"{100 * mean:.1f}" if sd is None else f"{100 * mean:.1f}\u00a0±\u00a0{100 * sd:.1f}"


def _chosen(one: DrawFinding) -> str:
    """The models alone, each with its draws: mpnet (2), smollm2 (1)."""
    systems = [system_of(alone) for _, alone in one.pairs]
    names = Counter(listing(model_names(system)) for system in systems if system is not None)
    return ", ".join(f"{name} ({times})" for name, times in sorted(names.items())) or NONE


def _short(system: System) -> str:
    number = len(system.models)
    models = f"{number} models" if number > 2 else " + ".join(model_names(system))
    return f"{models} with {listing(sorted(system.lexical))}" if system.lexical else models
