"""`layerfusion status`: how a sweep stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerfusion.commands.arguments import ArgumentParser


def main(arguments: Sequence[str]) -> int:
    """Say how a sweep stands, also while it runs."""
    parser = ArgumentParser(
        "layerfusion status",
        description="Which jobs of a sweep are done, failed, running or missing; the time left.",
    )
    parser.add_argument("folder", metavar="DIR", help="of the sweep: outputs/sweeps/NAME")
    folder = Path(parser.parse_args(arguments).folder)
    from layerfusion.runs.sweep import status_lines

    for line in status_lines(folder):
        print(line)
    return 0
