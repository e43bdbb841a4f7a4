"""Colours that can be told apart: by everybody, and by who does not see red or green."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

import layerfusion.report
from layerfusion.report.blocks.pareto import MARKERS
from layerfusion.report.figures.axes import NARROW, row_axes
from layerfusion.report.figures.canvas import drawing, sheet
from layerfusion.report.figures.colors import SERIES
from layerfusion.report.figures.layers import LINES
from layerfusion.report.figures.profile_maps import LIKENESS, RANKS

# Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009), severity 1, on linear RGB.
SIGHT = {
    "full": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
LEAST = 10.0
"""ΔE (CIE 1976) of two series; 2.3 is a just noticeable difference."""


def _linear(color: str) -> np.ndarray:
    channels = np.array([int(color[n : n + 2], 16) for n in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    scaled = to_xyz @ linear / to_xyz.sum(axis=1)
    f = np.where(scaled > (6 / 29) ** 3, np.cbrt(scaled), scaled / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _seen(color: str, sight: str) -> np.ndarray:
    return _lab(np.clip(SIGHT[sight] @ _linear(color), 0, 1))


def _palettes() -> dict[str, list[str]]:
    style = (Path(layerfusion.report.__file__).parent / "template.html").read_text()
    roots = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    light, dark, paper = (
        [found for _, found in sorted(re.findall(r"--series-(\d): (#[0-9a-f]{6})", root))]
        for root in roots
    )
    return {"png": list(SERIES), "light": light, "dark": dark, "paper": paper}


def test_lab_agrees_with_known_values() -> None:
    assert _lab(_linear("#ffffff")) == pytest.approx([100, 0, 0], abs=0.02)
    assert _lab(_linear("#ff0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.05)


@pytest.mark.parametrize("sight", list(SIGHT))
@pytest.mark.parametrize("name", ["png", "light", "dark", "paper"])
def test_series_can_be_told_apart(name: str, sight: str) -> None:
    colors = _palettes()[name]
    assert len(colors) == len(SERIES)
    for one, other in combinations(colors, 2):
        distance = np.linalg.norm(_seen(one, sight) - _seen(other, sight))
        assert distance > LEAST, (one, other)


@pytest.mark.parametrize("sight", list(SIGHT))
@pytest.mark.parametrize("scale", [RANKS, LIKENESS], ids=["ranks", "likeness"])
def test_heat_maps_get_lighter_or_darker_all_the_way(scale: object, sight: str) -> None:
    from matplotlib.colors import to_hex

    shades = [to_hex(scale(step)) for step in np.linspace(0, 1, 11)]  # type: ignore[operator]
    steps = np.diff([_seen(shade, sight)[0] for shade in shades])
    assert (steps > 2).all() or (steps < -2).all()


def test_markers_and_lines_tell_apart_what_colours_do_not() -> None:
    assert len(set(MARKERS)) >= len(SERIES)
    assert len(set(map(str, LINES))) == 4


def test_a_name_that_the_font_cannot_write_is_in_the_page_and_warns_of_nothing() -> None:
    def plot(axes: Axes) -> None:
        axes.set_title("精彩")

    drawn = drawing("key", plot, alt="", caption="")  # warnings are errors here
    assert "精彩" in drawn.wide
    assert "精彩" in drawn.narrow


def test_a_long_name_of_a_row_keeps_its_end() -> None:
    name = "8 layers of granite and minilm (adaptive), "
    figure = sheet(NARROW)
    axes = row_axes(figure.add_subplot(), [f"{name}stacked", f"{name}concat", "the last layer"])
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "8 layers of granite\n…(adaptive), stacked",
        "8 layers of granite\n…(adaptive), concat",
        "the last layer",
    ]
