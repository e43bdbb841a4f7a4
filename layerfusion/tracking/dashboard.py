"""A W&B workspace and report for a project, with the sections that a reader of results wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerfusion.errors import UserError

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import Report
    from wandb_workspaces.workspaces import Workspace

TITLE = "LayerFusion"
COLUMNS = (
    "summary:test/accuracy",
    "summary:test/macro_f1",
    "summary:validation/log_loss",
    "summary:layers/names",
    "config:fusion/name.value",
    "config:dataset/name.value",
)
"""Shown first in the table of runs."""


@dataclass(frozen=True)
class Part:
    """A section of both: a heading, what to read off it, and its panels."""

    title: str
    text: str
    panels: Callable[[], Sequence[Any]]
    """Makes them anew: the workspace and the report each need their own."""


def publish(project: str, entity: str | None) -> tuple[str, str]:
    """Save a new workspace and a new report.

    Args:
        project: of W&B.
        entity: user or team; the key's default where None.

    Returns:
        Their addresses.

    Raises:
        UserError: where the extra is not installed, or W&B refuses or cannot be reached.
    """
    import wandb

    _require_extra()
    try:
        owner = entity or wandb.Api().default_entity
        if not owner:
            raise UserError("dashboard: the key has no default entity; give --entity NAME")
        report = build_report(project, owner)
        report.save()  # first, since it asks whether there is such a project
        workspace = build_workspace(project, owner)
        workspace.save()
    except (wandb.Error, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        lines = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"dashboard: W&B: {lines[0]}") from error
    return workspace.url, report.url


def build_workspace(project: str, entity: str) -> Workspace:
    """The workspace: one section a part, best runs first."""
    from wandb_workspaces import workspaces as ws

    return ws.Workspace(
        entity=entity,
        project=project,
        name=TITLE,
        sections=[
            ws.Section(name=part.title, panels=list(part.panels()), is_open=True) for part in PARTS
        ],
        runset_settings=ws.RunsetSettings(
            order=[ws.Ordering(ws.Summary("test/accuracy"), ascending=False)],
            pinned_columns=list(COLUMNS),
        ),
    )


def build_report(project: str, entity: str) -> Report:
    """The report: the same parts, each with a sentence on how to read it."""
    from wandb_workspaces.reports import v2 as wr
    from wandb_workspaces.reports.v2.interface import OrderBy, Report, Runset

    blocks: list[Any] = [wr.TableOfContents()]
    for part in PARTS:
        runs = Runset(
            entity=entity,
            project=project,
            name="Runs",
            order=[OrderBy(wr.SummaryMetric("test/accuracy"), ascending=False)],
            pinned_columns=list(COLUMNS),
        )
        grid = wr.PanelGrid(runsets=[runs], panels=list(part.panels()))
        blocks += [wr.H2(part.title), wr.P(part.text), grid]
    return Report(
        entity=entity,
        project=project,
        title=TITLE,
        description="Which layers carry the signal, whether fusing several helps, what it costs",
        blocks=blocks,
        width="fluid",
    )


def _require_extra() -> None:
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError as error:
        raise UserError(
            "dashboard: wandb-workspaces is not installed; pip install 'layerfusion[dashboard]',"
            " or `layerfusion report DIR` for the local page"
        ) from error


# -- parts --------------------------------------------------------------------------------------


def _by_layer() -> list[Any]:
    from wandb_workspaces.reports import v2 as wr

    lines = {"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"}
    return [
        _scatter("Validation accuracy by depth", "layers/depth", "validation/accuracy"),
        _scatter("Test accuracy by depth", "layers/depth", "test/accuracy"),
        wr.CustomChart(
            query={"summaryTable": {"tableKey": "layer_profile_table"}},
            chart_name="wandb/lineseries/v0",
            chart_fields=lines,
            chart_strings={"title": "Probe accuracy by relative depth", "xname": "depth"},
        ),
        wr.WeavePanelSummaryTable(table_name="scores"),
    ]


def _fusions() -> list[Any]:
    from wandb_workspaces.reports import v2 as wr

    bars = [
        wr.BarPlot(
            title=title,
            metrics=[wr.SummaryMetric(metric)],
            groupby=wr.Config("fusion/name"),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )
        for title, metric in (
            ("Test accuracy by fusion", "test/accuracy"),
            ("Test macro-F1 by fusion", "test/macro_f1"),
        )
    ]
    confusion = wr.CustomChart(
        query={"summaryTable": {"tableKey": "confusion_table"}},
        chart_name="wandb/confusion_matrix/v1",
        chart_fields={"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"},
        chart_strings={"title": "Confusion on test"},
    )
    return [
        *bars,
        _scatter("Test accuracy by number of layers", "layers/count", "test/accuracy"),
        _scatter("Test accuracy against the baseline", "baseline/accuracy", "test/accuracy"),
        confusion,
    ]


def _gates() -> list[Any]:
    from wandb_workspaces.reports import v2 as wr

    return [
        wr.LinePlot(title="Gates, first seed", x="epoch", metric_regex="seed0/gates/.*"),
        wr.LinePlot(title="Validation log-loss", x="epoch", metric_regex="seed[0-9]+/val/log_loss"),
        wr.WeavePanelSummaryTable(table_name="layers"),
        wr.WeavePanelSummaryTable(table_name="gates_by_class"),
    ]


def _costs() -> list[Any]:
    return [
        _scatter("Accuracy and FLOPs a text", "cost/flops_per_text", "test/accuracy", log=True),
        _scatter("Accuracy and head", "cost/head_parameters", "test/accuracy", log=True),
        _scatter("Accuracy and training time", "cost/train_seconds", "test/accuracy", log=True),
    ]


def _provenance() -> list[Any]:
    from wandb_workspaces.reports import v2 as wr

    return [wr.RunComparer(diff_only=True)]


def _scatter(title: str, x: str, y: str, *, log: bool = False) -> Any:
    from wandb_workspaces.reports import v2 as wr

    x_metric, y_metric = wr.SummaryMetric(x), wr.SummaryMetric(y)
    return wr.ScatterPlot(title=title, x=x_metric, y=y_metric, log_x=log or None)


PARTS = (
    Part(
        "Accuracy by layer",
        "Single layers by relative depth: 0 enters the first block, 1 leaves the last. Layers are"
        " chosen on validation; test says what the choice is worth.",
        _by_layer,
    ),
    Part(
        "Fusion comparison",
        "Whether several layers beat one, and both beat the baseline, a bag of words. Whether a"
        " difference is more than chance stands in the local report.",
        _fusions,
    ),
    Part(
        "Gates",
        "How much weight a fusion gives each layer, by epoch of the first seed and by class.",
        _gates,
    ),
    Part(
        "Cost",
        "FLOPs are those of the models up to the highest layer that is needed.",
        _costs,
    ),
    Part(
        "Provenance",
        "What sets the runs apart. The lineage of a run's result, down to the fingerprint of its"
        " texts, is under its Artifacts.",
        _provenance,
    ),
)
