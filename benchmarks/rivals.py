"""`fusion=auto` against what people do instead, on the same rows and the same models.

Run: python -m benchmarks.rivals mr r8 'backbone=[minilm,granite]' limit.train=2000 limit.test=1500

Words with `=` are settings of every job, all others are data sets. The rivals are TF-IDF and
logistic regression; logistic regression on the embedding of each model and on all of them side by
side; scikit-learn's StackingClassifier over them, without TF-IDF and with it, and over the best
layer of each model by its probe and TF-IDF of words and of characters; the last layers side by side
under a trained head, as published fusion scripts have it, but with the epoch chosen on
validation; and the best single layer by its probe. All are given the same labelled rows, validation
included, and are judged once on the same test rows; no choice sees test. Those of scikit-learn are
run once, jobs with each seed: the interval is of their mean, the test of their consensus.

Embeddings are those of sentence-transformers where it is installed (`pip install -e '.[bench]'`),
kept in the cache; with `--own-vectors`, or without it, the mean-pooled last layer of the cache.
Seconds are those of choosing, fitting and answering with all embeddings at hand; what `auto` finds
of earlier jobs' probes in the cache it does not fit again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rival_classifiers import Rows, Vectors, regression, stacking
from benchmarks.rival_tables import Race, Result, as_json, as_text
from layerfusion.assets.files import write_atomically
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.job import TrainConfig
from layerfusion.embeddings.source import EmbeddingSource, Source
from layerfusion.embeddings.spec import text_hash
from layerfusion.layers.candidates import read_layers
from layerfusion.layers.layer_id import LayerId
from layerfusion.records.job import METRICS, RunRecord
from layerfusion.report.jobs import read_job
from layerfusion.runs.baseline import compute_baseline
from layerfusion.runs.identity import job_id
from layerfusion.runs.inputs import dataset_of, extract_all, open_models
from layerfusion.runs.job import run_job
from layerfusion.runs.select_layers import budget_of, select
from layerfusion.statistics.intervals import metric_intervals
from layerfusion.statistics.metrics import evaluate
from layerfusion.texts import TextDataset

AUTO = "fusion=auto"
LAST = "last layers, concat and trained head"
BEST = "best single layer by probe"
JOBS = {
    AUTO: ("experiment=auto",),
    LAST: ("layers=last", "fusion=concat"),
    BEST: (
        "pooling=[mean,last]",
        "layers=top_k",
        "layers.k=1",
        "fusion=stacked",
    ),
}
"""What this program runs, `auto` first."""
SECONDS = "seconds.json"
LEXICAL = {"words": 30.0, "characters": 30.0}
"""Features and strength of the TF-IDF regressions that are stacked on the best layers."""


def main(arguments: Sequence[str] | None = None) -> list[Race]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--own-vectors", action="store_true", help="the cached last layers")
    known, words = parser.parse_known_args(arguments)
    datasets = [word for word in words if "=" not in word]
    settings = [word for word in words if "=" in word]
    if not datasets:
        parser.error("name at least one data set, for example: mr 'backbone=[minilm,granite]'")
    peers = not known.own_vectors and importlib.util.find_spec("sentence_transformers") is not None
    races: list[Race] = []
    for name in datasets:
        races.append(race_on(name, settings, peers=peers))
        if known.json:  # after each, as the next may take long
            write_atomically(known.json, json.dumps(as_json(races, settings), indent=1).encode())
    print(as_text(races))
    return races


def race_on(name: str, settings: Sequence[str], *, peers: bool) -> Race:
    """Run everything on one data set.

    Args:
        name: of the data set.
        settings: overrides of every job.
        peers: whether sentence-transformers makes the rivals' vectors.
    """
    configs = {
        rival: load(compose("train", [f"dataset={name}", "logger=none", *settings, *own]))
        for rival, own in JOBS.items()
    }
    config = configs[LAST]
    dataset = dataset_of(config)
    for one in configs.values():
        extract_all(one, dataset)
    compute_baseline(dataset, Path(config.paths.cache), seed=config.seed)
    results = {rival: _job(rival, one) for rival, one in configs.items()}
    rivals = _rivals(config, configs[BEST], dataset, results[LAST][1], peers=peers)
    return Race(
        name,
        {split: len(rows.texts) for split, rows in dataset.splits.items()},
        dataset.fingerprint,
        np.asarray(dataset.splits["test"].labels),
        tuple([result for result, _ in results.values()] + rivals),
    )


def _job(name: str, config: TrainConfig) -> tuple[Result, RunRecord]:
    """A job of this program; one that has finished before keeps the seconds that it took."""
    folder = Path(config.paths.outputs) / "rivals" / job_id(config)
    again = not (folder / METRICS).exists() or not (folder / SECONDS).exists()
    begun = time.perf_counter()
    record = run_job(config, folder)
    if again:
        write_atomically(folder / SECONDS, json.dumps(time.perf_counter() - begun).encode())
    job = read_job(folder, record)
    test = record.test
    models = sum(one.flops_per_text for one in record.backbones.values())
    layers = ", ".join(f"{x.backbone}:{x.layer}:{x.pooling}" for x in record.layers)
    result = Result(
        name,
        job.correct,
        job.consensus,
        {name: estimate.mean for name, estimate in test.items()},
        {
            name: (found.low, found.high)
            for name in ("accuracy", "macro_f1")
            if (found := test[name]).low is not None and found.high is not None
        },
        float(json.loads((folder / SECONDS).read_text())),
        models + (record.cost.head_flops or 0),
        f"{record.fusion} of {layers}",
    )
    return result, record


# -- the rivals ---------------------------------------------------------------------------------


def _rivals(
    config: TrainConfig, best: TrainConfig, dataset: TextDataset, last: RunRecord, *, peers: bool
) -> list[Result]:
    """TF-IDF, and scikit-learn on the vectors of each model, on all, and stacked.

    Args:
        config: of the job on the last layers.
        best: of the job on the best single layer.
        dataset: the texts.
        last: its record, which says what a model costs up to its last layer.
        peers: whether sentence-transformers makes the vectors.
    """
    train, validation, test = (dataset.splits[name] for name in ("train", "validation", "test"))
    labels = np.concatenate([train.labels, validation.labels])
    texts = [*train.texts, *validation.texts]
    rows = Rows(texts, labels, test.texts, len(dataset.label_names), config.seed)
    vectors = {name: _vectors(one, rows, peers) for name, one in open_models(config).items()}
    flops = {name: last.backbones[name].flops_per_text for name in vectors}
    encoder = "sentence-transformers" if peers else "last layer"

    record, preds = compute_baseline(dataset, Path(config.paths.cache), seed=config.seed)
    lexical = {record.features: record.c}
    alone = {name: regression(one, rows) for name, one in vectors.items()}
    answers = {
        f"{encoder} of {name}, logistic regression": (one, flops[name])
        for name, one in alone.items()
    }
    every, strengths = sum(flops.values()), {name: one.c for name, one in alone.items()}
    choosing = sum(one.seconds for one in alone.values())
    if len(vectors) > 1:
        beside = regression(_side_by_side(vectors.values()), rows)
        answers[f"{encoder} of all side by side, logistic regression"] = (beside, every)
        stack = stacking(vectors, strengths, rows)
        stack = replace(stack, seconds=stack.seconds + choosing)
        answers[f"{encoder} of all, StackingClassifier"] = (stack, every)
    stack = stacking(vectors, strengths, rows, lexical)
    stack = replace(stack, seconds=stack.seconds + choosing + record.seconds)
    answers[f"{encoder} of all and TF-IDF, StackingClassifier"] = (stack, every)
    chosen, cost = _best_layers(best, dataset, rows)
    alone = {name: regression(one, rows) for name, one in chosen.items()}
    stack = stacking(chosen, {name: one.c for name, one in alone.items()}, rows, LEXICAL)
    stack = replace(stack, seconds=stack.seconds + sum(one.seconds for one in alone.values()))
    answers["best layer of each and TF-IDF twice, StackingClassifier"] = (stack, cost)

    target = np.asarray(test.labels)
    results = [
        Result(
            "TF-IDF, logistic regression",
            (preds == target).astype(float),
            preds == target,
            record.test,
            metric_intervals(target, preds[None], config.seed),
            record.seconds,
            None,
            record.features,
        )
    ]
    for name, (answer, cost) in answers.items():
        said = answer.probabilities.argmax(axis=1)
        results.append(
            Result(
                name,
                (said == target).astype(float),
                said == target,
                evaluate(np.log(answer.probabilities), target),
                metric_intervals(target, said[None], config.seed),
                answer.seconds,
                cost,
                "" if np.isnan(answer.c) else f"C={answer.c:g}",
            )
        )
    return results


def _best_layers(
    config: TrainConfig, dataset: TextDataset, rows: Rows
) -> tuple[dict[str, Vectors], float]:
    """Of each model the layer that its probe likes best on train, and what they cost together."""
    found: dict[str, Vectors] = {}
    cost = 0.0
    for name, backbone in config.backbone.items():
        alone = replace(config, backbone={name: backbone})
        sources = extract_all(alone, dataset)
        layer = select(alone, dataset, sources).layers[0]
        found[name] = _kept(sources, layer, rows)
        cost += budget_of(alone, dataset, sources).models[name].flops[layer.layer]
    return found, cost


def _kept(sources: Mapping[str, Source], layer: LayerId, rows: Rows) -> Vectors:
    """What the cache has of a layer."""
    hashes = [text_hash(text) for text in (*rows.texts, *rows.test_texts)]
    (kept,) = read_layers(sources, [layer], hashes)
    return Vectors(kept.numpy()[: len(rows.texts)], kept.numpy()[len(rows.texts) :])


def _side_by_side(vectors: Iterable[Vectors]) -> Vectors:
    every = list(vectors)
    return Vectors(
        np.concatenate([one.learn for one in every], axis=1),
        np.concatenate([one.test for one in every], axis=1),
    )


def _vectors(source: EmbeddingSource, rows: Rows, peers: bool) -> Vectors:
    if not peers:
        layer = LayerId(source.name, source.shape.layers[-1], next(iter(source.stores)))
        return _kept({source.name: source}, layer, rows)
    found = _encoded(source, [*rows.texts, *rows.test_texts])
    return Vectors(found[: len(rows.texts)], found[len(rows.texts) :])


def _encoded(source: EmbeddingSource, texts: Sequence[str]) -> np.ndarray:
    """What sentence-transformers makes of texts; a model without its files is mean-pooled by it."""
    digest = hashlib.sha256(source.asset.identity.encode())
    digest.update(f"float32 {source.shape.max_length}".encode())
    digest.update(b"".join(text_hash(text) for text in texts))
    path = source.cache / "rivals" / f"{digest.hexdigest()[:32]}.npy"
    if not path.exists():
        from sentence_transformers import SentenceTransformer

        exact = {"dtype": "float32"}  # some weights are stored in half precision
        model = SentenceTransformer(str(source.asset.path), device="cpu", model_kwargs=exact)
        model.max_seq_length = source.shape.max_length
        tokenizer: Any = model.tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, model.encode(list(texts), batch_size=16))
        partial.rename(path)
    return np.load(path)


if __name__ == "__main__":
    main()
