"""Pipelines of sentence-transformers that are no stack of layers, as sources of one layer."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

import layerfusion as lf
from layerfusion.cli import main
from layerfusion.config.job import BackboneConfig, ExtractConfig
from layerfusion.embeddings import gpus
from layerfusion.embeddings import pipeline as pipeline_file
from layerfusion.embeddings.given import open_given
from layerfusion.embeddings.store import FILLING
from layerfusion.errors import UserError
from layerfusion.records.job import read_record
from tests.tiny import WORDS, run, tiny_folder, tiny_job, tiny_texts, tiny_tokenizer

QUICK = ("logger=none", "seeds=1", "fusion.width=4", "trainer.max_epochs=1", "layers=last")
PROMPT = "the film : "


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of word vectors as a pipeline, and a job of it and a model."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    root = tmp_path_factory.mktemp("pipelines")
    words = tiny_tokenizer(decoder=False).backend_tokenizer
    made = SentenceTransformer(
        modules=[StaticEmbedding(words, embedding_dim=8)],
        device="cpu",
        prompts={"classify": PROMPT},
        default_prompt_name="classify",
    )
    made.save_pretrained(str(root / "static"))
    tiny_texts(root / "texts.csv", 60)
    tiny_folder("bert", root / "bert")
    assert main(["train", *words_of(root), *QUICK, f"hydra.run.dir={root}/job"]) == 0
    return root


def words_of(root: Path) -> list[str]:
    job = tiny_job(root / "texts.csv", root / "bert", root / "cache")[:-2]
    return [*job, f"backbone.static.pipeline={root}/static"]


def encoded(root: Path, texts: list[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return np.asarray(SentenceTransformer(str(root / "static"), device="cpu").encode(texts))


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    code, said = run(words, capsys)
    assert code == 2, said
    return said.splitlines()[-1]


def changed(root: Path, folder: Path, name: str, change: Any) -> str:
    """Copy the pipeline with one of its files written anew, and say why it is refused."""
    shutil.copytree(root / "static", folder)
    change(folder / name)
    with pytest.raises(UserError) as refusal:
        open_given("p", BackboneConfig(pipeline=str(folder)), folder / "cache", text="text")
    said = str(refusal.value)
    assert "\n" not in said
    return said


# -- jobs ----------------------------------------------------------------------------------------


def test_its_vectors_are_those_of_its_library(root: Path) -> None:
    texts = ["a good film", "a bad plot", "the awful story of a bank"]
    settings: dict[str, Any] = {"backbone.static": {"pipeline": str(root / "static")}}
    found = lf.embed(texts, "static", cache=root / "cache", **settings)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, encoded(root, texts), atol=2e-3)
    settings["backbone.static"] |= {"dimensions": 4, "template": "great {text}"}
    cut = lf.embed(texts, "static", cache=root / "cache", **settings)
    assert isinstance(cut, np.ndarray)
    wanted = encoded(root, [f"great {text}" for text in texts])[:, :4]
    np.testing.assert_allclose(cut, wanted, atol=2e-3)


def kinds_of(root: Path) -> dict[str, list[Any]]:
    """Name of each kind of pipeline to its parts."""
    from sentence_transformers.base.modules import Dense, Router, Transformer
    from sentence_transformers.sentence_transformer import modules
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    split = WhitespaceTokenizer(WORDS, stop_words=[])
    table = np.random.default_rng(0).normal(size=(len(WORDS), 8)).astype(np.float32)
    words = tiny_tokenizer(decoder=False).backend_tokenizer
    static = modules.StaticEmbedding(words, embedding_dim=8)
    return {
        "words": [modules.WordEmbeddings(split, table), modules.Pooling(8)],
        "bag": [modules.BoW(WORDS)],
        "dense": [Transformer(str(root / "bert")), modules.Pooling(32), Dense(32, 5)],
        "router": [Router.for_query_document([static], [static])],
    }


@pytest.mark.parametrize("kind", ["words", "bag", "dense", "router"])
def test_every_kind_is_run_as_it_is(root: Path, kind: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = str(tmp_path / kind)
    SentenceTransformer(modules=kinds_of(root)[kind], device="cpu").save_pretrained(folder)
    texts = ["a good film", "the bad plot of it"]
    wanted = SentenceTransformer(folder, device="cpu").encode(texts)
    settings: dict[str, Any] = {"backbone.p": {"pipeline": folder}}
    found = lf.embed(texts, "p", cache=tmp_path, **settings)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, wanted, atol=2e-3)


@pytest.mark.parametrize("more", [["time_limit=600"], ["layers=top_k", "layers.pilot=20"]])
def test_time_limits_and_pilots_take_it(root: Path, more: list[str], tmp_path: Path) -> None:
    words = [*words_of(root), *QUICK, *more, f"paths.cache={tmp_path}/cache"]
    assert main(["train", *words, f"hydra.run.dir={tmp_path}/job"]) == 0
    assert set(read_record(tmp_path / "job").considered) == {"static", "tiny"}


def test_the_record_knows_the_time_and_no_flops(root: Path) -> None:
    record = read_record(root / "job")
    static = record.backbones["static"]
    assert [str(x.layer) for x in record.layers if x.backbone == "static"] == ["0"]
    assert (static.flops_per_text, static.parameters, static.endpoint) == (None, None, "")
    assert record.flops_per_text is None
    assert static.milliseconds_per_text is not None
    assert static.milliseconds_one is not None
    assert static.milliseconds_one > 0
    assert static.milliseconds_batch is not None


def test_vectors_are_kept_by_the_content_of_the_pipeline(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = root / "cache"

    def store(folder: Path, **settings: Any) -> str:
        config = BackboneConfig(pipeline=str(folder), **settings)
        return open_given("any", config, cache, text="text").store.name

    moved = shutil.copytree(root / "static", tmp_path / "moved")
    first = store(root / "static")
    assert store(moved) == first == store(moved, batch=3)
    assert store(moved, dimensions=4) != first
    (moved / "1_More").mkdir()
    (moved / "1_More/config.json").write_text('{"bias": true}')
    assert store(moved) != first
    monkeypatch.setattr(pipeline_file.Pipeline, "_load", None)  # all vectors are there already
    again = ["train", *words_of(root), *QUICK, "seed=5", f"hydra.run.dir={tmp_path}/again"]
    assert main(again) == 0


def test_in_a_sweep_it_waits_for_a_gpu_before_it_locks_the_store(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a job with the GPU may wait for the store while another waits for the GPU."""
    source = open_given("any", BackboneConfig(pipeline=str(root / "static")), tmp_path, text="text")
    right, steps = pipeline_file.Pipeline._load, list[str]()

    @contextmanager
    def free(*_words: Any) -> Iterator[int]:
        with FileLock(source.store.folder / FILLING, timeout=0):
            steps.append("waits")
        yield 0
        steps.append("is done")

    def load(pipeline: pipeline_file.Pipeline, device: str) -> Any:
        steps.append("loads")
        return right(pipeline, device)

    monkeypatch.setattr(gpus, "gpu_names", lambda: ["only"])
    monkeypatch.setattr(gpus, "free_gpu", free)
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _index: None)
    monkeypatch.setattr(pipeline_file.Pipeline, "_load", load)
    with gpus.taking_turns(spread=False):
        source.extract([["rain fell", "music rang"]], ExtractConfig())
        assert steps == ["waits", "loads", "is done"]
        source.extract([["rain fell", "music rang"]], ExtractConfig())
    assert steps == ["waits", "loads", "is done"]


def test_it_is_planned_and_reported_and_limits_of_flops_are_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(root)
    assert "static: all 60 texts are in the store already" in run(["plan", *words], capsys)[1]
    code, said = run(["plan", *words, f"paths.cache={tmp_path}/cache"], capsys)
    assert code == 0
    assert f"static: 60 of 60 texts from path {root}/static, about" in said
    assert "FLOPs and time not known" in said
    said = told(["train", *words, *QUICK, "layers.budget.flops_per_text=1e9"], capsys)
    assert "so nobody knows their FLOPs" in said
    assert main(["report", str(root / "job")]) == 0
    page = (root / "job/report.html").read_text()
    assert "GFLOPs not measured, as the vectors of static are computed elsewhere" in page
    assert "--endpoint" not in page


# -- classifiers ---------------------------------------------------------------------------------


def test_a_classifier_runs_the_pipeline_that_it_was_trained_with(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = list(pd.read_csv(root / "texts.csv")["text"][:6])
    (tmp_path / "new.txt").write_text("\n".join(texts))
    predict = ["predict", f"{root}/job", f"{tmp_path}/new.txt", "-o", f"{tmp_path}/out.csv"]
    assert main(predict) == 0
    found = pd.read_csv(tmp_path / "out.csv")[["p(neg)", "p(pos)"]]
    moved = shutil.copytree(root / "static", tmp_path / "moved")
    classifier = lf.load(root / "job", models={"static": moved}, device="cpu")
    np.testing.assert_allclose(found, classifier.predict_proba(texts), atol=1e-5)
    about = json.loads((moved / "config_sentence_transformers.json").read_text())
    about["default_prompt_name"] = None
    (moved / "config_sentence_transformers.json").write_text(json.dumps(about))
    said = told([*predict, "--model", f"static={moved}"], capsys)
    assert f"backbone static: path {moved} does not hold the files that the classifier was" in said
    export = ["export", f"{root}/job", "--to", "onnx", "--output", f"{tmp_path}/onnx"]
    assert "the vectors of static are computed elsewhere, so no folder can hold" in told(
        export, capsys
    )


def test_a_shared_classifier_names_the_last_part_of_its_folder(root: Path) -> None:
    from layerfusion.runs.shared import shareable

    bundle = lf.load(root / "job", device="cpu")
    bundle.config.backbone["unused"] = BackboneConfig(pipeline="clients/acme")
    shared = shareable(bundle)
    assert shared.config.backbone["static"].pipeline == "static"
    assert shared.models["static"].origin == "path static"
    assert shared.config.backbone["unused"].pipeline == "acme"
    fetched = replace(bundle.models["static"], origin="hub ada/static@5f")
    bundle.config.backbone["static"] = BackboneConfig(pipeline="ada/static")
    shared = shareable(replace(bundle, models={**bundle.models, "static": fetched}))
    assert shared.config.backbone["static"].pipeline == "ada/static"


# -- what is refused -----------------------------------------------------------------------------


def test_no_code_is_run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("evil.py").write_text("open('ran', 'w')\n\n\nclass Module:\n    pass\n")

    def module(kind: str) -> Any:
        return lambda file: file.write_text(json.dumps([{"idx": 0, "path": "", "type": kind}]))

    for number, name in enumerate(("evil.Module", "os.system")):
        said = changed(root, tmp_path / f"copy{number}", "modules.json", module(name))
        assert f"names {name}, which is no part of sentence-transformers: refused" in said
    for key, value in (
        ("types", {"a": "evil.Module"}),
        ("tokenizer_class", "evil.Module"),
        ("activation_function", "evil.Module"),
    ):
        content = json.dumps({key: value})
        said = changed(root, tmp_path / key, "router_config.json", lambda f: f.write_text(content))  # noqa: B023
        assert "names evil.Module" in said

    def pickled(file: Path) -> None:
        file.rename(file.with_name("pytorch_model.bin"))

    outside = json.dumps(
        [{"idx": 0, "path": "../../x", "type": "sentence_transformers.models.Pooling"}]
    )
    said = changed(
        root, tmp_path / "outside", "modules.json", lambda file: file.write_text(outside)
    )
    assert "names a folder outside: ../../x" in said
    said = changed(root, tmp_path / "pickled", "model.safetensors", pickled)
    assert "pytorch_model.bin is a pickle, which may run code: refused" in said
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("modules.json", os.remove, "has no modules.json, so that it is no pipeline"),
        ("modules.json", lambda f: f.write_text("{"), "is no valid JSON"),
        ("model.safetensors", lambda f: os.truncate(f, 99), "is damaged or cut off"),
    ],
)
def test_a_folder_that_is_none_is_told_before_anything_is_computed(
    root: Path, name: str, change: Any, said: str, tmp_path: Path
) -> None:
    assert said in changed(root, tmp_path / "copy", name, change)


def test_a_folder_without_layers_says_how_it_can_be_used(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tiny_job(root / "texts.csv", root / "static", root / "cache")
    said = told(["train", *words, *QUICK], capsys)
    assert "modules.json begins with StaticEmbedding" in said
    assert "backbone.tiny.pipeline= takes its vectors as they are" in said


def test_what_its_library_cannot_load_is_one_line(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "static", tmp_path / "copy")
    (tmp_path / "copy/tokenizer.json").unlink()
    settings: dict[str, Any] = {"backbone.p": {"pipeline": str(tmp_path / "copy")}}
    with pytest.raises(UserError, match=r"backbone\.p\.pipeline: .*cannot be loaded: ") as told:
        lf.embed(["a film"], "p", cache=tmp_path, **settings)
    assert "\n" not in str(told.value)


def test_a_machine_without_the_library_says_what_to_install(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline_file, "find_spec", lambda name: None)
    said = told(["train", *words_of(root), *QUICK], capsys)
    assert "backbone.static.pipeline: needs sentence-transformers;" in said
    assert "pip install 'layerfusion[pipelines]'" in said


@pytest.mark.parametrize("other", ["path=x", "vectors=x.npy", "dtype=bfloat16", "max_length=9"])
def test_settings_that_mean_nothing_beside_it(
    root: Path, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(["train", *words_of(root), *QUICK, f"backbone.static.{other}"], capsys)
    assert "it means nothing beside" in said


def test_a_place_that_has_none_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(["train", *words_of(root)[:-1], *QUICK, "backbone.p.pipeline=/no/folder"], capsys)
    assert "backbone.p.pipeline: no source can serve: path /no/folder: it does not exist" in said
