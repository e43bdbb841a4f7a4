"""Figures for the page (inline SVG that follows its colours) and for papers (PNG and PDF).

Every figure is drawn in two layouts, one for wide and one for narrow screens. In the SVG the
colours are replaced by the page's CSS variables, so one drawing serves light and dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from layerfusion.report.figures.axes import NARROW, PIXEL, SERIES_ID, WIDE, Sheet
from layerfusion.report.figures.colors import GRID, INK, MUTED, PAPER, SERIES

VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    PAPER: "var(--paper)",
    **{color: f"var(--series-{index})" for index, color in enumerate(SERIES)},
}
DPI = 160
NO_MAKER: dict[str, Any] = {"Software": None}
"""Keeps the version of matplotlib out of PNG files."""
TIP_RADIUS = 8
"""Pixels around a point within which it is pointed at."""
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "text.parse_math": False,
    "svg.fonttype": "none",  # texts stay texts
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Drawing:
    """One figure, ready for the pages."""

    kind: ClassVar[str] = "figure"
    key: str
    """File name without its ending."""
    alt: str
    """Description of the figure for those who cannot see it."""
    caption: str
    wide: str
    """SVG for wide screens."""
    narrow: str
    """SVG for narrow screens."""
    png: bytes
    pdf: bytes


@contextmanager
def own_style(salt: str = "") -> Iterator[None]:
    """Draw in the letters of the report, and ignore those that DejaVu Sans lacks, as Chinese ones.

    The page's letters are the browser's, so that only PNG and PDF have boxes in their place. The
    salt makes ids of clip paths and markers repeatable, and distinct within the page.
    """
    with warnings.catch_warnings(), rc_context({**STYLE, "svg.hashsalt": salt}):
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def drawing(
    key: str, plot: Callable[[Axes], object], *, alt: str, caption: str = "", wide: float = WIDE
) -> Drawing:
    """Draw a figure in both layouts.

    Args:
        key: name of its files.
        plot: draws on axes whose figure has the width of the layout.
        alt: what the figure shows, for those who cannot see it.
        caption: text under the figure.
        wide: its width on wide screens, in pixels.
    """
    drawn: list[str] = []
    png, pdf = io.BytesIO(), io.BytesIO()
    for width in (wide, NARROW):
        with own_style(f"{key}-{width:.0f}"):
            figure = sheet(width)
            plot(figure.add_subplot())
            drawn.append(_svg(figure, alt))
            if width == wide:
                # Neither a date nor the maker's version: the same jobs give the same files.
                nothing = {"Creator": None, "Producer": None, "CreationDate": None}
                figure.savefig(png, format="png", dpi=DPI, facecolor="white", metadata=NO_MAKER)
                figure.savefig(pdf, format="pdf", facecolor="white", metadata=nothing)
    return Drawing(key, alt, caption, drawn[0], drawn[1], png.getvalue(), pdf.getvalue())


def sheet(width: float) -> Sheet:
    """Make an empty figure of a width in pixels, whose parts make room for each other."""
    figure = Sheet(figsize=(width * PIXEL, 300 * PIXEL), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _svg(figure: Figure, alt: str) -> str:
    """Write a figure as an SVG element that can stand inside a page."""
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(rf'<g id="{SERIES_ID}([^"]*)"', r'<g data-series="\1"', svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(?<=style=")[^"]*', _with_variables, svg)
    svg = svg.replace("'DejaVu Sans'", "var(--sans)")
    svg = re.sub(r'\s(xmlns(:xlink)?|version|width|height)="[^"]*"', "", svg, count=5)
    box = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    most = f"{float(box[1]):.0f}px" if box else "100%"
    label = f'<svg role="img" aria-label="{escape(alt)}" style="max-width: {most}"'
    svg = svg.replace("<svg", label, 1).replace("xlink:href", "href")
    svg = svg.replace("</svg>", f"{_tips(figure)}</svg>")
    return re.sub(r"\n\s*", "\n", svg).strip()


def _with_variables(style: re.Match[str]) -> str:
    """Put the page's variables in the place of colours; names and texts of that form stay."""
    return re.sub(r"#[0-9a-f]{6}", lambda color: VARIABLES.get(color[0], color[0]), style[0])


def _tips(figure: Figure) -> str:
    """Write an invisible circle for each point that says something. Its title is what it says."""
    if not isinstance(figure, Sheet) or not figure.tips:
        return ""
    scale, height = 1 / (PIXEL * figure.dpi), figure.get_figheight() / PIXEL
    circles = []
    for ax, place, words in figure.tips:
        x, y = scale * ax.transData.transform(place)
        circles.append(
            f'<circle cx="{x:.1f}" cy="{height - y:.1f}" r="{TIP_RADIUS}">'
            f"<title>{escape(words)}</title></circle>"
        )
    return f'<g class="tips">{"".join(circles)}</g>'
