"""The page on fusion names every operator, as the table in the code has it."""

from __future__ import annotations

import re
from pathlib import Path

from layerfusion.fusion.operators import OPERATORS

PAGE = Path(__file__).parents[2] / "docs" / "fusion.md"


def test_the_page_lists_every_operator_and_whether_order_matters() -> None:
    listed = {}
    for line in PAGE.read_text().splitlines():
        if match := re.match(r"\| ((?:`\w+`(?:, )?)+) \|.*\| (yes|no) \|$", line):
            for name in re.findall(r"`(\w+)`", match[1]):
                listed[name] = match[2] == "yes"
    assert listed == {name: entry.ordered for name, entry in OPERATORS.items()}
