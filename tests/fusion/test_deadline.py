"""A clock that only moves when told, so that every step takes as long as the test says."""

from __future__ import annotations

import math

from layerfusion.fusion.deadline import Deadline, Pace


class Clock:
    """Seconds that pass only where a test lets them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(deadline: Deadline, clock: Clock, seconds: list[float]) -> list[float]:
    """Work through steps of so many seconds, and return those that were begun."""
    begun = []
    for one in deadline.steps(seconds, "steps were done"):
        begun.append(one)
        clock.now += one
    return begun


def test_no_step_is_begun_that_would_end_too_late_by_the_slowest_so_far() -> None:
    clock = Clock()
    deadline = Deadline(10, now=clock)
    assert taken(deadline, clock, [1, 3, 2, 3, 1]) == [1, 3, 2, 3]  # 9 s, and another may take 3
    assert deadline.left_out == ["4 of 5 steps were done; there was no time for more"
                                 " (time_limit=10)"]  # fmt: skip
    assert deadline.notes()[0] == deadline.left_out[0]
    assert "here 9 s were taken" in deadline.notes()[1]


def test_the_first_step_is_begun_even_where_the_time_is_over() -> None:
    clock = Clock()
    deadline = Deadline(10, begun=80, now=clock)
    assert deadline.left() == -10
    assert deadline.for_extraction() == 0
    assert taken(deadline, clock, [1, 1]) == [1]


def test_all_steps_in_time_leave_nothing_out() -> None:
    clock = Clock()
    deadline = Deadline(10, now=clock)
    assert taken(deadline, clock, [5, 5]) == [5, 5]
    assert deadline.notes() == ["nothing was left out, and 10 s were taken (time_limit=10)"]


def test_without_a_limit_there_is_always_time_and_nothing_to_note() -> None:
    clock = Clock()
    deadline = Deadline(now=clock)
    assert taken(deadline, clock, [1e9, 1e9]) == [1e9, 1e9]
    assert deadline.left() == math.inf
    assert Pace(deadline).allows(10**9)
    assert deadline.notes() == []
