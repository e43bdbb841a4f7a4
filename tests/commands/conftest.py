"""Finished jobs whose classifiers predict."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from layerfusion.cli import main
from tests.tiny import tiny_folder, tiny_job, tiny_texts

FUSIONS = ("gated", "concat", "stacked")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, train and test, and a finished job of each fusion: `runs/FUSION`."""
    root = tmp_path_factory.mktemp("predict")
    tiny_folder("bert", root / "bert")
    tiny_folder("llama", root / "llama")
    rows = pd.read_csv(tiny_texts(root / "all.csv", 90))
    rows[:60].to_csv(root / "train.csv", index=False)
    rows[60:].to_csv(root / "test.csv", index=False)
    for fusion in FUSIONS:
        assert (
            main(["train", *job(root), f"fusion={fusion}", f"hydra.run.dir={root}/{fusion}"]) == 0
        )
    return root


def job(root: Path) -> list[str]:
    return [
        *(word for word in tiny_job(root, root / "bert", root / "cache") if ".path=" not in word),
        f"dataset.train={root}/train.csv",
        f"dataset.test={root}/test.csv",
        f"backbone.bert.path={root}/bert",
        f"backbone.llama.path={root}/llama",
        "pooling=[mean,last]",
        "lexical=[words]",
        "layers=fixed",
        "layers.fixed.bert=[1,3]",
        "layers.fixed.llama=[2,norm]",
        "layers.fixed.words=[0]",
        "logger=none",
        "seeds=2",
        f"paths.outputs={root}/outputs",
    ]


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["predict", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said
