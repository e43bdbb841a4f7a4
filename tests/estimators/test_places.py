"""Saved classifiers name the files that they need, wherever they are opened."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import layerfusion as lf
from layerfusion.errors import UserError
from layerfusion.runs.shared import shareable
from tests.embeddings.fake_endpoint import FakeEndpoint


def test_a_model_of_a_relative_folder_is_found_from_elsewhere(
    place: Path, rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree of folders may be moved too, so that the path from the present folder goes first."""
    for name in ("here", "there"):
        shutil.copytree(place / "tiny", tmp_path / name / "tiny")
    monkeypatch.chdir(tmp_path / "here")
    classifier = lf.LayerFusionClassifier("tiny", layers="last", fusion="stacked", seeds=1)
    probabilities = classifier.fit(rows.text, rows.label).predict_proba(rows.text[:3])
    saved = classifier.save(tmp_path / "saved")
    monkeypatch.chdir(tmp_path)
    for load in (lf.load, lf.LayerFusionClassifier.load):
        assert np.allclose(load(saved).predict_proba(rows.text[:3]), probabilities, atol=1e-6)
    assert lf.load(saved).config.backbone["tiny"].path == str(tmp_path / "here/tiny")
    assert str(tmp_path) not in repr(shareable(lf.load(saved)))
    monkeypatch.chdir(tmp_path / "there")
    assert lf.load(saved).config.backbone["tiny"].path == "tiny"
    assert lf.load(saved, models={"tiny": "tiny"}).predict(["a good film"]).size == 1
    (tmp_path / "here").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="say with --model tiny=FOLDER"):
        lf.load(saved).predict(["a good film"])


def test_a_server_of_vectors_is_named_anew_for_a_saved_estimator(
    rows: pd.DataFrame, tmp_path: Path
) -> None:
    with FakeEndpoint() as fake:
        settings = {"backbone.paid.endpoint": fake.url, "backbone.paid.model": "words"}
        given = {"layers": "last", "fusion": "stacked", "seeds": 1, "cache": tmp_path / "cache"}
        classifier = lf.LayerFusionClassifier("paid", **given, settings=settings)
        saved = classifier.fit(rows.text, rows.label).save(tmp_path / "saved")
        expected = classifier.predict_proba(rows.text[:3])
        with pytest.raises(UserError, match="which no classifier asks without your word"):
            lf.LayerFusionClassifier.load(saved).predict(rows.text[:3])
        again = lf.LayerFusionClassifier.load(saved, endpoints={"paid": fake.url})
        np.testing.assert_allclose(again.predict_proba(rows.text[:3]), expected, atol=1e-6)
        with pytest.raises(UserError, match="A_TOKEN"):
            lf.LayerFusionClassifier.load(
                saved, endpoints={"paid": fake.url}, tokens={"paid": "A_TOKEN"}
            ).predict(["a new one"])
