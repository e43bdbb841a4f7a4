"""Modules of the user's: found in the folders of this command, never in those of another one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from layerfusion.config.imports import import_from, import_object, user_folders
from layerfusion.errors import UserError


def module(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return folder


def test_a_module_is_that_of_the_folder_given_last(tmp_path: Path) -> None:
    """One Python process, two folders, one name: each command gets its own file."""
    first = module(tmp_path / "a", "mine_of_two", "who = 'a'\n")
    second = module(tmp_path / "b", "mine_of_two", "who = 'b'\n")
    for folder, who in ((first, "a"), (second, "b"), (first, "a")):
        import_from([folder])
        assert import_object("key", "mine_of_two:who") == who
    assert user_folders() == (first.resolve(),)


def test_folders_of_an_earlier_command_are_left(tmp_path: Path) -> None:
    before = list(sys.path)
    import_from([module(tmp_path / "a", "mine_left", "who = 'a'\n")])
    import_from([])
    assert sys.path == before
    with pytest.raises(UserError, match="there is no module 'mine_left'"):
        import_object("key", "mine_left:who")


def test_a_package_of_that_name_is_not_taken_for_the_users_file(tmp_path: Path) -> None:
    import_from([module(tmp_path / "a", "json", "who = 'a'\n")])
    with pytest.raises(UserError, match=r"another module of that name, .*json.*give your file"):
        import_object("key", "json:who")


def test_a_module_that_is_loaded_is_not_loaded_twice(tmp_path: Path) -> None:
    folder = module(tmp_path / "a", "mine_once", "class Mine: ...\n")
    import_from([folder])
    first = import_object("key", "mine_once:Mine")
    import_from([folder, tmp_path])
    assert import_object("key", "mine_once:Mine") is first
