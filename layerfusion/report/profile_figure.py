"""The figure of a layer profile: accuracy by depth, what the scores say, what layers share."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from layerfusion.assets.files import write_atomically
from layerfusion.records.format import plural
from layerfusion.records.profile import LayerProfile, Profile
from layerfusion.report.canvas import GRID, MUTED, PAPER, canvas, shortened
from layerfusion.report.layer_curves import NORM_OFFSET
from layerfusion.report.line_ends import LineEnd, name_lines
from layerfusion.report.profile_heat_maps import (
    LIKENESS,
    RANKS,
    draw_likeness,
    draw_ranks,
    ranks_note,
)
from layerfusion.report.profile_layout import (
    LABEL,
    MARGIN,
    Layout,
    Strand,
    color_scale,
    layout_of,
    strands_of,
    write,
)
from layerfusion.report.profile_tables import score_names

STYLE: dict[Any, Any] = {"font.family": "DejaVu Sans", "text.parse_math": False}


def write_profile_figure(profile: Profile, path: Path) -> None:
    """Draw a profile as one PNG, which grows with the number of layers.

    Panel a: held-out accuracy of each layer's probe against its depth. Panel b: the rank that each
    score gives a layer within its model and pooling. Panel c: linear CKA between all layers.
    Nothing in it comes from test.
    """
    with rc_context(STYLE):
        png = io.BytesIO()
        draw_profile(profile).savefig(
            png, format="png", dpi=160, facecolor="white", metadata={"Software": None}
        )
    write_atomically(path, png.getvalue())


def draw_profile(profile: Profile) -> Figure:
    """The figure that `write_profile_figure` writes."""
    strands = strands_of(profile)
    layout = layout_of(strands, score_names(profile))
    (width, height), (edge, _) = layout.curves, layout.square
    right, bottom = layout.width - layout.left - width, layout.height - layout.top - height
    figure, axes = canvas(layout.width, layout.height, layout.left, right, layout.top, bottom)
    chosen = adaptive_layers(profile)
    _write_heading(figure, layout, profile, adaptive=bool(chosen))
    _write_title(figure, layout, layout.left, layout.top - 22, "a", "Held-out accuracy by depth")
    draw_accuracy(axes, profile, strands, chosen)
    title = "Linear CKA between layers"
    _write_title(figure, layout, edge, layout.top - 22, "c", title)
    color_scale(figure, layout, edge + 216, layout.top - 22, LIKENESS, ("0", "1"))
    draw_likeness(figure, layout, profile, strands)
    title = "Rank that each score gives a layer within its model and pooling"
    _write_title(figure, layout, layout.left, layout.ranks - 44, "b", title)
    draw_ranks(figure, layout, profile, strands, chosen)
    note, below = ranks_note(layout), layout.height - 22
    write(figure, layout, layout.left, below, note, color=MUTED, fontsize=10)
    color_scale(figure, layout, layout.left + 500, layout.ranks - 44, RANKS, ("best", "worst"))
    return figure


def _write_heading(figure: Figure, layout: Layout, profile: Profile, *, adaptive: bool) -> None:
    facts = f"{plural(profile.rows, 'row')} of train, held out: {profile.held_out}"
    if adaptive:
        facts += ". Rings and triangles: the layers that the selection adaptive takes"
    name = shortened(profile.dataset.name, 60)
    write(figure, layout, MARGIN, 28, f"Layer profile: {name}", fontsize=16, fontweight="bold")
    write(figure, layout, MARGIN, 52, f"{facts}.", color=MUTED, fontsize=11)


def _write_title(
    figure: Figure, layout: Layout, x: float, y: float, letter: str, title: str
) -> None:
    write(figure, layout, x, y, letter, fontsize=13, fontweight="bold")
    write(figure, layout, x + 18, y, title, fontsize=12.5)


# -- accuracy -----------------------------------------------------------------------------------


def adaptive_layers(profile: Profile) -> set[int]:
    """Positions of the layers that the selection adaptive takes: those that figures mark."""
    return {n for one in profile.selections if one.name == "adaptive" for n in one.layers}


def draw_accuracy(
    axes: Axes,
    profile: Profile,
    strands: Sequence[Strand],
    chosen: set[int],
    *,
    named: bool = True,
) -> None:
    """Panel a: one curve a source, `named` at its end."""
    axes.set_xlim(-0.02, 1.02 + NORM_OFFSET)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
    axes.set_xlabel("relative depth: 0 enters the first block, 1 leaves the last; ◇ final norm")
    axes.set_ylabel("accuracy, %")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    ends: list[LineEnd] = []
    for strand in strands:
        points = [
            (n, _position(profile.layers[n]), 100 * accuracy)
            for n in strand.places
            if (accuracy := profile.layers[n].scores.get("accuracy")) is not None
        ]
        if points:
            _, x, y = zip(*points, strict=True)
            axes.plot(x, y, color=strand.color, linewidth=1.7, linestyle=strand.line)
            for n, depth, accuracy in points:
                _draw_point(axes, profile.layers[n], strand, depth, accuracy, ring=n in chosen)
            ends.append(LineEnd(strand.label(LABEL), x[-1], y[-1], strand.color))
    if named:
        name_lines(axes, ends)


def _draw_point(
    axes: Axes, layer: LayerProfile, strand: Strand, x: float, y: float, *, ring: bool
) -> None:
    style: Mapping[str, Any] = {"marker": "o", "markersize": 3.4, "color": strand.color}
    if layer.layer == "norm":
        style = {
            "marker": "D",
            "markersize": 5.5,
            "markerfacecolor": PAPER,
            "markeredgecolor": strand.color,
            "markeredgewidth": 1.4,
        }
    axes.plot(x, y, zorder=4, **style)
    if ring:
        edge = {"markerfacecolor": "none", "markeredgecolor": strand.color, "markeredgewidth": 1.7}
        axes.plot(x, y, marker="o", markersize=11.5, zorder=5, **edge)
        axes.annotate(
            layer.layer,
            (x, y),
            (0, 13),
            textcoords="offset points",
            ha="center",
            va="center",
            color=strand.color,
            fontsize=10,
            fontweight="bold",
            path_effects=[withStroke(linewidth=2.5, foreground=PAPER)],
            zorder=6,
        )


def _position(layer: LayerProfile) -> float:
    return layer.depth + (NORM_OFFSET if layer.layer == "norm" else 0)
