"""Files of `layerfusion profile` beside its record, and its lines for the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imsave

from layerfusion.assets.files import write_atomically
from layerfusion.findings import profiles as scores
from layerfusion.findings.profiles import score_names
from layerfusion.records.format import listing, plural
from layerfusion.records.profile import LayerProfile, Profile, SelectionProfile
from layerfusion.report.blocks.profiles import (
    agreement_table,
    best_table,
    listed_shares,
    multi_layer_table,
    pair_table,
    selection_table,
)
from layerfusion.report.blocks.selections import WORTH
from layerfusion.report.figures.axes import WIDE
from layerfusion.report.figures.canvas import DPI, NO_MAKER, own_style, sheet
from layerfusion.report.figures.layers import plot_profile_layers
from layerfusion.report.figures.profile_maps import plot_scores, plot_similarity, ranks_note
from layerfusion.report.format import COUNT, NAME, utf8
from layerfusion.report.metrics import score_format
from layerfusion.report.render.files import table_csv
from layerfusion.report.render.terminal import table_lines, wrapped
from layerfusion.report.sentences import shortened
from layerfusion.report.table import Cell, Column, Table

MOST = 8
"""Layers of a selection that are listed."""
BEST = "*"
"""Mark of the best layer of a source by a score."""


def profile_lines(profile: Profile) -> list[str]:
    """Write a profile for the terminal: best layers, scores, what they agree on, and selections.

    Every line has at most 100 characters.
    """
    judged = any(selection.test for selection in profile.selections)
    table = selection_table(profile)
    worth = table_lines(table, leave_out=("Which", "Layers"), first=26, gap=" ")
    parts = [
        wrapped(
            f"{profile.dataset.name}: {plural(len(profile.layers), 'layer')} of"
            f" {listing(list(profile.backbones))}, {plural(profile.rows, 'row')} of train, held"
            f" out: {profile.held_out}"
        ),
        table_lines(best_table(profile), first=22),
        *(
            table_lines(_score_table(profile, source, places), gap=" ")
            for source, places in scores.sources(profile).items()
        ),
        _score_notes(profile),
        table_lines(agreement_table(profile), first=18),
        table_lines(pair_table(profile), first=31),
        _selection_lines(profile),
        _multi_layer_lines(profile),
        ["On test: " + worth[0], *worth[1:], *wrapped(table.note)] if judged else [],
    ]
    return [line for part in parts if part for line in ("", *part)][1:]


def _score_table(profile: Profile, source: str, places: Sequence[int]) -> Table:
    """List the scores of the layers of a source; the best of each score is marked."""
    names = score_names(profile)

    def column(name: str) -> Column:
        best = scores.best_place(profile, name, places)

        def score(place: int) -> Cell:
            return Cell(profile.layers[place].scores.get(name), mark=BEST * (place == best))

        return Column(name.replace("_", " "), score, score_format(profile, name))

    layer = Column("layer", lambda place: profile.layers[place].layer, NAME)
    return Table(source, places if names else (), layer, *map(column, names))


def _score_notes(profile: Profile) -> list[str]:
    names = score_names(profile)
    if not names:
        return []
    low = [name for name in names if scores.low_is_good(profile, name)]
    note = f"{BEST} the best of its model and pooling"
    note += f"; low is good: {', '.join(low)}" if low else ""
    note += "; accuracy in %" if "accuracy" in names else ""
    return [
        line for text in (note, *scores.missing_scores(profile)) for line in wrapped(text, "", "  ")
    ]


def _selection_lines(profile: Profile) -> list[str]:
    """Say what each selection takes, and why."""
    lines = ["What each selection takes, and why"] if profile.selections else []
    for selection in profile.selections:
        first, *more = _reasons(selection, profile.layers)
        lines += wrapped(f"{selection.name}: {first}", "  ", "    ")
        for line in more:
            lines += wrapped(line, "    ", "      ")
    return lines


def _multi_layer_lines(profile: Profile) -> list[str]:
    """Say what the probes of several layers reach, and which layers they use."""
    if not profile.multi_layer:
        return []
    on_test = [column.title for column in WORTH[1:]]
    table = multi_layer_table(profile)
    lines = table_lines(table, leave_out=("Share of each", *on_test), first=18)
    for probe in profile.multi_layer:
        lines += wrapped(f"{probe.name}: {listed_shares(profile, probe)}", "  ", "    ")
    return [*lines, *wrapped(table.note)]


def _reasons(selection: SelectionProfile, layers: Sequence[LayerProfile]) -> list[str]:
    """Say why each layer was taken; before several reasons stands how many layers there are."""
    lines = []
    for place, reason in list(zip(selection.layers, selection.reasons, strict=True))[:MOST]:
        name = layers[place].name
        lines.append(reason if reason.startswith(f"{name}:") else f"{name}: {reason}")
    if len(selection.layers) > MOST:
        lines.append(f"and {COUNT(len(selection.layers) - MOST)} more")
    if selection.notes:
        number = plural(len(selection.notes), "note")
        lines.append(f"{number}, the first: {selection.notes[0]}")
    return lines if len(lines) == 1 else [plural(len(selection.layers), "layer"), *lines]


def write_csv(profile: Profile, path: Path) -> None:
    """Write one row a layer, as RFC 4180 has it: all digits, and nothing for no number."""
    names = ["backbone", "layer", "pooling", "depth"]
    costs = ["strength", "flops_per_text", "milliseconds_per_text"]
    test = {"test_accuracy": "mean", "test_low": "low", "test_high": "high"}
    columns = (
        *(Column(name, attrgetter(name)) for name in names),
        *(Column(x, lambda layer, x=x: layer.scores.get(x)) for x in score_names(profile)),
        *(Column(name, attrgetter(name)) for name in costs),
        *(Column(x, lambda layer, y=y: getattr(layer.test, y, None)) for x, y in test.items()),
    )
    table = Table("", profile.layers, *columns)
    write_atomically(path, utf8(table_csv(table)))


def write_profile_figure(profile: Profile, path: Path) -> None:
    """Draw a profile as one PNG with three panels below each other.

    They show the held-out accuracy of each layer's probe against its depth, the rank that each
    score gives to a layer within its model and pooling, and the linear CKA between all layers.
    Nothing in them comes from test.
    """
    facts = f"{plural(profile.rows, 'row')} of train, held out: {profile.held_out}"
    if scores.marked_layers(profile):
        facts += ". Rings and triangles: the layers that the selection adaptive takes"
    title = f"Layer profile: {shortened(profile.dataset.name, 60)}\n{facts}."
    by_depth = f"{title}\n\nHeld-out {profile.dataset.measure} by depth"
    panels = [(plot_profile_layers, by_depth)]
    if score_names(profile):
        panels.append((plot_scores, f"Rank by score. {ranks_note(profile)}"))
    panels.append((plot_similarity, "Linear CKA between layers"))
    images = []
    for plot, title in panels:
        with own_style():
            figure = sheet(WIDE)
            plot(profile, figure.add_subplot())
            figure.suptitle(title, x=0.01, ha="left", fontsize=11.5)
            figure.set(dpi=DPI, facecolor="white")
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            images.append(np.asarray(canvas.buffer_rgba()))
    png = io.BytesIO()
    imsave(png, np.concatenate(images), format="png", dpi=DPI, metadata=NO_MAKER)
    write_atomically(path, png.getvalue())
