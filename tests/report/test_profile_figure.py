from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from scipy.stats import rankdata

from layerfusion.findings.profiles import ranks, score_names
from layerfusion.records.profile import Profile
from layerfusion.report.figures.axes import NARROW, WIDE
from layerfusion.report.figures.canvas import sheet
from layerfusion.report.figures.layers import plot_profile_layers
from layerfusion.report.figures.profile_maps import (
    NOTHING,
    RANKS,
    plot_scores,
    plot_similarity,
    ticks_that_fit,
)
from layerfusion.report.profile_files import write_profile_figure
from tests.report.fabricate_profiles import profile, stack

SMALL = {"minilm": stack(6), "deep": stack(4, norm=True)}


def _axes(width: float = WIDE) -> Axes:
    return sheet(width).add_subplot()


def _cells(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


@given(st.lists(st.none() | st.integers(-5, 5), min_size=1), st.booleans())
def test_ranks_are_those_of_scipy(values: list[int | None], low_is_good: bool) -> None:
    found = ranks(values, low_is_good=low_is_good)
    given_ = [n for n, value in enumerate(values) if value is not None]
    sign = 1 if low_is_good else -1
    wanted = rankdata([sign * (values[n] or 0) for n in given_])
    assert found[given_].tolist() == wanted.tolist()
    assert np.isnan(np.delete(found, given_)).all()


def test_curves_show_held_out_accuracy_of_every_layer() -> None:
    shown = profile(models=SMALL, poolings=("mean", "last"))
    axes = plot_profile_layers(shown, _axes())
    curves = [line for line in axes.lines if len(np.atleast_1d(line.get_xdata())) > 1]
    drawn = [np.asarray(line.get_ydata(), float) / 100 for line in curves]
    assert np.concatenate(drawn) == pytest.approx([x.scores["accuracy"] for x in shown.layers])


def test_rings_name_what_adaptive_takes() -> None:
    shown = profile(models=SMALL)
    taken = next(one.layers for one in shown.selections if one.name == "adaptive")
    axes = plot_profile_layers(shown, _axes())
    rings = [line for line in axes.lines if line.get_markersize() > 10]
    assert sorted(float(ring.get_ydata()[0]) for ring in rings) == pytest.approx(  # type: ignore[index]
        sorted(100 * (shown.layers[n].scores["accuracy"] or 0) for n in taken)
    )
    named = [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"]
    assert sorted(named) == sorted(shown.layers[n].layer for n in taken)


def test_colours_are_ranks_within_the_source_and_low_is_good_where_it_is() -> None:
    shown = profile(models=SMALL)
    names = score_names(shown)
    drawn = iter(_cells(plot_scores(shown, _axes())))
    for backbone in SMALL:
        layers = [layer for layer in shown.layers if layer.backbone == backbone]
        for name in names:
            cells = list(itertools.islice(drawn, len(layers)))
            values = [layer.scores[name] for layer in layers]
            real = [value for value in values if value is not None]
            best = min(real) if name in ("log_loss", "attention_entropy") else max(real)
            worst = max(real) if name in ("log_loss", "attention_entropy") else min(real)
            for cell, value in zip(cells, values, strict=True):
                if value is None:
                    assert cell.get_facecolor() == to_rgba(NOTHING)
                    assert cell.get_hatch()
                elif value in (best, worst):
                    assert cell.get_facecolor() == RANKS(0.0 if value == best else 1.0)


def test_similarity_is_drawn_by_source_whatever_the_order_of_the_layers() -> None:
    shown = profile(models={"m": stack(2)}, poolings=("mean", "last"))
    order = [0, 3, 1, 4, 2, 5]
    mixed = replace(
        shown,
        layers=[shown.layers[n] for n in order],
        similarity=np.array(shown.similarity)[np.ix_(order, order)].tolist(),
        selections=[],
    )
    (image,) = plot_similarity(mixed, _axes()).images
    assert np.asarray(image.get_array()).tolist() == shown.similarity


def test_nothing_in_it_comes_from_test(tmp_path: Path) -> None:
    judged = profile(models=SMALL, judged=True)
    silent = replace(
        judged,
        layers=[replace(layer, test=None) for layer in judged.layers],
        selections=[replace(x, test=None, regret=None, over_last=None) for x in judged.selections],
    )
    write_profile_figure(judged, tmp_path / "a.png")
    write_profile_figure(silent, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def _without_scores(profile: Profile, names: set[str]) -> Profile:
    layers = [
        replace(x, scores=dict.fromkeys(x.scores) if x.backbone in names else x.scores)
        for x in profile.layers
    ]
    return replace(profile, layers=layers)


@pytest.mark.parametrize(
    "shown",
    [
        profile(models={"m": ["0"]}),
        profile(models=SMALL, selections=[], pairs=[]),
        _without_scores(profile(models=SMALL), {"deep"}),
        _without_scores(profile(models=SMALL), set(SMALL)),
        replace(
            profile(models=SMALL),
            layers=[replace(x, scores={}) for x in profile(models=SMALL).layers],
        ),
        replace(
            profile(models=SMALL),
            layers=[
                replace(x, scores={k: v for k, v in x.scores.items() if k == "fisher" or n % 2})
                for n, x in enumerate(profile(models=SMALL).layers)
            ],
        ),
        profile(name="$x^2$ _a_ {b", models={f"a_long_$name$_{n}": ["0"] for n in range(8)}),
    ],
    ids=["one layer", "no choices", "no scores of one", "none", "no names", "ragged", "hostile"],
)
def test_odd_profiles_are_drawn(shown: Profile, tmp_path: Path) -> None:
    write_profile_figure(shown, tmp_path / "profile.png")
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize(
    "models",
    [{"m": stack(6)}, {f"m{n}": stack(10) for n in range(8)}, {"m": stack(80), "n": stack(8)}],
)
def test_every_cell_and_name_lies_in_the_figure(models: dict[str, list[str]], width: float) -> None:
    for plot in (plot_profile_layers, plot_scores, plot_similarity):
        figure = sheet(width)
        axes = plot(profile(models=models), figure.add_subplot())
        figure.draw_without_rendering()
        inside = figure.bbox.padded(1)
        for box in [text.get_window_extent() for text in axes.texts if text.get_text()]:
            assert inside.x0 <= box.x0 <= box.x1 <= inside.x1
            assert inside.y0 <= box.y0 <= box.y1 <= inside.y1
        right, low = axes.get_xlim()[1], axes.get_ylim()[0]
        for cell in _cells(axes):
            assert cell.get_x() + cell.get_width() <= right + 1e-9
            assert cell.get_y() + cell.get_height() <= low + 1e-9


@given(st.integers(0, 90), st.floats(1.0, 40.0), st.booleans(), st.booleans())
def test_numbers_of_layers_do_not_touch(
    blocks: int, pixels: float, norm: bool, apart: bool
) -> None:
    layers = stack(blocks, norm=norm)
    shown = ticks_that_fit(layers, pixels, apart=apart)
    assert not shown or shown[-1] == len(layers) - 1
    assert all((b - a) * pixels >= 18 for a, b in itertools.pairwise(shown))
    if apart:
        assert shown
    elif len(shown) > 1:
        assert shown[0] * pixels >= 18
