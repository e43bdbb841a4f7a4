"""The classifier of a job goes to a hub and comes back; the hub is one on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import huggingface_hub
import numpy as np
import pandas as pd
import pytest

import layerfusion as lf
from layerfusion.cli import main
from layerfusion.config.job import LoggerConfig
from layerfusion.estimators.classifier import LayerFusionClassifier
from layerfusion.records.job import read_record
from layerfusion.runs.bundle_files import DESCRIPTION, HEADS
from tests.commands.hub_server import TOKEN, Hub, serving
from tests.tiny import tiny_folder, tiny_job, tiny_texts, tiny_tokenizer

REPO = "ada/films"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job with a language model and words."""
    root = tmp_path_factory.mktemp("hub")
    tiny_folder("bert", root / "bert")
    data = tiny_texts(root / "texts.csv", 60)
    words = [*tiny_job(data, root / "bert", root / "cache"), "lexical=[words]", "logger=none",
             "layers=fixed", "layers.fixed.tiny=[2]", "layers.fixed.words=[0]",
             f"hydra.run.dir={root}/job"]  # fmt: skip
    assert main(["train", *words]) == 0
    return root


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(Hub()) as found:
        place = huggingface_hub.constants
        template = place.HUGGINGFACE_CO_URL_TEMPLATE.replace(place.ENDPOINT, found.endpoint)
        monkeypatch.setattr(place, "ENDPOINT", found.endpoint)
        monkeypatch.setattr(place, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(place, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert TOKEN not in said
    return said


def test_there_and_back(
    hub: Hub, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    capsys.readouterr()
    assert main(["push", f"{root}/job", REPO, "--private"]) == 0
    printed = capsys.readouterr()
    (commit,) = hub.repos[REPO]
    assert printed.out == f"{REPO}@{commit}\n"
    assert TOKEN not in printed.out + printed.err
    assert hub.private == {REPO: True}
    files = hub.repos[REPO][commit]
    assert {*files} == {"README.md", DESCRIPTION, HEADS, "words.json", "words.safetensors"}
    whole = b"".join(files.values())
    assert str(root).encode() not in whole
    texts = pd.read_csv(root / "texts.csv")["text"]
    assert not any(text.encode() in whole for text in texts)
    card = files["README.md"].decode()
    assert f"layerfusion predict hub:{REPO} new.txt" in card
    assert "library_name: layerfusion" in card
    assert "This folder holds no part of these models" in card
    assert "95 % bootstrap intervals" in card

    output = tmp_path / "films"
    assert main(["pull", f"{REPO}@{commit}", "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{REPO}@{commit}: {output}\n"
    assert {path.name for path in output.iterdir()} == {*files} - {"README.md"}
    monkeypatch.setenv("LAYERFUSION_MODELS", str(root))
    asked = list(texts[:5])
    mine = lf.load(root / "job", device="cpu").predict_proba(asked)
    for place in (output, f"hub:{REPO}", f"hub:{REPO}@{commit}"):
        theirs = lf.load(place, device="cpu", cache=str(tmp_path / "cache"))
        np.testing.assert_array_equal(theirs.predict_proba(asked), mine)
    assert len(list((tmp_path / "cache/assets").glob("ada--films-*"))) == 1
    lines = tmp_path / "lines.txt"
    lines.write_text("a good film\n")
    command = ["predict", f"hub:{REPO}", str(lines), "--cache", f"{tmp_path}/cache"]
    assert main([*command, "-o", f"{tmp_path}/out.csv"]) == 0
    asked_before = len(hub.seen)
    assert main(["push", f"{root}/job", REPO, "--update"]) == 0
    assert len(hub.repos[REPO]) == 1  # the same files are the same commit
    assert len(hub.seen) > asked_before
    found = lf.push_to_hub(root / "job", "ada/other")
    assert found == f"ada/other@{next(iter(hub.repos['ada/other']))}"


def test_what_is_wrong_is_one_line(
    hub: Hub, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    job, pulled = f"{root}/job", ["--output", f"{tmp_path}/pulled"]
    assert main(["push", job, REPO]) == 0
    assert f"push: {REPO} exists; --update adds a commit" in told(["push", job, REPO], capsys)
    assert "OWNER/NAME" in told(["push", job, "films"], capsys)
    assert "no classifier" in told(["push", str(tmp_path), REPO], capsys)
    assert "no such repository" in told(["pull", "ada/none", *pulled], capsys)
    assert "no such revision" in told(["pull", f"{REPO}@v2", *pulled], capsys)
    assert "there is something already" in told(["pull", REPO, "--output", job], capsys)
    (files,) = hub.repos[REPO].values()
    for name, content, wanted in (
        (HEADS, files[HEADS][:-4], f"the checksum of {HEADS} differs"),
        (
            DESCRIPTION,
            files[DESCRIPTION].replace(b"words.json", b"../x.json"),
            "is no classifier's",
        ),
        (DESCRIPTION, b"[1]", "is no classifier's"),
        (DESCRIPTION, None, f"it holds no {DESCRIPTION}"),
        ("words.json", None, "it holds no words.json"),
    ):
        changed = {**files, name: content}
        hub.repos["ada/changed"] = {"c" * 40: {n: c for n, c in changed.items() if c is not None}}
        hub.private["ada/changed"] = False
        assert wanted in told(["pull", "ada/changed", *pulled], capsys)
        assert not (tmp_path / "pulled").exists()
    settings = json.loads(files[DESCRIPTION])["config"]
    assert settings["backbone"]["tiny"]["path"] == "bert"  # the last part of its place
    monkeypatch.setenv("HF_TOKEN", "hf_" + "wrong" * 6)
    assert "token of this machine may not" in told(["push", job, "ada/new"], capsys)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "no token of the hub is here" in told(["push", job, "ada/new"], capsys)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    for command in (["push", job, "ada/new"], ["pull", REPO, *pulled]):
        assert "the hub cannot be reached" in told(command, capsys)


def test_nothing_private_goes_to_a_public_repository(
    hub: Hub, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = f"{root}/job"
    assert main(["push", job, REPO]) == 0
    sent = {**hub.repos[REPO]}
    hub.repos["ada/open"], hub.private["ada/open"] = {"c" * 40: {}}, False
    for repo in (REPO, "ada/open"):
        said = told(["push", job, repo, "--private", "--update"], capsys)
        assert f"push: {repo} is public, and --private does not change" in said
        assert "nothing was sent" in said
    assert hub.repos[REPO] == sent
    assert hub.repos["ada/open"] == {"c" * 40: {}}
    hub.private["ada/open"] = True
    assert main(["push", job, "ada/open", "--private", "--update"]) == 0
    assert len(hub.repos["ada/open"]) == 2


def test_an_export_of_a_shared_classifier_needs_a_folder(
    hub: Hub, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert main(["push", f"{root}/job", REPO]) == 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAYERFUSION_MODELS", str(root))
    command = ["export", f"hub:{REPO}", "--to", "onnx", "--cache", f"{tmp_path}/cache"]
    asked = len(hub.seen)
    assert f"hub:{REPO}: --output FOLDER is needed" in told(command, capsys)
    assert (len(hub.seen), [*tmp_path.iterdir()]) == (asked, [])
    assert main([*command, "--output", "out"]) == 0
    assert "- job: " in Path("out/README.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "out"}
    capsys.readouterr()
    assert main(["push", f"hub:{REPO}", "ada/again", "--cache", f"{tmp_path}/cache"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "out"}
    (first,), (again,) = (hub.repos[repo].values() for repo in (REPO, "ada/again"))
    assert again[HEADS] == first[HEADS]


def test_what_is_the_users_own_does_not_travel(
    hub: Hub, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "clients/acme inc/reviews"
    place.mkdir(parents=True)
    (place / "bert").symlink_to(root / "bert")
    texts = pd.read_csv(root / "texts.csv")
    for name, rows in (("train", slice(0, 40)), ("test", slice(40, 60))):
        texts[rows].to_csv(place / f"{name}.csv", index=False)
    own = "clients/acme inc/reviews"  # the data set is called after the last part
    job = tiny_job(root / "texts.csv", root / "bert", root / "cache")[3:]
    words = ["dataset=local", f"dataset.train='{own}/train.csv'", f"dataset.test='{own}/test.csv'",
             *job, f"backbone.tiny.path='{own}/bert'",
             "backbone.tiny.template='see /a/b/c {text}'", "logger=wandb", "logger.mode=offline",
             "logger.project=secret-project", "logger.entity=acme", "logger.tags=[merger]",
             "logger.group=talks", "seeds=1", "layers=last", "hydra.run.dir=job"]  # fmt: skip
    assert main(["train", *words]) == 0
    assert main(["push", "job", REPO]) == 0
    (files,) = hub.repos[REPO].values()
    whole = b"".join(files.values()).decode(errors="replace")
    for mine in ("clients", "acme", "secret-project", "merger", "talks", str(tmp_path)):
        assert mine not in whole, mine
    settings = json.loads(files[DESCRIPTION])["config"]
    assert settings["logger"] == asdict(LoggerConfig())
    assert settings["dataset"]["train"] == "train.csv"
    assert settings["backbone"]["tiny"]["template"] == "see /a/b/c {text}"
    card = files["README.md"].decode()
    assert "from path train.csv, test.csv; " in card
    assert "from path bert; licence" in card
    assert main(["export", "job", "--to", "onnx"]) == 0
    assert "acme" not in Path("job/onnx/README.md").read_text()


def test_an_estimator_is_shared_without_its_folders(
    hub: Hub, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = pd.read_csv(root / "texts.csv")
    labels = [f"/to/the/{label}" for label in texts["label"]]
    mine = LayerFusionClassifier(
        str(root / "bert"), layers={"bert": [2]}, fusion="stacked", seeds=1,
        cache=tmp_path / "cache",
    ).fit(list(texts["text"]), labels)  # fmt: skip
    mine.save(tmp_path / "saved")
    lf.push_to_hub(tmp_path / "saved", REPO)
    (files,) = hub.repos[REPO].values()
    whole = b"".join(files.values()).decode(errors="replace")
    for own in (str(root), str(tmp_path)):
        assert own not in whole, own
    monkeypatch.setenv("LAYERFUSION_MODELS", str(root))
    theirs = LayerFusionClassifier.load(f"hub:{REPO}", cache=tmp_path / "cache", device="cpu")
    asked = list(texts["text"][:4])
    assert theirs.predict(asked).tolist() == mine.predict(asked).tolist()
    assert theirs.get_params()["models"] == "bert"


def test_a_pipeline_of_the_hub_is_fetched_once(
    hub: Hub, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    words = tiny_tokenizer(decoder=False).backend_tokenizer
    made = SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=8)], device="cpu")
    made.save_pretrained(str(tmp_path / "static"))
    files = {file.name: file.read_bytes() for file in (tmp_path / "static").iterdir()}
    hub.repos["ada/static"], hub.private["ada/static"] = {"d" * 40: files}, False
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    job = ["dataset=local", f"dataset.path={root}/texts.csv", "paths.cache=cache", "logger=none",
           "backbone.static.pipeline=ada/static", "layers=last", "seeds=1",
           "trainer.max_epochs=1"]  # fmt: skip
    capsys.readouterr()
    asked = len(hub.seen)
    assert main(["plan", *job]) == 0
    said = capsys.readouterr()
    assert "static: to be downloaded; 60 of 60 texts from ada/static" in said.out + said.err
    assert len(hub.seen) == asked
    assert main(["train", *job, "hydra.run.dir=job"]) == 0
    record = read_record(Path("job"))
    assert record.backbones["static"].origin == f"hub ada/static@{'d' * 40}"
    hub.repos["ada/static"]["e" * 40] = {}
    asked = len(hub.seen)
    assert lf.load("job").predict(["a good film"]).shape == (1,)
    assert main(["train", *job, "seed=3", "hydra.run.dir=again"]) == 0
    assert len(hub.seen) == asked
    assert main(["push", "job", REPO]) == 0
    (shared,) = hub.repos[REPO].values()
    assert json.loads(shared[DESCRIPTION])["config"]["backbone"]["static"]["pipeline"] == (
        "ada/static"
    )
    assert f"from hub ada/static@{'d' * 40}" in shared["README.md"].decode()
