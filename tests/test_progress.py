"""What a command tells of its progress: one line on a terminal, a line now and then in a log."""

from __future__ import annotations

import io
import itertools
import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from layerfusion import progress
from layerfusion.progress import LOG_EVERY, Count, counted, hidden, shown, steps, within


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock that tests set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    yield now
    assert not progress._display.counts


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    found = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=found))
    monkeypatch.setenv("COLUMNS", "200")
    return found


def drawn(terminal: Terminal) -> list[str]:
    return [line.removesuffix("\x1b[K") for line in terminal.getvalue().split("\r")[1:]]


def test_the_time_left_is_of_the_outermost_count_that_knows_it(
    clock: list[float], terminal: Terminal
) -> None:
    with shown(), within(Count("layers=last", 9)) as _, counted("heads", 6) as step:
        clock[0] += 10
        step()
        clock[0] += 1
        progress._display.counts[0].step()
        clock[0] += 1
        step()
    lines = drawn(terminal)
    assert lines[0] == "[1/9] layers=last"
    assert lines[1] == "[1/9] layers=last · [1/6] heads"
    assert lines[2] == "[1/9] layers=last · [2/6] heads … 50 s left"
    assert lines[3] == "[2/9] layers=last … 87 s left · [3/6] heads"
    assert lines[-1] == ""  # the line goes


def test_a_line_of_the_log_stands_alone(clock: list[float], terminal: Terminal) -> None:
    log = logging.getLogger("tests.progress")
    handler = logging.StreamHandler(terminal)
    logging.getLogger().addHandler(handler)
    try:
        with shown(), counted("heads", 6):
            log.warning("note")
    finally:
        logging.getLogger().removeHandler(handler)
    assert "\r[1/6] heads\x1b[K\r\x1b[Knote\n" in terminal.getvalue()


def test_a_log_gets_a_line_now_and_then(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with shown():
        for _ in steps(range(40), "heads"):
            clock[0] += 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["[16/40] heads … 25 s left", "[31/40] heads … 10 s left"]
    assert LOG_EVERY == 15


def test_nothing_is_told_unless_a_command_shows_it(clock: list[float], terminal: Terminal) -> None:
    assert list(steps("ab", "letters")) == ["a", "b"]
    with shown(), hidden(), counted("heads", 6):
        pass
    with shown(), counted("none", 0):
        pass
    other = threading.Thread(target=lambda: list(steps("ab", "letters")))
    with shown():
        other.start()
        other.join()
    assert terminal.getvalue() == ""


def test_what_an_error_leaves_is_not_told_of_later(clock: list[float], terminal: Terminal) -> None:
    suspended = steps(itertools.count(), "heads", 6)
    with shown(), counted("trials", 2):
        next(suspended)
    with shown(), counted("trials", 2):
        pass
    assert drawn(terminal)[-2] == "[1/2] trials"
