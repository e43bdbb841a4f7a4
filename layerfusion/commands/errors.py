"""`layerfusion errors JOB`: where a job's classifier errs."""

from __future__ import annotations

import csv
import io
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layerfusion.commands.arguments import ArgumentParser
from layerfusion.errors import UserError

if TYPE_CHECKING:
    from layerfusion.findings.jobs import JobPredictions
    from layerfusion.findings.mistakes import Answers
    from layerfusion.records.job import RunRecord

WIDEST = 12
"""Classes up to which the whole confusion matrix is shown; of more, the most frequent pairs."""
_SHOWN_TEXT = 160
_SHOWN_NAME = 24


def main(arguments: Sequence[str]) -> int:
    """Print tables and mistakes, or every test row as CSV.

    Raises:
        UserError: if the folder is that of no finished job, or it kept no predictions.
    """
    parser = ArgumentParser(
        "layerfusion errors",
        description="Where a job's classifier errs on test: confusion, precision, recall and F1 of"
        " each class, calibration, thresholds, and the most confident mistakes with their texts.",
    )
    parser.add_argument("job", metavar="JOB", help="folder of the job")
    parser.add_argument(
        "-n", type=int, default=10, metavar="N", help="mistakes to show; 10 by default"
    )
    parser.add_argument(
        "--train",
        action="store_true",
        help="rows of train whose label may be wrong, by probes that had not seen them",
    )
    parser.add_argument(
        "--csv", action="store_true", help="print every test row, or with --train every such row"
    )
    options = parser.parse_args(arguments)
    if options.n < 0:
        raise UserError(f"-n {options.n}: it must be at least 0")
    folder = Path(options.job)
    from layerfusion.findings.jobs import read_predictions
    from layerfusion.records.job import METRICS, read_record

    if not (folder / METRICS).is_file():
        raise UserError(f"{folder}: it holds no finished job (no {METRICS}); outputs/runs has jobs")
    record = read_record(folder)
    if options.train:
        return _train(folder, record, most=None if options.csv else options.n)
    read = read_predictions(folder, record)
    texts, why = _texts(folder, record)
    if options.csv:
        print(_csv(record, read, texts), end="")
        return 0
    for line in error_lines(record, read, texts, options.n):
        print(line)
    print(f"\nnext: layerfusion errors {shlex.quote(str(folder))} --train, for labels in doubt")
    if why:
        print(f"note: mistakes are shown without their texts: {why}", file=sys.stderr)
    return 0


def error_lines(
    record: RunRecord, read: JobPredictions, texts: Sequence[str] | None, most: int
) -> Iterator[str]:
    """Say where a classifier errs, in lines.

    Args:
        record: of the job.
        read: its predictions of test.
        texts: of test, if they can be read again.
        most: mistakes to show.
    """
    import numpy as np

    from layerfusion.findings.mistakes import Answers
    from layerfusion.statistics.metrics import evaluate

    names, target = record.dataset.label_names, read.target
    found = Answers.of(names, read)
    wrong = found.worst()
    seeds = len(record.seeds)
    yield (
        f"{record.dataset.name}: {len(wrong)} of {len(target)} test rows are wrong, accuracy"
        f" {100 * found.right.mean():.1f} %"
        + (f" (consensus of {seeds} seeds)" if seeds > 1 else "")
    )
    width = min(max(map(len, [*names, "class"])), _SHOWN_NAME)
    yield ""
    yield f"{'class':<{width}}   rows  precision  recall     F1"
    for one in found.classes():
        figures = (_percent(x) for x in (one.precision, one.recall, one.f1))
        precision, recall, f1 = figures
        yield f"{_cut(one.name, width):<{width}} {one.rows:6}  {precision:>9}  {recall:>6} {f1:>6}"
    yield ""
    yield from _confusion(found, width)
    yield ""
    error = evaluate(np.log(read.mean.clip(1e-300)), target)["calibration_error"]
    yield f"calibration error {100 * error:.1f} points (expected, over 15 ranges of confidence)"
    yield "confidence     rows  mean probability  accuracy"
    for part in found.by_confidence():
        yield (
            f"{part.low:.1f} to {part.high:.1f} {part.right.size:8}"
            f"  {_percent(part.probability):>16}  {_percent(part.right.mean()):>8}"
        )
    yield ""
    yield "answers with a probability of at least   share answered  accuracy  mistakes"
    for level in found.by_threshold():
        yield (
            f"{level.threshold:>38.2f}   {_percent(level.share):>14}"
            f"  {_percent(level.accuracy):>8}  {level.mistakes:8}"
        )
    if most and len(wrong):
        yield ""
        yield "the most confident mistakes:"
        for row in map(int, wrong[:most]):
            said, label = names[found.answer[row]], names[target[row]]
            shown = f": {_one_line(texts[row])}" if texts is not None else ""
            yield f"  row {row}: {said} ({found.confidence[row]:.2f}), label {label}{shown}"


def _confusion(found: Answers, width: int) -> Iterator[str]:
    """Show the whole matrix of a few classes, or the most frequent pairs of many."""
    matrix, names = found.confusion, found.names
    if len(names) <= WIDEST:
        cell = max(6, *(min(len(name), 12) for name in names))
        yield f"{'label':<{width}}  answers: " + " ".join(f"{_cut(x, cell):>{cell}}" for x in names)
        for name, row in zip(names, matrix, strict=True):
            yield f"{_cut(name, width):<{width}}           " + " ".join(
                f"{count:{cell}}" for count in row
            )
        return
    yield "most frequent confusions (label, answer, rows):"
    for label, answer in found.confused(WIDEST):
        yield f"  {names[label]}, {names[answer]}, {matrix[label, answer]}"


# -- rows of train --------------------------------------------------------------------------------


def _train(folder: Path, record: RunRecord, most: int | None) -> int:
    """Print the rows of train whose label is in doubt; as CSV where `most` is None."""
    from layerfusion.findings.mistakes import doubtful_labels
    from layerfusion.runs.held_out_train import held_out_rows
    from layerfusion.runs.inputs import config_of_job, texts_of

    config = config_of_job(folder)
    rows = held_out_rows(config, record, texts_of(config, record))
    doubts = doubtful_labels(rows.probabilities, rows.labels)
    names = record.dataset.label_names
    if most is None:
        columns = ["text", "label", "suggested", "p(label)", "p(suggested)"]
        found = [
            [rows.texts[row], names[rows.labels[row]], names[other],
             f"{rows.probabilities[row, rows.labels[row]]:.4f}",
             f"{rows.probabilities[row, other]:.4f}"]
            for row, other in zip(doubts.rows, doubts.suggested, strict=True)
        ]  # fmt: skip
        print(_as_csv(columns, found), end="")
        return 0
    kind = "validation" if config.layers.held_out == "validation" else "train"
    print(
        f"{record.dataset.name}: {len(doubts.rows)} of {len(rows.labels)} labels of {kind} are in"
        " doubt, by confident learning on rows held out; the likeliest mistakes first"
    )
    for row, other in list(zip(doubts.rows, doubts.suggested, strict=True))[:most]:
        label = rows.labels[row]
        print(
            f"  {names[label]} ({rows.probabilities[row, label]:.2f}), rather {names[other]}"
            f" ({rows.probabilities[row, other]:.2f}): {_one_line(rows.texts[row])}"
        )
    return 0


# -- the texts again ------------------------------------------------------------------------------


def _texts(folder: Path, record: RunRecord) -> tuple[Sequence[str] | None, str]:
    """Read the test texts again, or say why that cannot be done."""
    from layerfusion.runs.inputs import config_of_job, texts_of

    try:
        return texts_of(config_of_job(folder), record).splits["test"].texts, ""
    except UserError as error:
        return None, str(error)


# -- text -----------------------------------------------------------------------------------------


def _csv(record: RunRecord, read: JobPredictions, texts: Sequence[str] | None) -> str:
    """Every test row, the most confident mistakes first."""
    import numpy as np

    names, target = record.dataset.label_names, read.target
    probabilities = read.mean
    preds, best = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = preds == target
    columns = ["row", "label", "answer", "right", "probability", "p(label)"]
    columns += ["baseline"] * (read.baseline is not None) + ["text"] * (texts is not None)
    rows = []
    for row in np.lexsort((-best, right)):
        cells = [str(row), names[target[row]], names[preds[row]], str(bool(right[row])).lower()]
        cells += [f"{best[row]:.4f}", f"{probabilities[row, target[row]]:.4f}"]
        cells += [names[read.baseline[row]]] if read.baseline is not None else []
        rows.append([*cells, *([texts[row]] if texts is not None else [])])
    return _as_csv(columns, rows)


def _as_csv(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from layerfusion.report.render.files import disarmed

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([disarmed(cell) for cell in row] for row in rows)
    return text.getvalue()


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f} %"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _one_line(text: str) -> str:
    """A text as a terminal may show it."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return _cut(" ".join(plain.split()), _SHOWN_TEXT)
