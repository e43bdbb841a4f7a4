"""The section on the published protocol, and that nothing of it reaches the honest pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from layerfusion.records.job import (
    PREDICTIONS,
    DataRecord,
    Estimate,
    PublishedRecord,
    RunRecord,
    find_records,
    write_record,
)
from layerfusion.report.contents import build_report
from layerfusion.report.load import load_groups
from layerfusion.report.markdown import markdown
from layerfusion.report.page import html, write_report
from layerfusion.report.published import load_published, published_report
from tests.report.fabricate import MODELS, Source, dataset, write_job

TOPS = {name: layers[-1] for name, layers in MODELS.items()}


def write_published(
    runs: Path,
    data: DataRecord,
    models: tuple[str, ...] = ("minilm", "smollm2"),
    claimed: float = 0.9131,
    *,
    fusion: str = "published_sum",
    residual: bool = False,
) -> RunRecord:
    sources: list[Source] = [(name, TOPS[name]) for name in models]
    salt = f"published {residual}"
    honest = write_job(runs, data, sources, 0.5, 0.5, fusion=fusion, seeds=2, salt=salt)
    (folder,) = [path for path, found in find_records(runs) if found.job == honest.job]
    (folder / PREDICTIONS).unlink()
    figures = {
        "claimed_accuracy": Estimate(claimed, 0.004),
        "last_epoch_accuracy": Estimate(claimed - 0.02, 0.003),
        "split_half_accuracy": Estimate(claimed - 0.0152, 0.002),
        "selection_bias": Estimate(0.0152, 0.001),
    }
    made = PublishedRecord(residual, dict.fromkeys(models, 0.173), 100, 50, [[0.5], [0.6]])
    record = replace(
        honest,
        protocol="as_published",
        validation={},
        test=figures,
        seeds=[
            replace(seed, validation={}, test={k: v.mean for k, v in figures.items()})
            for seed in honest.seeds
        ],
        published=made,
    )
    write_record(record, folder)
    return record


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for layer, accuracy in (("3", 0.80), ("5", 0.75)):
        write_job(tmp_path, dataset(), [("minilm", layer)], accuracy, accuracy)
    write_job(tmp_path, dataset(), [("smollm2", "9")], 0.83, 0.83)
    write_job(tmp_path, dataset(), [("minilm", "6"), ("smollm2", "norm")], 0.81, 0.84)
    return tmp_path


def test_a_record_is_read_back_as_written(tmp_path: Path) -> None:
    record = write_published(tmp_path, dataset())
    assert load_published(tmp_path) == (record,)


def test_the_honest_report_does_not_change_by_a_letter(runs: Path) -> None:
    before = build_report(load_groups(runs), title="t")
    write_published(runs, dataset())
    after = build_report(load_groups(runs), title="t", published=load_published(runs))
    assert markdown(replace(after, published=None)) == markdown(before)
    assert html(replace(after, published=None)) == html(before)
    assert after.published is not None
    for page in (markdown(after), html(after)):
        assert "91.3" in page
        # The claim stands in its own section alone.
        start = page.index("These are not results")
        end = page.index("Where it comes from", start)
        assert "91.3" not in page[:start] + page[end:]


def test_a_claim_stands_beside_the_honest_jobs_on_the_same_models(runs: Path) -> None:
    write_published(runs, dataset(), ("minilm",), 0.85)
    write_published(runs, dataset())
    write_published(runs, dataset(), fusion="published_moe", residual=True)
    report = published_report(load_published(runs), load_groups(runs))
    assert report is not None
    (table,) = report.tables
    names = [row.cells[0] for row in table.rows]
    assert names == [
        "Last layer of minilm",
        "Sum of minilm and smollm2",
        "Moe, residual, of minilm and smollm2",
    ]
    cells = table.rows[1].cells
    assert [cell.replace("\u00a0", " ") for cell in cells[1:7]] == [
        "91.3 ± 0.4",
        "89.3 ± 0.3",
        "89.8 ± 0.2",
        "+1.5 ± 0.1",
        "17, 17",
        "2",
    ]
    alone, both = table.rows[0].cells, table.rows[1].cells
    assert "layer 3 of minilm" in alone[7]  # by validation; the better one is another model's
    assert alone[8] == "–"
    assert "layer 9 of smollm2" in both[7]
    assert "minilm 6" in both[8]
    assert "91.3 % (Sum of minilm and smollm2, the best of 3 rows)" in table.note.replace(
        "\u00a0", " "
    )
    assert len(report.provenance.rows) == 3


def test_intervals_stand_beside_the_figures_that_have_them(runs: Path) -> None:
    record = write_published(runs, dataset())
    ((folder, _),) = [found for found in find_records(runs) if found[1].job == record.job]
    test = {
        name: replace(figure, low=figure.mean - 0.03, high=figure.mean + 0.02)
        for name, figure in record.test.items()
    }
    write_record(replace(record, test=test), folder)
    report = published_report(load_published(runs), load_groups(runs))
    assert report is not None
    cells = [cell.replace("\u00a0", " ") for cell in report.tables[0].rows[0].cells]
    assert cells[1:5] == [
        "91.3 ± 0.4 [88.3, 93.3]",
        "89.3 ± 0.3 [86.3, 91.3]",
        "89.8 ± 0.2 [86.8, 91.8]",
        "+1.5 ± 0.1 [−1.5, +3.5]",
    ]


def test_other_rows_are_not_compared(runs: Path) -> None:
    write_published(runs, dataset(fingerprint="f" * 64))
    report = published_report(load_published(runs), load_groups(runs))
    assert report is not None
    assert report.tables[0].rows[0].cells[7:] == ("–", "–")
    assert "No honest job on these rows" in report.tables[0].note


def test_a_folder_of_claims_alone_has_a_page_without_results(tmp_path: Path) -> None:
    write_published(tmp_path, dataset())
    page = write_report(tmp_path, tmp_path / "out", title="t").read_text()
    assert "this page has no result" in page
    assert "91.3" in page
    assert "## Summary" not in (tmp_path / "out" / "report.md").read_text()


def test_without_claims_there_is_no_section(runs: Path) -> None:
    assert published_report((), load_groups(runs)) is None
    assert "Published against honest" not in html(build_report(load_groups(runs), title="t"))
