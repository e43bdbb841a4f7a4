"""`backbone=` with a folder or an id of the hub in the place of a name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import layerfusion as lf
from layerfusion.assets import resolve
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.identity import job_id
from layerfusion.config.job import BackboneConfig
from layerfusion.errors import UserError
from layerfusion.runs import job
from tests.tiny import run, tiny_folder, tiny_texts


def _models(*words: str) -> dict[str, BackboneConfig]:
    return load(compose("train", ["dataset=sms_spam", *words])).backbone


@pytest.fixture
def place(tmp_path: Path, bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two models."""
    monkeypatch.delenv("LAYERFUSION_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "your models/yours"):
        shutil.copytree(bert_folder, name)
    return tmp_path


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["backbone=mine"], ["mine"]),
        (["backbone=./mine"], ["mine"]),
        (["backbone=[minilm,./mine]"], ["minilm", "mine"]),
        (["backbone=[minilm,owner/all-X_v2.1]"], ["minilm", "all_X_v2_1"]),
        (["backbone=[mine,'your models/yours']"], ["mine", "yours"]),
        (['backbone=[mine,"./mine",minilm]'], ["mine", "minilm"]),
        (["backbone=[mine,minilm]", "backbone.mine.max_length=16"], ["mine", "minilm"]),
        (["backbone=[mine,x]", "backbone.x.path=your models/yours"], ["mine", "x"]),
    ],
)
def test_a_place_gets_a_name(words: list[str], names: list[str]) -> None:
    models = _models(*words)
    assert sorted(models) == sorted(names)
    if "max_length" in words[-1]:
        assert models["mine"].max_length == 16


def _as_sentence_transformers(folder: Path) -> None:
    """Make a folder one of sentence-transformers, with a pooling, a length and a prompt."""
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
    prompts = {"prompts": {"query": "query: ", "passage": "p: "}, "default_prompt_name": "query"}
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(
            {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}.items()
        )
    ]
    (folder / "1_Pooling").mkdir()
    for name, content in {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": 12, "do_lower_case": False},
        "config_sentence_transformers.json": prompts,
        "1_Pooling/config.json": pooling,
    }.items():
        (folder / name).write_text(json.dumps(content))


@pytest.mark.usefixtures("place")
def test_a_folder_of_sentence_transformers_is_read_as_it_asks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _as_sentence_transformers(Path("mine"))
    config = load(compose("train", ["dataset=sms_spam", "backbone=mine"]))
    model = config.backbone["mine"]
    assert (model.max_length, model.template) == (12, "query: {text}")
    assert list(config.pooling) == ["first"]
    assert capsys.readouterr().err == (
        "backbone=mine: as its files for sentence-transformers ask: backbone.mine.max_length=12"
        " 'backbone.mine.template=\"query: {text}\"' 'pooling=[first]'\n"
    )
    own = ["backbone.mine.max_length=16", "pooling=[mean]"]
    config = load(compose("train", ["dataset=sms_spam", "backbone=[mine]", *own]))
    assert (config.backbone["mine"].max_length, list(config.pooling)) == (16, ["mean"])
    assert "max_length" not in capsys.readouterr().err
    two = load(compose("train", ["dataset=sms_spam", "backbone=[mine,minilm]"]))
    assert (two.backbone["mine"].max_length, list(two.pooling)) == (12, ["mean"])


@pytest.mark.usefixtures("place")
def test_python_reads_a_folder_of_sentence_transformers_in_the_same_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _as_sentence_transformers(Path("mine"))
    monkeypatch.setattr(job, "run_job", lambda config, *_, **__: config)
    cases: list[tuple[list[str], Any, dict[str, Any]]] = [
        (["backbone=mine"], "mine", {}),
        (["backbone=mine"], Path("mine"), {}),
        (["backbone=[minilm,mine]"], ["minilm", "mine"], {}),
        (["backbone=mine", "pooling=[max]"], "mine", {"pooling": "max"}),
        (["backbone=mine", "experiment=auto"], "mine", {"experiment": "auto"}),
        (["backbone=mine", "layers=all"], ["mine"], {"layers": "all"}),
        (
            ["backbone=mine", "backbone.mine.max_length=16"],
            "mine",
            {"backbone_": {"mine": {"max_length": 16}}},
        ),
        (
            ["backbone=mine", "backbone.x.path=your models/yours"],
            "mine",
            {"backbone_": {"x": {"path": "your models/yours"}}},
        ),
    ]
    for words, models, more in cases:
        expected = load(compose("train", ["dataset=sms_spam", *words]))
        found: Any = lf.train("sms_spam", models, **more).record
        assert (found.backbone, found.pooling) == (expected.backbone, expected.pooling), words
        assert job_id(found) == job_id(expected)

    texts = ["a film", "the film was good and it was long and it was good too"]
    theirs = SentenceTransformer("mine").encode(texts)
    embedder = lf.TextEmbedder("mine", cache="cache")
    assert embedder.get_feature_names_out()[0] == "mine:3:first:0"
    for vectors in (lf.embed(texts, "mine", cache="cache"), embedder.transform(texts)):
        mine = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    rows = [f"{text} {word}" for word in ("a", "was", "good", "long") for text in texts]
    ranked = lf.rank("mine", rows, ["a", "b"] * 4, cache="cache", layers_={"folds": 2})
    assert ranked.pooling[0] == "first"


@pytest.mark.usefixtures("place")
def test_a_damaged_folder_of_sentence_transformers_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _as_sentence_transformers(Path("mine"))
    Path("mine/modules.json").write_text("{")
    code, said = run(["plan", "dataset=sms_spam", "backbone=mine"], capsys)
    assert code == 2
    assert "modules.json is no valid JSON" in said.splitlines()[-1]


@pytest.mark.usefixtures("place")
def test_a_folder_is_the_same_job_as_by_its_key() -> None:
    by_place = load(compose("train", ["dataset=sms_spam", "backbone=mine"]))
    by_key = load(compose("train", ["dataset=sms_spam", "backbone.mine.path=mine"]))
    assert job_id(by_place) == job_id(by_key)


@pytest.mark.usefixtures("place")
def test_an_id_of_the_hub_may_have_a_commit_and_a_folder_goes_before_it() -> None:
    [path, hub] = _models(f"backbone=owner/name@{'a' * 40}")["name"].sources
    assert (path.path, hub.hub, hub.revision) == ("owner/name", "owner/name", "a" * 40)
    assert _models("backbone=owner/name")["name"].sources[1].revision == "main"
    Path("owner").mkdir()
    Path("owner/name").symlink_to(Path("mine").resolve())
    assert _models("backbone=owner/name")["name"].path == "owner/name"


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("backbone=./none", r"backbone=\./none: not found in .*; a folder with config.json"),
        ("backbone=~nouser/m", "backbone=~nouser/m: not found in .*; a folder with config.json"),
        ("backbone=data.csv", "backbone=data.csv: it is a file; a folder with config.json"),
        ("backbone=[empty]", "backbone=empty: the folder has no config.json; a folder"),
        ("backbone=[nope]", "backbone: there is no 'nope'; there are: bert_base"),
    ],
)
def test_a_mistake_is_one_line(word: str, says: str) -> None:
    Path("empty").mkdir()
    Path("data.csv").write_text("text,label\n")
    with pytest.raises(UserError, match=says) as error:
        compose("train", [word])
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("command", ["plan", "extract", "profile", "train"])
def test_every_command_says_that_a_place_is_taken_for_an_id_of_the_hub(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    compose(command, ["backbone=[mine]"])
    assert capsys.readouterr().err == ""
    compose(command, ["backbone=[mine,models/none]"])
    said = capsys.readouterr().err
    assert said.startswith(f"backbone=models/none: not found in {Path.cwd()}")
    assert said.endswith("; taken for a model of the Hugging Face hub\n")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", ["min:e", "minilm+mine"])
def test_a_name_of_which_columns_would_make_two_is_refused(name: str) -> None:
    Path("own/backbone").mkdir(parents=True)
    Path("own/backbone/odd.yaml").write_text(f'"{name}":\n  path: mine\n')
    composed = compose("train", ["--config-dir=own", "dataset=sms_spam", "backbone=odd"])
    with pytest.raises(UserError, match=r"^backbone: a name must have none of : \+, which join"):
        load(composed)


@pytest.mark.usefixtures("place", "offline")
def test_a_hub_that_cannot_be_reached_names_the_key_that_needs_none(tmp_path: Path) -> None:
    sources = _models("backbone=owner/name")["name"].sources
    with pytest.raises(UserError, match=r"need no hub: backbone\.name\.path=FOLDER"):
        resolve(sources, key="backbone.name", kind="backbone", cache=tmp_path)


@pytest.mark.slow
def test_a_finished_sweep_is_not_that_of_another_folder_of_the_same_name(
    place: Path, bert_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_texts(place / "base.csv", 60)
    tiny_folder("mpnet", place / "other/mine")
    quick = ["seeds=1", "trainer.max_epochs=1", "logger=none", "extract.token_budget=512"]
    for folder in ("mine", "mine", "other/mine"):
        sweep = ["train", "-m", "base.csv", f"backbone=[{folder}]", "layers=last,all", *quick]
        code, said = run(sweep, capsys)
        assert code == 0, said
    specs = [
        json.loads(path.read_text())["backbones"]["mine"]["spec_hash"]
        for path in place.glob("outputs/sweeps/main/*/metrics.json")
    ]
    assert len(specs) == 4
    assert len(set(specs)) == 2


@pytest.mark.slow
def test_a_sweep_over_places_has_a_job_each(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_texts(place / "base.csv", 60)
    quick = ["seeds=1", "trainer.max_epochs=1", "logger=none", "extract.token_budget=512"]
    sweep = ["train", "-m", "base.csv", "backbone=[mine],['your models/yours']", *quick]
    code, said = run(sweep, capsys)
    assert code == 0, said
    jobs = sorted(place.glob("outputs/sweeps/main/*/metrics.json"))
    assert len(jobs) == 2
    models = {name for job in jobs for name in ("mine", "yours") if f'"{name}"' in job.read_text()}
    assert models == {"mine", "yours"}
