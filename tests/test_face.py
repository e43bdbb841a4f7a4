"""The public names: what `import layerfusion` gives, and the examples of their docstrings."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, assert_type, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import layerfusion as lf
from layerfusion.commands.overrides import config_of
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.identity import job_id
from layerfusion.errors import UserError
from layerfusion.runs.job_texts import dataset_of
from layerfusion.texts import fingerprint
from tests.tiny import tiny_folder, tiny_texts

SOURCES = {name: path for name, path in lf._PUBLIC.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("face")
    tiny_folder("bert", folder / "tiny")
    tiny_texts(folder / "reviews.csv", 80)
    return folder


@pytest.fixture(scope="module")
def names(place: Path) -> dict[str, Any]:
    """What the examples of docstrings find: texts, a model, a cache, and a finished job."""
    frame = pd.read_csv(place / "reviews.csv")
    texts, labels = frame.text.tolist(), frame.label.tolist()
    cache, outputs = place / "cache", place / "outputs"
    data = lf.load_dataset(texts, labels, name="reviews")
    model = str(place / "tiny")
    job = lf.train(
        data,
        model,
        layers="all",
        seeds=1,
        cache=cache,
        folder=outputs / "job",
        trainer={"max_epochs": 3},
    )
    lf.train(data, model, layers="last", seeds=1, cache=cache, folder=outputs / "last")
    profile = lf.profile_layers(
        data, model, scores=["probe", "logme"], cache=cache, folder=outputs / "profile"
    )
    return {
        "profile": profile,
        "texts": texts,
        "labels": labels,
        "data": data,
        "model": model,
        "cache": cache,
        "outputs": outputs,
        "finished": job,
    }


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_job_is_what_it_is_on_the_command_line(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argument that is not given overrules nothing, neither a default nor an experiment."""
    from layerfusion.runs import job as runs

    monkeypatch.setattr(runs, "run_job", lambda config, *_, **__: config)
    file, cache = place / "reviews.csv", place / "cache"
    words = ["dataset=local", f"dataset.path={file}", "backbone=minilm", f"paths.cache={cache}"]
    for experiment, given in (
        (None, {}),
        (None, {"fusion": "stacked"}),
        ("auto", {}),
        ("auto", {"pooling": "mean"}),
        ("few_shot", {}),
    ):
        more = [f"{key}={value}" for key, value in {"experiment": experiment, **given}.items()]
        more = [word for word in more if word != "experiment=None"]
        expected = load(compose("train", [*words, "logger=none", *more]))
        given = {"experiment": experiment, "config_dir": None, **given}
        found: Any = lf.train(file, "minilm", cache=cache, **given).record
        assert job_id(found) == job_id(expected)
        assert (found.fusion, found.layers, list(found.pooling), list(found.lexical)) == (
            expected.fusion,
            expected.layers,
            list(expected.pooling),
            list(expected.lexical),
        )


def test_every_public_name_is_listed_and_can_be_had() -> None:
    assert sorted(lf.__all__) == sorted(lf._PUBLIC)
    assert set(lf.__all__) <= set(dir(lf))
    for name in lf.__all__:
        assert getattr(lf, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = lf.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", lf.__all__)
def test_the_example_of_a_public_name_holds(
    name: str, names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = getattr(lf, name)
    finder = doctest.DocTestFinder(recurse=False)
    module = vars(sys.modules[found.__module__])
    tests = finder.find(found, name, globs={**module, **names, name: found})
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in tests:
        runner.run(test)
    assert runner.failures == 0, capsys.readouterr().out
    if not isinstance(found, type):
        assert runner.tries > 0, f"{name} has no example"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import layerfusion", ("torch", "pandas", "numpy", "hydra")),
        ("import layerfusion as lf; lf.results", ("torch", "hydra", "transformers", "matplotlib")),
        ("import layerfusion as lf; lf.UserError; dir(lf)", ("torch", "numpy")),
    ],
)
def test_a_name_imports_no_more_than_it_needs(code: str, absent: tuple[str, ...]) -> None:
    check = f"{code}; import sys; print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- data in memory --------------------------------------------------------------------------------


def test_the_same_content_has_the_same_fingerprint_however_it_comes(
    place: Path, names: dict[str, Any]
) -> None:
    import datasets

    frame = pd.read_csv(place / "reviews.csv")
    expected = lf.load_dataset(place / "reviews.csv").fingerprint
    assert lf.load_dataset(names["texts"], names["labels"]).fingerprint == expected
    assert lf.load_dataset(np.array(names["texts"]), pd.Series(names["labels"])).fingerprint == (
        expected
    )
    assert lf.load_dataset(frame).fingerprint == expected
    assert lf.load_dataset(datasets.Dataset.from_pandas(frame)).fingerprint == expected
    renamed = frame.rename(columns={"text": "review", "label": "stars"})
    assert lf.load_dataset(renamed, text="review", label="stars").fingerprint == expected
    numbered = frame.rename(columns={"text": 0, "label": 1})
    assert lf.load_dataset(numbered, text=cast(Any, 0), label=cast(Any, 1)).fingerprint == expected
    assert lf.load_dataset(frame[["text"]], names["labels"]).fingerprint == expected
    twice = pd.concat([frame, frame.assign(a=1)[["a", "a"]]], axis=1)
    assert lf.load_dataset(twice).fingerprint == expected
    columns = pa.array(names["texts"]), pa.array(names["labels"])
    assert lf.load_dataset(*columns).fingerprint == expected
    assert lf.load_dataset(pa.table(columns, ["text", "label"])).fingerprint == expected
    rows = frame.to_dict("records")
    assert lf.load_dataset(rows).fingerprint == expected
    assert lf.load_dataset(datasets.Dataset.from_list(rows)).fingerprint == expected
    assert lf.load_dataset(
        renamed.to_dict("records"), text="review", label="stars"
    ).fingerprint == (expected)
    pairs = list(zip(names["texts"], names["labels"], strict=True))
    assert lf.load_dataset(pairs).fingerprint == expected
    assert lf.load_dataset([list(pair) for pair in pairs], label="stars").fingerprint == expected


def test_rows_in_lists_keep_splits_and_several_labels(names: dict[str, Any]) -> None:
    pairs = list(zip(names["texts"], names["labels"], strict=True))
    split = lf.load_dataset({"train": pairs[:60], "test": pairs[60:]})
    assert list(split.splits["test"].texts) == names["texts"][60:]
    tags = [["drama"], ["drama", "war"], [], ["war"]] * 20
    expected = lf.load_dataset(names["texts"], tags)
    several = lf.load_dataset(list(zip(names["texts"], tags, strict=True)))
    assert several.multilabel
    assert several.fingerprint == expected.fingerprint
    marks = [
        {"text": text, "drama": "drama" in own, "war": "war" in own}
        for text, own in zip(names["texts"], tags, strict=True)
    ]
    columns = lf.load_dataset(marks, label_columns=["drama", "war"])
    assert columns.fingerprint == expected.fingerprint


def test_splits_that_are_given_stay(names: dict[str, Any]) -> None:
    import datasets

    def part(rows: slice) -> datasets.Dataset:
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
        )
        labels = [int(label == "pos") for label in names["labels"][rows]]
        columns = {"text": names["texts"][rows], "label": labels}
        return datasets.Dataset.from_dict(columns, features=features)

    parts = datasets.DatasetDict({"train": part(slice(0, 60)), "test": part(slice(60, 80))})
    data = lf.load_dataset(parts)
    assert data.label_names == ("neg", "pos")
    assert list(data.splits["test"].texts) == names["texts"][60:80]
    assert len(data.splits["train"]) + len(data.splits["validation"]) == 60


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lf.load_dataset(["a", "b"], ["x"]), "2 texts and 1 labels"),
        (lambda: lf.load_dataset(["a", "b"]), "of type list is no labelled data"),
        (lambda: lf.load_dataset(3), "of type int is no labelled data"),
        (lambda: lf.load_dataset([]), "of type list is no labelled data"),
        (lambda: lf.load_dataset([("a", "b", "c")]), "of type list is no labelled data"),
        (lambda: lf.load_dataset([{"text": "a"}, ("b", "c")]), "list is no labelled data"),
        (
            lambda: lf.load_dataset([{"text": "a", "label": 1}, {"text": "b"}]),
            "row 2: the label is missing",
        ),
        (lambda: lf.load_dataset({"a", "b"}, ["x", "y"]), "texts are an object of type set, which"),
        (lambda: lf.load_dataset(["a", "b"], {"x": 1}), "labels are an object of type dict, which"),
        (
            lambda: lf.load_dataset(pd.Series(["a", "b"]), pd.Series(["x", "y"], [1, 0])),
            r"in another order, as their index says; labels.loc\[texts.index\]",
        ),
        (
            lambda: lf.load_dataset(pd.DataFrame({"text": ["a"], "id": [1]}), ["x"]),
            r"labels= goes with texts alone, and this table has 2 columns \('text', 'id'\)",
        ),
        (
            lambda: lf.load_dataset(
                pd.DataFrame([["a", "x", "y"]], columns=["text", "label", "label"])
            ),
            "2 columns are called 'label'",
        ),
        (
            lambda: lf.load_dataset(["a"], ["x"], label_names=cast(Any, "ab")),
            r"names= takes a list of strings, .*write \['ab'\]",
        ),
        (
            lambda: lf.load_dataset(["a"], label_columns=cast(Any, "ab")),
            "columns= takes a list of strings",
        ),
        (lambda: lf.load_dataset([], []), "no rows"),
        (lambda: lf.load_dataset(["a", "b"], [None, "x"]), "row 1: the label is missing"),
        (lambda: lf.load_dataset(["a", None], ["x", "y"]), "row 2: the text is missing"),
        (
            lambda: lf.load_dataset(pd.DataFrame({"Text": ["a"], "label": [1]})),
            "there is no column 'text' .*there are: 'Text', 'label'",
        ),
        (
            lambda: lf.load_dataset("nowhere.csv"),
            "path nowhere.csv: not found in .*LAYERFUSION_DATA",
        ),
        (lambda: lf.load_dataset("data/train.csv"), "path data/train.csv: not found in"),
        (lambda: lf.load_dataset(Path("nope")), "path nope: not found in"),
        (lambda: lf.load_dataset("nope"), "dataset: there is no 'nope'; there are: hub, local"),
        (lambda: lf.load_dataset("mr", text="x"), "text= goes with files .* conf/dataset/mr.yaml"),
        (
            lambda: lf.extract(cast(Any, 3), "minilm"),
            "dataset= takes a TextDataset, a string or a path, found 3",
        ),
        (
            lambda: lf.extract(cast(Any, None), "minilm"),
            "dataset= takes .*, found None",
        ),
        (
            lambda: lf.embed("a text", "minilm"),
            r"texts= takes a list of strings, found 'a text'; write \['a text'\]",
        ),
        (lambda: lf.embed(["a", " "], "minilm"), "texts: text 2 of 2 is ' '"),
        (lambda: lf.embed(["a"], "nope"), "backbone: there is no 'nope'"),
        (lambda: lf.embed(["a"], "models/nope"), "path models/nope: not found .*; hub models/nope"),
        (lambda: lf.embed(["a"], "./nope"), r"backbone=\./nope: not found in .*LAYERFUSION_MODELS"),
        (lambda: lf.embed(["a"], Path(__file__)), "backbone=.*test_face.py: it is a file"),
        (lambda: lf.embed(["a"], Path("nope")), "backbone=nope: not found in"),
        (lambda: lf.embed(["a"], "/nowhere/nope"), "backbone=/nowhere/nope: it does not exist"),
        (
            lambda: lf.embed(["a"], cast(Any, ["minilm", "mpnet"])),
            "backbone: embed takes one, found minilm, mp",
        ),
        (lambda: lf.embed(["a"], cast(Any, [])), "backbone: at least one is needed"),
        (
            lambda: lf.embed(["a"], cast(Any, None)),
            "backbone: a name or a list of names is needed, found None",
        ),
        (
            lambda: lf.embed(["a"], "minilm", pooling=cast(Any, 3)),
            "pooling: a name or a list of names",
        ),
        (
            lambda: lf.embed(["a"], "minilm", config_dir="nope"),
            "--config-dir nope: there is no such",
        ),
        (lambda: lf.open_backbones(["a/x", "./b/x", "c/b/x"]), "'c/b/x' would be a second model"),
        (lambda: lf.results("nowhere"), "nowhere: there is no such folder"),
        (lambda: lf.load("nowhere"), "nowhere: there is no such folder"),
        (lambda: lf.write_report("nowhere"), "nowhere"),
    ],
)
def test_a_mistake_is_one_line(call: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LAYERFUSION_MODELS", "LAYERFUSION_DATA"):  # a user may have set them
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_the_name_of_a_config_is_not_silently_a_folder(place: Path) -> None:
    Path("minilm").symlink_to(place / "tiny")
    with pytest.raises(
        UserError, match=r"'minilm' is a name in conf/backbone, .* write '\./minilm'"
    ):
        lf.open_backbones("minilm")
    assert list(lf.open_backbones("./minilm")) == ["minilm"]
    Path("mr").write_text("")
    with pytest.raises(UserError, match="'mr' is a name in conf/dataset, and there is a file"):
        lf.load_dataset("mr")


def test_a_file_has_the_name_and_the_jobs_that_it_has_on_the_command_line(place: Path) -> None:
    words = [
        "dataset=local",
        f"dataset.path={place}/reviews.csv",
        f"backbone.tiny.path={place}/tiny",
    ]
    settings = {"logger": "none", "paths.cache": "cache"}
    there = load(compose("train", [*words, "layers=last", "logger=none", "paths.cache=cache"]))
    here = config_of(f"{place}/reviews.csv", place / "tiny", settings, layers="last")
    assert job_id(here) == job_id(there)
    assert lf.load_dataset(place / "reviews.csv").name == "reviews"


def test_an_id_of_the_hub_is_the_model_that_it_is_on_the_command_line(place: Path) -> None:
    data, model = str(place / "reviews.csv"), f"owner/a-name@{'a' * 40}"
    for one in (model, "owner/a-name", str(place / "tiny")):
        here = config_of(data, one, {"cache": place / "cache"})
        words = ["dataset=local", f"dataset.path={data}", f"paths.cache={place}/cache"]
        there = load(compose("train", [*words, f"backbone=[{one}]", "logger=none"]))
        assert here.backbone == there.backbone
        assert job_id(here) == job_id(there)
    assert config_of(data, model, {}).backbone["a_name"].sources[1].revision == "a" * 40


def test_models_of_one_name_stay_two_models(names: dict[str, Any]) -> None:
    """Folders are called after their last part, and after the last two where that is not enough."""
    for owner in "ab":
        Path(owner).mkdir()
        (Path(owner) / "model").symlink_to(names["model"])
    models = lf.open_backbones(["a/model", Path("b/model"), names["model"]], cache=names["cache"])
    assert list(models) == ["a_model", "b_model", "tiny"]


def test_models_and_data_are_found_in_the_folders_of_the_environment(
    place: Path, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERFUSION_MODELS", str(place))
    monkeypatch.setenv("LAYERFUSION_DATA", str(place))
    assert list(lf.open_backbones("tiny", cache=names["cache"])) == ["tiny"]
    assert lf.load_dataset("reviews.csv").fingerprint == names["data"].fingerprint


# -- a job ---------------------------------------------------------------------------------------


def test_a_layer_that_is_not_there_is_told_before_anything_is_computed(
    names: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="layers: there is no '9'; there are: 0, 1, 2, 3"):
        lf.embed(["a text"], names["model"], 9, cache=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_embeddings_are_those_of_the_model(names: dict[str, Any]) -> None:
    import torch
    import transformers

    texts = ["the film was good", "a bad plot"]
    found = lf.embed(texts, names["model"], [1, -1], cache=names["cache"])
    assert_type(found, dict[str, np.ndarray])  # held by `make lint`
    model = transformers.AutoModel.from_pretrained(names["model"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(names["model"])
    for row, text in enumerate(texts):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        for layer, state in (("1", states.hidden_states[1]), ("3", states.hidden_states[3])):
            expected = state[0].mean(dim=0).numpy()
            np.testing.assert_allclose(found[layer][row], expected, rtol=2e-3, atol=2e-3)
    with pytest.raises(UserError, match="layers: there is no '9'; there are: 0, 1, 2, 3"):
        lf.embed(texts, names["model"], 9, cache=names["cache"])


def test_a_job_from_python_is_read_again_and_gives_its_classifier(names: dict[str, Any]) -> None:
    job = names["finished"]
    again = lf.train(
        names["data"],
        names["model"],
        layers="all",
        seeds=1,
        cache=names["cache"],
        folder=job.folder,
        trainer={"max_epochs": 3},
    )
    assert again.record.created == job.record.created
    assert "\n" not in repr(job)
    selection = lf.select_layers(names["data"], names["model"], "all", cache=names["cache"])
    parts = names["data"].splits["train"], job.record, names["profile"], selection
    for shown in (names["data"], *parts):
        assert re.fullmatch(r"\w+\(.{5,150}\)", repr(shown)), type(shown)
    assert job.record.dataset.fingerprint == names["data"].fingerprint
    assert fingerprint(names["data"].splits, names["data"].label_names) == (
        names["data"].fingerprint
    )
    classifier = lf.load(job.folder)
    assert "\n" not in repr(classifier)
    assert len(repr(classifier)) < 300
    probabilities = classifier.predict_proba(names["texts"][:5])
    assert probabilities.shape == (5, 2)
    best = classifier.classes_[probabilities.argmax(axis=1)]
    assert list(best) == list(classifier.predict(names["texts"][:5]))


def test_a_classifier_is_saved_and_loaded_elsewhere(names: dict[str, Any], tmp_path: Path) -> None:
    classifier = lf.load(names["finished"].folder)
    copy = lf.load(classifier.save(tmp_path / "copy"))
    texts = names["texts"][:3]
    np.testing.assert_allclose(copy.predict_proba(texts), classifier.predict_proba(texts))
    with pytest.raises(UserError, match="there is something already"):
        classifier.save(tmp_path / "copy")


def test_results_are_one_typed_frame(names: dict[str, Any]) -> None:
    frame = lf.results(names["outputs"])
    assert len(frame) == len({*frame.job})
    row = frame[frame.layers.str.contains(" ")].iloc[0]
    record = names["finished"].record
    assert row.test_accuracy == record.test["accuracy"].mean
    assert row.baseline_accuracy == record.baseline.test["accuracy"]
    assert row.layers == "tiny:0 tiny:1 tiny:2 tiny:3"
    assert frame.dtypes["test_accuracy"] == np.float64
    assert list(lf.results(Path.cwd()).columns) == list(frame.columns)  # no job: no row


def test_figures_are_axes(names: dict[str, Any]) -> None:
    import matplotlib.pyplot as plt

    _, axes = plt.subplots()
    assert lf.plot_layers(names["profile"], ax=axes) is axes
    assert list(names["profile"].frame().columns[:4]) == ["backbone", "layer", "pooling", "depth"]
    plt.close("all")


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ({"limit.train": 20}, "limit.train"),
        ({"limit": {"train": 2}}, "limit"),
        ({"dataset": "mr"}, "dataset"),
        ({"dataset_": {"dedupe": True}}, "dataset"),
        ({"by_folds": 3}, "by_folds"),
        ({"logger": "wandb"}, "logger"),
        ({"profile.scores": ["probe"]}, "profile.scores"),
        ({"paths.outputs": "there"}, "paths.outputs"),
    ],
)
def test_a_setting_of_jobs_is_refused_where_rows_are_given(
    setting: dict[str, Any], name: str
) -> None:
    texts, labels = ["a film", "a plot", "an end", "a start"], [0, 1, 0, 1]
    line = f"^settings: {re.escape(name)}: it is of a job on a data set"
    with pytest.raises(lf.UserError, match=line):
        lf.LayerFusionClassifier("minilm", settings=setting).fit(texts, labels)
    with pytest.raises(lf.UserError, match=line):
        lf.rank("minilm", texts, labels, **setting)
    with pytest.raises(lf.UserError, match=line):
        lf.embed(texts, "minilm", **setting)


def test_a_sample_is_that_of_a_job_with_the_same_seed(tmp_path: Path):
    texts = [f"text {n}" for n in range(60)]
    labels = ["good" if n % 2 else "bad" for n in range(60)]
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "".join(map("{},{}\n".format, texts, labels)))
    samples = []
    for seed in (0, 3):
        found = lf.load_dataset(path, train=20, test=6, seed=seed)
        given = lf.load_dataset(texts, labels, train=20, test=6, seed=seed)
        words = [f"seed={seed}", "limit.train=20", "limit.test=6", f"dataset.path={path}"]
        own = dataset_of(load(compose("plan", ["dataset=local", "backbone=minilm", *words])))
        assert own.fingerprint == given.fingerprint == found.fingerprint
        samples.append(found.fingerprint)
    assert samples[0] != samples[1]
    for data in ((path,), (texts, labels)):
        for seed in (-1, 2**32):
            with pytest.raises(UserError, match=rf"seed={seed}: it must lie in"):
                lf.load_dataset(*data, train=20, seed=seed)
    assert lf.load_dataset(path, train=20, test=6).fingerprint == samples[0]
