"""Values of the wrong type are refused in plain words, with the key, in a line or a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.errors import UserError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds=null", "seeds: null is no value for it; without the key it has its default"),
        ("long_texts=null", "long_texts: null is no value for it"),
        ("time_limit=soon", "time_limit: a number is needed, found 'soon'"),
        ("layers.folds=1.5", "layers.folds: a whole number is needed, found '1.5'"),
        ("dataset.multilabel=maybe", "dataset.multilabel: true or false is needed, found 'maybe'"),
        ("dataset.text={a: 1}", "dataset.text: one string is needed, found"),
        ("layers.strengths=0.1", "layers.strengths: a list is needed, in square brackets"),
        ("layers.budget=small", "layers.budget: it has keys of its own, and no value"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_plain_words(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        compose("train", ["dataset=mr", override])
    line = str(caught.value)
    assert line.startswith(message)
    assert "\n" not in line
    assert "Optional" not in line
    assert "Error merging" not in line


def test_so_is_one_in_a_file_of_settings(tmp_path: Path) -> None:
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "mine.yaml").write_text("max_epochs: many\n")
    with pytest.raises(UserError, match=r"max_epochs: a whole number is needed, found 'many'"):
        load(compose("train", ["--config-dir", str(tmp_path), "dataset=mr", "trainer=mine"]))
