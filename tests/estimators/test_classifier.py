"""`LayerFusionClassifier`: what it takes and what it tells."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import layerfusion as lf
from layerfusion.errors import UserError
from layerfusion.fusion.head_files import StackHead
from layerfusion.fusion.pool import ANCHORED_GATED
from layerfusion.runs.bundle_files import DESCRIPTION
from tests.estimators.conftest import FUSIONS


@pytest.fixture(scope="module")
def fitted(place: Path, rows: pd.DataFrame) -> lf.LayerFusionClassifier:
    classifier = lf.LayerFusionClassifier(
        str(place / "tiny"),
        pooling="mean",
        lexical=(),
        seeds=2,
        cache=str(place / "cache"),
        settings={"layers.folds": 2},
    )
    return classifier.fit(rows.text, rows.label)


@pytest.fixture(scope="module", params=FUSIONS, ids=lambda params: params["fusion"])
def each(
    request: pytest.FixtureRequest, place: Path, rows: pd.DataFrame
) -> lf.LayerFusionClassifier:
    """A fitted classifier of each kind; tests only read it."""
    classifier = lf.LayerFusionClassifier(
        str(place / "tiny"),
        seeds=1,
        cache=str(place / "cache"),
        settings={"trainer": {"max_epochs": 3}, "layers.folds": 2},
    )
    return classifier.set_params(**request.param).fit(rows.text, rows.label)


# -- texts and labels -----------------------------------------------------------------------------


def test_texts_come_in_any_container(make: Any, rows: pd.DataFrame, new: list[str]) -> None:
    shuffled = rows.sample(frac=1, random_state=1)
    expected = make(fusion="stacked", layers="last").fit(rows.text, rows.label).predict_proba(new)
    for X, y in (
        (rows.text.tolist(), rows.label.tolist()),
        (tuple(rows.text), tuple(rows.label)),
        (rows.text.to_numpy(object), rows.label.to_numpy(object)),
        (np.array(rows.text.tolist()), np.array(rows.label.tolist())),
        (rows[["text"]], rows.label.astype("category")),
        (rows.text.to_numpy(object)[:, None], rows.label),
        (shuffled.text.astype("string"), shuffled.label),
        (pa.array(rows.text), pa.array(rows.label)),
        (pa.chunked_array([rows.text]), pa.array(rows.label).dictionary_encode()),
        (rows.text.to_numpy("T"), rows.label.to_numpy("T")),
    ):
        other = make(fusion="stacked", layers="last").fit(X, y)
        np.testing.assert_allclose(other.predict_proba(np.array(new)), expected, atol=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        np.array([3, -1]),
        np.array([7, 200], np.uint8),
        np.array([False, True]),
        np.array([2.0, 1.0]),
        np.array(["neg", "pos"]),
        np.array(["neg", "pos"], object),
        np.array([True, False], object),
    ],
    ids=lambda values: f"{values.dtype} {values[0]}",
)
def test_labels_keep_their_type_through_a_folder(
    values: np.ndarray, make: Any, rows: pd.DataFrame, new: list[str], tmp_path: Path
) -> None:
    labels = values[(rows.label == "pos").to_numpy().astype(int)]
    classifier = make(fusion="stacked", layers="last").fit(rows.text, labels)
    loaded = lf.LayerFusionClassifier.load(classifier.save(tmp_path / "saved"))
    for one in (classifier, loaded):
        assert one.classes_.dtype == (bool if values[0] is True else values.dtype)
        assert one.classes_.tolist() == sorted(values.tolist())
        assert [type(label) for label in one.predict(new).tolist()] == [
            type(label) for label in values[[0] * len(new)].tolist()
        ]
        assert one.score(rows.text, np.array(labels.tolist())) > 0.75


@pytest.mark.parametrize(
    ("dtype", "values", "names"),
    [
        ("Int64", [1, 3], ["1", "3"]),
        ("boolean", [False, True], ["False", "True"]),
        ("float64", [1.0, 2.0], ["1", "2"]),
        ("Float64", [1.0, 2.0], ["1", "2"]),
    ],
)
def test_classes_are_named_as_a_data_set_names_them(
    dtype: Any, values: list[Any], names: list[str], make: Any, rows: pd.DataFrame, tmp_path: Path
) -> None:
    labels = pd.Series(np.array(values)[(rows.label == "pos").to_numpy().astype(int)]).astype(dtype)
    classifier = make(fusion="stacked", layers="last").fit(rows.text, labels)
    assert classifier.classes_.tolist() == values
    assert classifier.classes_.dtype == np.array(values).dtype
    assert classifier.score(rows.text, labels) > 0.75
    folder = classifier.save(tmp_path / "saved")
    assert lf.load(folder).classes_.tolist() == names
    assert lf.LayerFusionClassifier.load(folder).classes_.tolist() == values
    assert list(lf.load_dataset(rows.text.tolist(), labels).label_names) == names


def test_half_characters_are_those_of_a_file(
    fitted: lf.LayerFusionClassifier, make: Any, place: Path, rows: pd.DataFrame
) -> None:
    halves, whole = ["a good film \ud83d", "\ude00 bad"], ["a good film \ufffd", "\ufffd bad"]
    asked = [
        fitted.predict_proba,
        lambda texts: lf.embed(texts, str(place / "tiny"), cache=str(place / "cache")),
        lambda texts: make(fusion="stacked", layers="last").fit(
            [*rows.text, *texts], [*rows.label, "pos", "neg"]
        ).predict_proba(rows.text),
    ]  # fmt: skip
    for ask in asked:
        with pytest.warns(UserWarning, match="2 half characters .lone surrogates. became U.FFFD"):
            found = ask(halves)
        assert np.array_equal(found, ask(whole))


def test_logarithms_are_those_of_the_probabilities(
    fitted: lf.LayerFusionClassifier, new: list[str]
) -> None:
    assert np.allclose(np.exp(fitted.predict_log_proba(new)), fitted.predict_proba(new))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels.replace("pos", "Pos").where(labels.index > 0, "pos"),
         "fit: 'Pos' and 'pos' are different classes"),
        (lambda labels: labels.where(labels.index > 0, ' pos'),
         "fit: ' pos' and 'pos' are different classes"),
        (lambda labels: labels.sample(frac=1, random_state=1),
         "fit: the labels have the rows of the texts in another order"),
    ],
)  # fmt: skip
def test_labels_that_may_be_wrong_are_warned_of(
    change: Any, message: str, make: Any, rows: pd.DataFrame
) -> None:
    with pytest.warns(UserWarning, match=message):
        make(fusion="stacked", layers="last").fit(rows.text, change(rows.label))


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ("a text", ["a"], "fit: a list of texts is needed, found one string"),
        (["a", " "], [0, 1], "fit: text 2 of 2 is ' '; a string with a word is needed"),
        (["a", None], [0, 1], "fit: text 2 of 2 is None"),
        ([1, 2], [0, 1], "fit: text 1 of 2 is 1"),
        ([], [], "fit: found 0 texts; a minimum of 1 is required"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), [0], "texts are one column, found 2 .'a', 'b'"),
        (np.array([["a", "b"]]), [0], r"texts are one column, found data of shape \(1, 2\)"),
        ({"a": 1}, [0], "found an object of type dict"),
        (["a", "b"], [0], "fit: 2 texts and 1 labels"),
        (["a", "b"], None, "requires y to be passed, but the target y is None"),
        (["a", "b"], ["x", None], r"fit: label 2 of 2 is missing \(None\)"),
        (["a", "b"], [0, np.nan], r"fit: label 2 of 2 is missing \(nan\)"),
        (["a", "b"], ["x", np.nan], r"fit: label 2 of 2 is missing \(nan\)"),
        (["a", "b"], ["x", " "], r"fit: label 2 of 2 is missing \(' '\)"),
        (["a", "b"], pd.Series(["x", pd.NA], dtype="string"), "label 2 of 2 is missing .<NA>"),
        (["a", "b"], ["1", 1], r"labels of several types \(int, str\)"),
        (["a", "b"], {"x", "y"}, "found an object of type set"),
        (["a", "b"], [b"x", b"y"], "fit: the label b'x' is of type bytes; numbers, strings and"),
        (["a", "b"], [date(2020, 1, 1), date(2021, 1, 1)], "the label .* is of type date;"),
        (["a", "b"], pd.Series(pd.to_datetime(["2020", "2021"])), "the label .* is of type date"),
        (["a", "b"], [2**70, 1], "fit: numbers beyond 64 bits are no labels"),
        (["a", "b"], ["x", "y\ud800"], "fit: the label 'y.ud800' has half a character"),
        (["a", "b"], pd.Series([1, None], dtype="Int64"), "label 2 of 2 is missing"),
        (["a", "b"], [0.5, 1.5], "fit: Unknown label type: continuous"),
        (["a", "b"], [1j, 2j], "fit: Complex data not supported"),
        (["a", "b"], ["x", "x"], "fit: y has one class only, 'x'; two classes are needed"),
        (["a", "b"], np.array(["x", 1], object), r"labels of several types \(int, str\)"),
        (["a", "b"], ["x", "y"], "no class has two different texts"),
        (["a", "a", "b"], ["x", "x", "y"], "no class has two different texts"),
        (["a", "b"], np.array(["2020", "2021"], "datetime64[Y]"), "the label .* is of type date"),
    ],
)
def test_rows_that_are_none_are_told_in_one_line(X: Any, y: Any, message: str, make: Any) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make().fit(X, y)
    assert isinstance(error.value, UserError)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"models": "nope"}, "backbone: there is no 'nope'"),
        ({"models": []}, "backbone: at least one is needed"),
        ({"fusion": "nope"}, "nope"),
        ({"fusion": None}, "fusion= takes a string, found None"),
        ({"layers": "nope"}, "nope"),
        ({"layers": {"tiny": [9]}}, "there is no '?9"),
        ({"layers": {"other": [1]}}, "layers.fixed"),
        ({"budget": 3}, "budget= takes a dict or None, found 3"),
        ({"budget": {"nope": 3}}, "nope"),
        ({"budget": {"flops_per_text": -1}}, "flops_per_text"),
        ({"validation_size": 1.5}, "validation_size: a share between 0 and 1 is needed, found 1.5"),
        ({"random_state": "x"}, "random_state: a whole number"),
        ({"random_state": -1}, "random_state=-1: it must lie in"),
        ({"seeds": 0}, "seeds"),
        ({"objective": "auc"}, "objective: there is no .auc.; there are: log_loss"),
        ({"class_weight": {0: 1}}, "class_weight"),
        ({"settings": {"nope": 1}}, "nope"),
        ({"settings": "x"}, "settings= takes a dict or None"),
    ],
)
def test_a_parameter_that_cannot_be_is_told_in_one_line(
    params: dict[str, Any], message: str, make: Any, rows: pd.DataFrame
) -> None:
    classifier = make(**params)  # nothing is checked before `fit`
    with pytest.raises(UserError, match=message) as error:
        classifier.fit(rows.text, rows.label)
    assert "\n" not in str(error.value)


def test_nothing_is_said_before_fit(make: Any) -> None:
    for call in ("predict", "predict_proba", "gates"):
        with pytest.raises(NotFittedError):
            getattr(make(), call)(["a"])
    for call in ("explain", "save"):
        with pytest.raises(NotFittedError):
            getattr(make(), call)("a")
    with pytest.raises(NotFittedError):
        make().leaderboard()
    with pytest.raises(NotFittedError):
        make().score(["a"], ["b"])
    assert not hasattr(make(), "n_features_in_")


def test_its_name_is_one_line(make: Any) -> None:
    long = make(models=[f"models/a_model_with_a_long_name_{n}" for n in range(30)])
    assert "\n" not in repr(long)
    assert repr(lf.LayerFusionClassifier()) == "LayerFusionClassifier()"


# -- scikit-learn's tools -------------------------------------------------------------------------


def test_a_grid_search_in_a_pipeline(make: Any, rows: pd.DataFrame, new: list[str]) -> None:
    lower = FunctionTransformer(lambda X: [text.lower() for text in X])
    search = GridSearchCV(
        make_pipeline(lower, make()),
        {
            "layerfusionclassifier__fusion": ["stacked", "gated"],
            "layerfusionclassifier__layers": ["last", "adaptive"],
        },
        cv=2,
        scoring="roc_auc",
    )
    search.fit(rows.text, rows.label)
    assert np.isfinite(search.cv_results_["mean_test_score"]).sum() == 4
    assert search.best_score_ > 0.6
    assert set(search.predict(new)) <= {"neg", "pos"}


def test_a_time_limit_is_held_and_says_what_was_left_out(
    make: Any, place: Path, rows: pd.DataFrame, new: list[str], tmp_path: Path
) -> None:
    usual = make(fusion="stacked", layers="last").fit(rows.text, rows.label)
    limited = make(fusion="stacked", layers="last", time_limit=np.float64(500))
    copy: Any = clone(limited)
    assert copy.get_params()["time_limit"] == 500
    copy.fit(rows.text, rows.label)
    np.testing.assert_array_equal(copy.predict_proba(new), usual.predict_proba(new))
    assert usual.time_notes_ == []
    (note,) = copy.time_notes_
    assert note.startswith("nothing was left out")
    loaded = lf.LayerFusionClassifier.load(copy.save(tmp_path / "saved"))
    assert loaded.time_notes_ == copy.time_notes_
    assert loaded.get_params()["time_limit"] == 500
    seeds = make(fusion="concat", layers="last", seeds=3, time_limit=1e-6)
    seeds.fit(rows.text, rows.label)  # its vectors are in the cache, and one seed is trained
    assert seeds.time_notes_[0].startswith("1 of 3 seeds were trained")


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "soon", [5], True])
def test_a_time_limit_that_is_no_time_is_one_line(
    make: Any, rows: pd.DataFrame, value: object
) -> None:
    with pytest.raises(UserError, match="time_limit") as caught:
        make(time_limit=value).fit(rows.text, rows.label)
    assert len(str(caught.value).splitlines()) == 1


def test_a_clone_is_not_fitted_and_a_pickle_is(
    fitted: lf.LayerFusionClassifier, new: list[str]
) -> None:
    copy: Any = clone(fitted)
    with pytest.raises(NotFittedError):
        copy.predict(new)
    assert copy.get_params() == fitted.get_params()
    expected = fitted.predict_proba(new)
    content = pickle.dumps(fitted)
    assert len(content) < 200_000  # without the language model
    np.testing.assert_array_equal(pickle.loads(content).predict_proba(new), expected)


# -- what it tells --------------------------------------------------------------------------------


def test_importances_name_every_layer_and_the_weight_of_those_chosen(
    fitted: lf.LayerFusionClassifier,
) -> None:
    frame = fitted.layer_importances_
    assert frame.columns.tolist() == [
        "model",
        "layer",
        "pooling",
        "chosen",
        "weight",
        "log_loss",
        "accuracy",
    ]
    assert frame.layer.tolist() == ["0", "1", "2", "3"]
    assert frame.chosen.any()
    assert (frame.weight[~frame.chosen] == 0).all()
    assert frame.weight.abs().sum() == pytest.approx(1, abs=1e-6)
    assert frame.accuracy.between(0, 1).all()


def test_what_has_no_weights_or_probes_says_so(make: Any, rows: pd.DataFrame) -> None:
    classifier = make(fusion="concat", layers="last").fit(rows.text, rows.label)
    frame = classifier.layer_importances_
    assert frame.chosen.all()
    assert frame[["weight", "log_loss", "accuracy"]].isna().all(axis=None)
    assert classifier.explain("a good film").weight.isna().all()


def test_gates_are_of_each_text_and_source(
    each: lf.LayerFusionClassifier, rows: pd.DataFrame
) -> None:
    classifier, texts = each, rows.text[::-1][:5]
    if classifier.fusion == "concat":
        with pytest.raises(UserError, match=r"fusion=concat has no weights .*; gated, scal"):
            classifier.gates(texts)
        return
    gates = classifier.gates(texts)
    frame = classifier.layer_importances_[classifier.layer_importances_.chosen]
    assert gates.index.tolist() == texts.index.tolist()
    assert sorted(gates.columns) == sorted(frame.model + ":" + frame.layer + ":" + frame.pooling)
    stacks = [head.stack for head in classifier._bundle.heads if isinstance(head, StackHead)]
    moving = any(stack.pool.form == ANCHORED_GATED for stack in stacks)
    np.testing.assert_allclose(gates.abs().sum(axis=1), 1, atol=0.05 if moving else 1e-5)


def test_an_explanation_ends_in_the_prediction(each: lf.LayerFusionClassifier) -> None:
    classifier: Any = each
    frame = classifier.explain(" the great good film ")
    (probabilities,) = classifier.predict_proba(["the great good film"])
    last = frame.iloc[-1]
    assert last.model == "fused"
    assert last.says == classifier.predict(["the great good film"])[0]
    np.testing.assert_allclose(last[["p(neg)", "p(pos)"]].to_numpy(float), probabilities, atol=1e-6)
    np.testing.assert_allclose(frame["p(neg)"] + frame["p(pos)"], 1, atol=1e-6)
    for wrong in (["a", "b"], 3, " "):
        with pytest.raises(UserError, match="explain: "):
            classifier.explain(wrong)


def test_a_stack_of_one_source_says_what_its_probe_says(make: Any, rows: pd.DataFrame) -> None:
    """But for the temperature that calibrates it, the order of the classes is the same."""
    classifier = make(fusion="stacked", layers="last").fit(rows.text, rows.label)
    source, fused = classifier.explain("the bad awful plot").to_dict("records")
    assert (source["model"], source["layer"], source["weight"]) == ("tiny", "3", 1)
    assert source["says"] == fused["says"]


def test_a_leaderboard_begins_with_the_best_and_marks_the_chosen(
    fitted: lf.LayerFusionClassifier, make: Any, rows: pd.DataFrame
) -> None:
    board = fitted.leaderboard()
    assert board.log_loss.is_monotonic_increasing
    assert board.chosen.sum() == 1
    assert board.accuracy.between(0, 1).all()
    probes = board[board.fusion == "probe"]
    assert len(probes) == 4
    assert (probes.sources == 1).all()
    assert set(board.judged_on) == {"2 folds"}
    trained = make(fusion="gated", layers="last").fit(rows.text, rows.label).leaderboard()
    assert trained[["fusion", "judged_on", "width"]].values.tolist() == [
        ["gated", "validation", 256.0]
    ]


def test_a_pilot_and_trained_heads_among_the_candidates_are_told(
    make: Any, rows: pd.DataFrame
) -> None:
    settings = {"layers.pilot": 20, "layers.folds": 2, "trainer": {"max_epochs": 1}}
    heads = {"fusion.among": ["stacked", "gated"], "fusion.widths": [4]}
    classifier = make(settings={**settings, **heads}).fit(rows.text, rows.label)
    board = classifier.leaderboard()
    assert set(board.fusion) == {"probe", "stacked", "gated"}
    layers = classifier.layer_importances_.agg(lambda row: ":".join(row[:3]), axis=1)
    assert {name for names in board.layers for name in names.split()} <= set(layers)


# -- folders --------------------------------------------------------------------------------------


def test_a_folder_gives_the_same_classifier(
    each: lf.LayerFusionClassifier, rows: pd.DataFrame, new: list[str], tmp_path: Path
) -> None:
    classifier = each
    shutil.move(classifier.save(tmp_path / "saved"), tmp_path / "moved")
    loaded = lf.LayerFusionClassifier.load(tmp_path / "moved")
    np.testing.assert_allclose(
        loaded.predict_proba(new), classifier.predict_proba(new), rtol=0, atol=1e-6
    )
    assert loaded.get_params()["settings"] == classifier.get_params()["settings"]
    assert "\n" not in repr(loaded)
    pd.testing.assert_frame_equal(loaded.layer_importances_, classifier.layer_importances_)
    pd.testing.assert_frame_equal(loaded.leaderboard(), classifier.leaderboard())
    plain = lf.load(tmp_path / "moved").predict_proba(new)
    np.testing.assert_allclose(plain, loaded.predict_proba(new), atol=1e-6)
    refit: Any = clone(loaded)
    refit.fit(rows.text, rows.label)
    np.testing.assert_allclose(refit.predict_proba(new), loaded.predict_proba(new), atol=1e-5)
    again = loaded.save(tmp_path / "again")
    assert {file.name for file in again.iterdir()} == {
        file.name for file in (tmp_path / "moved").iterdir()
    }


def test_another_process_predicts_the_same(
    fitted: lf.LayerFusionClassifier, rows: pd.DataFrame, new: list[str], tmp_path: Path
) -> None:
    """Also of texts whose vectors lie in the cache here, in half precision, and not there."""
    texts = [*new, *rows.text]
    fitted.save(tmp_path / "saved")
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    code = (
        "import json, numpy, layerfusion as lf\n"
        "classifier = lf.LayerFusionClassifier.load('saved', cache='elsewhere')\n"
        "texts = json.load(open('texts.json'))\n"
        "numpy.save('found.npy', classifier.predict_proba(texts))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, fitted.predict_proba(texts), rtol=0, atol=1e-6)


def test_a_folder_that_holds_no_classifier_is_told(
    fitted: lf.LayerFusionClassifier, rows: pd.DataFrame, place: Path, tmp_path: Path
) -> None:
    load = lf.LayerFusionClassifier.load
    with pytest.raises(UserError, match="there is no such folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    with pytest.raises(UserError, match="there is something already; choose a new folder"):
        fitted.save(tmp_path / "full")
    strange = pickle.loads(pickle.dumps(fitted)).set_params(settings={"a": object()})
    with pytest.raises(UserError, match="write a name"):
        strange.save(tmp_path / "objects")
    saved = fitted.save(tmp_path / "saved")
    about = saved / DESCRIPTION
    about.write_text(about.read_text().replace('"neg"', '"nag"', 1))
    with pytest.raises(UserError, match="its checksum differs"):
        load(saved)
    data = lf.load_dataset(rows.text, rows.label)
    job = lf.train(
        data,
        str(place / "tiny"),
        layers="last",
        fusion="stacked",
        seeds=1,
        cache=place / "cache",
        folder=tmp_path / "job",
    )
    with pytest.raises(UserError, match="the classifier of a job, not a LayerFusionClassifier"):
        load(job.folder)
