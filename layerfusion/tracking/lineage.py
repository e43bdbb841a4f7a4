"""Declares the inputs and the results of a W&B run as artifacts, which show its lineage.

Large files stay where they are. Artifacts refer to them, and only a description is uploaded.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import layerfusion
from layerfusion.embeddings.source import EMBEDDINGS, Source
from layerfusion.embeddings.store import SPEC_FILE, EmbeddingStore
from layerfusion.records.job import BUNDLE, CONFIG, METRICS, PREDICTIONS
from layerfusion.texts import TextDataset

if TYPE_CHECKING:
    from wandb import Run

DESCRIPTION = "description.json"
RESULT_FILES = (METRICS, PREDICTIONS, CONFIG, "profile.json", "profile.csv")


@dataclass(frozen=True)
class Ingredient:
    """An input of a run: its texts, or the store of a model under one pooling."""

    name: str
    kind: str
    """Type of the artifact: `dataset` or `embeddings`."""
    description: Mapping[str, Any]
    """Content that is uploaded. It distinguishes versions of the artifact."""
    folder: Path | None = None
    """Folder of the store; None for texts and lexical sources."""


def ingredients(dataset: TextDataset, sources: Mapping[str, Source]) -> list[Ingredient]:
    """List the texts, with their fingerprint, and every store that layers are chosen from."""
    texts = {
        "name": dataset.name,
        "origin": dataset.origin,
        "fingerprint": dataset.fingerprint,
        "rows": {split: len(rows.texts) for split, rows in dataset.splits.items()},
        "classes": len(dataset.label_names),
    }
    found = [Ingredient(f"texts-{dataset.name}", "dataset", texts)]
    for name, source in sources.items():
        for pooling, store in source.stores.items():
            spec = json.loads(store.spec.canonical())
            description = {"spec_hash": store.name, "origin": source.origin, "spec": spec}
            stored = isinstance(store, EmbeddingStore)
            folder = source.cache / EMBEDDINGS / store.name if stored else None
            found.append(Ingredient(f"store-{name}-{pooling}", "embeddings", description, folder))
    return found


def log_use(run: Run, inputs: Sequence[Ingredient]) -> None:
    """Declare the inputs of a run."""
    import wandb

    for one in inputs:
        artifact = wandb.Artifact(_name(one.name), one.kind, metadata=dict(one.description))
        with tempfile.TemporaryDirectory() as place:  # W&B takes a copy
            file = Path(place) / DESCRIPTION
            text = json.dumps(one.description, indent=1, sort_keys=True, ensure_ascii=False)
            file.write_text(text, encoding="utf-8")
            artifact.add_file(str(file), DESCRIPTION)
        if one.folder is not None:
            # The reference is to the spec, since W&B would list every shard of the folder.
            artifact.add_reference((one.folder / SPEC_FILE).resolve().as_uri())
        # `use_artifact` refuses new artifacts offline, and waits for the server online. The private
        # method that it calls does neither.
        log = getattr(run, "_log_artifact", None)
        if log is None:
            run.use_artifact(artifact)
        else:
            log(artifact, is_user_created=True, use_after_commit=True)


def log_result(
    run: Run, job: str, folder: Path, metadata: Mapping[str, Any], *, upload: bool = False
) -> None:
    """Declare the results of a run: the files of its record, and its bundle if it has one.

    Args:
        run: the run.
        job: name of the job.
        folder: of the job.
        metadata: facts on the result.
        upload: upload the files of the bundle, which are small, instead of referring to them.
    """
    import wandb

    result = wandb.Artifact(_name(f"result-{job}"), "result", metadata=dict(metadata))
    for name in RESULT_FILES:
        if (folder / name).is_file():
            result.add_reference((folder / name).resolve().as_uri(), name=name)
    run.log_artifact(result)
    if (folder / BUNDLE).is_dir():
        bundle = wandb.Artifact(_name(f"model-{job}"), "model", metadata=dict(metadata))
        if upload:
            bundle.add_dir(str(folder / BUNDLE))
        else:
            bundle.add_reference((folder / BUNDLE).resolve().as_uri())
        run.log_artifact(bundle)


def log_code(run: Run) -> None:
    """Save the current source files of the package in a run."""
    root = Path(layerfusion.__file__).parent
    run.log_code(str(root), name="code-layerfusion", include_fn=_is_source)


def _is_source(path: str, _root: str = "") -> bool:
    return path.endswith((".py", ".html", ".js"))


def _name(name: str) -> str:
    """Replace the characters that W&B does not allow, and cut the name to 128 characters."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:128]
