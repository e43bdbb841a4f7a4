from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.naive_bayes import ComplementNB

from layerfusion.config.job import BAYES, LayersConfig, LexicalConfig
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.lexical import open_lexical
from layerfusion.layers.candidates import Candidates, all_layers, read_layers
from layerfusion.layers.folds import stratified_folds
from layerfusion.layers.held_out import held_out_probes
from layerfusion.layers.lexical_bayes import FACTORS, SMOOTHING, bayes_evidence
from layerfusion.layers.lexical_regression import LexicalRegression, count, predict_folds
from layerfusion.texts.tfidf import tfidf

LEAST = -16.0


def _texts(rows: int, classes: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Each class prefers words of its own to those that all have."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    texts = []
    for label in labels:
        own, shared = rng.integers(0, 4, 3), rng.integers(0, 30, 9)
        texts.append(" ".join([*(f"own{label}{n}" for n in own), *(f"w{n}" for n in shared)]))
    return texts, labels


def test_the_order_of_classes_is_that_of_complement_naive_bayes() -> None:
    texts, labels = _texts(120, 4)
    features = tfidf("words", len(texts)).fit_transform(texts)
    ((weight, bias),) = bayes_evidence(features, labels, [1.0], 4, LEAST)
    peer = ComplementNB(alpha=SMOOTHING).fit(features, labels)
    ours = features @ weight + bias
    differences = ours - ours[:, :1]
    expected = np.asarray(peer.predict_joint_log_proba(features))
    np.testing.assert_allclose(differences, expected - expected[:, :1], atol=1e-4)


def test_held_out_rows_choose_how_much_the_evidence_counts() -> None:
    texts, labels = _texts(200, 3)
    rng = np.random.default_rng(1)
    labels = np.where(rng.random(200) < 0.15, rng.integers(0, 3, 200), labels)
    fold_of = np.arange(200) // 3 % 5
    (by_factor,) = predict_folds([(count("words", texts), BAYES)], labels, fold_of, num_classes=3)
    assert tuple(by_factor) == FACTORS
    losses = {factor: -found[np.arange(200), labels].mean() for factor, found in by_factor.items()}
    best = min(losses, key=lambda factor: losses[factor])
    assert best not in (FACTORS[0], FACTORS[-1])
    assert losses[best] < losses[FACTORS[-1]] - 0.1
    assert losses[best] < losses[FACTORS[0]] - 0.1


def test_a_held_out_row_is_counted_nowhere() -> None:
    """Each text has a word of its own, which would give its class away."""
    texts = [f"same words row{n}" for n in range(60)]
    labels = np.random.default_rng(0).permutation(np.arange(60) % 2)
    fold_of = np.arange(60) % 5
    (by_factor,) = predict_folds([(count("words", texts), BAYES)], labels, fold_of, num_classes=2)
    for found in by_factor.values():
        assert abs(float((found.argmax(axis=1) == labels).mean()) - 0.5) < 0.2
        np.testing.assert_allclose(found, np.log(0.5), atol=0.3)


@pytest.mark.parametrize("present", [[0, 2], [1]])
def test_a_class_without_rows_is_never_named(present: list[int]) -> None:
    texts, labels = _texts(60, 3)
    inside = np.isin(labels, present)
    counted = count("words", texts)
    fitted = LexicalRegression.learn(counted, inside, labels, 1.0, num_classes=3, learner=BAYES)
    found = fitted.vectors([*texts, "", "nothing known"])
    assert set(found.argmax(dim=1).tolist()) <= set(present)
    assert torch.isfinite(found).all()


def test_labels_are_told_from_the_texts_that_lack_them() -> None:
    texts = [f"{'warm ' * (n % 2)}{'long ' * (n % 3 == 0)}film {n}" for n in range(60)]
    labels = np.array([[n % 2 == 1, n % 3 == 0, True, False] for n in range(60)])
    fitted = LexicalRegression.fit("words", texts, labels, 1.0, num_classes=4, learner=BAYES)
    scores = fitted.vectors(["a warm film", "a long film"])
    assert ((scores > 0) == torch.tensor([[True, False, True, False], [False, True, True, False]])
            ).all()  # fmt: skip
    again = LexicalRegression.from_state("words", *fitted.state())
    torch.testing.assert_close(again.vectors(texts), fitted.vectors(texts))


def test_regression_and_bayes_of_one_kind_of_features_share_no_cache(tmp_path: Path) -> None:
    texts, labels = _texts(90, 3)
    sources = {
        name: open_lexical(name, LexicalConfig(learner=name), texts, texts, tmp_path)
        for name in ("regression", "bayes")
    }
    layers = all_layers(sources)
    folds = torch.from_numpy(np.asarray(stratified_folds(labels, range(90), 3, seed=0)))
    features = read_layers(sources, layers, [text_hash(text) for text in texts])
    target = torch.from_numpy(labels)
    candidates = Candidates(layers, features, target, folds, tuple(texts), 3, sources)
    device = torch.device("cpu")
    first, _ = held_out_probes(candidates, LayersConfig(), device)
    again, _ = held_out_probes(candidates, LayersConfig(), device)
    assert not torch.equal(first[0].log_probs, first[1].log_probs)
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one.log_probs, other.log_probs)
        assert one.strength == other.strength
