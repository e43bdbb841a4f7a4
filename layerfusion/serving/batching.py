"""Gather the texts of many requests into batches that pass through the models together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from layerfusion.errors import Unavailable, UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What a server takes before it refuses."""

    max_texts: int = 64
    """Most texts of a request."""
    max_characters: int = 20_000
    """Most characters of a text."""
    max_bytes: int = 4 * 2**20
    """Most bytes of the body of a request."""
    max_batch: int = 32
    """Texts that pass through the models together; a request with more has a batch of its own."""
    max_wait: float = 0.005
    """Longest time in seconds that a text waits for company while the models are idle."""
    max_queue: int = 128
    """Most texts that wait; a request that would make them more is refused."""
    deadline: float = 30.0
    """Seconds after which a request is given up."""


class QueueFull(Exception):
    """The request would make the queue too long.

    Args:
        seconds: after how many seconds there will be room.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class NotClassified(Exception):
    """The texts of a request cannot be classified, such as one without a token."""


class VectorsMissing(Exception):
    """A server that is asked for vectors gives none now, whatever the texts are."""


@dataclass(frozen=True)
class _Waiting:
    texts: Sequence[str]
    answer: asyncio.Future[np.ndarray]


class Batcher:
    """Classifies the texts of requests, several requests together.

    The models run in a thread of their own, so that the event loop goes on answering. A request
    whose answer is no longer wanted is left out.

    Args:
        classify: from texts to probabilities, shape (texts, classes).
        limits: sizes of batches and of the queue.
        passed: called with the number of texts and the seconds of each batch.
    """

    def __init__(
        self,
        classify: Callable[[Sequence[str]], np.ndarray],
        limits: Limits,
        passed: Callable[[int, float], object] = lambda texts, seconds: None,
    ) -> None:
        self._classify = classify
        self._limits = limits
        self._passed = passed
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        self._thread = ThreadPoolExecutor(1, "models")
        self._seconds_per_text = 0.01
        """Running mean over the last batches, to say when there will be room."""

    @property
    def queued(self) -> int:
        """Number of texts that wait."""
        return sum(len(one.texts) for one in self._waiting if not one.answer.done())

    def submit(self, texts: Sequence[str]) -> asyncio.Future[np.ndarray]:
        """Queue the texts of a request.

        Returns:
            A future of their probabilities, shape (texts, classes). It raises `NotClassified` where
            the classifier refuses the texts, and `VectorsMissing` where a server of vectors gives
            none. Cancel it when the answer is no longer wanted.

        Raises:
            QueueFull: if too many texts wait already, or so many that the deadline would pass.
        """
        queued = self.queued
        wait = queued * self._seconds_per_text
        # What would be given up before its turn is refused at once.
        full = queued + len(texts) > self._limits.max_queue or wait > self._limits.deadline
        if self._closed or (queued and full):
            raise QueueFull(max(1.0, wait))
        answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(texts, answer))
        self._arrived.set()
        return answer

    async def run(self) -> None:
        """Classify what is queued until `close` is called and the queue is empty."""
        while self._waiting or not self._closed:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await self._company()
            if batch := self._next_batch():
                await self._answer(batch)
        self._thread.shutdown()

    def close(self) -> None:
        """Take no more requests; those that wait are still answered."""
        self._closed = True
        self._arrived.set()

    async def _company(self) -> None:
        """Wait for more texts, for a short time, unless a batch is full already."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._limits.max_wait
        while self.queued < self._limits.max_batch and not self._closed:
            left = until - loop.time()
            if left <= 0:
                return
            self._arrived.clear()
            waiter = asyncio.ensure_future(self._arrived.wait())
            await asyncio.wait({waiter}, timeout=left)
            waiter.cancel()

    def _next_batch(self) -> list[_Waiting]:
        """Take requests from the queue, in order, whose texts fill a batch."""
        batch: list[_Waiting] = []
        texts = 0
        while self._waiting:
            one = self._waiting[0]
            if batch and texts + len(one.texts) > self._limits.max_batch:
                break
            self._waiting.popleft()
            if not one.answer.done():
                batch.append(one)
                texts += len(one.texts)
        return batch

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        """Classify requests together, or each alone if one of them makes the others fail."""
        texts = [text for one in batch for text in one.texts]
        begun = time.perf_counter()
        passing = asyncio.get_running_loop().run_in_executor(self._thread, self._classify, texts)
        await asyncio.wait({passing})
        seconds = time.perf_counter() - begun
        error = passing.exception()
        if error is None:
            self._passed(len(texts), seconds)
            self._seconds_per_text += 0.2 * (seconds / len(texts) - self._seconds_per_text)
            start = 0
            for one in batch:
                rows = passing.result()[start : start + len(one.texts)]
                start += len(one.texts)
                if not one.answer.done():
                    one.answer.set_result(rows)
        elif isinstance(error, Unavailable):  # each request alone would fail too, after its waits
            log.warning("a batch of %d texts failed: no vectors from %s", len(texts), error.where)
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(VectorsMissing())
        elif len(batch) > 1:
            for one in batch:
                await self._answer([one])
        elif not batch[0].answer.done():
            # Its message may hold the text, which stays out of logs and answers.
            log.warning("a request of %d texts failed: %s", len(texts), type(error).__name__)
            refused = isinstance(error, UserError)
            batch[0].answer.set_exception(NotClassified() if refused else RuntimeError())
