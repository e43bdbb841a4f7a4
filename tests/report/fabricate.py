"""Jobs that nobody ran: made-up records and predictions with the shape of real ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from layerfusion.records.gates import GateRecord
from layerfusion.records.job import (
    PREDICTIONS,
    BackboneRecord,
    BaselineRecord,
    CostRecord,
    DataRecord,
    Estimate,
    FoldsRecord,
    LayerRecord,
    RunRecord,
    SeedRecord,
    find_records,
    write_record,
)
from layerfusion.records.search import SearchHistory, TrialRecord

MODELS: dict[str, list[str]] = {
    "minilm": [str(i) for i in range(7)],
    "smollm2": [*(str(i) for i in range(31)), "norm"],
    "mpnet": [str(i) for i in range(13)],
    "words": ["0"],
}
SWEPT = {name: MODELS[name] for name in ("minilm", "smollm2")}
WIDTHS = {"minilm": 384, "smollm2": 576}
Source = tuple[str, str]


def dataset(
    name: str = "toy", *, rows: int = 300, fingerprint: str = "", **kwargs: Any
) -> DataRecord:
    base = DataRecord(
        name=name,
        origin=f"wheel {name}-files==1.0",
        fingerprint=fingerprint or hashlib.sha256(name.encode()).hexdigest(),
        label_names=["neg", "pos"],
        rows={"train": 450, "validation": 50, "test": rows},
        available={"train": 500, "test": rows},
        sampled=False,
        overlap=0,
        notes=["Validation was made here: 10 % of train, stratified, seed 0."],
    )
    return replace(base, **kwargs)


def backbone(name: str, highest: str, layers: Sequence[str], *, spec: str = "") -> BackboneRecord:
    share = (layers.index(highest) + 1) / len(layers)
    return BackboneRecord(
        origin=f"wheel llm-{name}==0.1.2",
        spec={"model": f"{name}-pinned", "max_length": 256, "pool": "mean"},
        spec_hash=spec or hashlib.sha256(name.encode()).hexdigest()[:16],
        num_blocks=sum(layer.isdigit() for layer in layers) - 1,
        layers=list(layers),
        highest_layer=highest,
        texts=800,
        tokens=83_000,
        cut_texts=24,
        cut_tokens=5_120,
        parameters=int(len(layers) * 4.1e6 * share),
        flops_per_text=len(layers) * 8e8 * share,
        milliseconds_per_text=3.1 * len(layers),
        store_bytes=int(800 * 4 * WIDTHS.get(name, 64) * len(layers) * share),
        milliseconds_one=2.5 * len(layers) * share,
        milliseconds_batch=40.0 * len(layers) * share,
    )


def write_job(
    runs: Path,
    data: DataRecord,
    sources: Sequence[Source],
    test: float,
    validation: float,
    *,
    selection: str = "fixed",
    fusion: str = "gated",
    pooling: str = "mean",
    seeds: int = 6,
    log_loss: float | None = None,
    gates: Sequence[float] | None = None,
    models: Mapping[str, list[str]] = MODELS,
    salt: str = "",
    spec: str = "",
    baseline: float = 0.76,
    right: np.ndarray | None = None,
    baseline_right: np.ndarray | None = None,
    keep_baseline: bool = True,
    recipe: str = "",
    considered: Sequence[str] = (),
    lexical: Sequence[str] = (),
    gate_record: GateRecord | None = None,
    head_flops: int | None = None,
    head_milliseconds: tuple[float | None, float | None] = (None, None),
    on_folds: float | None = None,
    settings: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Write a job whose test accuracy is about `test`; `right` fixes it by seed and row.

    How hard a row is does not depend on the job, so jobs are right on much the same rows. The
    baseline is right on the easiest rows; with `keep_baseline` off, the job is an old one that did
    not keep its predictions.
    """
    rows = data.rows["test"]
    text = f"{data.name} {data.fingerprint} {sources} {selection} {fusion} {pooling} {salt}"
    text += f" {recipe} {considered} {lexical}" if recipe else ""
    job = hashlib.sha256(text.encode()).hexdigest()[:12]
    noise = np.random.default_rng(int(job, 16))
    hard = np.random.default_rng(7).permutation(rows) / rows
    if right is None:
        right = (
            hard + 0.13 * noise.normal(size=rows) + 0.03 * noise.normal(size=(seeds, rows)) < test
        )
    if baseline_right is None:
        baseline_noise = np.random.default_rng(8).normal(size=rows)
        baseline_right = hard + 0.13 * baseline_noise < baseline
    baseline_accuracy = float(baseline_right.mean())
    target = np.arange(rows) % 2
    pred = np.where(right, target, 1 - target)
    # How sure a seed is of a row settles the consensus where the seeds do not agree.
    sure = np.random.default_rng([int(job, 16), 1]).uniform(0.5, 1, size=(seeds, rows))
    prob = np.stack([np.where(pred == label, sure, 1 - sure) for label in (0, 1)], axis=2)
    accuracy = right.mean(axis=1)
    spread = 1.96 * float(np.sqrt(accuracy.mean() * (1 - accuracy.mean()) / rows))
    loss = 1.2 * (1 - test) + 0.1 if log_loss is None else log_loss
    sd = float(accuracy.std(ddof=1)) if seeds > 1 else None

    def estimates(
        mean: float, low: float | None = None, high: float | None = None
    ) -> dict[str, Estimate]:
        return {
            "accuracy": Estimate(mean, sd, low, high),
            "macro_f1": Estimate(
                mean - 0.02,
                sd,
                None if low is None else max(0.0, low - 0.02),
                None if high is None else high - 0.02,
            ),
            "log_loss": Estimate(loss, 0.01 if sd is not None else None),
            "calibration_error": Estimate(0.04, 0.005 if sd is not None else None),
        }

    mean = float(accuracy.mean())
    names = list(dict.fromkeys(name for name, _ in sources))
    if gates is None and fusion == "gated":
        raw = noise.gamma(4.0, size=len(sources)) + 4
        gates = (raw / raw.sum()).tolist()
    record = RunRecord(
        job=job,
        protocol="honest",
        dataset=data,
        backbones={
            name: backbone(
                name,
                max((layer for n, layer in sources if n == name), key=models[name].index),
                models[name],
                spec=spec,
            )
            for name in names
        },
        selection=selection,
        layers=[
            LayerRecord(
                backbone=name,
                layer=layer,
                pooling=pooling,
                depth=1.0
                if layer == "norm"
                else int(layer) / max(1, *(int(x) for x in models[name] if x != "norm")),
                width=WIDTHS.get(name, 64),
                reason=selection,
                mean_gate=None if gates is None else gates[index],
            )
            for index, (name, layer) in enumerate(sources)
        ],
        fusion=fusion,
        seeds=[
            SeedRecord(
                seed, 12, 22, 1.4, {"accuracy": validation}, {"accuracy": float(accuracy[seed])}
            )
            for seed in range(seeds)
        ],
        validation=estimates(validation),
        test=estimates(mean, max(0.0, mean - spread), min(1.0, mean + spread)),
        baseline=BaselineRecord(
            features="words",
            c=10.0,
            cross_validation={"words c=10": baseline - 0.01, "characters c=10": baseline - 0.02},
            test={
                "accuracy": baseline_accuracy,
                "macro_f1": baseline_accuracy - 0.01,
                "log_loss": 0.5,
            },
            low=baseline_accuracy - 0.045,
            high=baseline_accuracy + 0.045,
            seconds=0.7,
        ),
        cost=CostRecord(
            100_000 * len(sources) + 514,
            8.4 * len(sources),
            1_400_000_000,
            head_flops,
            *head_milliseconds,
        ),
        versions={"python": "3.12.1", "layerfusion": "0.1.0", "torch": "2.13.0"},
        created="2026-01-05T10:00:00+00:00",
        considered={name: [f"spec of {name}"] for name in (*considered, *lexical)},
        gates=gate_record,
        recipe=recipe,
        lexical=list(lexical),
        settings=dict(settings or {}),
        on_folds=None
        if on_folds is None
        else FoldsRecord(5, data.rows["train"], estimates(on_folds)),
    )
    folder = runs / f"{data.name.replace('/', '-')}-{job}"
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "seed": np.repeat(np.arange(seeds), rows),
            "row": np.tile(np.arange(rows), seeds),
            "target": np.tile(target, seeds),
            "pred": pred.reshape(-1),
            "prob": pa.FixedSizeListArray.from_arrays(prob.reshape(-1).astype(np.float32), 2),
            "baseline": np.tile(np.where(baseline_right, target, 1 - target), seeds),
        }
    )
    if not keep_baseline:
        table = table.drop_columns(["baseline"])
    pq.write_table(table, folder / PREDICTIONS)
    write_record(record, folder)
    return record


def amend(runs: Path, record: RunRecord, **changes: object) -> None:
    """Change what the record of a job says."""
    (folder,) = [path for path, found in find_records(runs) if found.job == record.job]
    write_record(replace(record, **changes), folder)  # type: ignore[arg-type]


def write_sweep(runs: Path, data: DataRecord, *, lift: float = 0.0, baseline: float = 0.76) -> None:
    """Every layer of both models alone, and six fusions; `lift` is what fusing all layers adds."""
    wiggle = np.random.default_rng(3)
    for name, layers in SWEPT.items():
        top = {"minilm": 0.775, "smollm2": 0.81}[name]
        for index, layer in enumerate(layers):
            depth = index / (len(layers) - 1)
            curve = top - 0.22 * (1 - depth) ** 3 - (0.09 if name == "smollm2" else 0.02) * depth**4
            last = layer == layers[-1]
            write_job(
                runs,
                data,
                [(name, layer)],
                curve,
                curve + 0.02 * wiggle.normal(),
                selection="last" if last else "fixed",
                baseline=baseline,
            )
    last = [(name, layers[-1]) for name, layers in SWEPT.items()]
    both = [(name, layer) for name, layers in SWEPT.items() for layer in layers]
    for fusion, extra in (("gated", 0.0), ("concat", -0.02)):
        write_job(
            runs,
            data,
            last,
            0.79 + extra,
            0.80 + extra,
            selection="last",
            fusion=fusion,
            baseline=baseline,
        )
        for name in SWEPT:
            own = [source for source in both if source[0] == name]
            write_job(
                runs,
                data,
                own,
                0.785 + extra,
                0.79 + extra,
                selection="all",
                fusion=fusion,
                baseline=baseline,
            )
        write_job(
            runs,
            data,
            both,
            0.81 + lift + extra,
            0.86 + extra,
            selection="all",
            fusion=fusion,
            baseline=baseline,
        )
    write_job(
        runs,
        data,
        [("minilm", "4"), ("minilm", "5"), ("smollm2", "17")],
        0.80,
        0.81,
        baseline=baseline,
    )


LOSSES = (0.61, 0.58, None, 0.63, 0.52, None, 0.55, 0.52)
ENDED = {2: "pruned", 5: "fail"}


def search_history(name: str = "heads", values: tuple[float | None, ...] = LOSSES) -> SearchHistory:
    """A study whose trials came to these values, None for those that did not."""
    trials = [
        TrialRecord(
            number,
            "complete" if value is not None else ENDED.get(number, "fail"),
            {"fusion": ("gated", "concat")[number % 2], "trainer.learning_rate": 10.0**-number},
            value,
            7,
            f"job{number}",
            2.0,
        )
        for number, value in enumerate(values)
    ]
    return SearchHistory(name, "dataset=reviews", trials, {"fusion": 0.2, "trainer.lr": 0.8})
