"""How requests share batches, wait, are refused and are given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from layerfusion.errors import Unavailable, UserError
from layerfusion.serving.batching import Batcher, Limits, NotClassified, QueueFull, VectorsMissing

LIMITS = Limits(max_batch=4, max_wait=0.02, max_queue=6)


class Model:
    """A classifier whose first probability of a text is its length, and that can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        assert self.go.wait(10)
        self.batches.append(list(texts))
        if "unreadable" in texts:
            raise UserError("no token in the text 'unreadable'")
        if "broken" in texts:
            raise KeyError("broken")
        if "elsewhere" in texts:
            raise Unavailable("503")
        return np.array([[len(text), 0.0] for text in texts], np.float32)


def run(model: Model, steps: Callable[[Batcher], Awaitable[None]], limits: Limits = LIMITS) -> None:
    """Run a batcher while `steps` use it, and then close it."""

    async def both() -> None:
        batcher = Batcher(model, limits)
        running = asyncio.create_task(batcher.run())
        await steps(batcher)
        model.go.set()
        batcher.close()
        await asyncio.wait_for(running, 10)

    asyncio.run(both())


def test_requests_of_the_same_moment_share_a_batch_and_get_their_own_rows() -> None:
    model = Model()

    async def steps(batcher: Batcher) -> None:
        asked = [["a"], ["bb", "ccc"], ["dddd"], ["eeeee"]]
        found = await asyncio.gather(*map(batcher.submit, asked))
        assert [rows[:, 0].tolist() for rows in found] == [[1], [2, 3], [4], [5]]

    run(model, steps)
    assert model.batches == [["a", "bb", "ccc", "dddd"], ["eeeee"]]


def test_a_request_that_is_larger_than_a_batch_has_one_of_its_own() -> None:
    model = Model()

    async def steps(batcher: Batcher) -> None:
        found = await asyncio.gather(batcher.submit(["x"]), batcher.submit(["yy"] * 5))
        assert [len(rows) for rows in found] == [1, 5]

    run(model, steps)
    assert model.batches == [["x"], ["yy"] * 5]


@pytest.mark.parametrize(
    ("text", "error"), [("unreadable", NotClassified), ("broken", RuntimeError)]
)
def test_a_text_that_fails_spoils_no_other_request(
    text: str, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    model = Model()

    async def steps(batcher: Batcher) -> None:
        good, bad, also = (batcher.submit([one]) for one in ("good", text, "fine"))
        assert (await good)[0, 0] == 4
        with pytest.raises(error):
            await bad
        assert (await also)[0, 0] == 4

    run(model, steps)
    assert text not in caplog.text  # nothing of a text is logged
    assert "a request of 1 texts failed" in caplog.text


def test_a_batch_is_tried_once_where_vectors_are_missing() -> None:
    model = Model()

    async def steps(batcher: Batcher) -> None:
        for answer in [batcher.submit([one]) for one in ("good", "elsewhere", "fine")]:
            with pytest.raises(VectorsMissing):
                await answer

    run(model, steps)
    assert model.batches == [["good", "elsewhere", "fine"]]


def test_a_full_queue_refuses_and_takes_again_once_there_is_room() -> None:
    model = Model()
    model.go.clear()

    async def steps(batcher: Batcher) -> None:
        first = batcher.submit(["a"] * 4)
        await asyncio.sleep(0.05)  # the models have it, so that the queue is empty
        waiting = batcher.submit(["b"] * 5)
        with pytest.raises(QueueFull) as full:
            batcher.submit(["c"] * 2)
        assert full.value.seconds >= 1
        fits = batcher.submit(["c"])
        model.go.set()
        await asyncio.gather(first, waiting, fits)
        assert len(await batcher.submit(["c"] * 2)) == 2

    run(model, steps)


def test_what_could_not_be_answered_in_time_is_refused_at_once() -> None:
    model = Model()

    async def steps(batcher: Batcher) -> None:
        model.go.clear()
        slow = batcher.submit(["a"])
        await asyncio.sleep(0.3)  # so that a text seems to take a while
        model.go.set()
        await slow
        model.go.clear()
        first = batcher.submit(["a"])
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFull) as full:
            batcher.submit(["a"])
        assert full.value.seconds >= 1
        model.go.set()
        await first

    run(model, steps, replace(LIMITS, deadline=0.02, max_queue=100))


def test_the_queue_is_as_long_as_its_texts_may_be_expected_to_wait() -> None:
    """Models that get ten times slower have a queue that is ten times shorter, at once."""
    model = Model()

    async def steps(batcher: Batcher) -> None:
        model.go.clear()
        passing = [batcher.submit(["a"] * 4)]
        await asyncio.sleep(0.05)  # it passes the models, and a text seems to take 10 ms
        passing += [batcher.submit(["b"]) for _ in range(6)]
        assert batcher.full() is None
        await asyncio.sleep(0.4)  # four texts have not passed in 0.45 s: six more take longer
        assert batcher.delay > 0.5
        with pytest.raises(QueueFull):
            batcher.submit(["c"])
        model.go.set()
        await asyncio.gather(*passing)
        assert len(await batcher.submit(["c"])) == 1

    run(model, steps, replace(LIMITS, max_queue=100, max_delay=0.5))


def test_a_request_that_was_given_up_is_not_computed_and_makes_room() -> None:
    model = Model()
    model.go.clear()

    async def steps(batcher: Batcher) -> None:
        first = batcher.submit(["a"])
        await asyncio.sleep(0.05)
        late = batcher.submit(["late"] * 6)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await late
        assert batcher.queued == 0
        after = batcher.submit(["after"])
        model.go.set()
        await asyncio.gather(first, after)

    run(model, steps)
    assert model.batches == [["a"], ["after"]]


def test_what_waits_when_it_closes_is_answered_and_nothing_more_is_taken() -> None:
    model = Model()
    model.go.clear()

    async def steps(batcher: Batcher) -> None:
        waiting = [batcher.submit(["a"]) for _ in range(6)]
        batcher.close()
        with pytest.raises(QueueFull):
            batcher.submit(["b"])
        model.go.set()
        assert len(await asyncio.gather(*waiting)) == 6

    run(model, steps)
