"""The model card of an exported classifier, made from the record of its job."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yaml import YAMLError, safe_dump, safe_load

from layerfusion.assets import available
from layerfusion.embeddings.pipeline import Pipeline
from layerfusion.embeddings.source import asset_sources
from layerfusion.export import OWN, SENTENCE
from layerfusion.records.format import capital
from layerfusion.records.job import METRICS, RunRecord, read_record
from layerfusion.records.label_words import shown_name
from layerfusion.runs.bundle import Bundle
from layerfusion.runs.shared import shared_origin, without_places

TASKS = {SENTENCE: "sentence-similarity"}
"""Target of an export to its task on the hub, where it is not text classification."""
_MARKS = re.compile(r"[\\`*\[\]<>|~]")
"""What Markdown takes for more than a letter."""
_CUT = "Frozen language models, cut above the highest layer that is used,"
_WHOLE = "Frozen language models, which are not part of this folder,"


def model_card(
    bundle: Bundle, job: Path | None, target: str, usage: str, notes: Sequence[str] = ()
) -> str:
    """Write the card: what the classifier is, how good it is and whose models it has.

    Args:
        bundle: the classifier.
        job: folder of its job, whose record has more than the bundle; None if it is not here.
        target: what it is exported to.
        usage: how to use the folder, as markdown.
        notes: what the export left out or measured, a sentence each.
    """
    record = read_record(job) if job and (job / METRICS).is_file() else None
    licences = {name: _licence(bundle, name) for name in bundle.models}
    facts = bundle.facts
    parts = [
        f"---\n{safe_dump(_metadata(bundle, target, licences), allow_unicode=True)}---\n",
        f"# Classifier of {facts.get('dataset', 'texts')}: {facts.get('fusion')} of"
        f" {len(bundle.layers)} {'source' if len(bundle.layers) == 1 else 'sources'}\n",
        f"{_WHOLE if target == OWN else _CUT} and {_heads(bundle)}. Made with LayerFusion.\n",
        f"## Use\n\n{usage.strip()}\n",
        f"## {'Labels' if bundle.multilabel else 'Classes'}\n\n{_names(bundle)}\n",
        f"## Layers\n\n{_layers(bundle, record)}\n",
        *[f"{_listed(reading)}\n" for reading in [facts.get("reading")] if reading],
        f"## How good it is\n\n{_figures(bundle, record)}\n",
        f"## Models and licences\n\n{_models(bundle, licences, target)}\n",
    ]
    if notes:
        parts.append(f"## Notes\n\n{_listed(notes)}\n")
    parts.append(f"## Origin\n\n{_origin(facts)}\n")
    return "\n".join(parts)


def _metadata(bundle: Bundle, target: str, licences: dict[str, str | None]) -> dict[str, Any]:
    """Return the front matter that the hub reads."""
    hubs = [
        source.hub
        for name in bundle.models
        for source in bundle.config.backbone[name].sources
        if source.hub
    ]
    found: dict[str, Any] = {
        "library_name": target,
        "pipeline_tag": TASKS.get(target, "text-classification"),
        "tags": ["layerfusion", "frozen language models", "layer fusion"],
    }
    if hubs:
        found["base_model"] = hubs
    stated = set(licences.values())
    if len(stated) == 1 and all(stated):
        found["license"] = stated.pop()
    return found


def _listed(lines: Any) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _names(bundle: Bundle) -> str:
    """List the classes or labels by number."""
    names = _listed(f"{n}: {in_markdown(name)}" for n, name in enumerate(bundle.label_names))
    if not bundle.multilabel:
        return names
    return (
        "A text may have any number of them. Each has a probability of its own, and is named from"
        f" one half on.\n\n{names}"
    )


def in_markdown(name: str) -> str:
    r"""Write a name so that it shows as it is, in one line.

    Example:
        >>> in_markdown("good"), in_markdown("good "), in_markdown("x|y")
        ('good', "'good '", 'x\\|y')
    """
    shown = shown_name(name)
    return _MARKS.sub(r"\\\g<0>", shown if shown == shown.strip() else repr(shown))


def _layers(bundle: Bundle, record: RunRecord | None) -> str:
    """List the layers, with reason and mean gate where a record has them."""
    if record is None or len(record.layers) != len(bundle.layers):
        return _listed(str(layer) for layer in bundle.layers)
    rows = ["| model | layer | pooling | chosen because | mean gate |", "|---|---|---|---|---|"]
    for layer in record.layers:
        gate = "" if layer.mean_gate is None else f"{layer.mean_gate:.3f}"
        reason = layer.reason.replace("|", "\\|")
        rows.append(f"| {layer.backbone} | {layer.layer} | {layer.pooling} | {reason} | {gate} |")
    return "\n".join(rows)


def _heads(bundle: Bundle) -> str:
    if len(bundle.heads) == 1:
        return "1 trained head"
    return f"{len(bundle.heads)} trained heads whose probabilities are averaged"


def _figures(bundle: Bundle, record: RunRecord | None) -> str:
    """Give the accuracy on test with its interval."""
    if record is None:
        accuracy = bundle.facts.get("test_accuracy") or {}
        if accuracy.get("mean") is None:
            return "Its job left no figures."
        rows = bundle.facts.get("test_rows")
        measure = "Exact match on test" if bundle.multilabel else "Test accuracy"
        return f"{measure} {_interval(accuracy)} on {rows:,} rows."
    data, test = record.dataset, record.test
    origin = shared_origin(data.origin, bundle.config.dataset)
    lines = [
        f"Data set: {data.name}, from {origin}; {data.rows['train']:,} rows of train,"
        f" {data.rows['validation']:,} of validation, {data.rows['test']:,} of test"
        + (" (a sample)." if data.sampled else ".")
    ]
    named = {
        "consensus": f"{capital(data.measure)} of the averaged heads",
        "accuracy": f"{capital(data.measure)} of a head",
        "micro_f1": "Micro-F1 of a head",
        "macro_f1": "Macro-F1 of a head",
        "log_loss": "Log-loss of a head",
        "calibration_error": "Calibration error of a head",
    }
    for key, title in named.items():
        if key in test and not (key == "consensus" and len(record.seeds) == 1):
            figure = test[key]
            found = {"mean": figure.mean, "sd": figure.sd, "low": figure.low, "high": figure.high}
            share = key in ("consensus", "accuracy", "micro_f1", "macro_f1")
            lines.append(f"{title} on test: {_interval(found, share=share)}.")
    accuracy = record.baseline.test.get("accuracy")
    if accuracy is not None:
        lines.append(
            f"Baseline on the same rows, TF-IDF and logistic regression: {100 * accuracy:.1f} %"
            f" [{100 * record.baseline.low:.1f}, {100 * record.baseline.high:.1f}]."
        )
    lines += [f"Note: {without_places(note)}." for note in data.notes]
    return _listed(lines) + "\n\nIntervals are 95 % bootstrap intervals over the rows of test."


def _interval(figure: dict[str, float | None], *, share: bool = True) -> str:
    """Write a figure with its spread over seeds and its interval."""
    scale, unit, digits = (100, " %", 1) if share else (1, "", 3)
    mean, sd, low, high = (
        None if figure.get(key) is None else f"{scale * (figure[key] or 0.0):.{digits}f}"
        for key in ("mean", "sd", "low", "high")
    )
    spread = "" if sd is None else f" ± {sd}"
    within = "" if low is None or high is None else f" [{low}, {high}]"
    return f"{mean}{spread}{unit}{within}"


def _models(bundle: Bundle, licences: dict[str, str | None], target: str) -> str:
    if not bundle.models:
        return "No language model is part of it."
    rows = []
    for name, model in bundle.models.items():
        about = without_places(bundle.config.backbone[name].description)
        licence = licences[name]
        if not licence:
            why = (
                "unknown, as its card is not here" if licence is None else "not stated in its card"
            )
            licence = f"{why}; ask its authors before you pass it on"
        rows.append(
            f"{name}{f' ({about})' if about else ''}, from {shared_origin(model.origin)};"
            f" licence: {licence};"
            f" sha256 of its files {model.content[:16]}…"
        )
    parts = "The weights in this folder are parts of these models, under their licences."
    if target == OWN:
        parts = (
            "This folder holds no part of these models: they are fetched from where they are"
            " published, or named with `--model`, and have to have these hashes."
        )
    return f"{_listed(rows)}\n\n{parts} The texts of train may have a licence of their own."


def _licence(bundle: Bundle, name: str) -> str | None:
    """Return the licence that the card of a model states; empty if none, None without a card."""
    config = bundle.config.backbone[name]
    cache = Path(bundle.config.paths.cache)
    if config.pipeline is not None:
        asset = Pipeline(name, config, cache).present()
    else:
        key = f"backbone.{name}"
        asset = available(asset_sources(config), key=key, kind="backbone", cache=cache)
    if asset is None:
        return None
    card = (asset.path if asset.path.is_dir() else asset.path.parent) / "README.md"
    if not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    _, *front = text.split("---\n", 2)
    try:
        stated = safe_load(front[0]) if len(front) == 2 and text.startswith("---\n") else None
    except YAMLError:
        return ""
    licence = stated.get("license") if isinstance(stated, dict) else None
    return licence if isinstance(licence, str) else ""


def _origin(facts: Any) -> str:
    shown = ("job", "dataset", "fingerprint", "fusion", "created")
    lines = [f"{key}: {facts[key]}" for key in shown if key in facts]
    versions = facts.get("versions")
    if versions:
        lines.append(f"versions: {json.dumps(versions, ensure_ascii=False)}")
    return _listed(lines)
