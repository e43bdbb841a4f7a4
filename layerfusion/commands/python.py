"""The commands as Python functions: data sets in memory in, arrays and data frames out.

Each composes the same config that the command line composes, so that a job has the same name, the
same cache and the same record, whoever asked for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from layerfusion.assets.paths import real_path
from layerfusion.calls import plain_calls
from layerfusion.commands.blocks import find_blocks
from layerfusion.commands.overrides import (
    ANY_MODEL,
    NO_DATASET,
    SETTINGS,
    Names,
    config_of,
    is_config,
)
from layerfusion.commands.python_messages import naming_arguments
from layerfusion.config.check import check_dataset, refuse_time_limit
from layerfusion.config.imports import import_object
from layerfusion.config.job import DatasetConfig, LimitConfig
from layerfusion.config.registry import REPORT_SECTIONS
from layerfusion.errors import UserError, naming_extras
from layerfusion.texts.columns import Columns
from layerfusion.texts.dataset import TextDataset, dataset_from_tables
from layerfusion.texts.from_memory import tables_of
from layerfusion.texts.strings import strings_of

if TYPE_CHECKING:
    from layerfusion.embeddings.given import GivenSource
    from layerfusion.embeddings.source import EmbeddingSource
    from layerfusion.layers.selection import Selection
    from layerfusion.records.job import RunRecord
    from layerfusion.records.profile import Profile
    from layerfusion.runs.bundle import Bundle

_ARGUMENTS = {
    **{
        f"dataset.{name}": name
        for name in (
            "name",
            "text",
            "label",
            "label_names",
            "multilabel",
            "label_separator",
            "label_columns",
            "group",
            "test_size",
            "validation_size",
            "split_seed",
        )
    },
    "limit.train": "train",
    "limit.test": "test",
}
"""Key of the config to the argument of `load_dataset` that sets it."""


@naming_extras()
@plain_calls()
@naming_arguments(_ARGUMENTS)
def load_dataset(
    data: Any,
    labels: Any = None,
    *,
    name: str | None = None,
    text: str | int = "text",
    label: str | int = "label",
    label_names: Sequence[str] = (),
    multilabel: bool = False,
    label_separator: str | None = None,
    label_columns: Sequence[str] = (),
    groups: Any = None,
    group: str | int | None = None,
    test_size: float = 0.2,
    validation_size: float = 0.1,
    split_seed: int = 0,
    train: int | None = None,
    test: int | None = None,
    seed: int = 0,
    cache: str | Path = "outputs/cache",
) -> TextDataset:
    """Load labelled texts, and make the splits that they lack as the command line does.

    Args:
        data: a file or folder; the name of a data set in `conf/dataset`; a pandas DataFrame; a
            `datasets.Dataset`; a list of rows, each a dict of column to cell or a pair of a text
            and its label; a mapping of split to one of these three, such as a
            `datasets.DatasetDict`; or texts, with their labels beside them.
        labels: one for each text, where `data` holds texts alone; or a list of any number of them
            for each, or a matrix of 0 and 1 (of NumPy, SciPy or pandas) of shape (texts, labels).
        name: what reports call it; None for the name of the file.
        text: name of the text column.
        label: name of the label column.
        label_names: names of the integer labels 0, 1, …, or the order of string labels.
        multilabel: a text has any number of labels. In memory, lists say so themselves.
        label_separator: what stands between the labels of a text, in a column of strings.
        label_columns: columns of 0 and 1, one for each label, in the place of `label`.
        groups: group of each row, such as its author, beside `labels`: a text or number, or None
            for a row without one. Rows of a group are in the same split, and in the same fold of
            whatever learns from them, as by scikit-learn's `StratifiedGroupKFold`.
        group: name of the column of groups, where `data` is a table.
        test_size: share of the rows that becomes test where the data has none.
        validation_size: share of train that becomes validation where the data has none.
        split_seed: draws these splits, stratified by class.
        train: rows of a stratified sample of train and validation; None for all rows.
        test: rows of a stratified sample of test; None for all rows.
        seed: draws these samples, as that of a job draws its own.
        cache: downloads lie there.

    Returns:
        The texts and classes of train, validation and test, with a fingerprint of their content.

    Raises:
        UserError: for data that cannot be read, naming the file, row, column or label.

    Example:
        >>> data = load_dataset(texts, labels, name="reviews")
        >>> data.label_names, {split: len(rows) for split, rows in data.splits.items()}
        (('neg', 'pos'), {'train': 58, 'validation': 6, 'test': 16})
        >>> genres = [["drama"], ["drama", "war"], [], ["war"]] * 20
        >>> several = load_dataset(texts, genres)
        >>> several.label_names, several.splits["train"].labels.shape
        (('drama', 'war'), (58, 2))
    """
    limit = LimitConfig(train=train, test=test)
    text, label = str(text), str(label)  # pandas may have numbers for names
    label_names, label_columns = list(map(str, label_names)), list(map(str, label_columns))
    given = {"text": text, "label": label, "test_size": test_size, "split_seed": split_seed}
    given |= {"validation_size": validation_size, "multilabel": multilabel}
    given |= {"label_separator": label_separator, "label_columns": label_columns}
    if groups is not None and labels is None:
        raise UserError("load_dataset: groups= goes with texts and labels=; group= names a column")
    if groups is not None and group is not None:
        raise UserError("load_dataset: groups= and group= both say the groups; leave out one")
    given["group"] = None if group is None else str(group)
    if isinstance(data, str | Path):
        if labels is not None:
            raise UserError("load_dataset: labels= goes with texts in memory, not with a path")
        settings: dict[str, Any] = {"limit.train": train, "limit.test": test}
        settings |= {"seed": seed, "paths.cache": cache}
        if is_config("dataset", data):
            for key, value in given.items():
                if value != getattr(DatasetConfig(str(data)), key):
                    raise UserError(
                        f"load_dataset: {key}= goes with files and with data in memory;"
                        f" conf/dataset/{data}.yaml says it for {data!r}"
                    )
        else:
            settings |= {f"dataset.{key}": value for key, value in given.items()}
        if label_names:
            settings["dataset.label_names"] = list(label_names)
        if name is not None:
            settings["dataset.name"] = name
        from layerfusion.runs.job_texts import dataset_of

        return dataset_of(config_of(data, ANY_MODEL, settings))
    called = name or "data"
    in_memory = DatasetConfig(called, **given)
    check_dataset(in_memory)
    columns = Columns(
        text,
        None if label_columns else label,
        {},
        encoding_key="encoding",
        multilabel=multilabel,
        label_separator=label_separator,
        label_columns=tuple(label_columns),
        group=given["group"],
    )
    tables = tables_of(data, labels, columns, called, label_names, groups=groups)
    if "train" not in tables:
        raise UserError(f"{called}: a split named train is needed; there are: {', '.join(tables)}")
    names = tuple(label_names) or tables["train"].label_names
    return dataset_from_tables(in_memory, limit, tables, names, "memory", seed=seed)


@naming_extras()
@plain_calls(settings=SETTINGS)
def open_backbones(
    backbone: Names, *, pooling: Names | None = None, **settings: Any
) -> dict[str, EmbeddingSource | GivenSource]:
    """Find the files of models and open their stores; nothing is extracted.

    Args:
        backbone: models: names in `conf/backbone`, folders, or `owner/name` on the Hugging Face
            hub.
        pooling: names in `conf/pooling`; None for that of `experiment`, or what a folder of
            sentence-transformers asks for, if it is the only model, or else the mean.
        **settings: other settings of the job: see `train`.

    Returns:
        Name to the model: its `expected_shape()` (layers, width, parameters, FLOPs), its `origin`,
        and a store of vectors for each pooling in `stores`.

    Raises:
        UserError: for a model whose files cannot be had.

    Example:
        >>> shape = open_backbones(model, cache=cache)["tiny"].expected_shape()
        >>> shape.layers, shape.width
        (('0', '1', '2', '3'), 32)
    """
    from layerfusion.runs.job_sources import open_backbones

    return open_backbones(config_of(NO_DATASET, backbone, {"pooling": pooling, **settings}))


@naming_extras()
@plain_calls(settings=SETTINGS)
def extract(
    dataset: TextDataset | str | Path,
    backbone: Names,
    *,
    pooling: Names | None = None,
    **settings: Any,
) -> None:
    """Pass every text of a data set through models once, and keep every layer in the cache.

    Args:
        dataset: from `load_dataset`, a path, or a name.
        backbone: models: names in `conf/backbone`, folders, or `owner/name` on the Hugging Face
            hub.
        pooling: names in `conf/pooling`; None for that of `experiment`, or what a folder of
            sentence-transformers asks for, if it is the only model, or else the mean.
        **settings: other settings of the job: see `train`.

    Raises:
        UserError: for a model or a text that cannot be had.

    Example:
        >>> extract(data, model, cache=cache)
    """
    from layerfusion.runs.job_sources import extract_all
    from layerfusion.runs.job_texts import dataset_of

    config = config_of(dataset, backbone, {"pooling": pooling, **settings})
    refuse_time_limit(config, "extract")
    extract_all(config, dataset_of(config))


@overload
def embed(  # pyright: ignore[reportOverlappingOverload]  # `all` is a string too
    texts: Sequence[str],
    backbone: str | Path,
    layers: Literal["all"] | Sequence[int] | list[str | int] | tuple[str | int, ...],
    *,
    pooling: str | None = None,
    cache: str | Path = "outputs/cache",
    **settings: Any,
) -> dict[str, np.ndarray]: ...


@overload
def embed(
    texts: Sequence[str],
    backbone: str | Path,
    layers: str | int = -1,
    *,
    pooling: str | None = None,
    cache: str | Path = "outputs/cache",
    **settings: Any,
) -> np.ndarray: ...


@naming_extras()
@plain_calls(settings=SETTINGS)
def embed(
    texts: Sequence[str],
    backbone: Names,
    layers: str | int | Sequence[str | int] = -1,
    *,
    pooling: Names | None = None,
    cache: str | Path = "outputs/cache",
    **settings: Any,
) -> np.ndarray | dict[str, np.ndarray]:
    """Embed texts with some layers of a frozen model; what is in the cache is not computed again.

    Args:
        texts: any strings; outer white space is left out.
        backbone: a name in `conf/backbone`, a folder, or `owner/name` on the Hugging Face hub.
        layers: one layer, or several: 0 is what enters the first block, i what leaves block i,
            `norm` the output of the final norm, -1 the last; `all` for every layer.
        pooling: a name in `conf/pooling`; None for what a folder of sentence-transformers asks for,
            or else the mean.
        cache: where vectors are kept.
        **settings: other settings of the job: see `train`.

    Returns:
        Vectors of shape (texts, width), float32; for several layers a dict of layer to vectors.

    Raises:
        UserError: for an empty text, a layer that the model does not have, or a model that cannot
            be had.

    Example:
        >>> embed(["a good film", "a bad plot"], model, 2, cache=cache).shape
        (2, 32)
        >>> list(embed(["a good film"], model, "all", cache=cache))
        ['0', '1', '2', '3']
    """
    from layerfusion.embeddings.cache_key import text_hash
    from layerfusion.embeddings.shape import layer_name
    from layerfusion.runs.job_sources import open_backbones

    stripped = strings_of(texts, "texts")
    if not stripped:
        raise UserError("texts: the list is empty")
    config = config_of(NO_DATASET, backbone, {"pooling": pooling, "paths.cache": cache, **settings})
    refuse_time_limit(config, "embed")
    for key, names in (("backbone", config.backbone), ("pooling", config.pooling)):
        if len(names) != 1:
            raise UserError(f"{key}: embed takes one, found {', '.join(names)}")
    (source,) = open_backbones(config).values()
    if isinstance(layers, str | int | Integral):  # a whole number of NumPy too
        listed, one = [layers], layers != "all"
    else:
        listed, one = list(layers), False

    def named(known: Sequence[str]) -> list[str]:
        return list(known) if listed == ["all"] else [layer_name(x, known) for x in listed]

    named(source.expected_shape().layers)  # refuses before the pass
    source.extract([stripped], config.extract)
    asked = named(source.shape.layers)  # which only a pass tells, if a model takes no empty tensors
    hashes = [text_hash(text) for text in stripped]
    (store,) = source.stores.values()
    found = store.read(hashes, list(dict.fromkeys(asked)))
    vectors = {layer: np.asarray(found[layer], np.float32) for layer in asked}
    return vectors[asked[0]] if one else vectors


@naming_extras()
@plain_calls(settings=SETTINGS)
def profile_layers(
    dataset: TextDataset | str | Path,
    backbone: Names,
    *,
    scores: Sequence[str] | None = None,
    pooling: Names | None = None,
    folder: str | Path | None = None,
    **settings: Any,
) -> Profile:
    """Score every layer of some models for a data set, from rows of train alone.

    Args:
        dataset: from `load_dataset`, a path, or a name.
        backbone: models, as in `extract`.
        scores: importance scores, names or `package.module:name`; None for all.
        pooling: names in `conf/pooling`; None for that of `experiment`, or what a folder of
            sentence-transformers asks for, if it is the only model, or else the mean.
        folder: where `profile.json` goes; None for one that the settings name.
        **settings: other settings of the job: see `train`.

    Returns:
        The profile; `frame()` has a row for each layer and a column for each score.

    Raises:
        UserError: for anything that the user can mend.

    Example:
        >>> profile = profile_layers(data, model, scores=["probe", "logme"], cache=cache,
        ...                          folder=outputs / "profile")
        >>> profile.frame()[["backbone", "layer"]].values.tolist()[0]
        ['tiny', '0']
    """
    from layerfusion.config.identity import profile_id
    from layerfusion.runs.profile import run_profile

    keys = {"pooling": pooling, **settings}
    if scores is not None:
        keys["profile.scores"] = list(scores)
    config = config_of(dataset, backbone, keys, command="profile")
    place = Path(folder or Path(config.paths.outputs) / "profiles" / profile_id(config))
    place.mkdir(parents=True, exist_ok=True)
    return run_profile(config, place)


@naming_extras()
@plain_calls(settings=SETTINGS)
def select_layers(
    dataset: TextDataset | str | Path,
    backbone: Names,
    how: str | Mapping[str, Sequence[int | str]] | None = None,
    *,
    pooling: Names | None = None,
    **settings: Any,
) -> Selection:
    """Choose layers of some models on train, with a reason for each.

    Args:
        dataset: from `load_dataset`, a path, or a name.
        backbone: models, as in `extract`.
        how: a name in `conf/layers`: last, all, even, top_k, adaptive, greedy, sparse, loes, or
            your own; or a dict of model to its layers. None for that of `experiment`, or else
            adaptive.
        pooling: names in `conf/pooling`; None for that of `experiment`, or what a folder of
            sentence-transformers asks for, if it is the only model, or else the mean.
        **settings: other settings of the job, such as `layers={"max_layers": 4}`: see `train`.

    Returns:
        The choices, each a layer with the reason and its share of the weight, and notes on the
        layers that were passed over.

    Raises:
        UserError: for anything that the user can mend.

    Example:
        >>> selection = select_layers(data, model, "last", cache=cache)
        >>> [str(choice.layer) for choice in selection.choices]
        ['tiny:3:mean']
    """
    from layerfusion.runs.job_sources import extract_all
    from layerfusion.runs.job_texts import dataset_of
    from layerfusion.runs.select_layers import select

    if how is None and settings.get("experiment") is None:
        how = "adaptive"
    config = config_of(dataset, backbone, {"pooling": pooling, **settings}, layers=how)
    refuse_time_limit(config, "select_layers")
    texts = dataset_of(config)
    return select(config, texts, extract_all(config, texts))


@dataclass(frozen=True)
class FinishedJob:
    """A job that has finished: its folder and what it left there."""

    folder: Path
    record: RunRecord

    @property
    def accuracy(self) -> float:
        """Mean accuracy on test over the seeds."""
        return self.record.test["accuracy"].mean

    def load(self) -> Bundle:
        """Load the classifier that the job left."""
        from layerfusion.runs.bundle_loading import load_bundle

        return load_bundle(self.folder)

    def __repr__(self) -> str:
        test = self.record.test.get("accuracy")
        measure = self.record.dataset.measure
        figure = "" if test is None else f", test {measure} {100 * test.mean:.1f} %"
        return f"FinishedJob({str(self.folder)!r}{figure})"


@naming_extras()
@plain_calls(settings=SETTINGS)
def train(
    dataset: TextDataset | str | Path,
    backbone: Names,
    *,
    layers: str | Mapping[str, Sequence[int | str]] | None = None,
    fusion: str | None = None,
    pooling: Names | None = None,
    lexical: Names | None = None,
    folder: str | Path | None = None,
    **settings: Any,
) -> FinishedJob:
    """Run one job, `layerfusion train` from Python; a finished job is read, not run again.

    Args:
        dataset: from `load_dataset`, a path, or a name.
        backbone: models, as in `extract`.
        layers: which layers become sources of the fusion: a name in `conf/layers`, or a dict of
            model to its layers, such as `{"minilm": [3, 6]}`. Where this or one of the next three
            is None, it is what the command line takes: that of `experiment`, or else the last.
        fusion: an operator, `stacked` or `auto`: a name in `conf/fusion`; or else gated.
        pooling: names in `conf/pooling`; or else that which a folder of sentence-transformers asks
            for, if it is the only model, or the mean.
        lexical: TF-IDF sources beside the layers: names in `conf/lexical`; or else none.
        folder: of the job; None for `outputs/runs/JOB`.
        **settings: other settings by the names that they have on the command line: `seeds=3`,
            `cache=FOLDER`, `config_dir=FOLDER` for files of yours, and a dict for the keys of a
            group, such as `trainer={"max_epochs": 20}` or `layers_={"k": 2}` where the name of the
            group is taken by an argument above.

    Returns:
        The folder of the job and its record; `load()` gives the classifier.

    Raises:
        UserError: for anything that the user can mend.

    Example:
        >>> job = train(data, model, layers="all", fusion="gated", seeds=1, cache=cache,
        ...             folder=outputs / "job", trainer={"max_epochs": 3})
        >>> classifier = job.load()
        >>> classifier.predict(["a good film"]).shape
        (1,)
    """
    from layerfusion.config.identity import job_id
    from layerfusion.runs.job import run_job

    begun = time.monotonic()
    keys = {"pooling": pooling, "lexical": lexical, **settings}
    config = config_of(dataset, backbone, keys, layers=layers, fusion=fusion)
    place = Path(folder or Path(config.paths.outputs) / "runs" / job_id(config))
    return FinishedJob(place, run_job(config, place, begun=begun))


@naming_extras()
@plain_calls()
def write_report(folder: str | Path, blocks: Sequence[str] = ()) -> Path:
    """Write the report of the finished jobs under a folder.

    Args:
        folder: of a sweep, of a job, or one that holds such folders.
        blocks: blocks of your own, `package.module:function` (docs/extend.md).

    Returns:
        The page, `report.html` in the folder; tables and figures lie beside it.

    Raises:
        UserError: where there is no finished job.

    Example:
        >>> write_report(outputs).name
        'report.html'
    """
    from layerfusion.report.page import write_report as write_page

    place = Path(folder)
    return write_page(
        place,
        place,
        title=real_path(place).name or "LayerFusion report",
        blocks=find_blocks("blocks", blocks),
        sections=[import_object("report", path) for path in REPORT_SECTIONS],
    )
