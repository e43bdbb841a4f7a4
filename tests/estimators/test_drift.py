"""`LayerFusionClassifier.drift`: new texts beside those that the classifier learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import layerfusion as lf
from layerfusion.assets.memo import CHECKSUM, seal
from layerfusion.cli import main
from layerfusion.errors import UserError
from layerfusion.runs.bundle_files import DESCRIPTION

STACKED = {"fusion": "stacked", "layers": "last"}
ODD = ["\U00010600 " * (600 + n) for n in range(40)]
"""Letters that the tokenizer lacks, and too many of them."""


def verdicts(found: pd.DataFrame) -> dict[str, str]:
    return dict(zip(found["what"], found["verdict"], strict=True))


@pytest.mark.parametrize(
    "params",
    [
        {"fusion": "auto"},
        {**STACKED, "objective": "macro_f1", "class_weight": "balanced"},
        {"fusion": "late_stack", "layers": "all"},
        {"fusion": "gated", "layers": "all"},
    ],
    ids=lambda params: params["fusion"],
)
def test_texts_of_another_kind_are_told_from_those_of_the_same(
    params: dict[str, Any], make: Any, rows: pd.DataFrame
) -> None:
    fitted = make(**params, seeds=2).fit(rows.text, rows.label)
    held_out = fitted._bundle.facts["familiar"]
    validated = params["fusion"] == "gated"
    assert held_out["rows"] == "held-out"
    assert held_out["texts"] == (4 if validated else len(rows))
    own = fitted.drift(rows.text)
    assert {*own["what"]} >= {"confidence", "answers", "texts that tiny cuts off"}
    assert {*own[~own["what"].isin(["confidence", "answers"])]["verdict"]} == {"alike"}
    found = verdicts(fitted.drift(ODD))
    assert found["texts that tiny cuts off"] == "unlike"
    assert found["share of tokens unknown to tiny"] == "unlike"


def test_held_out_answers_are_those_of_the_whole_classifier(make: Any, topics: Any) -> None:
    """A label that no row has is in no answer, and one that all have is in each."""
    texts, labels = topics
    constant = labels.assign(never=0, always=1)
    with pytest.warns(UserWarning, match="row has the label"):
        fitted = make(**STACKED, seeds=2).fit(texts, constant)
    numbers = fitted._bundle.facts["familiar"]["answers"]
    assert numbers[0] == 0
    assert sum(numbers) == len(texts)
    assert numbers[5] == 0
    assert "labels of a text" in verdicts(fitted.drift(texts))


def test_a_saved_classifier_has_the_same_counts(
    make: Any,
    rows: pd.DataFrame,
    new: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fitted = make(**STACKED).fit(rows.text, rows.label)
    found = fitted.drift(pd.Series(new))
    saved = fitted.save(tmp_path / "saved")
    pd.testing.assert_frame_equal(lf.LayerFusionClassifier.load(saved).drift(new), found)
    pd.testing.assert_frame_equal(lf.load(saved).drift(new), found)
    (tmp_path / "new.txt").write_text("\n".join(new))
    assert main(["drift", str(saved), f"{tmp_path}/new.txt"]) == 0
    said = capsys.readouterr().out
    assert f"answers beside those to {len(rows)} held-out texts" in said
    for texts, line in (([], "found 0 texts"), ([""], "text 1 of 1 is ''"), ("one", "list")):
        with pytest.raises(UserError, match=line):
            fitted.drift(texts)
    about = json.loads((saved / DESCRIPTION).read_text())
    del about[CHECKSUM], about["facts"]["familiar"]
    (saved / DESCRIPTION).write_text(json.dumps(seal(about)))
    old = lf.LayerFusionClassifier.load(saved)
    assert np.allclose(old.predict_proba(new), fitted.predict_proba(new), atol=1e-6)
    with pytest.raises(UserError, match="it has no counts of the texts that it was judged on"):
        old.drift(new)
