"""`layerfusion status`: how a sweep stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerfusion.commands.arguments import ArgumentParser


def main(arguments: Sequence[str]) -> int:
    """Say how a sweep stands, also while it runs."""
    from layerfusion.runs.sweep import status_lines

    parser = ArgumentParser(
        "layerfusion status",
        description="Which jobs of a sweep are done, failed, running or missing; the time left.",
    )
    parser.add_argument("folder", metavar="DIR", help="of the sweep: outputs/sweeps/NAME")
    for line in status_lines(Path(parser.parse_args(arguments).folder)):
        print(line)
    return 0
