"""`layerfusion drift JOB INPUT`: whether new texts are of the kind that a classifier knows."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layerfusion.commands.arguments import ArgumentParser
from layerfusion.commands.classifier import add_classifier, open_classifier, user_modules
from layerfusion.commands.predict import (
    Counts,
    add_reading,
    add_vectors,
    parts_in,
    with_vectors,
)
from layerfusion.errors import UserError
from layerfusion.records.format import plural
from layerfusion.texts.streaming import STANDARD, refuse_no_file

if TYPE_CHECKING:
    from pandas import DataFrame

    from layerfusion.runs.familiar import Familiar


def main(arguments: Sequence[str]) -> int:
    """Classify the texts, and print how they differ from those of the job.

    Returns:
        0, whatever is found.

    Raises:
        UserError: as `layerfusion predict`, or if there is no text.
    """
    options = _parser().parse_args(arguments)
    if options.input != STANDARD:
        refuse_no_file(Path(options.input))
    modules = user_modules(options.config_dir)
    bundle = open_classifier(options, modules, options.device)
    before = bundle.familiar
    bundle = with_vectors(bundle, options)
    parts = parts_in(options.input, options, bundle, modules)
    from layerfusion.embeddings.cache_key import text_hash
    from layerfusion.runs.bundle import counted_together
    from layerfusion.runs.familiar import Familiar, compared

    counts, now = Counts(bundle.multilabel), None
    seen: set[bytes] = set()
    with counted_together() as tallies:
        for table in parts:
            stripped = (table.texts[row].strip() for row in counts.add(table.texts))
            found = {text_hash(text): text for text in stripped}
            texts = [text for key, text in found.items() if key not in seen]
            seen.update(found)
            if texts:
                said = bundle.probabilities(texts)
                new = Familiar.of(said, multilabel=bundle.multilabel, text_of=None)
                now = new if now is None else now.plus(new)
    if now is None:
        raise UserError(f"{options.input}: it has no text")
    now.add_read(tallies)
    found = compared(before, now, bundle.label_names, multilabel=bundle.multilabel)
    if options.csv:
        print(found.to_csv(index=False), end="")
    else:
        for line in _lines(found, str(bundle.facts["dataset"]), now.texts, before):
            print(line)
    for note in [*parts.notes, *counts.notes()]:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _lines(found: DataFrame, dataset: str, texts: int, before: Familiar) -> Iterator[str]:
    """Print a comparison, and say what follows."""
    from layerfusion.runs.familiar import ALIKE

    yield (
        f"{plural(texts, 'text')} beside {dataset}: answers beside those to"
        f" {plural(before.texts, f'{before.rows} text')}, tokens beside those of train"
    )
    yield ""
    entries = found.to_dict("records")
    width = max(len(row["what"]) for row in entries)
    place = max(len(row["where"]) for row in (*entries, {"where": "largest difference"}))
    heads = "before     now  index  shown from  p (Holm)"
    yield f"{'':<{width}}  {'largest difference':<{place}}  {heads}"
    for row in entries:
        yield (
            f"{row['what']:<{width}}  {row['where']:<{place}}  {row['before']:6.1%}"
            f"  {row['now']:6.1%}  {row['index']:5.2f}  {row['shown']:10.2f}  {row['p_holm']:8.4f}"
            f"  {row['verdict']}"
        )
    yield ""
    differ = [row["what"] for row in entries if row["verdict"] != ALIKE]
    if differ:
        yield (
            f"These texts differ in {', '.join(differ)}: the accuracy on {before.rows} rows need"
            " not hold for them. Label some of them, and train with them."
        )
    else:
        yield "Nothing shows that these texts are of another kind."
    yield (
        "index: population stability index; below 0.1 alike, from 0.25 unlike. By chance alone it"
        " stays below `shown from` 19 times of 20."
    )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "layerfusion drift",
        description="Compare new texts with those that a classifier was trained and judged on: its"
        " confidence, its answers, and the texts that models cut off or do not know. A text that is"
        " repeated counts once.",
    )
    add_classifier(parser)
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="a table, a .txt with one text a line, or - for the standard input",
    )
    parser.add_argument("--csv", action="store_true", help="print the table as csv")
    add_reading(parser)
    add_vectors(parser)
    return parser
