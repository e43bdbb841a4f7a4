"""The figures of the report for notebooks: results in, matplotlib axes out.

Every function draws on the axes that it is given, or on those of a new figure:

    ax = plot_layers("outputs/sweeps/mine")
    ax.set_title("Layers")
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes

from layerfusion.errors import UserError, unknown
from layerfusion.records.profile import PROFILE, Profile, read_profile
from layerfusion.report.blocks import gates, pareto
from layerfusion.report.blocks.fusion import CHOSEN_LAYER, comparisons, forest_rows
from layerfusion.report.figures import layers, profile_maps
from layerfusion.report.figures.forest import plot_forest
from layerfusion.report.findings.tests import find_all
from layerfusion.report.load import DataGroup, load_groups

Jobs = str | Path | DataGroup
"""A folder with finished jobs at any depth, or the jobs on one data set."""
Scores = str | Path | Profile
"""The folder of a layer profile, or the profile."""


def plot_layers(
    source: Jobs | Profile, ax: Axes | None = None, *, dataset: str | None = None
) -> Axes:
    """Draw accuracy by layer: of jobs on one layer each, or of the probes of a layer profile.

    Args:
        source: a folder with jobs, the jobs on one data set, the folder of a profile, or a profile.
        ax: axes to draw on; None for a new figure.
        dataset: name of the data set, for a folder with jobs on several.

    Raises:
        UserError: where there is nothing to draw.
    """
    if isinstance(source, Profile):
        return layers.plot_profile_layers(source, ax)
    if isinstance(source, str | Path) and (Path(source) / PROFILE).is_file():
        return layers.plot_profile_layers(read_profile(Path(source)), ax)
    group = _group(source, dataset)
    if not group.curves:
        raise UserError(f"{group.label}: no layer was run alone")
    return layers.plot_job_layers(group, ax)


def plot_fusion(jobs: Jobs, ax: Axes | None = None, *, dataset: str | None = None) -> Axes:
    """Draw the difference of every fusion to the single layer that validation chooses.

    Args:
        jobs: a folder with jobs, or the jobs on one data set.
        ax: axes to draw on; None for a new figure.
        dataset: name of the data set, for a folder with jobs on several.

    Raises:
        UserError: where there is nothing to compare.
    """
    group = _group(jobs, dataset)
    if group.chosen is None:
        raise UserError(f"{group.label}: no layer was run alone, so there is nothing to compare")
    rows = comparisons(group, find_all([group])[group])
    return plot_forest(forest_rows(group, rows), CHOSEN_LAYER, ax)


def plot_cost(jobs: Jobs, ax: Axes | None = None, *, dataset: str | None = None) -> Axes:
    """Draw test accuracy against operations, and the jobs that are worth theirs.

    Args:
        jobs: a folder with jobs, or the jobs on one data set.
        ax: axes to draw on; None for a new figure.
        dataset: name of the data set, for a folder with jobs on several.
    """
    return pareto.plot_cost(_group(jobs, dataset), ax)


def plot_gates(
    jobs: Jobs, job: str = "", ax: Axes | None = None, *, dataset: str | None = None
) -> Axes:
    """Draw the mean gate of each layer of a fusion.

    Args:
        jobs: a folder with jobs, or the jobs on one data set.
        job: hash of the job, or its beginning; needed if several jobs have gates.
        ax: axes to draw on; None for a new figure.
        dataset: name of the data set, for a folder with jobs on several.

    Raises:
        UserError: where no job has gates, or several do.
    """
    group = _group(jobs, dataset)
    gated = {x.record.job: x for x in group.fused if x.record.layers[0].mean_gate is not None}
    found = [x for name, x in gated.items() if name.startswith(job)]
    if len(found) != 1:
        raise unknown("job", job, tuple(gated) or ("nothing: no job here has gates",))
    return gates.plot_mean_gates(found[0], group.colors, ax)


def plot_scores(profile: Scores, ax: Axes | None = None) -> Axes:
    """Draw the rank that each score of a layer profile gives to a layer within its model.

    Args:
        profile: a profile, or its folder.
        ax: axes to draw on; None for a new figure.
    """
    return profile_maps.plot_scores(_profile(profile), ax)


def plot_similarity(profile: Scores, ax: Axes | None = None) -> Axes:
    """Draw the linear CKA between all layers of a layer profile.

    Args:
        profile: a profile, or its folder.
        ax: axes to draw on; None for a new figure.
    """
    return profile_maps.plot_similarity(_profile(profile), ax)


def _group(source: Jobs, dataset: str | None) -> DataGroup:
    if isinstance(source, DataGroup):
        return source
    groups = {group.label: group for group in load_groups(Path(source))}
    if dataset is None and len(groups) == 1:
        return next(iter(groups.values()))
    if dataset not in groups:
        raise unknown("dataset", dataset, tuple(groups))
    return groups[dataset]


def _profile(source: Scores) -> Profile:
    return source if isinstance(source, Profile) else read_profile(Path(source))
