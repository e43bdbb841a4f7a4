"""The record of a finished job: `metrics.json`, `predictions.parquet` and `config.yaml`.

`metrics.json` is written last and atomically, so a folder that has one is a finished job.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from layerfusion.assets.files import write_atomically
from layerfusion.errors import UserError
from layerfusion.records.gates import GateRecord, read_gates

SCHEMA = 2
"""Version of `metrics.json`. Version 1 called `baseline` `floor` and `candidates` `entrants`."""
METRICS = "metrics.json"
PREDICTIONS = "predictions.parquet"
CLAIMED_PREDICTIONS = "claimed_predictions.parquet"
"""Replaces `PREDICTIONS` under `protocol=as_published`: predictions of the best epoch on test."""
CONFIG = "config.yaml"


@dataclass(frozen=True)
class DataRecord:
    """The data set of a job."""

    name: str
    origin: str
    fingerprint: str
    label_names: list[str]
    rows: dict[str, int]
    """Number of rows used, by split."""
    available: dict[str, int]
    """Number of rows available, by split; more than `rows` if a sample was taken."""
    sampled: bool
    overlap: int
    """Number of test rows whose text also occurs in train."""
    notes: list[str]
    """Remarks that a reader of the figures needs, such as splits made here or texts dropped."""
    test_fingerprint: str = ""
    """Fingerprint of the test rows alone. Jobs that share it are evaluated on the same texts."""
    per_class: int | None = None
    """Rows drawn from each class of train and validation together; None if all were used."""
    draw: int = 0
    """Number of the draw. Each draw is another sample of `per_class` rows."""


@dataclass(frozen=True)
class BackboneRecord:
    """A backbone of a job: where it came from, how much it read and what it cost."""

    origin: str
    spec: dict[str, Any]
    spec_hash: str
    num_blocks: int
    layers: list[str]
    """Every layer of the model, from the bottom up."""
    highest_layer: str
    """The highest layer that the job uses. Blocks above it need not be computed."""
    texts: int
    tokens: int
    """Number of tokens that the model read, over all splits."""
    cut_texts: int
    cut_tokens: int
    """Texts and tokens that `max_length` truncated."""
    parameters: int
    """Number of parameters in the embeddings and the blocks up to the highest layer."""
    flops_per_text: float
    """FLOPs of a forward pass up to the highest layer, averaged over the texts."""
    milliseconds_per_text: float | None
    """Time to extract all layers of a text on this machine; None if it was not measured."""
    store_bytes: int
    """Size on disk of the selected layers of this job's texts."""
    milliseconds_one: float | None = None
    milliseconds_batch: float | None = None
    """Time for one text of medium length, and for a batch of 32, up to the highest layer. Measured
    when the model was loaded to extract texts; None if it was not measured."""


@dataclass(frozen=True)
class LayerRecord:
    """A selected layer, the reason for its selection and its weight in the fusion."""

    backbone: str
    layer: str
    pooling: str
    depth: float
    """Relative depth: 0 enters the first block, 1 leaves the last. `norm` counts as 1."""
    width: int
    reason: str
    mean_gate: float | None
    """Mean gate over test texts and seeds; None if the operator has no gates."""
    weight: float | None = None
    """Share from the selection, where a weighted fusion starts; None if all shares are equal."""


@dataclass(frozen=True)
class SeedRecord:
    """One training run, with accuracy, macro_f1, log_loss and calibration_error of each split."""

    seed: int
    best_epoch: int
    """Best epoch on validation, or on test under `protocol=as_published`; 0 without epochs."""
    epochs: int
    seconds: float
    validation: dict[str, float]
    test: dict[str, float]


@dataclass(frozen=True)
class Estimate:
    """A figure with its spread over seeds and its interval over test rows."""

    mean: float
    sd: float | None
    """Standard deviation over seeds; None for a single seed."""
    low: float | None = None
    high: float | None = None
    """95 % bootstrap interval over test rows, stratified by class; None if not computed."""


@dataclass(frozen=True)
class BaselineRecord:
    """TF-IDF and logistic regression on the whole text, which any model has to beat."""

    features: str
    """Words, words and pairs, or characters, as chosen by cross-validation on train."""
    c: float
    """Inverse strength of the regularisation, chosen in the same way."""
    cross_validation: dict[str, float]
    """Cross-validated accuracy of each combination of features and `c`."""
    test: dict[str, float]
    low: float
    high: float
    """95 % bootstrap interval of the test accuracy."""
    seconds: float
    macro_f1_low: float | None = None
    macro_f1_high: float | None = None
    """95 % bootstrap interval of the test macro-F1; None in older records."""


@dataclass(frozen=True)
class CostRecord:
    """Costs of the job beyond its backbones."""

    head_parameters: int
    train_seconds: float
    peak_memory_bytes: int
    """Peak resident memory of the process."""
    head_flops: int | None = None
    """FLOPs of the head for one text; None in older records."""
    head_milliseconds: float | None = None
    head_milliseconds_batch: float | None = None
    """Time of a trained head for one text, and for a batch of 32; None if not measured."""


@dataclass(frozen=True)
class PilotRecord:
    """Savings from choosing the layers on a sample of train."""

    rows: list[int]
    """Sizes of the samples that were tried. The last one settled the choice."""
    texts_whole: int
    """Number of distinct texts whose layers were all extracted."""
    texts: int
    """Number of distinct texts of the job."""
    flops: float
    flops_full: float
    """FLOPs to extract all layers of all texts. Every text is assumed to cost the pilot's mean,
    here and below."""
    bytes: int
    bytes_full: int
    seconds: float | None
    seconds_full: float | None
    """Estimated from the time that the pilot took; None if it was not measured."""
    full_job: str
    """Hash of the same job without the pilot."""


@dataclass(frozen=True)
class PublishedRecord:
    """Additional facts of a job under `protocol=as_published`."""

    residual: bool
    """True if the operator was used in its residual form."""
    padding: dict[str, float]
    """For each backbone, the share of the averaged positions that are padding."""
    epochs: int
    halvings: int
    """Number of random halvings of test behind `split_half_accuracy`."""
    test_accuracy_by_epoch: list[list[float]]
    """Test accuracy by seed and epoch. Published scripts report the maximum."""


@dataclass(frozen=True)
class CandidateRecord:
    """A fusion that `fusion=auto` evaluated on held-out rows of train."""

    fusion: str
    width: int
    """Width of the head; it has no meaning for `stacked`."""
    layer_set: str
    """Name of the layer set, which says how its layers were chosen."""
    layers: list[str]
    folds: int
    """Number of folds that it was evaluated on before it was dropped."""
    log_loss: float
    """Mean over the evaluated rows, in nats. Comparable only for the same number of folds."""
    behind: float
    """Mean difference in log-loss to the chosen candidate, on the rows that both have."""
    behind_error: float | None
    """Standard error of the difference; None for a single row."""
    head_parameters: int
    flops_per_text: float
    """FLOPs of the models, each up to its highest layer."""


@dataclass(frozen=True)
class RunRecord:
    """Everything that a reader of a result may want to trace."""

    job: str
    """Hash of every setting that changes the result."""
    protocol: str
    dataset: DataRecord
    backbones: dict[str, BackboneRecord]
    selection: str
    layers: list[LayerRecord]
    fusion: str
    seeds: list[SeedRecord]
    validation: dict[str, Estimate]
    test: dict[str, Estimate]
    """Besides the metrics it has `consensus`, the accuracy of the class with the highest mean
    probability over the seeds, which significance tests use; older records lack it. Under
    `protocol=as_published` it has `claimed_accuracy`, `last_epoch_accuracy`, `split_half_accuracy`
    and `selection_bias` instead, and `validation` is empty."""
    baseline: BaselineRecord
    cost: CostRecord
    versions: dict[str, str]
    created: str
    considered: dict[str, list[str]] = field(default_factory=dict)
    """Spec hashes, one for each pooling, of every backbone that the selection could choose."""
    selection_notes: list[str] = field(default_factory=list)
    """Layers that the selection passed over, and why."""
    fusion_notes: list[str] = field(default_factory=list)
    """Decisions that the fusion made by itself, and why."""
    pilot: PilotRecord | None = None
    published: PublishedRecord | None = None
    candidates: list[CandidateRecord] = field(default_factory=list)
    """Candidates of `fusion=auto`, the chosen one first; empty for other fusions."""
    gates: GateRecord | None = None
    """None if the operator has no gates, and in older records."""
    recipe: str = ""
    """Hash of the settings without the models, the lexical sources and the sample of each class.
    Jobs with the same recipe differ in nothing else."""
    lexical: list[str] = field(default_factory=list)
    """Names in `considered` that are lexical sources, not models."""
    schema: int = SCHEMA

    @property
    def backbone_names(self) -> tuple[str, ...]:
        """Names of the backbones whose layers were selected."""
        return tuple(dict.fromkeys(layer.backbone for layer in self.layers))


def write_record(record: RunRecord, folder: Path) -> None:
    """Write `metrics.json`. From then on the job counts as finished."""
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / METRICS, text.encode())


def read_record(folder: Path) -> RunRecord:
    """Read the record of a finished job.

    Raises:
        UserError: if the file is not such a record, or has a schema that this version cannot read.
    """
    path = folder / METRICS
    try:
        raw = json.loads(path.read_text())
        if raw["schema"] == 1:
            raw = _from_schema_1(raw)
        if raw["schema"] != SCHEMA:
            raise UserError(f"{path}: schema {raw['schema']}, this version reads {SCHEMA}")
        return RunRecord(
            **{
                **raw,
                "dataset": DataRecord(**raw["dataset"]),
                "backbones": {k: BackboneRecord(**v) for k, v in raw["backbones"].items()},
                "layers": [LayerRecord(**v) for v in raw["layers"]],
                "seeds": [SeedRecord(**v) for v in raw["seeds"]],
                "validation": {k: Estimate(**v) for k, v in raw["validation"].items()},
                "test": {k: Estimate(**v) for k, v in raw["test"].items()},
                "baseline": BaselineRecord(**raw["baseline"]),
                "cost": CostRecord(**raw["cost"]),
                "pilot": PilotRecord(**raw["pilot"]) if raw.get("pilot") else None,
                "published": PublishedRecord(**raw["published"]) if raw.get("published") else None,
                "candidates": [CandidateRecord(**v) for v in raw.get("candidates", ())],
                "gates": read_gates(raw["gates"]) if raw.get("gates") else None,
            }
        )
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a record of a finished job ({error})") from error


def _from_schema_1(raw: dict[str, Any]) -> dict[str, Any]:
    """Rename the fields that had other names in schema 1."""
    candidates = [
        {"layer_set" if key == "team" else key: value for key, value in entry.items()}
        for entry in raw.get("entrants", ())
    ]
    kept = {key: value for key, value in raw.items() if key not in ("floor", "entrants")}
    return {**kept, "schema": SCHEMA, "baseline": raw["floor"], "candidates": candidates}


def find_records(folder: Path) -> list[tuple[Path, RunRecord]]:
    """Read all finished jobs under a folder, in the order of their paths."""
    paths = sorted(path.parent for path in folder.rglob(METRICS))
    return [(path, read_record(path)) for path in paths]
