"""What the report shows of a search, on fabricated studies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from layerfusion.findings.results import Results
from layerfusion.records.search import (
    HISTORY,
    find_histories,
    write_history,
)
from layerfusion.report.blocks.searches import MARGIN, plot_search, search_sections
from layerfusion.report.figures.axes import NARROW, WIDE
from layerfusion.report.figures.canvas import sheet
from layerfusion.report.page import write_report
from tests.report.fabricate import LOSSES, dataset, search_history, write_job
from tests.report.reading import text_of


def test_the_best_so_far_never_rises() -> None:
    found = search_history(values=(None, *LOSSES)).best_so_far
    assert found[0] is None
    filled = [np.inf if value is None else value for value in LOSSES]
    assert found[1:] == np.minimum.accumulate(filled).tolist()


def test_a_block_says_how_trials_ended_and_which_is_best(tmp_path: Path) -> None:
    write_history(search_history(), tmp_path / "search")
    (block,) = search_sections(Results(tmp_path))
    assert block.title == "Search: heads"
    assert "8 trials (6 complete, 1 pruned, 1 failed) of dataset=reviews," in text_of(block)
    assert "trial 4, with 0.5200: fusion=gated" in text_of(block)  # the first of two
    (figure,) = block.figures
    assert "from trial 0 0.6100; from trial 1 0.5800; from trial 4 0.5200" in figure.alt
    mattered, table = block.tables
    assert [row.texts for row in mattered.rows] == [("trainer.lr", "80"), ("fusion", "20")]
    assert [row.texts[0] for row in table.rows if row.mark == "chosen"] == ["4"]
    assert [row.texts[3] for row in table.rows if row.texts[0] in "25"] == [
        "pruned after 7 epochs",
        "failed",
    ]


def test_a_block_tells_what_was_searched_not_where_files_lie(tmp_path: Path) -> None:
    job = "--config-dir=mine paths.cache=/a/b dataset=reviews extract.device=cpu seeds=2"
    write_history(replace(search_history(), job=job), tmp_path)
    (block,) = search_sections(Results(tmp_path))
    assert " of dataset=reviews seeds=2, judged by" in text_of(block)
    assert "/a/b" not in text_of(block)


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("values", [LOSSES, (0.02, None, 3.0), (0.4,), (0.0, 5.0)])
def test_trials_without_a_value_lie_below_all_values(
    values: tuple[float | None, ...], width: float
) -> None:
    one = search_history(values=values)
    assert one.best is not None
    figure = sheet(width)
    axes = figure.add_subplot()
    plot_search(one, one.best, axes)
    figure.draw_without_rendering()
    done = sum(value is not None for value in values)
    points, rest = heights(axes, "o"), [*heights(axes, "|"), *heights(axes, "x")]
    assert len(points) == done + 1  # and the ring
    assert len(rest) == len(values) - done
    room = MARGIN / (1 + 2 * MARGIN) * axes.bbox.height
    for height in rest:
        assert height == pytest.approx(min(points) - room / 2)
        assert height > axes.bbox.y0


def heights(axes: Axes, marker: str) -> list[float]:
    """Of the marks of a kind, in pixels."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return [
        float(y)
        for line in lines
        for _, y in line.get_transform().transform(np.reshape(line.get_xydata(), (-1, 2)))
    ]


def test_a_search_without_a_complete_trial_has_no_figure(tmp_path: Path) -> None:
    write_history(search_history(values=(None, None)), tmp_path)
    (block,) = search_sections(Results(tmp_path))
    assert block.figures == ()
    assert "No trial has come to an end." in text_of(block)


def test_a_history_from_before_importance_is_read(tmp_path: Path) -> None:
    write_history(search_history(), tmp_path)
    raw = json.loads((tmp_path / HISTORY).read_text())
    del raw["importance"], raw["checksum"]
    (tmp_path / HISTORY).write_text(json.dumps(raw))
    (found,) = find_histories(tmp_path)
    assert found.importance == {}
    (block,) = search_sections(Results(tmp_path))
    assert [table.title for table in block.tables] == ["Search history: heads"]


def test_the_page_has_a_section_a_search(tmp_path: Path) -> None:
    for name in ("heads", "<b>more</b>"):
        write_history(search_history(name), tmp_path / f"runs/{len(name)}")
    for layer, accuracy in (("4", 0.7), ("6", 0.75)):
        write_job(tmp_path / "runs", dataset("toy"), [("minilm", layer)], accuracy, accuracy)
    page = write_report(tmp_path / "runs", tmp_path, title="t").read_text()
    assert page.count('<section id="search-') == 2
    assert "<b>more" not in page
    text = (tmp_path / "report.md").read_text()
    for number in (1, 2):
        assert f"](figures/search-{number}-history.png)" in text
        assert (tmp_path / f"figures/search-{number}-history.pdf").exists()
    assert (tmp_path / "tables/search-history-heads.csv").read_text().count("\n") == 1 + len(LOSSES)
