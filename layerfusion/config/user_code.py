"""Errors of the code that users bring themselves, told in one line with the place in their file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layerfusion.errors import UserError, one_line


def is_ours(code: object) -> bool:
    """Tell whether a function, a class or an object is part of LayerFusion."""
    return _top(_module_of(code)) == _top(__name__)


def name_of(code: object) -> str:
    """Name a function, a class or the class of an object as a config does.

    Example:
        >>> name_of(Path), name_of(Path("texts.csv").resolve)
        ('pathlib:Path', 'pathlib:Path.resolve')
    """
    named = code if hasattr(code, "__qualname__") else type(code)
    return f"{_module_of(code)}:{getattr(named, '__qualname__', '')}"


@contextmanager
def user_code_errors(
    role: str, code: object, passing: Callable[[Exception], bool] = lambda error: False
) -> Iterator[None]:
    """Turn an error of a user's own code into one line; that of LayerFusion's code passes.

    Args:
        role: what the code is, such as `score`, for the message.
        code: the function, the class or the object that is called inside the block.
        passing: true for an error that the caller handles, such as a lack of memory.

    Raises:
        UserError: naming the code, its error, and the line of the user's file that raised it.

    Example:
        >>> with user_code_errors("score", Path):
        ...     {}["logme"]
        Traceback (most recent call last):
        ...
        layerfusion.errors.UserError: score pathlib:Path: KeyError 'logme'
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or is_ours(code) or passing(error):
            raise
        raise UserError(f"{role} {name_of(code)}: {told(error, _module_of(code))}") from error


def call_user_code(
    role: str,
    code: Callable[..., Any],
    *given: Any,
    passing: Callable[[Exception], bool] = lambda error: False,
) -> Any:
    """Call a function that may be the user's own.

    The user's function gets copies of tensors, since one that writes into them would change the
    vectors that all others read, or the states inside a running model.

    Args:
        role: what the function is, for the message.
        code: the function.
        given: its arguments.
        passing: true for an error that the caller handles, such as a lack of memory.

    Raises:
        UserError: as `user_code_errors` does.
    """
    if is_ours(code):
        return code(*given)
    with user_code_errors(role, code, passing):
        return code(*(value.clone() if hasattr(value, "clone") else value for value in given))


def told(error: Exception, module: str) -> str:
    """Tell an error of a user's module: its kind, its words, and where it was raised.

    Args:
        error: what was raised.
        module: name of the module; a module beside it in its package counts as the user's too.
    """
    words, kind = one_line(error), type(error).__name__
    words = words if words.startswith(kind) else f"{kind}: {words}"
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if _top(str(trace.tb_frame.f_globals.get("__name__", ""))) == _top(module):
            place = f" ({_short(code.co_filename)}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return words + place


def _short(file: str) -> str:
    """Write a file as it lies below the current folder; whole, where it lies elsewhere."""
    path = Path(file)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _module_of(code: object) -> str:
    return str(getattr(code, "__module__", None) or type(code).__module__)


def _top(module: str) -> str:
    return module.partition(".")[0]
