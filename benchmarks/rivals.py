"""Compare `fusion=auto` with common alternatives on the same rows and the same models.

Run: python -m benchmarks.rivals mr r8 'backbone=[minilm,granite]' limit.train=2000 limit.test=1500

Arguments with `=` are settings of every job; all other arguments are data sets. The rivals are:

- TF-IDF and logistic regression;
- logistic regression on the embeddings of each model, and on those of all models side by side;
- scikit-learn's StackingClassifier over all models, without TF-IDF and with it;
- StackingClassifier over the best layer of each model by its probe, and TF-IDF of words and of
  characters;
- the last layers side by side under a trained head, as in published fusion scripts, but with the
  epoch chosen on validation;
- the best single layer by its probe.

All rivals learn from the same labelled rows, including validation, and are evaluated once on the
same test rows. No choice sees test. The rivals from scikit-learn run once. Jobs run with each seed:
their interval is that of the mean, and their test that of the consensus.

Embeddings come from sentence-transformers if it is installed (`pip install -e '.[bench]'`), and are
cached. Otherwise, or with `--own-vectors`, they are the mean-pooled last layers of the cache. The
seconds count choosing, fitting and predicting, but not the computation of embeddings. `auto` does
not fit probes again that earlier jobs have cached.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rival_classifiers import (
    LEAST_PROBABILITY,
    Answer,
    Rows,
    Vectors,
    regression,
    stacking,
)
from benchmarks.rival_tables import Race, Result, as_json, as_text
from layerfusion.assets.files import write_atomically
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.identity import job_id
from layerfusion.config.imports import import_from, import_object
from layerfusion.config.job import TrainConfig
from layerfusion.config.registry import require_known
from layerfusion.config.user_code import call_user_code
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.source import EmbeddingSource, Source
from layerfusion.errors import UserError
from layerfusion.findings.jobs import read_job
from layerfusion.layers.candidates import read_layers
from layerfusion.layers.layer_id import LayerId
from layerfusion.records.job import METRICS, BaselineRecord, RunRecord
from layerfusion.runs.baseline import compute_baseline
from layerfusion.runs.job import run_job
from layerfusion.runs.job_sources import extract_all, open_models
from layerfusion.runs.job_texts import dataset_of
from layerfusion.runs.select_layers import budget_of, select
from layerfusion.statistics.intervals import metric_intervals
from layerfusion.statistics.metrics import evaluate
from layerfusion.texts import TextDataset
from layerfusion.texts.sampling import first_rows

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
"""Settings of each job that this program runs, `auto` first."""
SECONDS = "seconds.json"
"""File of a job's folder that holds the seconds of its first run."""
LEXICAL = {"words": 30.0, "characters": 30.0}
"""Inverse strength of the TF-IDF regression on each kind of features, beside the best layers."""


def main(arguments: Sequence[str] | None = None) -> list[Race]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--own-vectors", action="store_true", help="the cached last layers")
    parser.add_argument(
        "--rival",
        action="append",
        default=[],
        metavar="package.module:function",
        help="another rival, of your own",
    )
    known, words = parser.parse_known_args(arguments)
    import_from([Path()])
    rivals = [*RIVALS, *known.rival]
    for name in rivals:
        find_rival(name)  # a name that does not exist shows now, not after hours
    datasets = [word for word in words if "=" not in word]
    settings = [word for word in words if "=" in word]
    if not datasets:
        parser.error("name at least one data set, for example: mr 'backbone=[minilm,granite]'")
    peers = not known.own_vectors and importlib.util.find_spec("sentence_transformers") is not None
    races: list[Race] = []
    for name in datasets:
        races.append(race_on(name, settings, peers=peers, rivals=rivals))
        if known.json:  # after each, as the next may take long
            write_atomically(known.json, json.dumps(as_json(races, settings), indent=1).encode())
    print(as_text(races))
    return races


def race_on(name: str, settings: Sequence[str], *, peers: bool, rivals: Sequence[str]) -> Race:
    """Run all jobs and rivals on one data set.

    Args:
        name: name of the data set.
        settings: overrides of every job.
        peers: True if sentence-transformers computes the vectors of the rivals.
        rivals: names of the rivals (see `find_rival`).
    """
    configs = {
        job: load(compose("train", [f"dataset={name}", "logger=none", *settings, *keys]))
        for job, keys in JOBS.items()
    }
    config = configs[LAST]
    dataset = dataset_of(config)
    for job_config in configs.values():
        extract_all(job_config, dataset)
    compute_baseline(dataset, Path(config.paths.cache), seed=config.seed)
    results = {job: _job(job, job_config) for job, job_config in configs.items()}
    last = results[LAST][1]
    others = _rivals(config, configs[BEST], dataset, last, peers=peers, names=rivals)
    return Race(
        name,
        {split: len(rows.texts) for split, rows in dataset.splits.items()},
        dataset.fingerprint,
        np.asarray(dataset.splits["test"].labels),
        first_rows(dataset.splits["test"].texts),
        tuple([result for result, _ in results.values()] + others),
    )


def _job(name: str, config: TrainConfig) -> tuple[Result, RunRecord]:
    """Run a job of this program. A job that had finished before keeps its measured seconds."""
    folder = Path(config.paths.outputs) / "rivals" / job_id(config)
    again = not (folder / METRICS).exists() or not (folder / SECONDS).exists()
    begun = time.perf_counter()
    record = run_job(config, folder)
    if again:
        write_atomically(folder / SECONDS, json.dumps(time.perf_counter() - begun).encode())
    job = read_job(folder, record)
    test = record.test
    models = sum(one.flops_per_text or 0.0 for one in record.backbones.values())
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


@dataclass(frozen=True)
class Contest:
    """The data, vectors and costs that the rivals of one data set share."""

    rows: Rows
    vectors: Mapping[str, Vectors]
    """Vectors of the rows by each backbone."""
    flops: Mapping[str, float]
    """FLOPs of a pass of one text through each backbone."""
    encoder: str
    """Name of the program that computed the vectors, for the names of the rivals."""
    baseline: BaselineRecord
    best_layers: Callable[[], tuple[dict[str, Vectors], float]]
    """Function that finds the best layer of each model by its probe, and their cost together."""

    @cached_property
    def regressions(self) -> dict[str, Answer]:
        """Fit a logistic regression on the vectors of each model."""
        return {name: regression(vectors, self.rows) for name, vectors in self.vectors.items()}

    @property
    def cost(self) -> float:
        """Return the FLOPs of passing one text through all models."""
        return sum(self.flops.values())

    def stack(self, lexical: Mapping[str, float] | None = None) -> Answer:
        """Stack the regressions of all models, each with the strength that it chose alone."""
        strengths = {name: answer.c for name, answer in self.regressions.items()}
        answer = stacking(self.vectors, strengths, self.rows, lexical)
        choosing = sum(answer.seconds for answer in self.regressions.values())
        return replace(answer, seconds=answer.seconds + choosing)


Answers = Iterable[tuple[str, Answer, float]]
"""Names of rivals, their answers, and their FLOPs for one text."""


def each_model(contest: Contest) -> Answers:
    """Fit a logistic regression on the vectors of each model."""
    for name, answer in contest.regressions.items():
        yield f"{contest.encoder} of {name}, logistic regression", answer, contest.flops[name]


def side_by_side(contest: Contest) -> Answers:
    """Fit a logistic regression on the vectors of all models side by side."""
    if len(contest.vectors) > 1:
        answer = regression(_side_by_side(contest.vectors.values()), contest.rows)
        name = f"{contest.encoder} of all side by side, logistic regression"
        yield name, answer, contest.cost


def stacked(contest: Contest) -> Answers:
    """Fit scikit-learn's StackingClassifier over all models."""
    if len(contest.vectors) > 1:
        yield f"{contest.encoder} of all, StackingClassifier", contest.stack(), contest.cost


def stacked_with_tfidf(contest: Contest) -> Answers:
    """Fit a StackingClassifier over all models and the TF-IDF of the baseline."""
    baseline = contest.baseline
    answer = contest.stack({baseline.features: baseline.c})
    answer = replace(answer, seconds=answer.seconds + baseline.seconds)
    yield f"{contest.encoder} of all and TF-IDF, StackingClassifier", answer, contest.cost


def stacked_best_layers(contest: Contest) -> Answers:
    """Stack the best layer of each model with TF-IDF of words and of characters."""
    vectors, cost = contest.best_layers()
    alone = {name: regression(layer, contest.rows) for name, layer in vectors.items()}
    strengths = {name: answer.c for name, answer in alone.items()}
    stack = stacking(vectors, strengths, contest.rows, LEXICAL)
    choosing = sum(answer.seconds for answer in alone.values())
    answer = replace(stack, seconds=stack.seconds + choosing)
    yield "best layer of each and TF-IDF twice, StackingClassifier", answer, cost


RIVALS: dict[str, Callable[[Contest], Answers]] = {
    "each_model": each_model,
    "side_by_side": side_by_side,
    "stacked": stacked,
    "stacked_with_tfidf": stacked_with_tfidf,
    "stacked_best_layers": stacked_best_layers,
}
"""Rivals of `fusion=auto` by name, beside the other jobs and TF-IDF alone."""


def find_rival(name: str) -> Callable[[Contest], Answers]:
    """Find a built-in rival by its name, or a user's rival by `package.module:function`.

    The user's function takes the vectors of each model and the rows, and returns the probabilities
    of the test rows. Shape: (test rows, classes).

    Raises:
        UserError: if the name does not exist.
    """
    require_known("--rival", name, RIVALS)
    if name in RIVALS:
        return RIVALS[name]
    function = import_object("--rival", name)

    def users(contest: Contest) -> Answers:
        begun = time.perf_counter()
        given = call_user_code("rival", function, contest.vectors, contest.rows)
        probabilities = np.asarray(given, dtype=float)
        shape = (len(contest.rows.test_texts), contest.rows.num_classes)
        if probabilities.shape != shape:
            raise UserError(
                f"--rival {name}: it gave the shape {probabilities.shape}; (test rows, classes) ="
                f" {shape} is needed"
            )
        if not np.isfinite(probabilities).all():
            raise UserError(f"--rival {name}: it gave probabilities that are not finite")
        yield name, Answer(probabilities, time.perf_counter() - begun), contest.cost

    return users


def _rivals(
    config: TrainConfig,
    best: TrainConfig,
    dataset: TextDataset,
    last: RunRecord,
    *,
    peers: bool,
    names: Sequence[str],
) -> list[Result]:
    """Evaluate TF-IDF, and every rival on the vectors of the models.

    Args:
        config: config of the job on the last layers.
        best: config of the job on the best single layer.
        dataset: the texts.
        last: record of the job on the last layers, which has the cost of each model.
        peers: True if sentence-transformers computes the vectors.
        names: names of the rivals.
    """
    train, validation, test = (dataset.splits[name] for name in ("train", "validation", "test"))
    labels = np.concatenate([train.labels, validation.labels])
    texts = [*train.texts, *validation.texts]
    rows = Rows(texts, labels, test.texts, len(dataset.label_names), config.seed)
    vectors = {name: _vectors(source, rows, peers) for name, source in open_models(config).items()}
    baseline, preds = compute_baseline(dataset, Path(config.paths.cache), seed=config.seed)
    contest = Contest(
        rows,
        vectors,
        {name: last.backbones[name].flops_per_text or 0.0 for name in vectors},
        "sentence-transformers" if peers else "last layer",
        baseline,
        lambda: _best_layers(best, dataset, rows),
    )
    target, text_of = np.asarray(test.labels), first_rows(test.texts)
    results = [
        Result(
            "TF-IDF, logistic regression",
            (preds == target).astype(float),
            preds == target,
            baseline.test,
            metric_intervals(target, preds[None], config.seed, text_of=text_of),
            baseline.seconds,
            None,
            baseline.features,
        )
    ]
    for rival in map(find_rival, names):
        for name, answer, cost in rival(contest):
            preds = answer.probabilities.argmax(axis=1)
            results.append(
                Result(
                    name,
                    (preds == target).astype(float),
                    preds == target,
                    evaluate(np.log(answer.probabilities.clip(LEAST_PROBABILITY)), target),
                    metric_intervals(target, preds[None], config.seed, text_of=text_of),
                    answer.seconds,
                    cost,
                    "" if np.isnan(answer.c) else f"C={answer.c:g}",
                )
            )
    return results


def _best_layers(
    config: TrainConfig, dataset: TextDataset, rows: Rows
) -> tuple[dict[str, Vectors], float]:
    """Find the best layer of each model by its probe on train, and their cost together."""
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
    """Read the vectors of a layer from the cache."""
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
    """Embed texts with sentence-transformers, which mean-pools a model that has no files for it."""
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
