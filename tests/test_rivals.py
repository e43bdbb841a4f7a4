"""The race against what people do instead, on tiny models and a tiny file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from benchmarks.rival_classifiers import Rows, Vectors, regression, stacking
from benchmarks.rival_tables import Race, as_text
from benchmarks.rivals import AUTO, main
from layerfusion.statistics.significance import holm
from tests.tiny import tiny_folder

RIVALS = [
    AUTO,
    "last layers, concat and trained head",
    "best single layer by probe",
    "TF-IDF, logistic regression",
    "last layer of bert, logistic regression",
    "last layer of llama, logistic regression",
    "last layer of all side by side, logistic regression",
    "last layer of all, StackingClassifier",
    "last layer of all and TF-IDF, StackingClassifier",
    "best layer of each and TF-IDF twice, StackingClassifier",
    "tests.test_rivals:nearest",
]


def nearest(vectors: Mapping[str, Vectors], rows: Rows) -> np.ndarray:
    """A user's rival: five nearest neighbours on all models side by side."""
    learn = np.concatenate([model.learn for model in vectors.values()], axis=1)
    test = np.concatenate([model.test for model in vectors.values()], axis=1)
    return KNeighborsClassifier(5).fit(learn, rows.target).predict_proba(test)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Race, dict[str, Any]]:
    root = tmp_path_factory.mktemp("rivals")
    generator = np.random.default_rng(0)
    words = (("good", "great", "film", "the"), ("bad", "awful", "film", "the"))
    rows = [(f"{' '.join(generator.choice(words[n % 2], 4))} {n}", n % 2) for n in range(150)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(root / "toy.csv", index=False)
    models = [
        f"backbone.{name}.path={tiny_folder(name, root / name)}" for name in ("bert", "llama")
    ]
    quick = ("seeds=2", "trainer.max_epochs=2", "fusion.widths=[8]", "extract.token_budget=512")
    arguments = [
        "local",
        "--own-vectors",
        "--rival=tests.test_rivals:nearest",
        f"--json={root / 'rivals.json'}",
        f"dataset.path={root / 'toy.csv'}",
        f"paths.cache={root / 'cache'}",
        f"paths.outputs={root}",
        *models,
    ]
    (race,) = main([*arguments, *quick])
    return race, json.loads((root / "rivals.json").read_text())


def test_all_are_judged_on_the_same_rows(found: tuple[Race, dict[str, Any]]) -> None:
    race, kept = found
    data = kept["datasets"]["local"]
    assert list(data["rivals"]) == RIVALS
    assert data["rows"] == dict(race.rows)
    for result in race.results:
        one = data["rivals"][result.name]
        assert result.correct.shape == race.target.shape
        assert one["accuracy"] == pytest.approx(result.correct.mean(), abs=1e-6)
        assert one["intervals"]["accuracy"][0] <= one["accuracy"] + 1e-6
        assert one["seconds"] > 0
    # Its words tell the classes of most texts apart.
    assert data["rivals"]["TF-IDF, logistic regression"]["accuracy"] > 0.85


def test_differences_are_tested_row_by_row(found: tuple[Race, dict[str, Any]]) -> None:
    race, kept = found
    figures = kept["datasets"]["local"]["rivals"]
    auto, *rivals = race.results
    assert "auto_ahead" not in figures[auto.name]
    p_values = []
    for rival in rivals:
        ahead = figures[rival.name]["auto_ahead"]
        only = [(auto.agreed & ~rival.agreed).sum(), (rival.agreed & ~auto.agreed).sum()]
        assert [ahead["only_auto"], ahead["only_rival"]] == only
        p_values.append(binomtest(int(only[0]), int(sum(only))).pvalue if sum(only) else 1.0)
        assert ahead["p"] == pytest.approx(p_values[-1])
        assert ahead["difference"] == pytest.approx(auto.correct.mean() - rival.correct.mean())
    found_holm = [figures[rival.name]["auto_ahead"]["p_holm"] for rival in rivals]
    assert found_holm == pytest.approx(holm(p_values))
    table = as_text([race])
    assert all(f"| {name} |" in table for name in RIVALS)


# -- the rivals themselves ----------------------------------------------------------------------


@pytest.fixture
def rows() -> Rows:
    """Class 3 has no row to learn from, class 2 a single one."""
    target = np.array([0, 1] * 30 + [2])
    texts = [f"{'abc'[label]} {n}" for n, label in enumerate(target)]
    return Rows(texts, target, ["a 1", "b 2"], 4, 0)


def vectors_of(rows: Rows, spread: float) -> Vectors:
    generator = np.random.default_rng(0)
    learn = rows.target[:, None] + spread * generator.normal(size=(len(rows.target), 3))
    return Vectors(learn, np.array([[0.0] * 3, [1.0] * 3]))


def test_regression_is_that_of_scikit_learn_at_the_chosen_strength(rows: Rows) -> None:
    vectors = vectors_of(rows, 0.5)
    answer = regression(vectors, rows)
    scaler = StandardScaler().fit(vectors.learn)
    model = LogisticRegression(C=answer.c, max_iter=500).fit(
        scaler.transform(vectors.learn), rows.target
    )
    expected = model.predict_proba(scaler.transform(vectors.test))
    np.testing.assert_allclose(answer.probabilities[:, :3], expected, atol=1e-4)
    assert (answer.probabilities[:, 3] < 1e-6).all()
    assert answer.probabilities.argmax(axis=1).tolist() == [0, 1]


@pytest.mark.parametrize("spread", [0.3, 1000.0])
def test_a_stack_leans_on_the_source_that_tells_the_classes_apart(
    rows: Rows, spread: float
) -> None:
    vectors = {"sure": vectors_of(rows, spread)}
    answer = stacking(vectors, {"sure": 1.0}, rows, {"words": 10.0, "characters": 10.0})
    np.testing.assert_allclose(answer.probabilities.sum(axis=1), 1)
    assert answer.probabilities.argmax(axis=1).tolist() == [0, 1]
