"""What all fuzzers share: their settings, their oracle of refusals, and mutations."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from layerfusion.errors import UserError

EXAMPLES = "FUZZ_EXAMPLES"
"""Environment variable with the number of examples of each fuzzer; unset in the suite."""
ACCEPTED, REFUSED = "accepted", "refused"
Result = TypeVar("Result")


def examples(few: int, *, share: float = 1.0) -> settings:
    """Settings of a fuzzer.

    Args:
        few: examples in the suite.
        share: of the examples that `make fuzz` asks for; a slow fuzzer runs fewer.
    """
    asked = os.environ.get(EXAMPLES)
    return settings(
        max_examples=max(1, int(int(asked) * share)) if asked else few,
        derandomize=not asked,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def attempt(counts: Counter[str], action: Callable[[], Result]) -> Result | UserError:
    """Run an action; a `UserError` is returned, after a look at its line.

    Any other error is a fault, and passes through to the test.
    """
    try:
        result = action()
    except UserError as error:
        line = str(error)
        assert line.strip(), "a refusal without a word"
        assert len(line) < 3000, f"a refusal of {len(line)} characters: {line[:200]}"
        counts[REFUSED] += 1
        return error
    counts[ACCEPTED] += 1
    return result


# -- bytes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutated:
    """Bytes after a mutation, and which of the old ones it left alone."""

    content: bytes
    before: int
    """The first bytes, as many as this, are as they were."""
    after: int
    """The last bytes, as many as this, are as they were."""


def mutations(content: bytes, more: tuple[bytes, ...] = ()) -> st.SearchStrategy[Mutated]:
    """Flip, cut out, insert, repeat or splice some bytes.

    Args:
        content: bytes of a whole file.
        more: pieces to insert, besides random bytes.
    """
    place = st.integers(0, max(0, len(content) - 1))
    size = st.integers(1, 12) | st.integers(1, max(1, len(content)))
    pieces = st.binary(min_size=1, max_size=4)
    pieces = st.sampled_from(more) | pieces if more else pieces
    kinds = st.sampled_from(("flip", "cut", "insert", "repeat", "splice", "end"))

    def mutate(kind: str, at: int, length: int, piece: bytes, other: int) -> Mutated:
        rest = at + length
        new, rest = {
            "flip": (piece, min(at + len(piece), len(content))),
            "cut": (b"", min(rest, len(content))),
            "insert": (piece, at),
            "repeat": (content[at:rest], at),
            "splice": (content[other : other + length], min(rest, len(content))),
            "end": (b"", len(content)),
        }[kind]
        return Mutated(content[:at] + new + content[rest:], at, len(content) - rest)

    return st.builds(mutate, kinds, place, size, pieces, place)


# -- JSON ----------------------------------------------------------------------------------------

STRANGE: st.SearchStrategy[Any] = st.sampled_from(
    (None, True, False, 0, -1, 1, 2, 3, 99, 2**63, 10**30, -(10**400), 0.5, float("nan"),
     float("inf"), 1e308, "", "x", "../../etc/passwd", "/", "a:b", "\ud800", "\0", "0", "1", "nan",
     "os:system", [], {}, [[]], [None], {"": None}, {"a": {"b": [None]}}, ["x"], [1], [1.5, "x"],
     [[[[None]]]], [{}], {"0": 0})
)  # fmt: skip
"""Values that stand in the place of others."""


@st.composite
def changed_json(draw: st.DrawFn, value: Any, most: int = 3) -> Any:
    """A JSON value with one or a few of its parts replaced, dropped, added or exchanged."""
    for _ in range(draw(st.integers(1, most))):
        value = _changed(draw, value)
    return value


def _changed(draw: st.DrawFn, value: Any) -> Any:
    inside = isinstance(value, dict | list) and bool(value)
    if not inside or draw(st.integers(0, 9)) == 0:
        return draw(STRANGE)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    copy = value.copy()
    kind = draw(
        st.sampled_from(("deeper",) * 5 + ("replace", "replace", "drop", "add", "exchange"))
    )
    if kind == "deeper":
        copy[key] = _changed(draw, value[key])
    elif kind == "replace":
        copy[key] = draw(STRANGE)
    elif kind == "drop":
        del copy[key]
    elif kind == "exchange":
        copy[key] = value[draw(st.sampled_from(keys))]
    elif isinstance(copy, dict):
        copy[draw(st.sampled_from(("", "x", "schema", "0", "no such key")))] = draw(STRANGE)
    else:
        copy.insert(key, draw(STRANGE))
    return copy
