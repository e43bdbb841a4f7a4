"""Parses the arguments of commands that do not use Hydra, and says how they go on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from layerfusion.config.secrets import shown
from layerfusion.errors import UserError
from layerfusion.progress import clear


def say(line: str) -> None:
    """Print a line of progress to stderr."""
    clear()
    print(shown(line), file=sys.stderr, flush=True)


def add_models(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where the models' files lie now."""
    parser.add_argument("--cache", metavar="FOLDER", help="the cache, with downloaded models")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="folder of a language model's files, if they are not where the job found them",
    )


def pairs(option: str, given: Sequence[str], form: str, example: str) -> dict[str, str]:
    """Read the words of an option that may be given several times, of a form like `NAME=FOLDER`.

    Raises:
        UserError: for a word without `=`.
    """
    found = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise UserError(f"{option} {word}: {form} is needed, such as {example}")
        found[name] = value
    return found


def model_folders(given: Sequence[str]) -> dict[str, str]:
    """Read the words of `--model`.

    Raises:
        UserError: for a word without `=`.
    """
    return pairs("--model", given, "NAME=FOLDER", "minilm=models/minilm")


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser that reports a mistake in one line, like all other commands."""

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]  # it is overloaded
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Parse the words, and refuse an empty one in the place of a file, a folder or a text.

        It comes from a variable of the shell that is not set, and would name the present folder.

        Raises:
            UserError: for this and any other mistake.
        """
        parsed, others = super().parse_known_args(args, namespace)
        for action in self._actions:
            given = getattr(parsed, action.dest, None)
            if not action.option_strings and "" in (given if isinstance(given, list) else [given]):
                self.error(f"{action.metavar or action.dest}: an empty word")
        return parsed, others

    def parse_args(  # pyright: ignore[reportIncompatibleMethodOverride]  # it is overloaded
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Parse the words; an option may stand between any two of them.

        Where there may be any number of words, argparse by itself takes none after an option.
        """
        if any(action.nargs in ("*", "+") for action in self._actions):
            return self.parse_intermixed_args(args, namespace)
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError` with the mistake and the usage."""
        usage = " ".join(self.format_usage().split())
        raise UserError(f"{message}; {usage}")
