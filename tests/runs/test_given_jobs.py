"""Jobs with vectors from elsewhere: trained, reported, predicted with, and refused in one line."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import layerfusion as lf
from layerfusion.cli import main
from layerfusion.composing.hydra import compose
from layerfusion.config.check import check_backbone, load
from layerfusion.config.job import BackboneConfig
from layerfusion.embeddings import endpoint
from layerfusion.errors import Unavailable, UserError
from layerfusion.fusion.deadline import Deadline
from layerfusion.records.job import read_record
from layerfusion.records.profile import read_profile
from layerfusion.runs.inputs import prepare_texts
from layerfusion.runs.job_texts import dataset_of
from layerfusion.runs.time_limit import extract_in_time, models_in_time
from tests.embeddings.fake_endpoint import FakeEndpoint, vector_of
from tests.tiny import run, tiny_folder, tiny_job, tiny_texts

QUICK = ("logger=none", "seeds=1", "fusion.width=4", "trainer.max_epochs=1")


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as fake:
        yield fake


@pytest.fixture(scope="module")
def root(fake: FakeEndpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished job of a model and of a server's vectors, and what it was trained on."""
    root = tmp_path_factory.mktemp("given")
    tiny_texts(root / "texts.csv", 60)
    tiny_folder("bert", root / "bert")
    job = ["train", *words_of(root, fake), *QUICK, "layers=all"]
    assert main([*job, f"hydra.run.dir={root}/jobs/both"]) == 0
    return root


def words_of(root: Path, fake: FakeEndpoint) -> list[str]:
    job = tiny_job(root / "texts.csv", root / "bert", root / "cache")[:-2]
    return [*job, f"+backbone.paid={{endpoint: {fake.url}, model: words}}"]


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    code, said = run(words, capsys)
    assert code == 2, said
    return said.splitlines()[-1]


# -- jobs ----------------------------------------------------------------------------------------


def test_the_record_has_the_time_and_no_cost_that_nobody_knows(
    root: Path, fake: FakeEndpoint
) -> None:
    record = read_record(root / "jobs/both")
    paid, tiny = record.backbones["paid"], record.backbones["tiny"]
    assert [str(x.layer) for x in record.layers if x.backbone == "paid"] == ["0"]
    assert (paid.flops_per_text, paid.parameters, paid.tokens) == (None, None, 0)
    assert paid.milliseconds_per_text is not None
    assert paid.milliseconds_one is not None
    assert paid.milliseconds_one > 0
    assert tiny.flops_per_text is not None
    assert record.flops_per_text is None
    assert (paid.endpoint, tiny.endpoint) == (fake.url, "")
    assert len(fake.texts) == len(set(fake.texts)) == 60


def test_a_second_job_asks_for_nothing(
    root: Path, fake: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = len(fake.bodies)
    auto = ["fusion=auto", "fusion.among=[stacked,concat]", "fusion.widths=[8]"]
    words = ["train", *words_of(root, fake), *QUICK, "lexical=[words]"]
    code, said = run([*words, *auto, f"hydra.run.dir={root}/jobs/auto"], capsys)
    assert code == 0, said
    record = read_record(root / "jobs/auto")
    unknown = [one for one in record.candidates if any("paid" in x for x in one.layers)]
    assert unknown
    assert all(one.flops_per_text is None for one in unknown)
    assert len(fake.bodies) == asked


@pytest.mark.parametrize("pilot", [[], ["layers=top_k", "layers.pilot=20"]])
def test_a_time_limit_takes_it_as_it_is(
    root: Path, fake: FakeEndpoint, pilot: list[str], tmp_path: Path
) -> None:
    words = [*words_of(root, fake), *QUICK, *pilot, f"paths.cache={tmp_path}/cache"]
    assert main(["train", *words, "time_limit=600", f"hydra.run.dir={tmp_path}/job"]) == 0
    record = read_record(tmp_path / "job")
    assert set(record.considered) == {"paid", "tiny"}
    assert record.time_notes[0].startswith("nothing was left out")


def test_a_server_comes_last_and_is_left_out_when_the_time_is_over(
    root: Path, fake: FakeEndpoint, tmp_path: Path
) -> None:
    def extracted(*words: str, requests: int) -> tuple[list[str], Deadline]:
        """Let the time be over after so many requests."""
        asked = [*words_of(root, fake), *QUICK, *words, f"paths.cache={tmp_path}", "time_limit=100"]
        config = load(compose("train", asked))
        until = len(fake.bodies) + requests
        deadline = Deadline(100, begun=0, now=lambda: 99.0 if len(fake.bodies) >= until else 0.0)
        dataset = dataset_of(config)
        plans = models_in_time(config, dataset, deadline)
        assert [plan.name for plan in plans][-1] == "paid"
        return [*extract_in_time(config, dataset, plans, deadline).backbone], deadline

    small = "backbone.paid.batch=4"
    kept, deadline = extracted(small, requests=3)
    assert kept == ["tiny"]
    assert deadline.left_out == [
        "paid is left out: there were vectors of 6 of 60 texts when the time for it was over;"
        " they are kept (time_limit=100)"
    ]
    with pytest.raises(UserError, match=r"^time_limit=100: there is no time for any model: paid: "
                       r".* 7 of 60 .* kept, and the same command goes on"):  # fmt: skip
        extracted(small, "~backbone.tiny", requests=1)
    fixed = ["layers=fixed", "++layers.fixed.tiny=[1]"]
    with pytest.raises(UserError, match=r"^layers.fixed.paid: there is no time for this model"):
        extracted(small, *fixed, requests=1)
    assert extracted(requests=99)[0] == ["tiny", "paid"]


def pilot_of(words: list[str], deadline: Deadline, k: int) -> set[str]:
    pilot = ["layers=top_k", f"layers.k={k}", "layers.max_similarity=1", "layers.pilot=20"]
    config = load(compose("train", [*words, *QUICK, *pilot, "time_limit=10"]))
    chosen = prepare_texts(config, dataset_of(config), deadline).selection
    return {f"{layer.backbone}:{layer.layer}" for layer in chosen.layers}


@pytest.mark.parametrize(
    ("beside", "chosen"),
    [("", {"tiny:0"}), ("server", {"tiny:0"}), ("file", {"tiny:0", "own:0"})],
)
def test_after_a_pilot_a_model_is_limited_by_its_time_whatever_stands_beside_it(
    root: Path, fake: FakeEndpoint, tmp_path: Path, beside: str, chosen: set[str]
) -> None:
    """Vectors from elsewhere have no FLOPs: beside them, models were not limited, or all were."""
    frame = pd.read_csv(root / "texts.csv")
    vectors = [np.array(vector_of(text)) for text in frame["text"]]
    frame[["text"]].assign(v=vectors).to_parquet(tmp_path / "v.parquet")
    file = [f"backbone.own.vectors={tmp_path}/v.parquet", "backbone.own.column=v"]
    *model, server = words_of(root, fake)
    words = [*model, *{"": [], "server": [server], "file": file}[beside]]
    over = Deadline(10, begun=0, now=lambda: 10)
    assert pilot_of([*words, f"paths.cache={tmp_path}/a"], over, len(chosen)) == chosen
    *asked, told = over.left_out
    assert told.startswith("after the pilot only layers of at most 0 GFLOPs a text could be chosen")
    assert [line.split(";")[0] for line in asked] == (
        ["after the pilot paid could not be chosen"] if beside == "server" else []
    )
    ample = Deadline(1e6, begun=0, now=lambda: 0)
    layers = pilot_of([*words, f"paths.cache={tmp_path}/b"], ample, 4 + bool(beside))
    assert len(layers) == 4 + bool(beside)
    assert ample.left_out == []


def test_a_pilot_of_a_server_alone_that_is_too_slow_is_one_line(
    root: Path, fake: FakeEndpoint, tmp_path: Path
) -> None:
    words = [*words_of(root, fake), f"paths.cache={tmp_path}", "~backbone.tiny"]
    deadline = Deadline(10, begun=0, now=lambda: 10)
    with pytest.raises(UserError, match=r"time_limit=10: .* the other texts of paid, which would"):
        pilot_of(words, deadline, 1)


def test_it_is_profiled_planned_and_reported(
    root: Path, fake: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(root, fake)
    profile = ["profile", *words, "logger=none", "profile.scores=[probe,logme,gradient]"]
    assert main([*profile, f"hydra.run.dir={root}/profile"]) == 0
    layers = {x.backbone: x for x in read_profile(root / "profile").layers}
    assert layers["paid"].flops_per_text is None
    assert layers["paid"].scores["gradient"] is None
    assert layers["paid"].scores["logme"] is not None
    assert "paid: all 60 texts are in the store already" in run(["plan", *words], capsys)[1]
    code, planned = run(["plan", *words, "backbone.paid.model=other"], capsys)
    assert code == 0
    assert f"paid: 60 of 60 texts from other at {fake.url}, about" in planned
    assert "FLOPs and time not known: computed elsewhere" in planned
    assert main(["report", str(root / "jobs")]) == 0
    page = (root / "jobs/report.html").read_text()
    assert "GFLOPs not measured, as the vectors of paid are computed elsewhere" in page
    assert f"--endpoint paid={fake.url}" in page


def test_limits_of_costs_that_nobody_knows_are_refused_before_anything_is_asked(
    root: Path, fake: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", *words_of(root, fake), *QUICK, "backbone.paid.model=new", "layers=last"]
    asked = len(fake.bodies)
    said = told([*words, "layers.budget.flops_per_text=1e9"], capsys)
    assert "the vectors of paid are computed elsewhere, so nobody knows their FLOPs" in said
    np.save(root / "v.npy", np.zeros((60, 2)))
    vectors = [f"backbone.own.vectors={root}/v.npy", f"backbone.own.rows={root}/texts.csv"]
    said = told([*words, *vectors, "layers.budget.ms_per_text=9"], capsys)
    assert "the vectors of own come from a file, so their time was not measured" in said
    published = ["experiment=as_published", "fusion=published_concat", "logger=none"]
    said = told(["train", *words_of(root, fake), *published], capsys)
    assert "it pools the vectors of tokens" in said
    assert len(fake.bodies) == asked


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["layers=fixed", "layers.fixed.tiny=[1]", "layers.fixed.paid=[7]"],
            "layers of paid: there is no '7'; there are: 0",
        ),
        (
            ["layers=fixed", "layers.fixed.tiny=[1]", "layers.fixed.words=[2]"],
            "layers of words: there is no '2'; there are: 0",
        ),
        (
            ["layers=top_k", "layers.k=9"],
            "there are 6 layers to choose among, of tiny, paid, words",
        ),
    ],
)
def test_layers_that_a_source_lacks_are_refused_before_anything_is_asked(
    settings: list[str],
    said: str,
    root: Path,
    fake: FakeEndpoint,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = len(fake.bodies)
    words = [*words_of(root, fake), *QUICK, "backbone.paid.model=another", "lexical=[words]"]
    assert said in told(["train", *words, *settings], capsys)
    assert len(fake.bodies) == asked


def test_new_requests_do_not_rename_a_job(root: Path, fake: FakeEndpoint) -> None:
    from layerfusion.config.identity import job_id, without_hydra

    def name(*words: str) -> str:
        return job_id(load(without_hydra(compose("train", [*words_of(root, fake), *words]))))

    same = name(
        "backbone.paid.batch=3", "backbone.paid.timeout=9", "backbone.paid.token_variable=A"
    )
    assert same == name()
    assert len({name(), name("backbone.paid.model=x"), name("backbone.paid.dimensions=4")}) == 3


# -- classifiers ---------------------------------------------------------------------------------


def test_a_classifier_asks_only_with_the_word_of_the_user(
    root: Path, fake: FakeEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = shutil.copytree(root / "jobs/both/bundle", tmp_path / "bundle")
    (tmp_path / "new.txt").write_text("the film was good\nthe film was good\nbad plot\n")
    asked = len(fake.bodies)
    predict = ["predict", str(bundle), str(tmp_path / "new.txt"), "-o", str(tmp_path / "out.csv")]
    assert told(predict, capsys) == (
        f"layerfusion: backbone paid: its vectors come from {fake.url}, which no classifier asks"
        f" without your word: --endpoint paid={fake.url} (in Python"
        f' endpoints={{"paid": "{fake.url}"}})'
    )
    assert len(fake.bodies) == asked
    assert "endpoint: there is no 'pad'; there are: paid" in told(
        [*predict, "--endpoint", f"pad={fake.url}"], capsys
    )
    assert "--endpoint paid: NAME=URL is needed" in told([*predict, "--endpoint", "paid"], capsys)
    assert "backbone.paid.endpoint=ftp://x: an address" in told(
        [*predict, "--endpoint", "paid=ftp://x"], capsys
    )
    assert main([*predict, "--endpoint", f"paid={fake.url}", "--gates"]) == 0
    assert fake.texts[-2:] == ["the film was good", "bad plot"]
    asked = len(fake.bodies)
    classifier = lf.load(bundle, endpoints={"paid": fake.url})
    found = classifier.predict_proba(["the film was good", "the film was good", "bad plot"])
    frame = pd.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(found, frame[["p(neg)", "p(pos)"]], atol=1e-5)
    assert len(fake.bodies) == asked  # they were paid for


def test_the_token_that_a_classifier_names_is_not_sent(
    root: Path, fake: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = shutil.copytree(root / "jobs/both/bundle", tmp_path / "bundle")
    about = json.loads((bundle / "bundle.json").read_text())
    about["config"]["backbone"]["paid"]["token_variable"] = "MY_SECRETS"
    about.pop("checksum")
    (bundle / "bundle.json").write_text(json.dumps(about))
    monkeypatch.setenv("MY_SECRETS", "abcdefgh")
    lf.load(bundle, endpoints={"paid": fake.url}).predict(["one more"])
    assert fake.tokens[-1] is None
    named = {"paid": "MY_SECRETS"}
    lf.load(bundle, endpoints={"paid": fake.url}, tokens=named).predict(["and another"])
    assert fake.tokens[-1] == "Bearer abcdefgh"


def test_serve_waits_for_a_server_of_vectors_no_longer_than_its_deadline(
    root: Path, fake: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []

    def keep(*arguments: Any, **_: Any) -> None:
        found.extend(arguments)
        raise UserError("enough")

    monkeypatch.setattr("layerfusion.commands.serve._listen", lambda *_: None)
    monkeypatch.setattr("layerfusion.serving.app.Classifier", keep)
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(fake, "replies", [(503, {}, "busy")] * 9)
        for address in (fake.url, f"http://127.0.0.1:{silent.getsockname()[1]}/v1"):
            command = ["serve", f"{root}/jobs/both", "--endpoint", f"paid={address}"]
            assert main([*command, "--deadline", "0.5"]) == 2
            begun = time.monotonic()
            with pytest.raises(Unavailable, match="gave no vectors in the time for them"):
                found[-1]([f"a text that is new to {address}"])
            assert time.monotonic() - begun < 2


def test_a_server_of_vectors_that_fails_again_and_again_is_not_asked_for_a_while(
    root: Path, fake: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = lf.load(root / "jobs/both", endpoints={"paid": fake.url})
    known = classifier.predict_proba(["a text of before"])
    monkeypatch.setattr(fake, "replies", [(404, {}, "no such model")] * 3)
    for number in range(3):
        with pytest.raises(Unavailable, match=r"404 no such model$"):
            classifier.predict([f"a text that never came, {number}"])
    asked = len(fake.bodies)
    with pytest.raises(Unavailable, match="it is not asked for another 10 s"):
        classifier.predict(["a text that never came"])
    assert len(fake.bodies) == asked
    assert (classifier.predict_proba(["a text of before"]) == known).all()  # it lies in the cache
    classifier._breakers["paid"]._until = 0.0
    assert len(classifier.predict(["a text that never came"])) == 1


@pytest.mark.parametrize("target", ["transformers", "onnx", "sentence-transformers"])
def test_there_is_no_export(
    root: Path, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(root / "jobs/both"), "--to", target, "--output", str(tmp_path / "out")]
    assert "the vectors of paid are computed elsewhere, so no folder can hold" in told(
        words, capsys
    )
    assert not (tmp_path / "out").exists()


def test_a_file_of_vectors_is_trained_and_predicted_with(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pd.read_csv(root / "texts.csv")
    vectors = np.array([vector_of(text) for text in frame["text"]])
    np.save("v.npy", vectors)
    frame.assign(v=list(vectors)).to_parquet("texts.parquet")
    frame[["text"]].to_csv("new.csv", index=False)
    words = [
        "train",
        "texts.parquet",
        "backbone.own.vectors=texts.parquet",
        "backbone.own.column=v",
    ]
    assert main([*words, *QUICK, "layers=last", "hydra.run.dir=job"]) == 0
    predict = ["predict", "job", "-o", "out.csv"]
    assert main([*predict, "texts.parquet"]) == 0
    first = pd.read_csv("out.csv")["p(pos)"]
    assert main([*predict, "new.csv", "--vectors", "own=v.npy"]) == 0
    np.testing.assert_allclose(pd.read_csv("out.csv")["p(pos)"], first, atol=1e-6)
    found = lf.load("job").with_vectors("own", "texts.parquet").predict_proba(list(frame["text"]))
    np.testing.assert_allclose(found[:, 1], first, atol=1e-6)
    assert "backbone.own.column: new.csv: there is no 'v'" in told([*predict, "new.csv"], capsys)
    Path("new.txt").write_text("the film was good\n")
    said = told([*predict, "new.txt"], capsys)
    assert "predict takes the table with a column 'v', or --vectors own=FILE" in said
    assert "no row has the text 'the film was good'" in told(
        [*predict, "new.txt", "--vectors", "own=texts.parquet"], capsys
    )
    assert "vectors: there is no 'on'" in told(
        [*predict, "new.csv", "--vectors", "on=v.npy"], capsys
    )
    monkeypatch.setattr("layerfusion.texts.streaming.ROWS", 10)
    # A part of other vectors under the same name is no part of this output.
    for changed in (1, -1):
        np.save("v.npy", changed * vectors)
        with monkeypatch.context() as patch:
            if changed == 1:
                patch.setattr("layerfusion.commands.outputs.Partial.finish", _stop)
            code = main([*predict, "new.csv", "--vectors", "own=v.npy"])
        assert code == (130 if changed == 1 else 0)
    said = capsys.readouterr().err
    assert "out.csv.partial is of another classifier or of other options: started anew" in said
    turned = lf.load("job").with_vectors("own", "v.npy", rows="new.csv")
    expected = turned.predict_proba(list(frame["text"]))[:, 1]
    np.testing.assert_allclose(pd.read_csv("out.csv")["p(pos)"], expected, atol=1e-6)


def _stop(_output: object) -> None:
    raise KeyboardInterrupt


# -- from Python, and mistakes -------------------------------------------------------------------


def test_from_python(root: Path, fake: FakeEndpoint) -> None:
    settings: dict[str, Any] = {"backbone.paid": {"endpoint": fake.url, "model": "words"}}
    texts = ["good film", "bad plot"]
    vectors = lf.embed(texts, "paid", cache=root / "cache", **settings)
    assert isinstance(vectors, np.ndarray)
    np.testing.assert_allclose(vectors, [vector_of(text) for text in texts], atol=1e-3)
    frame = lf.rank("paid", [f"{x} {n}" for n in range(12) for x in texts], [0, 1] * 12,
                    cache=root / "cache", **settings)  # fmt: skip
    assert frame["model"].tolist() == ["paid"]
    assert np.isnan(frame["gflops"].to_numpy()).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"endpoint": "http://x/v1"}, "backbone.paid.model: the name of the endpoint's model"),
        ({"endpoint": "x:8000", "model": "m"}, "backbone.paid.endpoint=x:8000: an address"),
        *(
            ({"endpoint": f"http://{place}/v1", "model": "m"}, f"{place}/v1: an address is needed")
            for place in ("[::1", "x:99999", "x:port", "x:0", "a..b", "a" * 64, ":80")
        ),
        (
            {"endpoint": "http://me:pass@x/v1", "model": "m"},
            "the address of x may hold no user, password or query",
        ),
        ({"endpoint": "http://x/v1?key=1", "model": "m"}, "may hold no user, password or query"),
        (
            {"endpoint": "http://x", "model": "m", "token_variable": "sk-12345"},
            "the name of an environment variable in capitals is needed, such as OPENAI_API_KEY",
        ),
        (
            {"endpoint": "http://x", "model": "m", "dtype": "bfloat16"},
            "backbone.paid.dtype: it means nothing beside endpoint=",
        ),
        (
            {"endpoint": "http://x", "model": "m", "vectors": "v.npy", "rows": "v.csv"},
            "backbone.paid.endpoint: it means nothing beside vectors=",
        ),
        ({"endpoint": "http://x", "model": "m", "template": "q"}, "it must contain {text}"),
        ({"vectors": "v.parquet"}, "backbone.paid.column= is needed"),
        ({"vectors": "v.npy"}, "backbone.paid.rows= is needed"),
        ({"vectors": "v.npy", "rows": "v.csv", "column": "v"}, "and no column="),
        ({"model": "m"}, "backbone.paid: it has no path"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as told:
        check_backbone("paid", BackboneConfig(**settings))
    assert "pass@" not in str(told.value)
    assert "sk-12345" not in str(told.value)
