"""Every reader on nasty tables and on damaged files: all rows, or one line that refuses them."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfusion.config.job import DatasetConfig, LimitConfig
from layerfusion.config.registry import BINARY
from layerfusion.errors import UserError
from layerfusion.texts import TextDataset
from tests.fuzz.fuzzing import attempt, changed_json, examples, mutations
from tests.fuzz.tables import (
    DELIMITED,
    TYPED,
    Form,
    Made,
    fasttext,
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
    for suffix in (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow", ".txt"):
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
        if form.suffix in BINARY:  # its cells may change unseen, as it has no checksum
            assert form.suffix != ".parquet" or sum(found.values()) == len(made.rows)
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


def test_a_saved_data_set_comes_back_whole(folder: Path, counts: Counter[str]) -> None:
    @examples(10, share=0.1)
    @given(made_tables(), st.integers(1, 2), st.booleans(), st.booleans())
    def run(made: Made, shards: int, apart: bool, shuffled: bool) -> None:
        names = list(dict.fromkeys(made.names))
        part = datasets.Dataset(
            pa.table({name: made.column(name) for name in names}),
        )
        order = list(range(len(made.rows)))[:: -1 if shuffled else 1]
        part = part.select(order) if shuffled else part
        place = Path(tempfile.mkdtemp(dir=folder))
        for split in SPLITS if apart else SPLITS[:1]:
            part.save_to_disk(str(place / (split if apart else "")), num_shards=shards)
        settings = {"text": made.text, "label": made.label}
        dataset = attempt(counts, lambda: read({"path": place}, **settings))
        if isinstance(dataset, UserError):
            assert made.reasons or (not apart and len(made.rows) < 40), str(dataset)
            return
        wanted = [made.pairs[row] for row in order]
        if apart:
            assert_same(pairs(dataset, "train"), wanted)
        assert sum(len(rows) for rows in dataset.splits.values()) == len(wanted) * (
            3 if apart else 1
        )

    run()


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00001-of-00002.arrow"])
def test_a_damaged_saved_data_set_is_refused_or_read(
    name: str, folder: Path, counts: Counter[str]
) -> None:
    rows = [{"text": f"a film {n}", "label": ("pos", "neg")[n % 2], "n": n} for n in range(40)]
    place = folder / "saved"
    saved = datasets.Dataset.from_list(rows).class_encode_column("label")
    saved.shuffle(seed=0).save_to_disk(str(place), num_shards=2)
    content = (place / name).read_bytes()

    @examples(15, share=0.3)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        whole_json = name.endswith(".json") and data.draw(st.booleans())
        changed = (
            json.dumps(data.draw(changed_json(json.loads(content)))).encode()
            if whole_json
            else data.draw(mutations(content, (b"\xff" * 4, b"\0" * 8, b"[" * 100_000))).content
        )
        (place / name).write_bytes(changed)
        attempt(counts, lambda: read({"path": place}))

    run()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_lines_of_fasttext_come_back_whole(
    packed: bool, folder: Path, counts: Counter[str]
) -> None:
    word = st.text(st.characters(exclude_categories=["Cs", "Z", "C"]), min_size=1, max_size=8)
    label = st.text("abé漢_-.:", min_size=1, max_size=5)
    line = st.tuples(st.lists(word, min_size=1, max_size=5).map(" ".join), label)

    @examples(15, share=0.3)
    @given(st.lists(line, min_size=2, max_size=8))
    def run(rows: list[tuple[str, str]]) -> None:
        made = Made(("text", "label"), tuple(rows), "text", "label")
        path = write_file(folder, "rows", Form("fasttext", ".txt", fasttext), made, packed=packed)
        dataset = attempt(counts, lambda: read(dict.fromkeys(SPLITS, path)))
        if isinstance(dataset, UserError):
            assert made.reasons, str(dataset)
            return
        assert_same(pairs(dataset, "train"), made.pairs)

    run()


def test_files_of_classes_come_back_whole(folder: Path, counts: Counter[str]) -> None:
    line = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), max_size=20)

    @examples(15, share=0.3)
    @given(st.lists(line, min_size=1), st.lists(line, min_size=1), st.booleans(), st.booleans())
    def run(bad: list[str], good: list[str], apart: bool, ended: bool) -> None:
        place = Path(tempfile.mkdtemp(dir=folder))
        wanted = {}
        for label, lines in (("bad", bad), ("good", good)):
            lines = [*(f"{label} film {n}" for n in range(12)), *lines]
            wanted[label] = [text.strip() for text in lines if text.strip()]
            for split in SPLITS if apart else ("",):
                (place / split).mkdir(exist_ok=True)
                content = "\n".join(lines) + ("\n" if ended else "")
                (place / split / f"{label}.txt").write_bytes(content.encode())
        dataset = attempt(counts, lambda: read({"path": place}))
        assert not isinstance(dataset, UserError), str(dataset)
        found = Counter(pair for split in SPLITS for pair in pairs(dataset, split))
        times = 3 if apart else 1
        for label, texts in wanted.items():
            assert Counter(texts) == Counter(
                {text: n // times for (text, name), n in found.items() if name == label}
            )

    run()


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
