"""Take a trained classifier out of LayerFusion: cut models, heads and tokenizers in one module."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from layerfusion.config.job import QUANTIZED, WINDOWS
from layerfusion.config.registry import POOLINGS
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.shape import NORM
from layerfusion.embeddings.taps import taps
from layerfusion.errors import UserError, library_errors
from layerfusion.export import modeling_layerfusion as portable
from layerfusion.fusion.head_files import MEMBER, Head, head_state, mean_probabilities
from layerfusion.fusion.operator_head import OperatorHead
from layerfusion.fusion.operators.residual import ResidualFusion
from layerfusion.layers.lexical_regression import LexicalRegression
from layerfusion.runs.bundle import Bundle
from layerfusion.texts.tfidf import FEATURES, counts_state

REPORT = "please report the models of this job"
NONE = -1
"""Number that stands for no backbone, or no lexical source."""
OWN_ARGUMENTS = ("temperature", "side")
"""Attributes of our operators that their formulas use."""
TOLERANCE, ROUNDING = 1e-4, 2e-2
"""Largest difference of a probability between a classifier and what was exported of it: in float32,
and in numbers of two bytes, which round otherwise in other batches."""
SAMPLE = (
    "ok",
    "The film was good, and so were its actors.",
    "Shares fell by 3 % after the company said that profit would not rise this year.",
    "  Wheat, oil and ships: the price of crude rose in March, said the bank - and fell in May. ",
    "It was so long that no model reads all of it, and what is cut off has to be the same. " * 100,
)
"""Texts of different length on which an exported classifier is compared with its origin. Of the
last one, most models read only a part."""


@dataclass(frozen=True)
class Cut:
    """A classifier that needs no more than torch and transformers."""

    model: portable.LayerFusionForSequenceClassification
    tokenizers: dict[str, Any]
    """Content of `tokenization_layerfusion.FILE`."""
    notes: tuple[str, ...]
    """What was left out of the models, a sentence each."""


def cut(bundle: Bundle) -> Cut:
    """Take a classifier apart into what other libraries run.

    Args:
        bundle: the classifier, on the CPU.

    Raises:
        UserError: if a part of it exists in LayerFusion alone: an operator or a pooling of the
            user's, code of a model, or weights of 8 or 4 bits.
    """
    if bundle.given:
        raise UserError(
            f"export: the vectors of {', '.join(bundle.given)} are computed elsewhere, so no folder"
            " can hold what computes them; `layerfusion predict` and `serve` use the classifier"
        )
    names = dict.fromkeys(layer.backbone for layer in bundle.layers)
    models = [name for name in names if name not in bundle.lexical]
    lexical = [name for name in names if name in bundle.lexical]
    _refuse_what_stays(bundle, models)
    heads = [_head(head) for head in bundle.heads]
    parts = {name: _cut_model(name, bundle) for name in models}
    words = {name: _words(bundle, name) for name in lexical}
    config = portable.LayerFusionConfig(
        backbones=[part.about for part in parts.values()],
        lexical=[about for about, _, _ in words.values()],
        sources=[
            {
                "backbone": models.index(layer.backbone) if layer.backbone in models else NONE,
                "lexical": lexical.index(layer.backbone) if layer.backbone in lexical else NONE,
                "layer": layer.layer,
                **_pooling(bundle, layer.pooling, layer.backbone in models),
            }
            for layer in bundle.layers
        ],
        heads=[about for about, _ in heads],
        embedding_width=sum(x.shape[1] for x in sample_vectors(bundle)),
        num_labels=len(bundle.label_names),
        id2label=dict(enumerate(bundle.label_names)),
        label2id={name: number for number, name in enumerate(bundle.label_names)},
        dtype=next(iter(parts.values())).about["dtype"] if parts else "float32",
        problem_type=(
            "multi_label_classification" if bundle.multilabel else "single_label_classification"
        ),
    )
    model = portable.LayerFusionForSequenceClassification(config).eval()
    for number, part in enumerate(parts.values()):
        model.backbones[number].load_state_dict(part.tensors)
    for number, (_, tensors, _) in enumerate(words.values()):
        _fill(model.lexical[number], tensors)
    for number, (_, tensors) in enumerate(heads):
        _fill(model.heads[number], tensors)
    tokenizers = {
        "models": [_tokenizer(bundle, name) for name in models],
        "lexical": [vocabulary for _, _, vocabulary in words.values()],
    }
    model.requires_grad_(False)
    return Cut(model, tokenizers, tuple(part.note for part in parts.values()))


def sample_vectors(bundle: Bundle) -> list[Tensor]:
    """Compute the vectors of `SAMPLE`, one tensor for each source. Shapes: (texts, d_k)."""
    # The first piece alone: a tally of unknown tokens would be one of the sample, not the user's.
    vectors = next(bundle.vectors(SAMPLE))
    return [vectors[layer] for layer in bundle.layers]


def tolerance(bundle: Bundle) -> float:
    """Return the largest difference that rounding explains."""
    exact = all(bundle.config.backbone[name].dtype == "float32" for name in bundle.models)
    return TOLERANCE if exact else ROUNDING


def difference(bundle: Bundle, probabilities: np.ndarray, way_out: str = REPORT) -> float:
    """Return how far probabilities of `SAMPLE` are from those of the classifier itself.

    Args:
        bundle: the classifier.
        probabilities: those of what was exported. Shape: (texts, classes).
        way_out: what the user may do where they differ.

    Raises:
        UserError: if they are not the same but for rounding.
    """
    own = mean_probabilities(bundle.heads, sample_vectors(bundle)).numpy()
    most = float(np.abs(own - probabilities).max())
    if not most < tolerance(bundle):
        raise UserError(
            f"export: the exported classifier differs by {most:.1e} in a probability from"
            f" `layerfusion predict`, so it is not written; {way_out}"
        )
    return most


def _refuse_what_stays(bundle: Bundle, models: Sequence[str]) -> None:
    """Refuse what no other library has."""
    for name in models:
        config = bundle.config.backbone[name]
        if config.trust_remote_code:
            raise UserError(
                f"export: backbone {name} comes with code of its own (trust_remote_code), which is"
                " not copied; a job on a model of transformers itself can be exported"
            )
        if config.dtype in QUANTIZED:
            raise UserError(
                f"export: backbone.{name}.dtype={config.dtype} needs bitsandbytes and cannot be"
                " cut; a job with dtype=float32 or bfloat16 can be exported"
            )
    dtypes = {bundle.config.backbone[name].dtype for name in models}
    if len(dtypes) > 1:
        raise UserError(
            f"export: its backbones have different dtypes ({', '.join(sorted(dtypes))}), and a"
            " folder of weights has one; a job whose backbones share a dtype can be exported"
        )


# -- language models ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """A language model that has been cut."""

    about: dict[str, Any]
    tensors: dict[str, Tensor]
    note: str


def _cut_model(name: str, bundle: Bundle) -> _Part:
    """Cut a language model above the highest layer that the heads use.

    Where a model without the upper blocks cannot be built from its config, or its blocks are
    shared, it is taken whole.
    """
    backbone = bundle.backbone(name)
    used = {layer.layer for layer in bundle.layers if layer.backbone == name}
    total = backbone.shape.num_blocks
    highest = max(backbone.shape.blocks_below(layer) for layer in used)
    wanted = total if backbone.blocks is None else max(1, highest)
    norm = _final_norm(backbone)
    why = ""
    for count in dict.fromkeys((wanted, total)):
        about = {
            "name": name,
            "config": _cut_config(backbone.model, count),
            "dtype": bundle.config.backbone[name].dtype,
            "encoder": _is_reader(backbone.model),
            "norm": norm,
            "keeps_norm": NORM in used,
            "top": str(count),
            "masks_padding": backbone.masks_padding,
        }
        tensors = _tensors(backbone, count, norm, keeps_norm=NORM in used)
        try:
            with library_errors("it fails with"):
                portable.CutModel(about).load_state_dict(tensors)
        except UserError as error:  # its config says more than a number of blocks
            why = str(error)
            continue
        what = "all its" if count == total else f"{count} of its"
        return _Part(about, tensors, f"{name}: {what} {total} blocks")
    raise UserError(
        f"export: backbone {name}: a {type(backbone.model).__name__} cannot be built again from its"
        f" config; {why}; please report the model"
    )


def _cut_config(model: Any, count: int) -> dict[str, Any]:
    """Return the config of a model with fewer blocks."""
    config = copy.deepcopy(model.config)
    reads = config.get_text_config() if hasattr(config, "get_text_config") else config
    before = reads.num_hidden_layers
    for key, value in reads.to_dict().items():
        if isinstance(value, list) and len(value) == before and key != "architectures":
            setattr(reads, key, value[:count])  # such as the kind of attention of each block
    reads.num_hidden_layers = count
    for key in ("num_decoder_layers", "decoder_layers"):  # a decoder beside it is not kept
        if _is_reader(model) and hasattr(config, key):
            setattr(config, key, 1)
    # Transformers writes infinity as an object, which it takes in a file alone.
    settings = json.loads(config.to_json_string(use_diff=False), object_hook=_number)
    settings.pop("_name_or_path", None)
    return settings


def _number(entry: dict[str, Any]) -> Any:
    return float(entry["__float__"]) if entry.keys() == {"__float__"} else entry


def _is_reader(model: Any) -> bool:
    """Return True for the encoder of a model that has a decoder too."""
    from transformers import MODEL_MAPPING

    whole = MODEL_MAPPING[type(model.config)]
    return type(model) not in (whole if isinstance(whole, list | tuple) else (whole,))


def _tensors(backbone: Backbone, count: int, norm: str, *, keeps_norm: bool) -> dict[str, Tensor]:
    """Return the tensors of a cut model, under the names of `CutModel`."""
    path = next((p for p, m in backbone.model.named_modules() if m is backbone.blocks), "")
    above = tuple(f"{path}.{number}." for number in range(count, backbone.shape.num_blocks))
    found = {}
    for key, values in backbone.model.state_dict().items():
        if norm and key.startswith(f"{norm}."):
            if keeps_norm:
                found[f"norm.{key.removeprefix(f'{norm}.')}"] = values
        elif backbone.blocks is None or not key.startswith(above):
            found[f"model.{key}"] = values
    return found


@torch.no_grad()
def _final_norm(backbone: Backbone) -> str:
    """Return the path of the norm, or projection, after the last block; empty if there is none."""
    if backbone.blocks is None:
        return ""
    inside = set(backbone.blocks.modules())
    steps: list[tuple[str, Tensor, Tensor]] = []
    seen: dict[str, Tensor] = {}

    def watch(path: str) -> Any:
        def keep(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                steps.append((path, args[0], output))

        return keep

    outside = [(p, m) for p, m in backbone.model.named_modules() if p and m not in inside]
    handles = [module.register_forward_hook(watch(path)) for path, module in outside]
    ids = torch.arange(1, 5, device=backbone.device)[None]
    try:
        with taps(backbone.blocks, (str(len(backbone.blocks)), NORM), seen.__setitem__):
            final = backbone.model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    finally:
        for handle in handles:
            handle.remove()
    last = seen[str(len(backbone.blocks))]
    if torch.equal(last, final):
        return ""
    for path, entered, left in steps:
        if torch.equal(entered, last) and torch.equal(left, final):
            return path
    raise UserError(
        f"export: backbone {backbone.name}: what {type(backbone.model).__name__} does after its"
        " last block cannot be told apart; please report the model"
    )


def _pooling(bundle: Bundle, name: str, of_model: bool) -> dict[str, Any]:
    if not of_model:
        return {"pool": "", "skip_first": False}
    pooling = bundle.config.pooling[name]
    if pooling.pool not in POOLINGS:
        raise UserError(
            f"export: pooling {name} is a function of yours ({pooling.pool}), which is not copied;"
            f" a job with {', '.join(POOLINGS)} can be exported"
        )
    return {"pool": pooling.pool, "skip_first": pooling.skip_first}


def _tokenizer(bundle: Bundle, name: str) -> dict[str, Any]:
    """Describe a tokenizer and how it is used, as `tokenization_layerfusion` reads it."""
    backbone, config = bundle.backbone(name), bundle.config.backbone[name]
    tokenizer = backbone.tokenizer
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    return {
        "name": name,
        "tokenizer": {**core, "truncation": None, "padding": None},
        "max_length": backbone.shape.max_length,
        "truncation_side": config.truncation_side,
        "window_overlap": config.window_overlap if config.long_texts == WINDOWS else None,
        "template": config.template,
        "pad_id": backbone.pad_id,
        "split_special_tokens": tokenizer.split_special_tokens,
    }


# -- lexical sources and heads ------------------------------------------------------------------


def _words(bundle: Bundle, name: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    """Describe a lexical source: its settings, its tensors and its vocabulary."""
    part = bundle.lexical[name]
    idf, vocabulary = counts_state(part.counts)
    if isinstance(part, LexicalRegression):
        kind, arrays = "regression", {"weight": part.weight, "bias": part.bias}
        kind = "regression of labels" if part.multilabel else kind
    else:
        kind, arrays = "projection", {"weight": part.components}
    tensors = {key: torch.from_numpy(values).float() for key, values in arrays.items()}
    features = bundle.config.lexical[name].features
    words = {
        "name": name,
        "features": features,
        "pattern": FEATURES[features].get("token_pattern", ""),
        "vocabulary": vocabulary,
        "idf": idf.tolist(),
    }
    return {"kind": kind, "shapes": _shapes(tensors)}, tensors, words


def _head(head: Head) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Describe a head: its settings and its tensors."""
    if isinstance(head, OperatorHead):
        return _operator_head(head)
    member = head.stack.member
    about, tensors = _plain_head(replace(head, stack=replace(head.stack, member=None)))
    if member is not None:
        of_member, own = _operator_head(member.head)
        about["member"] = {**of_member, "sources": list(member.sources)}
        tensors |= {f"{MEMBER}{name}": values for name, values in own.items()}
    return about, tensors


def _plain_head(head: Head) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Describe what every kind of head has, and the form of a stack."""
    tensors, facts = head_state(head)
    tensors = {k.removeprefix("classifier."): v.float() for k, v in tensors.items()}
    about: dict[str, Any] = {
        "kind": facts["kind"],
        "shapes": _shapes(tensors),
        "multilabel": head.multilabel,
    }
    return {**about, **({"form": facts["form"]} if "form" in facts else {})}, tensors


def _operator_head(head: OperatorHead) -> tuple[dict[str, Any], dict[str, Tensor]]:
    about, tensors = _plain_head(head)
    operator: Any = head.classifier.operator
    residual = isinstance(operator, ResidualFusion)
    if residual:
        operator = operator.operator
    kind = type(operator)
    ours = kind.__module__.startswith("layerfusion.") and kind.__name__ in portable.OPERATORS
    if not ours:
        raise UserError(
            f"export: the operator {kind.__name__} is your own, and its code is not copied; a job"
            " with an operator of LayerFusion, or a stack, can be exported"
        )
    arguments = {key: getattr(operator, key) for key in OWN_ARGUMENTS if hasattr(operator, key)}
    if hasattr(operator, "attention"):
        arguments["heads"] = operator.attention.num_heads
    return {**about, "operator": kind.__name__, "residual": residual, **arguments}, tensors


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(values.shape) for name, values in tensors.items()}


def _fill(module: Any, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into the `Tensors` of a module."""
    with torch.no_grad():
        for name, values in tensors.items():
            owner, own = module, name.removeprefix(MEMBER)
            if own != name:
                owner = module.member
            owner.tensors[own].copy_(values)
