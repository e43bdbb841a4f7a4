"""Mistakes that selections make possible: one line each, and before anything is extracted."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.source import EmbeddingSource
from layerfusion.findings.profiles import missing_scores
from layerfusion.layers.budget import expect, measure
from layerfusion.records.job import read_record
from layerfusion.records.profile import find_profiles, read_profile
from layerfusion.runs.job_sources import extract_all, open_sources
from layerfusion.runs.job_texts import dataset_of
from tests.tiny import TOPICS, run, tiny_topics


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("layers=top_k layers.k=99", "layers.k=99: there are 10 layers"),
        ("layers=adaptive layers.score=nope", "layers.score: there is no 'nope'; there are: "),
        ("layers=last layers.pilot=50", "layers=last needs no pilot"),
        ("layers=greedy layers.budget.ms_per_text=0.000001", "allows no layer: the cheapest is"),
        ("layers=all layers.budget.flops_per_text=-1", "must be at least 0"),
        ("layers=fixed layers.fixed.tiny=[3] layers.budget.max_layer=2", "layer 3 of tiny"),
        ("layers=adaptive layers.strengths=[0]", "layers.strengths=0.0: it must be above 0"),
        ("layers=adaptive layers.mass=7", "layerfusion: layers.mass=7.0: it must lie in [0, 1]"),
    ],
)
def test_a_mistake_gets_one_line(
    more: str, says: str, job: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(["train", *job, *more.split()], capsys)
    assert code == 2
    assert says in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("fusion=matmul fusion.width=10", "fusion.width=10: matmul needs a multiple"),
        ("layers=top_k layers.k=99", "layers.k=99: there are 10 layers to choose among, of tiny"),
        ("layers=top_k layers.k=99 layers.pilot=50", "layers.k=99: there are 10 layers"),
        ("layers=fixed layers.fixed.tiny=[9]", "layers of tiny: there is no '9'; there are: "),
        ("layers=fixed layers.fixed.tiny=[3] layers.budget.max_layer=2", "takes layer 3 of tiny"),
        ("layers=fixed layers.fixed.tiny=[3] layers.budget.flops_per_text=9", "=fixed takes layer"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_extracted(
    more: str, says: str, job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(["train", *job, *more.split()], capsys)
    assert code == 2
    assert says in said.splitlines()[-1]
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize(
    "more",
    [
        "layers=adaptive",
        "layers=greedy layers.pilot=20",
        "fusion=stacked layers=last layers.held_out=validation",
        "fusion=auto layers=last fusion.among=[stacked,mean] fusion.widths=[4]",
    ],
)
def test_too_many_folds_become_fewer_with_a_note(
    more: str, job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["limit.per_class=6", "layers.folds=9", "trainer.max_epochs=1", "pooling=[mean]"]
    code, said = run(["train", *job, *few, *more.split()], capsys)
    assert code == 0, said
    note = "layers.folds=9: 6 folds are dealt, as the largest class has 6 different texts in train"
    assert note in said
    (record,) = map(read_record, (tmp_path / "outputs/runs").iterdir())
    assert note in record.selection_notes


def test_a_profile_says_in_how_many_folds_it_judged(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["limit.per_class=6", "layers.folds=9", "profile.scores=[probe]"]
    code, said = run(["profile", *job, *few], capsys)
    assert code == 0, said
    assert "layers.folds=9: 6 folds are dealt" in said
    (profile,) = map(read_profile, (tmp_path / "outputs/profiles").iterdir())
    assert profile.held_out == "6 folds of train"


@pytest.mark.parametrize("score", ["attention_entropy", "gradient_entropy"])
def test_a_score_that_a_model_does_not_give_gets_one_line(
    score: str,
    job: list[str],
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [x for x in job if "backbone.tiny" not in x]
    model = f"backbone.plain.path={folders['fnet']}"
    selection = ["layers=top_k", "layers.k=1", f"layers.score={score}"]
    code, said = run(["train", *arguments, model, *selection], capsys)
    assert code == 2
    assert "attention_entropy: backbone plain gives no attention" in said.splitlines()[-1]
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize("long_texts", ["truncate", "windows"])
def test_flops_are_known_before_extraction_to_the_last_digit(
    long_texts: str, job: list[str]
) -> None:
    more = [f"backbone.tiny.long_texts={long_texts}", "backbone.tiny.max_length=8"]
    more.append("backbone.tiny.window_overlap=2")
    config = load(compose("train", [*job, *more]))
    dataset = dataset_of(config)
    train = dataset.splits["train"].texts
    source = open_sources(config, dataset)["tiny"]
    assert isinstance(source, EmbeddingSource)
    expected = expect(source, train)
    extracted = extract_all(config, dataset)["tiny"]
    measured = measure(extracted, [text_hash(text) for text in train], "last")
    assert expected.flops == measured.flops
    assert (expected.milliseconds, expected.shape) == (None, measured.shape)
    assert max(source.count_tokens(train)) > 8 or long_texts == "truncate"


@pytest.fixture
def topics(job: list[str], tmp_path: Path) -> list[str]:
    """The same job on texts with several labels."""
    texts, marks = tiny_topics(80)
    marks.insert(0, "text", texts)
    marks.to_csv(tmp_path / "topics.csv", index=False)
    own = [one for one in job if not one.startswith(("dataset.", "pooling"))]
    columns = f"dataset.label_columns=[{','.join(TOPICS)}]"
    return [*own, "dataset.train=null", f"dataset.path={tmp_path / 'topics.csv'}", columns]


@pytest.mark.parametrize("score", ["logme", "gradient", "gradient_entropy"])
def test_a_score_that_compares_classes_is_refused_before_anything_is_extracted(
    score: str, topics: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(["train", *topics, "layers=top_k", f"layers.score={score}"], capsys)
    assert code == 2
    assert f"layers=top_k, score {score}: it compares classes" in said.splitlines()[-1]
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_profile_leaves_out_the_scores_that_compare_classes_and_says_so(
    topics: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = "profile.scores=[probe,gradient,logme,effective_rank]"
    code, said = run(["profile", *topics, scores], capsys)
    assert code == 0, said
    ((_, profile),) = find_profiles(tmp_path / "outputs")
    assert set(profile.score_facts) == {"log_loss", "accuracy", "effective_rank"}
    (why,) = missing_scores(profile)
    assert why.startswith("No gradient or logme: it compares classes, of which a row has one")
