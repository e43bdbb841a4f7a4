"""Compare fitting the probes of all layers in one optimisation with a loop over scikit-learn.

Run: python -m benchmarks.probes [dataset] [C] [KEY=VALUE ...] [--repeats 5] [--json FILE]
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.turns import parser, show, take_turns
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.layers.candidates import all_layers, read_layers
from layerfusion.layers.folds import stratified_folds
from layerfusion.layers.probe import STRENGTHS, LinearProbe, cross_validate, fit_probes
from layerfusion.runs.job_sources import extract_all
from layerfusion.runs.job_texts import dataset_of


def main() -> None:
    """Fit on all of train, and measure accuracy on the first 1,500 rows of test."""
    options = parser(__doc__)
    options.add_argument("words", nargs="*", help="a data set, C, and settings KEY=VALUE")
    asked = options.parse_intermixed_args()
    plain = [word for word in asked.words if "=" not in word]
    more = [word for word in asked.words if "=" in word]
    dataset, c = plain[0] if plain else "rotten_tomatoes", float(plain[1]) if plain[1:] else 1.0
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
    classes, train = len(data.label_names), labels["train"]

    def ours() -> list[LinearProbe]:
        strengths = [c] * len(layers)
        return fit_probes(features["train"], train, strengths, num_classes=classes)

    def theirs() -> list[float]:
        right = []
        for seen, test in zip(features["train"], features["test"], strict=True):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))
            model.fit(seen.numpy(), train.numpy())
            right.append(float(model.score(test.numpy(), labels["test"].numpy())))
        return right

    runs = {"all layers in one optimisation": ours, "a loop over scikit-learn": theirs}
    seconds = take_turns(runs, asked.repeats)
    title = f"probes: {dataset}, {len(train)} rows of train, {len(layers)} layers, C = {c:g}"
    show(title, seconds, asked.json)
    accuracy = [
        float((probe.logits(x).argmax(dim=1) == labels["test"]).double().mean())
        for probe, x in zip(ours(), features["test"], strict=True)
    ]
    difference = 100 * (np.array(accuracy) - np.array(theirs()))
    print(
        f"  test accuracy, ours less theirs, in points: mean {difference.mean():+.3f}, mean"
        f" absolute {np.abs(difference).mean():.3f}, largest {np.abs(difference).max():.2f}"
    )
    fold_of = stratified_folds(train.numpy(), data.splits["train"].texts, 5, seed=0)

    def folds() -> None:
        cross_validate(features["train"], train, fold_of, num_classes=classes, text_of=None)

    name = f"5 folds × {len(STRENGTHS)} strengths of all layers"
    show(f"{title}, cross-validated", take_turns({name: folds}, asked.repeats), asked.json)


if __name__ == "__main__":
    main()
