"""The section on the published protocol, and that nothing of it reaches the honest pages."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from layerfusion.findings.results import Results
from layerfusion.published.record import PublishedRecord
from layerfusion.published.report import published_sections
from layerfusion.records.job import (
    PREDICTIONS,
    DataRecord,
    Estimate,
    RunRecord,
    find_records,
    write_record,
)
from layerfusion.report.block import Block
from layerfusion.report.contents import build_report
from layerfusion.report.page import html, write_report
from layerfusion.report.render.markdown import markdown
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
        protocol_facts=asdict(made),
    )
    write_record(record, folder)
    return record


def published_report(runs: Path) -> Block:
    (block,) = published_sections(Results(runs))
    return block


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for layer, accuracy in (("3", 0.80), ("5", 0.75)):
        write_job(tmp_path, dataset(), [("minilm", layer)], accuracy, accuracy)
    write_job(tmp_path, dataset(), [("smollm2", "9")], 0.83, 0.83)
    write_job(tmp_path, dataset(), [("minilm", "6"), ("smollm2", "norm")], 0.81, 0.84)
    return tmp_path


def test_a_record_is_read_back_as_written(tmp_path: Path) -> None:
    record = write_published(tmp_path, dataset())
    assert [found for _, found in Results(tmp_path).jobs] == [record]


def test_the_honest_report_does_not_change_by_a_letter(runs: Path) -> None:
    before = build_report(Results(runs), title="t")
    write_published(runs, dataset())
    after = build_report(Results(runs), title="t", sections=[published_sections])
    kept = tuple(section for section in after.sections if section.key != "published")
    assert len(kept) == len(after.sections) - 1
    honest = replace(after, sections=kept)
    assert markdown("t", honest.intro, kept) == markdown("t", before.intro, before.sections)
    assert html(honest) == html(before)
    for page in (markdown("t", after.intro, after.sections), html(after)):
        assert "91.3" in page
        # The claim stands in its own section alone.
        start = page.index("These are not results")
        end = page.index("Where it comes from", start)
        assert "91.3" not in page[:start] + page[end:]


def test_a_claim_stands_beside_the_honest_jobs_on_the_same_models(runs: Path) -> None:
    write_published(runs, dataset(), ("minilm",), 0.85)
    write_published(runs, dataset())
    write_published(runs, dataset(), fusion="published_moe", residual=True)
    report = published_report(runs)
    table, jobs = report.tables
    names = [row.texts[0] for row in table.rows]
    assert names == [
        "Last layer of minilm",
        "Sum of minilm and smollm2",
        "Moe, residual, of minilm and smollm2",
    ]
    cells = table.rows[1].texts
    assert [cell.replace("\u00a0", " ") for cell in cells[1:7]] == [
        "91.3 ± 0.4",
        "89.3 ± 0.3",
        "89.8 ± 0.2",
        "+1.5 ± 0.1",
        "17, 17",
        "2",
    ]
    alone, both = table.rows[0].texts, table.rows[1].texts
    assert "layer 3 of minilm" in alone[7]  # by validation; the better one is another model's
    assert alone[8] == "–"
    assert "layer 9 of smollm2" in both[7]
    assert "layer 6 of minilm" in both[8]
    assert "91.3 % (Sum of minilm and smollm2, the best of 3 rows)" in table.note.replace(
        "\u00a0", " "
    )
    assert len(jobs.rows) == 3


def test_intervals_stand_beside_the_figures_that_have_them(runs: Path) -> None:
    record = write_published(runs, dataset())
    ((folder, _),) = [found for found in find_records(runs) if found[1].job == record.job]
    test = {
        name: replace(figure, low=figure.mean - 0.03, high=figure.mean + 0.02)
        for name, figure in record.test.items()
    }
    write_record(replace(record, test=test), folder)
    report = published_report(runs)
    cells = [cell.replace("\u00a0", " ") for cell in report.tables[0].rows[0].texts]
    assert cells[1:5] == [
        "91.3 ± 0.4 [88.3, 93.3]",
        "89.3 ± 0.3 [86.3, 91.3]",
        "89.8 ± 0.2 [86.8, 91.8]",
        "+1.5 ± 0.1 [−1.5, +3.5]",
    ]


def test_other_rows_are_not_compared(runs: Path) -> None:
    write_published(runs, dataset(fingerprint="f" * 64))
    report = published_report(runs)
    assert report.tables[0].rows[0].texts[7:] == ("–", "–")
    assert "No honest job on these rows" in report.tables[0].note


def test_a_folder_of_claims_alone_has_a_page_without_results(tmp_path: Path) -> None:
    write_published(tmp_path, dataset())
    out = tmp_path / "out"
    page = write_report(tmp_path, out, title="t", sections=[published_sections]).read_text()
    assert "this page has no result" in page
    assert "91.3" in page
    assert "## Summary" not in (tmp_path / "out" / "report.md").read_text()


def test_without_claims_there_is_no_section(runs: Path) -> None:
    assert published_sections(Results(runs)) == []
