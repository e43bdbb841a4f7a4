"""The record of a finished job: `metrics.json`, `predictions.parquet` and `config.yaml`.

`metrics.json` is written last and atomically, so a folder that has one is a finished job.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layerfusion.config.job import HONEST
from layerfusion.embeddings.shape import BATCH
from layerfusion.errors import first_few
from layerfusion.records.gates import GateRecord
from layerfusion.records.json_files import (
    Damaged,
    read_all,
    read_json,
    require_own_folder,
    require_schema,
    write_json,
)

_SHIFTED = re.compile(
    r"\d+% of the [^;]* are taken off|a label is named from a probability of \d+% on"
)
"""What the note on a seed says of its shift: older records have it nowhere else."""
SCHEMA = 2
"""Version of `metrics.json`; version 1 is read too."""
OLD_AUTO = "auto: "
"""Prefix of the notes of `fusion=auto` in schema 1."""
METRICS = "metrics.json"
PREDICTIONS = "predictions.parquet"
CONFIG = "config.yaml"
ENDPOINT = "endpoint"
"""Begins the identity of a server that gives vectors, before its address."""
BUNDLE = "bundle"
"""Folder of the classifier inside that of its job."""
FEW_ROWS = 200
"""Fewest rows of validation, with different texts, that can judge between jobs; of fewer, folds of
train are asked."""
LATENCY_BATCH = BATCH
"""Texts in the batch whose latency the record holds as `milliseconds_batch`."""


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
    multilabel: bool = False
    """True where a text has any number of the labels. Accuracy is then the share of the rows whose
    labels are all right."""
    languages: dict[str, float] = field(default_factory=dict)
    """Language to its share of the texts of train, as far as these tell it; empty in older records:
    see `texts.languages`."""
    written: str = ""
    """The languages of the texts of train and how long they are, in a clause."""
    worth: dict[str, float] = field(default_factory=dict)
    """How many rows with different texts the rows of a split are worth, by split: see
    `statistics.resampling.independent_rows`. Empty in older records."""

    def worth_of(self, split: str) -> float:
        """Say what the rows of a split are worth; of older records, take all texts to differ."""
        return self.worth.get(split, float(self.rows[split]))

    @property
    def lines(self) -> list[str]:
        """What a reader has to know of the data, in sentences."""
        return [*([f"Texts of train: {self.written}."] if self.written else []), *self.notes]

    @property
    def measure(self) -> str:
        """What a reader knows `accuracy` as: exact match, where a text has several labels."""
        return "exact match" if self.multilabel else "accuracy"

    @property
    def kind(self) -> str:
        """What a reader knows one of `label_names` as: a label, where a text has several."""
        return "label" if self.multilabel else "class"

    @property
    def kinds(self) -> str:
        """What a reader knows `label_names` as."""
        return "labels" if self.multilabel else "classes"


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
    parameters: int | None
    """Number of parameters in the embeddings and the blocks up to the highest layer. That of a
    lexical source is its projection; in a stack it has none, and its regression is the head's.
    None where the vectors were computed elsewhere, as are the FLOPs."""
    flops_per_text: float | None
    """FLOPs of a forward pass up to the highest layer, averaged over the texts."""
    milliseconds_per_text: float | None
    """Time to extract all layers of a text on this machine, or of a server to give its vector, in
    requests of several texts; None if it was not measured."""
    store_bytes: int
    """Size on disk of the selected layers of this job's texts."""
    milliseconds_one: float | None = None
    milliseconds_batch: float | None = None
    """Time for one text of medium length, and for a batch of 32, up to the highest layer. Measured
    when the model was loaded to extract texts of this length, to within a quarter; None if it was
    not measured."""
    unknown_share: float | None = None
    """Share of the texts' tokens that the tokenizer does not know; None if it was not counted."""

    @property
    def is_given(self) -> bool:
        """True where the vectors were computed elsewhere, and no tokens were counted."""
        return self.flops_per_text is None

    @property
    def endpoint(self) -> str:
        """Address of the server that gave the vectors; empty where none did."""
        kind, *rest = str(self.spec.get("model", "")).split()[:2] or [""]
        return rest[0] if self.is_given and kind == ENDPOINT and rest else ""


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
class ProbeRecord:
    """A layer that the selection could take, and the accuracy of its probe on held-out rows."""

    backbone: str
    layer: str
    pooling: str
    depth: float
    accuracy: float
    low: float
    high: float
    """95 % interval over the held-out rows."""
    log_loss: float


@dataclass(frozen=True)
class SeedRecord:
    """One training run, with the figures of each split.

    They are accuracy, macro_f1, log_loss and calibration_error, and micro_f1 where a text has
    several labels.
    """

    seed: int
    best_epoch: int
    """Best epoch on validation; 0 if the head is not trained in epochs."""
    epochs: int
    seconds: float
    validation: dict[str, float]
    test: dict[str, float]
    temperature: float | None = None
    """The number that divided the logits of a trained head, 1 if validation asked for none; None
    where none was tried, as for a stack, whose weights are calibrated, and in older records."""
    uncalibrated: dict[str, float] = field(default_factory=dict)
    """The figures of test before that, and before a shift towards rare classes; empty where
    neither changed anything. Those of a stack are at equal weights of its members."""
    shift: str = ""
    """What was added to the scores of classes or labels for the objective, in one clause; empty
    where nothing was."""


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
    micro_f1_low: float | None = None
    micro_f1_high: float | None = None
    """That of micro-F1, where a text has several labels; None in older records."""


@dataclass(frozen=True)
class CostRecord:
    """Costs of the job beyond its backbones."""

    head_parameters: int
    train_seconds: float | None
    peak_memory_bytes: int | None
    """Peak resident memory of the process. Both are None for a single layer that a job's fusion is
    compared with, as nobody measured its share."""
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
    flops: float | None
    flops_full: float | None
    """FLOPs to extract all layers of all texts; None where vectors are computed elsewhere. Every
    text is assumed to cost the pilot's mean, here and below."""
    bytes: int
    bytes_full: int
    seconds: float | None
    seconds_full: float | None
    """Estimated from the time that the pilot took; None if it was not measured."""
    full_job: str
    """Hash of the same job without the pilot."""


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
    """Mean difference in log-loss, or in 1 minus the accuracy or F1 that is the objective, to the
    chosen candidate, on the rows that both have."""
    behind_error: float | None
    """Standard error of the difference; None for a single row."""
    head_parameters: int
    """Learned parameters; of a stack those of its members, without the weights of its pool."""
    flops_per_text: float | None
    """FLOPs of the models, each up to its highest layer; None where they are not known."""
    accuracy: float | None = None
    """Share of the evaluated rows that are right, before a shift for the objective; None in older
    records."""


@dataclass(frozen=True)
class ReferenceRecord:
    """A single layer that the job's fusion is compared with on test: what a stack has for it."""

    layer: LayerRecord
    backbone: BackboneRecord
    validation: dict[str, Estimate]
    """Accuracy and log-loss on the rows that the layers' probes were held out from."""
    test: dict[str, Estimate]
    column: str
    """Name of the column of its answers among the predictions of test."""
    head_parameters: int
    head_flops: int


@dataclass(frozen=True)
class FoldsRecord:
    """What the job is worth on rows of train that nothing of it had seen.

    All of the job, from the choice of the layers to the head, was fitted anew without each fold,
    and judged on that fold. So the figures are no better for whatever the job chooses by. Of
    `fusion=auto` each fold is predicted by the candidate that the other folds choose.
    """

    folds: int
    rows: int
    """Rows of train that a fold holds out: all but those of a class with a single text."""
    figures: dict[str, Estimate]
    """Accuracy and macro-F1, with their 95 % intervals over these rows, and log-loss; micro-F1 too
    where a text has several labels. Older records have no F1."""
    worth: float | None = None
    """How many rows with different texts these are worth; None in older records."""


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
    """Name of the operator, or `stacked`."""
    seeds: list[SeedRecord]
    validation: dict[str, Estimate]
    test: dict[str, Estimate]
    """Besides the metrics it has `consensus`, the accuracy of the answers of the mean probabilities
    over the seeds, which significance tests use; older records lack it. Another
    protocol has figures of its own, and none of these names."""
    baseline: BaselineRecord
    cost: CostRecord
    versions: dict[str, str]
    created: str
    considered: dict[str, list[str]] = field(default_factory=dict)
    """Spec hashes, one for each pooling, of every backbone that the selection could choose."""
    selection_notes: list[str] = field(default_factory=list)
    """Layers that the selection passed over, and why."""
    chosen_by: str = ""
    """`auto` where `fusion=auto` chose the fusion; empty where the user named it."""
    decision: list[str] = field(default_factory=list)
    """Why `fusion=auto` chose what it did, a sentence each."""
    fusion_notes: list[str] = field(default_factory=list)
    """Notes on the training of the fusion, such as the form in which its stack pools."""
    pilot: PilotRecord | None = None
    protocol_facts: dict[str, Any] = field(default_factory=dict)
    """Facts that only jobs under another protocol than the honest one have."""
    candidates: list[CandidateRecord] = field(default_factory=list)
    """Candidates of `fusion=auto`, the chosen one first; empty for other fusions."""
    gates: GateRecord | None = None
    """None if the operator has no gates, and in older records."""
    recipe: str = ""
    """Hash of the settings without the models, the lexical sources and the sample of each class.
    Jobs with the same recipe differ in nothing else."""
    lexical: list[str] = field(default_factory=list)
    """Names in `considered` that are lexical sources, not models."""
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of other files of the job, by name; empty in older records."""
    probes: list[ProbeRecord] = field(default_factory=list)
    """Every layer that was probed to select some; empty where no probes were fitted."""
    probed_on: str = ""
    """The rows that the probes were judged on: `5 folds of train`, or `validation`."""
    references: list[ReferenceRecord] = field(default_factory=list)
    """The best single layer by its probe, then the last layer of the same model if it is another;
    empty where no probes were fitted, and after a pilot."""
    looked_at_labels: bool | None = None
    """True where the selection looked at labels of train, as those by scores do; none in records
    that are older than it."""
    time_notes: list[str] = field(default_factory=list)
    """What `time_limit` left out, and that another machine may leave out something else; empty
    without a limit."""
    on_folds: FoldsRecord | None = None
    """None where the job was not judged on folds of train, and in older records."""
    reading: list[str] = field(default_factory=list)
    """How the models read texts of train that are too long for them, a sentence each; empty where
    few are, and in older records."""
    long_texts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Model to the settings that `long_texts=auto` has chosen for it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the selection, the fusion and the training by their keys, such as `fusion.width`,
    without those that are not set; empty in older records."""
    looked_in: list[str] = field(default_factory=list)
    """Folders in which relative paths of data and models were looked for: where the job ran, first,
    and those that the environment named. Records of before have none."""
    code: dict[str, str] = field(default_factory=dict)
    """Hash of the user's code that chose layers or fused them, by import path; none in records of
    before."""
    schema: int = SCHEMA

    def __repr__(self) -> str:
        test = self.test.get("accuracy")
        figure = "" if test is None else f"; test {self.dataset.measure} {100 * test.mean:.1f} %"
        what = f"{self.fusion} of {first_few(self.backbone_names)}"
        return f"RunRecord({self.dataset.name}; {what}{figure})"

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
        """Names of the backbones whose layers were selected."""
        return tuple(dict.fromkeys(layer.backbone for layer in self.layers))

    @property
    def flops_per_text(self) -> float | None:
        """FLOPs of all models for one text, each up to its highest layer; None where unknown."""
        return _sum([self.backbones[name].flops_per_text for name in self.backbone_names])

    @property
    def milliseconds_one(self) -> float | None:
        """Time of all models and the head for one text; None where a model was not timed.

        A head that was not timed, as in older records, adds nothing: it takes far less than models.
        """
        models = _sum([self.backbones[name].milliseconds_one for name in self.backbone_names])
        return None if models is None else models + (self.cost.head_milliseconds or 0.0)


def _sum(costs: Sequence[float | None]) -> float | None:
    """Add up costs; None where one of them is not known."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def write_record(record: RunRecord, folder: Path) -> None:
    """Write `metrics.json`. From then on the job counts as finished."""
    write_json(folder / METRICS, record, indent=2)


def read_record(folder: Path) -> RunRecord:
    """Read the record of a finished job.

    Raises:
        UserError: if the file is not such a record, or has a schema that this version cannot read.
    """
    path = folder / METRICS

    def upgrade(raw: dict[str, Any]) -> dict[str, Any]:
        require_schema(path, raw["schema"], (1, SCHEMA))
        return _with_shifts(_from_schema_1(raw) if raw["schema"] == 1 else raw)

    return read_json(path, RunRecord, "a record of a finished job", upgrade, _fault)


def _fault(record: RunRecord) -> str:
    """Say which parts of a record do not fit together or are no numbers; nothing where all do."""
    if not record.layers or not record.seeds:
        return "layers, seeds: there is none"
    if not {"train", "validation", "test"} <= record.dataset.rows.keys():
        return "dataset.rows: not train, validation and test"
    for layer in record.layers:
        model = record.backbones.get(layer.backbone)
        if model is None or not {layer.layer, model.highest_layer} <= {*model.layers}:
            return f"layers: {layer.layer} of {layer.backbone} is no layer of the job's models"
    gates = [layer.mean_gate for layer in record.layers]
    if None in gates and any(gate is not None for gate in gates):
        return "layers: some have a mean gate and some have none"
    if record.gates is not None and not record.gates.fits(len(record.layers)):
        return f"gates: not one for each of {len(record.layers)} layers"
    if record.protocol == HONEST:
        for split, found in (("validation", record.validation), ("test", record.test)):
            if not {"accuracy", "log_loss"} <= found.keys():
                return f"{split}: not accuracy and log_loss"
            if not 0 <= found["accuracy"].mean <= 1:
                return f"{split}.accuracy: {found['accuracy'].mean} is no share"
        if record.on_folds and not {"accuracy", "log_loss"} <= record.on_folds.figures.keys():
            return "on_folds.figures: not accuracy and log_loss"
        if not 0 <= record.baseline.test.get("accuracy", -1) <= 1:
            return "baseline.test.accuracy: no share"
    return ""


def _with_shifts(raw: dict[str, Any]) -> dict[str, Any]:
    """Take the shift of each seed out of its note, in records that have no field for it."""
    found = {
        note.partition(":")[0]: words[0]
        for note in raw.get("fusion_notes", ())
        if (words := _SHIFTED.search(note))
    }
    if not found:
        return raw
    seeds = [{"shift": found.get(f"seed {one['seed']}", ""), **one} for one in raw["seeds"]]
    return {**raw, "seeds": seeds}


def _from_schema_1(raw: dict[str, Any]) -> dict[str, Any]:
    """Rename the fields that had other names in schema 1, and take facts out of its sentences."""
    chosen_by, _, fusion = raw["fusion"].rpartition(": ")
    decision = [note.removeprefix(OLD_AUTO) for note in raw.get("fusion_notes", ())
            if note.startswith(OLD_AUTO)]  # fmt: skip
    kept = {key: value for key, value in raw.items() if key not in ("floor", "entrants")}
    return {
        **kept,
        "schema": SCHEMA,
        "baseline": raw["floor"],
        "fusion": fusion,
        "chosen_by": chosen_by,
        "decision": decision,
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


def find_records(folder: Path, damaged: Damaged | None = None) -> list[tuple[Path, RunRecord]]:
    """Read all finished jobs under a folder; see `json_files.read_all`."""

    def read(own: Path) -> RunRecord:
        record = read_record(own)
        require_own_folder(own / METRICS, record.job)
        return record

    return read_all(folder, METRICS, read, damaged)
