"""`rank`: which of several language models suits some labelled texts, before any is trained on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfusion.calls import plain_calls
from layerfusion.commands.overrides import NO_DATASET, SETTINGS, Names, config_of
from layerfusion.config.check import refuse_time_limit
from layerfusion.estimators.rows import targets_of, text_list
from layerfusion.layers.candidates import all_layers
from layerfusion.layers.repeats import standard_error
from layerfusion.runs.fitting import probe_layers, training_texts
from layerfusion.runs.inputs import prepare_texts
from layerfusion.runs.select_layers import budget_of
from layerfusion.texts.groups import groups_beside

if TYPE_CHECKING:
    from pandas import DataFrame


@plain_calls(settings=SETTINGS)
def rank(
    models: Names,
    texts: Any,
    y: Any,
    *,
    groups: Any = None,
    pooling: Names | None = None,
    cache: str | Path = "outputs/cache",
    **settings: Any,
) -> DataFrame:
    """Rank language models by the best layer of each, by linear classifiers on held-out folds.

    The best of a model's layers is chosen on the same rows that its figures are of, so that models
    with many layers are flattered a little. No test rows are needed.

    Args:
        models: names in `conf/backbone`, folders, or `owner/name` on the Hugging Face hub.
        texts: a list, array, Series, or data frame with one column.
        y: one label for each text, or any number of them, as `LayerFusionClassifier.fit` takes
            them; accuracy is then the share of the texts whose labels are all right.
        groups: group of each text, such as its author, as `LayerFusionClassifier.fit` takes them.
        pooling: one or more names in `conf/pooling`; each pooling of a layer is judged. None for
            that which a folder of sentence-transformers asks for, if it is the only model, or else
            the mean.
        cache: folder of vectors, probes and downloads.
        **settings: other settings of the job: see `train`.

    Returns:
        A row for each model, the lowest log-loss first: model, best layer and pooling, its
        held-out accuracy and log-loss in nats, the standard error of the log-loss, GFLOPs a text up
        to that layer; and the cheapest layer whose log-loss is within a standard error of the best
        one, with its accuracy and GFLOPs.

    Raises:
        UserError: for anything that the user can mend.

    Example:
        >>> rank([model], texts, labels, cache=cache)[["model"]].values.tolist()
        [['tiny']]
    """
    import pandas as pd

    stripped = text_list(texts, "rank")
    targets = targets_of(y, len(stripped))
    keys = {"pooling": pooling, "paths.cache": cache, **settings}
    config = config_of(NO_DATASET, models, keys, layers="last", fusion="stacked")
    refuse_time_limit(config, "rank")
    dataset = training_texts(
        stripped,
        targets.codes,
        targets.names,
        validation_size=None,
        seed=0,
        groups=groups_beside(groups, texts, len(stripped), "rank"),
    )
    inputs = prepare_texts(config, dataset)
    layers = all_layers(inputs.sources)
    budget = budget_of(config, dataset, inputs.sources)
    # One model after the other: only the best layers of those judged together have a regression.
    probes = [
        held_out
        for name in inputs.sources
        for held_out in probe_layers(config, inputs, [x for x in layers if x.backbone == name])
    ]
    costs = [budget.cost([layer]) for layer in layers]
    flops = [cost.flops for cost in costs]
    gflops = [math.nan if cost.known_flops is None else cost.flops / 1e9 for cost in costs]
    rows = []
    for name in inputs.sources:
        own = [n for n, layer in enumerate(layers) if layer.backbone == name]
        best = min(own, key=lambda n: probes[n].log_loss)
        behind = {n: probes[n].losses - probes[best].losses for n in own}
        errors = {n: standard_error(behind[n], probes[n].text_of) for n in own}
        as_good = [n for n in own if float(behind[n].mean()) <= errors[n]]
        cheap = min([best, *as_good], key=lambda n: flops[n])
        rows.append(
            {
                "model": name,
                "layer": layers[best].layer,
                "pooling": layers[best].pooling,
                "accuracy": probes[best].accuracy,
                "log_loss": probes[best].log_loss,
                "log_loss_error": standard_error(probes[best].losses, probes[best].text_of),
                "gflops": gflops[best],
                "cheap_layer": layers[cheap].layer,
                "cheap_pooling": layers[cheap].pooling,
                "cheap_accuracy": probes[cheap].accuracy,
                "cheap_gflops": gflops[cheap],
            }
        )
    order = np.argsort([row["log_loss"] for row in rows], kind="stable")
    return pd.DataFrame([rows[n] for n in order])
