"""The one exception for mistakes that a user can make and mend."""

from __future__ import annotations

import difflib
import errno
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake in a config, a file or a command: one clear line, no traceback, exit code 2.

    The message names the thing (config key, file, row, label), what was found, and what is allowed.
    """

    options: tuple[str, ...] = ()
    """Options that mend it: see `Mendable`."""


class Mendable(UserError):
    """A mistake that other options of the command mend; the command line prints it whole.

    Args:
        line: the message.
        *options: the options as a shell takes them, such as `dataset.encoding=cp1252`.
    """

    def __init__(self, line: str, *options: str) -> None:
        super().__init__(line)
        self.options = options


class Unavailable(UserError):
    """Something outside of this machine does not do its part, whatever it is asked for.

    Args:
        line: the message.
        where: what it is, without its own words, which may hold a text.
    """

    def __init__(self, line: str, where: str = "") -> None:
        super().__init__(line)
        self.where = where


class OutOfTime(Exception):
    """The time was over before all texts had vectors."""


EXTRA_OF = {
    "datasets": "train",
    "hydra": "train",
    "hydra_plugins": "train",
    "lightning": "train",
    "matplotlib": "train",
    "optuna": "train",
    "py3langid": "train",
    "torchmetrics": "train",
    "wandb": "train",
}
"""Package to the extra of LayerFusion that brings it; `predict` and `serve` need none of them."""


def not_installed(error: ModuleNotFoundError) -> UserError | None:
    """Build the error for a package that an extra of LayerFusion brings; None for any other.

    Example:
        >>> str(not_installed(ModuleNotFoundError(name="wandb.sdk")))
        "wandb is not installed; pip install 'layerfusion[train]' brings all that training needs"
    """
    package = (error.name or "").partition(".")[0]
    if package not in EXTRA_OF:
        return None
    return UserError(
        f"{package} is not installed; pip install 'layerfusion[{EXTRA_OF[package]}]' brings all"
        " that training needs"
    )


@contextmanager
def naming_extras() -> Iterator[None]:
    """Name the extra that brings a package which the block needs and which is not installed.

    Raises:
        UserError: in the place of the error of an import.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        told = not_installed(error)
        if told is None:
            raise
        raise told from error


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


def short(value: object) -> str:
    """Show a value in a message as `repr` does, with its middle left out where it is long.

    Example:
        >>> short("a good film"), len(short("a" * 5000))
        ("'a good film'", 120)
    """
    return _SHORT.repr(value)


def first_few(names: Sequence[object], most: int = 5) -> str:
    """Join the first names, for a line that must stay short.

    Example:
        >>> first_few("abcdefg")
        'a, b, c, d, e, …'
    """
    return ", ".join(map(str, names[:most])) + (", …" if len(names) > most else "")


def unknown(kind: str, value: object, allowed: Iterable[object]) -> UserError:
    """Return the error for a name that does not exist. It lists the names that do.

    Example:
        >>> str(unknown("layers", "adaptiv", ["last", "adaptive"]))
        "layers: there is no 'adaptiv'; there are: last, adaptive; did you mean adaptive?"
    """
    there = list(map(str, allowed))
    wanted = str(value)
    line = f"{kind}: there is no {short(wanted)}; there are: {', '.join(there) or 'none'}"
    named = any(letter.isalpha() for letter in wanted)  # numbers are alike by chance
    near = difflib.get_close_matches(wanted[:100], there, n=1, cutoff=0.7) if named else []
    if named and not near:  # the beginning of a name, such as `batch` of `batch_size`
        near = [one for one in there if len(wanted) > 1 and one.startswith(wanted)][:1]
    return UserError(f"{line}; did you mean {near[0]}?" if near else line)


def one_line(error: object, limit: int = 200) -> str:
    """Shorten the message of another library's error to one line.

    A bare name or nothing at all, as of a `KeyError`, says too little without the error's kind.
    """
    text = " ".join(str(error).split())
    if isinstance(error, Exception) and " " not in text:
        text = f"{type(error).__name__} {text}".strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


@contextmanager
def library_errors(
    explain: str | Callable[[Exception], str],
    passing: Callable[[Exception], bool] = lambda error: False,
) -> Iterator[None]:
    """Turn an error that another library raises inside the block into a `UserError` of one line.

    The files of a user may be wrong in more ways than we can list kinds of errors. So we look at
    where an error was raised: one of our own code is a fault of ours, or a `UserError` already, and
    passes unchanged. Compiled libraries have no frames of their own, but they raise `Exception`
    itself or a kind of their own. A full disk is no fault of what a library reads, and passes too.

    Args:
        explain: what failed, in front of the library's own words; or a function that makes the
            whole line of the error.
        passing: true for an error of a library that the caller handles.

    Raises:
        UserError: for an error of another library.
    """
    try:
        yield
    except Exception as error:
        if passing(error) or not _is_foreign(error) or _is_full_disk(error):
            raise
        line = f"{explain}: {one_line(error)}" if isinstance(explain, str) else explain(error)
        raise UserError(line) from error


def _is_full_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_foreign(error: Exception) -> bool:
    """Return true for an error that was raised outside of this package."""
    ours, kind = __name__.split(".")[0], type(error)
    if isinstance(error, UserError):
        return False
    if kind is Exception or kind.__module__.split(".")[0] not in ("builtins", ours):
        return True
    return raised_in(error) != ours


def raised_in(error: Exception) -> str:
    """Name the package whose code raised an error; empty where that is not known."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    name = str(place.tb_frame.f_globals.get("__name__", "")) if place is not None else ""
    return name.split(".")[0]
