from __future__ import annotations

import csv
import io
import re
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerfusion.errors import UserError
from layerfusion.texts.delimited import BACKSLASH_NOTE, RETURN_NOTE, UNQUOTED_NOTE, read_rows


def cells(text: str, delimiter: str = ",") -> list[list[str]]:
    return read_rows("x", text, delimiter, label="label").cells


def test_cells_are_read_as_rfc_4180_has_them() -> None:
    text = 'text,label\r\n"a, ""b""\r\nc",x\r\n\r\nd,y\r\n'
    rows = read_rows("x", text, ",", label="label")
    assert rows.names == ("text", "label")
    assert rows.cells == [['a, "b"\r\nc', "x"], ["d", "y"]]
    assert rows.lines == [2, 5]
    assert rows.note is None


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('text,label\n"open,x\nb,y\nc,x\n', '"open'),
        ('text,label\n"open,x\nb,y\n"c,x\nd,y\n', '"open'),
        ('text,label\n"open,x\nb,y\nc 5",x\nd,y\n', '"open'),
        ('text,label,note\nopen,x,"n\nb,y,n\nc,x,n"\n', "open"),
        ('text,label\n"Great" she said,x\nb,y\n', '"Great" she said'),
    ],
)
def test_a_stray_quote_swallows_no_row(text: str, row: str) -> None:
    rows = read_rows("x", text, ",", label="label")
    assert len(rows.cells) == text.count("\n") - 1
    assert rows.cells[0][0] == row
    assert rows.note == UNQUOTED_NOTE


def test_a_row_that_a_cell_swallowed_is_named_where_other_cells_need_their_quotes() -> None:
    text = 'text,label,id\n"ok, fine",x,1\n"open,x,2\nb,y,3\nc 5",x,4\nd,y,5\n'
    with pytest.raises(UserError, match=r"^x, row 2 \(line 3\): a cell runs on over 3 lines"):
        cells(text)


def test_quotes_after_a_backslash_belong_to_the_text() -> None:
    rows = read_rows("x", 'text,label\n"she said \\"hi\\", twice",x\nb,y\n', ",", label="label")
    assert rows.cells == [['she said "hi", twice', "x"], ["b", "y"]]
    assert rows.note == BACKSLASH_NOTE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("text,label\na,x\nb\n", r"row 2 \(line 3\): it has 1 cells where the header has 2"),
        ("text,label\na,x\nb,y,z\n", r"row 2 \(line 3\): it has 3 cells where the header has 2"),
        ('text,label\n"a, b",x\n"open, y\n', r"row 2 \(line 3\): a quotation mark is opened"),
    ],
)
def test_what_is_no_table_is_named_by_row(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cells(text)


def test_lines_that_are_not_data_are_left_out_and_old_line_ends_are_read() -> None:
    assert read_rows("x", "text\tlabel\nstring\tstring\na\tx\n", "\t", [1]).cells == [["a", "x"]]
    assert cells("text,label\ra,x\rb,y\r") == [["a", "x"], ["b", "y"]]
    assert cells('text,label\r"a\nb",x\rb,y\r\nc,x\r') == [["a\nb", "x"], ["b", "y"], ["c", "x"]]
    with pytest.raises(UserError, match=r"row 2 \(line 3\): it has 3 cells"):
        cells("text,label\ra,x\rb,y,z\r")


def test_a_carriage_return_in_a_row_belongs_to_its_text() -> None:
    rows = read_rows("x", "text,label\na\rb,x\nc\r\r d,y\r\ne,x\n", ",", label="label")
    assert rows.cells == [["a\rb", "x"], ["c\r\r d", "y"], ["e", "x"]]
    assert rows.note == RETURN_NOTE
    assert read_rows("x", 'text,label\n"a\rb",x\nb,y\n', ",").note is None


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=30)


@settings(max_examples=300)
@given(st.lists(st.tuples(TEXT, st.sampled_from(["x", "y"])), min_size=1, max_size=20))
def test_what_a_csv_writer_wrote_is_read_back(rows: list[tuple[str, str]]) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    if any(re.search(r"(^|\n)[^,\n]*,[^,\n]*\n", text) for text, _ in rows):
        return  # a line that looks like a row of the table: refused, or read line by line
    assert cells(file.getvalue()) == [list(row) for row in rows]


WORDS = st.lists(st.sampled_from(['"', "a", "tv", '5"', '"b', 'c"', " "]), min_size=1, max_size=6)


@settings(max_examples=500)
@given(
    st.lists(st.tuples(WORDS.map("".join), st.sampled_from(["x", "y"])), min_size=1, max_size=20),
    st.sampled_from([",", "\t", ";"]),
)
def test_wherever_quotes_stand_no_row_is_lost(rows: list[tuple[str, str]], delimiter: str) -> None:
    """Each line is a row, whatever its quotes: all of them are read, or one is named."""
    rows = [*rows, *[("c", "x"), ("d", "y")] * 2]
    lines = [delimiter.join(row) for row in [("text", "label"), *rows]]
    found = cells("\n".join(lines) + "\n", delimiter)
    assert [row[1] for row in found] == [label for _, label in rows]


@settings(max_examples=300)
@given(
    st.lists(st.tuples(WORDS.map("".join), st.sampled_from(["x", "y"])), min_size=1, max_size=20),
    st.sampled_from([(0, 1), (1, 0), (2, 0, 1), (2, 1, 0)]),
)
def test_wherever_labels_stand_quotes_lose_no_row(
    rows: list[tuple[str, str]], order: tuple[int, ...]
) -> None:
    rows = [*rows, *[("c", "x"), ("d", "y")] * 2]
    whole = [("text", "label", "id"), *((*row, str(n)) for n, row in enumerate(rows))]
    lines = [",".join(row[place] for place in order) for row in whole]
    with suppress(UserError):
        found = cells("\n".join(lines) + "\n")
        place = order.index(1)
        assert [row[place] for row in found] == [label for _, label in rows]


@pytest.mark.parametrize(
    "text",
    [
        'label,text\nx,a\ny,"b\nx,c"\ny,"d, e"\n',
        'id,text,label\n1,a,x\n2,"b,y\n3,c",x\n4,"d, e",y\n',
    ],
)
def test_two_rows_with_a_quotation_mark_each_are_no_single_row(text: str) -> None:
    with pytest.raises(UserError, match=r"row 2 \(line 3\): a cell runs on over 2 lines"):
        cells(text)


@pytest.mark.parametrize("header", ["id,more,text,label", '"id",""id","text","label"'])
def test_cells_that_quotation_marks_enclose_never_fall_apart(header: str) -> None:
    rows = "".join(f'"{n}","a dull, ""flat"" film",{"xy"[n % 2]}\n' for n in range(4))
    with pytest.raises(UserError, match="row 1 "):
        cells(f"{header}\n{rows}")


def test_without_labels_a_cell_of_several_lines_is_read_or_refused_and_never_split() -> None:
    with pytest.raises(UserError, match=r"row 2 \(line 3\): a cell runs on over 2 lines"):
        read_rows("x", 'text|id\n|1\n"a|\n"|2\n', "|")


def test_marks_after_a_backslash_and_doubled_marks_are_read_in_one_file() -> None:
    text = 'text,label\n"a \\"warm\\", long film",good\n"a ""dull"", long film",bad\n'
    rows = read_rows("a.csv", text, ",", label="label")
    assert rows.cells == [['a "warm", long film', "good"], ['a "dull", long film', "bad"]]


def test_a_backslash_of_a_text_is_no_escape_where_the_usual_rules_hold() -> None:
    text = 'text\tlabel\n"a\\"""\tpos\n"a""\t\n"""\tpos\n'
    with pytest.raises(UserError, match=r"row 2 .* a cell runs on over 2 lines"):
        read_rows("a.tsv", text, "\t")


def test_a_character_that_stands_for_a_carriage_return_stays_itself() -> None:
    text = "text,label\na\rb \ue000\ue002 \ue000,\ue000\n"
    assert cells(text) == [["a\rb \ue000\ue002 \ue000", "\ue000"]]


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_an_empty_cell_of_a_single_column_is_a_row(delimiter: str) -> None:
    """Blank lines between the rows are such cells, as spreadsheets write them."""
    content = '\n\ntext\n""\na film\n\n \n" "\n\n\n'
    assert cells(content, delimiter) == [[""], ["a film"], [""], [""], [" "]]
    assert read_rows("x", content, delimiter).lines == [4, 5, 6, 7, 8]
    assert cells("text,label\n\na,b\n\nc,d\n") == [["a", "b"], ["c", "d"]]
    assert cells("text\tlabel\n\t\na\tb\n", "\t") == [["", ""], ["a", "b"]]
