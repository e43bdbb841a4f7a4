"""Where the panels of a profile's figure stand, and writing at pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from layerfusion.records.profile import Profile
from layerfusion.report.canvas import INK, MUTED, SERIES, shortened
from layerfusion.report.layer_curves import LINES
from layerfusion.report.profile_tables import sources

CHARACTER = 6.6
"""Pixels that a character of a label takes."""
ROW, GROUP, NAME = 24.0, 16.0, 58.0
"""Height of a score, gap between sources and least width of one with its name."""
TICK = 18.0
"""Least distance between numbers of layers."""
LABEL = 22
"""Characters of a source's name beside panels a and c."""
MARGIN, LEGEND = 24.0, 330.0
"""Room around everything, and least width of panel c with its title and colours."""


@dataclass(frozen=True)
class Strand:
    """The layers of one source and how they are drawn."""

    name: str
    places: tuple[int, ...]
    """Positions in `Profile.layers`, bottom up."""
    color: str
    """One a model."""
    line: Any
    """Line style, where a model has several poolings or colours come round again."""

    def label(self, most: int) -> str:
        """The name in some characters; the pooling stays, which tells it from its like."""
        if len(self.name) <= most:
            return self.name
        model, space, pooling = self.name.rpartition(" (")
        room = most - len(space + pooling)
        if not model or room < 4:
            return shortened(self.name, most)
        return f"{shortened(model, room)}{space}{pooling}"


@dataclass(frozen=True)
class Layout:
    """Where the panels stand, in pixels from the top left."""

    width: float
    height: float
    left: float
    """Of panels a and b: room for the names of scores."""
    top: float
    """Of panels a and c."""
    curves: tuple[float, float]
    """Width and height of panel a."""
    square: tuple[float, float]
    """Left edge and side of panel c, without its names."""
    ranks: float
    """Top of panel b."""
    column: float
    """Width of a layer in panel b."""
    starts: tuple[float, ...]
    """Left edge of each source in panel b, from the panel's."""


def strands_of(profile: Profile) -> list[Strand]:
    """The sources in order, each with its colour and line."""
    backbones = list(dict.fromkeys(layer.backbone for layer in profile.layers))
    seen: dict[str, int] = {}
    strands = []
    for name, places in sources(profile).items():
        backbone = profile.layers[places[0]].backbone
        again, color = divmod(backbones.index(backbone), len(SERIES))
        line = LINES[(seen.get(backbone, 0) + 2 * again) % len(LINES)]
        seen[backbone] = seen.get(backbone, 0) + 1
        strands.append(Strand(name, tuple(places), SERIES[color], line))
    return strands


def layout_of(strands: Sequence[Strand], scores: Sequence[str]) -> Layout:
    """Room for every layer: 6.5 pixels at least in panel c, 8 in panel b."""
    count = sum(len(strand.places) for strand in strands)
    side = min(44.0 * count, max(320.0, 6.5 * count))
    left = max(70.0, MARGIN + 16 + CHARACTER * max(map(len, scores), default=0))
    top, height = 108.0, max(320.0, side)
    width = min(max(440.0, 1.1 * height), 700.0)
    names = CHARACTER * max(len(strand.label(LABEL)) for strand in strands)
    edge = left + width + 2 * names + 80
    total = edge + max(side, LEGEND) + MARGIN
    gaps = GROUP * (len(strands) - 1)
    column = min(84.0, max(8.0, (total - left - MARGIN - gaps) / max(count, 1)))
    # A source of one layer is as wide as a short name.
    wide = np.array([max(column * len(strand.places), NAME) for strand in strands])
    starts = np.cumsum(wide + GROUP) - wide - GROUP
    ranks = top + height + 120
    return Layout(
        width=max(total, left + float(wide.sum()) + gaps + MARGIN),
        height=ranks + ROW * len(scores) + 56,
        left=left,
        top=top,
        curves=(width, height),
        square=(edge, side),
        ranks=ranks,
        column=column,
        starts=tuple(starts),
    )


def ticks_that_fit(layers: Sequence[str], pixels: float, *, apart: bool = True) -> list[int]:
    """Which layers of a source get their number: the last one, and as many others as have room.

    Args:
        layers: of one source, bottom up.
        pixels: from one layer to the next.
        apart: whether the source stands apart from the one before it; else its first number
            would run into that one's last.
    """
    last = len(layers) - 1
    if not apart and len(layers) * pixels < TICK:
        return []
    for step in (1, 2, 5, 10, 20, 50):
        if step * pixels >= TICK:
            break
    wide = 1.5 * TICK if len(layers[last]) > 2 else TICK
    shown = [
        n
        for n in range(0 if apart else 1, last)
        if layers[n].isdigit() and int(layers[n]) % step == 0
        if (last - n) * pixels >= wide and (apart or n * pixels >= TICK)
    ]
    return [*shown, last]


# -- at pixels ----------------------------------------------------------------------------------


def write(figure: Figure, layout: Layout, x: float, y: float, text: str, **style: Any) -> None:
    """Write at pixels from the top left."""
    style = {"color": INK, "va": "center", **style}
    figure.text(x / layout.width, 1 - y / layout.height, text, **style)


def panel(figure: Figure, layout: Layout, x: float, y: float, width: float, height: float) -> Axes:
    """Axes without a frame, at pixels from the top left."""
    box = (x, layout.height - y - height, width, height)
    whole = (layout.width, layout.height) * 2
    left, bottom, across, up = (a / b for a, b in zip(box, whole, strict=True))
    axes = figure.add_axes((left, bottom, across, up))
    axes.set_axis_off()
    return axes


def color_scale(
    figure: Figure, layout: Layout, x: float, y: float, colors: Colormap, ends: tuple[str, str]
) -> None:
    """What the colours mean: a bar between two words, the left one of which ends at x."""
    length = 90
    axes = panel(figure, layout, x + 7, y - 5, length, 10)
    axes.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap=colors)
    write(figure, layout, x, y, ends[0], ha="right", color=MUTED, fontsize=10)
    write(figure, layout, x + length + 14, y, ends[1], color=MUTED, fontsize=10)
