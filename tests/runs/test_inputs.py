"""Texts that stay in memory, and are read again once their files have changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerfusion.assets import paths
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.job import TrainConfig
from layerfusion.runs.job_texts import dataset_of

ROWS = "text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(40))


def config_of(folder: Path, *words: str) -> TrainConfig:
    return load(compose("train", ["dataset=local", *words, f"paths.cache={folder / 'cache'}"]))


@pytest.mark.parametrize("kind", ["file", "split", "folder", "environment"])
def test_a_file_that_has_changed_is_read_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "train.csv"
    file.write_text(ROWS)
    words = {
        "file": f"dataset.path={file}",
        "split": f"dataset.train={file}",
        "folder": f"dataset.path={file.parent}",
        "environment": "dataset.path=data",
    }
    monkeypatch.setenv("LAYERFUSION_DATA", str(tmp_path))
    config = config_of(tmp_path, words[kind])
    first = dataset_of(config)
    assert dataset_of(config) is first
    file.write_text(ROWS.replace("text 7", "another"))
    assert dataset_of(config).fingerprint != first.fingerprint


def test_of_a_folder_of_many_files_those_that_come_and_go_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "STATES", 3)
    (tmp_path / "a").mkdir()
    for n in range(5):
        (tmp_path / "a" / f"{n}.txt").write_text("text")
    before = paths.state_of(tmp_path)
    assert len(before) == 2
    assert paths.state_of(tmp_path) == before
    (tmp_path / "a" / "5.txt").write_text("text")
    assert paths.state_of(tmp_path) != before
    assert paths.state_of(tmp_path / "none") == []
