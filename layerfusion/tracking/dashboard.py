"""Builds a W&B workspace and a W&B report for a project, with the same sections in both."""

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
    *(f"config:{name}.value" for name in ("dataset", "models", "layers", "pooling", "fusion")),
    "config:n_train.value",
    "summary:layers/names",
)
"""Columns that come first in the table of runs."""


@dataclass(frozen=True)
class Part:
    """A section of the workspace and the report: a heading, a text on how to read it, panels."""

    title: str
    text: str
    panels: Callable[[], Sequence[Any]]
    """Function that creates the panels, since workspace and report need objects of their own."""


def publish(project: str, entity: str | None) -> tuple[str, str]:
    """Save a new workspace and a new report.

    Args:
        project: W&B project.
        entity: W&B user or team; None means the default of the API key.

    Returns:
        Addresses of the workspace and the report.

    Raises:
        UserError: if the extra is not installed, or W&B refuses or cannot be reached.
    """
    import wandb

    _require_extra()
    try:
        owner = entity or wandb.Api().default_entity
        if not owner:
            raise UserError("dashboard: the API key has no default entity; give --entity NAME")
        report = build_report(project, owner)
        report.save()  # saved first, since this checks that the project exists
        workspace = build_workspace(project, owner)
        workspace.save()
    except (wandb.Error, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        lines = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"dashboard: W&B: {lines[0]}") from error
    return workspace.url, report.url


def build_workspace(project: str, entity: str) -> Workspace:
    """Build the workspace: one section for each part, with the best runs first."""
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
    """Build the report: the same parts, each with a text on how to read it."""
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
            " or use `layerfusion report DIR` for the local page"
        ) from error


# -- parts --------------------------------------------------------------------------------------


def _by_layer() -> list[Any]:
    from wandb_workspaces.reports import v2 as wr

    return [
        _scatter("Validation accuracy by depth", "layers/depth", "validation/accuracy"),
        _scatter("Test accuracy by depth", "layers/depth", "test/accuracy"),
        _lines("Probe accuracy by relative depth", "layer_profile", "depth"),
        wr.WeavePanelSummaryTable(table_name="probes"),
        wr.WeavePanelSummaryTable(table_name="scores"),
    ]


def _fusions() -> list[Any]:
    from wandb_workspaces.reports import v2 as wr

    bars = [
        wr.BarPlot(
            title=title,
            metrics=[wr.SummaryMetric(metric)],
            groupby=wr.Config("fusion"),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )
        for title, metric in (
            ("Test accuracy by fusion", "test/accuracy"),
            ("Test macro-F1 by fusion", "test/macro_f1"),
        )
    ]
    return [
        *bars,
        _scatter("Test accuracy by number of layers", "layers/count", "test/accuracy"),
        _scatter("Test accuracy against the baseline", "baseline/accuracy", "test/accuracy"),
    ]


def _errors() -> list[Any]:
    from wandb_workspaces.reports import v2 as wr

    confusion = wr.CustomChart(
        query={"summaryTable": {"tableKey": "confusion_table"}},
        chart_name="wandb/confusion_matrix/v1",
        chart_fields={"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"},
        chart_strings={"title": "Confusion on test"},
    )
    return [
        confusion,
        _lines("Accuracy by probability of the answer", "calibration", "probability"),
        wr.WeavePanelSummaryTable(table_name="predictions"),
    ]


def _training() -> list[Any]:
    from wandb_workspaces.reports import v2 as wr

    return [
        *(
            wr.LinePlot(title=title, x="epoch", y=[metric, f"{metric}_lowest", f"{metric}_highest"])
            for title, metric in (
                ("Validation log-loss, mean over seeds and its range", "val/log_loss"),
                ("Validation accuracy, mean over seeds and its range", "val/accuracy"),
            )
        ),
        wr.LinePlot(
            title="Validation log-loss of each seed",
            x="epoch",
            metric_regex="seed[0-9]+/val/log_loss",
        ),
    ]


def _gates() -> list[Any]:
    from wandb_workspaces.reports import v2 as wr

    return [
        _lines("Gates by epoch, mean over seeds", "gates_by_epoch", "epoch"),
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


def _lines(title: str, chart: str, x: str) -> Any:
    """Show a line chart of a run, which is kept as a table."""
    from wandb_workspaces.reports import v2 as wr

    return wr.CustomChart(
        query={"summaryTable": {"tableKey": f"{chart}_table"}},
        chart_name="wandb/lineseries/v0",
        chart_fields={"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"},
        chart_strings={"title": title, "xname": x},
    )


def _scatter(title: str, x: str, y: str, *, log: bool = False) -> Any:
    from wandb_workspaces.reports import v2 as wr

    x_metric, y_metric = wr.SummaryMetric(x), wr.SummaryMetric(y)
    return wr.ScatterPlot(title=title, x=x_metric, y=y_metric, log_x=log or None)


PARTS = (
    Part(
        "Accuracy by layer",
        "Jobs with a single layer, by the relative depth of that layer: 0 enters the first block, 1"
        " leaves the last; and the probes of all layers, where a job or a profile fitted some."
        " Choose layers by validation, or by folds where it has fewer than 200 rows with different"
        " texts; test shows how good the choice was.",
        _by_layer,
    ),
    Part(
        "Fusion comparison",
        "Compare several layers with one, and both with the baseline, a bag of words. The local"
        " report says which differences are significant.",
        _fusions,
    ),
    Part(
        "Training",
        "The curves over epochs: the mean over seeds, with the lowest and the highest seed.",
        _training,
    ),
    Part(
        "Gates",
        "The weight that a fusion gives to each layer: by epoch and by class, mean over seeds.",
        _gates,
    ),
    Part(
        "Where it errs",
        "What was taken for what, whether the probabilities can be trusted, and the rows of test"
        " with their answers, the surest mistakes first.",
        _errors,
    ),
    Part(
        "Cost",
        "FLOPs count the models up to the highest layer that a job uses.",
        _costs,
    ),
    Part(
        "Provenance",
        "The settings in which the runs differ. The Artifacts tab of a run shows the lineage of its"
        " result, down to the fingerprint of its texts.",
        _provenance,
    ),
)
