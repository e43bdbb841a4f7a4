from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from layerfusion.errors import UserError
from layerfusion.findings.groups import load_groups
from layerfusion.findings.shown import comparisons
from layerfusion.findings.tests import find_all
from layerfusion.records.job import METRICS, PREDICTIONS
from layerfusion.report.blocks.fusion import fusion_table
from layerfusion.report.blocks.summary import group_card
from tests.report.fabricate import SWEPT, dataset, write_job, write_sweep


def test_samples_that_differ_are_not_mixed_and_say_which_they_are(tmp_path: Path) -> None:
    small = dataset("r8", rows=40, fingerprint="a" * 64)
    large = dataset("r8", rows=80, fingerprint="b" * 64)
    for data, test in ((small, 0.9), (large, 0.6)):
        write_job(tmp_path, data, [("minilm", "3")], test, test)
    write_job(tmp_path, dataset("sst2", rows=40), [("minilm", "3")], 0.7, 0.7)
    groups = load_groups(tmp_path)
    assert [group.label for group in groups] == ["r8 (data aaaaaaaa)", "r8 (data bbbbbbbb)", "sst2"]
    assert [group.rows for group in groups] == [40, 80, 40]
    assert [len(group.jobs) for group in groups] == [1, 1, 1]
    assert len({group.key for group in groups}) == 3


def test_a_last_layer_job_is_a_point_of_its_curve(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(), [("smollm2", "5")], 0.7, 0.7)
    write_job(tmp_path, dataset(), [("smollm2", "norm")], 0.6, 0.6, selection="last")
    (group,) = load_groups(tmp_path)
    (curve,) = group.curves
    assert [job.layer.layer for job in curve.points] == ["5", "norm"]
    assert curve.last is not None
    assert curve.last is curve.points[-1]
    assert curve.last.record.selection == "last"


def test_a_selection_that_settled_on_one_layer_is_no_point_of_a_curve(tmp_path: Path) -> None:
    mixed, alone = tmp_path / "mixed", tmp_path / "alone"
    write_job(mixed, dataset(), [("smollm2", "5")], 0.7, 0.7)
    for folder in (mixed, alone):
        write_job(
            folder, dataset(), [("smollm2", "6")], 0.6, 0.6, selection="greedy", fusion="stacked"
        )
    (group,) = load_groups(mixed)
    (curve,) = group.curves
    assert [job.layer.layer for job in curve.points] == ["5"]
    assert [job.layer.layer for job in group.repeats] == ["6"]
    # Where nothing else was run it is all that there is to show.
    (only,) = load_groups(alone)
    assert [job.layer.layer for job in only.curves[0].points] == ["6"]


def test_curves_are_bottom_up_and_complete(tmp_path: Path) -> None:
    write_sweep(tmp_path, dataset(rows=20))
    (group,) = load_groups(tmp_path)
    assert {c.label: [job.layer.layer for job in c.points] for c in group.curves} == SWEPT
    assert len(group.fused) == 9


def test_poolings_and_operators_are_curves_of_their_own(tmp_path: Path) -> None:
    for pooling, fusion in (("mean", "gated"), ("last", "gated"), ("last", "concat")):
        write_job(tmp_path, dataset(), [("minilm", "3")], 0.7, 0.7, pooling=pooling, fusion=fusion)
    write_job(tmp_path, dataset(), [("smollm2", "3")], 0.7, 0.7)
    (group,) = load_groups(tmp_path)
    assert {curve.label for curve in group.curves} == {
        "minilm (mean)",
        "minilm (last, gated)",
        "minilm (last, concat)",
        "smollm2",
    }
    assert sorted(c.variant for c in group.curves if c.backbone == "minilm") == [0, 1, 2]


def test_of_jobs_on_one_layer_validation_chooses_the_point(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(), [("minilm", "3")], 0.8, 0.70, salt="fast")
    write_job(tmp_path, dataset(), [("minilm", "3")], 0.7, 0.75, salt="slow")
    (group,) = load_groups(tmp_path)
    assert [j.record.validation["accuracy"].mean for j in group.singles] == [0.75]
    assert [j.record.validation["accuracy"].mean for j in group.repeats] == [0.70]
    assert "layer 3 of minilm" in group_card(group, find_all([group])[group]).headline


def test_a_record_older_than_the_interval_of_macro_f1_is_read(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(rows=10), [("minilm", "3")], 0.7, 0.7, seeds=2)
    (path,) = tmp_path.rglob(METRICS)
    content = json.loads(path.read_text())
    del content["baseline"]["macro_f1_low"], content["baseline"]["macro_f1_high"]
    content["test"]["macro_f1"] |= {"low": None, "high": None}
    del content["checksum"]
    path.write_text(json.dumps(content))
    (group,) = load_groups(tmp_path)
    findings = find_all([group])[group]
    table = fusion_table(comparisons(group, findings))
    assert {"Macro-F1 %", "Macro-F1 %, sd"} <= set(table.frame())
    assert not {"Macro-F1 %, low", "Macro-F1 %, high"} & set(table.frame())


def test_same_fingerprint_with_other_labels_is_refused(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(rows=10), [("minilm", "3")], 0.7, 0.7, seeds=2)
    (path,) = tmp_path.rglob(PREDICTIONS)
    table = pq.read_table(path)
    other = pa.array(1 - table.column("target").to_numpy())
    write_job(tmp_path, dataset(rows=10), [("minilm", "5")], 0.7, 0.7, seeds=2)
    pq.write_table(table.set_column(table.schema.get_field_index("target"), "target", other), path)
    with pytest.raises(UserError, match="other test labels"):
        load_groups(tmp_path)
