"""The figures of the report for notebooks: results in, matplotlib axes out.

Every function takes what it draws and, as `ax`, the axes to draw on; without them it draws on those
of a new figure, and returns them:

    ax = plot_layers("outputs/sweeps/mine")
    ax.set_title("Layers")

Jobs are a folder with finished jobs at any depth, or a `DataGroup`. With jobs on several data sets
in the folder, `dataset` names one; a job that cannot be read is left out with a warning. A profile
is a `Profile` or its folder. All raise `UserError` where there is nothing to draw.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes

from layerfusion.calls import plain_calls
from layerfusion.errors import UserError, unknown
from layerfusion.findings.curves import probe_lines
from layerfusion.findings.groups import DataGroup, one_group
from layerfusion.findings.shown import comparisons
from layerfusion.findings.tests import find_all
from layerfusion.records.profile import PROFILE, Profile, read_profile
from layerfusion.report.blocks import gates, pareto
from layerfusion.report.blocks.fusion import CHOSEN_LAYER, forest_rows
from layerfusion.report.figures import layers, profile_maps
from layerfusion.report.figures.colors import model_colors
from layerfusion.report.figures.forest import plot_forest

Jobs = str | Path | DataGroup
ProfileLike = str | Path | Profile


@plain_calls()
def plot_layers(
    source: Jobs | Profile, ax: Axes | None = None, *, dataset: str | None = None
) -> Axes:
    """Draw accuracy by layer: of jobs on one layer each, or of probes.

    The probes are those of a layer profile or, where no layer was run alone, those that selections
    fitted.

    Example:
        >>> type(plot_layers(profile)).__name__
        'Axes'
    """
    is_folder = isinstance(source, str | Path)
    if isinstance(source, Profile) or (is_folder and (Path(source) / PROFILE).is_file()):
        return layers.plot_profile_layers(_profile(source), ax)
    group = _group(source, dataset)
    if group.curves and not group.probed:
        return layers.plot_job_layers(group, ax)
    if not probe_lines(group):
        raise UserError(
            f"{group.label}: no layer was run alone, and no selection probed enough layers"
        )
    return layers.plot_probe_curves(group, ax)


@plain_calls()
def plot_fusion(jobs: Jobs, ax: Axes | None = None, *, dataset: str | None = None) -> Axes:
    """Draw the difference of every fusion to the single layer that is chosen.

    Example:
        >>> type(plot_fusion(outputs)).__name__
        'Axes'
    """
    group = _group(jobs, dataset)
    if group.chosen is None:
        raise UserError(f"{group.label}: no layer was run alone, so there is nothing to compare")
    rows = comparisons(group, find_all([group])[group])
    return plot_forest(forest_rows(group, rows), CHOSEN_LAYER, ax)


@plain_calls()
def plot_cost(jobs: Jobs, ax: Axes | None = None, *, dataset: str | None = None) -> Axes:
    """Draw test accuracy against operations, and the front: the best of each cost.

    Example:
        >>> type(plot_cost(outputs)).__name__
        'Axes'
    """
    return pareto.plot_cost(_group(jobs, dataset), ax)


def plot_gates(
    jobs: Jobs, job: str = "", ax: Axes | None = None, *, dataset: str | None = None
) -> Axes:
    """Draw the mean gate of each layer of a fusion; `job` begins its hash if several have gates."""
    group = _group(jobs, dataset)
    gated = {x.record.job: x for x in group.fused if x.record.layers[0].mean_gate is not None}
    found = [x for name, x in gated.items() if name.startswith(job)]
    if len(found) != 1:
        raise unknown("job with gates", job, gated)
    return gates.plot_mean_gates(found[0], model_colors(group.models), ax)


def plot_scores(profile: ProfileLike, ax: Axes | None = None) -> Axes:
    """Draw the rank that each score of a layer profile gives to a layer within its model."""
    return profile_maps.plot_scores(_profile(profile), ax)


def plot_similarity(profile: ProfileLike, ax: Axes | None = None) -> Axes:
    """Draw the linear CKA between all layers of a layer profile."""
    return profile_maps.plot_similarity(_profile(profile), ax)


def _group(source: Jobs, dataset: str | None) -> DataGroup:
    return source if isinstance(source, DataGroup) else one_group(Path(source), dataset)


def _profile(source: ProfileLike) -> Profile:
    return source if isinstance(source, Profile) else read_profile(Path(source))
