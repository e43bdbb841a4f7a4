"""Jobs that differ in one thing only: in their models, or in their lexical sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from layerfusion.findings.compare import best_chosen
from layerfusion.findings.grouping import grouped, told_apart
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.settings import with_settings
from layerfusion.records.format import listing


class Model(NamedTuple):
    """A model that a job could choose layers of."""

    name: str
    specs: tuple[str, ...]
    """Spec hashes, one for each pooling."""
    layers: tuple[str, ...] = ()
    """The layers that the config names; empty where the job could choose among all of them."""

    @property
    def label(self) -> str:
        """The model and the layers that the config names: minilm, or minilm 3, 5."""
        return f"{self.name} {', '.join(self.layers)}" if self.layers else self.name


@dataclass(frozen=True)
class JobIdentity:
    """Identifies a job apart from its training sample."""

    recipe: str
    """Hash of all settings of the job but its models and its sample."""
    models: frozenset[Model]
    """Models to choose layers of; the selection may have taken layers of some of them only."""
    lexical: frozenset[str]
    """Names of the lexical sources to choose among."""

    @property
    def model_names(self) -> list[str]:
        """The models, with the layers that the config names."""
        return sorted(model.label for model in self.models)

    @property
    def name(self) -> str:
        """The models and the lexical sources: minilm + mpnet with words."""
        return self._with_lexical(" + ".join(self.model_names))

    @property
    def short_name(self) -> str:
        """A name beside a line of a figure: more than two models are only counted."""
        number = len(self.models)
        return self._with_lexical(f"{number} models") if number > 2 else self.name

    @property
    def order(self) -> tuple[object, ...]:
        """Sorts identities by recipe, then by their models: few models first."""
        return self.recipe, len(self.models), self.model_names, sorted(self.lexical)

    def way_name(self, recipes: Mapping[str, str]) -> str:
        """Name a way of fusing: how layers are selected, what fuses them, the lexical sources."""
        return self._with_lexical(recipes[self.recipe])

    def _with_lexical(self, name: str) -> str:
        return f"{name} with {listing(sorted(self.lexical))}" if self.lexical else name

    @property
    def way(self) -> JobIdentity:
        """The way of fusing: the same for all models."""
        return replace(self, models=frozenset())

    def on(self, *models: Model) -> JobIdentity:
        """The same job on other models."""
        return replace(self, models=frozenset(models))


def identity_of(job: FinishedJob) -> JobIdentity | None:
    """Identify a job; none for records that are older than recipes."""
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
    return JobIdentity(record.recipe, frozenset(models), frozenset(record.lexical))


def by_identity(jobs: Iterable[FinishedJob]) -> dict[JobIdentity, FinishedJob]:
    """Map each identity to its job, or to the one of several that is chosen."""
    return {
        identity: best_chosen(own)
        for identity, own in grouped(jobs, identity_of).items()
        if identity is not None
    }


def best_part(jobs: Sequence[FinishedJob]) -> dict[FinishedJob, FinishedJob]:
    """Map each job on several models to the one of them alone that is chosen.

    Jobs are left out if one of their models was not run alone under the same settings.
    """
    known = by_identity(jobs)
    best = {}
    for identity, job in known.items():
        parts = [known.get(identity.on(one)) for one in identity.models]
        there = [part for part in parts if part is not None]
        if len(identity.models) > 1 and len(there) == len(parts):
            best[job] = best_chosen(there)
    return best


def without_lexical(jobs: Sequence[FinishedJob]) -> dict[FinishedJob, FinishedJob]:
    """Map each job with lexical sources to the same job without them."""
    known = by_identity(jobs)
    pairs = {
        job: known.get(replace(identity, lexical=frozenset()))
        for identity, job in known.items()
        if identity.lexical
    }
    return {job: plain for job, plain in pairs.items() if plain is not None}


# -- names --------------------------------------------------------------------------------------


def models_of(job: FinishedJob) -> str:
    """Name the models of a job in a sentence; nothing for records that are older than recipes."""
    identity = identity_of(job)
    return listing(identity.model_names) if identity else ""


def recipe_names(known: Mapping[JobIdentity, FinishedJob]) -> dict[str, str]:
    """Map each recipe to a distinct name: how layers are selected and what fuses them."""
    records = {identity.recipe: job.record for identity, job in known.items()}
    plain = {recipe: f"{x.selection}, {x.fusion_label}" for recipe, x in records.items()}
    told = with_settings(plain, records.__getitem__)
    return told_apart(told, lambda recipe: f"settings {recipe[:6]}")


def taken(job: FinishedJob) -> str:
    """Name the sources whose layers were selected, with the number of their layers."""
    counts = Counter(layer.backbone for layer in job.record.layers)
    return ", ".join(
        name if number == 1 else f"{name} ({number} layers)"
        for name, number in sorted(counts.items())
    )
