"""Classifiers, records, plans and class names whose JSON or bytes are damaged."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfusion.cli import main
from layerfusion.errors import UserError
from layerfusion.records.job import BUNDLE, METRICS, RunRecord, read_record
from layerfusion.records.profile import PROFILE, Profile, read_profile
from layerfusion.records.sweep import PLANS, read_jobs
from layerfusion.runs.bundle_files import DESCRIPTION, HEADS
from layerfusion.runs.bundle_loading import load_bundle
from layerfusion.texts.labels import read_label_names
from layerfusion.texts.split_files import LABELS_FILE
from tests.fuzz.fuzzing import attempt, changed_json, examples, mutations
from tests.tiny import tiny_folder, tiny_job, tiny_texts

TEXTS = ("the film was good", "a bad plot")
DEEP = b"[" * 100_000


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished job with a classifier, and a profile in a folder beside it."""
    root = tmp_path_factory.mktemp("job")
    tiny_folder("bert", root / "bert")
    words = [
        *tiny_job(tiny_texts(root / "texts.csv", 60), root / "bert", root / "cache"),
        *("logger=none", "seeds=1", f"paths.outputs={root}/outputs"),
    ]
    fused = ["lexical=[words]", "layers=fixed", "layers.fixed.tiny=[1]", "layers.fixed.words=[0]"]
    assert main(["train", *words, *fused, f"hydra.run.dir={root}/job"]) == 0
    assert main(["profile", *words, f"hydra.run.dir={root}/profile"]) == 0
    return root


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A JSON file with a few of its values or bytes changed."""
    if draw(st.integers(0, 3)):
        changed = draw(changed_json(json.loads(content)))
        return json.dumps(changed).encode()
    return draw(mutations(content, (DEEP, b"\xff", b"\xef\xbb\xbf", b"1" * 5000, b"NaN"))).content


@pytest.mark.parametrize("name", [DESCRIPTION, "words.json"])
def test_a_damaged_classifier_is_refused_or_works(
    name: str, job: Path, tmp_path: Path, counts: Counter[str]
) -> None:
    folder = shutil.copytree(job / "job" / BUNDLE, tmp_path / "classifier")
    content = (folder / name).read_bytes()

    @examples(30)
    @given(damaged(content))
    def run(changed: bytes) -> None:
        (folder / name).write_bytes(changed)
        found = attempt(counts, lambda: load_bundle(folder, device="cpu").probabilities(TEXTS))
        if not isinstance(found, UserError):
            assert len(found) == len(TEXTS)
            np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)

    run()


@pytest.mark.parametrize("name", [HEADS, "words.safetensors"])
def test_damaged_weights_are_refused(
    name: str, job: Path, tmp_path: Path, counts: Counter[str]
) -> None:
    folder = shutil.copytree(job / "job" / BUNDLE, tmp_path / "classifier")
    content = (folder / name).read_bytes()
    right = load_bundle(folder, device="cpu").probabilities(TEXTS)

    @examples(15, share=0.5)
    @given(mutations(content, (b"\xff" * 8, DEEP)))
    def run(mutated: Any) -> None:
        (folder / name).write_bytes(mutated.content)
        found = attempt(counts, lambda: load_bundle(folder, device="cpu").probabilities(TEXTS))
        if not isinstance(found, UserError):
            np.testing.assert_array_equal(found, right)

    run()


@pytest.mark.parametrize(
    ("place", "read", "kind"),
    [(f"job/{METRICS}", read_record, RunRecord), (f"profile/{PROFILE}", read_profile, Profile)],
)
def test_a_damaged_record_is_refused_or_read(
    place: str, read: Any, kind: type, job: Path, tmp_path: Path, counts: Counter[str]
) -> None:
    content = (job / place).read_bytes()

    @examples(40)
    @given(damaged(content))
    def run(changed: bytes) -> None:
        (tmp_path / Path(place).name).write_bytes(changed)
        found = attempt(counts, lambda: read(tmp_path))
        assert isinstance(found, UserError | kind)

    run()


def test_a_damaged_plan_is_refused_or_read(tmp_path: Path, counts: Counter[str]) -> None:
    (tmp_path / PLANS).mkdir()
    jobs = {"a": ["layers=last", "seed=1"], "b": ["layers=all", "seed=1"]}
    content = json.dumps({"command": "train", "jobs": jobs}).encode()

    @examples(40)
    @given(damaged(content))
    def run(changed: bytes) -> None:
        (tmp_path / PLANS / "plan.json").write_bytes(changed)
        attempt(counts, lambda: read_jobs(tmp_path))

    run()


@pytest.mark.parametrize("content", [b'["bad", "good"]', b'{"0": "bad", "1": "good"}'])
def test_damaged_class_names_are_refused_or_read(
    content: bytes, tmp_path: Path, counts: Counter[str]
) -> None:
    @examples(30)
    @given(damaged(content))
    def run(changed: bytes) -> None:
        (tmp_path / LABELS_FILE).write_bytes(changed)
        names = attempt(counts, lambda: read_label_names(tmp_path))
        if not isinstance(names, UserError):
            assert all(isinstance(name, str) for name in names or ())

    run()
