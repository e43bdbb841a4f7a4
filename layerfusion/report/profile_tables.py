"""A layer profile in text: lines for the terminal, and every number as CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from layerfusion.assets.files import write_atomically
from layerfusion.records.format import plural
from layerfusion.records.profile import (
    LayerProfile,
    Profile,
    SelectionProfile,
)
from layerfusion.report.names import NONE, count, listing, p_value, points
from layerfusion.report.profile_words import (
    LOW_IS_GOOD,
    between,
    form,
    number,
    percentage,
    seconds,
    unsigned,
)

WIDTH = 100
"""Columns of a terminal."""
FIRST = 22
"""Of them, what the name of a source takes at most."""
MOST = 8
"""Layers of a selection that are listed."""
BEST = "*"


def profile_lines(profile: Profile) -> list[str]:
    """A profile for the terminal: best layers, scores, what they agree on, and the choices.

    Every line has at most 100 characters.
    """
    parts = [
        _head(profile),
        _best_lines(profile),
        *_score_lines(profile),
        _agreement_lines(profile),
        _pair_lines(profile),
        _selection_lines(profile),
        _test_lines(profile),
    ]
    return [line for part in parts if part for line in ("", *part)][1:]


def write_csv(profile: Profile, path: Path) -> None:
    """Write one row a layer, as RFC 4180 has it: shares and floats in full, empty for none."""
    names = score_names(profile)
    cost = ("strength", "flops_per_text", "milliseconds_per_text")
    test = ("test_accuracy", "test_low", "test_high")
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["backbone", "layer", "pooling", "depth", *names, *cost, *test])
    for layer in profile.layers:
        one = layer.test
        table.writerow(
            [
                *(layer.backbone, layer.layer, layer.pooling, layer.depth),
                *(layer.scores.get(name) for name in names),
                *(layer.strength, layer.flops_per_text, layer.milliseconds_per_text),
                *((one.mean, one.low, one.high) if one else (None, None, None)),
            ]
        )
    write_atomically(path, text.getvalue().encode())


def score_names(profile: Profile) -> list[str]:
    """Every score that some layer has an entry for; accuracy and log-loss of the probe first."""
    found = dict.fromkeys(name for layer in profile.layers for name in layer.scores)
    first = [name for name in ("accuracy", "log_loss") if name in found]
    return [*first, *(name for name in found if name not in first)]


def sources(profile: Profile) -> dict[str, list[int]]:
    """Source (a model under a pooling) to the positions of its layers, bottom up."""
    found: dict[str, list[int]] = {}
    for n, layer in enumerate(profile.layers):
        found.setdefault(layer.source, []).append(n)
    return found


def best_of(layers: Sequence[LayerProfile], score: str, places: Sequence[int]) -> int | None:
    """Which of some layers a score likes best; the lower one of equals, none where none has it."""
    sign = 1 if score in LOW_IS_GOOD else -1
    scored = [
        (sign * value, n) for n in places if (value := layers[n].scores.get(score)) is not None
    ]
    return min(scored)[1] if scored else None


# -- layers -------------------------------------------------------------------------------------


def _head(profile: Profile) -> list[str]:
    line = (
        f"{profile.dataset.name}: {plural(len(profile.layers), 'layer')} of"
        f" {listing(list(profile.backbones))}, {plural(profile.rows, 'row')} of train, held out:"
        f" {profile.held_out}"
    )
    return textwrap.wrap(line, WIDTH)


def _best_lines(profile: Profile) -> list[str]:
    """The best and the last layer of each source, by held-out accuracy."""
    rows = [["", "best", "accuracy", "log-loss", "last", "accuracy", "log-loss", "best − last"]]
    for source, places in sources(profile).items():
        best = best_of(profile.layers, "accuracy", places)
        last = profile.layers[places[-1]]
        top = None if best is None else profile.layers[best]
        rows.append([_cut(source), *_layer_cells(top), *_layer_cells(last), _ahead(top, last)])
    return ["Held-out probe accuracy, %: best and last layer", *_aligned(rows)]


def _layer_cells(layer: LayerProfile | None) -> list[str]:
    if layer is None:
        return [NONE, NONE, NONE]
    accuracy, loss = (layer.scores.get(name) for name in ("accuracy", "log_loss"))
    return [layer.layer, percentage(accuracy), NONE if loss is None else f"{loss:.3f}"]


def _ahead(best: LayerProfile | None, last: LayerProfile) -> str:
    high = best.scores.get("accuracy") if best else None
    low = last.scores.get("accuracy")
    return NONE if high is None or low is None else points(high - low)


# -- scores -------------------------------------------------------------------------------------


def _score_lines(profile: Profile) -> list[list[str]]:
    """A table a source, layers by scores; the best of each column is marked."""
    names = score_names(profile)
    if not names:
        return []
    forms = {name: form([layer.scores.get(name) for layer in profile.layers]) for name in names}
    tables = []
    for source, places in sources(profile).items():
        best = {name: best_of(profile.layers, name, places) for name in names}
        rows = []
        for n in places:
            scores = profile.layers[n].scores
            cells = [
                percentage(scores.get(name))
                if name == "accuracy"
                else number(scores.get(name), forms[name])
                for name in names
            ]
            marks = [BEST if best[name] == n else " " for name in names]
            marked = [cell + mark for cell, mark in zip(cells, marks, strict=True)]
            rows.append([profile.layers[n].layer, *marked])
        heads = _headings(["layer", *names], pad=" ")
        tables.append([*textwrap.wrap(source, WIDTH), *_aligned([*heads, *rows], gap=" ")])
    return [*tables, _score_notes(profile, names)]


def _score_notes(profile: Profile, names: Sequence[str]) -> list[str]:
    low = [name for name in names if name in LOW_IS_GOOD]
    note = f"{BEST} the best of its model and pooling"
    note += f"; low is good: {', '.join(low)}" if low else ""
    note += "; accuracy in %" if "accuracy" in names else ""
    lacking: dict[str, list[str]] = {}
    for name, why in profile.missing.items():
        lacking.setdefault(why, []).append(name)
    missing = [f"no {' or '.join(which)} of some layers: {why}" for why, which in lacking.items()]
    return [line for text in (note, *missing) for line in _wrapped(text, "", "  ")]


def _agreement_lines(profile: Profile) -> list[str]:
    """Spearman's correlation of each score with probe accuracy, and what the scores took."""
    names = [name for name in score_names(profile) if name != "accuracy"]
    if not names or not profile.spearman:
        return []
    rows = [
        [_cut(source), *(number(by_score.get(name), ".2f") for name in names)]
        for source, by_score in profile.spearman.items()
    ]
    if profile.seconds:
        rows.append(["time", *(seconds(profile.seconds.get(name)) for name in names)])
    title = "Rank correlation with probe accuracy (Spearman; 1: the same order)"
    return [title, *_aligned([*_headings(["", *names]), *rows])]


def _pair_lines(profile: Profile) -> list[str]:
    if not profile.pairs:
        return []
    rows = [["", "error overlap", "Q", "oracle gain"]]
    for pair in profile.pairs:
        first, second = profile.layers[pair.first_layer], profile.layers[pair.second_layer]
        rows.append(
            [
                _cut(f"{_short(first)} + {_short(second)}", 2 * FIRST + 15),
                NONE if pair.error_overlap is None else f"{pair.error_overlap:.2f}",
                number(pair.q_statistic, ".2f"),
                points(pair.oracle_gain),
            ]
        )
    title = (
        "Best layers of two models: share of errors in common, Yule's Q, points that an oracle adds"
    )
    return [title, *_aligned(rows)]


# -- selections ---------------------------------------------------------------------------------


def _selection_lines(profile: Profile) -> list[str]:
    """What each selection takes, and why."""
    if not profile.selections:
        return []
    lines = ["What each selection takes"]
    for one in profile.selections:
        reasons = _reasons(one, profile.layers)
        if len(reasons) == 1:
            lines += _wrapped(f"{one.name}: {reasons[0]}", "  ", "    ")
            continue
        lines += _wrapped(f"{one.name}: {plural(len(one.layers), 'layer')}", "  ", "    ")
        for line in reasons:
            lines += _wrapped(line, "    ", "      ")
    return lines


def _reasons(one: SelectionProfile, layers: Sequence[LayerProfile]) -> list[str]:
    lines = []
    for n, reason in list(zip(one.layers, one.reasons, strict=True))[:MOST]:
        name = layers[n].name
        lines.append(reason if reason.startswith(f"{name}:") else f"{name}: {reason}")
    if len(one.layers) > MOST:
        lines.append(f"and {count(len(one.layers) - MOST)} more")
    if one.notes:
        lines.append(f"{plural(len(one.notes), 'note')}, the first: {one.notes[0]}")
    return lines


def _test_lines(profile: Profile) -> list[str]:
    """What the selections are worth, where they were judged."""
    rows = [["", "layers", "test", "regret", "halves", "p", "over last"]]
    for one in profile.selections:
        if one.test:
            regret, over = one.regret, one.over_last
            rows.append(
                [
                    _cut(one.name, 2 * FIRST - 10),
                    count(len(one.layers)),
                    f"{percentage(one.test.mean)} {between(one.test, percentage)}",
                    f"{unsigned(regret.mean)} {between(regret, unsigned)}" if regret else NONE,
                    unsigned(regret.cross_fitted) if regret else NONE,
                    p_value(regret.p) if regret and regret.p is not None else NONE,
                    points(over[0]) if over else NONE,
                ]
            )
    place = profile.hindsight
    if len(rows) == 1 or place is None or (best := profile.layers[place].test) is None:
        return []
    title = (
        "On test: probe accuracy, %, and points behind the best single layer in hindsight,"
        f" {profile.layers[place].name}, {percentage(best.mean)} {between(best, percentage)};"
        " brackets: 95 %; halves: with that layer picked on one half of test and judged on the"
        " other; p: of no single layer being better, which counts in that it is the best of many"
    )
    return [*textwrap.wrap(title, WIDTH), *_aligned(rows)]


# -- words and columns --------------------------------------------------------------------------


def _aligned(rows: Sequence[Sequence[str]], *, gap: str = "  ") -> list[str]:
    """Columns, the first one's cells to the left, the others' to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        gap.join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _headings(names: Sequence[str], *, pad: str = "") -> list[list[str]]:
    """Names of scores on two lines, so that their columns stay narrow."""
    split = [name.rpartition("_") for name in names]
    upper = [f"{first}{pad}" if first else "" for first, _, _ in split]
    lower = [f"{last}{pad}" if last else "" for _, _, last in split]
    return [upper, lower] if any(upper) else [lower]


def _short(layer: LayerProfile) -> str:
    """`smollm2 (last) 17`."""
    return f"{layer.source} {layer.layer}"


def _cut(name: str, most: int = FIRST) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=rest)
