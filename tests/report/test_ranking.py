"""`layerfusion results` ranks by validation, says ties, and hides nothing."""

from __future__ import annotations

import csv
import io
import logging
import re
from pathlib import Path

import pytest

from layerfusion.cli import main
from layerfusion.composing.launching import each_line_once
from layerfusion.records.job import METRICS
from layerfusion.report.ranking import ranking_lines
from tests.report.fabricate import dataset, write_job

DATA = dataset("toy", rows=40)


def three_jobs(runs: Path) -> None:
    write_job(runs, DATA, [("minilm", "3")], 0.9, 0.7)
    write_job(runs, DATA, [("minilm", "6")], 0.7, 0.8, fusion="concat")
    write_job(runs, DATA, [("minilm", "2"), ("smollm2", "4")], 0.8, 0.8)


def test_jobs_are_ranked_by_validation_and_ties_are_said(tmp_path: Path) -> None:
    three_jobs(tmp_path)
    title, *table = ranking_lines(tmp_path)
    assert title.startswith("toy: 3 jobs by accuracy on ")
    assert title.endswith("(2 of 3 tie on 50 rows)")
    rows = [line for line in table if "minilm" in line]
    assert [row.split()[0] for row in rows] == ["1", "1", "3"]
    assert "gated   layer 3 of minilm" in rows[2]
    assert "layer 2 of minilm and layer 4 of smollm2" in "".join(rows)
    assert table[-1] == f"next: layerfusion report {tmp_path}"


@pytest.mark.parametrize("columns", [70, 80, 100])
def test_accuracies_stand_beside_names_on_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    write_job(
        tmp_path, DATA, [("smollm2", str(n)) for n in range(30)] + [("minilm", "2")], 0.9, 0.8
    )
    three_jobs(tmp_path)
    lines = [line for line in ranking_lines(tmp_path) if str(tmp_path) not in line]
    assert max(map(len, lines)) <= columns
    beside = [line for line in lines if re.search(r"layers? [2-6] of minilm|31 layers", line)]
    assert len(beside) == 4
    assert all(re.search(r"\[\d+\.\d, \d+\.\d\] +(gated|concat) ", line) for line in beside)


def test_a_long_sweep_shows_the_first_and_says_how_many_are_left(tmp_path: Path) -> None:
    three_jobs(tmp_path)
    lines = ranking_lines(tmp_path, most=1)
    assert sum("minilm" in line for line in lines) == 1
    assert "and 2 more: layerfusion results shows all" in lines


def test_each_data_set_has_a_table_of_its_own(tmp_path: Path) -> None:
    three_jobs(tmp_path)
    write_job(tmp_path, dataset("other", rows=30), [("minilm", "3")], 0.9, 0.7)
    titles = [line for line in ranking_lines(tmp_path) if line.startswith(("other:", "toy:"))]
    assert [title.split(":")[0] for title in titles] == ["other", "toy"]


def test_a_damaged_record_is_named_and_the_others_are_ranked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three_jobs(tmp_path)
    first = sorted(tmp_path.rglob(METRICS))[0]
    first.write_text("{")
    assert main(["results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "2 jobs" in shown
    assert f"left out: {first}" in shown


def test_csv_has_every_column_with_all_digits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three_jobs(tmp_path)
    assert main(["results", str(tmp_path), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 3
    assert {float(row["validation_accuracy"]) for row in rows} == {0.7, 0.8}
    assert main(["results", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_line_of_a_job_is_written_once(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("layerfusion.test")
    handler = logging.StreamHandler(stream := io.StringIO())
    logging.getLogger().addHandler(handler)
    try:
        for _ in range(2):
            with each_line_once():
                log.warning("from %s", "here")
                log.warning("from here")
    finally:
        logging.getLogger().removeHandler(handler)
    assert stream.getvalue() == "from here\nfrom here\n"  # once for each job
