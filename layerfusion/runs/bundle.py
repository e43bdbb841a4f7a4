"""The classifier that a job leaves: heads, lexical sources and how texts become vectors.

A bundle is a folder of JSON and safetensors files, without pickle. It contains no language models:
it names them with the hashes of their weights, and they are looked up or fetched on use.

A bundle may come from someone else. So nothing in it runs code, and nothing in it is a link to
other files, unless the user says so.
"""

from __future__ import annotations

import json
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from layerfusion.assets import Asset, NoSource, resolve
from layerfusion.assets.paths import content_identity
from layerfusion.assets.staging import write_new_folder
from layerfusion.calls import plain_methods
from layerfusion.config.check import check_backbone
from layerfusion.config.job import TrainConfig
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.batch_size import CPU_BUDGETS, GPU_BUDGETS
from layerfusion.embeddings.breaker import Breaker
from layerfusion.embeddings.cache_key import pooling_identity, text_hash
from layerfusion.embeddings.forward import embed
from layerfusion.embeddings.given import LAYER, GivenSource, open_given
from layerfusion.embeddings.lexical import LexicalFit
from layerfusion.embeddings.pipeline import Pipeline, open_pipeline
from layerfusion.embeddings.source import asset_sources
from layerfusion.embeddings.tokens import UnknownTally
from layerfusion.embeddings.vector_files import VectorFile
from layerfusion.errors import UserError, first_few, unknown
from layerfusion.fusion.head_files import Head, mean_probabilities
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.lexical_regression import LexicalRegression
from layerfusion.runs.bundle_files import (
    Model,
    damage_told,
    files_of,
    write_bundle,
)
from layerfusion.runs.naming import labels_of
from layerfusion.runs.recent import RecentVectors, Vectors
from layerfusion.runs.resources import share_cores
from layerfusion.runs.trust import is_given, own_code, warn_of_other_code
from layerfusion.statistics.answers import answers
from layerfusion.texts.strings import strings_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from layerfusion.runs.familiar import Familiar

PIECE = 1024
"""Number of texts that are embedded and classified together."""


@dataclass(frozen=True)
class Explained:
    """Predictions of texts with the part that each source has in them, averaged over the heads."""

    probabilities: np.ndarray
    """Probabilities of the classes or labels. Shape: (texts, classes)."""
    gates: np.ndarray | None
    """Weight of each source. Shape: (texts, sources). None where the fusion has no gates."""
    alone: np.ndarray
    """Probabilities that each source gives alone: its probe in a stack, else the head with all
    other sources at their mean over train. Shape: (texts, sources, classes)."""


@plain_methods
@dataclass(frozen=True)
class Bundle:
    """A trained classifier of texts, as loaded from a job's folder.

    It predicts the mean of the probabilities of all seeds' heads. The record of its job gives the
    accuracy of that mean as `consensus`.
    """

    folder: Path | None
    """Folder that it was read from; None for one that lies in memory alone."""
    label_names: tuple[str, ...]
    layers: tuple[LayerId, ...]
    """Sources of the heads, in the heads' order."""
    config: TrainConfig
    """Config of its job, which says how texts become vectors."""
    models: Mapping[str, Model]
    """The language models that its layers come from."""
    heads: tuple[Head, ...]
    lexical: Mapping[str, LexicalFit | LexicalRegression]
    facts: Mapping[str, Any]
    """Facts for a reader: job, data, versions and figures."""
    code: Mapping[str, str] = field(default_factory=dict)
    """Hash of the source of each pooling and operator of the user's, by its import path."""
    unasked: Mapping[str, str] = field(default_factory=dict)
    """Sources whose vectors are computed elsewhere, to the servers and files that the classifier
    names for them, and that are only asked once the user says so."""
    told: set[str] = field(default_factory=set, repr=False, compare=False)
    """Code of the user's that is another one than in training, of which the user was warned."""

    @property
    def multilabel(self) -> bool:
        """Whether a text has any number of the classes, which are labels then."""
        return self.heads[0].multilabel

    def probabilities(
        self,
        texts: Sequence[str],
        recent: RecentVectors | None = None,
        *,
        seconds: float = math.inf,
    ) -> np.ndarray:
        """Classify texts.

        The models are loaded at the first call and stay in memory. Nothing is cached on disk.

        Args:
            texts: texts to classify. Outer white space is stripped, as in training.
            recent: as for `vectors`.
            seconds: as for `vectors`.

        Returns:
            Probabilities in the order of `label_names`, shape (texts, classes), float32. Rows add
            up to 1; those of labels do not, since each label is a decision of its own.

        Raises:
            UserError: for what is no text or an empty one, or if a model is missing or has other
                weights.
        """
        found = [
            mean_probabilities(self.heads, [vectors[layer] for layer in self.layers]).numpy()
            for vectors in self.vectors(texts, recent, seconds=seconds)
        ]
        return np.concatenate(found or [np.empty((0, len(self.label_names)), np.float32)])

    def explain(self, texts: Sequence[str]) -> Explained:
        """Classify texts, and say what each source had to do with it.

        Args:
            texts: texts to classify, as for `probabilities`.

        Raises:
            UserError: as `probabilities`.
        """
        probabilities, gates, alone = [], [], []
        for vectors in self.vectors(texts):
            features = [vectors[layer] for layer in self.layers]
            probabilities.append(mean_probabilities(self.heads, features))
            each = [head.predict(features)[1] for head in self.heads]
            if given := [one.double() for one in each if one is not None]:
                gates.append(torch.stack(given).mean(dim=0))
            sources = [head.each_source(features).double().exp() for head in self.heads]
            alone.append(torch.stack(sources).mean(dim=0).transpose(0, 1))
        classes, sources = len(self.label_names), len(self.layers)
        return Explained(
            torch.cat(probabilities or [torch.empty(0, classes)]).numpy(),
            torch.cat(gates).float().numpy() if gates else None,
            torch.cat(alone or [torch.empty(0, sources, classes)]).float().numpy(),
        )

    def vectors(
        self,
        texts: Sequence[str],
        recent: RecentVectors | None = None,
        *,
        seconds: float = math.inf,
    ) -> Iterator[dict[LayerId, Tensor]]:
        """Compute the vectors of each of its layers, for some texts after the other.

        Args:
            texts: texts in any number. Outer white space is stripped, as in training.
            recent: vectors of other classifiers, to read from and to add to; none if None.
            seconds: time within which servers of vectors have to answer, with all repeats.

        Yields:
            Layer to vectors of the next texts. Shapes: (texts, width), float32.

        Raises:
            UserError: as `probabilities`.
        """
        end = time.monotonic() + seconds
        share_cores()
        stripped = strings_of(texts, "predict")
        together = _together.get()
        tallies: dict[str, UnknownTally] = {} if together is None else together
        for start in range(0, len(stripped), PIECE):
            found = self._vectors(stripped[start : start + PIECE], tallies, recent, end)
            self._refuse_other_widths(found)
            yield found
        if together is None:
            _warn(tallies)

    def _refuse_other_widths(self, vectors: Mapping[LayerId, Tensor]) -> None:
        """Refuse vectors that are no features of the heads, as of a damaged description."""
        taken = zip(self.layers, *(head.widths for head in self.heads), strict=True)
        for layer, *widths in taken:
            if {*widths} != {vectors[layer].shape[1]}:
                raise UserError(
                    f"classifier: the vectors of {layer} have {vectors[layer].shape[1]} numbers,"
                    f" and a head takes {widths[0]}"
                )

    @property
    def given(self) -> list[str]:
        """Names of its sources whose vectors are computed elsewhere."""
        used = dict.fromkeys(layer.backbone for layer in self.layers)
        return [name for name in used if is_given(self.config, name)]

    def with_vectors(
        self, name: str, vectors: Path | str, *, rows: Path | str | None = None, text: str = ""
    ) -> Bundle:
        """Return the same classifier with other vectors for a source whose vectors lie in a file.

        Args:
            name: name of the source.
            vectors: a table with the column of vectors that the job's file had, or a .npy.
            rows: the table whose rows a .npy follows.
            text: column of the texts, if it has another name than in the job's data.

        Raises:
            UserError: if there is no such source, or the file is none of vectors.
        """
        files = [one for one in self.given if self.config.backbone[one].vectors]
        if name not in files:
            raise unknown("vectors", name, files)
        settings = self.config.backbone[name]
        column = None if rows is not None else settings.column or "vectors"
        place = {"vectors": str(vectors), "rows": None if rows is None else str(rows)}
        own = replace(settings, column=column, **place)
        check_backbone(name, own)
        config = replace(
            self.config,
            backbone={**self.config.backbone, name: own},
            dataset=replace(self.config.dataset, text=text or self.config.dataset.text),
        )
        unasked = {key: value for key, value in self.unasked.items() if key != name}
        return replace(self, config=config, unasked=unasked)

    def identity_of_vectors(self, name: str) -> str:
        """Identify the content of the file that `with_vectors` gave a source.

        Raises:
            UserError: if it cannot be read.
        """
        source = self._givers[name]
        assert isinstance(source, VectorFile)
        return source.identity

    def backbone(self, name: str) -> Backbone:
        """Return one of its language models, loaded and with checked weights.

        Raises:
            UserError: if the model is missing or has other weights.
        """
        return self._backbones[name]

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Return the name of the most probable class of each text. Shape: (texts,).

        Where texts have any number of labels, return scikit-learn's indicator matrix instead: 1
        where a text has the label of a column, in the order of `classes_`. Shape: (texts, labels),
        int64. `labels_of` gives their names.
        """
        said = answers(self.probabilities(texts), multilabel=self.multilabel)
        return said.astype(np.int64) if self.multilabel else self.classes_[said]

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probability of each class, under the name that scikit-learn gives it."""
        return self.probabilities(texts)

    def drift(self, texts: Sequence[str]) -> DataFrame:
        """Compare texts with those that the classifier was trained and judged on.

        Args:
            texts: texts to classify, as for `probabilities`; one that is repeated counts once.

        Returns:
            A row for each comparison: see `layerfusion.runs.familiar.compared`.

        Raises:
            UserError: as `probabilities`, or if the classifier has no counts of its own texts.
        """
        from layerfusion.runs.familiar import Familiar, compared

        before, different = self.familiar, list(dict.fromkeys(strings_of(texts, "predict")))
        with counted_together() as tallies:
            found = self.probabilities(different)
        now = Familiar.of(found, multilabel=self.multilabel, text_of=None)
        now.add_read(tallies)
        return compared(before, now, self.label_names, multilabel=self.multilabel)

    @property
    def familiar(self) -> Familiar:
        """Counts of the texts that it was trained and judged on.

        Raises:
            UserError: if it has none, or damaged ones.
        """
        from layerfusion.runs.familiar import FACT, Familiar

        if FACT not in self.facts:
            raise UserError(
                f"{self.folder or 'classifier'}: it has no counts of the texts that it was judged"
                " on; they are there once it is trained again, as it was before"
            )
        with damage_told(self.folder or Path("classifier")):
            classes, multilabel = len(self.label_names), self.multilabel
            return Familiar.from_facts(self.facts[FACT], classes, multilabel=multilabel)

    def labels_of(self, probabilities: np.ndarray) -> list[str] | list[list[str]]:
        """Name what probabilities of the classes or labels stand for.

        Args:
            probabilities: as `probabilities` returns them. Shape: (texts, classes).

        Returns:
            The most probable class of each text; of labels a list of those from one half on, in the
            order of `label_names`, which is empty where a text has none.
        """
        return labels_of(probabilities, self.label_names, multilabel=self.multilabel)

    @property
    def classes_(self) -> np.ndarray:
        """Names of the classes or labels, in the probabilities' order. Shape: (classes,)."""
        return np.array(self.label_names)

    def save(self, folder: Path | str) -> Path:
        """Write the classifier to another folder, from which `load` reads it.

        Args:
            folder: a new folder, or an empty one.

        Raises:
            UserError: where there is something already, or the folder cannot be written.
        """

        def write(place: Path) -> None:
            if self.folder is None:
                write_bundle(self, place)
                return
            for name in files_of(self.lexical):
                shutil.copyfile(self.folder / name, place / name)  # no other file that lies there

        write_new_folder(Path(folder), write)
        return Path(folder)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the language models out of a pickle; they are loaded again on use."""
        opened = ("_backbones", "_givers", "_breakers")
        return {name: value for name, value in vars(self).items() if name not in opened}

    def __repr__(self) -> str:
        layers, names = first_few(self.layers), first_few(self.label_names)
        what = "labels" if self.multilabel else "classes"
        return f"Bundle({self.facts.get('fusion')} of {layers}; {what} {names})"

    def _vectors(
        self,
        texts: Sequence[str],
        tallies: dict[str, UnknownTally],
        recent: RecentVectors | None,
        end: float,
    ) -> dict[LayerId, Tensor]:
        """Compute the vectors of each source. Shapes: (texts, width), float32.

        Args:
            texts: the texts.
            tallies: counts of the unknown tokens by backbone; those of the texts are added.
            recent: vectors that need not be computed.
            end: time, on the monotonic clock, until which servers of vectors may take.
        """
        found: dict[LayerId, Tensor] = {}
        for name in dict.fromkeys(layer.backbone for layer in self.layers):
            own = [layer for layer in self.layers if layer.backbone == name]
            if name in self.lexical:
                found |= {layer: self.lexical[name].vectors(texts) for layer in own}
                continue
            if is_given(self.config, name):
                vectors = self._given_vectors(name, texts, end)
                found |= {layer: torch.from_numpy(vectors) for layer in own}
                continue

            def compute(some: Sequence[str], name: str = name) -> Vectors:
                tally = tallies.setdefault(name, UnknownTally(name))
                return self._embedded(name, some, tally, every=recent is not None)

            wanted = [(layer.pooling, layer.layer) for layer in own]
            if recent is None:
                vectors = compute(texts)
            else:
                vectors = recent.through(self._vectors_of(name), texts, wanted, compute)
            found |= {
                layer: torch.from_numpy(vectors[one])
                for layer, one in zip(own, wanted, strict=True)
            }
        return found

    def _given_vectors(self, name: str, texts: Sequence[str], end: float) -> np.ndarray:
        """Get vectors that are computed elsewhere. Shape: (texts, width), float32.

        What a server gives is kept in the cache, since it may have a price. A classifier that was
        read from a folder asks no server and reads no file that only the folder names.
        """
        if name in self.unasked:  # told before anything that the classifier names is opened
            if self.config.backbone[name].vectors:
                column = self.config.backbone[name].column
                inside = f"the table with a column {column!r}, or " if column else ""
                raise UserError(
                    f"backbone {name}: its vectors were computed elsewhere, and texts alone have"
                    f" none; predict takes {inside}--vectors {name}=FILE; in Python"
                    f' classifier.with_vectors("{name}", FILE)'
                )
            raise UserError(
                f"backbone {name}: its vectors come from {self.unasked[name]}, which no classifier"
                f" asks without your word: --endpoint {name}={self.unasked[name]} (in Python"
                f' endpoints={{"{name}": "{self.unasked[name]}"}})'
            )
        source = self._givers[name]
        if isinstance(source, VectorFile):
            return source.find(texts)
        if isinstance(source, Pipeline):
            with _passing:
                return source.find(texts, self.config.extract.device)
        alone = replace(self.config.extract, shard=0, num_shards=1)
        where = f"backbone {name}: {source.origin}"
        with self._breakers.setdefault(name, Breaker(where)).asking(end) as left:
            source.extract([texts], alone, left=left)
        return source.store.read([text_hash(text) for text in texts], [LAYER])[LAYER]

    @cached_property
    def _breakers(self) -> dict[str, Breaker]:
        """Server of vectors to what keeps texts from it while it fails."""
        return {}

    @cached_property
    def _givers(self) -> dict[str, GivenSource | VectorFile | Pipeline]:
        """The sources whose vectors are computed elsewhere, and which the classifier may ask."""
        cache, text = Path(self.config.paths.cache), self.config.dataset.text
        dtype = self.config.extract.store_dtype
        found: dict[str, GivenSource | VectorFile | Pipeline] = {}
        for name in self.given:
            own = self.config.backbone[name]
            if name in self.unasked:
                continue
            if own.pipeline:
                with _naming_the_way_out(name):
                    pipeline = open_pipeline(name, own, cache)
                self._require_same(name, pipeline.asset, lambda pipeline=pipeline: pipeline.content)
                found[name] = pipeline
            elif own.vectors:
                found[name] = VectorFile(name, own, text, cache)
            else:
                found[name] = open_given(name, own, cache, text=text, store_dtype=dtype)
        return found

    def _embedded(
        self, name: str, texts: Sequence[str], tally: UnknownTally, *, every: bool
    ) -> Vectors:
        """Compute the layers of one model, without the blocks above the highest layer.

        With `every`, the layers below that are not used come too, which costs little: another
        classifier may want them.
        """
        now = own_code(self.config, self.layers, ())  # a notebook may have run the file anew
        fresh = {path: source for path, source in now.items() if path not in self.told}
        self.told.update(warn_of_other_code(str(self.folder or "classifier"), self.code, fresh))
        backbone = self._backbones[name]
        of_model = [layer for layer in self.layers if layer.backbone == name]
        wanted: dict[str, list[str]] = {}
        for layer in of_model:
            if layer.layer not in backbone.shape.layers:
                raise unknown(f"classifier: layer of {name}", layer.layer, backbone.shape.layers)
            wanted.setdefault(layer.pooling, []).append(layer.layer)
        if every:
            known = backbone.shape.layers
            top = max(known.index(layer.layer) for layer in of_model)
            wanted = {pooling: list(known[: top + 1]) for pooling in wanted}
        tokens = backbone.tokenize(texts, self.config.backbone[name])
        tally.add((text.own for text in tokens), (text.unknown for text in tokens))
        tally.cut += sum(text.cut > 0 for text in tokens)
        order = sorted(range(len(texts)), key=lambda row: -tokens[row].cost)
        usual = CPU_BUDGETS[1] if backbone.device.type == "cpu" else GPU_BUDGETS[0]
        budget = self.config.extract.token_budget or usual
        poolings = {pooling: self.config.pooling[pooling] for pooling in wanted}
        with _passing:
            vectors, _ = embed(backbone, [tokens[row] for row in order], wanted, poolings, budget)
        back = np.argsort(order)
        return {one: values[back] for one, values in vectors.items()}

    def _vectors_of(self, name: str) -> str:
        """Name everything that the vectors of a model depend on, besides the text."""
        used = {layer.pooling for layer in self.layers if layer.backbone == name}
        known = {pooling: self.config.pooling[pooling] for pooling in sorted(used)}
        poolings = {name: [asdict(x), pooling_identity(x.pool)] for name, x in known.items()}
        settings = asdict(self.config.backbone[name])
        device = self.config.extract.device
        return json.dumps([self.models[name].content, settings, poolings, device])

    @cached_property
    def _backbones(self) -> dict[str, Backbone]:
        """The language models of its layers, with checked weights."""
        names = dict.fromkeys(layer.backbone for layer in self.layers)
        elsewhere = {*self.lexical, *self.given}
        return {name: self._load(name) for name in names if name not in elsewhere}

    def _load(self, name: str) -> Backbone:
        config, cache = self.config.backbone[name], Path(self.config.paths.cache)
        sources = asset_sources(config)
        with _naming_the_way_out(name):
            asset = resolve(sources, key=f"backbone.{name}", kind="backbone", cache=cache)
        self._require_same(name, asset, lambda: content_identity(asset.path, cache))
        key = (self.models[name].content, repr(config), self.config.extract.device)
        backbone = _loaded.get(key)
        if backbone is None:
            backbone = load_backbone(name, asset.path, config, self.config.extract.device)
            _loaded[key] = backbone
        return backbone

    def _require_same(self, name: str, asset: Asset, content: Callable[[], str]) -> None:
        """Refuse other files than those that its heads were trained with.

        Args:
            name: name of the source.
            asset: the files.
            content: computes their sha256, if they come from another origin.
        """
        model = self.models[name]
        if asset.identity != model.identity and content() != model.content:
            raise UserError(
                f"backbone {name}: {asset.origin} does not hold the files that the classifier was"
                f" trained with, which came from {model.origin}"
            )


@contextmanager
def _naming_the_way_out(name: str) -> Iterator[None]:
    """Say how a classifier is told where the files of one of its models are now."""
    try:
        yield
    except NoSource as error:
        raise UserError(
            f"{error}; where its files lie now, say with --model {name}=FOLDER (in Python"
            f' load(…, models={{"{name}": FOLDER}}))'
        ) from error


_together: ContextVar[dict[str, UnknownTally] | None] = ContextVar("together", default=None)
"""Counts of the unknown tokens by backbone, where texts are classified in parts."""


@contextmanager
def counted_together() -> Iterator[dict[str, UnknownTally]]:
    """Warn once of the unknown tokens of all texts that are classified inside the block.

    Yields:
        The counts by backbone, which are whole at the end of the block.
    """
    tallies: dict[str, UnknownTally] = {}
    token = _together.set(tallies)
    try:
        yield tallies
        _warn(tallies)
    finally:
        _together.reset(token)


def _warn(tallies: Mapping[str, UnknownTally]) -> None:
    for tally in tallies.values():
        tally.warn()


_loaded: WeakValueDictionary[tuple[str, str, str], Backbone] = WeakValueDictionary()
"""Language models in use. Classifiers that live at the same time share them."""
_passing = threading.Lock()
"""Held while texts pass through a model, whose hooks would take the states of another thread's."""
