"""Layer profiles: best layers, scores and what they agree on, selections and what they are worth.

The tables also make the text that `layerfusion profile` prints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layerfusion.findings import profiles as scores
from layerfusion.findings.judged import NamedProfile
from layerfusion.findings.measures import SETS
from layerfusion.findings.profiles import best_and_last, lead, score_names
from layerfusion.findings.provenance import facts_of
from layerfusion.findings.results import Results
from layerfusion.records.format import capital, listing, plural
from layerfusion.records.profile import MultiLayerProfile, Profile, SelectionProfile
from layerfusion.report.block import Block, Folded
from layerfusion.report.blocks.provenance import text_table
from layerfusion.report.blocks.selections import WORTH, regret_block
from layerfusion.report.figures.canvas import Drawing, drawing
from layerfusion.report.figures.layers import plot_profile_layers
from layerfusion.report.figures.profile_maps import plot_scores, plot_similarity, ranks_note
from layerfusion.report.format import COUNT, GFLOPS, NAME, PERCENT, POINTS, decimals
from layerfusion.report.metrics import score_format, titled
from layerfusion.report.sentences import percent
from layerfusion.report.table import Column, Table

LEAST_SHARE = 0.01
"""Smallest share of a probe of several layers that is listed."""


def profile_sections(results: Results) -> list[Block]:
    """Make one section for each profile, and one for what the judged ones say of selections."""
    profiles = results.profiles
    sections = [profile_block(x, f"profile-{place}") for place, x in enumerate(profiles, start=1)]
    judged = [named for named in profiles if named.is_judged]
    return sections + ([regret_block(judged, f"profile-{len(profiles) + 1}")] if judged else [])


def profile_block(named: NamedProfile, key: str) -> Block:
    """Show a profile's figures and tables."""
    profile = named.profile
    origin = text_table("Where this profile comes from", "What, Value", facts_of(profile))
    return Block(
        f"Layer profile of {named.label}",
        (
            _text(profile),
            *profile_figures(profile, key, named.label),
            best_table(profile),
            pair_table(profile),
            agreement_table(profile),
            selection_table(profile),
            multi_layer_table(profile),
            Folded((layer_table(profile),)),
            Folded((origin,)),
        ),
        key,
        key,
    )


def _text(profile: Profile) -> str:
    sample = "a sample of train" if profile.dataset.sampled else "train"
    measure, best = profile.dataset.measure, []
    for source, top, last in best_and_last(profile):
        ahead = lead(top, last)
        if top is not None and ahead is not None:
            high = percent(top.scores["accuracy"] or 0.0)
            gain = "its last" if top is last else f"{POINTS(ahead)} points against its last layer"
            best.append(f"of {source}, layer {top.layer} with {high} ({gain})")
    lines = [
        f"{plural(len(profile.layers), 'layer')} of {listing(list(profile.backbones))} on"
        f" {plural(profile.rows, 'row')} of {sample}; held out: {profile.held_out}."
    ]
    if best:
        lines.append(f"Best by held-out probe {measure}: {'; '.join(best)}.")
        lines.append("The best of many is a little lucky on the rows it was chosen on.")
    sets = [SETS] if profile.dataset.multilabel else []
    return " ".join([*lines, *scores.missing_scores(profile), *sets])


def profile_figures(profile: Profile, key: str, label: str) -> list[Drawing]:
    """Draw accuracy by depth, ranks by score, and CKA between layers; `key` begins their files."""
    marked = scores.marked_layers(profile)
    rings = " Rings and triangles: the layers that adaptive selection takes." if marked else ""
    best = [
        f"{source}: best at {top.layer}, {percent(top.scores['accuracy'] or 0.0)}"
        for source, top, _ in best_and_last(profile)
        if top is not None
    ]
    names, measure = score_names(profile), profile.dataset.measure
    accuracy = drawing(
        f"{key}-accuracy",
        lambda ax: plot_profile_layers(profile, ax),
        alt=f"{label}: held-out probe {measure} by depth. {'; '.join(best)}",
        caption=f"Held-out {measure} of a linear probe on each layer. Open diamond: after the"
        f" model's final norm.{rings}",
    )
    ranks = drawing(
        f"{key}-scores",
        lambda ax: plot_scores(profile, ax),
        alt=f"{label}: rank of each layer by {', '.join(names)}",
        caption="Rank that each score gives a layer within its model and pooling; dark is best."
        f" {ranks_note(profile)}{rings}",
    )
    similarity = drawing(
        f"{key}-cka",
        lambda ax: plot_similarity(profile, ax),
        alt=f"{label}: linear CKA between all pairs of {len(profile.layers)} layers",
        caption="Linear CKA between layers, debiased: 1 means the same up to rotation and scale."
        " Layers run from the bottom of each model to its top. Two similar layers add little to"
        " each other.",
    )
    return [accuracy, *([ranks] if names else []), similarity]


def best_table(profile: Profile) -> Table:
    """List the best and the last layer of each source by held-out accuracy."""
    measure = profile.dataset.measure

    def score(place: int, name: str) -> Callable[[Any], float | None]:
        return lambda entry: entry[place] and entry[place].scores.get(name)

    return Table(
        "Best and last layer by held-out probe",
        best_and_last(profile),
        Column("Model", lambda entry: entry[0]),
        Column("Best layer", lambda entry: entry[1] and entry[1].layer, NAME),
        Column(f"Best: {measure} %", score(1, "accuracy"), PERCENT),
        Column("Best: log-loss", score(1, "log_loss"), decimals(3), later=True),
        Column("Last layer", lambda entry: entry[2].layer, NAME),
        Column(f"Last: {measure} %", score(2, "accuracy"), PERCENT),
        Column("Last: log-loss", score(2, "log_loss"), decimals(3), later=True),
        Column("Best − last, points", lambda entry: lead(entry[1], entry[2]), POINTS),
    )


def pair_table(profile: Profile) -> Table:
    """Tell how far the best layers of two models err on different rows."""
    return Table(
        "How models complement each other",
        profile.pairs,
        Column("First", lambda pair: profile.layers[pair.first_layer].name),
        Column("Second", lambda pair: profile.layers[pair.second_layer].name),
        Column("Errors in common", lambda pair: pair.error_overlap, decimals(2)),
        Column("Yule's Q", lambda pair: pair.q_statistic, decimals(2)),
        Column("Oracle gain, points", lambda pair: pair.oracle_gain, POINTS),
        note="Best layers of two models on the rows held out. Errors in common: rows that both get"
        " wrong, as a share of those that either gets wrong. Q: 1 where they are right on the same"
        " rows, 0 where independent. Oracle gain: what a judge that always knew which of the two is"
        " right would add to the better one.",
    )


def agreement_table(profile: Profile) -> Table:
    """Tell how far each score ranks layers as probe accuracy does, and what it took."""
    names = [name for name in score_names(profile) if name != "accuracy"]
    return Table(
        "How far each score can be believed",
        names if profile.spearman else [],
        Column("Score", lambda name: name),
        *(
            Column(source, lambda name, found=found: found.get(name), decimals(2))
            for source, found in profile.spearman.items()
        ),
        Column("Seconds", lambda name: profile.seconds.get(name), decimals(1)),
        note=f"Rank correlation (Spearman) with probe {profile.dataset.measure} over the layers of"
        " each model and pooling: 1 is the same order. Seconds: for all layers, beyond the"
        " extraction.",
    )


def selection_table(profile: Profile) -> Table:
    """List what each selection takes and, if it was judged, what that is worth."""
    judged = any(x.test for x in profile.selections)
    note = (
        f" Test was looked at once all choices were made: {profile.dataset.measure} of a linear"
        " probe on the layers side by side, points behind the best single layer in hindsight, and"
        " points ahead of the last layer, with 95 % intervals over test rows. Cross-fitted: with"
        " the layer in hindsight chosen on one half of test and judged on the other. p: of no"
        " single layer being better, which accounts for its being the best of many."
    )

    def which(x: SelectionProfile) -> str:
        layers = [profile.layers[place] for place in x.layers]
        return ", ".join(f"{layer.source} {layer.layer}" for layer in layers)

    return Table(
        "What each selection takes",
        profile.selections,
        Column("Selection", lambda x: x.name),
        Column("Layers", lambda x: len(x.layers), COUNT),
        Column("Which", which),
        *(WORTH if judged else ()),
        note="Chosen on train." + note * judged,
    )


def multi_layer_table(profile: Profile) -> Table:
    """List the probes of several layers at once, and which layers they use."""
    measure, judged = profile.dataset.measure, any(x.test for x in profile.multi_layer)
    place = scores.best_place(profile, "log_loss", range(len(profile.layers)))
    best = ""
    if place is not None:
        layer = profile.layers[place]
        accuracy, loss = layer.scores.get("accuracy"), layer.scores.get("log_loss")
        said = f", {percent(accuracy)} and {loss:.3f}" if accuracy is not None and loss else ""
        best = f" The best of one layer is {layer.name}{said}."
    return Table(
        "Probes of several layers at once",
        profile.multi_layer,
        Column("Probe", lambda x: x.name),
        Column("Layers", lambda x: len(x.layers), COUNT),
        Column("Share of each", lambda x: listed_shares(profile, x)),
        Column(f"Held-out {measure} %", lambda x: x.accuracy, PERCENT),
        Column("Log-loss", lambda x: x.log_loss, decimals(3)),
        Column("Seconds", lambda x: x.seconds, decimals(1)),
        *(WORTH if judged else ()),
        note=f"Fitted on train.{best} Layers whose share is below {LEAST_SHARE:g} are not listed.",
    )


def listed_shares(profile: Profile, probe: MultiLayerProfile) -> str:
    """List the layers of a probe with their shares, the largest first, without the smallest."""
    shares = sorted(zip(probe.shares, probe.layers, strict=True), key=lambda x: (-x[0], x[1]))
    named = [(profile.layers[place], share) for share, place in shares if share >= LEAST_SHARE]
    return ", ".join(f"{layer.source} {layer.layer} ({share:.2f})" for layer, share in named)


def layer_table(profile: Profile) -> Table:
    """List every score of every layer."""
    tops = [top for _, top, _ in best_and_last(profile)]

    def column(name: str) -> Column:
        words = name.replace("_", " ").capitalize()
        if name == "accuracy":
            words = f"{capital(profile.dataset.measure)} %"
        title = f"{words} ↓" if scores.low_is_good(profile, name) else words
        later, form = name not in ("accuracy", "log_loss"), score_format(profile, name)
        return Column(title, lambda layer: layer.scores.get(name), form, later=later)

    return Table(
        "Every score of every layer",
        profile.layers,
        Column("Model", lambda layer: layer.source),
        Column("Layer", lambda layer: layer.layer, NAME),
        Column("Depth", lambda layer: layer.depth, decimals(2), later=True),
        *map(column, score_names(profile)),
        Column("GFLOPs a text", lambda layer: layer.flops_per_text, GFLOPS, later=True),
        Column("ms a text", lambda x: x.milliseconds_per_text, decimals(1), later=True),
        Column(titled("Test", profile.dataset.measure), lambda x: x.test, PERCENT, optional=True),
        note=f"Marked: the best held-out {profile.dataset.measure} of its model and pooling. ↓: low"
        " is good. Operations and milliseconds are those of the forward pass up to the layer. The"
        " milliseconds are estimated from the measured pass of the whole model.",
        mark=lambda layer: "chosen" if any(layer is top for top in tops) else "",
    )
