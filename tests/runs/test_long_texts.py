"""`long_texts=auto`: who decides, on what, within which bounds, and that a job keeps to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import layerfusion as lf
from layerfusion import LayerFusionClassifier
from layerfusion.assets import resolve
from layerfusion.assets.memo import CHECKSUM, seal
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.identity import job_id
from layerfusion.config.job import TRUNCATE, WINDOWS, TrainConfig
from layerfusion.embeddings.source import EmbeddingSource, asset_sources
from layerfusion.errors import UserError
from layerfusion.export.card import model_card
from layerfusion.export.cut import cut
from layerfusion.export.onnx_folder import require_exact
from layerfusion.fusion.deadline import Deadline
from layerfusion.records.job import RunRecord, read_record, write_record
from layerfusion.runs import long_texts
from layerfusion.runs.bundle_loading import load_bundle
from layerfusion.runs.held_out_train import held_out_rows
from layerfusion.runs.job_sources import open_sources
from layerfusion.runs.job_texts import dataset_of
from layerfusion.runs.long_texts import Lengths, reading_of, settled
from layerfusion.runs.plan import make_plan, plan_lines
from layerfusion.runs.time_limit import plans_in_time
from tests.tiny import BAD, GOOD, run, tiny_folder, tiny_job

LIMIT = 12
"""Tokens that the model of these tests takes at once, two special ones included."""
PADDING = ("the", "of", "in", "and", "to")


def write_texts(folder: Path, *, words_before: int, rows: int = 150) -> Path:
    """Texts whose label shows only after so many words that say nothing."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    for split, count in (("train", rows), ("test", 60)):
        made = []
        for number in range(count):
            label = number % 2
            before = generator.choice(PADDING, words_before)
            words = [*before, *generator.choice(GOOD if label else BAD, 4)]
            made.append((f"{' '.join(words)} {number}", "np"[label]))
        pd.DataFrame(made, columns=["text", "label"]).to_csv(folder / f"{split}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder("bert", tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("data") / "long", words_before=20)


@pytest.fixture
def words(bert: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A job of `experiment=auto` whose texts are too long for its model."""
    monkeypatch.setattr(long_texts, "_decided", {})
    return words_of(bert, texts, tmp_path)


def words_of(bert: Path, texts: Path, folder: Path) -> list[str]:
    return [
        *tiny_job(texts, bert, folder / "cache"),
        *("experiment=auto", "logger=none", "layers.folds=3", "pooling=[mean]", "lexical=[]"),
        *(f"paths.outputs={folder / 'outputs'}", f"backbone.tiny.max_length={LIMIT}"),
    ]


def config_of(words: list[str], *more: str) -> TrainConfig:
    return load(compose("train", [*words, *more]))


def decided(words: list[str], *more: str) -> str:
    config = config_of(words, *more)
    return settled(config, dataset_of(config)).backbone["tiny"].long_texts


def trained(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[Path, RunRecord, str]:
    code, said = run(["train", *words], capsys)
    assert code == 0, said
    folder = Path(said.rpartition("record: ")[2].splitlines()[0])
    return folder, read_record(folder), said


@pytest.mark.parametrize(
    ("tokens", "against"),
    [
        ([10] * 95 + [30] * 5, "fewer than 10% of the texts are longer"),
        ([10] * 80 + [30] * 20, ""),
        ([140] * 9 + [141], "long_texts=auto takes at most 6 times"),
        ([], "fewer than 10% of the texts are longer"),
    ],
)
def test_windows_pay_where_many_texts_are_longer_and_within_a_bound(
    tokens: list[int], against: str
) -> None:
    assert Lengths.of(tokens, 20).against() == against


def test_experiment_auto_reads_long_texts_whole_and_says_so(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, record, said = trained(words, capsys)
    line = "tiny: 100% of the texts of train are longer than 12 tokens and read whole, in windows,"
    assert record.reading[0].startswith(line)
    assert line in said
    assert record.long_texts == {"tiny": {"long_texts": WINDOWS, "window_overlap": 1}}
    assert record.backbones["tiny"].spec["long_texts"] == WINDOWS
    assert record.backbones["tiny"].cut_texts == 0
    assert record.test["accuracy"].mean > 0.9
    _, cut_record, said = trained([*words, "long_texts=truncate"], capsys)
    line = "tiny: 100% of the texts of train are cut at 12 tokens; backbone.tiny.long_texts=windows"
    assert cut_record.reading[0].startswith(line)
    assert line in said
    assert cut_record.test["accuracy"].mean < 0.7
    assert cut_record.long_texts == {}
    again, _, said = trained(words, capsys)
    assert again == folder
    assert "finished before" in said


def test_the_classifier_reads_texts_as_its_job_did(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, record, _ = trained(words, capsys)
    bundle = load_bundle(folder, device="cpu")
    assert bundle.facts["reading"] == record.reading
    assert f"\n- {record.reading[0]}\n" in model_card(bundle, folder, "onnx", "")
    assert bundle.config.backbone["tiny"].long_texts == WINDOWS
    test = dataset_of(config_of(words)).splits["test"]
    said = bundle.probabilities(test.texts).argmax(axis=1)
    assert (said == np.asarray(test.labels)).mean() > 0.9
    (tokenizer,) = cut(bundle).tokenizers["models"]
    assert tokenizer["window_overlap"] == bundle.config.backbone["tiny"].window_overlap
    require_exact(bundle)  # a graph of ONNX has windows too


def test_a_decision_is_kept_in_the_cache_and_a_plan_keeps_none(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(words)
    asset = resolve(
        asset_sources(config.backbone["tiny"]),
        key="backbone.tiny",
        kind="backbone",
        cache=tmp_path / "cache",
    )
    planned = reading_of("tiny", config.backbone["tiny"], config, dataset_of(config), asset)
    kept = tmp_path / "cache" / "readings"
    assert not kept.exists()
    monkeypatch.setattr(long_texts, "_decided", {})
    assert reading_of("tiny", config.backbone["tiny"], config, dataset_of(config)) == planned
    (file,) = kept.glob("*.json")
    monkeypatch.setattr(long_texts, "_decided", {})
    monkeypatch.delattr(long_texts, "tokenize")
    assert reading_of("tiny", config.backbone["tiny"], config, dataset_of(config)) == planned
    file.write_text("{}")
    monkeypatch.setattr(long_texts, "_decided", {})
    with pytest.raises(NameError, match="tokenize"):
        reading_of("tiny", config.backbone["tiny"], config, dataset_of(config))


def test_a_finished_job_is_checked_as_it_read_and_its_train_rows_predicted(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision of another version, or of another time limit, does not count."""
    folder, record, _ = trained(words, capsys)
    monkeypatch.setattr(long_texts, "_decided", {})
    monkeypatch.setattr(long_texts, "MOST_TIMES", 1.0)
    assert decided(words) == TRUNCATE
    code, said = run(["train", *words], capsys)
    assert (code, "finished before" in said) == (0, True)
    config = config_of(words)
    assert len(held_out_rows(config, record, dataset_of(config)).texts) > 100
    old = json.loads((folder / "metrics.json").read_text())
    for key in ("reading", "long_texts"):
        old.pop(key)
    old.pop(CHECKSUM)
    (folder / "metrics.json").write_text(json.dumps(seal(old)))
    assert read_record(folder).reading == []


def test_a_model_that_takes_fewer_tokens_than_asked_cuts_only_where_it_cuts(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*words, "backbone.tiny.max_length=512", "fusion=stacked", "layers=last"]
    line = "at 200 tokens, not max_length=512"
    assert f"tiny: texts are cut {line}" in trained([*asked, "long_texts=truncate"], capsys)[2]
    said = trained([*asked, "long_texts=windows"], capsys)[2]
    assert f"tiny: windows end {line}" in said
    assert "cut" not in said


def test_python_and_the_command_line_decide_alike(
    words: list[str], texts: Path, bert: Path, tmp_path: Path
) -> None:
    keys: dict[str, Any] = {"backbone.bert.max_length": LIMIT, "extract.token_budget": 512}
    job = lf.train(
        lf.load_dataset(texts),
        bert,
        experiment="auto",
        cache=tmp_path / "cache",
        **{
            "paths.outputs": tmp_path / "outputs",
            "layers.folds": 3,
            "pooling": "mean",
            "lexical": [],
            **keys,
        },
    )
    assert job.record.backbones["bert"].spec["long_texts"] == WINDOWS
    train = dataset_of(config_of(words)).splits["train"]
    usual: dict[str, Any] = {"seeds": 1, "cache": tmp_path / "cache", "settings": keys}
    usual |= {"pooling": "mean", "lexical": ()}
    classifier = LayerFusionClassifier(bert, **usual)
    classifier.fit(list(train.texts), np.asarray(train.labels))
    assert "read whole, in windows" in classifier.reading_[0]
    kept = LayerFusionClassifier.load(classifier.save(tmp_path / "kept"))
    assert kept.reading_ == classifier.reading_
    plain = LayerFusionClassifier(bert, long_texts="truncate", **usual)
    plain.fit(list(train.texts), np.asarray(train.labels))
    assert "are cut at 12 tokens" in plain.reading_[0]
    test = dataset_of(config_of(words)).splits["test"]
    assert classifier.score(list(test.texts), test.labels) > 0.9
    assert plain.score(list(test.texts), test.labels) < 0.7


def test_train_alone_decides_in_whatever_order(words: list[str]) -> None:
    config = config_of(words)
    dataset = dataset_of(config)
    train = dataset.splits["train"]
    short = replace(train, texts=tuple(" ".join(x.split()[-4:]) for x in train.texts))
    others = {"fingerprint": "other", "splits": {**dataset.splits, "train": short}}
    assert settled(config, dataset).backbone["tiny"].long_texts == WINDOWS
    assert settled(config, replace(dataset, **others)).backbone["tiny"].long_texts == TRUNCATE
    turned = replace(train, texts=train.texts[::-1], labels=train.labels[::-1])
    others = {"fingerprint": "turned", "splits": {**dataset.splits, "train": turned}}
    same = [
        reading_of("tiny", config.backbone["tiny"], config, one).lengths
        for one in (dataset, replace(dataset, **others))
    ]
    assert same[0] == same[1]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["layers.budget.ms_per_text=5"], "layers.budget.ms_per_text=5 is not known"),
        (["layers.budget.flops_per_text=1e6"], "above layers.budget.flops_per_text=1e+06"),
        (["layers.budget.flops_per_text=1e9"], ""),
        (["layers.budget.flops_per_text=1e6", "layers.budget.max_layer=0"], ""),
        (["backbone.tiny.max_length=4"], "at most 6 times"),
        (["backbone.tiny.max_length=150"], "fewer than 10%"),
    ],
)
def test_a_budget_and_a_bound_hold(more: list[str], says: str, words: list[str]) -> None:
    config = config_of(words, *more)
    reading = reading_of("tiny", config.backbone["tiny"], config, dataset_of(config))
    assert says in reading.against
    assert bool(reading.against) == bool(says)
    assert reading.config.long_texts == (TRUNCATE if says else WINDOWS)


def test_what_speaks_against_windows_stands_beside_the_setting(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, record, _ = trained([*words, "backbone.tiny.max_length=4"], capsys)
    assert record.reading[0].endswith("times the tokens (long_texts=auto takes at most 6 times)")
    assert record.long_texts["tiny"]["long_texts"] == TRUNCATE


def test_a_setting_of_the_model_goes_before_that_of_the_job(words: list[str]) -> None:
    assert decided(words) == WINDOWS
    assert decided(words, "backbone.tiny.long_texts=truncate") == TRUNCATE
    assert decided(words, "long_texts=truncate", "backbone.tiny.long_texts=auto") == WINDOWS
    assert decided(words, "long_texts=truncate") == TRUNCATE
    own = config_of(words, "backbone.tiny.long_texts=windows", "backbone.tiny.window_overlap=7")
    assert settled(own, dataset_of(own)) == own


def test_the_names_of_jobs_are_those_of_before() -> None:
    """Of all jobs but those that leave the reading open."""

    def name(*overrides: str) -> str:
        return job_id(load(compose("train", list(overrides))))

    assert name() == "e28988044901"
    assert name("backbone.minilm.long_texts=windows") == "f2c2e8cf4e5b"
    assert name("long_texts=windows") == "f2c2e8cf4e5b"
    of_before = ["experiment=auto", "lexical=[words,characters]"]
    assert name(*of_before, "long_texts=truncate") == "0ba7e1829c5c"
    assert name("experiment=auto") != "0ba7e1829c5c"
    given = "+backbone.paid={endpoint: 'http://localhost/v1', model: m}"
    assert name(given) == "da62264f8aab"
    assert "paid" in load(compose("train", [given, "long_texts=auto"])).backbone


def test_the_stores_are_those_of_the_way_that_was_chosen(words: list[str]) -> None:
    def stores(*more: str) -> str:
        config = config_of(words, *more)
        source = open_sources(config, dataset_of(config))["tiny"]
        assert isinstance(source, EmbeddingSource)
        return source.stores["mean"].name

    whole = ("backbone.tiny.long_texts=windows", "backbone.tiny.window_overlap=1")
    assert stores() == stores(*whole)
    assert stores("layers.budget.ms_per_text=5") == stores("long_texts=truncate")


def test_where_time_is_short_texts_are_cut_before_models_are_left_out(words: list[str]) -> None:
    config = config_of(words, "time_limit=100")
    plan = make_plan(config)
    (one,) = plan.backbones
    assert one.truncated is not None
    assert one.tokens > one.truncated.tokens
    assert any("read whole, in windows" in line for line in plan_lines(plan))
    slow = replace(one, seconds=90.0, truncated=replace(one.truncated, seconds=30.0))
    plan = replace(plan, backbones=(slow,))
    rich, poor = (Deadline(limit, begun=0, now=lambda: 0) for limit in (1000, 100))
    (kept,) = plans_in_time(plan, config, rich)
    assert kept.reads is not None
    assert (kept.reads.long_texts, rich.left_out) == (WINDOWS, [])
    (kept,) = plans_in_time(plan, config, poor)
    assert kept.reads is not None
    assert kept.reads.long_texts == TRUNCATE
    assert poor.left_out == [
        "tiny cuts long texts: in windows its extraction would take about 2 min, and 70 s are left"
        " for it (time_limit=100)"
    ]


def test_a_limited_time_is_kept_and_the_job_is_found_again(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerfusion.runs.plan.matrix_speed", lambda _device: 1.5e6)
    _, record, said = trained([*words, "time_limit=300"], capsys)
    assert record.long_texts["tiny"]["long_texts"] == TRUNCATE
    assert any("tiny cuts long texts" in note for note in record.time_notes)
    monkeypatch.undo()
    _, _, said = trained([*words, "time_limit=300"], capsys)
    assert "finished before" in said


def test_without_texts_of_train_auto_is_one_line(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"long_texts=auto: texts of train decide"):
        lf.embed(["a good film"], bert, cache=tmp_path, long_texts="auto")


@pytest.mark.parametrize("key", ["long_texts", "backbone.tiny.long_texts"])
def test_another_word_is_one_line(
    key: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(["train", *words, f"{key}=whole"], capsys)
    assert code == 2
    assert said.splitlines()[-1].endswith("there are: truncate, windows, auto")


def test_the_page_says_how_long_texts_were_read(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, record, _ = trained(words, capsys)

    def page() -> str:
        assert run(["report", str(folder), "-o", str(tmp_path / "page")], capsys)[0] == 0
        (file,) = (tmp_path / "page").glob("*.html")
        return file.read_text()

    assert record.reading[0] in page()
    write_record(replace(record, reading=[]), folder)
    assert "read whole, in windows" not in page()


def test_the_same_model_with_two_prompts_is_two_sources(
    words: list[str], bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine" / "backbone").mkdir(parents=True)
    names = {"plain": "{text}", "asked": "the story of the film : {text}"}
    for name, template in names.items():
        settings = {"template": template, "max_length": LIMIT, "sources": [{"path": str(bert)}]}
        file = tmp_path / "mine" / "backbone" / f"{name}.yaml"
        file.write_text(json.dumps({name: settings}))
    plain = [word for word in words if not word.startswith("backbone.")]
    mine = [f"--config-dir={tmp_path / 'mine'}", "backbone=[plain,asked]"]
    folder, record, _ = trained([*mine, *plain, "layers=last", "fusion=stacked"], capsys)
    assert {layer.backbone for layer in record.layers} == set(names)
    hashes = [tuple(stores) for stores in record.considered.values()]
    assert len(set(hashes)) == 2
    assert record.backbones["asked"].spec["template"] == names["asked"]
    assert record.backbones["asked"].spec["model"] == record.backbones["plain"].spec["model"]
    bundle = load_bundle(folder, device="cpu")
    texts = dataset_of(config_of(words)).splits["test"].texts
    assert bundle.probabilities(texts).shape == (60, 2)


def test_a_wrong_way_is_named_by_the_key_that_was_typed(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("long_texts", "backbone.tiny.long_texts"):
        code, said = run(["train", *words, f"{key}=window"], capsys)
        assert code == 2
        assert said.startswith(f"layerfusion: {key}: there is no 'window'")
