"""What a finished job leaves: `metrics.json`, `predictions.parquet` and `config.yaml`.

`metrics.json` is written last and atomically, so a folder that holds one is a finished job.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from layerfusion.assets.files import write_atomically
from layerfusion.embeddings.shape import BATCH
from layerfusion.errors import UserError
from layerfusion.records.gates import GateRecord, read_gates

SCHEMA = 2
"""Version of `metrics.json`. In version 1, `baseline` was `floor` and `candidates` `entrants`."""
METRICS = "metrics.json"
PREDICTIONS = "predictions.parquet"
CLAIMED_PREDICTIONS = "claimed_predictions.parquet"
"""In place of the former under `protocol=as_published`: of the epoch that test itself chose."""
CONFIG = "config.yaml"
LATENCY_BATCH = BATCH
"""Texts in the batch whose latency the record holds as `milliseconds_batch`."""


@dataclass(frozen=True)
class DataRecord:
    """The data of a job."""

    name: str
    origin: str
    fingerprint: str
    label_names: list[str]
    rows: dict[str, int]
    """Split to the rows used."""
    available: dict[str, int]
    """Split to the rows there are; more than `rows` where a sample was taken."""
    sampled: bool
    overlap: int
    """Rows of test whose text also occurs in train."""
    notes: list[str]
    """What a reader of the figures has to know: splits made here, texts dropped."""
    test_fingerprint: str = ""
    """Of the test rows alone: samples of train that share it are measured on the same texts."""
    per_class: int | None = None
    """Rows of each class that were drawn from train and validation together; none: all."""
    draw: int = 0
    """Which of such samples."""


@dataclass(frozen=True)
class BackboneRecord:
    """A backbone of a job: what it is, what it saw and what it cost."""

    origin: str
    spec: dict[str, Any]
    spec_hash: str
    num_blocks: int
    layers: list[str]
    """Every layer the model has, bottom up."""
    highest_layer: str
    """The highest layer the job needs; blocks above it need not be computed."""
    texts: int
    tokens: int
    """Tokens that the model saw, over all splits."""
    cut_texts: int
    cut_tokens: int
    """What a limited length left out."""
    parameters: int
    """Of the embeddings and the blocks up to the highest layer."""
    flops_per_text: float
    """Forward pass up to the highest layer, mean over the texts."""
    milliseconds_per_text: float | None
    """Measured when the texts were extracted on this machine, all layers; none: not measured."""
    store_bytes: int
    """The selected layers of the texts of this job on disk."""
    milliseconds_one: float | None = None
    milliseconds_batch: float | None = None
    """Of one text of middling length and of a batch of 32, up to the highest layer; measured when
    the model was loaded to extract them. None: not measured."""


@dataclass(frozen=True)
class LayerRecord:
    """A selected layer, why it was selected and what weight the fusion gave it."""

    backbone: str
    layer: str
    pooling: str
    depth: float
    """0 = what enters the first block, 1 = what leaves the last; `norm` counts as 1."""
    width: int
    reason: str
    mean_gate: float | None
    """Mean over test texts and seeds; none where the operator has no gates."""
    weight: float | None = None
    """Share that the selection gave it, which a weighted fusion starts from; none: all alike."""


@dataclass(frozen=True)
class SeedRecord:
    """One training run: its metrics by split (accuracy, macro_f1, log_loss, calibration_error)."""

    seed: int
    best_epoch: int
    """0 where the head is not trained in epochs; the best on test under `protocol=as_published`."""
    epochs: int
    seconds: float
    validation: dict[str, float]
    test: dict[str, float]


@dataclass(frozen=True)
class Estimate:
    """A figure over seeds and test rows."""

    mean: float
    sd: float | None
    """Over seeds; none with one seed."""
    low: float | None = None
    high: float | None = None
    """95 % bootstrap interval over test rows, drawn class by class; none where not computed."""


@dataclass(frozen=True)
class BaselineRecord:
    """TF-IDF and logistic regression on the whole text: what any model has to beat."""

    features: str
    """words, words and pairs, or characters: chosen by cross-validation on train."""
    c: float
    """Inverse strength of the regularisation, chosen likewise."""
    cross_validation: dict[str, float]
    """Candidate to its cross-validated accuracy."""
    test: dict[str, float]
    low: float
    high: float
    """95 % bootstrap interval of the test accuracy."""
    seconds: float
    macro_f1_low: float | None = None
    macro_f1_high: float | None = None
    """95 % bootstrap interval of the test macro-F1; none in records that are older than it."""


@dataclass(frozen=True)
class CostRecord:
    """What the job cost beyond its backbones."""

    head_parameters: int
    train_seconds: float
    peak_memory_bytes: int
    """Largest resident size of the process so far."""
    head_flops: int | None = None
    """Of the head for one text; none in records that are older than it."""
    head_milliseconds: float | None = None
    head_milliseconds_batch: float | None = None
    """Of a trained head for one text and for a batch of 32; none: not measured."""


@dataclass(frozen=True)
class PilotRecord:
    """What choosing layers on a sample saved."""

    rows: list[int]
    """Sizes of the sample, the last of which settled the choice."""
    texts_whole: int
    """Different texts whose layers were all extracted."""
    texts: int
    """Different texts of the job."""
    flops: float
    flops_full: float
    """Of extracting all layers of all texts; here and below a text counts as the pilot's mean."""
    bytes: int
    bytes_full: int
    seconds: float | None
    seconds_full: float | None
    """From the time that the pilot took; none where it was not measured."""
    full_job: str
    """Hash of the job that differs in nothing but the pilot."""


@dataclass(frozen=True)
class PublishedRecord:
    """What only a job under `protocol=as_published` has."""

    residual: bool
    """Whether the operator was taken in its residual form."""
    padding: dict[str, float]
    """Backbone to the share of the positions in its means that are padding."""
    epochs: int
    halvings: int
    """Random halvings of test behind `split_half_accuracy`."""
    test_accuracy_by_epoch: list[list[float]]
    """Of each seed, after every epoch; the largest is what would be claimed."""


@dataclass(frozen=True)
class CandidateRecord:
    """A fusion that `fusion=auto` judged on rows of train held out."""

    fusion: str
    width: int
    """Means nothing for `stacked`."""
    layer_set: str
    """How its layers were found."""
    layers: list[str]
    folds: int
    """On how many folds it was judged before it was dropped."""
    log_loss: float
    """Mean over the rows judged, in nats; comparable only where the folds are the same."""
    behind: float
    """Mean difference to the chosen one on the rows that both were judged on."""
    behind_error: float | None
    """Standard error of the difference; none for a single row."""
    head_parameters: int
    flops_per_text: float
    """Of the models up to the highest layer of each."""


@dataclass(frozen=True)
class RunRecord:
    """Everything that a reader of a result may want to trace."""

    job: str
    """Hash of all that changes the result."""
    protocol: str
    dataset: DataRecord
    backbones: dict[str, BackboneRecord]
    selection: str
    layers: list[LayerRecord]
    fusion: str
    seeds: list[SeedRecord]
    validation: dict[str, Estimate]
    test: dict[str, Estimate]
    """Also `consensus`: accuracy of the class of the highest mean probability over the seeds, which
    is what significance tests see; missing in records that are older than it. Under
    `protocol=as_published` none of these, but `claimed_accuracy`, `last_epoch_accuracy`,
    `split_half_accuracy` and `selection_bias`, and nothing in `validation`."""
    baseline: BaselineRecord
    cost: CostRecord
    versions: dict[str, str]
    created: str
    considered: dict[str, list[str]] = field(default_factory=dict)
    """Backbones that the selection chose among, each with its spec hashes, one a pooling."""
    selection_notes: list[str] = field(default_factory=list)
    """What the selection passed over, and why."""
    fusion_notes: list[str] = field(default_factory=list)
    """What the fusion decided by itself, and why."""
    pilot: PilotRecord | None = None
    published: PublishedRecord | None = None
    candidates: list[CandidateRecord] = field(default_factory=list)
    """What `fusion=auto` chose among, the chosen one first; empty for other fusions."""
    gates: GateRecord | None = None
    """None where the operator has no gates, and in records that are older than it."""
    recipe: str = ""
    """Hash of the settings without the models, the lexical sources and the sample of each class:
    jobs of one recipe differ in nothing else."""
    lexical: list[str] = field(default_factory=list)
    """Which of `considered` are lexical sources, not models."""
    looked_at_labels: bool | None = None
    """True where the selection looked at labels of train, as those by scores do; none in records
    that are older than it."""
    schema: int = SCHEMA

    @property
    def scored(self) -> bool:
        """True where the layers were selected by scores, not named beforehand."""
        if self.looked_at_labels is None:
            return self.selection not in ("last", "all", "fixed")
        return self.looked_at_labels

    @property
    def backbone_names(self) -> tuple[str, ...]:
        """The backbones whose layers were selected."""
        return tuple(dict.fromkeys(layer.backbone for layer in self.layers))


def write_record(record: RunRecord, folder: Path) -> None:
    """Write `metrics.json`: the job counts as finished from here on."""
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / METRICS, text.encode())


def read_record(folder: Path) -> RunRecord:
    """Read the record of a finished job.

    Raises:
        UserError: where the file is not such a record or was written under another schema.
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
    """Rename the fields that schema 1 called otherwise."""
    candidates = [
        {"layer_set" if key == "team" else key: value for key, value in entry.items()}
        for entry in raw.get("entrants", ())
    ]
    kept = {key: value for key, value in raw.items() if key not in ("floor", "entrants")}
    return {**kept, "schema": SCHEMA, "baseline": raw["floor"], "candidates": candidates}


def find_records(folder: Path) -> list[tuple[Path, RunRecord]]:
    """All finished jobs under a folder, in the order of their paths."""
    paths = sorted(path.parent for path in folder.rglob(METRICS))
    return [(path, read_record(path)) for path in paths]
