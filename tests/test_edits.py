"""Files of the user's own that are edited while Python runs, as in a notebook."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import layerfusion as lf
from layerfusion.config.imports import import_from
from tests.tiny import tiny_texts

TEXTS = ["a warm film", "a dull plot", "the end of it"]
FIRST = "hidden[:, 0] * 2"
MEAN = "hidden.mean(1) + 1"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    import_from([])


def pooling(folder: str, code: str, name: str = "edited") -> None:
    """Write a pooling of the user's and the file that names it."""
    place = Path(folder)
    (place / "pooling").mkdir(parents=True, exist_ok=True)
    (place / f"pooling/{name}.yaml").write_text(f"{name}:\n  pool: {name}:own\n")
    (place / f"{name}.py").write_text(f"def own(hidden, start, stop):\n    return {code}\n")


def embed(model: Path, folder: str, cache: str, name: str = "edited") -> np.ndarray:
    return lf.embed(TEXTS, model, 1, pooling=name, config_dir=folder, cache=cache)


def test_a_cache_holds_what_the_edited_pooling_gives(bert_folder: Path) -> None:
    found = []
    for code in (FIRST, MEAN, FIRST):
        pooling("mine", code)
        found.append(embed(bert_folder, "mine", "cache"))
        np.testing.assert_array_equal(found[-1], embed(bert_folder, "mine", f"fresh{len(found)}"))
    np.testing.assert_array_equal(found[0], found[2])
    assert np.abs(found[0] - found[1]).max() > 0.1


def fitted(model: Path, folder: str, name: str = "edited") -> lf.LayerFusionClassifier:
    frame = pd.read_csv(tiny_texts(Path("texts.csv"), 60))
    return lf.LayerFusionClassifier(
        str(model),
        pooling=name,
        layers="last",
        fusion="stacked",
        seeds=1,
        cache="cache",
        settings={"config_dir": folder, "layers.folds": 2},
    ).fit(frame.text, frame.label)


def test_a_classifier_sees_what_its_own_pooling_gives(
    bert_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And not what another file of that name gave the same texts, in another folder or before."""
    pooling("one", FIRST)
    pooling("other", MEAN)
    before = fitted(bert_folder, "one")
    before.predict(TEXTS)
    after = fitted(bert_folder, "other")
    after.save("kept")
    import_from([Path("other")])
    again = lf.load("kept", modules=["edited"])
    np.testing.assert_allclose(
        after.predict_proba(TEXTS), again.probabilities(TEXTS), rtol=0, atol=1e-6
    )
    assert "another one than in training" not in caplog.text
    before.predict([*TEXTS, "a new text"])
    assert caplog.text.count("the code of edited:own is another one than in training") == 1
    before.predict([*TEXTS, "one more"])
    assert caplog.text.count("another one than in training") == 1


def test_a_profile_has_the_scores_of_the_edited_file(bert_folder: Path) -> None:
    texts = tiny_texts(Path("texts.csv"), 60)
    found = []
    for number in (1.0, 1.0, 2.0):
        Path("mine_score.py").write_text(f"def own(features, labels):\n    return {number}\n")
        profile = lf.profile_layers(
            lf.load_dataset(texts),
            str(bert_folder),
            scores=["mine_score:own"],
            folder="profile",
            cache="cache",
            layers_={"folds": 2},
        )
        found.append(profile.layers[0].scores["own"])
    assert found == [1.0, 1.0, 2.0]
    assert profile.code.keys() == {"mine_score:own"}
