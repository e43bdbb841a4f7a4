"""What `layerfusion profile` prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerfusion.cli import main
from layerfusion.records.profile import read_profile
from layerfusion.report.profile_files import profile_lines
from tests.tiny import tiny_job, tiny_texts


def test_headings_and_reasons_stand_wherever_they_belong(
    tmp_path: Path, bert_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job's log says each line once; the tables of a profile have the same headings again."""
    job = tiny_job(tiny_texts(tmp_path / "texts.csv", 60), bert_folder, tmp_path / "cache")
    words = ["pooling=[mean,first]", "profile.scores=[logme]", "layers.folds=2", "logger=none"]
    folder = tmp_path / "profile"
    assert main(["profile", *job, *words, f"hydra.run.dir={folder}"]) == 0
    shown = capsys.readouterr().err.splitlines()
    lines = profile_lines(read_profile(folder))
    assert len({*lines}) < len(lines)
    assert shown[-1 - len(lines) : -1] == lines
