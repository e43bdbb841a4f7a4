"""What a call from Python is told names its arguments, in Python's own words."""

from __future__ import annotations

from pathlib import Path

import pytest

import layerfusion as lf
from layerfusion.commands.python_messages import with_arguments
from layerfusion.config.options import as_option

APOSTROPHE = "What's new?"
ARGUMENTS = {"dataset.text": "text", "dataset.label": "label", "dataset.label_columns": "columns"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("there is no column (dataset.text)", "there is no column (text=)"),
        ("as dataset.label=genre does", "as label='genre' does"),
        ("dataset.label=3: it is no name", "label=3: it is no name"),
        ("dataset.label=COLUMN.", "label='COLUMN'."),
        ("did you mean dataset.text=TEXT?", "did you mean text='TEXT'?"),
        (f"{as_option('dataset.text', APOSTROPHE)}: no", f'text="{APOSTROPHE}": no'),
        (
            as_option("dataset.label_columns", [APOSTROPHE, "b"]),
            f"""columns=["{APOSTROPHE}", 'b']""",
        ),
        ("dataset.label=true", "label=True"),
        (f"{as_option('dataset.text', 'a, (b)')}?", "text='a, (b)'?"),
        (as_option("dataset.text", 'a "b"'), """text='a "b"'"""),
        (f"{as_option('dataset.text', 'a b')} dataset.label=c", "text='a b', label='c'"),
        (as_option("dataset.label_columns", ["a", "b c"]), "columns=['a', 'b c']"),
        (
            "dataset.encoding=cp1252, my.dataset.text=a",
            "dataset.encoding=cp1252, my.dataset.text=a",
        ),
    ],
)
def test_keys_become_arguments(said: str, expected: str):
    assert with_arguments(said, ARGUMENTS) == expected


def test_what_a_file_lacks_is_told_in_arguments_of_load_dataset(tmp_path: Path):
    path = tmp_path / "reviews.csv"
    rows = "".join(f"{'good' if n % 2 else 'bad'},text {n}\n" for n in range(20))
    path.write_text(f"rating,The review\n{rows}")
    with pytest.raises(lf.UserError, match=r"did you mean text='The review', label='rating'\?"):
        lf.load_dataset(path)
    with pytest.raises(lf.UserError, match=r"test_size=2\.0: it must lie in"):
        lf.load_dataset(path, text="The review", label="rating", test_size=2.0)
    found = lf.load_dataset(path, text="The review", label="rating")
    assert found.label_names == ("bad", "good")
