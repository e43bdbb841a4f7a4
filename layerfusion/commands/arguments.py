"""Parses the arguments of commands that do not use Hydra."""

from __future__ import annotations

import argparse
from typing import NoReturn

from layerfusion.errors import UserError


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser that reports a mistake in one line, like all other commands."""

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError` with the mistake and the usage."""
        usage = " ".join(self.format_usage().split())
        raise UserError(f"{message}; {usage}")
