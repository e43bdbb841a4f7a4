"""Parses the arguments of commands that do not use Hydra, and says how they go on."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from layerfusion.config.secrets import shown
from layerfusion.errors import UserError


def say(line: str) -> None:
    """Print a line of progress to stderr."""
    print(shown(line), file=sys.stderr, flush=True)


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser that reports a mistake in one line, like all other commands."""

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError` with the mistake and the usage."""
        usage = " ".join(self.format_usage().split())
        raise UserError(f"{message}; {usage}")
