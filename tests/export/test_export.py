"""From a finished job to folders that other libraries load, without LayerFusion."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors import safe_open

from layerfusion import LayerFusionClassifier
from layerfusion.assets.memo import CHECKSUM, seal
from layerfusion.cli import main
from layerfusion.errors import UserError
from layerfusion.export import targets
from layerfusion.export.card import model_card
from layerfusion.export.cut import SAMPLE, cut
from layerfusion.export.onnx_folder import (
    classify,
    cost_of_int8,
    preparation,
    quantise,
    write_onnx,
)
from layerfusion.export.transformers_folder import write_transformers
from layerfusion.fusion.head_files import StackHead
from layerfusion.fusion.pool import SINGLE
from layerfusion.fusion.pool_fitting import fit_pool
from layerfusion.fusion.stacking import Stack
from layerfusion.layers.probe import LinearProbe
from layerfusion.records.job import BUNDLE
from layerfusion.runs.bundle import Bundle
from layerfusion.runs.bundle_loading import load_bundle
from tests.tiny import CONFIGS, run, tiny_folder, tiny_job, tiny_texts, tiny_topics

TEXTS = ["the good film", "  an awful plot, said the bank\n", "oil " * 40, "Profit rose & FELL"]
LICENCE = "---\nlicense: apache-2.0\n---\n# A model\n"


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Jobs: gated layers of two models; stacks with words; one layer of one model."""
    root = tmp_path_factory.mktemp("export")
    for family in ("bert", "llama"):
        (tiny_folder(family, root / family) / "README.md").write_text(LICENCE)
    rows = pd.read_csv(tiny_texts(root / "all.csv", 80))
    rows.to_csv(root / "texts.csv", index=False)
    common = [
        *(x for x in tiny_job(root / "texts.csv", root, root / "cache") if "tiny" not in x),
        "logger=none",
        "layers=fixed",
    ]
    both = [f"backbone.{name}.path={root}/{name}" for name in ("bert", "llama")]
    prompt = "backbone.llama.template='Say it: {text} Well?'"
    fused = ["pooling=[mean,last]", "layers.fixed.bert=[1,2]", "layers.fixed.llama=[2,3,norm]"]
    given = {
        "gated": [*both, prompt, *fused, "fusion=gated", "seeds=2"],
        "stacked": [
            *both, "lexical=[words]", "layers.fixed.bert=[1]", "layers.fixed.llama=[2]",
            "layers.fixed.words=[0]", "fusion=stacked", "seeds=1",
        ],
        "one": [both[0], "layers.fixed.bert=[2]", "fusion=concat", "seeds=1"],
        "windows": [
            *both, prompt, "long_texts=windows", "pooling=[mean,last,max,mean_rest]",
            "layers.fixed.bert=[1,2]", "layers.fixed.llama=[2,norm]", "fusion=gated", "seeds=1",
            *(f"backbone.{name}.{key}" for name in ("bert", "llama")
              for key in ("max_length=14", "window_overlap=3")),
        ],
    }  # fmt: skip
    for name, words in given.items():
        assert main(["train", *common, *words, f"hydra.run.dir={root}/{name}"]) == 0
    for name, fusion in (("topics", "late_stack"), ("topics_late", "late")):
        classifier = LayerFusionClassifier(
            [str(root / "bert"), str(root / "llama")], layers="last", fusion=fusion, seeds=2,
            lexical="words", objective="micro_f1", cache=str(root / "cache"),
        )  # fmt: skip
        classifier.fit(*tiny_topics(60)).save(root / name)
    return root


FOLDERS = {
    "gated": ("gated", "transformers"),
    "stacked": ("stacked", "transformers"),
    "gated_embedding": ("gated", "sentence-transformers"),
    "one_embedding": ("one", "sentence-transformers"),
    "windows": ("windows", "transformers"),
    "windows_embedding": ("windows", "sentence-transformers"),
    "gated_graph": ("gated", "onnx"),
    "stacked_graph": ("stacked", "onnx"),
    "windows_graph": ("windows", "onnx"),
    "topics": ("topics", "transformers"),
    "topics_late": ("topics_late", "transformers"),
    "topics_graph": ("topics", "onnx"),
    "topics_late_graph": ("topics_late", "onnx"),
}
TOPICS = ("topics", "topics_late", "topics_graph", "topics_late_graph")


@pytest.fixture(scope="module")
def outside(jobs: Path) -> dict[str, Any]:
    """Numbers of the exported folders, from a process without LayerFusion."""
    folders = {}
    (jobs / "out").mkdir()
    for name, (job, target) in FOLDERS.items():
        assert main(["export", f"{jobs}/{job}", "--to", target]) == 0
        # Elsewhere, so that nothing beside it is used.
        folders[name] = (target, str((jobs / job / target).rename(jobs / "out" / name)))
    asked, found = jobs / "asked.json", jobs / "found.json"
    asked.write_text(json.dumps({"texts": TEXTS, "folders": folders}))
    script = Path(__file__).with_name("outside.py")
    quiet = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    quiet |= {"HF_HOME": str(jobs / "hub"), "HF_HUB_OFFLINE": "1"}
    strict = ("-X", "warn_default_encoding", "-W", "error::EncodingWarning:__main__")
    ran = subprocess.run(
        [sys.executable, *strict, str(script), str(asked), str(found)],
        cwd=jobs, env=quiet, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(found.read_text())


def own_vectors(bundle: Bundle) -> np.ndarray:
    """What the heads of a classifier see, side by side."""
    vectors = next(bundle.vectors(TEXTS))
    head: Any = bundle.heads[0]
    return np.concatenate(head.standardiser([vectors[one] for one in bundle.layers]), axis=1)


@pytest.mark.parametrize(
    "name",
    ["gated", "stacked", "windows", "gated_graph", "stacked_graph", "windows_graph", *TOPICS],
)
def test_probabilities_are_those_of_predict(name: str, jobs: Path, outside: dict) -> None:
    expected = load_bundle(jobs / FOLDERS[name][0], device="cpu").probabilities(TEXTS)
    for kind in ("probabilities", "piped"):
        if kind in outside[name]:
            np.testing.assert_allclose(outside[name][kind], expected, atol=1e-4)


@pytest.mark.parametrize("name", TOPICS)
def test_several_labels_are_named_as_predict_names_them(
    name: str, jobs: Path, outside: dict
) -> None:
    bundle = load_bundle(jobs / FOLDERS[name][0], device="cpu")
    found = np.array(outside[name]["probabilities"])
    assert np.abs(found.sum(axis=1) - 1).max() > 0.1
    np.testing.assert_array_equal((found >= 0.5).astype(int), bundle.predict(TEXTS))
    card = (jobs / "out" / name / "README.md").read_text()
    assert "## Labels\n\nA text may have any number of them." in card
    if name.endswith("graph"):
        assert outside[name]["said"] == [str(bundle.labels_of(found))]
        assert "Each column of `probabilities` is a label" in card
    else:
        assert ".logits.sigmoid())" in card
        first = re.findall(r"\d[\d.e+-]*", outside[name]["said"][0])
        np.testing.assert_allclose([float(x) for x in first], found[0], atol=1e-3)


def test_the_loss_of_several_labels_is_that_of_their_log_odds(jobs: Path) -> None:
    bundle = load_bundle(jobs / "topics", device="cpu")
    part = cut(bundle)
    inputs = preparation(part)(TEXTS)
    given = {name: torch.from_numpy(values) for name, values in inputs.items()}
    labels = torch.tensor([[1, 0, 1]] * len(TEXTS))
    found = torch.from_numpy(bundle.probabilities(TEXTS))
    loss = part.model(**given, labels=labels).loss
    expected = torch.nn.functional.binary_cross_entropy(found, labels.float())
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_eight_bits_are_measured_by_all_labels_of_a_text(jobs: Path, tmp_path: Path) -> None:
    bundle = load_bundle(jobs / "topics", device="cpu")
    texts, labels = tiny_topics(20)
    part = cut(bundle)
    write_onnx(bundle, part, tmp_path)
    quantise(tmp_path)
    said = cost_of_int8(part, tmp_path, texts, labels.to_numpy(bool), "x's test")
    found = [classify(part, tmp_path / file, texts) for file in ("model.onnx", "float32.onnx")]
    right = [100 * ((one >= 0.5) == labels.to_numpy()).all(axis=1).mean() for one in found]
    assert f"exact match {right[0]:.1f} % in place of {right[1]:.1f} %" in said
    assert "; same labels on " in said


@pytest.mark.parametrize(
    "name", ["gated", "gated_embedding", "one_embedding", "windows", "windows_embedding"]
)
def test_embeddings_are_what_the_heads_see(name: str, jobs: Path, outside: dict) -> None:
    expected = own_vectors(load_bundle(jobs / FOLDERS[name][0], device="cpu"))
    np.testing.assert_allclose(outside[name]["fused"], expected, rtol=1e-3, atol=1e-3)
    assert outside[name].get("width", expected.shape[1]) == expected.shape[1]


def test_one_layer_of_one_model_needs_no_code_of_ours(outside: dict, jobs: Path) -> None:
    assert outside["one_embedding"]["modules"] == ["Transformer", "Pooling", "Dense"]
    assert not list((jobs / "out/one_embedding").rglob("*.py"))
    assert outside["gated_embedding"]["modules"] == ["LayerFusionEmbedding"]


@pytest.mark.usefixtures("outside")
def test_blocks_above_the_highest_layer_are_not_written(jobs: Path) -> None:
    with safe_open(jobs / "out/stacked/model.safetensors", "pt") as weights:
        names = set(weights.keys())
    blocks = {found[0] for name in names if (found := re.findall(r"layers?\.\d+", name))}
    assert blocks == {"layer.0", "layers.0", "layers.1"}  # bert to layer 1, llama to layer 2
    # The norm of the whole llama is no part of its layer 2.
    assert not any(
        name.startswith(("backbones.1.norm", "backbones.1.model.norm")) for name in names
    )
    held = {path.suffix for path in (jobs / "out").rglob("*") if path.is_file()}
    assert held == {".json", ".md", ".onnx", ".py", ".safetensors"}  # and no pickle


@pytest.mark.usefixtures("outside")
def test_the_card_says_what_it_is_and_whose(jobs: Path) -> None:
    card = (jobs / "out/gated/README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["pipeline_tag"] == "text-classification"
    assert front["license"] == "apache-2.0"
    record = json.loads((jobs / "gated/metrics.json").read_text())
    figure = record["test"]["consensus"]
    accuracy, low, high = (f"{100 * figure[key]:.1f}" for key in ("mean", "low", "high"))
    assert f"Accuracy of the averaged heads on test: {accuracy} % [{low}, {high}]." in card
    assert "| llama | norm | last | fixed by the user |" in card
    assert "- 0: neg\n- 1: pos\n" in card
    assert f"- job: {record['job']}" in card
    assert str(jobs) not in card.split("## Models")[0].split("## Use")[1].split("## Classes")[0]


def test_eight_bits_are_measured_on_the_rows_of_test(
    jobs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "graph"
    assert main(["export", f"{jobs}/one", "--to", "onnx", "--int8", "--output", str(out)]) == 0
    said = capsys.readouterr().out
    rows = json.loads((jobs / "one/metrics.json").read_text())["dataset"]["rows"]["test"]
    found = re.search(rf"8 bits on {rows} rows of texts's test: accuracy (\S+) % in place of", said)
    assert found is not None
    sizes = re.search(r"8 bits: (\S+) MB in place of (\S+) MB", said)
    assert sizes is not None
    assert float(sizes[1]) < float(sizes[2])
    assert {path.name for path in out.iterdir()} == {
        "README.md", "labels.json", "model.onnx", "tokenizer.json",
    }  # fmt: skip
    assert found[0] in (out / "README.md").read_text()
    given = tmp_path / "texts.csv"
    given.write_bytes("body;stars\nein gutes Stück;5\nein übler Film;1\n ;2\n".encode("utf-16"))
    more = ["--texts", str(given), "--text", "body", "--encoding", "utf-16"]
    more += ["--output", str(tmp_path / "again")]
    assert main(["export", f"{jobs}/one", "--to", "onnx", "--int8", *more]) == 0
    assert "8 bits on 2 texts of yours: same label on " in capsys.readouterr().out


def test_a_folder_is_never_overwritten_and_none_is_left_half_made(
    jobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = ["export", f"{jobs}/one", "--to", "transformers", "--output", str(out)]
    assert main(command) == 0  # an empty folder is as good as none
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    code, said = run(command, capsys)
    assert (code, said) == (
        2,
        f"layerfusion: {out}: there is something already; choose a new folder",
    )
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert oct((out / "model.safetensors").stat().st_mode)[-3:] == "644"

    def worse(_folder: Path) -> np.ndarray:
        return np.full((len(SAMPLE), 2), 0.5, np.float32)

    monkeypatch.setattr("layerfusion.export.transformers_folder.probabilities_of", worse)
    code, said = run([*command[:-1], str(tmp_path / "other")], capsys)
    assert code == 2
    assert "differs by" in said
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stacked", "--to", "sentence-transformers"], "lexical sources (words), and an embedding"),
        (["one", "--to", "coreml"], "--to: there is no 'coreml'; there are: transformers,"),
        (["one", "--to", "transformers", "--int8"], "--int8, --texts: they are for --to onnx"),
        (["one", "--to", "onnx", "--texts", "x.txt"], "--texts: it is what --int8 is compared on"),
        (["nowhere", "--to", "onnx"], "nowhere: there is no such folder"),
        (["one", "--to", "onnx", "--int8", "--texts", "no.txt"], "no.txt: there is no such file"),
        (["one", "--to", "onnx", "--model", "bert=/nowhere"], "backbone.bert"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    words: list[str], said: str, jobs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    code, told = run(["export", f"{jobs}/{words[0]}", *words[1:]], capsys)
    assert code == 2
    assert said in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "nf4"}, "a job with dtype=float32 or bfloat16 can be exported"),
        ({"trust_remote_code": True}, "a job on a model of transformers itself can be exported"),
    ],
)
def test_parts_that_stay_are_named_with_the_way_out(
    settings: dict[str, Any], said: str, jobs: Path
) -> None:
    bundle = load_bundle(jobs / "one", device="cpu")
    bundle.config.backbone["bert"] = replace(bundle.config.backbone["bert"], **settings)
    with pytest.raises(UserError, match=said):
        cut(bundle)


def test_texts_are_read_as_the_job_read_its_own(
    jobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(
        "def lines(path):\n    return {'text': path.read_text().split('|')}\n"
    )
    shutil.copytree(jobs / "one" / BUNDLE, tmp_path / "job")
    about = json.loads((tmp_path / "job/bundle.json").read_text())
    about["config"]["dataset"]["reader"] = "mine:lines"
    about.pop(CHECKSUM)
    (tmp_path / "job/bundle.json").write_text(json.dumps(seal(about)))
    given = tmp_path / "texts.mine"
    given.write_text("a good film|an awful plot|oil")
    words = ["export", str(tmp_path / "job"), "--to", "onnx", "--int8", "--texts", str(given)]
    code, said = run([*words, "--output", str(tmp_path / "out")], capsys)
    assert (code, "dataset.reader" in said) == (2, True)
    assert main([*words, "--output", str(tmp_path / "out"), "--config-dir", str(tmp_path)]) == 0
    assert "8 bits on 3 texts of yours" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("job", "target", "said"),
    [
        ("stacked", "sentence-transformers", r"lexical sources \(words\)"),
        ("one", "onnx", "a graph is of float32, and the models of this job run in bfloat16"),
    ],
)
def test_what_a_target_lacks_is_told_before_a_model_is_loaded(
    job: str, target: str, said: str, jobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(jobs / job, device="cpu")
    bundle.config.backbone["bert"] = replace(bundle.config.backbone["bert"], dtype="bfloat16")
    monkeypatch.setattr(targets, "cut", None)
    with pytest.raises(UserError, match=said):
        targets.write_target(bundle, jobs / job, target, tmp_path)


def test_windows_that_padding_would_change_have_no_graph(jobs: Path, tmp_path: Path) -> None:
    bundle = load_bundle(jobs / "windows", device="cpu")
    part = cut(bundle)
    part.model.config.backbones[0]["masks_padding"] = False
    with pytest.raises(UserError, match="a job with long_texts=truncate can be exported so"):
        write_onnx(bundle, part, tmp_path)


def test_a_graph_of_a_fixed_length_is_not_written(
    jobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As of models that walk through the tokens in a loop, such as Mamba."""
    settings = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
    monkeypatch.setitem(CONFIGS, "mamba", ("MambaConfig", settings))
    folder = tiny_folder("mamba", tmp_path / "mamba")
    rows = pd.read_csv(jobs / "texts.csv")[:20]
    classifier = LayerFusionClassifier(
        str(folder), layers="last", fusion="stacked", seeds=1, cache=str(jobs / "cache")
    )
    saved = (
        classifier.set_params(settings={"backbone.mamba.max_length": 24})
        .fit(rows.text, rows.label)
        .save(tmp_path / "saved")
    )
    assert main(["export", str(saved), "--to", "transformers"]) == 0
    capfd.readouterr()
    assert main(["export", str(saved), "--to", "onnx"]) == 2
    said = capfd.readouterr().err.splitlines()
    assert "has no form in ONNX; --to transformers has all of them" in said[-1]
    assert not [line for line in said if "onnxruntime" in line and line is not said[-1]]
    assert not (saved / "onnx").exists()


def test_a_graph_takes_inputs_that_it_does_not_use(jobs: Path, tmp_path: Path) -> None:
    """Layer 0 of a model that reads windows has no use for the attention mask."""
    rows = pd.read_csv(jobs / "texts.csv")[:20]
    classifier = LayerFusionClassifier(
        str(jobs / "bert"), layers={"bert": [0]}, fusion="stacked", seeds=1,
        long_texts="windows", cache=str(jobs / "cache"),
    )  # fmt: skip
    saved = classifier.fit(rows.text, rows.label).save(tmp_path / "saved")
    assert main(["export", str(saved), "--to", "onnx"]) == 0


def test_a_graph_that_cannot_be_run_is_told_in_a_line(jobs: Path, tmp_path: Path) -> None:
    part = cut(load_bundle(jobs / "one", device="cpu"))
    (tmp_path / "model.onnx").write_bytes(b"\0" * 64)
    with pytest.raises(UserError, match="has no form in ONNX; --to transformers has all of them"):
        classify(part, tmp_path / "model.onnx", SAMPLE)


@pytest.mark.parametrize(
    ("content", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\ntags: [a]\n---\n", "not stated in its card; ask its authors"),
        ("A model", "not stated in its card; ask its authors"),
        (None, "unknown, as its card is not here; ask its authors"),
    ],
)
def test_a_licence_is_what_the_card_of_the_model_says(
    content: str | None, licence: str, jobs: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(jobs / "bert", tmp_path / "bert")
    (place / "README.md").unlink()
    if content is not None:
        (place / "README.md").write_text(content)
    bundle = load_bundle(jobs / "one", device="cpu", models={"bert": str(place)})
    card = model_card(bundle, jobs / "one", "onnx", "")
    assert f"; licence: {licence}" in card
    assert ("\nlicense: " in card.split("---")[1]) == (licence == "mit")


def test_a_classifier_of_words_alone_needs_no_model(jobs: Path, tmp_path: Path) -> None:
    whole = load_bundle(jobs / "stacked", device="cpu")
    words = tuple(layer for layer in whole.layers if layer.backbone == "words")
    part = whole.lexical["words"]
    probe = LinearProbe(torch.eye(2), torch.zeros(2))
    pool = fit_pool(part.vectors(TEXTS)[None], torch.tensor([1, 0, 0, 1]), SINGLE)
    head = StackHead(Stack((probe,), pool, {}, ""), {})
    bundle = replace(whole, layers=words, models={}, heads=(head,))
    for name, write in (("a", write_transformers), ("b", write_onnx)):
        (tmp_path / name).mkdir()
        write(bundle, cut(bundle), tmp_path / name)  # which compares the probabilities
    assert not list(tmp_path.rglob("tokenizer.json"))
