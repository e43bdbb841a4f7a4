"""A job under the published protocol, from the command line to its record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from layerfusion.cli import main
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.identity import job_id
from layerfusion.config.job import TrainConfig
from layerfusion.published.record import published_facts
from layerfusion.records.job import METRICS, RunRecord, find_records
from layerfusion.runs.inputs import read_features
from layerfusion.runs.protocol import protocol_of
from layerfusion.statistics.intervals import bootstrap_interval
from tests.tiny import WORDS, tiny_folder

PUBLISHED = ["protocol=as_published", "fusion=published_hadamard"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of different width, and a data set whose order is that of its files."""
    root = tmp_path_factory.mktemp("published")
    tiny_folder("llama", root / "llama")
    tiny_folder("bert", root / "bert", hidden_size=48)
    generator = np.random.default_rng(0)
    for split, rows in (("train", 61), ("test", 37)):
        labels = generator.integers(0, 2, rows)
        texts = [
            f"{' '.join(generator.choice(WORDS[:16] if label else WORDS[9:], size))} {split} {n}"
            for n, (label, size) in enumerate(
                zip(labels, generator.integers(1, 30, rows), strict=True)
            )
        ]
        table = pd.DataFrame({"text": texts, "label": np.where(labels, "pos", "neg")})
        table.to_csv(root / f"{split}.csv", index=False)
    return root


def arguments(folder: Path, models: str = "llama bert") -> list[str]:
    return [
        "dataset=local",
        f"dataset.train={folder / 'train.csv'}",
        f"dataset.test={folder / 'test.csv'}",
        *(f"backbone.{name}.path={folder / name}" for name in models.split()),
        *("logger=none", "seeds=2", f"paths.cache={folder / 'cache'}"),
        "extract.store_dtype=float32",
    ]


def config_of(folder: Path, *extra: str) -> TrainConfig:
    return load(compose("train", [*arguments(folder), *extra]))


@pytest.fixture(scope="module")
def finished(folder: Path) -> tuple[Path, RunRecord]:
    outputs = f"paths.outputs={folder / 'outputs'}"
    assert main(["train", *arguments(folder), *PUBLISHED, outputs]) == 0
    (found,) = find_records(folder / "outputs")
    return found


def naive(folder: Path, texts: list[str]) -> np.ndarray:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    vectors = []
    for start in range(0, len(texts), 2):
        kept = tokenizer(texts[start : start + 2], padding=True, return_tensors="pt")
        with torch.no_grad():
            output = model(input_ids=kept["input_ids"], attention_mask=kept["attention_mask"])
        vectors.append(output.last_hidden_state.mean(1))
    return torch.cat(vectors).numpy()


def test_rows_are_batched_in_the_order_of_the_files_before_validation_is_cut(folder: Path) -> None:
    """Text by text the vectors of a script that reads train.csv and test.csv from the top."""
    config = config_of(folder, *PUBLISHED)
    inputs = protocol_of(config).prepare(config)
    features = read_features(inputs)
    for place, name in enumerate(("llama", "bert")):
        assert inputs.selection.layers[place].backbone == name
        for file, splits in (("train", ("train", "validation")), ("test", ("test",))):
            texts = pd.read_csv(folder / f"{file}.csv").text.tolist()
            expected = dict(zip(texts, naive(folder / name, texts), strict=True))
            rows = 0
            for split in splits:
                found = features[split][place].numpy()
                wanted = [expected[text] for text in inputs.dataset.splits[split].texts]
                np.testing.assert_allclose(found, np.array(wanted), atol=2e-5)
                rows += len(wanted)
            assert rows == len(texts)


def test_a_record_says_what_would_be_claimed_under_names_of_its_own(
    finished: tuple[Path, RunRecord],
) -> None:
    path, record = finished
    assert record.protocol == "as_published"
    assert record.validation == {}
    names = {"claimed_accuracy", "last_epoch_accuracy", "split_half_accuracy", "selection_bias"}
    assert set(record.test) == names
    assert [str(x.pooling) for x in record.layers] == ["padded_mean", "padded_mean"]
    assert [x.layer for x in record.layers] == ["norm", "3"]
    assert not (path / "predictions.parquet").exists()
    predictions = pd.read_parquet(path / "claimed_predictions.parquet")
    facts = published_facts(record)
    assert facts is not None
    for seed, curve in zip(record.seeds, facts.test_accuracy_by_epoch, strict=True):
        rows = predictions[predictions.seed == seed.seed]
        assert len(curve) == seed.epochs == 100
        assert seed.test["claimed_accuracy"] == max(curve) == curve[seed.best_epoch - 1]
        assert (rows.pred == rows.target).mean() == pytest.approx(max(curve))
        assert seed.test["last_epoch_accuracy"] == curve[-1]
        gap = seed.test["claimed_accuracy"] - seed.test["split_half_accuracy"]
        assert seed.test["selection_bias"] == pytest.approx(gap)
    for figure in record.test.values():
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.mean <= figure.high
    claimed = record.test["claimed_accuracy"]
    right = (predictions.pred == predictions.target).to_numpy().reshape(2, -1)
    target = predictions.target.to_numpy()[: right.shape[1]]
    assert (claimed.low, claimed.high) == bootstrap_interval(right, target, text_of=None)
    mean = np.mean([seed.test["selection_bias"] for seed in record.seeds])
    assert record.test["selection_bias"].mean == pytest.approx(mean)


def test_the_padding_is_counted(folder: Path, finished: tuple[Path, RunRecord]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "bert")
    tokens = positions = 0
    for file in ("train", "test"):
        texts = pd.read_csv(folder / f"{file}.csv").text.tolist()
        for start in range(0, len(texts), 2):
            lengths = [len(tokenizer(text)["input_ids"]) for text in texts[start : start + 2]]
            tokens += sum(lengths)
            positions += max(lengths) * len(lengths)
    record = finished[1]
    facts = published_facts(record)
    assert facts is not None
    assert facts.padding["bert"] == pytest.approx(1 - tokens / positions)
    assert record.backbones["bert"].tokens == tokens


def test_a_finished_claim_is_not_made_again_and_enters_no_honest_table(
    folder: Path, finished: tuple[Path, RunRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    path, record = finished
    before = (path / METRICS).stat().st_mtime_ns
    outputs = f"paths.outputs={folder / 'outputs'}"
    assert main(["train", *arguments(folder), *PUBLISHED, outputs]) == 0
    said = capsys.readouterr().err
    assert "finished before" in said
    assert "would be claimed" in said
    assert (path / METRICS).stat().st_mtime_ns == before
    assert main(["report", str(folder / "outputs")]) == 0
    page = (folder / "outputs" / "report.md").read_text()
    assert "this page has no result" in page
    assert record.job in page


def test_one_backbone_is_the_head_on_its_vector(folder: Path) -> None:
    outputs = f"paths.outputs={folder / 'alone'}"
    assert main(["train", *arguments(folder, "bert"), *PUBLISHED, outputs, "seeds=1"]) == 0
    ((_, record),) = find_records(folder / "alone")
    weights = 48 * 1024 + 1024 + 1024 * 256 + 256 + 256 * 2 + 2
    assert record.cost.head_parameters == weights
    assert record.cost.head_flops == 2 * (48 * 1024 + 1024 * 256 + 256 * 2)


def test_the_protocol_changes_the_name_of_a_job(folder: Path) -> None:
    honest, claimed = config_of(folder), config_of(folder, *PUBLISHED)
    claimed.fusion = honest.fusion
    assert job_id(honest) != job_id(claimed)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["protocol=nope"], "protocol: there is no 'nope'; there are: honest, as_published"),
        (["protocol=as_published"], "fusion=gated: protocol=as_published has operators of its own"),
        (
            ["fusion=published_sum"],
            "fusion=published_sum: it belongs to another protocol; protocol=honest has: attention",
        ),
        ([*PUBLISHED, "layers=all"], "layers.name=all: protocol=as_published does not leave"),
        ([*PUBLISHED, "layers.budget.max_layer=1"], "layers.budget="),
        ([*PUBLISHED, "pooling=[last]"], "pooling=[last]: protocol=as_published does not leave"),
        ([*PUBLISHED, "lexical=[words]"], "lexical=[words]: protocol=as_published does not leave"),
        ([*PUBLISHED, "fusion.width=8"], "fusion.width=8: protocol=as_published does not leave"),
        ([*PUBLISHED, "trainer.max_epochs=3"], "trainer.max_epochs=3: protocol=as_published"),
        ([*PUBLISHED, "objective=accuracy"], "objective=accuracy: protocol=as_published does not"),
        ([*PUBLISHED, "class_weights=balanced"], "class_weights=balanced: protocol=as_published"),
        ([*PUBLISHED, "time_limit=60"], "time_limit=60: protocol=as_published"),
        ([*PUBLISHED, "dataset.multilabel=true"], "multilabel=true: protocol=as_published has a"),
        (
            [*PUBLISHED, "dataset.label_columns=[a,b]"],
            "dataset.label_columns: protocol=as_published",
        ),
        ([*PUBLISHED, "backbone.bert.max_length=64"], "it has max_length=512"),
        ([*PUBLISHED, "backbone.bert.long_texts=windows"], "it has long_texts=truncate"),
        (["protocol=as_published", "fusion=published_concat", "fusion.residual=true"], "no resid"),
        ([*PUBLISHED, "backbone.third.path=x"], "one or two backbones, found 3"),
        ([*PUBLISHED, "limit.test=1"], "1 test row cannot be halved"),
    ],
)
def test_what_the_protocol_fixes_is_refused_in_one_line(
    extra: list[str], says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = f"paths.outputs={folder / 'refused'}"
    assert main(["train", *arguments(folder), *extra, outputs]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert says in said[-1]
    assert not list((folder / "refused").rglob(METRICS))


@pytest.mark.parametrize("command", ["plan", "profile", "search"])
def test_honest_commands_refuse_it(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = f"paths.outputs={folder / command}"
    assert main([command, *arguments(folder), *PUBLISHED, outputs]) == 2
    assert f"`layerfusion {command}` knows protocol=honest only" in capsys.readouterr().err


def test_settings_that_agree_with_the_protocol_are_allowed(folder: Path) -> None:
    config = config_of(folder, *PUBLISHED, "trainer.batch_size=1024", "trainer.learning_rate=1e-4")
    assert config.trainer.batch_size == 1024
