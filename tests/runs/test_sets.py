"""Jobs on texts with several labels: their files, and what the record says of test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import layerfusion as lf
from layerfusion.commands.python import FinishedJob
from layerfusion.errors import UserError
from layerfusion.findings.jobs import read_predictions
from layerfusion.layers.labels import COMPARES_CLASSES
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.selection import ProbedLayer
from layerfusion.records.job import Estimate, LayerRecord, ReferenceRecord, SeedRecord
from layerfusion.runs import held_out_train
from layerfusion.runs.heads import TrainedReference, TrainingResult
from layerfusion.runs.honest import HONEST
from layerfusion.runs.job import _write_predictions
from layerfusion.statistics.intervals import bootstrap_interval, metric_intervals
from tests.report.fabricate import backbone
from tests.report.fabricate_sets import LABELS, set_dataset, true_labels, write_set_job
from tests.tiny import tiny_folder, tiny_topics

ROWS, SEEDS = 40, 2


@pytest.fixture
def result() -> TrainingResult:
    rng = np.random.default_rng(0)
    target = true_labels(ROWS)
    logits = 3.0 * target - 1.5 + rng.normal(size=(SEEDS, *target.shape))
    layer = ProbedLayer(LayerId("minilm", "3", "mean"), 0.5, 0.4, 0.6, 0.3)
    reference = TrainedReference(
        layer,
        "best_probe",
        torch.nn.functional.logsigmoid(torch.tensor(logits[0]).float()),
        10,
        20,
    )
    return TrainingResult(
        seeds=[SeedRecord(seed, 1, 1, 1.0, {}, {}) for seed in range(SEEDS)],
        target=target,
        text_of=np.arange(ROWS),
        probabilities=(1 / (1 + np.exp(-logits))).astype(np.float32),
        gates=None,
        gate_epochs=[],
        head_parameters=1,
        head_flops=1,
        seconds=1.0,
        notes=[],
        references=[reference],
    )


def test_predictions_come_back_as_they_were_written(result: TrainingResult, tmp_path: Path) -> None:
    baseline = ~result.target
    record = write_set_job(tmp_path, set_dataset(rows=ROWS), [("minilm", "3")], 1, 0.5, seeds=SEEDS)
    path = tmp_path / f"tags-{record.job}" / "predictions.parquet"
    _write_predictions(path, result, baseline)
    types = {field.name: str(field.type) for field in pq.read_schema(path)}
    for name in ("target", "pred", "baseline", "best_probe"):
        assert types[name].startswith("fixed_size_list<element: bool")
        assert types[name].endswith("[4]")
    place = LayerRecord("minilm", "3", "mean", 0.5, 8, "reference", None)
    model = backbone("minilm", "3", ["0", "3"])
    alone = ReferenceRecord(place, model, {}, {}, "best_probe", 1, 1)
    read = read_predictions(path.parent, replace(record, references=[alone]))
    assert read.target.tolist() == result.target.tolist()
    assert read.preds.tolist() == (result.probabilities >= 0.5).tolist()
    assert read.probabilities.tolist() == result.probabilities.tolist()
    assert read.baseline is not None
    assert read.baseline.tolist() == baseline.tolist()
    assert read.references["best_probe"].tolist() == read.preds[0].tolist()


def test_figures_of_test_have_intervals_and_a_consensus(result: TrainingResult) -> None:
    names = ("accuracy", "micro_f1", "macro_f1", "log_loss")
    means = {name: Estimate(0.5, 0.1) for name in names}
    found = HONEST.test_estimates(means, result, seed=3)
    ends = metric_intervals(result.target, result.probabilities >= 0.5, 3, text_of=None)
    assert ends.keys() == {"accuracy", "micro_f1", "macro_f1"}
    for name, end in ends.items():
        assert (found[name].low, found[name].high) == end
    right = ((result.probabilities.mean(axis=0) >= 0.5) == result.target).all(axis=1)
    consensus = found["consensus"]
    assert consensus.mean == right.mean()
    assert (consensus.low, consensus.high) == bootstrap_interval(
        right, np.zeros(ROWS, int), 3, text_of=None
    )


def test_the_line_of_a_result_speaks_of_exact_match(tmp_path: Path) -> None:
    record = write_set_job(tmp_path, set_dataset(rows=ROWS), [("minilm", "3")], 1, 0.5)
    line = HONEST.result_line(record, "(a head)")
    assert line.startswith("test exact match ")
    assert ", micro-F1 " in line
    assert ", macro-F1 " in line
    assert ", test exact match " in repr(FinishedJob(tmp_path, record))
    one = replace(record, dataset=replace(record.dataset, multilabel=False))
    one = replace(one, test={k: v for k, v in one.test.items() if k != "micro_f1"})
    assert HONEST.result_line(one, "").startswith("test accuracy ")
    assert "micro" not in HONEST.result_line(one, "")


def test_held_out_rows_have_the_mean_log_odds_of_each_label(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = write_set_job(tmp_path, set_dataset(rows=ROWS), [("minilm", "3")], 1, 0.5)
    labels = torch.tensor(true_labels(4))
    first, second = torch.full((3, len(LABELS)), 0.8), torch.full((3, len(LABELS)), 0.5)
    second[0, 0] = 1.0
    candidates = SimpleNamespace(
        fold_of=torch.tensor([0, held_out_train.NEVER, 1, 0]), texts=tuple("abcd"), labels=labels
    )
    probes = [SimpleNamespace(log_probs=one.log()) for one in (first, second)]
    for name, given in (
        ("open_sources", {}),
        ("candidates_of", candidates),
        ("held_out_probes", (probes, None)),
    ):
        monkeypatch.setattr(held_out_train, name, lambda *_, given=given: given)
    config: Any = SimpleNamespace(extract=SimpleNamespace(device="cpu"), layers=None)
    rows = held_out_train.held_out_rows(config, record, config)
    assert rows.texts == ["a", "c", "d"]
    assert rows.labels.tolist() == labels[[0, 2, 3]].tolist()
    assert rows.probabilities[1].tolist() == pytest.approx([2 / 3] * len(LABELS))
    assert 0.99 < rows.probabilities[0, 0] <= 1


def test_a_profile_leaves_out_scores_that_compare_classes(tmp_path: Path) -> None:
    texts, topics = tiny_topics(60)
    data = lf.load_dataset(texts, topics, name="topics")
    model = tiny_folder("bert", tmp_path / "tiny")
    keys: dict[str, Any] = {"cache": tmp_path / "cache", "logger": "none"}
    profile = lf.profile_layers(data, model, folder=tmp_path / "profile", **keys)
    frame = profile.frame()
    of_classes = ["logme", "h_score", "fisher", "gradient", "gradient_entropy"]
    assert not set(of_classes) & set(frame.columns)
    assert not frame[["log_loss", "accuracy", "effective_rank"]].isna().to_numpy().any()
    assert {profile.missing[name] for name in of_classes} == {COMPARES_CLASSES}
    page = lf.write_report(tmp_path / "profile").with_suffix(".md").read_text()
    assert COMPARES_CLASSES.partition(";")[0] in page
    for name in of_classes:
        with pytest.raises(UserError, match=f"score {name}: it compares classes.*need probe"):
            lf.select_layers(data, model, "top_k", layers={"score": name}, **keys)
