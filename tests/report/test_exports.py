from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfusion.records.job import Estimate
from layerfusion.report.contents import Report, build_report
from layerfusion.report.exports import (
    LATEX,
    find_parts,
    latex,
    named_tables,
    table_csv,
    table_latex,
    write_exports,
)
from layerfusion.report.load import load_groups
from layerfusion.report.names import count, interval, mean_sd, points
from layerfusion.report.profile_blocks import profile_blocks
from layerfusion.report.tables import Column, Row, Table


@pytest.fixture(scope="module")
def report(written: Path) -> Report:
    runs = written / "runs"
    return build_report(load_groups(runs), title="again", profiles=profile_blocks(runs))


def _read(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table_csv(table), newline="")))


def _numbers(*cells: str) -> Table:
    return Table("t", (Column("x"),), tuple(Row((cell,)) for cell in cells))


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 10**9))
def test_numbers_of_a_cell_can_be_read_back(mean: float, sd: float, whole: int) -> None:
    cell = mean_sd(Estimate(mean, sd))
    (row,) = _read(_numbers(f"{cell} {interval(mean, sd)}"))
    values = [float(row[title]) for title in ("x", "x, sd", "x, low", "x, high")]
    assert np.allclose(values, [100 * mean, 100 * sd, 100 * mean, 100 * sd], atol=0.0501)
    (row,) = _read(_numbers(count(whole)))
    assert int(row["x"]) == whole
    (row,) = _read(_numbers(points(mean - sd)))
    assert float(row["x"]) == pytest.approx(100 * (mean - sd), abs=0.0501)


def test_every_part_of_a_cell_has_a_column_and_what_no_cell_has_has_none() -> None:
    rows = _read(_numbers("+1.2 [\u22120.3,\u00a0+2.7] ▲", "–", "norm"))
    assert rows == [
        {"x": "1.2", "x, low": "-0.3", "x, high": "2.7", "x, mark": "▲"},
        {"x": "", "x, low": "", "x, high": "", "x, mark": ""},
        {"x": "norm", "x, low": "", "x, high": "", "x, mark": ""},
    ]


def test_accuracies_of_the_record_are_in_the_file(report: Report, written: Path) -> None:
    group = next(g for g in load_groups(written / "runs") if g.label == "reviews")
    rows = _read(report.tables["reviews-accuracy-by-layer"])
    jobs = [job for curve in group.curves for job in curve.points]
    assert len(rows) == len(jobs)
    for row, job in zip(rows, jobs, strict=True):
        test = job.record.test["accuracy"]
        assert (row["Model"], row["Layer"]) == (job.layer.backbone, job.layer.layer)
        found = [float(row[f"{title}"]) for title in ("Test %", "Test %, sd")]
        assert found == pytest.approx([100 * test.mean, 100 * (test.sd or 0)], abs=0.0501)
        assert float(row["95 % interval, low"]) == pytest.approx(100 * (test.low or 0), abs=0.0501)


def test_texts_stay_as_they_are() -> None:
    table = Table("t", (Column("a", numeric=False),), (Row(('say "1,2"\n±',)),))
    assert _read(table) == [{"a": 'say "1,2"\n±'}]


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_latex_reads_no_command_in_a_text(text: str) -> None:
    left = re.sub(r"\\(text[a-z]+\{\}|char34\{\}|[&%$#_{}])", "", latex(text))
    assert not set(left) & set("&%$#_{}\\~^")


def test_latex_needs_no_font_encoding_of_its_own() -> None:
    # What ltoutenc gives to T1 alone, of all that texts are escaped with.
    missing = {r"\textquotedbl", r"\guillemotleft", r"\guilsinglleft", r"\quotedblbase"}
    used = {found for text in LATEX.values() for found in re.findall(r"\\[a-z]+", text)}
    assert not used & missing
    assert latex('{"pool": "mean"}') == r"\{\char34{}pool\char34{}: \char34{}mean\char34{}\}"


def test_a_latex_row_has_a_cell_a_column(report: Report) -> None:
    for table in report.tables.values():
        text = table_latex(table)
        body = text[text.index("\\toprule") : text.index("\\bottomrule")]
        assert body.isascii(), set(re.findall(r"[^\x00-\x7f]", body))
        rows = [line for line in body.splitlines() if line.endswith("\\\\")]
        assert len(rows) == len(table.rows) + 1
        for line in rows:
            assert len(re.findall(r"(?<!\\)&", line)) == len(table.columns) - 1
            assert line.count("{") - line.count("\\{") == line.count("}") - line.count("\\}")


def test_tables_of_the_same_title_have_files_of_their_own() -> None:
    one, two = _numbers("1"), _numbers("2")
    named = named_tables([("a", [one, two]), ("b", [one])])
    assert list(named) == ["a-t", "a-t-2", "b-t"]


def test_only_files_of_an_earlier_report_are_removed(tmp_path: Path) -> None:
    write_exports(tmp_path, {"old": _numbers("1"), "kept": _numbers("2")}, ())
    (tmp_path / "tables" / "mine.csv").write_text("a\n")
    write_exports(tmp_path, {"kept": _numbers("3")}, ())
    names = sorted(path.name for path in (tmp_path / "tables").iterdir())
    assert names == ["kept.csv", "kept.tex", "mine.csv"]
    assert "3" in (tmp_path / "tables" / "kept.csv").read_text()


def test_a_manifest_names_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "precious.txt").write_text("mine")
    (tmp_path / ".report-files.json").write_text('["precious.txt", "tables/../precious.txt", 3]')
    write_exports(tmp_path, {}, ())
    assert (tmp_path / "precious.txt").exists()


def test_every_table_is_found(report: Report) -> None:
    found = list(find_parts(report, Table))
    assert len(found) == len(report.tables)
    assert {table.title for table in found} == {table.title for table in report.tables.values()}
