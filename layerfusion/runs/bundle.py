"""The classifier that a job leaves: heads, lexical sources and how texts become vectors.

A bundle is a folder of JSON and safetensors files, without pickle. It contains no language models:
it names them with the hashes of their weights, and they are looked up or fetched on use.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from layerfusion.assets import resolve
from layerfusion.assets.files import write_atomically
from layerfusion.assets.paths import content_identity
from layerfusion.config.check import load as load_settings
from layerfusion.config.job import TrainConfig
from layerfusion.config.operators import former_fusion
from layerfusion.embeddings.backbone import Backbone, load_backbone
from layerfusion.embeddings.extract import CPU_BUDGETS, GPU_BUDGETS
from layerfusion.embeddings.forward import embed
from layerfusion.embeddings.lexical import LexicalFit, LexicalSource
from layerfusion.embeddings.source import EmbeddingSource, asset_sources
from layerfusion.embeddings.tokens import tally_unknown
from layerfusion.errors import UserError, unknown
from layerfusion.fusion.head_files import Head, head_from, head_state, mean_probabilities
from layerfusion.layers.layer_id import LayerId
from layerfusion.records.job import BUNDLE
from layerfusion.runs.inputs import Inputs

DESCRIPTION = "bundle.json"
"""File that is written last, so a bundle that has it is complete."""
HEADS = "heads.safetensors"
SCHEMA = 2
"""Schema 1 kept every operator's arguments with each fusion; it is still read."""
PIECE = 1024
"""Number of texts that are embedded and classified together."""


@dataclass(frozen=True)
class Model:
    """The files from which a language model's vectors were computed."""

    origin: str
    """Where the files came from, for a reader."""
    identity: str
    """Identity of that origin: pinned hashes, a commit, or the content of a folder."""
    content: str
    """sha256 of the files themselves, which identifies them if they come from another origin."""


@dataclass(frozen=True)
class Bundle:
    """A trained classifier of texts, as loaded from a job's folder.

    It predicts the mean of the probabilities of all seeds' heads. The record of its job gives the
    accuracy of that mean as `consensus`.
    """

    folder: Path
    label_names: tuple[str, ...]
    layers: tuple[LayerId, ...]
    """Sources of the heads, in the heads' order."""
    config: TrainConfig
    """Config of its job, which says how texts become vectors."""
    models: Mapping[str, Model]
    """The language models that its layers come from."""
    heads: tuple[Head, ...]
    lexical: Mapping[str, LexicalFit]
    facts: Mapping[str, Any]
    """Facts for a reader: job, data, versions and figures."""

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Classify texts.

        The models are loaded at the first call and stay in memory. Nothing is cached on disk.

        Args:
            texts: texts to classify. Outer white space is stripped, as in training.

        Returns:
            Probabilities in the order of `label_names`; rows add up to 1. Shape: (texts, classes),
            float32.

        Raises:
            UserError: for an empty text, or if a model is missing or has other weights.
        """
        for number, text in enumerate(texts):
            if not text.strip():
                raise UserError(f"predict: text {number + 1} of {len(texts)} is empty")
        pieces = [texts[start : start + PIECE] for start in range(0, len(texts), PIECE)]
        probabilities = [self._classify([text.strip() for text in piece]) for piece in pieces]
        return np.concatenate(probabilities or [np.empty((0, len(self.label_names)), np.float32)])

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Return the name of the most probable class of each text. Shape: (texts,)."""
        return self.classes_[self.probabilities(texts).argmax(axis=1)]

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probability of each class, under the name that scikit-learn gives it."""
        return self.probabilities(texts)

    @property
    def classes_(self) -> np.ndarray:
        """Names of the classes, in the order of the probabilities. Shape: (classes,)."""
        return np.array(self.label_names)

    def save(self, folder: Path | str) -> Path:
        """Copy the classifier to another folder, from which `load` reads it.

        Args:
            folder: made where it is missing; one that holds other files is refused.

        Raises:
            UserError: where the folder is not empty.
        """
        place = Path(folder)
        if place.exists() and any(place.iterdir()):
            raise UserError(f"{place}: it is not empty; choose a new folder")
        shutil.copytree(self.folder, place, dirs_exist_ok=True)
        return place

    def __repr__(self) -> str:
        layers = ", ".join(str(layer) for layer in self.layers)
        classes = ", ".join(self.label_names[:5]) + (", …" if len(self.label_names) > 5 else "")
        return f"Bundle({self.facts.get('fusion')} of {layers}; classes {classes})"

    def _classify(self, texts: Sequence[str]) -> np.ndarray:
        vectors = self._vectors(texts)
        features = [vectors[layer] for layer in self.layers]
        return mean_probabilities(self.heads, features).numpy()

    def _vectors(self, texts: Sequence[str]) -> dict[LayerId, Tensor]:
        """Compute the vectors of each source. Shapes: (texts, width), float32."""
        found: dict[LayerId, Tensor] = {}
        for layer in self.layers:
            if layer.backbone in self.lexical:
                found[layer] = self.lexical[layer.backbone].vectors(texts)
        for name, backbone in self._backbones.items():
            found |= self._embedded(name, backbone, texts)
        return found

    def _embedded(
        self, name: str, backbone: Backbone, texts: Sequence[str]
    ) -> dict[LayerId, Tensor]:
        """Compute the layers of one model, without the blocks above the highest layer."""
        of_model = [layer for layer in self.layers if layer.backbone == name]
        wanted: dict[str, list[str]] = {}
        for layer in of_model:
            wanted.setdefault(layer.pooling, []).append(layer.layer)
        tokens = backbone.tokenize(texts, self.config.backbone[name])
        tally_unknown(name, tokens).warn()
        order = sorted(range(len(texts)), key=lambda row: -tokens[row].cost)
        usual = CPU_BUDGETS[1] if backbone.device.type == "cpu" else GPU_BUDGETS[0]
        budget = self.config.extract.token_budget or usual
        poolings = {pooling: self.config.pooling[pooling] for pooling in wanted}
        vectors, _ = embed(backbone, [tokens[row] for row in order], wanted, poolings, budget)
        back = np.argsort(order)
        return {
            layer: torch.from_numpy(vectors[layer.pooling, layer.layer][back]) for layer in of_model
        }

    @cached_property
    def _backbones(self) -> dict[str, Backbone]:
        """The language models of its layers, with checked weights."""
        names = dict.fromkeys(layer.backbone for layer in self.layers)
        return {name: self._load(name) for name in names if name not in self.lexical}

    def _load(self, name: str) -> Backbone:
        config, cache = self.config.backbone[name], Path(self.config.paths.cache)
        sources = asset_sources(name, config)
        asset = resolve(sources, key=f"backbone.{name}", kind="backbone", cache=cache)
        model = self.models[name]
        same = asset.identity == model.identity
        if not same and content_identity(asset.path, "backbone", cache) != model.content:
            raise UserError(
                f"backbone {name}: {asset.origin} does not hold the files that the classifier was"
                f" trained with, which came from {model.origin}"
            )
        return load_backbone(name, asset.path, config, self.config.extract.device)


def save_bundle(
    folder: Path, config: TrainConfig, inputs: Inputs, heads: Sequence[Head], facts: dict[str, Any]
) -> None:
    """Save a job's classifier.

    Args:
        folder: folder of the bundle, created if it is missing.
        config: config of the job.
        inputs: inputs of the job.
        heads: trained heads, one for each seed.
        facts: facts for a reader.

    Raises:
        UserError: if a lexical source cannot be fitted again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(
        missing_ok=True
    )  # the bundle is incomplete until it is written again
    tensors: dict[str, Tensor] = {}
    described = []
    for number, head in enumerate(heads):
        state, about = head_state(head)
        tensors |= {f"{number}.{name}": values for name, values in state.items()}
        described.append(about)
    write_atomically(folder / HEADS, save(tensors))
    used = dict.fromkeys(layer.backbone for layer in inputs.selection.layers)
    sources = {name: inputs.sources[name] for name in used}
    for name, source in sources.items():
        if isinstance(source, LexicalSource):
            state, vocabulary = source.refitted().state()
            write_atomically(folder / f"{name}.safetensors", save(state))
            words = json.dumps(vocabulary, ensure_ascii=False)
            write_atomically(folder / f"{name}.json", words.encode())
    models = {
        name: asdict(
            Model(
                one.origin,
                one.asset.identity,
                content_identity(one.asset.path, "backbone", one.cache),
            )
        )
        for name, one in sources.items()
        if isinstance(one, EmbeddingSource)
    }
    description = {
        "schema": SCHEMA,
        "label_names": list(inputs.dataset.label_names),
        "layers": [asdict(layer) for layer in inputs.selection.layers],
        "models": models,
        "heads": described,
        "config": asdict(config),
        "facts": facts,
    }
    content = json.dumps(description, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / DESCRIPTION, content.encode())


def has_bundle(folder: Path) -> bool:
    """Return True if a job's folder has a complete classifier."""
    return (folder / BUNDLE / DESCRIPTION).is_file()


def load_bundle(
    folder: Path | str,
    *,
    device: str = "auto",
    cache: str | None = None,
    models: Mapping[str, str] | None = None,
    modules: Sequence[str] = (),
) -> Bundle:
    """Read a classifier that a job left.

    Args:
        folder: folder of the bundle, or of its job.
        device: device that the language models run on.
        cache: folder of downloaded models; None means that of the job.
        models: for some backbones, a folder with their files that replaces the job's origin.
        modules: modules outside LayerFusion that its operator may be imported from.

    Raises:
        UserError: if there is no bundle, or it is damaged or has another schema.

    Example:
        >>> classifier = load_bundle(outputs / "job")
        >>> classifier.predict_proba(["a good film", "a bad plot"]).shape
        (2, 2)
    """
    place = Path(folder)
    if not place.is_dir():
        raise UserError(f"{place}: there is no such folder")
    if not (place / DESCRIPTION).is_file():
        place = place / BUNDLE
    with _damage_told(place):
        raw = json.loads((place / DESCRIPTION).read_text())
        if raw["schema"] not in (1, SCHEMA):
            raise UserError(f"{place}: schema {raw['schema']}, this version reads 1 and {SCHEMA}")
        if raw["schema"] == 1:
            raw["config"]["fusion"] = former_fusion(raw["config"]["fusion"])
        config = load_settings(raw["config"])
        layers = tuple(LayerId(**layer) for layer in raw["layers"])
        tensors = load((place / HEADS).read_bytes())
        heads = tuple(
            head_from(_below(tensors, f"{number}."), about, modules)
            for number, about in enumerate(raw["heads"])
        )
        names = dict.fromkeys(layer.backbone for layer in layers)
        lexical = {
            name: LexicalFit.from_state(
                config.lexical[name].features,
                load((place / f"{name}.safetensors").read_bytes()),
                json.loads((place / f"{name}.json").read_text()),
            )
            for name in names
            if name in config.lexical
        }
    for name, path in (models or {}).items():
        if name not in raw["models"]:
            raise unknown("model", name, raw["models"])
        config.backbone[name] = replace(config.backbone[name], path=path)
    config = replace(
        config,
        extract=replace(config.extract, device=device),
        paths=replace(config.paths, cache=cache or config.paths.cache),
    )
    return Bundle(
        place,
        tuple(raw["label_names"]),
        layers,
        config,
        {name: Model(**model) for name, model in raw["models"].items()},
        heads,
        lexical,
        raw["facts"],
    )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@contextmanager
def _damage_told(folder: Path) -> Iterator[None]:
    """Turn the error about a missing or damaged file into one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: no classifier, as {Path(error.filename).name} is missing; a single job"
            " saves one in its folder, a job of a sweep only with bundle=true"
        ) from error
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: the classifier is damaged: {error}") from error
