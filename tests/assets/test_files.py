"""Files while others write beside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layerfusion.assets.files import find_named


def test_a_folder_that_vanishes_while_names_are_looked_for_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report is made while a sweep runs, whose temporary folders come and go."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").touch()
    scan = os.scandir

    def scanned(path: str) -> object:
        if Path(path).name == "b":
            (Path(path) / "metrics.json").unlink()
            Path(path).rmdir()
        return scan(path)

    monkeypatch.setattr(os, "scandir", scanned)
    found = find_named(tmp_path, "metrics.json")
    assert [path.parent.name for path in found] == ["a", "c"]
