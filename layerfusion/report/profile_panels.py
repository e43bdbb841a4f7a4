"""The panels of a layer profile's figure, each a figure of its own for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from layerfusion.records.profile import Profile
from layerfusion.report.canvas import MUTED, Drawing, canvas, drawing, sheet
from layerfusion.report.names import percent
from layerfusion.report.profile_figure import adaptive_layers, draw_accuracy
from layerfusion.report.profile_heat_maps import (
    LIKENESS,
    RANKS,
    draw_likeness,
    draw_ranks,
    ranks_note,
)
from layerfusion.report.profile_layout import (
    CHARACTER,
    LABEL,
    ROW,
    Layout,
    Strand,
    color_scale,
    strands_of,
    write,
)
from layerfusion.report.profile_tables import best_of, score_names

WIDE, NARROW = 760.0, 360.0
"""Pixels of a figure on a desk and on a phone."""
LINE = 18.0
"""Height of a line of the legend."""
COLUMN = 44.0
"""Pixels that a layer takes at most in the map of scores."""


def profile_figures(profile: Profile, key: str, label: str) -> tuple[Drawing, ...]:
    """Accuracy by depth, ranks by score and CKA between layers.

    Args:
        profile: what to draw.
        key: ahead of the names of the figures' files.
        label: of the profile, for who cannot see the figures.
    """
    strands = strands_of(profile)
    chosen = adaptive_layers(profile)
    rings = " Rings and triangles: the layers that adaptive selection takes." if chosen else ""
    best = [
        f"{strand.name}: best at {profile.layers[place].layer},"
        f" {percent(profile.layers[place].scores['accuracy'] or 0.0)}"
        for strand in strands
        if (place := best_of(profile.layers, "accuracy", strand.places)) is not None
    ]
    accuracy = drawing(
        f"{key}-accuracy",
        lambda narrow: _draw_accuracy(profile, strands, chosen, narrow=narrow),
        alt=f"{label}: held-out probe accuracy by depth. {'; '.join(best)}",
        caption="Held-out accuracy of a linear probe on each layer. Open diamond: after the"
        f" model's final norm.{rings}",
    )
    likeness = drawing(
        f"{key}-cka",
        lambda narrow: _draw_likeness(profile, strands, narrow=narrow),
        alt=f"{label}: linear CKA between all pairs of {len(profile.layers)} layers",
        caption="Linear CKA between layers, debiased: 1, the same up to rotation and scale. Layers"
        " run from the bottom of each model to its top; two that are much alike bring little"
        " together.",
    )
    if not score_names(profile):
        return accuracy, likeness
    scores = drawing(
        f"{key}-scores",
        lambda narrow: _draw_scores(profile, strands, chosen, narrow=narrow),
        alt=f"{label}: rank of each layer by {', '.join(score_names(profile))}",
        caption="Rank that each score gives a layer within its model and pooling, dark being best."
        f" {ranks_note(_score_layout(profile, strands, narrow=False))}{rings}",
    )
    return accuracy, scores, likeness


def _draw_accuracy(
    profile: Profile, strands: Sequence[Strand], chosen: set[int], *, narrow: bool
) -> Figure:
    width, plot = (NARROW, 260.0) if narrow else (WIDE, 320.0)
    top = LINE * len(strands) + 18 if narrow else 20.0
    names = CHARACTER * max(len(strand.label(LABEL)) for strand in strands)
    right = 12.0 if narrow else names + 40
    figure, axes = canvas(width, top + plot + 46, 52, right, top, 46)
    draw_accuracy(axes, profile, strands, chosen, named=not narrow)
    axes.set_xlabel("relative depth" if narrow else axes.get_xlabel())
    if narrow:
        _write_legend(figure, _bare(width, top + plot + 46), strands, 52)
    return figure


def _draw_scores(
    profile: Profile, strands: Sequence[Strand], chosen: set[int], *, narrow: bool
) -> Figure:
    """One block a source, below each other: rows are scores, columns its layers."""
    layout = _score_layout(profile, strands, narrow=narrow)
    figure = sheet(layout.width, layout.height)
    color_scale(figure, layout, layout.left + 30, 14, RANKS, ("best", "worst"))
    step = (layout.height - layout.top) / len(strands)
    for number, strand in enumerate(strands):
        place = replace(layout, ranks=layout.top + step * number + 32)
        draw_ranks(figure, place, profile, [strand], chosen)
    return figure


def _score_layout(profile: Profile, strands: Sequence[Strand], *, narrow: bool) -> Layout:
    names = score_names(profile)
    width = NARROW if narrow else WIDE
    left = 16 + CHARACTER * max(map(len, names), default=0)
    most = max(len(strand.places) for strand in strands)
    column = min(COLUMN, (width - left - 8) / most)
    height = 32 + (ROW * len(names) + 62) * len(strands)
    return replace(_bare(width, height), left=left, top=32.0, column=column, starts=(0.0,))


def _draw_likeness(profile: Profile, strands: Sequence[Strand], *, narrow: bool) -> Figure:
    names = CHARACTER * max(len(strand.label(LABEL)) for strand in strands) + 20
    left = 14.0 if narrow else names
    width = NARROW if narrow else WIDE
    side = min(width - left - 10, 44.0 * max(len(profile.layers), 4), 500.0)
    top = 40 + (LINE * len(strands) if narrow else 0)
    layout = replace(_bare(width, top + side + 34), top=top, square=(left, side))
    figure = sheet(layout.width, layout.height)
    color_scale(figure, layout, left + 20, 14, LIKENESS, ("0", "1"))
    draw_likeness(figure, layout, profile, strands, named=not narrow)
    if narrow:
        _write_legend(figure, layout, strands, left, top=34.0)
    return figure


def _bare(width: float, height: float) -> Layout:
    """A sheet without a place for anything yet."""
    nothing = (0.0, 0.0)
    return Layout(width, height, 0.0, 0.0, nothing, nothing, 0.0, 0.0, ())


def _write_legend(
    figure: Figure, layout: Layout, strands: Sequence[Strand], left: float, top: float = 12.0
) -> None:
    """A line of its kind and the name of each source, below each other."""
    most = int((layout.width - left - 40) / CHARACTER)
    for number, strand in enumerate(strands):
        y = top + LINE * number
        across = [x / layout.width for x in (left, left + 26)]
        up = [1 - y / layout.height] * 2
        style = {"color": strand.color, "linestyle": strand.line, "linewidth": 1.7}
        figure.add_artist(Line2D(across, up, transform=figure.transFigure, **style))
        write(figure, layout, left + 34, y, strand.label(most), color=MUTED, fontsize=11)
