"""`dataset=mteb/NAME` on a folder in the format of MTEB's library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from layerfusion.cli import main
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load

WORDS = {0: "refund money", 1: "lost card"}


@pytest.fixture
def task(tmp_path: Path, bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data with a task whose splits are JSON lines."""
    folder = tmp_path / "mteb" / "cards"
    folder.mkdir(parents=True)
    for split, rows in (("train", 40), ("test", 12)):
        lines = [
            {
                "text": f"{split} {row} {WORDS[row % 2]}",
                "label": row % 2,
                "label_text": WORDS[row % 2],
            }
            for row in range(rows)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setenv("LAYERFUSION_DATA", str(tmp_path))
    shutil.copytree(bert_folder, tmp_path / "bert")
    monkeypatch.chdir(tmp_path)
    return folder


def _plan(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["plan", *words, "backbone.bert.path=bert"])
    said = capsys.readouterr()
    return code, said.out + said.err


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize("label", ["label", "label_text"])
def test_a_task_is_read_with_its_own_splits(label: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = _plan(capsys, "dataset=mteb/cards", f"dataset.label={label}")
    assert code == 0, said
    assert "cards: 36 train, 4 validation, 12 test rows" in said


def test_a_task_that_is_nowhere_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, said = _plan(capsys, "dataset=mteb/nowhere")
    assert code == 2
    assert "hub mteb/nowhere" in said
    assert "Traceback" not in said


def test_a_language_is_a_subset_of_the_hub() -> None:
    words = ["dataset=mteb/amazon_massive_intent", "dataset.subset=de"]
    dataset = load(compose("train", words)).dataset
    assert (dataset.name, dataset.subset) == ("amazon_massive_intent", "de")
    assert (dataset.hub, dataset.path, dataset.sources) == ("mteb/amazon_massive_intent", None, [])


def test_a_language_is_a_folder_inside_that_of_the_task(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(task, task / "de")
    (task / "de" / "test.jsonl").write_text('{"text": "Karte verloren", "label": 1}\n' * 3)
    code, said = _plan(capsys, "dataset=mteb/cards", "dataset.subset=de")
    assert code == 0, said
    assert "3 test rows" in said
    assert _plan(capsys, "dataset=mteb/cards", "dataset.subset=fr")[0] == 2
