"""Compare fitting the probes of all layers in one optimisation with a loop over scikit-learn.

Run: python -m benchmarks.probes [dataset] [C] [KEY=VALUE ...]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.layers.candidates import all_layers, read_layers
from layerfusion.layers.folds import stratified_folds
from layerfusion.layers.probe import cross_validate, fit_probes
from layerfusion.runs.job_sources import extract_all
from layerfusion.runs.job_texts import dataset_of


def main(dataset: str, c: float, more: Sequence[str]) -> None:
    """Fit on all of train, and measure accuracy on the first 1,500 rows of test."""
    job = [f"dataset={dataset}", "backbone=[minilm,smollm2]", "limit.test=1500"]
    config = load(compose("train", [*job, "dataset.validation_size=0.01", "logger=none", *more]))
    data = dataset_of(config)
    sources = extract_all(config, data)
    layers = all_layers(sources)
    features, labels = {}, {}
    for split in ("train", "test"):
        hashes = [text_hash(text) for text in data.splits[split].texts]
        features[split] = read_layers(sources, layers, hashes)
        labels[split] = torch.from_numpy(np.asarray(data.splits[split].labels, np.int64))
    classes = len(data.label_names)
    rows = len(labels["train"])
    print(f"{dataset}: {rows} rows of train, {len(layers)} layers, C = {c}")

    begun = time.perf_counter()
    probes = fit_probes(features["train"], labels["train"], [c] * len(layers), num_classes=classes)
    ours = time.perf_counter() - begun
    accuracy = [
        float((probe.logits(x).argmax(dim=1) == labels["test"]).double().mean())
        for probe, x in zip(probes, features["test"], strict=True)
    ]
    print(f"all layers in one optimisation: {ours:.1f} s")

    theirs, reference = 0.0, []
    for train, test in zip(features["train"], features["test"], strict=True):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))
        begun = time.perf_counter()
        model.fit(train.numpy(), labels["train"].numpy())
        theirs += time.perf_counter() - begun
        reference.append(model.score(test.numpy(), labels["test"].numpy()))
    difference = 100 * (np.array(accuracy) - np.array(reference))
    print(f"a loop over scikit-learn: {theirs:.1f} s; ratio {theirs / ours:.1f}")
    print(
        f"test accuracy, ours less theirs, in points: mean {difference.mean():+.3f}, mean absolute"
        f" {np.abs(difference).mean():.3f}, largest {np.abs(difference).max():.2f}"
    )

    fold_of = stratified_folds(labels["train"].numpy(), data.splits["train"].texts, 5, seed=0)
    begun = time.perf_counter()
    cross_validate(features["train"], labels["train"], fold_of, num_classes=classes)
    print(f"5 folds x 7 strengths of all layers: {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    asked = [word for word in sys.argv[1:] if "=" not in word]
    main(
        asked[0] if asked else "rotten_tomatoes",
        float(asked[1]) if asked[1:] else 1.0,
        [word for word in sys.argv[1:] if "=" in word],
    )
