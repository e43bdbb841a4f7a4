"""Arguments of the commands that are not Hydra's."""

from __future__ import annotations

import argparse
from typing import NoReturn

from layerfusion.errors import UserError


class ArgumentParser(argparse.ArgumentParser):
    """As argparse's, but a mistake is told in one line, as everywhere else."""

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError` with what is wrong and the usage."""
        usage = " ".join(self.format_usage().split())
        raise UserError(f"{message}; {usage}")
