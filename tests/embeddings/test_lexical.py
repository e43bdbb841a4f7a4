from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from torch.nn import functional as F

from layerfusion.config.job import ExtractConfig, LayersConfig, LexicalConfig
from layerfusion.embeddings.cache_key import TFIDF, text_hash
from layerfusion.embeddings.lexical import LAYER, LexicalFit, LexicalSource, open_lexical
from layerfusion.errors import UserError
from layerfusion.layers import lexical_regression, sparse_newton
from layerfusion.layers.candidates import Candidates, all_layers, read_layers
from layerfusion.layers.folds import stratified_folds
from layerfusion.layers.held_out import held_out_probes
from layerfusion.layers.lexical_regression import C_VALUES, LexicalRegression, count, predict_folds
from layerfusion.layers.scores import compute_scores
from layerfusion.texts import tfidf as tfidf_module
from layerfusion.texts.tfidf import FEATURES, CountedTexts, tfidf

WORDS = [f"w{n}" for n in range(60)]


def _texts(rows: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Two classes that prefer different halves of the words."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    odds = np.where(np.arange(60) < 30, 1.0, 2.0)
    odds = {0: odds / odds.sum(), 1: odds[::-1] / odds.sum()}
    texts = [" ".join(rng.choice(WORDS, size=12, p=odds[label])) for label in labels]
    return [f"{text} row{n}" for n, text in enumerate(texts)], labels


def _source(tmp_path: Path, texts: list[str], **more: int | str) -> LexicalSource:
    settings = {"width": 400, **more}
    return open_lexical("words", LexicalConfig(**settings), texts, texts, tmp_path)


def test_full_width_keeps_the_angles_of_tfidf() -> None:
    texts, _ = _texts(40)
    counts = TfidfVectorizer(token_pattern=r"\S+", sublinear_tf=True).fit_transform(texts)
    expected = (counts @ counts.T).toarray()
    vectors = LexicalFit.learn(texts, LexicalConfig(width=39)).vectors(texts)
    # One direction of forty is left out, the least of all.
    np.testing.assert_allclose((vectors @ vectors.T).numpy(), expected, atol=0.05)


def test_directions_have_about_equal_spread() -> None:
    texts, _ = _texts(400)
    spread = LexicalFit.learn(texts, LexicalConfig(width=50)).vectors(texts).std(dim=0)
    assert float(spread.max() / spread.min()) < 3


@pytest.mark.parametrize("features", ["words", "words and pairs", "characters"])
def test_vectors_of_other_texts_change_nothing(features: str, tmp_path: Path) -> None:
    texts, _ = _texts(30)
    config = LexicalConfig(features=features, width=8)
    alone = open_lexical("x", config, texts, texts, tmp_path / "a").stores[TFIDF]
    more = open_lexical("x", config, texts, [*texts, "unseen words"], tmp_path / "b").stores[TFIDF]
    hashes = [text_hash(text) for text in texts]
    np.testing.assert_array_equal(
        alone.read(hashes, [LAYER])[LAYER], more.read(hashes, [LAYER])[LAYER]
    )
    assert alone.name == more.name
    assert more.name != open_lexical("x", config, texts[1:], texts, tmp_path).stores[TFIDF].name


def test_vectors_are_kept_and_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    texts, _ = _texts(30)
    hashes = [text_hash(text) for text in texts]
    first = _source(tmp_path, texts).stores[TFIDF].read(hashes, [LAYER])[LAYER]
    (path,) = (tmp_path / "lexical").glob("*.safetensors")
    made = path.stat().st_mtime_ns
    np.testing.assert_array_equal(
        _source(tmp_path, texts).stores[TFIDF].read(hashes, [LAYER])[LAYER], first
    )
    assert path.stat().st_mtime_ns == made
    path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(
        _source(tmp_path, texts).stores[TFIDF].read(hashes, [LAYER])[LAYER], first
    )


def test_it_is_a_source_with_one_layer_and_no_passes(tmp_path: Path) -> None:
    texts, _ = _texts(30)
    source = _source(tmp_path, texts, width=8)
    assert [str(layer) for layer in all_layers({"words": source})] == ["words:0:tfidf"]
    assert all_layers({"words": source})[0].words == "TF-IDF of words"
    assert source.shape.depth(LAYER) == 1.0
    assert source.shape.flops(LAYER, source.pass_lengths([5, 7])) == 0
    assert source.shape.width == 8


def test_texts_that_are_all_alike_have_vectors_and_no_warning() -> None:
    texts = ["the same few words"] * 6
    vectors = LexicalFit.learn(texts, LexicalConfig()).vectors(texts)
    assert bool(vectors.isfinite().all())
    assert bool((vectors == vectors[0]).all())


def test_no_words_to_count_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="lexical: no words of train to count"):
        LexicalFit.learn([" ", ""], LexicalConfig())
    with pytest.raises(UserError, match="1 texts of train with 2 different words are too few"):
        LexicalFit.learn(["two words"], LexicalConfig())


# -- judged without leaking ---------------------------------------------------------------------


def _candidates(tmp_path: Path, texts: list[str], labels: np.ndarray) -> Candidates:
    sources = {"words": _source(tmp_path, texts)}
    layers = all_layers(sources)
    features = read_layers(sources, layers, [text_hash(text) for text in texts])
    folds = stratified_folds(labels, texts, 4, seed=0)
    target = torch.from_numpy(labels.astype(np.int64))
    return Candidates(layers, tuple(features), target, folds, tuple(texts), 2, sources)


def test_each_fold_is_judged_by_a_regression_learned_without_it(tmp_path: Path) -> None:
    texts, labels = _texts(120)
    candidates = _candidates(tmp_path, texts, labels)
    ((held,), _) = held_out_probes(candidates, LayersConfig(), torch.device("cpu"))
    assert held.strength in C_VALUES
    for fold in range(4):
        out = candidates.fold_of == fold
        inside = [text for text, left in zip(texts, out.tolist(), strict=True) if not left]
        outside = [text for text, left in zip(texts, out.tolist(), strict=True) if left]
        counts = tfidf("words", len(inside), LexicalConfig().max_features)
        expected = (
            LogisticRegression(C=held.strength, solver="liblinear", dual=True, tol=1e-8,
                               max_iter=100_000, random_state=0)
            .fit(counts.fit_transform(inside), labels[~out.numpy()])
            .predict_log_proba(counts.transform(outside))
        )  # fmt: skip
        np.testing.assert_allclose(held.log_probs[out].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("in_the_span", "classes", "tolerance", "atol"),
    [(True, 3, 1e-8, 1e-3), (False, 3, 1e-8, 1e-4), (False, 2, 1e-2, 1e-6)],
)
def test_a_regression_is_that_of_scikit_learn_and_survives_its_file(
    monkeypatch: pytest.MonkeyPatch, in_the_span: bool, classes: int, tolerance: float, atol: float
) -> None:
    monkeypatch.setattr(lexical_regression, "SPAN_ROWS", 90 if in_the_span else 0)  # every solver
    monkeypatch.setattr(lexical_regression, "_span_is_faster", lambda *_: True)
    texts, labels = _texts(90)
    if classes == 3:
        labels = labels + (np.arange(90) % 3 == 0)
    fit = LexicalRegression.fit("words", texts, labels, 10.0, num_classes=4)
    counts = tfidf("words", 90)
    peer = LogisticRegression(
        C=10.0, solver="liblinear", dual=True, tol=tolerance, max_iter=100_000, random_state=0
    )
    if classes > 2:
        peer = OneVsRestClassifier(peer)
    peer.fit(counts.fit_transform(texts), labels)
    expected = peer.predict_proba(counts.transform(texts))
    found = fit.vectors(texts).exp().numpy()
    np.testing.assert_allclose(found[:, :classes], expected, atol=atol)
    assert found[:, classes:].max() < 1e-6  # no row has these classes
    again = LexicalRegression.from_state("words", *fit.state())
    assert torch.equal(again.vectors(texts), fit.vectors(texts))
    with pytest.raises(UserError, match="no words of train to count"):
        LexicalRegression.fit("words", [" "], np.zeros(1, np.int64), 1.0, num_classes=2)


def test_regressions_that_are_fitted_together_are_those_in_the_span(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Together they take a path of strengths too, some classes at a time."""
    monkeypatch.setattr(sparse_newton, "CELLS", 0)
    texts, _ = _texts(400)
    labels = np.arange(400) % 20
    texts = [
        f"{text} topic{label % 7} kind{label}" for text, label in zip(texts, labels, strict=True)
    ]
    fold_of, found = np.arange(400) % 40 // 20, []
    for in_the_span in (True, False):
        monkeypatch.setattr(lexical_regression, "_span_is_faster", lambda *_, way=in_the_span: way)
        kinds = [(count("words", texts), "regression")]
        found += predict_folds(kinds, labels, fold_of, num_classes=20)
    for one, other in zip(*(each.values() for each in found), strict=True):
        np.testing.assert_allclose(np.exp(one), np.exp(other), atol=1e-3)


def _counts(rows: int, columns: int, each: int) -> csr_matrix:
    """As many features in each row, anywhere."""
    places = np.random.default_rng(0).integers(columns, size=rows * each)
    return csr_matrix(
        (np.ones(len(places)), places, np.arange(0, len(places) + 1, each)), shape=(rows, columns)
    )


def test_what_takes_less_work_is_chosen() -> None:
    short, long = _counts(2000, 2000, each=8), _counts(2000, 50_000, each=500)
    assert not lexical_regression._span_is_faster(short, 77, 6)
    assert lexical_regression._span_is_faster(long, 50, 6)


def test_a_part_of_texts_that_were_counted_once_gives_the_regression_of_that_part() -> None:
    texts, labels = _texts(90)
    inside = np.arange(90) % 3 != 0
    part = LexicalRegression.learn(count("words", texts, 30), inside, labels, 3.0, num_classes=2)
    some = [text for text, kept in zip(texts, inside, strict=True) if kept]
    alone = LexicalRegression.fit(
        "words", some, labels[inside], 3.0, num_classes=2, max_features=30
    )
    assert part.state()[1] == alone.state()[1]
    torch.testing.assert_close(part.vectors(texts), alone.vectors(texts))


def test_frequent_and_rare_features_make_up_the_products_of_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lexical_regression, "DENSE_FEATURES", 3)
    rng = np.random.default_rng(0)
    shares = np.linspace(0, 1, 20)
    dense = rng.random((50, 20)) * (rng.random((50, 20)) < shares)
    features = csr_matrix(dense)
    assert ((dense > 0).mean(axis=0) > lexical_regression.OFTEN).any()
    found = lexical_regression._products(features).numpy()
    np.testing.assert_allclose(found, dense @ dense.T, rtol=1e-5, atol=1e-6)


def test_fits_of_liblinear_on_several_cores_are_those_on_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Liblinear has one generator of random numbers, which side by side its fits would share."""
    monkeypatch.setattr(lexical_regression, "SPAN_ROWS", 0)
    texts, labels = _texts(2000)
    fold_of = np.arange(len(texts)) % 8
    threads = torch.get_num_threads()
    found = []
    for number in (1, 4):
        torch.set_num_threads(number)
        try:
            found += predict_folds(
                [(count("words", texts), "regression")], labels, fold_of, num_classes=2
            )
        finally:
            torch.set_num_threads(threads)
    for alone, beside in zip(*(one.values() for one in found), strict=True):
        np.testing.assert_array_equal(alone, beside)


def test_a_regression_of_a_single_class_is_sure_of_it() -> None:
    texts = ["one text", "another text"]
    fit = LexicalRegression.fit("words", texts, np.ones(2, np.int64), 1.0, num_classes=3)
    assert fit.vectors(texts).argmax(dim=1).tolist() == [1, 1]
    torch.testing.assert_close(fit.vectors(texts).exp().sum(dim=1), torch.ones(2))


def test_what_a_fold_learned_is_learned_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, labels = _texts(120)
    candidates = _candidates(tmp_path, texts, labels)
    source = candidates.sources["words"]
    assert isinstance(source, LexicalSource)
    inside = [texts[row] for row in torch.where(candidates.fold_of != 2)[0].tolist()]
    expected = LexicalFit.learn(inside, LexicalConfig(width=400)).vectors(texts)
    torch.testing.assert_close(source.relearned(texts, inside), expected)
    held_out_probes(candidates, LayersConfig(), torch.device("cpu"))
    monkeypatch.setattr(LexicalFit, "learn", None)
    monkeypatch.setattr(LexicalRegression, "learn", None)
    torch.testing.assert_close(source.relearned(texts, inside), expected)
    held_out_probes(candidates, LayersConfig(), torch.device("cpu"))


def test_held_out_accuracy_of_noise_is_that_of_chance(tmp_path: Path) -> None:
    texts, _ = _texts(300)
    labels = np.random.default_rng(1).integers(0, 2, 300)
    ((held,), _) = held_out_probes(
        _candidates(tmp_path, texts, labels), LayersConfig(), torch.device("cpu")
    )
    assert held.log_loss > 0.68
    assert abs(held.accuracy - 0.5) < 0.1


def test_scores_that_need_a_model_leave_lexical_sources_out(tmp_path: Path) -> None:
    texts, labels = _texts(60)
    candidates = _candidates(tmp_path, texts, labels)
    names = ["probe", "logme", "fisher", "gradient", "attention_entropy"]
    table = compute_scores(candidates, names, LayersConfig(), ExtractConfig(device="cpu"))
    assert np.isfinite(table.values["log_loss"]).all()
    assert np.isfinite(table.values["logme"]).all()
    assert np.isnan(table.values["gradient"]).all()
    assert np.isnan(table.values["attention_entropy"]).all()
    assert F.nll_loss(table.held_out[0].log_probs, table.held_out[0].target) < 0.69


@pytest.mark.parametrize("features", list(FEATURES))
def test_texts_counted_once_are_weighted_as_if_each_part_were_counted_alone(features: str) -> None:
    texts = [*_texts(60)[0], "rare wörds only here", "日本語。", "a"]
    inside = np.arange(len(texts)) % 3 != 0
    for most in (None, 20):
        learned, others = CountedTexts(features, texts, most).weighted(inside)
        alone = tfidf(features, int(inside.sum()), most)
        expected = alone.fit_transform(np.array(texts)[inside])
        assert abs(learned - expected).max() < 1e-12
        held_out = alone.transform(np.array(texts)[~inside])
        assert abs(others - held_out).max() < 1e-12


@pytest.mark.parametrize("features", list(FEATURES))
def test_texts_are_counted_once_whatever_other_texts_come_with_them(
    features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfidf_module, "_remembered", {})
    calls: list[int] = []
    of = tfidf_module._Counts.of
    monkeypatch.setattr(
        tfidf_module._Counts,
        "of",
        lambda features, texts: calls.append(len(texts)) or of(features, texts),
    )
    texts, more = [*_texts(30)[0], "rare wörds only here"], ["日本語。", " ", "a", "日本語。"]
    CountedTexts(features, texts)
    together = CountedTexts(features, [*more, *texts[::-1]])
    assert calls == [len(set(texts)), 3]
    CountedTexts(features, texts[5:20])
    assert calls == [len(set(texts)), 3]
    with pytest.raises(ValueError, match="nothing"):
        CountedTexts(features, [" "])
    monkeypatch.setattr(tfidf_module, "REMEMBERED", 0)
    alone = CountedTexts(features, [*more, *texts[::-1]])
    inside = np.arange(len(texts) + len(more)) % 3 > 0
    for one, other in zip(together.weighted(inside), alone.weighted(inside), strict=True):
        assert one.shape == other.shape
        assert abs(one - other).nnz == 0
    assert tfidf_module._remembered == {}


def test_features_of_a_single_text_are_left_out_where_there_are_many_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tfidf_module, "PRUNE_ROWS", 4)
    texts = ["abc", "abc", "abd", "abe", "xyz", "abc"]
    inside = np.array([True] * 5 + [False])
    learned, _ = CountedTexts("characters", texts).weighted(inside)
    alone = tfidf("characters", 5).fit_transform(texts[:5])
    assert learned.shape == alone.shape
    assert abs(learned - alone).max() < 1e-12
