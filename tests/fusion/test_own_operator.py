"""An operator in a folder of the user's: one YAML, one class, and every command knows it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from layerfusion.cli import main
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.imports import import_from
from layerfusion.config.job import FusionConfig
from layerfusion.errors import UserError
from layerfusion.fusion.layer_sets import LayerSet
from layerfusion.fusion.operators import build_operator
from layerfusion.fusion.operators.own import fuse
from layerfusion.fusion.race import list_fusion_candidates
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.selection import Choice, Selection
from tests.tiny import tiny_job, tiny_texts

YAML = """
name: largest
_target_: my_largest.Largest
scale: 0.5
"""
CLASS = '''
import torch
from layerfusion.fusion.operators import FusionOperator, Projections

class Largest(FusionOperator):
    """Takes the largest of the projected sources, number by number."""

    def __init__(self, widths, width, scale=1.0, power=1):
        super().__init__(widths, width)
        self.scale = scale
        self.projections = Projections(widths, width)

    def fuse(self, sources):
        return self.scale * self.projections.activated(sources).amax(dim=1), None
'''


@pytest.fixture
def job(tmp_path: Path, bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine/fusion").mkdir(parents=True)
    (tmp_path / "mine/fusion/largest.yaml").write_text(YAML)
    (tmp_path / "mine/my_largest.py").write_text(CLASS)
    texts = tiny_texts(tmp_path / "texts.csv", 60)
    yield [
        *tiny_job(texts, bert_folder, tmp_path / "cache"),
        *("--config-dir", "mine", "layers=all", "fusion.width=8", "seeds=1", "logger=none"),
        *("layers.folds=2", "trainer.max_epochs=2"),
    ]
    sys.modules.pop("my_largest", None)


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_it_trains_reports_and_predicts(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "job"
    own = ["fusion=largest", "fusion.power=2", f"hydra.run.dir={folder}"]
    assert main(["train", *job, *own]) == 0
    assert json.loads((folder / "metrics.json").read_text())["fusion"] == "largest"
    assert main(["report", str(folder)]) == 0
    pd.DataFrame({"text": ["a good one", "a bad one"]}).to_csv("new.csv", index=False)
    words = ["predict", str(folder), "new.csv"]
    assert main([*words, "-o", "out.csv", "--config-dir", "mine"]) == 0
    assert len(pd.read_csv("out.csv")) == 2
    sys.modules.pop("my_largest")
    capsys.readouterr()
    assert main(words) == 2
    assert "my_largest.Largest: it is not part of LayerFusion" in last_line(capsys)
    assert "my_largest" not in sys.modules


def test_auto_tries_it_with_the_arguments_that_the_user_set(job: list[str]) -> None:
    own = ["fusion=auto", "fusion.among=[largest,gated]", "fusion.widths=[4]", "fusion.scale=0.25"]
    config = load(compose("train", [*job, *own, "fusion.temperature=2"]))
    layers = [LayerId("tiny", layer, "mean") for layer in ("1", "2")]
    both = LayerSet("both", Selection(tuple(Choice(layer, "") for layer in layers)), lambda *_: [])
    candidates = list_fusion_candidates([both], config.fusion, dict.fromkeys(layers, 6), 2)
    assert {one.fusion.name: one.fusion.arguments for one in candidates} == {
        "largest": {"scale": 0.25},
        "gated": {"temperature": 2.0, "source_dropout": 0.0},
    }
    assert main(["train", *job, *own]) == 0


def test_a_sweep_has_it_beside_ours(job: list[str], tmp_path: Path) -> None:
    sweep = tmp_path / "outputs/sweeps/main"
    assert (
        main(["train", "-m", *job, "fusion=largest,concat", f"paths.outputs={tmp_path}/outputs"])
        == 0
    )
    records = [json.loads(path.read_text()) for path in sweep.glob("*/metrics.json")]
    assert sorted(record["fusion"] for record in records) == ["concat", "largest"]


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (["fusion=largest", "fusion.scal=2"], "of Largest: there is no 'scal'; there are: scale"),
        (["fusion=larger"], "fusion: there is no 'larger'; there are: attention"),
        (["fusion=auto", "fusion.power=2", "fusion.among=[largest]"], "there is no 'power'"),
    ],
)
def test_mistakes_are_one_line(
    job: list[str], own: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *job, *own]) == 2
    assert says in last_line(capsys)


def test_a_file_that_takes_a_name_of_ours_is_refused(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine/fusion/nameless.yaml").write_text("_target_: my_largest.Largest\n")
    assert main(["train", *job, "fusion=nameless"]) == 2
    assert "give the operator a name of its own, `name: NAME` in its file" in last_line(capsys)


def test_a_file_that_names_no_operator_is_refused(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine/fusion/plain.yaml").write_text("name: plain\nwidth: 16\n")
    assert main(["train", *job, "fusion=plain"]) == 2
    assert "plain.yaml: it names no operator; add the line _target_: my_" in last_line(capsys)


def test_a_file_that_ours_would_hide_is_refused(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine/fusion/gated.yaml").write_text(YAML)
    assert main(["train", *job, "fusion=gated"]) == 2
    assert "fusion/gated.yaml: LayerFusion has a fusion/gated.yaml of its own" in last_line(capsys)


FUSE = "self.scale * self.projections.activated(sources).amax(dim=1), None"


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (FUSE, "self.projections.activated(sources).amax(dim=1)", "two things are needed"),
        (FUSE, "self.projections(sources)[0][:1], None", "of shape (1, 8); vectors of shape"),
        (FUSE, "sources[0], None", "vectors of shape (batch, width) ="),
        (FUSE, "self.projections(sources)[0].double(), None", "torch.float64; those of torch"),
        (FUSE, "self.projections(sources)[0].long(), None", "torch.int64; those of torch"),
        (FUSE, "self.projections(sources)[0].detach(), None", "would not be trained"),
        (FUSE, "self.projections(sources)[0] * float('nan'), None", "NaN or infinity in its first"),
        (FUSE, "self.projections(sources)[0], 1.0", "1.0 of type float as weights; a tensor of"),
        (FUSE, "self.projections(sources)[0], sources[0][0]", "as weights; a tensor of shape"),
        (FUSE, "self.projection(sources), None", "no attribute 'projection' (mine/my_largest.py, "),
        ("def fuse", "def fused", "NotImplementedError: it has no method `fuse(self, sources)`"),
        ("self, sources)", "self, *, sources)", "TypeError: Largest.fuse() takes 1 positional"),
        ("super().__init__(widths, width)", "pass", "cannot assign module before Module.__init__"),
        ("self, widths, width,", "self, widths,", "does not take `width`; it begins with (self, w"),
        ("self.scale = scale", "1 / 0", "ZeroDivisionError: division by zero (mine/my_largest.py"),
    ],
)
def test_a_mistake_in_the_class_is_one_line(
    job: list[str], tmp_path: Path, before: str, after: str, says: str
) -> None:
    (tmp_path / "mine/my_largest.py").write_text(CLASS.replace(before, after))
    import_from([tmp_path / "mine"])
    fusion = FusionConfig("largest", "my_largest.Largest", width=8)
    with pytest.raises(UserError) as caught:
        fuse(build_operator(fusion, [3, 5], 2), [torch.ones(4, 3), torch.ones(4, 5)])
    assert says in str(caught.value)


def test_a_job_tells_the_mistake_in_one_line(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine/my_largest.py").write_text(CLASS.replace("sources).amax", "source).amax"))
    assert main(["train", *job, "fusion=largest"]) == 2
    line = last_line(capsys)
    assert "operator my_largest:Largest: NameError: name 'source' is not defined (mine/my" in line


def test_an_operator_that_writes_into_its_sources_changes_none(
    job: list[str], tmp_path: Path
) -> None:
    writes = "[source.zero_() for source in sources]\n        return "
    (tmp_path / "mine/my_largest.py").write_text(CLASS.replace("return ", writes))
    import_from([tmp_path / "mine"])
    operator = build_operator(FusionConfig("largest", "my_largest.Largest", width=8), [3, 5], 2)
    sources = [torch.ones(4, 3), torch.ones(4, 5)]
    fuse(operator, sources)
    assert all(source.eq(1).all() for source in sources)
