"""Predictions of a classifier that names any number of labels."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layerfusion import LayerFusionClassifier
from layerfusion.cli import main
from layerfusion.fusion.head_files import StackHead
from layerfusion.runs.bundle import Bundle
from layerfusion.runs.bundle_loading import load_bundle
from tests.commands.conftest import told
from tests.tiny import TOPICS, tiny_topics

NONE_NAMED = "oil oil oil"


@pytest.fixture(scope="module")
def topics(folder: Path) -> Path:
    """A stack of layers and words, which names any number of labels."""
    texts, labels = tiny_topics(60)
    classifier = LayerFusionClassifier(
        [str(folder / "bert"), str(folder / "llama")],
        layers="last", lexical="words", fusion="stacked", seeds=1, cache=str(folder / "cache"),
    )  # fmt: skip
    return classifier.fit([*texts, NONE_NAMED], [*map(tuple, _named(labels)), ()]).save(
        folder / "topics"
    )


def _named(labels: pd.DataFrame) -> list[list[str]]:
    """The names of the labels, in the order of those that a classifier sorts."""
    names = sorted(labels.columns)
    rows = labels[names].to_numpy(bool)
    return [[name for name, has in zip(names, row, strict=True) if has] for row in rows]


def test_labels_of_a_text_are_named_by_an_indicator_matrix_and_in_lists(topics: Path) -> None:
    bundle = load_bundle(topics, device="cpu")
    texts, labels = tiny_topics(60)
    assert bundle.multilabel
    assert bundle.classes_.tolist() == sorted(TOPICS)
    said = bundle.predict(texts)
    assert (said.dtype, said.shape) == (np.int64, (60, 3))
    np.testing.assert_array_equal(said, labels[sorted(TOPICS)])  # some have none, and some all
    probabilities = bundle.predict_proba(texts)
    assert np.abs(probabilities.sum(axis=1) - 1).max() > 0.5
    assert bundle.labels_of(probabilities) == _named(labels)
    explained = bundle.explain(texts[:5])
    np.testing.assert_allclose(explained.probabilities, probabilities[:5], atol=1e-6)
    assert explained.alone.shape == (5, 3, 3)
    assert bundle.predict([]).shape == (0, 3)
    assert repr(bundle).endswith("; labels bank, film, trade)")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_labels_are_joined_in_a_cell_and_listed_elsewhere(
    suffix: str, topics: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, labels = tiny_topics(60)
    both = next(row for row, names in enumerate(_named(labels)) if len(names) == 2)
    given, out = tmp_path / "given.csv", tmp_path / f"out{suffix}"
    pd.DataFrame({"text": [texts[both], "", NONE_NAMED], "n": [1, 2, 3]}).to_csv(given, index=False)
    assert main(["predict", str(topics), str(given), "--gates", "-o", str(out)]) == 0
    assert "note: 1 empty text is not classified" in capsys.readouterr().err
    if suffix in (".csv", ".tsv"):
        found = pd.read_csv(out, sep="," if suffix == ".csv" else "\t", keep_default_na=False)
        wanted = [";".join(_named(labels)[both]), "", ""]
    else:
        found = pd.read_json(out, lines=True) if suffix == ".jsonl" else pd.read_parquet(out)
        wanted = [_named(labels)[both], None, []]
    # In a cell, no label and no text look alike, but for the probabilities beside it.
    assert [str(p) in ("", "nan", "None") for p in found["p(film)"]] == [False, True, False]
    for column in ("label", "alone(words:0:tfidf)"):
        cells = [list(x) if isinstance(x, np.ndarray) else x for x in found[column]]
        assert cells == wanted
    sources = [str(layer) for layer in load_bundle(topics).layers]
    assert found.columns.tolist() == [
        "text", "n", "label", "p(bank)", "p(film)", "p(trade)",
        *(f"gate({source})" for source in sources), *(f"alone({source})" for source in sources),
    ]  # fmt: skip
    assert [int(n) for n in found["n"]] == [1, 2, 3]


@pytest.mark.parametrize("name", ["film;tv", "[film", " film"])
def test_a_cell_of_labels_is_read_in_one_way_only(
    name: str, topics: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = load_bundle(topics, device="cpu")
    names = tuple(name if one == "film" else one for one in bundle.label_names)
    replace(bundle, folder=None, label_names=names).save(tmp_path / "other")
    texts, labels = tiny_topics(60)
    given = tmp_path / "given.jsonl"
    given.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "other"), str(given)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    said = [[("film" if one == name else one) for one in json.loads(row["label"])] for row in rows]
    assert said == _named(labels)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_parts_without_a_label_and_a_run_that_goes_on_give_the_same_file(
    suffix: str, topics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of 2 rows: one where no text has a label, and one where none is classified."""
    texts, labels = tiny_topics(60)
    given, out = tmp_path / "given.csv", tmp_path / f"out{suffix}"
    rows = ["", "", NONE_NAMED, NONE_NAMED, *texts[:4]]
    pd.DataFrame({"text": rows, "n": range(8)}).to_csv(given, index=False)
    monkeypatch.setattr("layerfusion.texts.streaming.ROWS", 2)
    monkeypatch.setattr("layerfusion.texts.streaming.WHOLE", 1)
    command = ["predict", str(topics), str(given), "-o", str(out)]
    assert main(command) == 0
    whole = out.read_bytes()
    found = {
        ".csv": lambda: pd.read_csv(out, keep_default_na=False)["label"].tolist(),
        ".parquet": lambda: [x if x is None else list(x) for x in pd.read_parquet(out)["label"]],
        ".jsonl": lambda: [json.loads(line)["label"] for line in out.read_text().splitlines()],
    }[suffix]()
    some = [None, None, [], [], *_named(labels)[:4]]
    assert found == ([";".join(x or []) for x in some] if suffix == ".csv" else some)
    out.unlink()

    probabilities, calls = Bundle.probabilities, []

    def stops(self: Bundle, texts: list[str]) -> np.ndarray:
        calls.append(texts)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return probabilities(self, texts)

    with monkeypatch.context() as patch:
        patch.setattr(Bundle, "probabilities", stops)
        assert main(command) == 130
    assert main(command) == 0
    assert out.read_bytes() == whole


def test_heads_that_differ_in_what_they_say_of_a_text_are_refused(
    topics: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"{tmp_path}/taken", f"{folder}/test.csv"]
    for part, said in (
        ("head", "some of its heads give a text one class, and others several labels"),
        ("regression", "words and the heads differ in whether a text has several labels"),
    ):
        bundle = load_bundle(topics, device="cpu")
        head = bundle.heads[0]
        assert isinstance(head, StackHead)
        stack = replace(head.stack, pool=replace(head.stack.pool, multilabel=False))
        other = replace(head, stack=stack)
        heads = (head, other) if part == "head" else (other,)
        replace(bundle, folder=None, heads=heads).save(tmp_path / "taken")
        told_ = told(given, capsys)
        assert said in told_
        assert "the classifier is damaged" in told_
        shutil.rmtree(tmp_path / "taken")
