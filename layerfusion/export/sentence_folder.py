"""Write the fused layers of a classifier as a folder that `sentence-transformers` loads."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from layerfusion.config.job import WINDOWS
from layerfusion.embeddings.shape import NORM
from layerfusion.errors import UserError
from layerfusion.export import modeling_layerfusion, tokenization_layerfusion
from layerfusion.export.cut import SAMPLE, Cut, sample_vectors, tolerance
from layerfusion.export.transformers_folder import write_transformers
from layerfusion.runs.bundle import Bundle

MODES = {"mean": "mean_tokens", "first": "cls_token", "max": "max_tokens", "last": "lasttoken"}
"""Pooling of ours to its name in `1_Pooling/config.json`."""
CODE = "sentence_layerfusion.py"
USAGE = """\
Needs sentence-transformers.CODE

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("."TRUST)  # this folder
print(model.encode(["a text to embed", "another one"]).shape)
```

The embedding of a text is what the heads of the classifier see: the chosen layers below, pooled
over the tokens of the text, and standardised where the heads standardise them. Strip texts of outer
white space, as training did. For labels, export the classifier to transformers or onnx.
"""
WITH_CODE = """
The four files of code in the folder, `*_layerfusion.py`, come from the program that exported it;
read them before you trust them."""


def require_models(bundle: Bundle) -> None:
    """Check that a classifier is of language models alone.

    Raises:
        UserError: if it has lexical sources.
    """
    if bundle.lexical:
        raise UserError(
            f"export: the job has lexical sources ({', '.join(bundle.lexical)}), and an embedding"
            " of sentence-transformers is of language models alone; a job without them can be"
            " exported so, and this one --to transformers"
        )


def write_sentence(bundle: Bundle, cut: Cut, folder: Path) -> tuple[float, str]:
    """Write the embedding of a classifier.

    One layer of one model is written with modules of sentence-transformers alone. Several layers
    need a module of ours, whose code comes with the folder.

    Args:
        bundle: the classifier, of language models alone.
        cut: what was cut out of it.
        folder: an empty folder.

    Returns:
        The largest difference of a number in the embeddings of `cut.SAMPLE` from the classifier's
        own, as a share of the largest number; and how to use the folder.

    Raises:
        UserError: if it does not give the classifier's vectors.
    """
    features = [torch.from_numpy(np.asarray(x)) for x in sample_vectors(bundle)]
    wanted = cut.model.embedding(features)
    if _is_plain(bundle, cut):
        _write_modules(bundle, cut, folder)
        found = _embedded_by_modules(folder)
        usage = USAGE.replace("TRUST", "").replace("CODE", "")
    else:
        write_transformers(bundle, cut, folder)
        _write_json(
            folder / "modules.json", [_module(0, "", "sentence_layerfusion.LayerFusionEmbedding")]
        )
        shutil.copyfile(Path(__file__).with_name(CODE), folder / CODE)
        found = _embedded_by_code(folder)
        usage = USAGE.replace("TRUST", ", trust_remote_code=True").replace("CODE", WITH_CODE)
    _write_json(
        folder / "config_sentence_transformers.json",
        {"model_type": "SentenceTransformer", "prompts": {}, "similarity_fn_name": "cosine"},
    )
    most = float((found - wanted).abs().max() / wanted.abs().max())
    if not most < tolerance(bundle):
        raise UserError(
            f"export: the exported embedding differs by {most:.1e} of its largest number from the"
            " classifier's, so it is not written; please report the models of this job"
        )
    return most, usage


def _is_plain(bundle: Bundle, cut: Cut) -> bool:
    """Return True where sentence-transformers has every module that is needed."""
    config = cut.model.config
    if len(config.sources) != 1:
        return False
    (model,), (source,) = config.backbones, config.sources
    settings = bundle.config.backbone[model["name"]]
    # A norm that is left out, or another half of the model, needs code of its own.
    whole = source["layer"] == NORM or (not model["norm"] and source["layer"] == model["top"])
    return (
        whole
        and not model["encoder"]
        and model["masks_padding"]
        and not source["skip_first"]
        and settings.template == "{text}"
        and settings.long_texts != WINDOWS
    )


def _write_modules(bundle: Bundle, cut: Cut, folder: Path) -> None:
    """Write a cut model, a pooling and, where the heads standardise, a linear layer that does."""
    (model,), (source,) = cut.model.config.backbones, cut.model.config.sources
    backbone = bundle.backbone(model["name"])
    part: Any = cut.model.backbones[0]
    part.whole().save_pretrained(folder)
    tokenizer = copy.deepcopy(backbone.tokenizer)
    tokenizer.model_max_length = backbone.shape.max_length
    tokenizer.padding_side = "right"
    tokenizer.truncation_side = bundle.config.backbone[model["name"]].truncation_side
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(backbone.pad_id)
    tokenizer.save_pretrained(folder)
    _write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": backbone.shape.max_length, "do_lower_case": False},
    )
    width = backbone.shape.width
    modes = {f"pooling_mode_{mode}": how == source["pool"] for how, mode in MODES.items()}
    (folder / "1_Pooling").mkdir()
    _write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": width, **modes})
    modules = [
        _module(0, "", "sentence_transformers.models.Transformer"),
        _module(1, "1_Pooling", "sentence_transformers.models.Pooling"),
    ]
    head = cut.model.heads[0]
    if isinstance(head, modeling_layerfusion.OperatorHead):
        mean, std = head.tensors["mean.0"], head.tensors["std.0"]
        (folder / "2_Dense").mkdir()
        _write_json(
            folder / "2_Dense/config.json",
            {
                "in_features": width,
                "out_features": width,
                "bias": True,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        tensors: dict[str, Tensor] = {
            "linear.weight": torch.diag(1 / std),
            "linear.bias": -mean / std,
        }
        save_file(tensors, folder / "2_Dense/model.safetensors")
        modules.append(_module(2, "2_Dense", "sentence_transformers.models.Dense"))
    _write_json(folder / "modules.json", modules)


def _module(number: int, path: str, kind: str) -> dict[str, Any]:
    return {"idx": number, "name": str(number), "path": path, "type": kind}


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


@torch.inference_mode()
def _embedded_by_modules(folder: Path) -> Tensor:
    """Do what sentence-transformers does with the modules, without it."""
    from transformers import AutoModel, AutoTokenizer

    model: Any = AutoModel.from_pretrained(folder, local_files_only=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    settings = json.loads((folder / "1_Pooling/config.json").read_text(encoding="utf-8"))
    how = next(how for how, mode in MODES.items() if settings[f"pooling_mode_{mode}"])
    texts = [text.strip() for text in SAMPLE]
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    hidden = model.eval()(**inputs)[0]
    pooled = modeling_layerfusion.pooled(hidden, inputs["attention_mask"], how, skip_first=False)
    if (folder / "2_Dense").is_dir():
        linear = load_file(folder / "2_Dense/model.safetensors")
        pooled = torch.nn.functional.linear(pooled, linear["linear.weight"], linear["linear.bias"])
    return pooled


@torch.inference_mode()
def _embedded_by_code(folder: Path) -> Tensor:
    """Do what the module of ours does, without sentence-transformers."""
    model: Any = modeling_layerfusion.LayerFusionModel.from_pretrained(
        folder, local_files_only=True
    )
    path = folder / tokenization_layerfusion.FILE
    tokenizer = tokenization_layerfusion.LayerFusionTokenizer(str(path))
    return model.eval()(**tokenizer(list(SAMPLE), return_tensors="pt")).pooler_output
