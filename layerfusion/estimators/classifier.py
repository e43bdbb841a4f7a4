"""`LayerFusionClassifier`: a whole job as an estimator of scikit-learn, over texts."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from layerfusion.calls import check_params, plain_methods
from layerfusion.commands.overrides import NO_DATASET, Names, config_of
from layerfusion.config.job import AUTO, UNWEIGHTED, TrainConfig
from layerfusion.errors import UserError, short
from layerfusion.estimators.rows import (
    Targets,
    classes_from_json,
    classes_to_json,
    indicators_of,
    names_of,
    repeats_of,
    row_names,
    seed_of,
    targets_of,
    text_list,
)
from layerfusion.layers.layer_id import LayerId
from layerfusion.runs.bundle_files import ESTIMATOR
from layerfusion.runs.bundle_loading import load_bundle
from layerfusion.runs.fitting import (
    LayerImportance,
    Trial,
    fit_texts,
    needs_validation,
    training_texts,
)
from layerfusion.runs.recent import RecentVectors
from layerfusion.statistics.answers import answers
from layerfusion.texts.groups import groups_beside
from layerfusion.texts.strings import other_order

if TYPE_CHECKING:
    from layerfusion.runs.bundle import Bundle

FUSED = "fused"
"""Stands in the first column of `explain` for the row of the whole classifier."""

OPTIONAL = {
    "pooling": "pooling",
    "long_texts": "long_texts",
    "seeds": "seeds",
    "lexical": "lexical",
    "time_limit": "time_limit",
    "budget": "layers.budget",
}
"""Parameters that may be None, which leaves what the config has, and their keys."""
_RECENT = RecentVectors()
"""What the classifiers of this process predicted last; a search predicts the same texts again."""
_ALONE = threading.RLock()
"""Held during a fit: Hydra's composition and the seeding of the heads are of the whole process."""


@plain_methods
class LayerFusionClassifier(ClassifierMixin, BaseEstimator):
    """Classifies texts by fused layers of frozen language models, and says why.

    An estimator of scikit-learn whose `X` is texts: a list, an array, a Series, or a data frame
    with one column. It works in `Pipeline`, `GridSearchCV` and `cross_val_score`. Vectors of texts
    are kept in the cache by the content of the text, so that every later fit on the same texts is
    quick. Everything that depends on labels is learned from the rows given to `fit` alone. No test
    split is made; a fused head that stops on validation keeps a part of the rows for that. What is
    not given is what the command line takes: where all is chosen (`fusion="auto"` of `adaptive`
    layers, the defaults) that of `experiment=auto`, and elsewhere that of a job.

    Where `y` gives a text any number of labels, as an indicator matrix or as lists of labels, each
    label is a decision of its own: `predict` gives an indicator matrix, and the probabilities of a
    text do not add up to 1.

    Args:
        models: language models: names in `conf/backbone`, folders, or `owner/name` on the Hugging
            Face hub; one or a list.
        layers: which layers become sources: a name in `conf/layers` (`last`, `all`, `even`,
            `adaptive`, `greedy`, `loes`, `sparse`, `top_k`), or a dict of model to its layers, such
            as `{"minilm": [3, 6]}`.
        fusion: an operator, `stacked` or `auto`: a name in `conf/fusion`. `auto` chooses layers and
            fusion by held-out rows.
        pooling: one or more names in `conf/pooling`. None: three where all is chosen; elsewhere the
            one that a folder of sentence-transformers asks for, if it is the only model, or else
            the mean.
        lexical: one or more TF-IDF sources beside the layers: names in `conf/lexical`. None: four
            where all is chosen, and none elsewhere; `()` for none.
        long_texts: how the models read texts that are too long for them: `truncate`; `windows`,
            which reads them whole; or `auto`, windows where many of the rows are too long and the
            cost is bounded. None: `auto` where all is chosen, and `truncate` elsewhere. `reading_`
            says which.
        seeds: number of heads, whose probabilities are averaged. Their seeds follow the one of
            `random_state`. None: one where all is chosen, and six elsewhere.
        objective: what the classifier should be best at: `log_loss`, `accuracy`, `macro_f1` or
            `micro_f1`. By it `auto` chooses the fusion and heads their epoch; but for the first,
            rare classes are named more often where held-out rows say that it gains.
        class_weight: None, or `balanced` to classify as if all classes were equally frequent.
        budget: limits on the cost of the layers: a dict with `flops_per_text`, `ms_per_text` or
            `max_layer`; None for none.
        time_limit: seconds that a fit may take; None for no limit. Models, candidates of `auto` and
            seeds that would not be ready in time are left out, the models that take longest first;
            `time_notes_` says which. What is left out depends on the machine.
        validation_size: share of the rows that a trained head stops on. Stacks, and `auto` where it
            only tries stacks, need none and learn from every row.
        random_state: seed of validation, folds and heads: a whole number, a
            `numpy.random.RandomState`, or None for another seed in each fit.
        device: where the language models run: auto, cpu, cuda, cuda:1 or mps.
        cache: folder of vectors, probes and downloads.
        settings: further settings of the job by the names of the command line, such as
            `{"layers.max_layers": 4, "trainer": {"max_epochs": 20}}`.

    Attributes:
        classes_: the classes or labels in order, in their type: those of a data frame's columns as
            they stand there, and 0, 1, … for the columns of an array. Shape: (classes,).
        layer_importances_: a data frame with a row for each layer that could be chosen: model,
            layer, pooling, whether it was chosen, its mean weight in the fusion (0 where it was not
            chosen, NaN where the operator has no weights), and log-loss and accuracy of its own
            probe on held-out rows (NaN where none was fitted).

        reading_: how the models read rows that are too long for them, a line each; empty where few
            are.
        time_notes_: what was left out to keep to `time_limit`, a line each; empty without a limit.

    Example:
        >>> classifier = LayerFusionClassifier(model, seeds=1, cache=cache).fit(texts, labels)
        >>> classifier.classes_.tolist(), classifier.predict(["a good film"]).shape
        (['neg', 'pos'], (1,))
        >>> classifier.predict_proba(["a good film", "a bad plot"]).shape
        (2, 2)
        >>> classifier.layer_importances_[["model", "layer"]].values.tolist()[0]
        ['tiny', '0']
        >>> classifier.save(outputs / "saved").name
        'saved'
        >>> LayerFusionClassifier.load(outputs / "saved").classes_.tolist()
        ['neg', 'pos']
    """

    classes_: np.ndarray
    layer_importances_: pd.DataFrame
    reading_: list[str]
    time_notes_: list[str]

    def __init__(
        self,
        models: Names = "minilm",
        *,
        layers: str | Mapping[str, Sequence[int | str]] = "adaptive",
        fusion: str = "auto",
        pooling: Names | None = None,
        lexical: Names | None = None,
        long_texts: str | None = None,
        seeds: int | None = None,
        objective: str = "log_loss",
        class_weight: str | None = None,
        budget: Mapping[str, float] | None = None,
        time_limit: float | None = None,
        validation_size: float = 0.1,
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
        cache: str | Path = "outputs/cache",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.models = models
        self.layers = layers
        self.fusion = fusion
        self.pooling = pooling
        self.lexical = lexical
        self.long_texts = long_texts
        self.seeds = seeds
        self.objective = objective
        self.class_weight = class_weight
        self.budget = budget
        self.time_limit = time_limit
        self.validation_size = validation_size
        self.random_state = random_state
        self.device = device
        self.cache = cache
        self.settings = settings

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Choose layers and fusion, and fit the classifier, on these rows alone.

        Args:
            X: texts. Outer white space is left out.
            y: one label for each text: integers, strings, booleans or whole floats. Or any number
                of labels for each: an indicator matrix of 0 and 1, shape (texts, labels), as an
                array, a data frame whose columns are the labels, or a sparse matrix; or a list of
                lists or sets of labels. A warning names the labels that no row has, which are never
                predicted, and those that every row has, which always are; classes that may be one;
                and an index that has the rows of `X` in another order, as rows go by position.
            sample_weight: how many times each row counts, in whole numbers from 0; once if None.
                Probes, choices, stacks and heads are those of the rows written so many times.
            groups: the group of each row, such as its author: a text or number, or None for a row
                without one. Rows of a group are never learned from and judged on at a time, as by
                scikit-learn's `GroupKFold`, and what is chosen is sure as far as groups show it.

        Raises:
            UserError: a `ValueError` for anything that the user can mend, in one line.
        """
        begun = time.monotonic()
        texts = text_list(X, "fit")
        if wrong := other_order(X, y):
            warnings.warn(f"fit: {wrong}", UserWarning, stacklevel=3)
        repeats = repeats_of(sample_weight, len(texts))
        named = groups_beside(groups, X, len(texts), "fit")
        kept = None
        if repeats is not None and not repeats.all():
            kept = np.flatnonzero(repeats)
        targets = targets_of(y, len(texts), kept)
        if repeats is not None and kept is not None:
            texts, repeats = [texts[row] for row in kept], repeats[kept]
            named = None if named is None else tuple(named[row] for row in kept)
        _warn_of_constant(targets)
        seed = seed_of(self.random_state)
        with _ALONE, isolate_rng():
            config = self._config(seed)
            validated = needs_validation(config)
            dataset = training_texts(
                texts,
                targets.codes,
                targets.names,
                validation_size=self.validation_size if validated else None,
                seed=seed,
                repeats=repeats,
                groups=named,
            )
            fitted = fit_texts(config, dataset, begun=begun)
        self.classes_ = targets.classes
        self._seed = seed
        self._keep(fitted.bundle, fitted.importances, fitted.trials)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each text. Shape: (texts,).

        Where texts have any number of labels, return 1 for those that a text has and 0 for others,
        in the order of `classes_`, whatever form `y` had. Shape: (texts, labels), int64.
        """
        probabilities, multilabel = self.predict_proba(X), self._bundle.multilabel
        said = answers(probabilities, multilabel=multilabel)
        return said.astype(np.int64) if multilabel else self.classes_[said]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy: the share of the texts whose class is right, or all of their labels.

        Args:
            X: texts.
            y: their labels, in any form that `fit` takes.
            sample_weight: weight of each text; all count alike if None.
        """
        check_is_fitted(self)
        if not self._bundle.multilabel:
            return super().score(X, y, sample_weight)
        right = indicators_of(y, self.classes_)
        said = self.predict(X)
        said = np.pad(said, ((0, 0), (0, right.shape[1] - said.shape[1])))
        return float(accuracy_score(right, said, sample_weight=sample_weight))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities in the order of `classes_`. Shape: (texts, classes), float32.

        Those of classes add up to 1; each label has a probability of its own.
        """
        check_is_fitted(self)
        return self._bundle.probabilities(text_list(X, "predict"), _RECENT)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of `predict_proba`. Shape: (texts, classes), float32."""
        with np.errstate(divide="ignore"):  # a probability of 0 has that of minus infinity
            return np.log(self.predict_proba(X))

    def gates(self, X: Any) -> pd.DataFrame:
        """Return the weight that each source has for each text.

        Returns:
            A row for each text, with its index where `X` has one, and a column for each source,
            such as `minilm:3:mean`; the mean over the seeds. The weights of a gated operator
            differ from text to text, and so do those of a stack where held-out rows are sure that
            this helps; others are the same for all texts. They add up to 1, but for a stack of many
            sources: its weights may be negative, and their absolute values add up to 1 (where they
            differ from text to text, and with `late_stack`, about 1). The weight of the head in a
            `late_stack` is shared out among the sources that it reads.

        Raises:
            UserError: if the operator has no weights, such as `concat`.
        """
        check_is_fitted(self)
        found = []
        for features in self._features(text_list(X, "gates")):
            gates = [head.predict(features)[1] for head in self._bundle.heads]
            if any(one is None for one in gates):
                raise UserError(
                    f"gates: fusion={self._bundle.facts['fusion']} has no weights of its sources;"
                    " gated, scalar_mix, late, stacked, gated_stack and late_stack have"
                )
            found.append(torch.stack([one for one in gates if one is not None]).double().mean(0))
        columns = [str(layer) for layer in self._bundle.layers]
        return pd.DataFrame(torch.cat(found).numpy(), index=row_names(X), columns=columns)

    def explain(self, text: str) -> pd.DataFrame:
        """Show what each source says of a text, and what the classifier makes of it.

        A source of a stack has a probe of its own, whose probabilities these are. For a trained
        operator they are those of the whole head where every other source is at its mean over the
        training rows.

        Returns:
            A row for each source, and at the end one for the classifier, whose model is `fused`:
            model, layer, pooling, weight (as in `gates`, NaN where there is none), the class it
            says (a list of labels, where texts have any number of them), and the probability of
            each class as `p(CLASS)`.

        Raises:
            UserError: for anything but one string with a word.
        """
        check_is_fitted(self)
        (features,) = self._features(text_list([text], "explain"))
        heads = self._bundle.heads
        final = self._bundle.probabilities([text], _RECENT)
        each = torch.stack([head.each_source(features).double().exp() for head in heads]).mean(0)
        gates = [gate for head in heads if (gate := head.predict(features)[1]) is not None]
        sources = len(self._bundle.layers)
        weights = torch.stack(gates).double().mean(0)[0].tolist() if gates else [np.nan] * sources
        said = np.concatenate([each[:, 0].numpy(), final])
        places = [(layer.backbone, layer.layer, layer.pooling) for layer in self._bundle.layers]
        frame = pd.DataFrame([*places, (FUSED, "", "")], columns=["model", "layer", "pooling"])
        frame["weight"] = [*weights, np.nan]
        best = answers(said, multilabel=self._bundle.multilabel)
        if self._bundle.multilabel:
            frame["says"] = [self.classes_[row].tolist() for row in best]
        else:
            frame["says"] = self.classes_[best]
        for label, column in zip(self.classes_.tolist(), said.T, strict=True):
            frame[f"p({label})"] = column
        return frame

    def drift(self, X: Any) -> pd.DataFrame:
        """Compare texts with those that the classifier learned from, without labels.

        Answers are compared with those to held-out rows: of a stack, rows of train that its probes
        had not seen, and of a trained head, those that it stopped on. How the models read the texts
        is compared with all rows.

        Args:
            X: new texts, better hundreds than a few; one that is repeated counts once.

        Returns:
            A row for each comparison: `what` is compared; `where` has the largest difference, and
            `before` and `now` are the shares there; `index` is the population stability index;
            `shown` is the least one that could be told from chance; `p`, and `p_holm` over all
            comparisons; `verdict`: alike, somewhat unlike or unlike.

        Raises:
            UserError: for a classifier that an older version saved.
        """
        check_is_fitted(self)
        return self._bundle.drift(text_list(X, "drift"))

    def leaderboard(self) -> pd.DataFrame:
        """List everything that was tried, the lowest held-out log-loss first.

        Returns:
            A row for each single layer with a probe of its own (`probe`) and each fusion: fusion,
            width (NaN where it has none), layers, number of sources, the rows that the figures are
            of, log-loss in nats, accuracy, log-loss (or 1 minus the accuracy or F1 that is the
            objective) behind the chosen one and its standard error (NaN where not compared), GFLOPs
            a text, and whether it was chosen. None of the rows taught what is judged on it. The
            best of many is a little luckier than it will be on new texts. A probe may so stand
            above the chosen fusion: its layer is known from these rows, and a fusion chose its
            layers without them.
        """
        check_is_fitted(self)
        rows = [asdict(trial) for trial in self._trials]
        frame = pd.DataFrame(rows, columns=list(Trial.__dataclass_fields__))
        frame["gflops"] = frame.pop("flops_per_text").astype("float64") / 1e9
        frame["sources"] = frame["layers"].map(len)
        frame["layers"] = frame["layers"].map(" ".join)
        numbers = ["width", "log_loss", "accuracy", "behind", "behind_error", "gflops"]
        frame = frame.astype(dict.fromkeys(numbers, "float64"))
        order = ["fusion", "width", "layers", "sources", "judged_on", "log_loss", "accuracy"]
        return frame.reindex(columns=[*order, "behind", "behind_error", "gflops", "chosen"])

    def save(self, folder: str | Path) -> Path:
        """Write the fitted classifier to a folder of JSON and safetensors files, without pickle.

        The folder holds no language models. It names them with the hashes of their weights, and
        they are found again on use. It is a classifier of `layerfusion predict` and `layerfusion.
        load` too.

        Args:
            folder: made where it is missing; one that holds other files is refused.

        Raises:
            UserError: where the folder is not empty, or a parameter cannot be written.
        """
        check_is_fitted(self)
        facts = {
            "params": {name: _json(name, value) for name, value in self._saved_params().items()},
            "classes": classes_to_json(self.classes_),
            "importances": [asdict(one) for one in self._importances],
            "trials": [asdict(one) for one in self._trials],
        }
        bundle = self._bundle
        whole = replace(bundle, folder=None, facts={**bundle.facts, ESTIMATOR: facts})
        return whole.save(folder)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str = "auto",
        cache: str | Path | None = None,
        models: Mapping[str, str | Path] | None = None,
        modules: Sequence[str] = (),
        endpoints: Mapping[str, str] | None = None,
        tokens: Mapping[str, str] | None = None,
    ) -> Self:
        """Read a classifier that `save` wrote.

        Args:
            folder: the folder.
            device: where the language models run.
            cache: folder of downloaded models; None for the one that was used, if it is here.
            models: for some models, a folder with their files that replaces where they came from.
            modules: modules outside LayerFusion that its operator and its poolings may be imported
                from.
            endpoints: for some models whose vectors come from a server, the address to ask, which
                is needed even if the classifier names one.
            tokens: for some of these, the name of the environment variable that holds their token.

        Raises:
            UserError: if there is no such classifier, or it is damaged.
        """
        bundle = load_bundle(
            folder,
            device=device,
            cache=None if cache is None else str(cache),
            models=models,
            modules=modules,
            endpoints=endpoints,
            tokens=tokens,
        )
        if ESTIMATOR not in bundle.facts:
            raise UserError(
                f"{folder}: it holds the classifier of a job, not a {cls.__name__};"
                " layerfusion.load reads it"
            )
        kept = bundle.facts[ESTIMATOR]
        try:
            estimator = cls(**kept["params"])
            estimator.classes_ = classes_from_json(kept["classes"])
            written = [str(label) for label in estimator.classes_.tolist()]  # 1.0, as it once was
            if list(bundle.label_names) not in (names_of(estimator.classes_), written):
                raise ValueError("its classes are not those of its heads")
            importances = [
                LayerImportance(**{**one, "layer": LayerId(**one["layer"])})
                for one in kept["importances"]
            ]
            trials = [Trial(**one) for one in kept["trials"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{folder}: the classifier is damaged, or of another version: {error}"
            ) from error
        estimator.set_params(device=device, cache=bundle.config.paths.cache)
        estimator._seed = bundle.config.seed
        estimator._keep(bundle, importances, trials)
        return estimator

    def __sklearn_tags__(self) -> Any:
        """Say that texts are read, in one dimension, and that they may have several labels."""
        tags = super().__sklearn_tags__()
        if tags.classifier_tags is not None:
            tags.classifier_tags.multi_label = True
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        """Return the class and the parameters that differ from the defaults, in one line."""
        return " ".join(super().__repr__(N_CHAR_MAX).split())

    def _config(self, seed: int) -> TrainConfig:
        """Compose the config of the job that the parameters describe."""
        check_params(self)
        if not 0 < self.validation_size < 1:
            raise UserError(
                f"validation_size: a share between 0 and 1 is needed, found"
                f" {short(self.validation_size)}"
            )
        keys: dict[str, Any] = {
            "seed": seed,
            "objective": self.objective,
            "class_weights": UNWEIGHTED if self.class_weight is None else self.class_weight,
            "extract.device": self.device,
            "cache": self.cache,
        }
        if self.fusion == AUTO and self.layers == "adaptive":
            keys["experiment"] = "auto"
        for name, key in OPTIONAL.items():
            if (value := getattr(self, name)) is not None:
                keys[key] = value
        keys |= self.settings or {}
        return config_of(NO_DATASET, self.models, keys, layers=self.layers, fusion=self.fusion)

    def _features(self, texts: Sequence[str]) -> list[list[Tensor]]:
        """Compute the sources of some texts after the other. Shapes: (texts, width)."""
        pieces = self._bundle.vectors(texts, _RECENT)
        return [[vectors[layer] for layer in self._bundle.layers] for vectors in pieces]

    def _keep(
        self, bundle: Bundle, importances: list[LayerImportance], trials: list[Trial]
    ) -> None:
        self._bundle = bundle
        self.reading_ = list(bundle.facts.get("reading", []))
        self.time_notes_ = list(bundle.facts.get("time_notes", []))
        self._importances = importances
        self._trials = trials
        self.layer_importances_ = pd.DataFrame(
            [
                {
                    "model": one.layer.backbone,
                    "layer": one.layer.layer,
                    "pooling": one.layer.pooling,
                    "chosen": one.chosen,
                    "weight": one.weight,
                    "log_loss": one.log_loss,
                    "accuracy": one.accuracy,
                }
                for one in importances
            ]
        ).astype(dict.fromkeys(("weight", "log_loss", "accuracy"), "float64"))

    def _saved_params(self) -> dict[str, Any]:
        """Return the parameters, with the seed that was used in place of a generator."""
        params = self.get_params(deep=False)
        if params["random_state"] is not None:
            params["random_state"] = self._seed
        return params


def _warn_of_constant(targets: Targets) -> None:
    """Warn of labels that cannot be learned, as OneVsRestClassifier of scikit-learn does."""
    if not targets.multilabel:
        return
    for which, rows in (("no row has", ~targets.codes.any(axis=0)),
                        ("every row has", targets.codes.all(axis=0))):  # fmt: skip
        if rows.any():
            names = ", ".join(map(repr, targets.classes[rows].tolist()[:8]))
            more = f" and {rows.sum() - 8} more" if rows.sum() > 8 else ""
            warnings.warn(f"fit: {which} the label {names}{more}", UserWarning, stacklevel=4)


def _json(name: str, value: Any) -> Any:
    """Return a parameter as JSON holds it.

    Raises:
        UserError: for a value that JSON does not hold.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _json(name, entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json(name, entry) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"save: {name}={short(value)} is of type {type(value).__name__}; write a name")
