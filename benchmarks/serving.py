"""Load a server with requests over HTTP: python -m benchmarks.serving JOB [--seconds 20].

Requests of one text each come at a fixed rate, whether earlier ones are answered or not. First the
rate is found that the server sustains: no refusal, and 99 % answered within half a second; or
`--rate` gives it, so that two versions get the same load. Then come four times as many, while
/health is asked ten times a second; and then the sustained rate again. Texts are those of `TEXTS`,
with a number so that none is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import numpy as np

TEXTS = (
    "a good film, said the bank",
    "the company said that profit rose in the third quarter, and its shares with it",
    "the plot is as thin as the actors are good, and yet one leaves with a smile that lasts until"
    " the next morning",
)
PATIENCE = 0.5
"""Seconds within which 99 % of the answers of a sustained rate come."""
STEP = 1.25
OVERLOAD = 4


@dataclass
class Outcome:
    """What became of the requests of one load."""

    rate: float
    """Requests a second."""
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """Time to the answer of each request that was answered."""
    health: list[float] = field(default_factory=list)
    """Time to the answer of each request to /health."""

    def percentile(self, share: float) -> float:
        """Seconds within which a share of the requests was answered."""
        return float(np.percentile(self.seconds or [np.inf], 100 * share))

    @property
    def refused(self) -> float:
        """Share of the requests that was not answered."""
        return 1 - self.statuses[200] / max(1, self.statuses.total())

    def __str__(self) -> str:
        health = f", /health within {max(self.health) * 1000:.0f} ms" if self.health else ""
        return (
            f"{self.rate:6.0f} requests/s: p50 {1000 * self.percentile(0.5):5.0f} ms, p99"
            f" {1000 * self.percentile(0.99):5.0f} ms, refused {100 * self.refused:.1f} %"
            f" {dict(self.statuses)}{health}"
        )


class Connections:
    """Keeps connections to a server and reuses them; a lighter client than those for general use.

    Args:
        url: address of the server.
    """

    def __init__(self, url: str) -> None:
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.open: set[asyncio.StreamWriter] = set()

    async def request(self, method: str, path: str, body: bytes = b"") -> int:
        """Send a request, read the answer to its end, and return its status."""
        if self.idle:
            reader, writer = self.idle.pop()
        else:
            reader, writer = await asyncio.open_connection(self.host, self.port)
        self.open.add(writer)
        head = f"{method} {path} HTTP/1.1\r\nhost: {self.host}\r\ncontent-length: {len(body)}\r\n"
        writer.write(f"{head}content-type: application/json\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", answer)
        await reader.readexactly(int(length[1]) if length else 0)
        self.idle.append((reader, writer))
        return int(answer[9:12])

    async def close(self) -> None:
        """Close the connections, those of requests that failed included."""
        for writer in self.open:
            writer.close()
        await asyncio.gather(
            *(writer.wait_closed() for writer in self.open), return_exceptions=True
        )


async def load(url: str, rate: float, seconds: float) -> Outcome:
    """Send requests at a rate, and ask /health beside them."""
    outcome, connections = Outcome(rate), Connections(url)

    async def one(number: int) -> None:
        begun = time.perf_counter()
        body = json.dumps({"texts": [f"{TEXTS[number % len(TEXTS)]} {number}"]}).encode()
        status = await connections.request("POST", "/predict", body)
        outcome.statuses[status] += 1
        if status == 200:
            outcome.seconds.append(time.perf_counter() - begun)

    async def watch() -> None:
        while True:
            begun = time.perf_counter()
            await connections.request("GET", "/health")
            outcome.health.append(time.perf_counter() - begun)
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    begun, sent = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
        sent.append(asyncio.create_task(one(number)))
    await asyncio.gather(*sent)
    watching.cancel()
    await connections.close()
    return outcome


@contextmanager
def served(job: str, *options: str) -> Iterator[str]:
    """Start a server on a free port and wait until it is ready; give its address."""
    command = [sys.executable, "-m", "layerfusion", "serve", job, "--port", "0", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline() if server.stdout else ""
        found = re.search(r"http://\S+", line)
        if found is None:
            raise SystemExit(f"the server did not start: {line}")
        while httpx.get(f"{found[0]}/health").status_code != 200:
            if server.poll() is not None:
                raise SystemExit("the server ended before it was ready")
            time.sleep(0.1)
        yield found[0]
    finally:
        server.terminate()
        server.wait(60)


def sustained(url: str, seconds: float) -> Outcome:
    """Raise the rate until the server no longer sustains it; return the last that it did."""
    asyncio.run(load(url, 5, 2))  # warms up
    best, rate = None, 5.0
    while True:
        outcome = asyncio.run(load(url, rate, seconds))
        print(outcome, flush=True)
        if outcome.refused or outcome.percentile(0.99) > PATIENCE:
            return best or outcome
        best, rate = outcome, rate * STEP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job")
    parser.add_argument("--seconds", type=float, default=20, help="length of each load")
    parser.add_argument("--rate", type=float, help="requests a second, in place of the search")
    parser.add_argument("--cache", default="outputs/cache")
    options = parser.parse_args()
    with served(options.job, "--cache", options.cache) as url:
        if options.rate:
            asyncio.run(load(url, 5, 2))  # warms up
            usual = asyncio.run(load(url, options.rate, options.seconds))
        else:
            usual = sustained(url, options.seconds)
        print(f"sustained: {usual}")
        print(f"{OVERLOAD} times as many:")
        print(asyncio.run(load(url, OVERLOAD * usual.rate, options.seconds)), flush=True)
        print("and the sustained rate again:")
        print(asyncio.run(load(url, usual.rate, options.seconds)), flush=True)


if __name__ == "__main__":
    main()
