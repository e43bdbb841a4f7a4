from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerfusion.findings.groups import DataGroup, load_groups
from layerfusion.findings.shown import comparisons
from layerfusion.findings.tests import PRIMARY, Finding, find_all
from layerfusion.report.blocks.fusion import finding_table, fusion_table
from layerfusion.statistics.intervals import Difference
from layerfusion.statistics.significance import ALPHA, PairedTest, holm, sign_flips
from tests.report.fabricate import dataset, write_job, write_sweep
from tests.report.reading import column_of

BOTH = [("minilm", "3"), ("minilm", "6")]


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataGroup, ...]:
    folder = tmp_path_factory.mktemp("findings")
    write_sweep(folder, dataset("a", rows=400), lift=0.1)
    write_sweep(folder, dataset("b", rows=100))
    return load_groups(folder)


# -- what is compared ---------------------------------------------------------------------------


def test_everything_fused_is_held_against_layer_baseline_and_concat(
    groups: tuple[DataGroup, ...],
) -> None:
    found = find_all(groups)
    for group in groups:
        pairs = Counter((row.kind, row.what) for row in found[group].rows)
        assert set(pairs.values()) == {1}
        for job in group.fused:
            assert ("layer", job) in pairs
            assert ("baseline", job) in pairs
            # Of gated fusions all but the one of three layers have a concat on the same layers.
            alike = job.record.fusion == "gated" and job.sources != 3
            assert (("concat", job) in pairs) == alike
        assert ("layer", None) in pairs
        assert ("layer", group.chosen) not in pairs
        for row in found[group].rows:
            if row.kind == "concat":
                assert row.what is not None
                assert row.against is not None
                assert row.against.record.fusion == "concat"
                assert {(x.backbone, x.layer) for x in row.what.record.layers} == {
                    (x.backbone, x.layer) for x in row.against.record.layers
                }


def test_concat_on_the_layers_of_another_spec_is_another_source(tmp_path: Path) -> None:
    for fusion, spec in (("gated", "a" * 16), ("concat", "b" * 16)):
        write_job(tmp_path, dataset(), BOTH, 0.7, 0.7, fusion=fusion, spec=spec)
    groups = load_groups(tmp_path)
    assert {row.kind for row in find_all(groups)[groups[0]].rows} == {"baseline"}


def test_families_reach_over_all_data_sets(groups: tuple[DataGroup, ...]) -> None:
    found = find_all(groups)
    for kind in ("layer", "baseline", "concat"):
        family = [row for group in groups for row in found[group].rows if row.family == kind]
        expected = holm([row.test.p for row in family])
        assert [row.adjusted for row in family] == expected
        assert all(findings.family[kind] == len(family) for findings in found.values())
        assert {row.among for row in family} == {len(family)}
    alone = find_all(groups[:1])[groups[0]]
    together = found[groups[0]]
    for a, b in zip(alone.rows, together.rows, strict=True):
        assert a.test == b.test
        assert a.adjusted == b.adjusted if a.family == PRIMARY else a.adjusted <= b.adjusted


def test_the_primary_comparisons_do_not_grow_with_the_folder(tmp_path: Path) -> None:
    def primary() -> dict[object, float]:
        (group,) = load_groups(tmp_path)
        rows = find_all([group])[group].rows
        names = {None: "baseline"} | {job: job.record.job for job in group.jobs}
        return {
            (row.kind, names[row.what], names[row.against]): row.adjusted
            for row in rows
            if row.family == PRIMARY
        }

    for layer, accuracy in (("3", 0.8), ("6", 0.7)):
        write_job(tmp_path, dataset(), [("minilm", layer)], accuracy, accuracy)
    write_job(tmp_path, dataset(), BOTH, 0.85, 0.85)
    before = primary()
    assert len(before) == 5  # last, baseline and fusion against the layer; fusion against both
    for number in range(6):
        write_job(tmp_path, dataset(), BOTH, 0.6, 0.6, salt=f"{number}", fusion="late")
    assert primary() == before


def test_the_mean_over_seeds_is_tested(groups: tuple[DataGroup, ...]) -> None:
    group = groups[0]
    assert group.chosen is not None
    findings = find_all(groups)[group]
    for job in group.fused:
        found = findings.between(job, group.chosen)
        assert found.test == sign_flips(job.correct, group.chosen.correct, seeds=6, text_of=None)
        assert found.difference.mean == pytest.approx(
            job.correct.mean() - group.chosen.correct.mean()
        )


def test_interval_and_test_never_contradict_each_other(groups: tuple[DataGroup, ...]) -> None:
    rows = [row for findings in find_all(groups).values() for row in findings.rows]
    assert {row.lean for row in rows} == {"gain", "loss", "open"}
    for row in rows:
        assert (row.lean != "open") == (row.test.p < ALPHA)
        if row.verdict != "open":
            assert row.verdict == row.lean


def test_five_rows_against_none_are_left_open_by_test_and_interval(tmp_path: Path) -> None:
    """The bootstrap alone would leave 0 out, but p is 2 / 2⁵."""
    for sources, right in (([("minilm", "3")], 100), (BOTH, 105)):
        answers = (np.arange(200) < right)[None]
        write_job(tmp_path, dataset(rows=200), sources, 0, 0, right=answers, seeds=1)
    (group,) = load_groups(tmp_path)
    found = find_all([group])[group].between(group.fused[0], group.chosen)
    assert found.test.p == pytest.approx(2 / 2**5)
    assert (found.difference.low, found.lean) == (0.0, "open")
    # 2.5 points were just not shown, so a standard error of them is 2.5 / 1.96 at least.
    assert found.smallest_shown == pytest.approx(0.025 * (1.959964 + 0.841621) / 1.959964)


def test_a_comparison_may_be_told_from_either_side(groups: tuple[DataGroup, ...]) -> None:
    group, findings = groups[0], find_all(groups)[groups[0]]
    baseline, chosen = findings.between(None, group.chosen), findings.between(group.chosen, None)
    assert chosen.test == PairedTest(baseline.test.only_b, baseline.test.only_a, baseline.test.p)
    assert chosen.difference.mean == -baseline.difference.mean
    assert (chosen.difference.low, chosen.difference.high) == (
        -baseline.difference.high,
        -baseline.difference.low,
    )
    assert chosen.adjusted == baseline.adjusted
    with pytest.raises(KeyError, match="not compared"):
        findings.between(group.curves[0].points[0], group.fused[0])


# -- what may be said ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "adjusted", "verdict", "lean", "mark"),
    [
        (0.01, 0.01, "gain", "gain", "▲"),
        (0.01, ALPHA, "open", "gain", "△"),  # the correction takes away what the interval shows
        (-0.01, 0.5, "open", "open", ""),
        (-0.09, ALPHA, "open", "loss", "▽"),
        (-0.09, 0.01, "loss", "loss", "▼"),
    ],
)
def test_a_claim_needs_the_corrected_test(
    low: float, adjusted: float, verdict: str, lean: str, mark: str
) -> None:
    difference = Difference(low + 0.02, low, low + 0.04, 100)
    one = Finding("layer", None, None, difference, PairedTest(20, 5, 0.001), True, adjusted)
    assert (one.verdict, one.lean, one.mark) == (verdict, lean, mark)
    other = {"gain": "loss", "loss": "gain", "open": "open"}
    assert (one.flipped.verdict, one.flipped.lean) == (other[verdict], other[lean])


def test_equal_systems_are_rarely_marked(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), 200
    for number in range(12):
        right = rng.random((1, rows)) < 0.75
        for fusion in ("gated", "concat"):
            layers = [("minilm", "3"), ("smollm2", str(number))]
            write_job(
                tmp_path, dataset(rows=rows), layers, 0, 0, right=right, seeds=1, fusion=fusion
            )
    write_job(
        tmp_path, dataset(rows=rows), BOTH[:1], 0, 0, right=rng.random((1, rows)) < 0.75, seeds=1
    )
    (group,) = load_groups(tmp_path)
    findings = find_all([group])[group]
    rows = [row for row in findings.rows if row.kind != "baseline"]
    assert [row.verdict for row in rows] == ["open"] * 37
    assert sum(row.mark != "" for row in rows) <= 4  # one in twenty is "probably" by chance


# -- the baseline of older jobs --------------------------------------------------------------------


@pytest.mark.parametrize(("baseline", "shown"), [(0.5, "▲"), (0.72, "")])
def test_jobs_without_the_predictions_of_the_baseline_get_a_weaker_test(
    tmp_path: Path, baseline: float, shown: str
) -> None:
    for folder, keep in (("new", True), ("old", False)):
        write_job(
            tmp_path / folder, dataset(), BOTH, 0.75, 0.7, baseline=baseline, keep_baseline=keep
        )
    new, old = (load_groups(tmp_path / folder)[0] for folder in ("new", "old"))
    exact, bound = (find_all([group])[group].rows[0] for group in (new, old))
    assert old.jobs[0].baseline is None
    assert (exact.exact, bound.exact) == (True, False)
    assert bound.test.p >= exact.test.p
    assert bound.difference.mean == pytest.approx(exact.difference.mean)
    assert bound.difference.high - bound.difference.low > (
        exact.difference.high - exact.difference.low
    )
    assert bound.mark == shown
    table = finding_table(comparisons(old, find_all([old])[old]), find_all([old])[old], old)
    assert table is not None
    (row,) = table.rows
    assert row.texts[4:6] == ("–", "–")
    assert row.texts[6].startswith(("≤\u00a0", "<"))
    assert "did not keep the baseline's predictions" in table.note


# -- tables -------------------------------------------------------------------------------------


def test_tables_show_every_comparison_with_its_mark(groups: tuple[DataGroup, ...]) -> None:
    for group in groups:
        findings = find_all(groups)[group]
        rows = comparisons(group, findings)
        table = finding_table(rows, findings, group)
        assert table is not None
        assert len(table.rows) == len(findings.rows)
        marks = Counter(row.texts[-1] for row in table.rows)
        assert marks == Counter(row.mark for row in findings.rows)
        assert f"{findings.family['layer']} comparisons with the chosen layer" in table.note
        fusions = fusion_table(rows)
        assert {"Macro-F1 %", "Macro-F1 %, low", "Calibration error %"} <= set(fusions.frame())
        against = column_of(fusions, "Against chosen layer, points")
        for comparison, text in zip(rows, against, strict=True):
            if comparison.finding is not None:
                assert text.endswith(comparison.finding.mark or "]")
    assert "▲" in {row.mark for row in find_all(groups)[groups[0]].rows}


def test_nothing_to_compare_makes_no_table(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(), BOTH, 0.7, 0.7)
    (group,) = load_groups(tmp_path)
    findings = replace(find_all([group])[group], rows=())
    assert not finding_table(comparisons(group, findings), findings, group)
