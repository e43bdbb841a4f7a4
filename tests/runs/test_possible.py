"""Mistakes that selections make possible: one line each, and before anything is extracted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import run


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("layers=top_k layers.k=99", "layers.k=99: there are 10 layers"),
        ("layers=adaptive layers.folds=200", "most layers.folds=108 is possible"),
        ("layers=adaptive layers.score=nope", "layers.score: there is no 'nope'; there are: "),
        ("layers=last layers.pilot=50", "layers=last needs no pilot"),
        ("layers=greedy layers.budget.ms_per_text=0.000001", "allows no layer: the cheapest is"),
        ("layers=all layers.budget.flops_per_text=-1", "must be at least 0"),
        ("layers=fixed layers.fixed.tiny=[3] layers.budget.max_layer=2", "layer 3 of tiny"),
        ("layers=adaptive layers.strengths=[0]", "it must list positive numbers"),
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
        ("layers=adaptive layers.folds=200", "most layers.folds=108 is possible"),
        ("fusion=stacked layers=last layers.folds=200", "most layers.folds=108 is possible"),
        (
            "fusion=auto layers=last layers.folds=9 limit.per_class=4",
            "most layers.folds=4 is possible",
        ),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_extracted(
    more: str, says: str, job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(["train", *job, *more.split()], capsys)
    assert code == 2
    assert says in said.splitlines()[-1]
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


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
