"""What the figures say, in sentences that claim no more than the intervals do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerfusion.report.compare import (
    Difference,
    accuracy,
    best_on_test,
    best_on_validation,
    over,
    over_floor,
)
from layerfusion.report.load import Curve, DataGroup, Job
from layerfusion.report.names import (
    count,
    floor_name,
    interval,
    job_names,
    layer_name,
    listing,
    percent,
    plural,
    point_interval,
    points,
    single_name,
)


@dataclass(frozen=True)
class Tile:
    """One number to see first."""

    name: str
    value: str
    interval: str
    note: str


@dataclass(frozen=True)
class Summary:
    """A data set's result in plain words."""

    headline: str
    sample: str | None
    """Says that the rows are a sample; none where they are all there are."""
    tiles: tuple[Tile, ...]
    paragraphs: tuple[str, ...]


def summarise(group: DataGroup) -> Summary:
    """Say what was found on a data set."""
    best = best_on_validation(group.singles) if group.singles else None
    fused = best_on_validation(group.fused) if group.fused else None
    if best is not None:
        layers = (
            _choice_sentence(group, best),
            _last_sentence(group, best),
            _hindsight_sentence(group, best),
            *(_other_model_sentence(c, best) for c in group.curves if best not in c.points),
        )
        floor = _floor_sentence(best, fused)
    else:
        layers = ("No layer was run alone, so there is no single layer to compare with.",)
        floor = _floor_sentence(None, fused)
    return Summary(
        _headline(group, fused, best),
        _sample_sentence(group),
        _tiles(group, fused, best),
        (" ".join(layers), floor, " ".join(_fusion_sentences(group, fused, best))),
    )


def no_difference(rows: int) -> str:
    """The plain words for an interval that contains zero."""
    return f"no difference that the {plural(rows, 'test row')} can show"


def says(difference: Difference, *, gain: str, loss: str) -> str:
    """`gain 1.2 points [0.3, 2.0]`, `loss …`, or that there is no difference to be seen."""
    between = point_interval(difference)
    if difference.verdict == "open":
        words = no_difference(difference.rows)
        return f"{words} ({points(difference.mean)} points {between})"
    verb = gain if difference.verdict == "gain" else loss
    size = points(abs(difference.mean)).lstrip("+")
    return f"{verb} {size} points {between}"


# -- headline and tiles -------------------------------------------------------------------------


def _headline(group: DataGroup, fused: Job | None, best: Job | None) -> str:
    parts = []
    if best is not None:
        parts.append(f"Validation chooses {single_name(group, best)}")
        parts.append(_fusion_clause(group, fused, best))
    elif fused is not None:
        parts.append(
            f"Validation chooses {job_names(group)[fused]}, with no single layer beside it"
        )
    verdicts = {over_floor(job).verdict for job in (best, fused) if job is not None}
    if verdicts == {"loss"}:
        parts.append("the floor does better")
    elif "gain" not in verdicts:
        parts.append("nothing clearly beats the floor")
    return "; ".join(parts)


def _fusion_clause(group: DataGroup, fused: Job | None, best: Job) -> str:
    if fused is None:
        return "nothing was fused"
    difference = over(fused, best)
    if difference.verdict == "open":
        return f"fusing made {no_difference(group.rows)}"
    verb = "gained" if difference.verdict == "gain" else "lost"
    return f"fusing {verb} {_size(difference)} points"


def _tiles(group: DataGroup, fused: Job | None, best: Job | None) -> tuple[Tile, ...]:
    floor = group.jobs[0].record.floor
    tiles = [
        Tile(
            "Floor",
            percent(floor.test["accuracy"]),
            interval(floor.low, floor.high),
            floor_name(floor),
        )
    ]
    if best is not None:
        last = group.curve_of(best).last
        if last is not None and last is not best:
            tiles.append(_tile("Last layer", last, single_name(group, last)))
        tiles.append(_tile("Chosen layer", best, single_name(group, best)))
    if fused is not None:
        tiles.append(_tile("Chosen fusion", fused, job_names(group)[fused]))
    return tuple(tiles)


def _tile(name: str, job: Job, note: str) -> Tile:
    estimate = job.record.test["accuracy"]
    return Tile(name, percent(estimate.mean), interval(estimate.low, estimate.high), note)


# -- sentences ----------------------------------------------------------------------------------


def _sample_sentence(group: DataGroup) -> str | None:
    data = group.data
    if not data.sampled:
        return None
    learn = data.rows["train"] + data.rows["validation"]
    whole = data.available["train"] + data.available.get("validation", 0)
    return (
        f"A sample, not the whole data set: {count(data.rows['test'])} of"
        f" {count(data.available['test'])} test rows, and {count(learn)} of {count(whole)} rows to"
        " learn and choose from. Read it as a first look."
    )


def _choice_sentence(group: DataGroup, best: Job) -> str:
    models = listing([curve.label for curve in group.curves])
    return (
        f"Validation ({plural(group.data.rows['validation'], 'row')}) chooses"
        f" {single_name(group, best)} among"
        f" {plural(len(group.singles), 'single layer')} of {models}; on test it reaches"
        f" {_with_interval(best)}."
    )


def _last_sentence(group: DataGroup, best: Job) -> str:
    curve = group.curve_of(best)
    if curve.last is None:
        top = curve.layers[-1]
        return f"The last layer of {curve.label} ({layer_name(top)}) was not run alone."
    if curve.last is best:
        return "It is also the last layer of its model."
    words = says(over(best, curve.last), gain="choosing gained", loss="choosing lost")
    return (
        f"The last layer of the same model ({layer_name(curve.last.layer.layer)}) reaches"
        f" {_with_interval(curve.last)}: {words}."
    )


def _hindsight_sentence(group: DataGroup, best: Job) -> str:
    hindsight = best_on_test(group.singles)
    if hindsight.record.test["accuracy"].mean <= best.record.test["accuracy"].mean:
        return "Hindsight agrees: no single layer does better on test."
    return (
        f"In hindsight {single_name(group, hindsight)} has the highest test accuracy,"
        f" {percent(hindsight.record.test['accuracy'].mean)}; a figure picked on test is too"
        " high, and nobody could have chosen it."
    )


def _other_model_sentence(curve: Curve, best: Job) -> str:
    words = says(over(curve.best, best), gain="ahead by", loss="behind by")
    return (
        f"Of {curve.label} validation chooses {layer_name(curve.best.layer.layer)}, with"
        f" {_with_interval(curve.best)} on test: {words}."
    )


def _floor_sentence(best: Job | None, fused: Job | None) -> str:
    chosen = {"layer": best, "fusion": fused}
    jobs = {f"the chosen {what}": job for what, job in chosen.items() if job is not None}
    floor = next(iter(jobs.values())).record.floor
    return (
        f"The floor, {floor_name(floor)} on the whole text, reaches"
        f" {percent(floor.test['accuracy'])} {interval(floor.low, floor.high)}:"
        f" {'; '.join(_against_floor(who, over_floor(job)) for who, job in jobs.items())}."
    )


def _against_floor(who: str, difference: Difference) -> str:
    if difference.verdict == "open":
        return f"between it and {who} there is {says(difference, gain='', loss='')}"
    return f"{who} {says(difference, gain='beats it by', loss='falls behind it by')}"


def _fusion_sentences(group: DataGroup, fused: Job | None, best: Job | None) -> list[str]:
    if fused is None:
        return ["Nothing was fused."]
    names = job_names(group)
    start = (
        f"Among {len(group.fused)} fusions validation chooses {names[fused]}"
        if len(group.fused) > 1
        else f"One fusion was run, {names[fused]}"
    )
    start += f"; on test it reaches {_with_interval(fused)}"
    if best is None:
        return [f"{start}."]
    words = says(over(fused, best), gain="fusing gained", loss="fusing lost")
    others = [(names[job], over(job, best)) for job in group.fused if job is not fused]
    sentences = [f"{start}. Against {single_name(group, best)} alone: {words}."]
    return [*sentences, *([_others_sentence(others)] if others else [])]


def _others_sentence(others: Sequence[tuple[str, Difference]], *, most: int = 2) -> str:
    """What the fusions that were not chosen did, by verdict; a few by name, many by number."""
    by_verdict = {
        verdict: [(name, d) for name, d in others if d.verdict == verdict]
        for verdict in ("gain", "loss", "open")
    }
    if len(by_verdict["open"]) == len(others):
        return f"The {plural(len(others), 'other fusion')} cannot be told from that layer."
    verbs = {"gain": "above it", "loss": "below it", "open": "not to be told from it"}
    parts = []
    for verdict, found in by_verdict.items():
        if not found:
            continue
        part = f"{len(found)} {'is' if len(found) == 1 else 'are'} {verbs[verdict]}"
        if verdict != "open" and len(found) <= most:
            named = [f"{name} ({points(d.mean)} {point_interval(d)})" for name, d in found]
            part += f": {listing(named)}"
        parts.append(part)
    start = f"Of the {plural(len(others), 'other fusion')}, measured against that layer,"
    return f"{start} {'; '.join(parts)}."


def _with_interval(job: Job) -> str:
    mean, low, high = accuracy(job)
    return percent(mean) if low == high else f"{percent(mean)} {interval(low, high)}"


def _size(difference: Difference) -> str:
    return points(abs(difference.mean)).lstrip("+")
