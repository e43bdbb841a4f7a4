"""What selections lose to the best layer in hindsight, over many judged profiles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from layerfusion.records.profile import Profile, SelectionProfile, find_profiles
from layerfusion.report.names import listing
from layerfusion.statistics.intervals import Difference
from layerfusion.statistics.significance import ALPHA

BEST_BY = "best by "
PROBE = "log_loss"
"""The score that selections use unless told otherwise; the others are held against it."""


@dataclass(frozen=True, eq=False)
class Cell:
    """A judged profile: one data set, some backbones under some poolings."""

    data: str
    """The data set's name; with its fingerprint where several samples share the name."""
    sources: str
    """Backbones and, where it is not the mean alone, poolings."""
    profile: Profile

    @property
    def label(self) -> str:
        """A distinct name."""
        return f"{self.data}: {self.sources}"

    def selection(self, name: str) -> SelectionProfile | None:
        """A judged selection by its name."""
        found = (one for one in self.profile.selections if one.name == name and one.regret)
        return next(found, None)


@dataclass(frozen=True)
class SelectionRow:
    """A selection over all cells that have it."""

    name: str
    regret: Difference
    cross_fitted: float
    over_last: Difference | None
    layers: float
    """Mean number of layers."""
    by_cell: tuple[SelectionProfile | None, ...]

    @property
    def cells(self) -> int:
        """In how many cells it was judged."""
        return sum(one is not None for one in self.by_cell)

    @property
    def behind(self) -> tuple[int, int] | None:
        """In how many cells some single layer is surely better, and how many tell."""
        told = [one.regret.p for one in self.by_cell if one and one.regret]
        tested = [p for p in told if p is not None]
        return (sum(p < ALPHA for p in tested), len(tested)) if tested else None


@dataclass(frozen=True)
class ScoreRow:
    """A score over all cells that have it."""

    name: str
    spearman: tuple[float, float] | None
    """Mean and lowest rank correlation with probe accuracy over the models of each data set."""
    choice: SelectionRow
    """`best by SCORE`."""
    against: Difference | None
    """Accuracy of its choice less that of the probe's; none for the probe and without it."""
    seconds: float | None
    """Mean over the cells that know it."""
    dearer: float | None
    """Seconds more than the probe takes, mean over the cells that know both."""


def judged_cells(folder: Path) -> tuple[Cell, ...]:
    """Every profile under a folder that was judged on test, each job once."""
    return named_cells([one for one in read_profiles(folder) if is_judged(one)])


def is_judged(profile: Profile) -> bool:
    """Whether the profile looked at test once all its choices were made."""
    return any(one.regret for one in profile.selections)


def read_profiles(folder: Path) -> list[Profile]:
    """Every profile under a folder, each job once."""
    unique: dict[tuple[str, str], Profile] = {}
    for _, profile in find_profiles(folder):
        unique.setdefault((profile.job, profile.dataset.fingerprint), profile)
    return list(unique.values())


def named_cells(profiles: Sequence[Profile]) -> tuple[Cell, ...]:
    """Profiles in order, with names that tell them apart."""
    samples = {(one.dataset.name, one.dataset.fingerprint) for one in profiles}
    names = Counter(name for name, _ in samples)
    named = []
    for one in profiles:
        data = one.dataset
        mark = f" (data {data.fingerprint[:8]})" if names[data.name] > 1 else ""
        named.append((f"{data.name}{mark}", _sources(one), one))
    seen = Counter((data, sources) for data, sources, _ in named)
    cells = [
        Cell(data, f"{sources}, job {one.job[:6]}" if seen[data, sources] > 1 else sources, one)
        for data, sources, one in named
    ]
    return tuple(sorted(cells, key=lambda x: (x.data, len(x.profile.backbones), x.sources)))


def selection_rows(cells: Sequence[Cell]) -> tuple[SelectionRow, ...]:
    """One row a selection: first those that every cell has, each group by mean regret."""
    names = dict.fromkeys(one.name for cell in cells for one in cell.profile.selections)
    rows = [row for name in names if (row := _selection_row(name, cells))]
    return tuple(sorted(rows, key=lambda row: (row.cells < len(cells), row.regret.mean)))


def score_rows(cells: Sequence[Cell], rows: Sequence[SelectionRow]) -> tuple[ScoreRow, ...]:
    """One row a score, in the order of the selections that take its best layer."""
    probe = next((row for row in rows if row.name == BEST_BY + PROBE), None)
    found = []
    for row in rows:
        if row.name.startswith(BEST_BY):
            name = row.name.removeprefix(BEST_BY)
            having = [cell for cell, one in zip(cells, row.by_cell, strict=True) if one]
            prices = [(_price(cell, name), _price(cell, PROBE)) for cell in having]
            both = [own - other for own, other in prices if own is not None and other is not None]
            found.append(
                ScoreRow(
                    name,
                    _spearman(name, cells),
                    row,
                    _against(row, probe, cells) if probe and name != PROBE else None,
                    _mean([own for own, _ in prices if own is not None]),
                    _mean(both) if name != PROBE else None,
                )
            )
    return tuple(found)


def mean_over_cells(
    values: Sequence[tuple[float, float, float]], data: Sequence[str], rows: int
) -> Difference:
    """Mean over cells of (value, low, high), with a 95 % interval.

    A cell's standard deviation is (high - low) / 3.92, from its paired bootstrap over test rows.
    Cells of one data set share its test rows: their errors are added up as if they were one.
    Data sets are independent: mean ± 1.96 · √(Σ_data (Σ_cells sd)²) / n. It errs to the wide side.
    It says how the mean would change with other test rows of the same data sets, not with other
    data sets or models; resampling the cells themselves would be too coarse for a few of them.
    One cell alone keeps its own interval.

    Args:
        values: of each cell.
        data: the data set of each cell.
        rows: test rows behind them.
    """
    if len(values) == 1:
        return Difference(*values[0], rows)
    mean = math.fsum(value for value, _, _ in values) / len(values)
    together: dict[str, float] = {}
    for name, (_, low, high) in zip(data, values, strict=True):
        together[name] = together.get(name, 0.0) + (high - low) / 2
    half = math.sqrt(math.fsum(one * one for one in together.values())) / len(values)
    return Difference(mean, mean - half, mean + half, rows)


# -- parts --------------------------------------------------------------------------------------


def _sources(profile: Profile) -> str:
    poolings = list(dict.fromkeys(layer.pooling for layer in profile.layers))
    models = listing(list(profile.backbones))
    return models if poolings == ["mean"] else f"{models} ({', '.join(poolings)})"


def _test_rows(cells: Sequence[Cell]) -> int:
    """Test rows of the data sets of some cells, each counted once."""
    found = {cell.data: cell.profile.dataset.rows.get("test", 0) for cell in cells}
    return sum(found.values())


def _selection_row(name: str, cells: Sequence[Cell]) -> SelectionRow | None:
    by_cell = tuple(cell.selection(name) for cell in cells)
    present = [(cell, one) for cell, one in zip(cells, by_cell, strict=True) if one]
    regrets = [one.regret for _, one in present if one.regret]
    if not regrets:
        return None
    rows = _test_rows([cell for cell, _ in present])
    data = [cell.data for cell, _ in present]
    over = [one.over_last for _, one in present if one.over_last]
    return SelectionRow(
        name=name,
        regret=mean_over_cells([(x.mean, x.low, x.high) for x in regrets], data, rows),
        cross_fitted=math.fsum(x.cross_fitted for x in regrets) / len(regrets),
        over_last=mean_over_cells(over, data, rows) if len(over) == len(data) else None,
        layers=sum(len(one.layers) for _, one in present) / len(present),
        by_cell=by_cell,
    )


def _against(row: SelectionRow, probe: SelectionRow, cells: Sequence[Cell]) -> Difference | None:
    """Accuracy of one choice less that of another, over the cells that have both.

    A cell's variance is at most the sum of those of the two regrets: on a test row both differ
    from the same hindsight layer, so never to opposite sides, and their covariance is not negative
    (but for the product of the two regrets). Choices of the same layers do not differ at all.
    """
    values, shared = [], []
    for cell, own, other in zip(cells, row.by_cell, probe.by_cell, strict=True):
        if own and other and own.regret and other.regret:
            a, b = own.regret, other.regret
            same = set(own.layers) == set(other.layers)
            half = 0.0 if same else math.hypot(a.high - a.low, b.high - b.low) / 2
            mean = 0.0 if same else b.mean - a.mean
            values.append((mean, mean - half, mean + half))
            shared.append(cell)
    data = [cell.data for cell in shared]
    return mean_over_cells(values, data, _test_rows(shared)) if values else None


def _spearman(name: str, cells: Sequence[Cell]) -> tuple[float, float] | None:
    """A model that several cells of a data set share counts once."""
    found: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        for source, by_score in cell.profile.spearman.items():
            if (value := by_score.get(name)) is not None:
                found.setdefault((cell.data, source), []).append(value)
    means = [math.fsum(values) / len(values) for values in found.values()]
    return (math.fsum(means) / len(means), min(means)) if means else None


def _price(cell: Cell, name: str) -> float | None:
    """Seconds that a score took; 0 in the record stands for not known."""
    return cell.profile.seconds.get(name) or None


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
