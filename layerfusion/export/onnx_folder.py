"""Write a classifier as one graph that onnxruntime runs, with its tokenizers."""

from __future__ import annotations

import copy
import json
import logging
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerfusion.errors import UserError, library_errors
from layerfusion.export import tokenization_layerfusion, words_layerfusion
from layerfusion.export.cut import SAMPLE, Cut, difference
from layerfusion.export.modeling_layerfusion import (
    MULTILABEL,
    LayerFusionForSequenceClassification,
    key_of,
)
from layerfusion.runs.bundle import Bundle
from layerfusion.statistics.answers import answers, right_rows

MODEL = "model.onnx"
LABELS = "labels.json"
OPSET = 18
NO_FORM = "export: a model of this job has no form in ONNX; --to transformers has all of them"
OUTPUT = "probabilities"
FATAL = 4
"""Level of the log of onnxruntime."""
ROWS = 32
"""Texts that pass through a graph together."""
ROWS_OF_WINDOWS = 4
"""The same, where each may have many windows."""
WITH_WINDOWS = 3
"""Dimensions of the input of a model that reads windows: texts, windows and tokens."""
WINDOWS_OF = """\

def windows_of(tokenizer, texts, overlap):
    texts = [[row, *row.overflowing] for row in tokenizer.encode_batch(texts)]
    shape = len(texts), max(map(len, texts)), len(texts[0][0].ids)
    ids, mask, counted = (np.zeros(shape, np.int64) for _ in range(3))
    for row, windows in enumerate(texts):
        for at, one in enumerate(windows):  # of the tokens of the one before, none counts again
            own = np.flatnonzero(np.array(one.special_tokens_mask) == 0)
            start = own[min(overlap, len(own) - 1)] if at > 0 else 0
            stop = own[-1] + 1 if at < len(windows) - 1 else sum(one.attention_mask)
            ids[row, at], mask[row, at], counted[row, at, start:stop] = (
                one.ids, one.attention_mask, 1,
            )
    return ids, mask, counted

"""
"""The lines that take texts apart into windows, in the model card."""
USAGE = """\
Needs {needs}; run these lines in this folder.

```python
{code}
```

{sums}{alone}
"""


def require_exact(bundle: Bundle) -> None:
    """Check that graphs can be written here, and that a classifier has the form of a graph.

    Raises:
        UserError: if they are not.
    """
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UserError(f"export: needs {missing[0]}; pip install 'layerfusion[export]'")
    dtypes = {bundle.config.backbone[name].dtype for name in bundle.models} - {"float32"}
    if dtypes:
        raise UserError(
            f"export: a graph is of float32, and the models of this job run in {dtypes.pop()}, with"
            " other vectors; a job with dtype=float32 can be exported so"
        )


def write_onnx(bundle: Bundle, cut: Cut, folder: Path) -> tuple[float, str]:
    """Write the graph, the tokenizers and the labels.

    Args:
        bundle: the classifier, with models of float32.
        cut: what was cut out of it.
        folder: an empty folder.

    Returns:
        The largest difference of a probability from the classifier's own, over `cut.SAMPLE`, and
        how to use the folder.

    Raises:
        UserError: if a model has no form in ONNX, or the graph does not give the classifier's
            probabilities.
    """
    if reads_alone(cut) and reads_windows(cut):
        raise UserError(
            "export: a model of this job changes with padding, so that its windows pass one by one,"
            " and those of a graph together; --to transformers has them, and a job with"
            " long_texts=truncate can be exported so"
        )
    _write_tokenizers(cut, folder)
    if cut.tokenizers["lexical"]:
        shutil.copyfile(str(words_layerfusion.__file__), folder / "words_layerfusion.py")
    names = json.dumps(list(bundle.label_names), ensure_ascii=False)
    (folder / LABELS).write_text(names, encoding="utf-8")
    _trace(cut, folder / MODEL)
    # Together and alone, as a graph may hold the number of tokens that it was traced with.
    found = [classify(cut, folder / MODEL, SAMPLE, size) for size in (None, 1)]
    most = max(
        difference(bundle, one, "--to transformers takes no length as fixed") for one in found
    )
    return most, _usage(bundle, cut)


class _Graph(nn.Module):
    """The classifier as a function of tensors in a fixed order."""

    def __init__(self, model: LayerFusionForSequenceClassification, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the probabilities of the classes. Shape: (batch, classes)."""
        return self.model.probabilities(dict(zip(self.names, inputs, strict=True)))


def _trace(cut: Cut, path: Path) -> None:
    """Write the graph.

    The older of torch's two exporters writes it: both give the same numbers, and it needs a second
    for a small model where the newer one needs twenty.
    """
    alone = reads_alone(cut)
    inputs = preparation(cut)(SAMPLE[1:2] if alone else SAMPLE)
    model = copy.copy(cut.model)
    model.config = copy.deepcopy(model.config)
    for about in model.config.backbones:
        about["masks_padding"] = True  # with one text there is no padding
    axes: dict[str, dict[int, str]] = {}
    for name, values in inputs.items():
        of = re.sub("attention_mask|pooled_tokens", "input_ids", name)
        axes[name] = {values.ndim - 1: f"length_of_{of}"}
        if values.ndim == WITH_WINDOWS:
            axes[name][1] = f"windows_of_{of}"
    axes[OUTPUT] = {}
    if not alone:
        for named in axes.values():
            named[0] = "batch"
    tensors = tuple(map(torch.from_numpy, inputs.values()))
    with library_errors(NO_FORM), _quiet(), torch.no_grad():
        torch.onnx.export(
            _Graph(model, list(inputs)).eval(),
            tensors,
            path,
            input_names=list(inputs),
            output_names=[OUTPUT],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    _keep_inputs(path, {name: values.ndim for name, values in inputs.items()})


def _keep_inputs(path: Path, dimensions: Mapping[str, int]) -> None:
    """Give a graph the inputs that it does not use, so that each takes what the tokenizers make.

    Layer 0 of a model that reads windows has no use for the attention mask, for one.
    """
    import onnx

    graph = onnx.load(str(path), load_external_data=False)
    there = {one.name for one in graph.graph.input}
    lacking = [name for name in dimensions if name not in there]
    for name in lacking:
        shape = [f"{name}_{number}" for number in range(dimensions[name])]
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, shape)
        graph.graph.input.append(value)
    if lacking:
        onnx.save(graph, str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the exporter says of its own future, and of numbers that it takes as fixed.

    What was written is run afterwards, on other shapes than it was traced with.
    """
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def reads_alone(cut: Cut) -> bool:
    """Return True if a model of a classifier reads one text at a time."""
    return not all(about["masks_padding"] for about in cut.model.config.backbones)


def reads_windows(cut: Cut) -> bool:
    """Return True if a model of a classifier reads long texts in windows."""
    return any(about["window_overlap"] is not None for about in cut.tokenizers["models"])


def preparation(cut: Cut) -> Callable[[Sequence[str]], dict[str, np.ndarray]]:
    """Build the function that prepares texts for the graph, as the lines in the model card do."""
    models = [
        (tokenization_layerfusion.tokenizer_of(about), about) for about in cut.tokenizers["models"]
    ]
    lexical = [words_layerfusion.Words(about) for about in cut.tokenizers["lexical"]]

    def prepare(texts: Sequence[str]) -> dict[str, np.ndarray]:
        texts = [text.strip() for text in texts]
        arrays: dict[str, np.ndarray] = {}
        for number, (tokenizer, about) in enumerate(models):
            found = tokenization_layerfusion.encoded(tokenizer, about, texts)
            longest = int(found["attention_mask"].sum(axis=-1).max())
            found = {name: values[..., :longest] for name, values in found.items()}
            arrays |= {key_of(name, number): values for name, values in found.items()}
        for number, words in enumerate(lexical):
            ids, weights = words(texts)
            arrays |= {f"lexical_ids_{number}": ids, f"lexical_weights_{number}": weights}
        return arrays

    return prepare


def classify(cut: Cut, path: Path, texts: Sequence[str], at_once: int | None = None) -> np.ndarray:
    """Run a graph on texts.

    Args:
        cut: the classifier that the graph was made of.
        path: the graph.
        texts: the texts.
        at_once: number of texts that pass it together; as many as it takes if None.

    Returns:
        Probabilities. Shape: (texts, classes), float32.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL  # what fails is told here
    with library_errors(NO_FORM):  # a graph may be written that no one runs
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    prepare = preparation(cut)  # once, since a large vocabulary takes long to read
    most = 1 if reads_alone(cut) else ROWS_OF_WINDOWS if reads_windows(cut) else ROWS
    size = at_once or most
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    with library_errors(NO_FORM):
        found: list[Any] = [
            session.run(None, prepare([texts[row] for row in order[at : at + size]]))[0]
            for at in range(0, len(texts), size)
        ]
    return np.concatenate(found)[np.argsort(order)]


def _write_tokenizers(cut: Cut, folder: Path) -> None:
    """Write a `tokenizer.json` for each model, which cuts and pads, and a file of the words."""
    for number, about in enumerate(cut.tokenizers["models"]):
        tokenizer = tokenization_layerfusion.tokenizer_of(about)
        token = tokenizer.id_to_token(about["pad_id"]) or ""
        tokenizer.enable_padding(pad_id=about["pad_id"], pad_token=token)
        tokenizer.save(str(folder / _tokenizer_file(number)))
    if cut.tokenizers["lexical"]:
        content = json.dumps(cut.tokenizers["lexical"], ensure_ascii=False)
        (folder / "words.json").write_text(content, encoding="utf-8")


def _tokenizer_file(number: int) -> str:
    return "tokenizer.json" if number == 0 else f"tokenizer_{number}.json"


def _usage(bundle: Bundle, cut: Cut) -> str:
    """Write the lines that run the graph."""
    models, lexical = cut.tokenizers["models"], cut.tokenizers["lexical"]
    lines = ["import json", "", "import numpy as np", "import onnxruntime"]
    lines += ["from tokenizers import Tokenizer"] if models else []
    lines += ["from words_layerfusion import Words"] if lexical else []
    lines += WINDOWS_OF.splitlines() if reads_windows(cut) else []
    lines += [
        "",
        f'session = onnxruntime.InferenceSession("{MODEL}")',
        'texts = ["a text to classify"]'
        if reads_alone(cut)
        else 'texts = ["a text to classify", "another one"]',
        "texts = [text.strip() for text in texts]",
        "inputs = {}",
    ]
    for number, about in enumerate(models):
        lines.append(f'tokenizer = Tokenizer.from_file("{_tokenizer_file(number)}")')
        if about["split_special_tokens"]:
            lines.append("tokenizer.encode_special_tokens = True")
        prompts = "texts"
        if about["template"] != "{text}":
            prompts = f'[{about["template"]!r}.replace("{{text}}", text) for text in texts]'
        if about["window_overlap"] is not None:
            keys = ("input_ids", "attention_mask", "pooled_tokens")
            inputs = ", ".join(f'inputs["{key_of(name, number)}"]' for name in keys)
            overlap = about["window_overlap"]
            lines.append(f"{inputs} = windows_of(tokenizer, {prompts}, {overlap})")
            continue
        lines.append(f"rows = tokenizer.encode_batch({prompts})")
        for name, part in (("input_ids", "ids"), ("attention_mask", "attention_mask")):
            key = key_of(name, number)
            lines.append(f'inputs["{key}"] = np.array([row.{part} for row in rows], np.int64)')
    if lexical:
        lines.append('content = open("words.json", encoding="utf-8")')
        lines.append("for number, words in enumerate(json.load(content)):")
        lines.append("    ids, weights = Words(words)(texts)")
        lines.append('    inputs[f"lexical_ids_{number}"] = ids')
        lines.append('    inputs[f"lexical_weights_{number}"] = weights')
    lines += [
        f"({OUTPUT},) = session.run(None, inputs)",
        f'labels = json.load(open("{LABELS}", encoding="utf-8"))',
    ]
    if bundle.multilabel:
        lines.append(f"print([[labels[k] for k in np.flatnonzero(x >= 0.5)] for x in {OUTPUT}])")
    else:
        said = f"[labels[best] for best in {OUTPUT}.argmax(axis=1)]"
        lines.append(f"print({said}, {OUTPUT}.max(axis=1))")
    needs = ["onnxruntime", "numpy", *(["tokenizers"] if models else [])]
    alone = " It reads one text at a time, as padding would change it." if reads_alone(cut) else ""
    sums = f"The rows of `{OUTPUT}` add up to 1."
    if bundle.multilabel:
        sums = f"Each column of `{OUTPUT}` is a label, a decision of its own."
    return USAGE.format(needs=", ".join(needs), code="\n".join(lines), sums=sums, alone=alone)


# -- weights of 8 bits --------------------------------------------------------------------------


def quantise(folder: Path) -> str:
    """Write a graph with 8-bit weights in its place.

    The old one is kept as float32.onnx until `drop_float32`. Activations are quantised as the graph
    runs. The heads keep float32.

    Returns:
        The sizes before and after, for the user.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path, whole = folder / MODEL, folder / "float32.onnx"
    path.rename(whole)
    nodes = onnx.load(str(whole), load_external_data=False).graph.node
    heads = [node.name for node in nodes if not _of_a_model(node)]
    failed = "export: --int8: onnxruntime cannot quantise this graph"
    with library_errors(failed), _quiet():
        quantize_dynamic(
            whole,
            path,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # sums of whole 8 bits overflow on processors without VNNI
            nodes_to_exclude=heads,
        )
    before, after = whole.stat().st_size, path.stat().st_size
    return f"8 bits: {after / 1e6:.2f} MB in place of {before / 1e6:.2f} MB"


def _of_a_model(node: Any) -> bool:
    """Return True for a step of a language model."""
    return "/backbones." in node.name


def cost_of_int8(
    cut: Cut, folder: Path, texts: Sequence[str], labels: np.ndarray | None, where: str
) -> str:
    """Compare the two graphs on texts.

    Args:
        cut: the classifier.
        folder: folder with both graphs.
        texts: the texts.
        labels: their class indices, shape (texts,), or which labels they have, (texts, labels);
            None if they are not known.
        where: what the texts are, for the user.

    Returns:
        What 8 bits cost, in a line.
    """
    exact = classify(cut, folder / "float32.onnx", texts)
    rough = classify(cut, folder / MODEL, texts)
    multilabel = cut.model.config.problem_type == MULTILABEL
    whole, part = (answers(found, multilabel=multilabel) for found in (exact, rough))
    same = float(right_rows(whole, part).mean())
    most = float(np.abs(exact - rough).max())
    what = "labels" if multilabel else "label"
    agree = f"same {what} on {100 * same:.1f} %, largest difference of a probability {most:.3f}"
    if labels is None:
        return f"8 bits on {len(texts):,} texts of {where}: {agree}"
    before, after = (100 * float(right_rows(found, labels).mean()) for found in (whole, part))
    measure = "exact match" if multilabel else "accuracy"
    return (
        f"8 bits on {len(texts):,} rows of {where}: {measure} {after:.1f} % in place of"
        f" {before:.1f} % ({after - before:+.1f} points); {agree}"
    )


def drop_float32(folder: Path) -> None:
    """Remove the graph of float32 that 8 bits were compared with."""
    for path in folder.glob("float32.onnx*"):
        path.unlink()
