"""The finished jobs under a folder as one data frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from layerfusion.calls import plain_calls
from layerfusion.errors import UserError
from layerfusion.findings.renewed import older_records
from layerfusion.findings.settings import settings_words
from layerfusion.records.job import Estimate, RunRecord, find_records
from layerfusion.records.json_files import Damaged, warn_of

if TYPE_CHECKING:
    from pandas import DataFrame


@plain_calls()
def results(folder: Path | str, *, older: bool = False) -> DataFrame:
    """Read every finished job under a folder, a row each.

    Args:
        folder: of a sweep, of a job, or one that holds such folders.
        older: True for a row for every record of a job that newer code has run again; else the
            newest of them has one.

    Returns:
        Columns: dataset, models, layers, pooling, selection, fusion, settings (those of selection,
        fusion and training in which jobs of one selection and fusion differ: `fusion.width=64`),
        protocol, seeds, train_rows, test_rows; validation_accuracy, folds_accuracy (on folds of
        train, where the job was judged on them), test_accuracy, test_sd, test_low, test_high,
        macro_f1, micro_f1 (of texts with several labels, whose accuracy is that all of them are
        right), log_loss, all as shares or nats, with a 95 % interval over test rows;
        baseline_accuracy; ms_per_text, gflops_per_text (up to the highest layer of each model),
        head_parameters, train_seconds; job and folder. A figure that a job does not have is NaN.

    Raises:
        UserError: where the folder does not exist, or none of its records can be read.

    Warns:
        UserWarning: of each record that cannot be read and is left out.

    Example:
        >>> frame = results(outputs)
        >>> frame[["dataset", "models", "fusion"]].values[0].tolist()
        ['reviews', 'tiny', 'gated']
    """
    import pandas

    place = Path(folder)
    if not place.is_dir():
        raise UserError(f"{place}: there is no such folder")
    damaged: Damaged = {}
    found = find_records(place, damaged)
    warn_of(damaged, left=bool(found))
    left_out = {} if older else older_records(found)
    found = [(path, record) for path, record in found if path not in left_out]
    settings = settings_words([record for _, record in found])
    rows = [
        {**_row(record), "settings": words, "folder": str(path)}
        for (path, record), words in zip(found, settings, strict=True)
    ]
    frame = pandas.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype(COLUMNS)


COLUMNS = {
    **dict.fromkeys(
        ["dataset", "models", "layers", "pooling", "selection", "fusion", "settings", "protocol"],
        "string",
    ),
    **dict.fromkeys(["seeds", "train_rows", "test_rows"], "int64"),
    **dict.fromkeys(["validation_accuracy", "folds_accuracy", "test_accuracy"], "float64"),
    **dict.fromkeys(
        ["test_sd", "test_low", "test_high", "macro_f1", "micro_f1", "log_loss"], "float64"
    ),
    **dict.fromkeys(["baseline_accuracy", "ms_per_text", "gflops_per_text"], "float64"),
    "head_parameters": "int64",
    "train_seconds": "float64",
    **dict.fromkeys(["job", "folder"], "string"),
}
"""Column to its type."""


def _row(record: RunRecord) -> dict[str, object]:
    nothing = Estimate(float("nan"), None)
    validation = record.validation.get("accuracy", nothing)
    folds = record.on_folds.figures if record.on_folds else {}
    test = record.test.get("accuracy", nothing)
    return {
        "dataset": record.dataset.name,
        "models": "+".join(record.backbone_names),
        "layers": " ".join(f"{layer.backbone}:{layer.layer}" for layer in record.layers),
        "pooling": "+".join(dict.fromkeys(layer.pooling for layer in record.layers)),
        "selection": record.selection,
        "fusion": record.fusion_label,
        "protocol": record.protocol,
        "seeds": len(record.seeds),
        "train_rows": record.dataset.rows["train"],
        "test_rows": record.dataset.rows["test"],
        "validation_accuracy": validation.mean,
        "folds_accuracy": folds.get("accuracy", nothing).mean,
        "test_accuracy": test.mean,
        "test_sd": test.sd,
        "test_low": test.low,
        "test_high": test.high,
        "macro_f1": record.test.get("macro_f1", nothing).mean,
        "micro_f1": record.test.get("micro_f1", nothing).mean,
        "log_loss": record.test.get("log_loss", nothing).mean,
        "baseline_accuracy": record.baseline.test["accuracy"],
        "ms_per_text": record.milliseconds_one,
        "gflops_per_text": None if record.flops_per_text is None else record.flops_per_text / 1e9,
        "head_parameters": record.cost.head_parameters,
        "train_seconds": record.cost.train_seconds,
        "job": record.job,
    }
