"""Drawing surfaces: figures in pixels, as inline SVG that follows the page's colours, PNG and PDF.

Every figure is drawn in two layouts, one for wide and one for narrow screens. In the SVG the
colours are replaced by the page's CSS variables, so one drawing serves light and dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers; without black and yellow, which
# vanish on a dark or a light ground.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, MUTED, GRID, PAPER = "#1f2328", "#666c75", "#dfe2e6", "#fffffe"
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    PAPER: "var(--paper)",
    **{color: f"var(--series-{index})" for index, color in enumerate(SERIES)},
}
PIXEL = 1 / 72
"""Inches; figures are laid out in the pixels that they take on the page."""

Colors = Mapping[str, str]
"""Backbone to its colour."""


@dataclass(frozen=True)
class Drawing:
    """One figure, ready for the pages."""

    key: str
    """File name without its ending."""
    alt: str
    """What it shows, for who cannot see it."""
    caption: str
    wide: str
    """SVG for wide screens."""
    narrow: str
    """SVG for narrow screens."""
    png: bytes
    pdf: bytes


def canvas(
    width: float, height: float, left: float, right: float, top: float, bottom: float
) -> tuple[Figure, Axes]:
    """A figure with one plot in it; all in pixels."""
    figure = sheet(width, height)
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    axes = figure.add_axes(box)
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(length=0, labelsize=11, colors=MUTED, pad=6)
    axes.xaxis.label.set(color=MUTED, fontsize=11)
    axes.yaxis.label.set(color=MUTED, fontsize=11)
    return figure, axes


def sheet(width: float, height: float) -> Figure:
    """A figure with nothing in it; in pixels."""
    figure = Figure(figsize=(width * PIXEL, height * PIXEL))
    FigureCanvasAgg(figure)
    return figure


def drawing(key: str, draw: Callable[[bool], Figure], *, alt: str, caption: str) -> Drawing:
    """Draw a figure in both layouts; `draw` takes whether the layout is the narrow one.

    The page's letters are the browser's. PNG and PDF have boxes for those that DejaVu Sans lacks,
    such as Chinese ones in the name of a class.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        return _drawn(key, draw, alt, caption)


def _drawn(key: str, draw: Callable[[bool], Figure], alt: str, caption: str) -> Drawing:
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "pdf.fonttype": 42,  # texts stay texts
        "font.family": "DejaVu Sans",
        "text.parse_math": False,
    }
    drawn: dict[bool, str] = {}
    for narrow in (False, True):
        # The salt makes ids of clip paths and markers repeatable, and distinct within the page.
        with rc_context({**style, "svg.hashsalt": f"{key}-{narrow}"}):
            drawn[narrow] = _svg(draw(narrow), alt)
    with rc_context(style):
        png, pdf, figure = io.BytesIO(), io.BytesIO(), draw(False)
        figure.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": None})
        # Neither a date nor the maker's version: the same jobs give the same files.
        nothing = {"Creator": None, "Producer": None, "CreationDate": None}
        figure.savefig(pdf, format="pdf", facecolor="white", metadata=nothing)
    return Drawing(key, alt, caption, drawn[False], drawn[True], png.getvalue(), pdf.getvalue())


def _svg(figure: Figure, alt: str) -> str:
    """A figure as an SVG element to stand inside a page."""
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"#[0-9a-f]{6}", lambda m: VARIABLES.get(m[0], m[0]), svg)
    svg = svg.replace("'DejaVu Sans'", "var(--sans)")
    svg = re.sub(r'\s(xmlns(:xlink)?|version|width|height)="[^"]*"', "", svg, count=5)
    box = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    most = f"{float(box[1]):.0f}px" if box else "100%"
    label = f'<svg role="img" aria-label="{escape(alt)}" style="max-width: {most}"'
    svg = svg.replace("<svg", label, 1).replace("xlink:href", "href")
    return re.sub(r"\n\s*", "\n", svg).strip()


def shortened(text: str, most: int) -> str:
    """A text cut to a number of characters, the last one an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
