"""Write a classifier as a folder that `transformers` loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from layerfusion.errors import UserError
from layerfusion.export import (
    modeling_layerfusion,
    tokenization_layerfusion,
    words_layerfusion,
)
from layerfusion.export.cut import SAMPLE, Cut, difference
from layerfusion.runs.bundle import Bundle

USAGE = """\
Needs torch and transformers; run these lines in this folder. Its three files of code,
`*_layerfusion.py`, come from the program that exported it; read them before you trust them.

```python
from transformers import pipeline

classify = pipeline("text-classification", ".", trust_remote_code=True)
print(classify("a text to classify", top_k=None))
```

```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained(".", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=True)
with torch.inference_mode():
    inputs = tokenizer(["a text to classify", "another one"], return_tensors="pt")
    print(model(**inputs).logits.PROBABILITIES)
```

`AutoModel` in place of the class above gives the fused layers as `pooler_output`.
"""


def usage(bundle: Bundle) -> str:
    """Write the lines that run the folder."""
    return USAGE.replace("PROBABILITIES", "sigmoid()" if bundle.multilabel else "softmax(dim=1)")


def write_transformers(bundle: Bundle, cut: Cut, folder: Path) -> float:
    """Write weights, config, code and tokenizers.

    Args:
        bundle: the classifier.
        cut: what was cut out of it.
        folder: an empty folder.

    Returns:
        The largest difference of a probability from the classifier's own, over `cut.SAMPLE`.

    Raises:
        UserError: if the folder does not give the classifier's probabilities.
    """
    cut.model.config.auto_map = {
        "AutoConfig": "modeling_layerfusion.LayerFusionConfig",
        "AutoModel": "modeling_layerfusion.LayerFusionModel",
        "AutoModelForSequenceClassification": (
            "modeling_layerfusion.LayerFusionForSequenceClassification"
        ),
    }
    cut.model.save_pretrained(folder)
    write_tokenizers(cut, folder)
    for module in (modeling_layerfusion, tokenization_layerfusion, words_layerfusion):
        source = Path(str(module.__file__))
        shutil.copyfile(source, folder / source.name)
    return difference(bundle, probabilities_of(folder))


def write_tokenizers(cut: Cut, folder: Path) -> None:
    """Write the tokenizers in the form that `tokenization_layerfusion` reads."""
    content = json.dumps(cut.tokenizers, ensure_ascii=False)
    (folder / tokenization_layerfusion.FILE).write_text(content, encoding="utf-8")
    models = cut.tokenizers["models"]
    settings: dict[str, Any] = {
        "tokenizer_class": "LayerFusionTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_layerfusion.LayerFusionTokenizer", None]},
        "model_max_length": max((model["max_length"] for model in models), default=10**9),
        "pad_token": _pad_token(models[0]) if models else "[PAD]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _pad_token(about: dict[str, Any]) -> str:
    """Return the token that fills a batch up; transformers wants its name."""
    from tokenizers import Tokenizer

    return str(Tokenizer.from_str(json.dumps(about["tokenizer"])).id_to_token(about["pad_id"]))


def probabilities_of(folder: Path) -> Any:
    """Load a folder as a user would, but with the code of this package, and classify `SAMPLE`."""
    path = folder / tokenization_layerfusion.FILE
    tokenizer = tokenization_layerfusion.LayerFusionTokenizer(str(path))
    kind: Any = modeling_layerfusion.LayerFusionForSequenceClassification
    model, info = kind.from_pretrained(folder, output_loading_info=True, local_files_only=True)
    wrong = [*info["missing_keys"], *info["unexpected_keys"]]
    if wrong:
        raise UserError(f"export: {wrong[0]} and {len(wrong) - 1} other weights were not written")
    with torch.inference_mode():
        inputs = tokenizer(list(SAMPLE), return_tensors="pt")
        return model.eval().probabilities(inputs).numpy()
