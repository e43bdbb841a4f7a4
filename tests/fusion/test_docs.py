"""The page on fusion names every operator, as its class describes it."""

from __future__ import annotations

import re
from pathlib import Path

from layerfusion.config.job import FusionConfig
from layerfusion.config.operators import operator_names
from layerfusion.fusion.operators import operator_class

PAGE = Path(__file__).parents[2] / "docs" / "fusion.md"


def test_the_page_lists_every_operator_and_whether_order_matters() -> None:
    listed = {}
    for line in PAGE.read_text().splitlines():
        if match := re.match(r"\| ((?:`\w+`(?:, )?)+) \|.*\| (yes|no) \|$", line):
            for name in re.findall(r"`(\w+)`", match[1]):
                listed[name] = match[2] == "yes"
    assert listed == {n: operator_class(FusionConfig(n)).ordered for n in operator_names()}
