"""Formats results, durations, sizes and names for the terminal, the log and the report."""

from __future__ import annotations

from collections.abc import Sequence

from layerfusion.records.job import Estimate, RunRecord

LAYERS_NAMED = 6
"""Most layers of models that are named one by one; of more, there is the number."""


def percent(estimate: Estimate) -> str:
    """Format a share in per cent: mean ± sd over seeds [95 % interval over test rows]."""
    text = f"{100 * estimate.mean:.1f}"
    if estimate.sd is not None:
        text += f" ± {100 * estimate.sd:.1f}"
    if estimate.low is not None and estimate.high is not None:
        text += f" [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
    return f"{text} %"


def made_of(record: RunRecord) -> str:
    """Say what the head of a job is made of and judged on, in brackets."""
    seeds, sources = plural(len(record.seeds), "seed"), plural(len(record.layers), "source")
    names, rows = "+".join(record.backbone_names), record.dataset.rows["test"]
    return f"({record.fusion_label} of {sources} of {names}, {seeds}, {rows} test rows)"


def layers_words(record: RunRecord) -> str:
    """Name the layers and the lexical sources of a job in a sentence, bottom up.

    A layer that is used with several poolings is named once: `layers 0–4 of minilm and layer 28 of
    smollm2`, `21 layers of minilm and smollm2 with words and characters`.
    """
    lexical = [name for name in record.backbone_names if name in record.lexical]
    of_model = layers_of_models(record)
    if not of_model:
        return listing(lexical)
    models, layers = listing(list(of_model)), sum(map(len, of_model.values()))
    if record.selection == "last":
        words = f"last layer{'s' if len(of_model) > 1 else ''} of {models}"
    elif record.selection == "all":
        words = f"all layers of {models}"
    elif layers > LAYERS_NAMED:
        words = f"{layers} layers of {models}"
    else:
        words = listing([f"{_named(own)} of {name}" for name, own in of_model.items()])
    return f"{words} with {listing(lexical)}" if lexical else words


def every_layer(record: RunRecord) -> str:
    """List every layer of a job, where `layers_words` has only their number; else nothing."""
    found = layers_of_models(record)
    if sum(map(len, found.values())) <= LAYERS_NAMED:
        return ""
    return "; ".join(f"{name}: {', '.join(layers)}" for name, layers in found.items())


def layers_of_models(record: RunRecord) -> dict[str, list[str]]:
    """Map each language model of a job to its layers, bottom up, each once for all poolings."""
    models = [name for name in record.backbone_names if name not in record.lexical]
    return {name: _bottom_up(record, name) for name in models}


def _bottom_up(record: RunRecord, model: str) -> list[str]:
    """List the layers of a model that a job uses, each once; unknown ones come last."""
    used = {layer.layer for layer in record.layers if layer.backbone == model}
    known = record.backbones[model].layers
    return [*(name for name in known if name in used), *sorted(used.difference(known))]


def _named(layers: Sequence[str]) -> str:
    """Name layers of one model, with three or more in a row as a range: `layers 0–4 and 9`."""
    if len(layers) == 1:
        return "the final norm" if layers[0] == "norm" else f"layer {layers[0]}"
    runs: list[list[str]] = []
    for layer in layers:
        if runs and layer.isdigit() and int(layer) == int(runs[-1][-1]) + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    words = [[f"{run[0]}–{run[-1]}"] if len(run) > 2 else run for run in runs]
    return f"layers {listing([word for each in words for word in each])}"


def result_lines(record: RunRecord, result: str) -> list[str]:
    """Show a job's result beside its baseline, with what a reader has to know of its data.

    Args:
        record: of the job.
        result: in one line, as the protocol of the job says it.
    """
    baseline = Estimate(
        record.baseline.test["accuracy"], None, record.baseline.low, record.baseline.high
    )
    micro, macro = (record.baseline.test.get(name) for name in ("micro_f1", "macro_f1"))
    f1 = (
        ""
        if micro is None
        else f", micro-F1 {100 * micro:.1f} %, macro-F1 {100 * (macro or 0):.1f} %"
    )
    lines = [
        f"{record.dataset.name}: {result}",
        f"{record.dataset.name}: baseline {percent(baseline)}{f1} (TF-IDF of"
        f" {record.baseline.features} and logistic regression on the whole text)",
    ]
    notes = [*record.dataset.notes, *record.reading, *record.time_notes]
    return lines + [f"{record.dataset.name}: note: {note}" for note in notes]


def plural(number: int, noun: str) -> str:
    """Format a count with its noun: `1 seed`, but `6 seeds`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listing(names: Sequence[str]) -> str:
    """[a, b, c] → a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def capital(text: str) -> str:
    """Begin a text with a capital."""
    return text[:1].upper() + text[1:]


def size(count: float) -> str:
    """Format a number of bytes in MB or GB (powers of ten)."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
