"""`LayerFusionClassifier` on texts with any number of labels, as scikit-learn has them."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.preprocessing import MultiLabelBinarizer

import layerfusion as lf
from layerfusion.errors import UserError

Topics = tuple[list[str], pd.DataFrame]
FUSIONS = [
    {"fusion": "auto", "objective": "micro_f1"},
    {"fusion": "stacked", "layers": "last", "lexical": "words"},
    {"fusion": "gated_stack", "layers": "all", "class_weight": "balanced"},
    {"fusion": "late_stack", "layers": "all", "lexical": "words"},
    {"fusion": "gated", "layers": "all", "lexical": "words"},
    {"fusion": "late", "layers": "top_k", "objective": "macro_f1"},
    {"fusion": "concat", "layers": "greedy", "class_weight": "balanced"},
]
PLAIN = {"fusion": "stacked", "layers": "last"}


def names_of(labels: pd.DataFrame) -> list[list[str]]:
    """The names of each row's labels, in no order of theirs."""
    names = sorted(labels, reverse=True)
    rows = labels[names].to_numpy(bool)
    return [[name for name, has in zip(names, row, strict=True) if has] for row in rows]


@pytest.fixture(scope="module", params=FUSIONS, ids=lambda params: params["fusion"])
def each(request: pytest.FixtureRequest, place: Path, topics: Topics) -> lf.LayerFusionClassifier:
    """A fitted classifier of each kind; tests only read it."""
    classifier = lf.LayerFusionClassifier(
        str(place / "tiny"), seeds=2, cache=str(place / "cache"),
        settings={"trainer": {"max_epochs": 3}, "layers.folds": 2},
    )  # fmt: skip
    return classifier.set_params(**request.param).fit(*topics)


# -- what y may be --------------------------------------------------------------------------------


def test_an_indicator_matrix_comes_in_any_form(make: Any, topics: Topics) -> None:
    texts, labels = topics
    expected = make(**PLAIN).fit(texts, labels)
    assert expected.classes_.tolist() == labels.columns.tolist()
    matrix = labels.to_numpy()
    order = np.random.default_rng(2).permutation(len(texts))
    for X, y in (
        (texts, matrix),
        (texts, matrix.astype(bool)),
        (texts, matrix.astype(np.float32)),
        (texts, matrix.tolist()),
        (texts, list(matrix)),
        (pd.Series(texts), pd.Series(matrix.tolist())),
        (texts, sparse.csr_matrix(matrix)),
        (texts, labels.astype("boolean")),
        ([texts[row] for row in order], matrix[order]),
    ):
        other = make(**PLAIN).fit(X, y)
        np.testing.assert_allclose(
            other.predict_proba(texts), expected.predict_proba(texts), atol=1e-6
        )
        named = labels.columns.tolist() if hasattr(y, "columns") else [0, 1, 2]
        assert other.classes_.tolist() == named
        said = other.predict(texts)
        assert (said.dtype, said.shape) == (np.int64, matrix.shape)
        assert other.score(X, y) == accuracy_score(matrix, said)


@pytest.mark.parametrize("cell", [list, tuple, set, frozenset, np.array])
def test_labels_by_name_are_those_of_the_binarizer(cell: Any, make: Any, topics: Topics) -> None:
    texts, labels = topics
    given = [
        cell(names) if len(names) or cell is not np.array else [] for names in names_of(labels)
    ]
    binarizer = MultiLabelBinarizer().fit(names_of(labels))
    expected = make(**PLAIN).fit(texts, binarizer.transform(names_of(labels)))
    arrow = pa.array([list(map(str, names)) for names in given])
    for y in (given, pd.Series(given), pd.DataFrame({"labels": given}), arrow):
        classifier = make(**PLAIN).fit(texts, y)
        assert classifier.classes_.tolist() == binarizer.classes_.tolist()
        np.testing.assert_array_equal(
            classifier.predict_proba(texts), expected.predict_proba(texts)
        )
        score = accuracy_score(labels[sorted(labels)], classifier.predict(texts))
        assert classifier.score(texts, y) == score
        named = binarizer.inverse_transform(classifier.predict(texts))
        assert [set(row) for row in named] == [
            {name for name, has in zip(binarizer.classes_, row, strict=True) if has}
            for row in classifier.predict(texts)
        ]
    strange = [[*names, "new"] for names in given[:4]]
    assert classifier.score(texts[:4], strange) == 0


def test_numbers_are_labels_where_they_are_not_an_indicator(make: Any, topics: Topics) -> None:
    texts, labels = topics
    given = [[7 * number for number, has in enumerate(row) if has] for row in labels.to_numpy()]
    classifier = make(**PLAIN).fit(texts, given)
    assert classifier.classes_.tolist() == [0, 7, 14]
    assert classifier.classes_.dtype == np.int64
    column = make(**PLAIN)
    with pytest.warns(Warning, match="column-vector"):  # as for every estimator of scikit-learn
        column.fit(texts, labels[["film"]].to_numpy())
    assert column.predict(texts).shape == (len(texts),)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([[0, 1], [2, 0]]), "row 2, column 1 of y is 2; an indicator matrix holds 0 and"),
        (np.array([[0, 1], [np.nan, 0]]), "row 2, column 1 of y is nan"),
        (np.array([["a", "b"], ["b", "c"]]), "row 1, column 1 of y is 'a'; an indicator matrix"),
        (np.zeros((2, 0)), "y has no column"),
        (np.array([[0, 1]] * 2), "every row has the same labels; rows that differ"),
        (np.array([[0, 1], [1, 0], [1, 1]]), "fit: 2 texts and labels of 3"),
        (sparse.csr_matrix([[0, 1]]), "fit: 2 texts and labels of 1"),
        ([["a"], ["b", "c"], []], "fit: 2 texts and labels of 3"),
        ([[], []], "no row has a label"),
        ([["a"], ["a"]], "every row has the same labels"),
        ([["a"], "b"], "the labels of row 2 are 'b'; a list of labels is needed"),
        ([["a"], None], "the labels of row 2 are None; a list of labels is needed"),
        ([["a"], ["b", None]], "a label of row 2 of 2 is missing"),
        ([["a"], ["b", np.nan]], "a label of row 2 of 2 is missing"),
        ([["a"], ["b", 1]], r"labels of several types \(int, str\)"),
        ([["a"], [["b"]]], r"labels of several types \(list, str\)"),
        ([[["a"]], [["b"]]], "the label .'a'. is of type list"),
        (pd.DataFrame([[0, 1], [1, 0]], columns=["a", "a"]), "two columns of y have the same"),
        (pd.DataFrame([[0, 1], [1, 0]], columns=["a", 1]), r"several types \(int, str\)"),
        (pd.DataFrame({"a": [0, None], "b": [1, 0]}, dtype="Int64"), "column 1 of y is <NA>"),
    ],
)  # fmt: skip
def test_labels_that_are_none_are_told_in_one_line(y: Any, message: str, make: Any) -> None:
    with pytest.raises(UserError, match=message) as error:
        make().fit(["a text", "another"], y)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("params", FUSIONS, ids=lambda params: params["fusion"])
def test_a_label_that_cannot_be_learned_is_warned_of_and_kept(
    params: dict[str, Any], make: Any, topics: Topics
) -> None:
    texts, labels = topics
    more = labels.assign(never=0, always=1)
    with pytest.warns(UserWarning, match="has the label") as told:
        classifier = make(**params).fit(texts, more)
    said = [str(one.message) for one in told if str(one.message).startswith("fit: ")]
    assert said == ["fit: no row has the label 'never'", "fit: every row has the label 'always'"]
    probabilities = classifier.predict_proba(texts)
    assert np.isfinite(probabilities).all()
    assert probabilities[:, 3].max() < 1e-6
    assert probabilities[:, 4].min() > 1 - 1e-6
    assert probabilities[:, :3].min() < 0.5 < probabilities[:, :3].max()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        make(**PLAIN).fit(texts, labels)


# -- what it learns from --------------------------------------------------------------------------


@pytest.mark.parametrize("params", FUSIONS, ids=lambda params: params["fusion"])
def test_a_weight_is_the_number_of_times_that_a_row_counts(
    params: dict[str, Any], make: Any, topics: Topics
) -> None:
    texts, labels = topics
    weights = np.random.default_rng(0).integers(0, 4, len(texts))
    rows = np.random.default_rng(1).permutation(np.repeat(np.arange(len(texts)), weights))
    often = [texts[row] for row in rows]
    names = names_of(labels)
    forms = [(labels, labels.iloc[rows]), (names, [names[row] for row in rows])]
    for y, repeated in forms:
        weighted = make(**params).fit(texts, y, sample_weight=weights).predict_proba(texts)
        expected = make(**params).fit(often, repeated).predict_proba(texts)
        np.testing.assert_allclose(weighted, expected, rtol=0, atol=1e-7)
    of_sparse = make(**params).fit(texts, sparse.csc_matrix(labels), sample_weight=weights)
    plain = make(**params).fit(texts, labels).predict_proba(texts)
    assert np.abs(of_sparse.predict_proba(texts) - plain).max() > 1e-4


def test_a_cross_validation_learns_nothing_of_the_rows_held_out(
    make: Any, topics: Topics, tmp_path: Path
) -> None:
    """Not even where all rows were fitted before on the same cache."""
    texts, labels = np.array(topics[0]), topics[1]
    rows, folds = labels.to_numpy(), KFold(3, shuffle=True, random_state=0)
    expected = []
    for number, (train, test) in enumerate(folds.split(texts)):
        alone = make(objective="micro_f1", cache=str(tmp_path / f"alone{number}"))
        said = alone.fit(texts[train], rows[train]).predict(texts[test])
        expected.append(f1_score(rows[test], said, average="micro"))
    for y in (rows, labels):
        shared = make(objective="micro_f1")
        shared.fit(texts, y)
        scores = cross_val_score(shared, texts, y, cv=folds, scoring="f1_micro")
        assert scores == pytest.approx(expected)


def test_a_grid_search_over_objectives(make: Any, topics: Topics) -> None:
    search: Any = GridSearchCV(
        make(fusion="stacked"),
        {"objective": ["log_loss", "micro_f1"], "layers": ["last", "all"]},
        cv=2,
        scoring=["f1_micro", "accuracy", "roc_auc_ovr", "average_precision"],
        refit="f1_micro",  # type: ignore[arg-type]
    )
    texts, labels = topics
    search.fit(texts, labels)
    for name in search.scorer_:
        assert np.isfinite(search.cv_results_[f"mean_test_{name}"]).all()
    assert search.best_score_ > 0.7
    assert search.predict(texts[:2]).shape == (2, 3)


# -- what it tells --------------------------------------------------------------------------------


def test_everything_is_told_of_labels_too(each: lf.LayerFusionClassifier, topics: Topics) -> None:
    texts, labels = topics
    classifier: Any = each
    probabilities = classifier.predict_proba(texts)
    assert (probabilities.dtype, probabilities.shape) == (np.float32, labels.shape)
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    assert np.abs(probabilities.sum(axis=1) - 1).max() > 0.2  # each is a decision of its own
    np.testing.assert_array_equal(classifier.predict(texts), probabilities >= 0.5)
    frame = classifier.explain(texts[0])
    assert frame.iloc[-1]["model"] == "fused"
    columns = [f"p({name})" for name in labels]
    np.testing.assert_allclose(frame.iloc[-1][columns].to_numpy(float), probabilities[0], atol=1e-6)
    for said, row in zip(frame["says"], frame[columns].to_numpy(), strict=True):
        assert said == [name for name, p in zip(labels, row, strict=True) if p >= 0.5]
    importances, board = classifier.layer_importances_, classifier.leaderboard()
    assert importances.chosen.any()
    assert importances.accuracy.dropna().between(0, 1).all()
    assert board.chosen.sum() == 1
    assert board.log_loss.between(0, 2).all()
    if classifier.fusion == "concat":
        with pytest.raises(UserError, match="has no weights of its sources"):
            classifier.gates(texts)
    else:
        total = classifier.gates(texts).abs().sum(axis=1)  # seeds may differ in a sign
        assert total.between(0.8, 1.05).all()


def test_a_folder_gives_the_same_classifier(
    each: lf.LayerFusionClassifier, topics: Topics, tmp_path: Path
) -> None:
    texts, labels = topics
    shutil.move(each.save(tmp_path / "saved"), tmp_path / "moved")
    loaded = lf.LayerFusionClassifier.load(tmp_path / "moved")
    expected = each.predict_proba(texts)
    np.testing.assert_allclose(loaded.predict_proba(texts), expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(loaded.predict(texts), each.predict(texts))
    assert loaded.classes_.tolist() == labels.columns.tolist()
    assert loaded.score(texts, labels) == each.score(texts, labels)
    pd.testing.assert_frame_equal(loaded.explain(texts[0]), each.explain(texts[0]))
    bundle = lf.load(tmp_path / "moved")
    np.testing.assert_array_equal(bundle.predict(texts), each.predict(texts))
    refit: Any = clone(loaded)
    np.testing.assert_allclose(refit.fit(*topics).predict_proba(texts), expected, atol=1e-5)


def test_models_are_ranked_on_labels_too(place: Path, topics: Topics) -> None:
    texts, labels = topics
    models = [str(place / "tiny"), str(place / "small")]
    board = lf.rank(models, texts, labels, cache=place / "cache")
    assert sorted(board.model) == ["small", "tiny"]
    assert board.log_loss.is_monotonic_increasing
    assert board.accuracy.between(0, 1).all()


# -- what is told of y that is doubtful ------------------------------------------------------------


def test_labels_joined_in_a_string_are_warned_of(make: Any, topics: Topics) -> None:
    texts, labels = topics
    lists = names_of(labels)
    for written, told in (
        ([" ; ".join(row) or "none" for row in lists], "y.split(';')"),
        ([json.dumps(row) for row in lists], "json.loads(y)"),
    ):
        with pytest.warns(UserWarning, match="is one class; if it is several") as caught:
            classifier = make(**PLAIN).fit(texts, written)
        assert told in str(caught[0].message)
        assert caught[0].filename == __file__
        assert classifier.predict(texts).shape == (len(texts),)


def test_y_that_is_no_list_is_told_in_one_line(make: Any, topics: Topics) -> None:
    texts, labels = topics
    lists = names_of(labels)
    for y in (
        (row for row in lists),
        dict(enumerate(lists)),
        "label",
        labels.to_numpy()[..., None],
    ):
        with pytest.raises(UserError, match=r"^fit: ") as error:
            make(**PLAIN).fit(texts, y)
        assert "\n" not in str(error.value)


def test_a_sparse_column_is_one_of_classes(make: Any, topics: Topics) -> None:
    texts, labels = topics
    column = sparse.csr_matrix(labels[["film"]].to_numpy())
    with pytest.warns(match="column-vector"):
        classifier = make(**PLAIN).fit(texts, column)
    assert classifier.classes_.tolist() == [0, 1]
    assert classifier.predict(texts).shape == (len(texts),)


def test_score_finds_the_columns_of_a_data_frame_by_name(make: Any, topics: Topics) -> None:
    texts, labels = topics
    classifier = make(**PLAIN).fit(texts, labels)
    expected = classifier.score(texts, labels.to_numpy())
    assert classifier.score(texts, labels[labels.columns[::-1]]) == expected
    with pytest.raises(UserError, match=r"^score: the columns of y.*'other'"):
        classifier.score(texts, labels.rename(columns={"film": "other"}))
    with pytest.raises(UserError, match=r"^score: the labels of row 1 are None"):
        classifier.score(texts, [None, *names_of(labels)[1:]])
    assert make(**PLAIN).fit(texts, labels.to_numpy()).score(texts, labels) == expected
