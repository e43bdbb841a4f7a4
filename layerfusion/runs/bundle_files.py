"""The files of a bundle: their names, what they say, and whether they are whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from layerfusion.assets.files import write_atomically
from layerfusion.assets.memo import seal, sha256
from layerfusion.config.operators import former_fusion
from layerfusion.config.rules import check_name
from layerfusion.config.secrets import redacted
from layerfusion.errors import UserError
from layerfusion.fusion.head_files import head_state
from layerfusion.layers.layer_id import LayerId
from layerfusion.records.job import BUNDLE
from layerfusion.records.json_files import Upgrade, read_json, require_schema
from layerfusion.records.sweep import finished_job
from layerfusion.runs.trust import own_file

if TYPE_CHECKING:
    from layerfusion.runs.bundle import Bundle

DESCRIPTION = "bundle.json"
"""File that is written last, so a bundle that has it is complete."""
HEADS = "heads.safetensors"
ESTIMATOR = "estimator"
"""Fact that holds what an estimator of scikit-learn has beside the classifier."""
SCHEMA = 5
"""Schema 1 kept every operator's arguments with each fusion, schema 2 had neither anchored weights
nor regressions, schema 3 no texts with several labels, and schema 4 no stacks with a trained head;
all are still read."""
DAMAGE = (
    SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
    IsADirectoryError, NotADirectoryError,
)  # fmt: skip
"""Errors of files that are not those of a classifier, or not whole."""


@dataclass(frozen=True)
class Model:
    """The files from which a language model's vectors were computed."""

    origin: str
    """Where the files came from, for a reader."""
    identity: str
    """Identity of that origin: pinned hashes, a commit, or the content of a folder."""
    content: str
    """sha256 of the files themselves, which identifies them if they come from another origin."""
    folder: str = ""
    """Absolute path of a folder of the user's; empty for other origins, and in older bundles."""


@dataclass(frozen=True)
class Description:
    """`bundle.json` as it is read."""

    label_names: list[str]
    layers: list[LayerId]
    models: dict[str, Model]
    heads: list[dict[str, Any]]
    config: dict[str, Any]
    facts: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of the other files by name; older bundles have none."""
    code: dict[str, str] = field(default_factory=dict)
    """Hash of the source of each pooling and operator of the user's; older bundles have none."""


def has_bundle(folder: Path) -> bool:
    """Return True if a job's folder has a complete classifier."""
    return (folder / BUNDLE / DESCRIPTION).is_file()


def bundle_identity(folder: Path) -> str:
    """Compute the sha256 of the files of a classifier."""
    digest = hashlib.sha256()
    for pattern in ("*.json", "*.safetensors"):
        for path in sorted(folder.glob(pattern)):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def is_whole_bundle(folder: Path) -> bool:
    """Return True if the classifier in a job's folder is that job's, as it was saved."""
    try:
        read_files(folder / BUNDLE)
    except UserError:
        return False
    return True


def require_whole(folder: Path) -> None:
    """Refuse a folder that does not hold a whole classifier.

    Raises:
        UserError: saying what is wrong with it.
    """
    read_files(folder)


def read_files(place: Path) -> tuple[Description, dict[str, bytes]]:
    """Read the description and the other files of a bundle, and compare them with their checksums.

    Bundles of older versions have no checksums.

    Raises:
        UserError: if a file is missing or damaged, or the classifier is not that of its job.
    """
    with damage_told(place):
        about = read_json(
            own_file(place, DESCRIPTION), Description, "a classifier", _upgraded(place)
        )
        used = dict.fromkeys(layer.backbone for layer in about.layers)
        lexical = [name for name in used if name in about.config.get("lexical", {})]
        for name in lexical:
            check_name("lexical", name)
        names = [name for name in files_of(lexical) if name != DESCRIPTION]
        files = {name: own_file(place, name).read_bytes() for name in names}
        for name, content in files.items():
            if about.files.get(name, sha256(content)) != sha256(content):
                raise ValueError(f"the checksum of {name} differs")
        finished = finished_job(place.parent, "train") if place.name == BUNDLE else None
        if finished not in (None, about.facts["job"]):
            raise ValueError(f"it is of job {about.facts['job']}, not of {finished}")
    return about, files


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write a classifier; the file that completes it comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    # The bundle is incomplete until it is written again.
    (folder / DESCRIPTION).unlink(missing_ok=True)
    tensors: dict[str, Tensor] = {}
    described = []
    for number, head in enumerate(bundle.heads):
        state, about = head_state(head)
        tensors |= {f"{number}.{name}": values for name, values in state.items()}
        described.append(about)
    files = {HEADS: save(tensors)}
    for name, part in bundle.lexical.items():
        state, vocabulary = part.state()
        files[f"{name}.safetensors"] = save(state)
        files[f"{name}.json"] = json.dumps(vocabulary, ensure_ascii=False).encode()
    for name, content in files.items():
        write_atomically(folder / name, content)
    description = {
        "schema": SCHEMA,
        "label_names": list(bundle.label_names),
        "layers": [asdict(layer) for layer in bundle.layers],
        "models": {name: asdict(model) for name, model in bundle.models.items()},
        "heads": described,
        "config": redacted(asdict(bundle.config)),
        "facts": bundle.facts,
        "code": bundle.code,
        "files": {name: sha256(content) for name, content in files.items()},
    }
    text = json.dumps(seal(description), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / DESCRIPTION, text.encode())


def files_of(lexical: Iterable[str]) -> list[str]:
    """List the files of a bundle with some lexical sources."""
    own = [f"{name}{suffix}" for name in lexical for suffix in (".safetensors", ".json")]
    return [DESCRIPTION, HEADS, *own]


def _upgraded(place: Path) -> Upgrade:
    """Give the function that brings a description of schema 1 into the present form."""

    def upgrade(raw: dict[str, Any]) -> dict[str, Any]:
        require_schema(place, raw["schema"], tuple(range(1, SCHEMA + 1)))
        if raw["schema"] == 1:
            config = raw["config"]
            raw = {**raw, "config": {**config, "fusion": former_fusion(config["fusion"])}}
        return raw

    return upgrade


@contextmanager
def damage_told(folder: Path) -> Iterator[None]:
    """Turn the error about a missing or damaged file into one line."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: no classifier, as {Path(error.filename).name} is missing; a single job"
            " saves one in its folder, a job of a sweep only with bundle=true"
        ) from error
    # Parts that do not fit each other fail where they are put together.
    except DAMAGE as error:
        raise UserError(
            f"{folder}: the classifier is damaged: {str(error)[:300]}; the command that trained it"
            " trains it again"
        ) from error
