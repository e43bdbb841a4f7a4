"""Layer profiles on the page: figures, tables, and the study of all that were judged."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from layerfusion.records.format import plural
from layerfusion.records.profile import LayerProfile, Profile, SelectionProfile
from layerfusion.report.blocks import Block
from layerfusion.report.names import NONE, SPACE, count, listing, percent, points
from layerfusion.report.profile_panels import profile_figures
from layerfusion.report.profile_tables import best_of, score_names, sources
from layerfusion.report.profile_words import (
    LOW_IS_GOOD,
    between,
    form,
    number,
    percentage,
    unsigned,
)
from layerfusion.report.regret import regret_block
from layerfusion.report.regret_rows import Cell, is_judged, named_cells, read_profiles
from layerfusion.report.tables import Column, Row, Table


def profile_blocks(runs: Path, only: Collection[str] | None = None) -> tuple[Block, ...]:
    """One block a profile under a folder, then what the judged ones say of choosing layers.

    Args:
        runs: folder with the profiles, at any depth.
        only: hashes of the jobs to show; all where None.

    Raises:
        UserError: for a profile that cannot be read.
    """
    profiles = read_profiles(runs) if runs.is_dir() else []
    cells = named_cells([one for one in profiles if only is None or one.job in only])
    study = regret_block([cell for cell in cells if is_judged(cell.profile)])
    blocks = [_block(cell, f"profile-{place}") for place, cell in enumerate(cells, start=1)]
    return (*blocks, *([study] if study else []))


def _block(cell: Cell, key: str) -> Block:
    profile = cell.profile
    label = f"{cell.data}: {cell.sources}"
    tables = (_best_table(profile), _pair_table(profile), _agreement_table(profile))
    return Block(
        f"Layer profile: {label}",
        _text(profile),
        profile_figures(profile, key, label),
        tuple(table for table in (*tables, _selection_table(profile)) if table.rows),
        (_layer_table(profile), _origin_table(profile)),
    )


def _text(profile: Profile) -> str:
    data = profile.dataset
    sample = "a sample of train" if data.sampled else "train"
    best = []
    for source, places in sources(profile).items():
        place = best_of(profile.layers, "accuracy", places)
        last = profile.layers[places[-1]].scores.get("accuracy")
        if place is None or last is None:
            continue
        top = profile.layers[place]
        high = top.scores["accuracy"] or 0.0
        gain = (
            "its last"
            if place == places[-1]
            else f"{points(high - last)} points against its last layer"
        )
        best.append(f"of {source}, layer {top.layer} with {percent(high)} ({gain})")
    lacking: dict[str, list[str]] = {}
    for name, why in profile.missing.items():
        lacking.setdefault(why, []).append(name)
    missing = [f"No {' or '.join(which)} of some layers: {why}." for why, which in lacking.items()]
    return " ".join(
        [
            f"{plural(len(profile.layers), 'layer')} of {listing(list(profile.backbones))} on"
            f" {plural(profile.rows, 'row')} of {sample}; held out: {profile.held_out}.",
            f"Best by held-out probe accuracy: {'; '.join(best)}." if best else "",
            "The best of many is a little lucky on the rows that it was chosen on." if best else "",
            *missing,
        ]
    ).replace("  ", " ")


# -- tables -------------------------------------------------------------------------------------


def _best_table(profile: Profile) -> Table:
    rows = []
    for source, places in sources(profile).items():
        place = best_of(profile.layers, "accuracy", places)
        if place is None:
            continue
        best, last = profile.layers[place], profile.layers[places[-1]]
        high, low = best.scores["accuracy"], last.scores.get("accuracy")
        ahead = NONE if high is None or low is None else points(high - low)
        rows.append(Row((source, *_judged(best), *_judged(last), ahead)))
    return Table(
        "Best and last layer by held-out probe",
        (
            Column("Model", numeric=False),
            *(Column(f"{which}{what}") for which in ("Best", "Last") for what in _HEADS),
            Column("Best − last, points"),
        ),
        tuple(rows),
    )


_HEADS = (" layer", ": accuracy %", ": log-loss")


def _judged(layer: LayerProfile) -> tuple[str, str, str]:
    accuracy, loss = (layer.scores.get(name) for name in ("accuracy", "log_loss"))
    return layer.layer, percentage(accuracy), NONE if loss is None else f"{loss:.3f}"


def _pair_table(profile: Profile) -> Table:
    rows = [
        Row(
            (
                profile.layers[pair.first_layer].name,
                profile.layers[pair.second_layer].name,
                NONE if pair.error_overlap is None else f"{pair.error_overlap:.2f}",
                number(pair.q_statistic, ".2f"),
                points(pair.oracle_gain),
            )
        )
        for pair in profile.pairs
    ]
    return Table(
        "How models complement each other",
        (
            Column("One", numeric=False),
            Column("Other", numeric=False),
            Column("Errors in common"),
            Column("Yule's Q"),
            Column("Oracle gain, points"),
        ),
        tuple(rows),
        "Best layers of two models on the rows held out. Errors in common: rows that both get"
        " wrong, as a share of those that either does. Q: 1 where they are right on the same rows,"
        " 0 where independent. Oracle gain: what a judge that always knew which of the two is"
        " right would add to the better one.",
    )


def _agreement_table(profile: Profile) -> Table:
    names = [name for name in score_names(profile) if name != "accuracy"]
    return Table(
        "How far each score can be believed",
        (
            Column("Score", numeric=False),
            *(Column(source) for source in profile.spearman),
            Column("Seconds"),
        ),
        tuple(
            Row(
                (
                    name,
                    *(number(found.get(name), ".2f") for found in profile.spearman.values()),
                    number(profile.seconds.get(name), ",.1f"),
                )
            )
            for name in names
            if profile.spearman
        ),
        "Rank correlation (Spearman) with probe accuracy over the layers of each model and pooling:"
        " 1 is the same order. Seconds: for all layers, beyond the extraction.",
    )


def _selection_table(profile: Profile) -> Table:
    judged = any(one.test for one in profile.selections)
    titles = ("Test %", "Regret, points", "Gain over last, points") if judged else ()
    return Table(
        "What each selection takes",
        (
            Column("Selection", numeric=False),
            Column("Layers"),
            Column("Which", numeric=False),
            *(Column(title) for title in titles),
        ),
        tuple(
            Row(
                (
                    one.name,
                    count(len(one.layers)),
                    ", ".join(_short(profile.layers[n]) for n in one.layers),
                    *(_worth(one) if judged else ()),
                )
            )
            for one in profile.selections
        ),
        "Chosen on train."
        + (
            " Test was looked at once all choices were made: accuracy of a linear probe on the"
            " layers side by side, points behind the best single layer in hindsight, and points"
            " ahead of the last layer, with 95 % intervals over test rows."
            if judged
            else ""
        ),
    )


def _worth(one: SelectionProfile) -> tuple[str, str, str]:
    test = f"{percentage(one.test.mean)} {between(one.test, percentage)}" if one.test else NONE
    behind = one.regret
    regret = f"{unsigned(behind.mean)} {between(behind, unsigned)}" if behind else NONE
    if one.over_last is None:
        return test, regret, NONE
    gain, low, high = map(points, one.over_last)
    return test, regret, f"{gain} [{low},{SPACE}{high}]"


def _short(layer: LayerProfile) -> str:
    return f"{layer.source} {layer.layer}"


def _layer_table(profile: Profile) -> Table:
    names = score_names(profile)
    forms = {name: form([layer.scores.get(name) for layer in profile.layers]) for name in names}
    judged = any(layer.test for layer in profile.layers)
    best = {best_of(profile.layers, "accuracy", places) for places in sources(profile).values()}
    rows = []
    for place, layer in enumerate(profile.layers):
        values = (
            percentage(layer.scores.get(name))
            if name == "accuracy"
            else number(layer.scores.get(name), forms[name])
            for name in names
        )
        test = layer.test
        on_test = f"{percentage(test.mean)} {between(test, percentage)}" if test else NONE
        cells = (layer.source, layer.layer, f"{layer.depth:.2f}", *values)
        cost = (
            f"{layer.flops_per_text / 1e9:,.2f}",
            number(layer.milliseconds_per_text, ",.1f"),
        )
        rows.append(
            Row((*cells, *cost, *([on_test] if judged else [])), "chosen" if place in best else "")
        )
    return Table(
        "Every score of every layer",
        (
            Column("Model", numeric=False),
            *(Column(title) for title in ("Layer", "Depth")),
            *(Column(_heading(name)) for name in names),
            *(Column(title) for title in ("GFLOPs a text", "ms a text")),
            *([Column("Test %")] if judged else []),
        ),
        tuple(rows),
        "Marked: the best held-out accuracy of its model and pooling. ↓: low is good. Operations"
        " and milliseconds are those of the forward pass up to the layer, the latter estimated"
        " from the measured pass of the whole model.",
    )


def _heading(name: str) -> str:
    words = name.replace("_", " ").capitalize() + (" %" if name == "accuracy" else "")
    return f"{words} ↓" if name in LOW_IS_GOOD else words


def _origin_table(profile: Profile) -> Table:
    data = profile.dataset
    versions = ", ".join(f"{name} {version}" for name, version in profile.versions.items())
    facts: Sequence[tuple[str, str]] = (
        ("Job", profile.job),
        ("Made", profile.created),
        ("Data", f"{data.origin}, fingerprint {data.fingerprint}"),
        *(
            (
                name,
                f"{one.origin}; "
                + ", ".join(f"{pooling} {spec}" for pooling, spec in one.spec_hashes.items()),
            )
            for name, one in profile.backbones.items()
        ),
        ("Versions", versions),
        *(("Note", note) for note in data.notes),
    )
    return Table(
        "Where this profile comes from",
        (Column("What", numeric=False), Column("Value", numeric=False)),
        tuple(Row(fact) for fact in facts),
    )
