"""Gather the texts of many requests into batches that pass through the models together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerfusion.embeddings.breaker import PAUSE
from layerfusion.errors import Unavailable, UserError

if TYPE_CHECKING:
    import numpy as np

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
    max_delay: float = 1.0
    """Longest time in seconds that the texts before a request may be expected to take. A request
    that would stand behind more is refused, unless it is the only one that waits."""
    deadline: float = 30.0
    """Seconds after which a request is given up."""


FORGET = 0.8
"""Part that each batch leaves of what earlier ones say about the time of a text."""


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
        self._passing = 0
        """Number of texts that pass the models now."""
        self._since = 0.0
        """When these began to, on the monotonic clock."""
        self._silent_until = 0.0
        self._seconds, self._texts = 0.01, 1.0
        """What the last batches took and held, the latest counting most."""

    @property
    def queued(self) -> int:
        """Number of texts that wait."""
        return sum(len(one.texts) for one in self._waiting if not one.answer.done())

    @property
    def delay(self) -> float:
        """Seconds that a request of now is expected to wait before its own texts are classified."""
        each = self._seconds / self._texts
        if not self._passing:
            return self.queued * each
        passed = time.monotonic() - self._since
        # Models that are slower than before show it here first, and not once the batch has ended.
        each = max(each, passed / self._passing)
        return self.queued * each + max(0.0, self._passing * each - passed)

    def full(self, texts: int = 1) -> float | None:
        """Return the seconds after which a request may be tried again that is refused now.

        Args:
            texts: number of its texts.

        Returns:
            None for one that is taken.
        """
        queued, delay = self.queued, self.delay
        many = queued + texts > self._limits.max_queue or delay > self._limits.max_delay
        # What would be given up before its turn is refused even where nothing waits.
        if self._closed or (queued and many) or delay > self._limits.deadline:
            return max(1.0, delay)
        return None

    def submit(self, texts: Sequence[str]) -> asyncio.Future[np.ndarray]:
        """Queue the texts of a request.

        Returns:
            A future of their probabilities, shape (texts, classes). It raises `NotClassified` where
            the classifier refuses the texts, and `VectorsMissing` where a server of vectors gives
            none. Cancel it when the answer is no longer wanted.

        Raises:
            QueueFull: if too many texts wait already, or for too long.
        """
        if (seconds := self.full(len(texts))) is not None:
            raise QueueFull(seconds)
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
        self._passing, self._since = len(texts), time.monotonic()
        passing = asyncio.get_running_loop().run_in_executor(self._thread, self._classify, texts)
        await asyncio.wait({passing})
        seconds = time.monotonic() - self._since
        self._passing = 0
        error = passing.exception()
        if error is None:
            self._passed(len(texts), seconds)
            self._seconds = FORGET * self._seconds + seconds
            self._texts = FORGET * self._texts + len(texts)
            start = 0
            for one in batch:
                rows = passing.result()[start : start + len(one.texts)]
                start += len(one.texts)
                if not one.answer.done():
                    one.answer.set_result(rows)
        elif isinstance(error, Unavailable):  # each request alone would fail too, after its waits
            if self._since >= self._silent_until:  # once, and not for each batch of the same pause
                self._silent_until = time.monotonic() + PAUSE
                log.warning(
                    "a batch of %d texts failed: no vectors from %s", len(texts), error.where
                )
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
