"""`layerfusion errors JOB`: where a job's classifier errs."""

from __future__ import annotations

import csv
import io
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from layerfusion.commands.arguments import ArgumentParser, add_models, model_folders
from layerfusion.errors import UserError, unknown

if TYPE_CHECKING:
    import numpy as np

    from layerfusion.config.job import TrainConfig
    from layerfusion.findings.jobs import JobPredictions
    from layerfusion.findings.mistakes import Answers, Confidence
    from layerfusion.findings.set_mistakes import Likelihood, SetAnswers
    from layerfusion.records.job import RunRecord
    from layerfusion.runs.held_out_train import HeldOutRows

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
        " each class or label, calibration, thresholds, and the worst mistakes with their texts.",
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
    add_models(parser)
    options = parser.parse_args(arguments)
    if options.n < 0:
        raise UserError(f"-n {options.n}: it must be at least 0")
    if not options.train and (options.model or options.cache):
        raise UserError("--model, --cache: they are for --train alone, which asks the models")
    folder = Path(options.job)
    from layerfusion.findings.jobs import read_predictions
    from layerfusion.records.job import METRICS, read_record

    if not (folder / METRICS).is_file():
        raise UserError(f"{folder}: it holds no finished job (no {METRICS}); outputs/runs has jobs")
    record = read_record(folder)
    if options.train:
        return _train(folder, record, options)
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

    from layerfusion.findings.set_mistakes import SetAnswers, answers_of_job
    from layerfusion.records.label_words import shown_name
    from layerfusion.statistics.metrics import evaluate

    names, target = tuple(map(shown_name, record.dataset.label_names)), read.target
    found = answers_of_job(names, read)
    figures = evaluate(np.log(read.mean.clip(1e-300)), target)
    wrong = found.worst()
    seeds = len(record.seeds)
    yield (
        f"{record.dataset.name}: {len(wrong)} of {len(target)} test rows are wrong,"
        f" {record.dataset.measure} {100 * found.right.mean():.1f} %"
        + (f" (consensus of {seeds} seeds)" if seeds > 1 else "")
    )
    if isinstance(found, SetAnswers):
        yield (
            f"micro-F1 {_percent(figures['micro_f1'])}, macro-F1 {_percent(figures['macro_f1'])};"
            " exact match: the share of the rows whose labels are all right"
        )
    thing = "label" if read.multilabel else "class"
    width = min(max(map(len, [*names, thing])), _SHOWN_NAME)
    yield ""
    yield f"{thing:<{width}}   rows  precision  recall     F1"
    for one in found.classes():
        shown = (_percent(x) for x in (one.precision, one.recall, one.f1))
        precision, recall, f1 = shown
        yield f"{_cut(one.name, width):<{width}} {one.rows:6}  {precision:>9}  {recall:>6} {f1:>6}"
    yield ""
    error = figures["calibration_error"]
    calibration = (
        f"calibration error {100 * error:.1f} points (expected, over 15 ranges of confidence)"
    )
    if isinstance(found, SetAnswers):
        yield from _by_probability(found, calibration)
        yield from _worst_sets(found, wrong[:most], texts)
    else:
        yield from _confusion(found, width)
        yield ""
        yield from _by_confidence(found, calibration)
        yield from _worst(found, wrong[:most], texts)


def _by_confidence(found: Answers, calibration: str) -> Iterator[str]:
    """Say how far the probabilities of answers can be believed, and what a threshold leaves."""
    yield calibration
    yield from _ranges("confidence     rows  mean probability  accuracy", found.ranges())
    yield ""
    yield "answers with a probability of at least   share answered  accuracy  mistakes"
    for level in found.by_threshold():
        yield (
            f"{level.threshold:>38.2f}   {_percent(level.share):>14}"
            f"  {_percent(level.accuracy):>8}  {level.mistakes:8}"
        )


def _ranges(head: str, parts: Sequence[Confidence | Likelihood]) -> Iterator[str]:
    """Say of each range of probability how many there are, and how many of them are true."""
    yield head
    last = len(head.rpartition("  ")[2])
    for part in parts:
        yield (
            f"{part.low:.1f} to {part.high:.1f} {part.size:8}"
            f"  {_percent(part.probability):>16}  {_percent(part.share):>{last}}"
        )


def _worst(found: Answers, rows: np.ndarray, texts: Sequence[str] | None) -> Iterator[str]:
    """Show the most confident mistakes."""
    if not len(rows):
        return
    yield ""
    yield "the most confident mistakes:"
    for row in map(int, rows):
        said, label = found.names[found.answer[row]], found.names[found.target[row]]
        yield f"  row {row}: {said} ({found.confidence[row]:.2f}), label {label}{_text(texts, row)}"


def _by_probability(found: SetAnswers, calibration: str) -> Iterator[str]:
    """Say how far the probabilities of labels can be believed, and what thresholds would give."""
    yield calibration
    head = "probability  labels  mean probability  rows that have it"
    yield from _ranges(head, found.ranges())
    yield ""
    yield "labels named from   labels a row  precision   recall  micro-F1  exact match"
    for level in found.by_threshold():
        yield (
            f"{level.threshold:>17.2f}   {level.labels:>12.2f}  {_percent(level.precision):>9}"
            f"  {_percent(level.recall):>7}  {_percent(level.micro_f1):>8}"
            f"  {_percent(level.exact):>11}"
        )


def _worst_sets(found: SetAnswers, rows: np.ndarray, texts: Sequence[str] | None) -> Iterator[str]:
    """Show the rows with the largest log-loss over all labels."""
    from layerfusion.records.label_words import SHOWN, label_words

    if not len(rows):
        return
    yield ""
    yield "the worst mistakes, by the log-loss of all labels of a row:"
    for row in map(int, rows):
        said, had = (
            label_words(found.names, x[row], most=SHOWN) for x in (found.answer, found.target)
        )
        loss = f"log-loss {found.losses[row]:.2f}"
        yield f"  row {row}: {said}; has {had}; {loss}{_text(texts, row)}"


def _text(texts: Sequence[str] | None, row: int) -> str:
    return f": {_one_line(texts[row])}" if texts is not None else ""


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


def _train(folder: Path, record: RunRecord, options: Namespace) -> int:
    """Print the rows of train whose label is in doubt, by vectors of the job's models."""
    from layerfusion.assets import NoSource
    from layerfusion.assets.paths import looking_also_in
    from layerfusion.records.label_words import shown_name
    from layerfusion.records.settings import config_of_job
    from layerfusion.runs.held_out_train import held_out_rows
    from layerfusion.runs.job_texts import texts_of, with_own_cache

    most = None if options.csv else options.n
    config = with_models(config_of_job(folder), options.model, options.cache)
    if options.cache is None:
        config = with_own_cache(config, record)
    dataset = texts_of(config, record)
    try:
        with looking_also_in(record.looked_in):
            rows = held_out_rows(config, record, dataset)
    except NoSource as error:
        raise UserError(
            f"{error}; where a model's files lie now, say with --model NAME=FOLDER"
        ) from error
    doubts = _set_doubts if rows.labels.ndim == 2 else _class_doubts
    names = record.dataset.label_names
    columns, found, lines = doubts(names if most is None else [*map(shown_name, names)], rows)
    if most is None:
        print(_as_csv(columns, found), end="")
        return 0
    kind = "validation" if config.layers.held_out == "validation" else "train"
    print(
        f"{record.dataset.name}: {len(found)} of {rows.labels.size} labels of {kind} are in"
        " doubt, by confident learning on rows held out"
        + "; the likeliest mistakes first"
        * bool(found)
    )
    for line in lines[:most]:
        print(line)
    return 0


def with_models(config: TrainConfig, models: Sequence[str], cache: str | None) -> TrainConfig:
    """Return the config of a job whose models or cache lie elsewhere now.

    Args:
        config: the config.
        models: words of `--model`, NAME=FOLDER.
        cache: folder of the cache; None for that of the job.

    Raises:
        UserError: for a word without `=`, and for a model that the job does not have.
    """
    backbone = dict(config.backbone)
    for name, folder in model_folders(models).items():
        if name not in backbone:
            raise unknown("model", name, backbone)
        backbone[name] = backbone[name].moved_to(folder)
    paths = config.paths if cache is None else replace(config.paths, cache=cache)
    return replace(config, backbone=backbone, paths=paths)


Doubtful = tuple[list[str], list[list[str]], list[str]]
"""Columns and rows of a table, and the rows as lines for a reader."""


def _class_doubts(names: Sequence[str], rows: HeldOutRows) -> Doubtful:
    """List the rows whose label is in doubt, and what it may be."""
    from layerfusion.findings.mistakes import doubtful_labels

    doubts = doubtful_labels(rows.probabilities, rows.labels)
    table, lines = [], []
    for row, other in zip(doubts.rows.tolist(), doubts.suggested.tolist(), strict=True):
        label = int(rows.labels[row])
        own, more = rows.probabilities[row, label], rows.probabilities[row, other]
        table.append([rows.texts[row], names[label], names[other], f"{own:.4f}", f"{more:.4f}"])
        lines.append(
            f"  {names[label]} ({own:.2f}), rather {names[other]} ({more:.2f}):"
            f" {_one_line(rows.texts[row])}"
        )
    return ["text", "label", "suggested", "p(label)", "p(suggested)"], table, lines


def _set_doubts(names: Sequence[str], rows: HeldOutRows) -> Doubtful:
    """List the pairs of a row and a label that it may lack, or have wrongly."""
    from layerfusion.findings.set_mistakes import doubtful_sets
    from layerfusion.records.label_words import SEPARATOR, label_words

    doubts = doubtful_sets(rows.probabilities, rows.labels)
    table, lines = [], []
    for row, label in zip(doubts.rows.tolist(), doubts.labels.tolist(), strict=True):
        has, own = bool(rows.labels[row, label]), rows.probabilities[row, label]
        labels = label_words(names, rows.labels[row], between=SEPARATOR, nothing="")
        todo = "remove" if has else "add"
        table.append([rows.texts[row], labels, names[label], todo, f"{own:.4f}"])
        kind = "has" if has else "lacks"
        lines.append(f"  {kind} {names[label]} ({own:.2f}): {_one_line(rows.texts[row])}")
    return ["text", "labels", "label", "suggested", "p(label)"], table, lines


# -- the texts again ------------------------------------------------------------------------------


def _texts(folder: Path, record: RunRecord) -> tuple[Sequence[str] | None, str]:
    """Read the test texts again, or say why that cannot be done."""
    from layerfusion.records.settings import config_of_job
    from layerfusion.runs.job_texts import texts_of

    try:
        return texts_of(config_of_job(folder), record).splits["test"].texts, ""
    except UserError as error:
        return None, str(error)


# -- text -----------------------------------------------------------------------------------------


def _csv(record: RunRecord, read: JobPredictions, texts: Sequence[str] | None) -> str:
    """Every test row, the worst mistakes first."""
    import numpy as np

    from layerfusion.findings.set_mistakes import SetAnswers, answers_of_job
    from layerfusion.records.label_words import SEPARATOR, label_words

    found = answers_of_job(record.dataset.label_names, read)
    names, target, right, mean = found.names, found.target, found.right, read.mean
    several = read.multilabel
    badness = found.losses if isinstance(found, SetAnswers) else found.confidence

    def words(label: np.ndarray) -> str:
        return label_words(names, label, between=SEPARATOR, nothing="")

    columns = ["row", "label", "answer", "right"]
    if isinstance(found, SetAnswers):
        columns += ["log_loss", *(f"p({name})" for name in names)]
    else:
        columns += ["probability", "p(label)"]
    columns += ["baseline"] * (read.baseline is not None) + ["text"] * (texts is not None)
    rows = []
    for row in np.lexsort((-badness, right)):
        cells = [str(row), words(target[row]), words(found.answer[row])]
        cells += [str(bool(right[row])).lower(), f"{badness[row]:.4f}"]
        # Of each label where a row has several, else of its class.
        cells += [
            f"{p:.4f}" for p in np.atleast_1d(mean[row] if several else mean[row, target[row]])
        ]
        cells += [words(read.baseline[row])] if read.baseline is not None else []
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
