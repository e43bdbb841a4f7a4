"""The record of `layerfusion profile`: `profile.json`, with every number of a layer profile.

Everything is computed from train, except `test` and what is derived from it. Those figures exist
only with `profile.judge=true`, and are computed after all choices have been made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerfusion.errors import first_few
from layerfusion.records.format import plural
from layerfusion.records.job import DataRecord
from layerfusion.records.json_files import (
    Damaged,
    read_all,
    read_json,
    require_own_folder,
    require_schema,
    write_json,
)

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA = 1
PROFILE = "profile.json"
BEST_BY = "best by "
"""Name of the selection of the one layer that a score likes best, before the name of the score."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on test, with its interval."""

    mean: float
    low: float
    high: float
    """95 % bootstrap interval over test rows."""


@dataclass(frozen=True)
class LayerProfile:
    """One layer of one model under one pooling."""

    backbone: str
    layer: str
    pooling: str
    depth: float
    """Relative depth: 0 enters the first block, 1 leaves the last. `norm` counts as 1."""
    scores: dict[str, float | None]
    """Value of each score, with `accuracy` and `log_loss` of the probe; None if it has none."""
    strength: float
    """Inverse strength C of the probe's regularisation."""
    flops_per_text: float | None
    """FLOPs of a forward pass up to this layer, averaged over train."""
    milliseconds_per_text: float | None
    """Estimated from the measured pass of the whole model; None if it was not measured."""
    test: Accuracy | None = None
    """Test accuracy of the layer's probe."""

    @property
    def source(self) -> str:
        """The model, and the pooling if it is not the mean. Figures draw one curve a source."""
        return self.backbone if self.pooling == "mean" else f"{self.backbone} ({self.pooling})"

    @property
    def name(self) -> str:
        """Name for display: `layer 15 of smollm2`, with the pooling if it is not the mean."""
        where = "norm" if self.layer == "norm" else f"layer {self.layer}"
        return f"{where} of {self.source}"


@dataclass(frozen=True)
class ModelPair:
    """Comparison of the errors that the best layers of two models make on held-out train rows."""

    first: str
    second: str
    """Names of the two backbones."""
    first_layer: int
    second_layer: int
    """Positions of the two layers in `Profile.layers`."""
    error_overlap: float | None
    """Rows that both get wrong, as a share of those that one or both get wrong; None without."""
    q_statistic: float | None
    """Yule's Q: 1 if both are right on the same rows, 0 if their errors are independent."""
    oracle_gain: float
    """Share of rows that at least one gets right, minus the accuracy of the better one."""


@dataclass(frozen=True)
class Regret:
    """Test accuracy of the best single layer in hindsight, minus that of a selection."""

    mean: float
    low: float
    high: float
    """95 % paired bootstrap interval over test rows, with the hindsight layer held fixed."""
    cross_fitted: float
    """Regret with the hindsight layer chosen on one half of test and evaluated on the other, both
    ways. This leaves out the luck of the best of many layers on the rows that it is chosen on."""
    p: float | None = None
    """p-value of the hypothesis that no single layer is more accurate (`p_of_any_ahead`). It allows
    for that luck. None in older records."""


@dataclass(frozen=True)
class SelectionProfile:
    """A selection and, if it was judged on test, its accuracy with a linear probe."""

    name: str
    """`last` (under the first pooling), `last, best pooling`, `top_k`, `adaptive`, `greedy`,
    `sparse`, `even` (about as many layers as `adaptive` takes), or `best by SCORE` for the single
    layer that a score ranks first."""
    layers: list[int]
    """Positions of its layers in `Profile.layers`."""
    reasons: list[str]
    """One reason for each layer."""
    notes: list[str]
    """Layers that were dropped, and why."""
    test: Accuracy | None = None
    """Test accuracy of a probe on its layers, concatenated."""
    regret: Regret | None = None
    over_last: tuple[float, float, float] | None = None
    """Accuracy minus that of the best `last` layer: difference and 95 % paired interval."""
    best_by: str = ""
    """The score, if this is the single layer that a score ranks first."""


@dataclass(frozen=True)
class MultiLayerProfile:
    """A probe of several layers at once and, if it was judged on test, its accuracy there."""

    name: str
    """`scalar_mix`, `group_lasso`, or that of a user's own."""
    layers: list[int]
    """Positions of its layers in `Profile.layers`."""
    shares: list[float]
    """Share of each of them; they add up to 1."""
    accuracy: float
    """On rows of train that it was not fitted on, as is the log-loss."""
    log_loss: float
    strength: float
    """How strongly it is regularised, in the terms of its kind."""
    seconds: float
    """Time of the fits."""
    test: Accuracy | None = None
    regret: Regret | None = None
    over_last: tuple[float, float, float] | None = None
    """As of a selection."""

    @property
    def best_by(self) -> str:
        """Empty, as it is not the one layer that a score ranks first."""
        return ""


@dataclass(frozen=True)
class BackboneProfile:
    """A backbone of a layer profile."""

    origin: str
    num_blocks: int
    layers: list[str]
    spec_hashes: dict[str, str]
    """Name of the store for each pooling."""
    attention_heads: dict[str, list[float]]
    """Entropy of each attention head, by layer; empty if the model gives no attention."""


@dataclass(frozen=True)
class ScoreFacts:
    """Facts that a reader needs to compare the values of a score."""

    low_is_good: bool
    """True where a lower value marks a better layer."""
    within_model: bool
    """True where values compare only between layers of the same model and pooling."""


FACTS_BEFORE_RECORDED = {
    "log_loss": ScoreFacts(low_is_good=True, within_model=False),
    "gradient": ScoreFacts(low_is_good=False, within_model=True),
    "attention_entropy": ScoreFacts(low_is_good=True, within_model=True),
    "gradient_entropy": ScoreFacts(low_is_good=False, within_model=True),
    "effective_rank": ScoreFacts(low_is_good=False, within_model=True),
}
"""Facts of the scores in profiles that were written before the facts were recorded. Scores that
are not listed compare between models, and their higher values are better."""


@dataclass(frozen=True)
class Profile:
    """The layer profile of a data set and some models."""

    job: str
    dataset: DataRecord
    backbones: dict[str, BackboneProfile]
    rows: int
    """Number of train rows that it was computed from."""
    held_out: str
    """Origin of the held-out figures, for example `5 folds of train`."""
    layers: list[LayerProfile]
    similarity: list[list[float]]
    """Debiased linear CKA between standardised layers, in the order of `layers`."""
    spearman: dict[str, dict[str, float | None]]
    """Rank correlation with probe accuracy, by source (see `LayerProfile.source`) and score. It is
    oriented so that 1 is agreement, and None if the score is constant or has no value."""
    seconds: dict[str, float]
    """Time of each score for all layers, without the extraction. A cached score counts with the
    time of its computation."""
    missing: dict[str, str]
    """For each score that has no value for some layers, the reason."""
    pairs: list[ModelPair]
    selections: list[SelectionProfile]
    versions: dict[str, str]
    created: str
    score_facts: dict[str, ScoreFacts] = field(default_factory=dict)
    """Score to how its values read, for every score in `layers`."""
    multi_layer: list[MultiLayerProfile] = field(default_factory=list)
    """Probes of several layers at once; none in older records."""
    code: dict[str, str] = field(default_factory=dict)
    """Hash of the source of each score, selection and probe of the user's, by its import path; none
    in older records."""
    schema: int = SCHEMA

    def __repr__(self) -> str:
        layers = plural(len(self.layers), "layer")
        return f"Profile({self.dataset.name}; {layers} of {first_few(list(self.backbones))})"

    @property
    def hindsight(self) -> int | None:
        """Position of the layer with the best test accuracy; None if test was not evaluated."""
        judged = [(layer.test.mean, -n) for n, layer in enumerate(self.layers) if layer.test]
        return -max(judged)[1] if judged else None

    def frame(self) -> DataFrame:
        """Return a row for each layer, with a column for each score.

        Before the scores stand backbone, layer, pooling and depth; after them, where the profile
        was judged, the test accuracy and its interval. A score that a layer lacks is NaN.
        """
        import pandas

        scores = dict.fromkeys(score for layer in self.layers for score in layer.scores)
        rows = []
        for layer in self.layers:
            row: dict[str, object] = {
                "backbone": layer.backbone,
                "layer": layer.layer,
                "pooling": layer.pooling,
                "depth": layer.depth,
            }
            row |= {score: layer.scores.get(score) for score in scores}
            if layer.test is not None:
                row |= {"test_accuracy": layer.test.mean}
                row |= {"test_low": layer.test.low, "test_high": layer.test.high}
            rows.append(row)
        frame = pandas.DataFrame(rows)
        numbers = [name for name in frame if name not in ("backbone", "layer", "pooling")]
        return frame.astype(dict.fromkeys(numbers, "float64"))


def write_profile(profile: Profile, folder: Path) -> None:
    """Write `profile.json` atomically."""
    write_json(folder / PROFILE, profile)


def read_profile(folder: Path) -> Profile:
    """Read the profile in a job's folder.

    Raises:
        UserError: if the file is not a profile, or has a schema that this version cannot read.
    """
    path = folder / PROFILE

    def upgrade(raw: dict[str, Any]) -> dict[str, Any]:
        require_schema(path, raw["schema"], (SCHEMA,))
        selections = [
            {"best_by": selection["name"].removeprefix(BEST_BY), **selection}
            if selection["name"].startswith(BEST_BY)
            else selection
            for selection in raw["selections"]
        ]
        return {**raw, "selections": selections, "score_facts": _score_facts(raw)}

    return read_json(path, Profile, "a layer profile", upgrade, _fault)


def _fault(profile: Profile) -> str:
    """Say which parts of a profile do not fit together; nothing where all do."""
    layers, places = len(profile.layers), [n for x in profile.selections for n in x.layers]
    places += [n for pair in profile.pairs for n in (pair.first_layer, pair.second_layer)]
    places += [n for x in profile.multi_layer for n in x.layers]
    if not layers or any(layer.backbone not in profile.backbones for layer in profile.layers):
        return "layers, backbones: there is none"
    if any(not 0 <= place < layers for place in places):
        return f"selections, multi_layer, pairs: a layer that is none of the {layers}"
    if any(len(x.layers) != len(x.reasons) for x in profile.selections):
        return "selections: not one reason for each layer"
    if any(len(x.layers) != len(x.shares) for x in profile.multi_layer):
        return "multi_layer: not one share for each layer"
    if [len(row) for row in profile.similarity] != [layers] * layers:
        return f"similarity: not one number for each pair of {plural(layers, 'layer')}"
    return ""


def _score_facts(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of each score, which older profiles did not keep."""
    if "score_facts" in raw:
        return raw["score_facts"]
    scores = dict.fromkeys(score for layer in raw["layers"] for score in layer["scores"])
    usual = ScoreFacts(low_is_good=False, within_model=False)
    return {score: FACTS_BEFORE_RECORDED.get(score, usual) for score in scores}


def find_profiles(folder: Path, damaged: Damaged | None = None) -> list[tuple[Path, Profile]]:
    """Read all profiles under a folder; see `json_files.read_all`."""

    def read(own: Path) -> Profile:
        profile = read_profile(own)
        require_own_folder(own / PROFILE, profile.job)
        return profile

    return read_all(folder, PROFILE, read, damaged)
