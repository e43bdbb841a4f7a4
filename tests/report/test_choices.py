"""The tables of choices, on fabricated jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from layerfusion.findings.groups import DataGroup, load_groups
from layerfusion.findings.tests import find_all
from layerfusion.records.job import (
    CandidateRecord,
    PilotRecord,
)
from layerfusion.report.blocks.choices import choice_block
from layerfusion.report.page import write_report
from layerfusion.report.table import Table
from tests.report.fabricate import amend, dataset, write_job

SOURCES = [("minilm", "3"), ("smollm2", "15")]


def right(rate: float) -> np.ndarray:
    return np.arange(dataset().rows["test"])[None] < rate * dataset().rows["test"]


def choice_tables(group: DataGroup) -> tuple[Table, ...]:
    return choice_block(group, find_all([group])[group]).tables


def test_a_pilot_is_held_against_the_job_it_names(tmp_path: Path) -> None:
    settings = {"selection": "adaptive", "seeds": 1}
    full = write_job(tmp_path, dataset(), SOURCES, 0.8, 0.8, right=right(0.8), **settings)
    other = write_job(
        tmp_path, dataset(), SOURCES, 0.5, 0.5, right=right(0.5), salt="x", **settings
    )
    pilot = write_job(
        tmp_path, dataset(), SOURCES, 0.7, 0.7, right=right(0.7), salt="p", **settings
    )
    saved = PilotRecord([250, 500], 500, 5000, 30e9, 100e9, 1000, 10_000, 40.0, 100.0, full.job)
    layers = [replace(layer, reason="the best", weight=0.5) for layer in pilot.layers]
    amend(tmp_path, pilot, pilot=saved, layers=layers, selection_notes=["dropped layer 4"])
    (group,) = load_groups(tmp_path)
    reasons, savings = choice_tables(group)
    cells = [row.texts for row in reasons.rows]
    assert sum("the best" in row for row in cells) == 2
    assert any("dropped layer 4" in row for row in cells)
    ((_, tried, texts, flops, size, time, points),) = [row.texts for row in savings.rows]
    assert tried == "250 → 500"
    assert texts == "500 of 5,000"
    assert (flops, size, time) == ("70", "90", "60")
    assert points.startswith("−10.0")
    assert other.job != full.job
    page = write_report(tmp_path, tmp_path, title="t").read_text()
    assert "What the pilot saved" in page
    assert "What the pilot saved" in (tmp_path / "report.md").read_text()


def test_without_its_full_job_a_pilot_stands_alone(tmp_path: Path) -> None:
    pilot = write_job(tmp_path, dataset(), SOURCES, 0.7, 0.7, selection="greedy")
    saved = PilotRecord([500], 500, 5000, 30e9, 100e9, 1000, 10_000, None, None, "0" * 12)
    amend(tmp_path, pilot, pilot=saved)
    _, savings = choice_tables(load_groups(tmp_path)[0])
    assert savings.rows[0].texts[-2:] == ("–", "–")


def test_jobs_that_chose_the_same_layers_for_the_same_reasons_share_rows(tmp_path: Path) -> None:
    for fusion in ("gated", "sum"):
        write_job(
            tmp_path, dataset(), SOURCES, 0.8, 0.8, selection="greedy", fusion=fusion, gates=[1, 0]
        )
    write_job(tmp_path, dataset(), SOURCES[:1], 0.8, 0.8, selection="greedy")
    (reasons,) = choice_tables(load_groups(tmp_path)[0])
    assert [row.texts[:2] for row in reasons.rows[1:]] == [
        ("layer 3 of minilm and layer 15 of smollm2 (greedy), 2 jobs", "minilm, layer 3, mean"),
        ("layer 3 of minilm and layer 15 of smollm2 (greedy), 2 jobs", "smollm2, layer 15, mean"),
    ]


def test_plain_selections_need_no_table(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(), SOURCES, 0.7, 0.7, selection="all")
    assert choice_tables(load_groups(tmp_path)[0]) == ()


def test_auto_shows_all_that_it_judged_the_chosen_one_first(tmp_path: Path) -> None:
    made = write_job(tmp_path, dataset(), SOURCES, 0.8, 0.8, fusion="auto: gated")
    common = {"layers": ["minilm:3:mean"], "head_parameters": 1234, "flops_per_text": 2.5e9}
    candidates = [
        CandidateRecord("gated", 64, "greedy", folds=5, log_loss=0.4, behind=0.0,
                      behind_error=0.0, **common),
        CandidateRecord("stacked", 256, "adaptive", folds=5, log_loss=0.45, behind=0.05,
                      behind_error=0.01, accuracy=0.871, **common),
    ]  # fmt: skip
    amend(
        tmp_path,
        made,
        candidates=candidates,
        decision=["gated: the lowest"],
        fusion_notes=["seed 0: x"],
    )
    (group,) = load_groups(tmp_path)
    table = choice_tables(group)[-1]
    assert [row.texts[0] for row in table.rows] == ["gated", "stacked"]
    many = replace(candidates[0], layers=[f"minilm:{n}:mean" for n in range(9)])
    amend(tmp_path, made, candidates=[many])
    (whole,) = choice_tables(load_groups(tmp_path)[0])[-1].rows
    assert whole.texts[2] == "greedy (9 sources)"
    assert table.rows[0].texts[5:7] == ("–", "–")
    assert table.rows[1].texts == (
        *("stacked", "–", "adaptive (minilm:3:mean)", "5", "0.4500", "87.1"),
        *("+0.0500\u00a0±\u00a00.0100", "1,234", "2.50"),
    )
    assert "gated: the lowest." in table.note
    assert "seed 0" not in table.note
    assert "What auto judged" in write_report(tmp_path, tmp_path, title="t").read_text()


def test_layers_that_a_cell_only_counts_are_its_title_and_in_the_csv(tmp_path: Path) -> None:
    sources = [("minilm", str(n)) for n in range(7)]
    made = write_job(tmp_path, dataset(), sources, 0.8, 0.8, selection="greedy", fusion="gated")
    names = [f"minilm:{n}:mean" for n in range(7)]
    candidate = CandidateRecord("gated", 64, "greedy", folds=5, log_loss=0.4, behind=0.0,
                                behind_error=0.0, layers=names, head_parameters=1,
                                flops_per_text=1.0)  # fmt: skip
    amend(tmp_path, made, candidates=[candidate])
    page = write_report(tmp_path, tmp_path, title="t").read_text()
    every = "minilm: 0, 1, 2, 3, 4, 5, 6"
    assert f'<td title="{every}">7 layers of minilm (greedy)' in page
    assert f'title="{", ".join(names)}">greedy (7 sources)</td>' in page
    found = {path.stem: pd.read_csv(path) for path in (tmp_path / "tables").glob("*.csv")}
    for end in ("why-these-layers", "single-layers-and-fusions"):
        (table,) = [frame for name, frame in found.items() if name.endswith(end)]
        assert every in table["What, layers"].to_list()
    (judged,) = [frame for name, frame in found.items() if "what-auto-judged" in name]
    assert judged["Layers, layers"].to_list() == [", ".join(names)]
