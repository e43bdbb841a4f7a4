"""Run in a process of its own: loads exported folders in which LayerFusion cannot be imported.

Arguments: a JSON file with the texts and the folders by name, and the file to write the numbers to.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.modules["layerfusion"] = None  # type: ignore[assignment]


def by_transformers(folder: str, texts: list[str]) -> dict[str, Any]:
    import torch
    from transformers import (
        AutoModel,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        pipeline,
    )

    trusted: dict[str, Any] = {"trust_remote_code": True, "local_files_only": True}
    model = AutoModelForSequenceClassification.from_pretrained(folder, **trusted)
    tokenizer = AutoTokenizer.from_pretrained(folder, **trusted)
    with torch.inference_mode():
        inputs = tokenizer(texts, return_tensors="pt")
        logits = model(**inputs).logits
        several = model.config.problem_type == "multi_label_classification"
        probabilities = (logits.sigmoid() if several else logits.softmax(dim=1)).tolist()
        fused = AutoModel.from_pretrained(folder, **trusted)(**inputs).pooler_output
    classify: Any = pipeline("text-classification", folder, trust_remote_code=True)
    piped = classify(texts, top_k=None, batch_size=3)
    labels = [model.config.id2label[k] for k in range(model.config.num_labels)]
    return {
        "probabilities": probabilities,
        "piped": [[{x["label"]: x["score"] for x in row}[k] for k in labels] for row in piped],
        "fused": fused.tolist(),
        "said": run_card(folder, texts).splitlines(),
    }


def by_sentence_transformers(folder: str, texts: list[str]) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    own = "LayerFusionEmbedding" in Path(folder, "modules.json").read_text()
    model = SentenceTransformer(folder, trust_remote_code=own, device="cpu")
    return {
        "fused": model.encode([text.strip() for text in texts], batch_size=3).tolist(),
        "width": model.get_embedding_dimension(),
        "modules": [type(module).__name__ for module in model],
    }


def by_onnx(folder: str, texts: list[str]) -> dict[str, Any]:
    said, found = run_card(folder, texts, "print(json.dumps(probabilities.tolist()))").splitlines()
    return {"probabilities": json.loads(found), "said": [said]}


def run_card(folder: str, texts: list[str], more: str = "") -> str:
    """Run the last lines of the model card, with the texts in the place of its own."""
    *_, code = re.findall(r"```python\n(.*?)```", Path(folder, "README.md").read_text(), re.DOTALL)
    code = code.replace('["a text to classify", "another one"]', repr(texts))
    strict = ("-X", "warn_default_encoding", "-W", "error::EncodingWarning:__main__")
    ran = subprocess.run(
        [sys.executable, *strict, "-c", f"{code}\n{more}"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


HOW = {
    "transformers": by_transformers,
    "sentence-transformers": by_sentence_transformers,
    "onnx": by_onnx,
}


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text())
    found = {
        name: HOW[how](folder, asked["texts"]) for name, (how, folder) in asked["folders"].items()
    }
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
