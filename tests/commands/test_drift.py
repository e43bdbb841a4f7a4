"""`layerfusion drift`: new texts beside those that a classifier was judged on."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layerfusion.assets.memo import CHECKSUM, seal
from layerfusion.cli import main
from layerfusion.errors import UserError
from layerfusion.runs.bundle_files import DESCRIPTION
from layerfusion.runs.bundle_loading import load_bundle
from layerfusion.runs.familiar import Familiar, ReadTexts, compared
from tests.tiny import run


@pytest.fixture
def job(folder: Path) -> Path:
    return folder / "stacked"


def verdicts(said: str) -> dict[str, str]:
    found = pd.read_csv(io.StringIO(said))
    return dict(zip(found["what"], found["verdict"], strict=True))


def test_the_rows_of_test_are_like_themselves(
    job: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drift", str(job), f"{folder}/test.csv", "--csv"]) == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert set(found["verdict"]) == {"alike"}
    indices = dict(zip(found["what"], found["index"].tolist(), strict=True))
    # What half precision on disk rounds may move a text to the next range.
    assert max(indices["confidence"], indices["answers"]) < 0.02
    assert main(["drift", str(job), f"{folder}/test.csv"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("30 texts beside ")
    assert "Nothing shows that these texts are of another kind." in said


def test_texts_of_another_kind_are_told(
    job: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = pd.read_csv(folder / "test.csv")
    # Letters that the tokenizer lacks, and too many of them.
    texts["text"] = ["\U00010600 " * (600 + n) for n in range(len(texts))]
    texts.to_csv(tmp_path / "odd.csv", index=False)
    assert main(["drift", str(job), f"{tmp_path}/odd.csv", "--csv"]) == 0
    found = verdicts(capsys.readouterr().out)
    assert found["answers"] == "unlike"
    assert found["share of tokens unknown to bert"] == "unlike"
    assert found["share of tokens unknown to llama"] == "alike"  # it knows every byte
    assert found["texts that llama cuts off"] == "unlike"
    assert main(["drift", str(job), f"{tmp_path}/odd.csv"]) == 0
    assert "the accuracy on test rows need not hold for them" in capsys.readouterr().out


def test_python_gives_the_same_table(
    job: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = pd.read_csv(folder / "test.csv")["text"].tolist()
    assert main(["drift", str(job), f"{folder}/test.csv", "--csv"]) == 0
    found = load_bundle(job, device="cpu").drift(texts)
    assert found.to_csv(index=False) == capsys.readouterr().out


def test_several_labels_are_counted_by_their_number() -> None:
    before = Familiar.of(np.tile([[0.9, 0.2], [0.8, 0.7]], (50, 1)), multilabel=True, text_of=None)
    before.models["bert"] = ReadTexts(100, 0, [90, 10, 0, 0, 0])
    now = Familiar.of(np.tile([[0.1, 0.2]], (40, 1)), multilabel=True, text_of=None)
    now.models["bert"] = ReadTexts(40, 30, [36, 4, 0, 0, 0])
    kept = Familiar.from_facts(json.loads(json.dumps(before.facts())), 2, multilabel=True)
    found = compared(kept, now, ("drama", "war"), multilabel=True).set_index("what")
    assert found.loc["labels of a text", ["where", "before", "now"]].tolist() == ["0", 0, 1]
    verdict = found["verdict"].to_dict()
    assert verdict["texts that bert cuts off"] == "unlike"
    assert verdict["share of tokens unknown to bert"] == "alike"


def test_tokens_that_an_old_cache_has_not_counted_are_not_compared() -> None:
    before = Familiar.of(np.tile([[0.9, 0.1]], (50, 1)), multilabel=False, text_of=None)
    now = Familiar.of(np.tile([[0.9, 0.1]], (50, 1)), multilabel=False, text_of=None)
    before.models["bert"] = ReadTexts(50, 0, [0] * 5)
    now.models["bert"] = ReadTexts(50, 0, [0, 0, 0, 0, 50])
    found = compared(before, now, ("neg", "pos"), multilabel=False)
    assert found["what"].tolist() == ["confidence", "answers", "texts that bert cuts off"]
    empty = Familiar.of(np.empty((0, 2)), multilabel=False, text_of=None)
    with pytest.raises(UserError, match="there is no text to compare"):
        compared(before, empty, ("neg", "pos"), multilabel=False)


def test_mistakes_are_one_line(
    job: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.csv").write_text('text\n""\n')
    for name, line in (("absent.csv", "there is no such file"), ("empty.csv", "it has no text")):
        code, said = run(["drift", str(job), f"{tmp_path}/{name}"], capsys)
        assert code == 2
        assert line in said.splitlines()[-1]
    old = shutil.copytree(job / "bundle", tmp_path / "old")
    about = json.loads((old / DESCRIPTION).read_text())
    del about[CHECKSUM]
    counts = about["facts"].pop("familiar")
    models = {name: {**one, "unknown": [1]} for name, one in counts["models"].items()}
    for kept, line in (
        ({}, "it has no counts of the texts that it was judged on"),
        ({"familiar": {**counts, "models": models}}, "the classifier is damaged"),
        ({"familiar": {**counts, "answers": "many"}}, "the classifier is damaged"),
        ({"familiar": {**counts, "answers": [1, 2, 3]}}, "its counts have other ranges"),
    ):
        facts = {**about["facts"], **kept}
        (old / DESCRIPTION).write_text(json.dumps(seal({**about, "facts": facts})))
        code, said = run(["drift", str(old), f"{folder}/test.csv"], capsys)
        assert code == 2
        assert line in said.splitlines()[-1]
