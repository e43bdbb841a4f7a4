"""A finished sweep is recognised by one job for each set of texts and models."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig

from layerfusion.cli import main
from layerfusion.runs.job_texts import _datasets
from layerfusion.runs.settled import NOTES, inputs_id, read_note, sources_id
from layerfusion.runs.sweep import status_lines
from tests.tiny import tiny_folder, tiny_job, tiny_texts


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    texts = tiny_texts(tmp_path / "texts.csv", 60)
    job = tiny_job(texts, tiny_folder("bert", tmp_path / "bert"), tmp_path / "cache")
    more = [f"paths.outputs={tmp_path / 'out'}", "logger=none", "seeds=1", "fusion=concat"]
    return ["train", "-m", *job, *more, "trainer.max_epochs=1", "fusion.width=4,5,6"]


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The jobs that were composed."""
    found: list[object] = []
    right = ConfigLoaderImpl.load_sweep_config

    def load(loader: ConfigLoaderImpl, config: DictConfig, overrides: list[str]) -> DictConfig:
        found.append(overrides)
        return right(loader, config, overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", load)
    return found


def records(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("out/sweeps/main/*/metrics.json")}


def test_one_job_stands_for_all(
    words: list[str], tmp_path: Path, composed: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    assert len(composed) == 3
    before = records(tmp_path)
    for plan in (tmp_path / "out/sweeps/main/.plans").iterdir():
        plan.unlink()
    composed.clear()
    assert main(words) == 0
    assert len(composed) == 1
    assert "all 3 jobs were finished before" in capsys.readouterr().err
    assert records(tmp_path) == before
    assert "3 jobs: 3 done" in status_lines(tmp_path / "out/sweeps/main")[0]
    composed.clear()
    assert main([*words[:-1], "fusion.width=4,5,6,7"]) == 0  # another grid
    assert len(composed) == 4
    assert before.items() <= records(tmp_path).items()


def damage_predictions(folder: Path) -> None:
    path = max(folder.glob("out/sweeps/main/*/predictions.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def remove_record(folder: Path) -> None:
    max(folder.glob("out/sweeps/main/*/metrics.json")).unlink()


def change_texts(folder: Path) -> None:
    table = pd.read_csv(folder / "texts.csv")
    table.loc[0, "text"] = "another film"
    table.to_csv(folder / "texts.csv", index=False)
    _datasets.clear()  # as in another process


def damage_note(folder: Path) -> None:
    (note,) = (folder / "out/sweeps/main" / NOTES).iterdir()
    note.write_text(json.dumps({**json.loads(note.read_text()), "jobs": []}))


def test_whatever_has_changed_is_noticed(
    words: list[str], tmp_path: Path, composed: list[object]
) -> None:
    assert main(words) == 0
    changes = ((damage_predictions, 1), (remove_record, 1), (damage_note, 0), (change_texts, 3))
    for change, again in changes:
        before = records(tmp_path)
        change(tmp_path)
        composed.clear()
        assert main(words) == 0
        assert len(composed) >= 3
        now = records(tmp_path)
        assert sum(before.get(path) != now[path] for path in now) == again
        (note,) = (tmp_path / "out/sweeps/main" / NOTES).iterdir()
        assert len(read_note(note.parents[1], note.stem)) == 3


def test_configs_of_a_user_and_variables_belong_to_a_sweep(
    words: list[str], tmp_path: Path, composed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own/fusion/mine.yaml"
    own.parent.mkdir(parents=True)
    text = "name: concat\nwidth: ${oc.decode:${oc.env:HEAD_WIDTH,8}}\n"
    own.write_text(text)
    words = [*words[:-1], f"--config-dir={tmp_path / 'own'}", "fusion=mine", "fusion.dropout=0,0.5"]
    composed.clear()
    main(words)
    for change in ("nothing", "variable", "file"):
        if change == "variable":
            monkeypatch.setenv("HEAD_WIDTH", "9")
        elif change == "file":
            own.write_text(text.replace("concat", "mean"))
        composed.clear()
        assert main(words) == 0
        assert len(composed) == (1 if change == "nothing" else 2)


@pytest.mark.parametrize("name", ["RESULT", "HEAD", "STACK", "PROBE", "WEIGHTED"])
def test_code_that_gives_other_results_does_not_recognise_a_sweep(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sources_id("train", [["fusion=stacked"]], [])
    assert sources_id("train", [["fusion=stacked"]], []) == before
    monkeypatch.setattr(f"layerfusion.config.identity.{name}_VERSION", 99)
    assert sources_id("train", [["fusion=stacked"]], []) != before


@pytest.mark.parametrize(
    ("config", "known"),
    [
        ({"fusion": {"target": "layerfusion.fusion.operators.Concat"}}, True),
        ({"fusion": {"target": "mine.Operator"}}, False),
        ({"pooling": {"mine": {"pool": "mine:pool"}}}, False),
        ({"dataset": {"sources": [{"path": "https://x.org/a.csv"}]}}, True),
    ],
)
def test_a_sweep_with_code_of_the_user_is_checked_job_by_job(
    config: dict[str, object], known: bool
) -> None:
    assert (inputs_id(config) is not None) == known
