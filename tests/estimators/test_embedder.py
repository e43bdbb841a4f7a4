"""`TextEmbedder` and `rank`: vectors of layers, and which model's layers suit some labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import layerfusion as lf
from layerfusion.errors import UserError


def test_it_gives_the_vectors_of_embed(place: Path, new: list[str]) -> None:
    model, cache = str(place / "tiny"), place / "cache"
    embedder = lf.TextEmbedder(model, layer=[-1, 1], cache=cache)
    found = embedder.transform(pd.Series(new, index=range(5, 5 + len(new))))
    expected = lf.embed(new, model, [3, 1], cache=cache)
    np.testing.assert_array_equal(found, np.hstack([expected["3"], expected["1"]]))
    names = embedder.get_feature_names_out()
    assert len(names) == found.shape[1]
    assert (names[0], names[-1]) == ("tiny:3:mean:0", "tiny:1:mean:31")
    frame = lf.TextEmbedder(model, cache=cache).set_output(transform="pandas").transform(new)
    assert frame.columns[0] == "tiny:3:mean:0"


def test_its_layer_is_found_by_a_grid_search(place: Path, rows: pd.DataFrame) -> None:
    pipeline = make_pipeline(
        lf.TextEmbedder(str(place / "tiny"), cache=place / "cache"),
        LogisticRegression(max_iter=1000),
    )
    search = GridSearchCV(pipeline, {"textembedder__layer": [0, 3, [0, 3]]}, cv=2)
    search.fit(rows.text, rows.label)
    assert search.best_score_ > 0.6
    with pytest.raises(UserError, match="layers: there is no '9'; there are: 0, 1, 2, 3"):
        lf.TextEmbedder(str(place / "tiny"), 9, cache=place / "cache").transform(["a"])


def test_models_are_ranked_by_their_best_layer(place: Path, rows: pd.DataFrame) -> None:
    models = [str(place / "small"), str(place / "tiny")]
    frame = lf.rank(models, rows[["text"]], rows.label, cache=place / "cache")
    assert sorted(frame.model) == ["small", "tiny"]
    assert frame.log_loss.is_monotonic_increasing
    assert (frame.cheap_gflops <= frame.gflops).all()
    classifier = lf.LayerFusionClassifier(
        models, fusion="stacked", layers="all", seeds=1, cache=place / "cache"
    )
    probes = classifier.fit(rows.text, rows.label).layer_importances_
    best = probes.loc[probes.groupby("model").log_loss.idxmin()].set_index("model")
    for row in frame.to_dict("records"):
        of_model = best.loc[row["model"]]
        assert row["layer"] == of_model.layer
        assert row["log_loss"] == pytest.approx(of_model.log_loss)
        assert row["accuracy"] == of_model.accuracy
    often = lf.rank(models, list(rows.text) * 9, list(rows.label) * 9, cache=place / "cache")
    errors = often.set_index("model").log_loss_error / frame.set_index("model").log_loss_error
    assert (errors > 0.6).all()  # they would be a third, if all of these rows counted
    with pytest.raises(UserError, match="rank: text 1 of 1 is 3"):
        lf.rank(models, [3], [1])
