"""Every reader on nasty tables and on damaged files: all rows, or one line that refuses them."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfusion.config.job import DatasetConfig, LimitConfig
from layerfusion.errors import UserError
from layerfusion.texts import TextDataset
from tests.fuzz.fuzzing import attempt, examples, mutations
from tests.fuzz.tables import (
    DELIMITED,
    TYPED,
    Form,
    Made,
    is_number,
    made_tables,
    multi_line,
    parquet,
    same_label,
    write_file,
)

WORDS = ("dull", "warm", "flat", "fine", "long", "grim", "rich", "odd")
SPLITS = ("train", "validation", "test")


def read(files: dict[str, Path], **settings: object) -> TextDataset:
    from layerfusion.texts import load_dataset as load

    config = DatasetConfig("fuzzed", **{k: str(v) for k, v in files.items()}, **settings)  # type: ignore[arg-type]
    return load(config, LimitConfig(), seed=0, cache=next(iter(files.values())).parent)


def pairs(dataset: TextDataset, split: str) -> list[tuple[str, str]]:
    rows = dataset.splits[split]
    return [(t, dataset.label_names[k]) for t, k in zip(rows.texts, rows.labels, strict=True)]


def whole(text: str) -> str:
    """A text as it is stated to come back: stripped, its half characters replaced."""
    return "".join("\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in text).strip()


def assert_same(found: list[tuple[str, str]], wanted: list[tuple[str, str]]) -> None:
    assert len(found) == len(wanted), f"{len(found)} rows of {len(wanted)}"
    for (text, name), (made, label) in zip(found, wanted, strict=True):
        assert text == whole(made)
        assert same_label(name, whole(label)), f"{label!r} was read as {name!r}"


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


@pytest.mark.parametrize("forms", [DELIMITED, TYPED], ids=["delimited", "typed"])
def test_a_table_comes_back_whole_or_is_refused(
    forms: tuple[Form, ...], folder: Path, counts: Counter[str]
) -> None:
    @examples(50)
    @given(made_tables(), st.sampled_from(forms), st.booleans())
    def run(made: Made, form: Form, packed: bool) -> None:
        path = write_file(folder, "rows", form, made, packed=packed)
        dataset = attempt(
            counts,
            lambda: read(
                dict.fromkeys(SPLITS, path),
                text=made.text,
                label=made.label,
                encoding=form.encoding,
            ),
        )
        if isinstance(dataset, UserError):
            assert made.reasons or (forms is DELIMITED and multi_line(made)), str(dataset)
            return
        assert made.reasons in ([], ["one class"])  # typed strings are classes as they stand
        for split in SPLITS:
            assert_same(pairs(dataset, split), made.pairs)

    run()


@pytest.mark.parametrize("forms", [DELIMITED, TYPED], ids=["delimited", "typed"])
def test_a_damaged_file_loses_no_row_that_the_damage_left(
    forms: tuple[Form, ...], folder: Path, counts: Counter[str]
) -> None:
    """Rows in front of the damage and behind it come back, or the file is refused."""
    made = Made(
        ("id", "text", "label", "note"),
        tuple(
            (str(n), f'a {word} film, "said" visitor {n}', ("pos", "neg")[n % 2], "x" * (n % 3))
            for n, word in enumerate(WORDS)
        ),
        "text",
        "label",
    )
    pieces = (b'"', b"\n", b",", b'"\n', b'",', b'""', b"\r", b"\0", b"\xff", b"{", b"}", b"[",
              b"\\", b'{"text": "a"}', b"\xef\xbb\xbf", b"\xff\xfe", b"1" * 5000,
              b"NaN", b"-Infinity", b"[" * 100_000, b"null", b"1e999")  # fmt: skip
    for suffix in (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt"):  # before any damage
        for form in forms:
            if form.suffix == suffix:
                path = write_file(folder, "whole", form, made)
                whole_file = read({"train": path, "test": path}, encoding=form.encoding)
                assert_same(pairs(whole_file, "test"), made.pairs)

    @examples(50)
    @given(st.data(), st.sampled_from(forms))
    def run(data: st.DataObject, form: Form) -> None:
        content = form.write(made)
        mutated = data.draw(mutations(content, pieces))
        path = folder / f"rows{form.suffix}"
        path.write_bytes(mutated.content)
        dataset = attempt(
            counts, lambda: read({"train": path, "test": path}, encoding=form.encoding)
        )
        if isinstance(dataset, UserError):
            return
        found = Counter(pairs(dataset, "test"))
        if form.suffix == ".parquet":  # its cells may change unseen, as it has no checksum
            assert sum(found.values()) == len(made.rows)
            return
        front = content[: mutated.before].decode(form.encoding, "ignore")
        back = content[len(content) - mutated.after :].decode(form.encoding, "ignore")
        for text, label in made.pairs:
            word = text.split()[-1]
            ends = ("\n", "\n") if forms is DELIMITED else ("{", "}")
            alone = any(_holds_row(part, text, word, ends) for part in (front, back))
            assert not alone or found[text, label], f"row {word} is gone"

    run()


def _holds_row(part: str, text: str, word: str, ends: tuple[str, str]) -> bool:
    """Tell whether a piece of a file has a row whole, with what ends the row before and its own."""
    start = part.find("a " + text.split()[1] + " film")
    end = part.find(f"visitor {word}")
    return start >= 0 and ends[0] in part[:start] and end >= 0 and ends[1] in part[end:]


NUMBERS = (("1", "2", "10"), ("-1", "0", "1"), ("0.5", "1.5"), ("1.0", "2.0"), ("0", "1"))
NAMES = (("bad", "good"), ("no", "yes"), ("None", "nan"), ("01", "02"), ("True", "False"))


@st.composite
def split_tables(draw: st.DrawFn) -> dict[str, Made]:
    """Tables of three splits with the same classes, which each may write in its own way."""
    known = draw(st.sampled_from((*NUMBERS, *NAMES)))
    tables = {}
    for split in SPLITS:
        order = draw(st.permutations(known))
        labels = [*order, *draw(st.lists(st.sampled_from(known), max_size=4))]
        spaced = draw(st.sampled_from(("{}", " {} ")))
        rows = tuple((f"{split} {n}", spaced.format(label)) for n, label in enumerate(labels))
        tables[split] = Made(("text", "label"), rows, "text", "label")
    return tables


def as_numbers(made: Made) -> bytes:
    """Write whole numbers as JSON's numbers, and all else as strings."""
    written = []
    for text, label in made.rows:
        number = is_number(label.strip())
        value = json.loads(label) if number else label
        written.append(json.dumps({"label": value, "text": text}))
    return "\n".join(written).encode()


def as_classes(made: Made) -> bytes:
    """Write indices of classes that the file names itself, in the order in which they occur."""
    names = list(dict.fromkeys(label.strip() for _, label in made.rows))
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    table = pa.table(
        {
            "text": made.column("text"),
            "label": [names.index(label.strip()) for label in made.column("label")],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return parquet(table)


OWN_WAYS = (
    Form("numbers", ".jsonl", as_numbers),
    Form("class label", ".parquet", as_classes),
)


def test_splits_of_different_formats_have_their_classes_matched_by_name(
    folder: Path, counts: Counter[str]
) -> None:
    simple = (*DELIMITED[:2], *TYPED[:1], *TYPED[-2:], *OWN_WAYS)

    @examples(25)
    @given(split_tables(), st.lists(st.sampled_from(simple), min_size=3, max_size=3), st.booleans())
    def run(tables: dict[str, Made], forms: list[Form], packed: bool) -> None:
        files = {
            split: write_file(folder, split, form, tables[split], packed=packed)
            for split, form in zip(SPLITS, forms, strict=True)
        }
        dataset = attempt(counts, lambda: read(files))
        known = {label.strip() for _, label in tables["train"].pairs}
        if isinstance(dataset, UserError):
            # Indices with names in one file and bare numbers in another may mean anything, and so
            # may numbers that one format holds as strings and another as numbers.
            assert any(form in OWN_WAYS for form in forms), str(dataset)
            assert all(map(is_number, known)) or known == {"True", "False"}, str(dataset)
            return
        assert len(dataset.label_names) == len(known)
        for split in SPLITS:
            assert_same(pairs(dataset, split), tables[split].pairs)

    run()
