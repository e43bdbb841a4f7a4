"""What a finished job leaves: `metrics.json`, `predictions.parquet` and `config.yaml`.

`metrics.json` is written last and atomically, so a folder that holds one is a finished job.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerfusion.embeddings.shape import BATCH
from layerfusion.records.gates import GateRecord
from layerfusion.records.json_files import read_json, require_schema, write_json

SCHEMA = 2
"""Version of `metrics.json`; version 1 is read too."""
OLD_AUTO = "auto: "
"""What schema 1 put before the notes of `fusion=auto`."""
METRICS = "metrics.json"
PREDICTIONS = "predictions.parquet"
CONFIG = "config.yaml"
BUNDLE = "bundle"
"""Folder of the classifier inside that of its job."""
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
    """0 where the head is not trained in epochs."""
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
    """Name of the operator, or `stacked`."""
    seeds: list[SeedRecord]
    validation: dict[str, Estimate]
    test: dict[str, Estimate]
    """Also `consensus`: accuracy of the class of the highest mean probability over the seeds, which
    is what significance tests see; missing in records that are older than it. Another protocol has
    figures of its own, and none of these names."""
    baseline: BaselineRecord
    cost: CostRecord
    versions: dict[str, str]
    created: str
    considered: dict[str, list[str]] = field(default_factory=dict)
    """Backbones that the selection chose among, each with its spec hashes, one a pooling."""
    selection_notes: list[str] = field(default_factory=list)
    """What the selection passed over, and why."""
    chosen_by: str = ""
    """`auto` where `fusion=auto` chose the fusion; empty where the user named it."""
    decision: list[str] = field(default_factory=list)
    """Why `fusion=auto` chose what it did, a sentence each."""
    fusion_notes: list[str] = field(default_factory=list)
    """What the fusion found while it was trained, such as how its stack pools."""
    pilot: PilotRecord | None = None
    protocol_facts: dict[str, Any] = field(default_factory=dict)
    """What only jobs under another protocol than the honest one leave."""
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
    def fusion_label(self) -> str:
        """Name of the fusion for a reader, with what chose it."""
        return f"{self.chosen_by}: {self.fusion}" if self.chosen_by else self.fusion

    @property
    def backbone_names(self) -> tuple[str, ...]:
        """The backbones whose layers were selected."""
        return tuple(dict.fromkeys(layer.backbone for layer in self.layers))


def write_record(record: RunRecord, folder: Path) -> None:
    """Write `metrics.json`: the job counts as finished from here on."""
    write_json(folder / METRICS, record, indent=2)


def read_record(folder: Path) -> RunRecord:
    """Read the record of a finished job.

    Raises:
        UserError: where the file is not such a record or was written under another schema.
    """
    path = folder / METRICS

    def upgrade(raw: dict[str, Any]) -> dict[str, Any]:
        require_schema(path, raw["schema"], (1, SCHEMA))
        return _from_schema_1(raw) if raw["schema"] == 1 else raw

    return read_json(path, RunRecord, "a record of a finished job", upgrade)


def _from_schema_1(raw: dict[str, Any]) -> dict[str, Any]:
    """Rename the fields that schema 1 called otherwise, and take its facts out of sentences."""
    chosen_by, _, fusion = raw["fusion"].rpartition(": ")
    told = [note.removeprefix(OLD_AUTO) for note in raw.get("fusion_notes", ())
            if note.startswith(OLD_AUTO)]  # fmt: skip
    kept = {key: value for key, value in raw.items() if key not in ("floor", "entrants")}
    return {
        **kept,
        "schema": SCHEMA,
        "baseline": raw["floor"],
        "fusion": fusion,
        "chosen_by": chosen_by,
        "decision": told,
        "fusion_notes": [n for n in raw.get("fusion_notes", ()) if not n.startswith(OLD_AUTO)],
        "layers": [
            {**layer, "reason": layer["reason"].partition(": ")[2] or layer["reason"]}
            for layer in raw["layers"]
        ],
        "candidates": [
            {"layer_set" if key == "team" else key: value for key, value in entry.items()}
            for entry in raw.get("entrants", ())
        ],
        "protocol_facts": raw.get("published") or {},
    }


def find_records(folder: Path) -> list[tuple[Path, RunRecord]]:
    """All finished jobs under a folder, in the order of their paths."""
    paths = sorted(path.parent for path in folder.rglob(METRICS))
    return [(path, read_record(path)) for path in paths]
