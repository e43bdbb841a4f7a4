"""When a server of vectors that fails is left alone, and when it is asked again."""

from __future__ import annotations

import math

import pytest

from layerfusion.embeddings.breaker import PAUSE, TRIAL, Breaker
from layerfusion.errors import OutOfTime, Unavailable, UserError

WHERE = "backbone paid: http://localhost/v1"


class Server:
    """Counts how often it is asked, and fails as it is told, after some seconds of its clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = 0
        self.breaker = Breaker(WHERE, lambda: self.now)

    def give(
        self, error: Exception | None = None, seconds: float = 0.0, end: float = math.inf
    ) -> float:
        """Ask it, and return the time that was left for it."""
        with self.breaker.asking(end) as left:
            time = left()
            self.asked += 1
            self.now += min(seconds, time)
            if error:
                raise error
            return time


def fails(server: Server, error: Exception, told: str, seconds: float = 0.0) -> None:
    with pytest.raises(Unavailable, match=told) as found:
        server.give(error, seconds, server.now + 30)
    assert found.value.where == WHERE


def test_after_three_failures_in_a_row_it_is_left_alone_and_then_tried_again() -> None:
    server = Server()
    dead = Unavailable("the server is dead", WHERE)
    for _ in range(2):
        fails(server, dead, "^the server is dead$")
    assert server.give() == math.inf  # one that is answered begins the count anew
    for _ in range(3):
        fails(server, dead, "^the server is dead$")
    told = "^the server is dead; after 3 of these in a row it is not asked for another 10 s$"
    fails(server, dead, told)
    assert server.asked == 6
    with server.breaker.asking(math.inf):
        pass  # texts whose vectors are there need no server, and say nothing about it
    server.now += PAUSE
    fails(server, dead, "^the server is dead$")  # the trial
    fails(server, dead, "after 4 of these in a row")
    assert server.asked == 7
    server.now += PAUSE
    assert server.give() == TRIAL
    assert server.give() == math.inf


def test_a_server_that_hangs_is_left_alone_at_once_and_its_trial_is_short() -> None:
    server = Server()
    fails(server, OutOfTime(), "gave no vectors in the time for them$", seconds=30)
    fails(server, OutOfTime(), "the time for them; after 1 of these in a row it is not asked")
    server.now += PAUSE
    begun = server.now
    fails(server, OutOfTime(), "gave no vectors in the time for them$", seconds=30)
    assert server.now - begun == TRIAL


def test_a_text_that_is_refused_is_an_answer() -> None:
    server = Server()
    for _ in range(3):
        with pytest.raises(UserError, match="too long"):
            server.give(UserError("the text is too long"))
    fails(server, Unavailable("dead", WHERE), "^dead$")

    assert server.give() == math.inf
