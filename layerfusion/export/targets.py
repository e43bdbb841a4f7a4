"""Write a classifier for one of the libraries that an export is made for, with its model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerfusion.embeddings.backbone_loading import quiet_transformers
from layerfusion.errors import UserError, naming_extras
from layerfusion.export import (
    ONNX,
    SENTENCE,
    TRANSFORMERS,
    onnx_folder,
    sentence_folder,
    transformers_folder,
)
from layerfusion.export.card import model_card
from layerfusion.export.cut import Cut, cut
from layerfusion.runs.bundle import Bundle
from layerfusion.runs.job_texts import dataset_of

MOST = 1000
"""Most texts that 8 bits are compared with float32 on."""


def write_target(
    bundle: Bundle,
    job: Path | None,
    target: str,
    folder: Path,
    *,
    int8: bool = False,
    texts: Sequence[str] | None = None,
) -> list[str]:
    """Fill an empty folder for one library.

    Args:
        bundle: the classifier, on the CPU.
        job: folder of its job; None if it is not here.
        target: one of `TARGETS`.
        folder: the empty folder.
        int8: for onnx, write weights of 8 bits.
        texts: for onnx, texts to compare 8 bits on; if None, the job's rows of test.

    Returns:
        What to tell the user, a line each.

    Raises:
        UserError: if the classifier cannot be exported so.
    """
    if target == ONNX:  # told before the models are loaded
        onnx_folder.require_exact(bundle)
    elif target == SENTENCE:
        sentence_folder.require_models(bundle)
    with quiet_transformers():
        parts = cut(bundle)
        notes = list(parts.notes)
        if target == TRANSFORMERS:
            most = transformers_folder.write_transformers(bundle, parts, folder)
            usage = transformers_folder.usage(bundle)
        elif target == ONNX:
            most, usage = onnx_folder.write_onnx(bundle, parts, folder)
        else:
            most, usage = sentence_folder.write_sentence(bundle, parts, folder)
    what = "number of an embedding" if target == SENTENCE else "probability"
    notes.append(f"largest difference of a {what} from `layerfusion predict`: {most:.1e}")
    if int8:
        notes.append(onnx_folder.quantise(folder))
        notes.append(_cost_of_int8(bundle, parts, folder, texts))
        onnx_folder.drop_float32(folder)
    card = model_card(bundle, job, target, usage, notes)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return notes


def _cost_of_int8(bundle: Bundle, cut: Cut, folder: Path, texts: Sequence[str] | None) -> str:
    """Measure what 8 bits cost, on given texts or else on the job's own rows of test."""
    if texts is not None:
        return onnx_folder.cost_of_int8(cut, folder, texts[:MOST], None, "yours")
    try:
        with naming_extras():
            dataset = dataset_of(bundle.config)
    except UserError:
        dataset = None
    known = bundle.facts.get("fingerprint"), bundle.label_names
    if dataset is None or dataset.coding != known:
        return (
            "8 bits: not compared with float32, as the job's rows of test are not at hand; --texts"
            " FILE compares them on texts of yours"
        )
    test = dataset.splits["test"]
    step = max(1, len(test.texts) // MOST)  # all over the rows, which may be sorted by class
    rows, labels = test.texts[::step][:MOST], test.labels[::step][:MOST]
    return onnx_folder.cost_of_int8(cut, folder, rows, labels, f"{dataset.name}'s test")
