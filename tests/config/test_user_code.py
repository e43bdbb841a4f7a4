"""Errors of a user's own code end in one line with the place in the user's file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from layerfusion.config.imports import import_from, import_object
from layerfusion.config.user_code import call_user_code, is_ours, name_of, user_code_errors
from layerfusion.embeddings.memory import out_of_memory
from layerfusion.embeddings.pooling import mean_tokens
from layerfusion.errors import UserError, library_errors

Imported = Callable[..., Any]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Imported:
    monkeypatch.chdir(tmp_path)

    def imported(text: str, name: str = "own") -> Any:
        module = f"code_{abs(hash((text, tmp_path)))}"
        (tmp_path / f"{module}.py").write_text(text)
        import_from([tmp_path])
        return import_object("key", f"{module}:{name}")

    return imported


def test_ours_and_the_users_are_told_apart(own: Imported) -> None:
    assert all(map(is_ours, (mean_tokens, UserError, UserError("a line"))))
    assert not is_ours(own("def own():\n    pass\n"))
    assert not is_ours(own("class Own:\n    pass\nown = Own()\n"))
    assert not is_ours(lambda: None)
    assert name_of(mean_tokens) == "layerfusion.embeddings.pooling:mean_tokens"


def test_an_error_names_the_line_of_the_users_file(own: Imported) -> None:
    code = own("import json\n\n\ndef own(text):\n    return json.loads(text)\n")
    with pytest.raises(UserError, match=r"code_\d+:own: JSONDecodeError: .*\.py, line 5\)$"):
        call_user_code("reader", code, "{")
    with pytest.raises(UserError, match=r"reader code_\d+:own: TypeError: own\(\) takes 1 "):
        call_user_code("reader", code, "{", "}")


def test_a_lack_of_memory_and_a_line_for_the_user_pass(own: Imported) -> None:
    code = own("def own(error):\n    raise error\n")
    with pytest.raises(UserError, match=r"^no such file$"):
        call_user_code("reader", code, UserError("no such file"))
    with pytest.raises(torch.OutOfMemoryError):
        call_user_code("pooling", code, torch.OutOfMemoryError("full"), passing=out_of_memory)
    with (
        pytest.raises(UserError, match=r"^pooling code_"),  # and not the model's
        library_errors("the model fails"),
    ):
        call_user_code("pooling", code, AttributeError("men"))


def test_an_error_of_ours_is_no_mistake_of_the_users() -> None:
    with pytest.raises(ZeroDivisionError), user_code_errors("pooling", mean_tokens):
        _ = 1 / 0


def test_a_user_writes_into_copies(own: Imported) -> None:
    code = own("def own(vectors):\n    return vectors.zero_().sum()\n")
    vectors = torch.ones(3)
    assert call_user_code("score", code, vectors) == 0
    assert vectors.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 / 0\n", r"cannot be imported: ZeroDivisionError: division by zero \(\S+\.py, line 1\)"),
        ("def own(:\n", r"cannot be imported: SyntaxError: .*line 1"),
        ("import nowhere_at_all\n", "cannot be imported: .*nowhere_at_all"),
        ("from json import nothing\n", r"cannot be imported: ImportError: .*\(\S+\.py, line 1\)"),
    ],
)
def test_a_module_that_fails_is_told_in_one_line(own: Imported, text: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        own(text)
    assert re.search(says, str(caught.value)), caught.value
