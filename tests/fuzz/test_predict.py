"""`predict` on nasty tables: every row and every column comes out again, or one line refuses."""

from __future__ import annotations

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfusion.cli import main
from layerfusion.errors import UserError
from layerfusion.runs import bundle_loading
from layerfusion.runs.naming import labels_of
from layerfusion.texts import streaming as parts
from layerfusion.texts.form import distinct_names
from tests.fuzz.fuzzing import STRANGE, attempt, examples, mutations
from tests.fuzz.tables import DELIMITED, TYPED, Form, Made, made_tables, multi_line, write_file

OUTPUTS = (".csv", ".tsv", ".jsonl", ".parquet")


class Constant:
    """A classifier that gives every text the same probabilities."""

    label_names = ("neg", "pos")
    folder = None
    multilabel = False
    unasked = ()
    config = SimpleNamespace(dataset=SimpleNamespace(text="text", reader=None))

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        assert all(text.strip() for text in texts)
        return np.tile(np.array([[0.25, 0.75]], np.float32), (len(texts), 1))

    def labels_of(self, probabilities: np.ndarray) -> list[str] | list[list[str]]:
        return labels_of(probabilities, self.label_names, multilabel=False)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(bundle_loading, "load_bundle", lambda *_args, **_options: Constant())
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def predict(path: Path, out: Path, text: str, encoding: str = "utf-8") -> None:
    """Run the command; its one line becomes the error that it was."""
    from layerfusion.commands.predict import main as command

    out.unlink(missing_ok=True)
    command(["job", str(path), "-o", str(out), "--text", text, "--encoding", encoding])


def columns_of(path: Path, delimiter: str = ",") -> dict[str, list[Any]]:
    """Read an output with another reader than LayerFusion's.

    Args:
        path: the output.
        delimiter: that of the input, which a csv has too; one from a file of tabs has commas.
    """
    if path.suffix == ".parquet":
        table = pyarrow.parquet.read_table(path)
        return {name: table.column(name).to_pylist() for name in table.column_names}
    if path.suffix == ".jsonl":
        records = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        return {name: [record[name] for record in records] for name in records[0]}
    with path.open(encoding="utf-8", newline="") as file:
        between = "," if delimiter == "\t" else delimiter
        names, *rows = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else between)
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


@pytest.mark.parametrize("forms", [DELIMITED, TYPED], ids=["delimited", "typed"])
def test_every_row_and_column_comes_out(
    forms: tuple[Form, ...], folder: Path, counts: Counter[str]
) -> None:
    @examples(25, share=0.5)
    @given(made_tables(), st.sampled_from(forms), st.sampled_from(OUTPUTS))
    def run(made: Made, form: Form, suffix: str) -> None:
        path, out = write_file(folder, "in", form, made), folder / f"out{suffix}"
        done = attempt(counts, lambda: predict(path, out, made.text, form.encoding))
        if isinstance(done, UserError):
            assert forms is DELIMITED, str(done)
            assert multi_line(made), str(done)
            return
        found = columns_of(out, form.delimiter)
        by_key = form.suffix in (".json", ".jsonl", ".ndjson")  # an object has a key once
        names = list(dict.fromkeys(made.names)) if by_key else made.names
        for place, name in enumerate(distinct_names(names)):
            where = place if names is made.names else last(made.names, name)
            assert found[name] == [row[where] for row in made.rows], name
        new = "label" if "label" not in names else "predicted_label"
        kept = [bool(text.strip()) for text in made.column(made.text)]
        assert [label or None for label in found[new]] == ["pos" if k else None for k in kept]

    run()


@pytest.mark.parametrize("forms", [DELIMITED, TYPED], ids=["delimited", "typed"])
def test_parts_are_read_as_a_whole_file_is(
    forms: tuple[Form, ...], folder: Path, counts: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or they are refused, where a whole file is read by more rules."""

    @examples(25, share=0.5)
    @given(made_tables(), st.sampled_from(forms))
    def run(made: Made, form: Form) -> None:
        path, out = write_file(folder, "in", form, made), folder / "out.jsonl"
        found: list[bytes] = []
        for size in (1 << 20, 0):
            monkeypatch.setattr(parts, "WHOLE", size)
            done = attempt(counts, lambda: predict(path, out, made.text, form.encoding))
            found.append(b"refused" if isinstance(done, UserError) else out.read_bytes())
            for left in folder.glob("*.partial*"):
                left.unlink()
        whole, read = found
        assert read == whole or (forms is DELIMITED and read == b"refused")

    run()


def last(names: Sequence[str], name: str) -> int:
    return len(names) - 1 - names[::-1].index(name)


def test_values_of_any_kind_come_out_as_they_were(folder: Path, counts: Counter[str]) -> None:
    @examples(25, share=0.5)
    @given(st.lists(STRANGE, min_size=1, max_size=4), st.sampled_from(OUTPUTS))
    def run(values: list[Any], suffix: str) -> None:
        path, out = folder / "in.jsonl", folder / f"out{suffix}"
        lines = [json.dumps({"text": "a film", "value": value}) for value in values]
        path.write_text("\n".join(lines))
        done = attempt(counts, lambda: predict(path, out, "text"))
        if isinstance(done, UserError):
            assert suffix == ".parquet", str(done)  # where a column has one type
            return
        found = columns_of(out)["value"]
        assert len(found) == len(values)
        if suffix == ".jsonl":
            whole = [json.dumps(value).replace("\\ud800", "\\ufffd") for value in values]
            whole = ["null" if value == "NaN" else value for value in whole]  # JSON has no NaN
            assert [json.dumps(value) for value in found] == whole

    run()


def test_a_damaged_input_is_refused_or_read(folder: Path, counts: Counter[str]) -> None:
    rows = tuple((f"a film {n}", str(n)) for n in range(4))
    made = Made(("text", "id"), rows, "text", "id")

    @examples(25, share=0.5)
    @given(st.data(), st.sampled_from((*DELIMITED, *TYPED)), st.sampled_from(OUTPUTS))
    def run(data: st.DataObject, form: Form, suffix: str) -> None:
        mutated = data.draw(mutations(form.write(made), (b'"', b"\n", b"\0", b"\xff", b"\\ud800")))
        path = folder / f"in{form.suffix}"
        path.write_bytes(mutated.content)
        attempt(counts, lambda: predict(path, folder / f"out{suffix}", "text", form.encoding))

    run()


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_a_text_of_lines_has_a_row_for_each(
    suffix: str, folder: Path, counts: Counter[str]
) -> None:
    @examples(15, share=0.5)
    @given(st.lists(st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]))))
    def run(lines: list[str]) -> None:
        import gzip

        content = "".join(f"{line}\n" for line in ["first", *lines]).encode()
        path, out = folder / f"in{suffix}", folder / "out.jsonl"
        path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
        done = attempt(counts, lambda: predict(path, out, "text"))
        assert not isinstance(done, UserError), str(done)
        found = columns_of(out)["text"]
        assert found == ["first", *(line.removesuffix("\r") for line in lines)]

    run()


def test_the_command_ends_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "in.csv").write_text('text,id\n"a, film,1\n')
    assert main(["predict", "job", str(folder / "in.csv")]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_whole_numbers_with_a_gap_stay_whole(suffix: str, folder: Path) -> None:
    numbers = [2**53 + 1, None, 3]
    lines = [json.dumps({"text": "a film", "id": number}) for number in numbers]
    (folder / "in.jsonl").write_text("\n".join(lines))
    predict(folder / "in.jsonl", folder / f"out{suffix}", "text")
    found = columns_of(folder / f"out{suffix}")["id"]
    assert [str(number or "") for number in found] == [str(number or "") for number in numbers]
