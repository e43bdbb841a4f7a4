from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfusion.findings.judged import (
    NamedProfile,
    mean_over_profiles,
    score_rows,
    selection_rows,
)
from layerfusion.findings.results import Results
from layerfusion.records.profile import Profile, SelectionProfile, write_profile
from layerfusion.report.blocks.selections import price_sentences
from layerfusion.report.page import write_report
from layerfusion.statistics.intervals import paired_interval
from tests.report.fabricate_profiles import judge, profile, stack

SMALL = {"minilm": stack(3)}
Interval = tuple[float, float, float]
PROBE: Interval = (0.01, 0.0, 0.02)


def _cell(regrets: Mapping[str, Interval], data: str = "toy", **changes: object) -> NamedProfile:
    made = judge(profile(data, SMALL), regrets)
    return NamedProfile(data, "minilm", replace(made, **changes))  # type: ignore[arg-type]


def _write(folder: Path, profiles: Sequence[Profile]) -> None:
    for number, one in enumerate(profiles):
        write_profile(one, folder / str(number))


def _scores(cells: Sequence[NamedProfile]) -> tuple[str, ...]:
    return price_sentences(cells, score_rows(cells, selection_rows(cells)))


# -- means --------------------------------------------------------------------------------------


def test_the_interval_of_a_mean_holds_what_it_should() -> None:
    rng = np.random.default_rng(0)
    truth, sds = np.array([0.03, 0.01, 0.05, 0.0]), np.array([0.01, 0.02, 0.005, 0.015])
    hits = 0
    for _ in range(2000):
        found = rng.normal(truth, sds)
        cells = [(x, x - 1.96 * sd, x + 1.96 * sd) for x, sd in zip(found, sds, strict=True)]
        one = mean_over_profiles(cells, ["a", "b", "c", "d"], 100)
        assert one.mean == pytest.approx(found.mean())
        hits += one.low <= truth.mean() <= one.high
    assert 0.935 <= hits / 2000 <= 0.965


def test_cells_that_share_their_test_rows_are_no_more_certain_than_one() -> None:
    cell = (0.02, 0.0, 0.04)
    shared = mean_over_profiles([cell] * 4, ["a"] * 4, 100)
    assert (shared.low, shared.high) == pytest.approx((0.0, 0.04))
    apart = mean_over_profiles([cell] * 4, list("abcd"), 100)
    assert (apart.low, apart.high) == pytest.approx((0.01, 0.03))


def test_one_cell_keeps_its_interval() -> None:
    one = mean_over_profiles([(0.02, -0.01, 0.03)], ["a"], 50)
    assert (one.mean, one.low, one.high, one.rows) == (0.02, -0.01, 0.03, 50)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=30, max_size=60))
def test_two_choices_differ_by_less_than_their_regrets_allow(rows: list[tuple[bool, bool]]) -> None:
    # Where the hindsight layer is right and a choice wrong is all that matters of its rows.
    rng = np.random.default_rng(len(rows))
    hindsight = rng.random(len(rows)) < 0.8
    a, b = np.array(rows).T
    bound = np.var(hindsight * 1.0 - a) + np.var(hindsight * 1.0 - b)
    product = abs(np.mean(hindsight * 1.0 - a) * np.mean(hindsight * 1.0 - b))
    assert np.var(a * 1.0 - b) <= bound + 2 * product + 1e-12


def test_against_the_probe_is_wider_than_pairing_the_rows() -> None:
    rng = np.random.default_rng(1)
    hard = rng.random(1500)
    right = [(hard + 0.15 * rng.normal(size=1500) < share) * 1.0 for share in (0.84, 0.82, 0.79)]
    target = np.arange(1500) % 2
    regrets = [paired_interval(right[0], one, target, text_of=None) for one in right[1:]]
    direct = paired_interval(right[2], right[1], target, text_of=None)
    names = ("best by log_loss", "best by fisher")
    cell = _cell({n: (r.mean, r.low, r.high) for n, r in zip(names, regrets, strict=True)})
    against = next(
        x.against for x in score_rows([cell], selection_rows([cell])) if x.name == "fisher"
    )
    assert against is not None
    assert against.mean == pytest.approx(direct.mean)
    assert against.high - against.low >= 0.95 * (direct.high - direct.low)


def test_choices_of_the_same_layer_do_not_differ_though_each_is_uncertain() -> None:
    cell = _cell({"best by log_loss": PROBE, "best by logme": PROBE})
    same = [replace(x, layers=[2]) for x in cell.profile.selections]
    cell = replace(cell, profile=replace(cell.profile, selections=same))
    row = next(x for x in score_rows([cell], selection_rows([cell])) if x.name == "logme")
    assert row.against is not None
    assert (row.against.low, row.against.mean, row.against.high) == (0, 0, 0)
    assert "logme costs 16.5 s less than the probe and takes the same layer." in _scores([cell])


# -- rows ---------------------------------------------------------------------------------------


def test_selections_that_some_cells_lack_come_last_and_say_so() -> None:
    cells = [
        _cell({"last": (0.05, 0.04, 0.06), "top_k": (0.02, 0.01, 0.03)}, "a"),
        _cell({"last": (0.07, 0.06, 0.08), "rare": (-0.1, -0.2, 0.0)}, "b"),
    ]
    rows = selection_rows(cells)
    assert [(row.name, row.count) for row in rows] == [("last", 2), ("rare", 1), ("top_k", 1)]
    assert rows[0].regret.mean == pytest.approx(0.06)
    assert rows[0].cross_fitted == pytest.approx(0.055)
    assert [one is not None for one in rows[1].by_profile] == [False, True]


def test_test_rows_of_a_data_set_count_once() -> None:
    regrets = {"last": (0.05, 0.04, 0.06)}
    cells = [_cell(regrets, "a"), _cell(regrets, "a"), _cell(regrets, "b")]
    assert selection_rows(cells)[0].regret.rows == 600


def test_a_model_that_cells_share_counts_once_in_the_rank_correlation() -> None:
    regrets = {"best by fisher": (0.05, 0.04, 0.06)}
    shared = {"minilm": {"fisher": 0.8}}
    cells = [
        _cell(regrets, "a", spearman=shared),
        _cell(regrets, "a", spearman={**shared, "granite": {"fisher": 0.2}}),
        _cell(regrets, "b", spearman={"minilm": {"fisher": -0.4}, "granite": {"fisher": None}}),
    ]
    row = score_rows(cells, selection_rows(cells))[0]
    assert row.spearman == (pytest.approx((0.8 + 0.2 - 0.4) / 3), -0.4)


def test_a_price_of_nothing_is_a_price_not_known() -> None:
    regrets = {"best by log_loss": PROBE, "best by fisher": (0.01, 0.0, 0.02)}
    cells = [
        _cell(regrets, "a", seconds={"log_loss": 0.0, "fisher": 3.0}),
        _cell(regrets, "b", seconds={"log_loss": 10.0, "fisher": 5.0}),
    ]
    row = next(x for x in score_rows(cells, selection_rows(cells)) if x.name == "fisher")
    assert (row.seconds, row.dearer) == (4.0, -5.0)
    none = [_cell(regrets, "a", seconds={})]
    assert any("fisher has no known price" in line for line in _scores(none))


# -- sentences ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regret", "seconds", "sentence", "verdict"),
    [
        (
            (0.05, 0.04, 0.06),
            36.0,
            "gradient costs 12.0 s more than the probe and loses 4.0 points",
            "Not worth their price here, as no gain shows: gradient.",
        ),
        (
            (-0.03, -0.04, -0.02),
            36.0,
            "gradient costs 12.0 s more than the probe and gains 4.0 points",
            "Worth their price here, as they gain: gradient.",
        ),
        (
            (0.05, 0.04, 0.06),
            4.0,
            "gradient costs 20.0 s less than the probe and loses 4.0 points",
            "Cheaper than the probe, at a loss: gradient.",
        ),
        (
            (0.011, 0.01, 0.012),
            4.0,
            "cannot be told",
            "Undecided, as no loss shows but one is not ruled out either: gradient (up to 1.1",
        ),
        (
            (0.005, 0.004, 0.006),
            4.0,
            "cannot be told",
            "with a loss of more than 1 point ruled out: gradient.",
        ),
        (
            (0.012, 0.0, 0.02),
            36.0,
            "costs 12.0 s more than the probe and makes a difference that cannot be told",
            "Not worth their price here, as no gain shows: gradient.",
        ),
    ],
)
def test_sentences_follow_the_numbers(
    regret: Interval, seconds: float, sentence: str, verdict: str
) -> None:
    regrets = {"best by log_loss": PROBE, "best by gradient": regret}
    lines = _scores([_cell(regrets, seconds={"log_loss": 24.0, "gradient": seconds})])
    assert lines[0].startswith(
        "The probe (log_loss) takes 24.0 s a profile; its choice is 1.0 points"
    )
    assert any(sentence in line for line in lines)
    assert any(verdict in line for line in lines)
    assert len(lines) == 3


def test_without_the_probe_nothing_is_compared() -> None:
    assert _scores([_cell({"best by gradient": PROBE})]) == ()


# -- files --------------------------------------------------------------------------------------


def _page(folder: Path) -> str:
    """The page of the profiles under a folder, from its section on selections on."""
    write_report(folder, folder, title="t")
    page = (folder / "report.md").read_text().replace("\u00a0", " ")
    return page[page.index("## Which way of choosing layers loses least") :]


def test_nothing_is_said_where_nothing_was_judged(tmp_path: Path) -> None:
    _write(tmp_path, [profile("a", SMALL)])
    with pytest.raises(ValueError, match="substring not found"):
        _page(tmp_path)


def test_cells_are_named_apart_and_copies_count_once(tmp_path: Path) -> None:
    one = profile("a", SMALL, judged=True)
    other = replace(one, job="feedbeef0000")
    data = replace(one.dataset, fingerprint="0123456789abcdef")
    two = {"minilm": stack(3), "granite": stack(2)}
    _write(
        tmp_path,
        [
            one,
            one,
            other,
            replace(one, dataset=data),
            profile("b", two, ("mean", "last"), judged=True),
            profile("c", SMALL),
        ],
    )
    cells = [x for x in Results(tmp_path).profiles if x.is_judged]
    mark = f"a (data {one.dataset.fingerprint[:8]})"
    assert {cell.label for cell in cells} == {
        f"{mark}: minilm, job {one.job[:6]}",
        f"{mark}: minilm, job feedbe",
        "a (data 01234567): minilm",
        "b: minilm and granite (mean, last)",
    }


def test_the_report_holds_every_judged_selection(tmp_path: Path) -> None:
    models = {"minilm": stack(3), "granite": stack(2)}
    profiles = [
        profile("a", SMALL, judged=True),
        profile("<b>|", models, judged=True, seed=1),
        profile("silent", SMALL),
    ]
    _write(tmp_path, profiles)
    text = _page(tmp_path)
    assert "silent" not in text
    assert "<b>" not in text
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert all(len({row.count(" | ") for row in x.splitlines()}) == 1 for x in tables)
    wanted = sorted(profiles[:2], key=lambda one: one.dataset.name)
    for number, made in enumerate(wanted, start=1):
        path = tmp_path / "tables" / f"profile-{number}-what-each-selection-takes.csv"
        rows = list(csv.DictReader(io.StringIO(path.read_text(), newline="")))
        assert [row["Selection"] for row in rows] == [one.name for one in made.selections]
        for row, one in zip(rows, made.selections, strict=True):
            assert one.regret is not None
            assert float(row["Regret, points"]) == 100 * one.regret.mean
            assert float(row["Cross-fitted regret, points"]) == 100 * one.regret.cross_fitted
            assert float(row["p"]) == one.regret.p
            assert int(row["Layers"]) == len(one.layers)
            assert f"| {_escaped(one)} |" in text


def _escaped(one: SelectionProfile) -> str:
    return one.name.replace("_", "\\_")


def test_cells_where_some_layer_is_surely_better_are_marked_and_counted(tmp_path: Path) -> None:
    loss = {"adaptive": (0.052, 0.041, 0.063)}
    judged = [
        judge(profile(name, SMALL, judged=True), loss, p=p)
        for name, p in (("a", 0.04), ("b", 0.05), ("c", 0.3), ("older", None))
    ]
    _write(tmp_path, judged)
    lines = _page(tmp_path).splitlines()
    assert [line for line in lines if line.startswith("| adaptive | 5.2")] == [
        "| adaptive | 5.2 \\[4.1, 6.3\\] ▼ |",
        *["| adaptive | 5.2 \\[4.1, 6.3\\] |"] * 3,
    ]
    mean = next(line for line in lines if line.startswith("| adaptive | 4 of 4"))
    assert "| 1 of 3 |" in mean


def test_a_table_a_data_set_says_what_each_cell_lost(tmp_path: Path) -> None:
    _write(
        tmp_path,
        [
            judge(profile("a", SMALL, judged=True), {"last": (0.052, 0.041, 0.063)}),
            judge(profile("b", SMALL, judged=True), {"last": (-0.012, -0.02, 0.0)}),
        ],
    )
    lines = _page(tmp_path).splitlines()
    assert "| last | 5.2 \\[4.1, 6.3\\] |" in lines
    assert "| last | −1.2 \\[−2.0, 0.0\\] |" in lines
    half = 100 * np.hypot(0.011, 0.01) / 2
    mean = next(line for line in lines if line.startswith("| last | 2 of 2"))
    assert f"| 2.0 \\[{2 - half:.1f}, {2 + half:.1f}\\] | 1.5 |" in mean
