from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfusion.findings.groups import load_groups
from layerfusion.records.job import Estimate
from layerfusion.report.block import Block, Folded
from layerfusion.report.contents import Report
from layerfusion.report.format import COUNT, NAME, PERCENT, POINTS, Format
from layerfusion.report.render.files import named_tables, table_csv, write_exports
from layerfusion.report.render.latex import LATEX, latex, table_latex
from layerfusion.report.render.markdown import plain
from layerfusion.report.table import Cell, Column, Table


def _read(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table_csv(table), newline="")))


def _numbers(*cells: object, form: Format = PERCENT) -> Table:
    return Table("t", cells, Column("x", lambda cell: cell, form))


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 10**9))
def test_files_hold_all_digits(mean: float, sd: float, whole: int) -> None:
    (row,) = _read(_numbers(Estimate(mean, sd, mean, sd)))
    values = [float(row[title]) for title in ("x", "x, sd", "x, low", "x, high")]
    assert values == [100 * mean, 100 * sd, 100 * mean, 100 * sd]
    (row,) = _read(_numbers(whole, form=COUNT))
    assert row["x"] == str(whole)
    (row,) = _read(_numbers(mean - sd, form=POINTS))
    assert float(row["x"]) == 100 * (mean - sd)


def test_every_part_of_a_cell_has_a_column_and_what_no_cell_has_has_none() -> None:
    difference = Cell(0.012, low=-0.003, high=0.027, mark="▲")
    table = _numbers(difference, None, Cell("norm"), Cell(note="chosen"), form=POINTS)
    assert [row.texts for row in table.rows] == [
        *(("+1.2 [\u22120.3,\u00a0+2.7] ▲",), ("–",), ("norm",), ("chosen",))
    ]
    empty = {"x": "", "x, low": "", "x, high": "", "x, mark": "", "x, note": ""}
    numbers = {"x": "1.2", "x, low": "-0.3", "x, high": "2.7", "x, mark": "▲"}
    assert _read(table) == [
        *(empty | numbers, empty, empty | {"x": "norm"}, empty | {"x, note": "chosen"})
    ]


def test_a_frame_has_types() -> None:
    columns = (
        Column("text", lambda row: row[0]),
        Column("count", lambda row: row[1], COUNT),
        Column("share", lambda row: row[2], PERCENT),
        Column("layer", lambda row: row[3], NAME),
    )
    frame = Table("t", [("a", 1, 0.5, "3"), ("b", None, None, "norm")], *columns).frame()
    assert [str(kind) for kind in frame.dtypes] == ["object", "Int64", "float64", "object"]
    assert frame["share"].tolist()[0] == 50.0
    assert frame["share"].isna().tolist() == frame["count"].isna().tolist() == [False, True]


def test_accuracies_of_the_record_are_in_the_file(report: Report, written: Path) -> None:
    group = next(g for g in load_groups(written / "runs") if g.label == "reviews")
    rows = _read(report.tables["reviews-accuracy-by-layer"])
    jobs = [job for curve in group.curves for job in curve.points]
    assert len(rows) == len(jobs)
    for row, job in zip(rows, jobs, strict=True):
        test = job.record.test["accuracy"]
        assert (row["Model"], row["Layer"]) == (job.layer.backbone, job.layer.layer)
        found = [float(row[f"Test %{part}"]) for part in ("", ", sd", ", low", ", high")]
        wanted = (test.mean, test.sd, test.low, test.high)
        assert found == [100 * (value or 0) for value in wanted]


def test_texts_stay_as_they_are() -> None:
    table = Table("t", ('say "1,2"\n±',), Column("a", lambda row: row))
    assert _read(table) == [{"a": 'say "1,2"\n±'}]


FORMULAS = ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", " =1", "=cmd|' /C calc'!A0", "＝1")


def test_a_spreadsheet_finds_no_formula_in_a_text() -> None:
    columns = (Column("=HYPERLINK(1)", lambda row: row), Column("n", lambda _: -1.5, COUNT))
    rows = _read(Table("t", (*FORMULAS, "minilm", "-0.5", "+3"), *columns))
    assert [row["'=HYPERLINK(1)"] for row in rows] == [
        *(f"'{text}" for text in FORMULAS),
        *("minilm", "-0.5", "+3"),  # the last two are numbers, whoever reads them
    ]
    assert {row["n"] for row in rows} == {"-1.5"}


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b\nc", r"a\|b c"),
        ("<script>x</script>", r"\<script\>x\</script\>"),
        ("[x](javascript:alert(1))", r"\[x\](javascript:alert(1))"),
        ("~~~ $a$ `b`", r"\~\~\~ \$a\$ \`b\`"),
        ("- one", r"\- one"),
        ("1. one", r"1\. one"),
        ("---", r"\---"),
        ("86.5 and -1", "86.5 and -1"),
        ("    code &lt;", "code &amp;lt;"),
    ],
)
def test_markdown_reads_no_more_than_text(text: str, escaped: str) -> None:
    assert plain(text) == escaped


def test_latex_has_no_invisible_characters() -> None:
    assert latex("a\x00b\x1b\u2028c\n%d") == r"a b  c \%d"


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
    one, two = _numbers(1), _numbers(2)
    first = Block("a", (one, Folded((two,))), files="a")
    assert list(named_tables([first, Block("b", (one,))])) == ["a-t", "a-t-2", "t"]


def test_only_files_of_an_earlier_report_are_removed(tmp_path: Path) -> None:
    write_exports(tmp_path, {"old": _numbers(1), "kept": _numbers(2)}, ())
    (tmp_path / "tables" / "mine.csv").write_text("a\n")
    write_exports(tmp_path, {"kept": _numbers(3, form=COUNT)}, ())
    names = sorted(path.name for path in (tmp_path / "tables").iterdir())
    assert names == ["kept.csv", "kept.tex", "mine.csv"]
    assert "3" in (tmp_path / "tables" / "kept.csv").read_text()


def test_a_manifest_names_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "precious.txt").write_text("mine")
    (tmp_path / ".report-files.json").write_text('["precious.txt", "tables/../precious.txt", 3]')
    write_exports(tmp_path, {}, ())
    assert (tmp_path / "precious.txt").exists()
