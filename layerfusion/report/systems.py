"""What jobs have in common: one recipe on other models, or with other sources beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from layerfusion.report.compare import best_on_validation
from layerfusion.report.jobs import Job
from layerfusion.report.names import listing


class Model(NamedTuple):
    """A model that a job was given."""

    name: str
    specs: tuple[str, ...]
    """Hashes, one a pooling."""
    layers: tuple[str, ...] = ()
    """What it was fixed to; empty where the job had all its layers to select from."""

    @property
    def label(self) -> str:
        """minilm, or minilm 3, 5."""
        return f"{self.name} {', '.join(self.layers)}" if self.layers else self.name


@dataclass(frozen=True)
class System:
    """What a job is, but for the sample of train that it learned from."""

    recipe: str
    """Hash of what it does with what it is given."""
    models: frozenset[Model]
    """What it was given to choose layers of; it may have passed some over."""
    lexical: frozenset[str]
    """Names of the lexical sources that it was given."""


def system_of(job: Job) -> System | None:
    """A job's system; none for records that are older than recipes."""
    record = job.record
    if not record.recipe:
        return None
    fixed: dict[str, list[str]] = {name: [] for name in record.considered}
    if record.selection == "fixed":
        for taken in record.layers:
            fixed[taken.backbone].append(taken.layer)
    models = {
        Model(name, tuple(specs), tuple(dict.fromkeys(fixed[name])))
        for name, specs in record.considered.items()
        if name not in record.lexical and (fixed[name] or record.selection != "fixed")
    }
    return System(record.recipe, frozenset(models), frozenset(record.lexical))


def by_system(jobs: Iterable[Job]) -> dict[System, Job]:
    """Each system's job, in the order of the jobs; of several, the one that validation prefers."""
    found: dict[System, list[Job]] = {}
    for job in jobs:
        system = system_of(job)
        if system is not None:
            found.setdefault(system, []).append(job)
    return {system: best_on_validation(own) for system, own in found.items()}


def best_part(jobs: Sequence[Job]) -> dict[Job, Job]:
    """Job on several models to the one of them alone that validation prefers.

    Only where every one of the models was run alone under the same settings.
    """
    known = by_system(jobs)
    best = {}
    for system, job in known.items():
        parts = [known.get(replace(system, models=frozenset([one]))) for one in system.models]
        there = [part for part in parts if part is not None]
        if len(system.models) > 1 and len(there) == len(parts):
            best[job] = best_on_validation(there)
    return best


def without_lexical(jobs: Sequence[Job]) -> dict[Job, Job]:
    """Job with lexical sources to the same job without them."""
    known = by_system(jobs)
    pairs = {
        job: known.get(replace(system, lexical=frozenset()))
        for system, job in known.items()
        if system.lexical
    }
    return {job: plain for job, plain in pairs.items() if plain is not None}


# -- names --------------------------------------------------------------------------------------


def model_names(system: System) -> list[str]:
    """The models that it was given, by name, with the layers that they were fixed to."""
    return sorted(model.label for model in system.models)


def system_name(system: System) -> str:
    """For example minilm + mpnet with words."""
    models = " + ".join(model_names(system))
    return f"{models} with {listing(sorted(system.lexical))}" if system.lexical else models


def recipe_names(known: Mapping[System, Job]) -> dict[str, str]:
    """Recipe to a distinct name: how layers are selected and what fuses them."""
    plain = {
        system.recipe: f"{job.record.selection}, {job.record.fusion}"
        for system, job in known.items()
    }
    return {
        recipe: name if list(plain.values()).count(name) == 1 else f"{name} (settings {recipe[:6]})"
        for recipe, name in plain.items()
    }


def taken(job: Job) -> str:
    """The sources whose layers were selected, each with the number of its layers."""
    counts = {
        name: sum(layer.backbone == name for layer in job.record.layers)
        for name in job.record.backbone_names
    }
    return ", ".join(
        name if number == 1 else f"{name} ({number} layers)"
        for name, number in sorted(counts.items())
    )
