"""Modules of the user's: found in the folders of this command, never in those of another one."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from layerfusion.config.imports import code_hash, import_from, import_object, user_folders
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


# -- files that are edited while Python runs -----------------------------------------------------


def test_an_edited_file_runs_anew_from_the_next_command_on(tmp_path: Path) -> None:
    """Until then the hash is that of the code that runs: the same second, the same size."""
    folder = module(tmp_path / "a", "mine_edited", "def who(): return 'a'\n")
    import_from([folder])
    first, hashed = import_object("key", "mine_edited:who"), code_hash("key", "mine_edited:who")
    assert first() == "a"
    module(folder, "mine_edited", "def who(): return 'b'\n")
    assert import_object("key", "mine_edited:who")() == "a"
    assert code_hash("key", "mine_edited:who") == hashed
    import_from([folder])
    assert import_object("key", "mine_edited:who")() == "b"
    assert code_hash("key", "mine_edited:who") != hashed
    module(folder, "mine_edited", "def who(): return 'a'\n")
    import_from([folder])
    assert code_hash("key", "mine_edited:who") == hashed
    assert import_object("key", "mine_edited:who")() == "a"


def test_an_edit_that_python_cannot_read_is_told_until_it_is_mended(tmp_path: Path) -> None:
    folder = module(tmp_path / "a", "mine_broken", "def who(): return 'a'\n")
    import_from([folder])
    assert import_object("key", "mine_broken:who")() == "a"
    module(folder, "mine_broken", "def who() return 'b'\n")
    for _ in range(2):
        import_from([folder])
        with pytest.raises(UserError, match=r"key=mine_broken:who: mine_broken cannot be imported"):
            import_object("key", "mine_broken:who")
    module(folder, "mine_broken", "def who(): return 'b'\n")
    import_from([folder])
    assert import_object("key", "mine_broken:who")() == "b"


def test_a_file_that_was_edited_after_the_users_own_import_runs_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    folder = module(tmp_path / "a", "mine_before", "def who(): return 'a'\n")
    import_from([folder])
    own = importlib.import_module("mine_before")
    module(folder, "mine_before", "def who():\n    return 'another'\n")
    assert import_object("key", "mine_before:who")() == "another"
    assert own.who() == "another"  # the module itself ran anew, and no second one


def test_what_the_user_reloads_has_the_hash_of_what_it_was_reloaded_from(tmp_path: Path) -> None:
    folder = module(tmp_path / "a", "mine_reloaded", "def who(): return 'a'\n")
    import_from([folder])
    before = code_hash("key", "mine_reloaded:who")
    module(folder, "mine_reloaded", "def who():\n    return 'another'\n")
    importlib.reload(sys.modules["mine_reloaded"])
    assert import_object("key", "mine_reloaded:who")() == "another"
    assert code_hash("key", "mine_reloaded:who") != before


def test_an_edit_counts_where_the_object_was_written(tmp_path: Path) -> None:
    folder = module(tmp_path / "a", "mine_inner", "def who(): return 'a'\n")
    module(folder, "mine_outer", "from mine_inner import who\n")
    import_from([folder])
    before = code_hash("key", "mine_outer:who")
    module(folder, "mine_inner", "def who(): return 'b'\n")
    import_from([folder])
    assert import_object("key", "mine_outer:who")() == "b"
    assert code_hash("key", "mine_outer:who") != before


def test_an_edit_of_what_a_module_imports_beside_it_counts(tmp_path: Path) -> None:
    """Also of what that imports, at the top or in a function; and of nothing else."""
    folder = module(tmp_path / "a", "mine_far", "WHO = 'a'\n")
    (folder / "mine_package").mkdir()
    module(folder / "mine_package", "__init__", "from .near import far\n")
    module(folder / "mine_package", "near", "import mine_far\ndef far(): return mine_far.WHO\n")
    module(folder, "mine_late", "LATE = 'a'")
    outer = "import mine_package\ndef who():\n    from mine_late import LATE\n"
    module(folder, "mine_outermost", f"{outer}    return mine_package.far() + LATE\n")
    module(folder, "mine_other", "import mine_outermost\n")

    def asked() -> tuple[str, str | None]:
        import_from([folder])
        path = "mine_outermost:who"
        hashed = code_hash("key", path)
        said = import_object("key", path)()
        assert code_hash("key", path) == hashed  # also with all imports done
        return said, hashed

    assert asked()[0] == "aa"
    first = asked()
    import_object("key", "mine_other:mine_outermost")
    module(folder, "mine_other", "import mine_outermost, os\n")
    assert asked() == first
    module(folder, "mine_far", "WHO = 'b'\n")
    second = asked()
    assert second[0] == "ba"
    module(folder, "mine_late", "LATE = 'b'\n")
    third = asked()
    assert third[0] == "bb"
    assert len({first[1], second[1], third[1]}) == 3


def test_an_edit_does_not_run_an_installed_module_anew(tmp_path: Path) -> None:
    from omegaconf.errors import ConfigTypeError

    text = "from omegaconf.errors import ConfigTypeError\nimport mine_helper\n"
    folder = module(tmp_path / "a", "mine_named", text)
    for helper in ("A = 1\n", "A = 23\n"):
        import_from([module(folder, "mine_helper", helper)])
        assert import_object("key", "mine_named:ConfigTypeError") is ConfigTypeError
    assert sys.modules["mine_helper"].A == 23


def test_a_module_that_imports_nothing_beside_it_keeps_its_hash(tmp_path: Path) -> None:
    text = "import json\nimport numpy\nfrom layerfusion import errors\nwho = json.loads\n"
    import_from([module(tmp_path / "a", "mine_alone", text)])
    importlib.import_module("mine_alone")
    assert code_hash("key", "mine_alone:numpy") == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("file", [None, __file__])
def test_what_is_written_in_a_notebook_has_a_hash_of_its_own(
    file: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so has what a script or a notebook that has a file writes again."""
    notebook = ModuleType("__main__")
    if file is not None:
        notebook.__file__ = file
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    hashes = []
    for number in (1, 2, 1):
        exec(f"def who(): return {number}", vars(notebook))
        hashes.append(code_hash("key", "__main__:who"))
    assert hashes[0] == hashes[2] != hashes[1]
    assert None not in hashes
