"""What other libraries raise becomes one line; what our own code raises stays what it is."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any, cast

import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

from layerfusion.assets import models
from layerfusion.errors import UserError, library_errors


def test_what_a_library_raises_is_one_line_with_its_cause() -> None:
    with (
        pytest.raises(UserError, match=r"^reading: Expecting value: line 1") as caught,
        library_errors("reading"),
    ):
        json.loads("not json")
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)


def test_compiled_libraries_are_libraries_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^reading: "), library_errors("reading"):
        Tokenizer.from_str("{}")
    file = tmp_path / "cut.safetensors"
    file.write_bytes(b"cut")
    with pytest.raises(UserError, match=r"^reading: "), library_errors("reading"):
        safe_open(file, framework="numpy").__enter__()


def test_a_fault_of_our_own_code_keeps_its_traceback() -> None:
    with pytest.raises(TypeError), library_errors("reading"):
        models.check_model_folder("no path", "key")  # type: ignore[arg-type]


def test_a_users_mistake_keeps_its_line() -> None:
    with pytest.raises(UserError, match=r"^mine$"), library_errors("reading"):
        raise UserError("mine")


def test_an_error_that_the_caller_handles_passes() -> None:
    with pytest.raises(json.JSONDecodeError), library_errors("reading", lambda error: True):
        json.loads("")


def test_a_full_disk_passes_as_it_is_no_fault_of_what_was_read() -> None:
    class Full:
        def write(self, _: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"), library_errors("reading"):
        json.dump({"a": 1}, cast(Any, Full()))


def test_a_file_that_transformers_does_not_read_is_not_blamed(tmp_path: Path) -> None:
    (tmp_path / "data_config.json").write_text("[1]")
    (tmp_path / "config.json").write_text("{}")
    assert models.not_json(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text("[1]")
    assert models.not_json(tmp_path) == "tokenizer.json is no JSON object"
