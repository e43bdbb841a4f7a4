"""The figures of the report for notebooks, and a metric that is added in one place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from layerfusion.errors import UserError
from layerfusion.findings.groups import load_groups
from layerfusion.findings.shown import comparisons
from layerfusion.findings.tests import find_all
from layerfusion.records.job import Estimate, find_records, write_record
from layerfusion.records.profile import write_profile
from layerfusion.report import metrics as report_metrics
from layerfusion.report import (
    plot_cost,
    plot_fusion,
    plot_gates,
    plot_layers,
    plot_scores,
    plot_similarity,
)
from layerfusion.report.blocks.fusion import fusion_table
from layerfusion.report.format import decimals
from tests.report.fabricate import dataset, write_job
from tests.report.fabricate_profiles import profile, stack
from tests.report.reading import column_of


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    both = [("minilm", "3"), ("minilm", "5")]
    for sources in (both[:1], both[1:], both):
        write_job(tmp_path, dataset(rows=40), sources, 0.7, 0.7, seeds=2)
    return tmp_path


def test_a_folder_of_jobs_becomes_axes(runs: Path) -> None:
    for plot in (plot_layers, plot_fusion, plot_cost, plot_gates):
        ax = Figure().add_subplot()
        assert plot(str(runs), ax=ax) is ax
        assert ax.has_data()
    (group,) = load_groups(runs)
    ax = plot_layers(group)  # on a new figure
    assert ax.get_ylabel() == "accuracy, %"
    pyplot.close(ax.figure)  # type: ignore[arg-type]


def test_a_profile_becomes_axes(tmp_path: Path) -> None:
    made = profile(models={"minilm": stack(3)})
    write_profile(made, tmp_path)
    for source in (made, tmp_path):
        for plot in (plot_layers, plot_scores, plot_similarity):
            ax = Figure().add_subplot()
            assert plot(source, ax) is ax
            assert ax.has_data()


def test_of_several_data_sets_one_has_to_be_named(runs: Path) -> None:
    write_job(runs, dataset("other", rows=40), [("minilm", "3")], 0.7, 0.7, seeds=2)
    with pytest.raises(UserError, match="dataset: there is no 'None'; there are: other, toy"):
        plot_layers(runs)
    assert plot_layers(runs, Figure().add_subplot(), dataset="other").has_data()
    with pytest.raises(UserError, match="job with gates: there is no 'f00'"):
        plot_gates(runs, "f00", dataset="toy")


def test_a_metric_is_added_in_one_place(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brier = report_metrics.Metric("brier", "Brier score", decimals(3), low_is_good=True)
    monkeypatch.setattr(report_metrics, "METRICS", (*report_metrics.METRICS, brier))
    ((folder, record), *_) = [x for x in find_records(runs) if len(x[1].layers) == 2]
    write_record(replace(record, test=record.test | {"brier": Estimate(0.2345, 0.01)}), folder)
    (group,) = load_groups(runs)
    table = fusion_table(comparisons(group, find_all([group])[group]))
    shown = column_of(table, "Brier score")
    assert sorted(set(shown)) == ["0.234\u00a0±\u00a00.010", "–"]
    assert table.frame()["Brier score"].dropna().tolist() == [0.2345]
