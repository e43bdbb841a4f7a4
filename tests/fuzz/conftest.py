"""How many examples a fuzzer runs, and what became of them.

In the suite each fuzzer runs a few examples, always the same ones. `make fuzz N=10000 SEED=3` runs
as many as it says, others with every seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

COUNTS = "fuzz"
"""Name of the property under which a fuzzer's counts reach the end of the run."""


@pytest.fixture
def counts(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Outcome to the number of examples that had it; shown at the end of the run."""
    found: Counter[str] = Counter()
    yield found
    request.node.user_properties.append((COUNTS, dict(found)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, found in getattr(report, "user_properties", ()):
                if name == COUNTS and getattr(report, "when", "") == "teardown":
                    each = ", ".join(f"{count} {outcome}" for outcome, count in found.items())
                    test = report.nodeid.rpartition("/")[2]
                    terminalreporter.write_line(f"{test}: {sum(found.values())} examples: {each}")
