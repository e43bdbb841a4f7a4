"""What `layerfusion profile` leaves: `profile.json`, every number of a layer profile.

All of it comes from train, except `test` and what is derived from it, which is there only where
the profile was asked to judge its own choices (`profile.judge=true`), after all of them were made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerfusion.records.job import DataRecord
from layerfusion.records.json_files import read_json, require_schema, write_json

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA = 1
PROFILE = "profile.json"
BEST_BY = "best by "
"""Name of the selection of the one layer that a score likes best, before the name of the score."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on test."""

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
    """0 = what enters the first block, 1 = what leaves the last; `norm` counts as 1."""
    scores: dict[str, float | None]
    """Score to value, `accuracy` and `log_loss` of the probe among them; none: no meaning here."""
    strength: float
    """C of its probe."""
    flops_per_text: float
    """Forward pass up to here, mean over train."""
    milliseconds_per_text: float | None
    """Estimated from the measured pass of the whole model; none: not measured."""
    test: Accuracy | None = None
    """Of its probe."""

    @property
    def source(self) -> str:
        """The model and, where it is not the mean, the pooling: what one curve is drawn of."""
        return self.backbone if self.pooling == "mean" else f"{self.backbone} ({self.pooling})"

    @property
    def name(self) -> str:
        """For people: `layer 15 of smollm2`, followed by the pooling where it is not the mean."""
        where = "norm" if self.layer == "norm" else f"layer {self.layer}"
        return f"{where} of {self.source}"


@dataclass(frozen=True)
class ModelPair:
    """How far the best layers of two models err on different held-out rows of train."""

    first: str
    second: str
    """Backbones."""
    first_layer: int
    second_layer: int
    """Positions in `Profile.layers`."""
    error_overlap: float | None
    """Rows that both get wrong among those that either does; none where neither errs."""
    q_statistic: float | None
    """Yule's Q: 1 where they are right on the same rows, 0 where independent."""
    oracle_gain: float
    """Share of rows that either gets right, less the better one's accuracy."""


@dataclass(frozen=True)
class Regret:
    """Test accuracy of the best single layer in hindsight less that of a selection."""

    mean: float
    low: float
    high: float
    """95 % paired bootstrap interval over test rows, the hindsight layer being fixed."""
    cross_fitted: float
    """With the hindsight layer chosen on one half of test and judged on the other, both ways: free
    of the luck that the best of many has on the rows it is chosen on."""
    p: float | None = None
    """Of the hypothesis that no single layer is more accurate (`p_of_any_ahead`), which counts that
    luck in; none in a record that was made without it."""


@dataclass(frozen=True)
class SelectionProfile:
    """A selection and, where it was judged, what it is worth with a linear probe."""

    name: str
    """last (under the first pooling), `last, best pooling`, top_k, adaptive, greedy, and for the
    one layer that a score likes best `best by` and its name."""
    layers: list[int]
    """Positions in `Profile.layers`."""
    reasons: list[str]
    """One a layer."""
    notes: list[str]
    """What was dropped and why."""
    test: Accuracy | None = None
    """Of a probe on its layers side by side."""
    regret: Regret | None = None
    over_last: tuple[float, float, float] | None = None
    """Accuracy less that of the best `last` layer: difference and 95 % paired interval."""
    best_by: str = ""
    """The score, where this is the one layer that a score likes best."""


@dataclass(frozen=True)
class BackboneProfile:
    """What a backbone is."""

    origin: str
    num_blocks: int
    layers: list[str]
    spec_hashes: dict[str, str]
    """Pooling to the store's name."""
    attention_heads: dict[str, list[float]]
    """Layer to the entropy of each head's attention; empty where the model gives none."""


@dataclass(frozen=True)
class ScoreFacts:
    """How the values of a score read."""

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
    """Rows of train that it was made from."""
    held_out: str
    """How held-out figures were made, in words: `5 folds of train`."""
    layers: list[LayerProfile]
    similarity: list[list[float]]
    """Debiased linear CKA between standardised layers, in their order."""
    spearman: dict[str, dict[str, float | None]]
    """Source (see `LayerProfile.source`) to score to its rank correlation with probe accuracy,
    oriented so that 1 is agreement; none where the score is constant or has no meaning."""
    seconds: dict[str, float]
    """Score to what it takes for all layers, beyond the extraction; what was kept from before
    counts as when it was computed."""
    missing: dict[str, str]
    """Score to the reason why it has no value for some layers."""
    pairs: list[ModelPair]
    selections: list[SelectionProfile]
    versions: dict[str, str]
    created: str
    score_facts: dict[str, ScoreFacts] = field(default_factory=dict)
    """Score to how its values read, for every score in `layers`."""
    schema: int = SCHEMA

    @property
    def hindsight(self) -> int | None:
        """Position of the layer with the best test accuracy, where test was looked at."""
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
    """Read the profile that a job left.

    Raises:
        UserError: where the file is not a profile or was written under another schema.
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

    return read_json(path, Profile, "a layer profile", upgrade)


def _score_facts(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of each score, which older profiles did not keep."""
    if "score_facts" in raw:
        return raw["score_facts"]
    scores = dict.fromkeys(score for layer in raw["layers"] for score in layer["scores"])
    usual = ScoreFacts(low_is_good=False, within_model=False)
    return {score: FACTS_BEFORE_RECORDED.get(score, usual) for score in scores}


def find_profiles(folder: Path) -> list[tuple[Path, Profile]]:
    """All profiles under a folder, in the order of their paths."""
    paths = sorted(path.parent for path in folder.rglob(PROFILE))
    return [(path, read_profile(path)) for path in paths]
