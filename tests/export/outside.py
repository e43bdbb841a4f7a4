"""Run in a process of its own: loads exported folders in which LayerFusion cannot be imported.

Arguments: a JSON file with the texts and the folders by name, and the file to write the numbers to.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
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
    }


def by_sentence_transformers(folder: str, texts: list[str]) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    own = "LayerFusionEmbedding" in Path(folder, "modules.json").read_text(encoding="utf-8")
    model = SentenceTransformer(folder, trust_remote_code=own, device="cpu")
    return {
        "fused": model.encode([text.strip() for text in texts], batch_size=3).tolist(),
        "width": model.get_embedding_dimension(),
        "modules": [type(module).__name__ for module in model],
    }


def by_card(folder: str, texts: list[str]) -> dict[str, Any]:
    return {"said": run_card(folder, texts).splitlines()}


def by_card_of_graph(folder: str, texts: list[str]) -> dict[str, Any]:
    said, found = run_card(folder, texts, "print(json.dumps(probabilities.tolist()))").splitlines()
    return {"probabilities": json.loads(found), "said": [said]}


def run_card(folder: str, texts: list[str], more: str = "") -> str:
    """Run the last lines of the model card, with the texts in the place of its own."""
    card = Path(folder, "README.md").read_text(encoding="utf-8")
    *_, code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code = code.replace('["a text to classify", "another one"]', repr(texts))
    return printed(folder, f"{code}\n{more}")


def printed(folder: str, code: str) -> str:
    """What code prints, which has names of its own, in a copy of this process.

    A new process would first import for seconds what is imported here.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        code_of_exit = 1
        try:
            os.chdir(folder)
            sys.path.insert(0, "")  # as `python -c` has it
            os.dup2(write, sys.stdout.fileno())
            exec(compile(code, "<card>", "exec"), {"__name__": "__main__"})
            sys.stdout.flush()
            code_of_exit = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code_of_exit)
    os.close(write)
    with open(read, encoding="utf-8") as file:
        said = file.read()
    assert os.waitpid(child, 0)[1] == 0
    return said


CARDS = {"transformers": by_card, "onnx": by_card_of_graph}
HOW = {
    "transformers": by_transformers,
    "sentence-transformers": by_sentence_transformers,
    "onnx": lambda *_: {},
}


def main() -> None:
    import onnxruntime  # noqa: F401 - for the copies
    import tokenizers  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: F401

    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    texts, folders = asked["texts"], asked["folders"].items()
    # The cards come first: nothing has been computed yet, so that no thread is lost in a copy.
    said = {name: CARDS[how](folder, texts) for name, (how, folder) in folders if how in CARDS}
    found = {name: said.get(name, {}) | HOW[how](folder, texts) for name, (how, folder) in folders}
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
