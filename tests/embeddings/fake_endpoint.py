"""A server of embeddings on this machine, which can be told to answer in any wrong way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.tiny import GOOD, WORDS

Reply = tuple[int, dict[str, str], Any]
"""Status, headers and body of an answer; a string is sent as it is."""


@dataclass
class FakeEndpoint:
    """Answers with counts of words, and keeps what it was asked for."""

    texts: list[str] = field(default_factory=list)
    """Every text that it gave a vector for, in order."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Every request, also those that it refused."""
    tokens: list[str | None] = field(default_factory=list)
    replies: list[Reply | Callable[[dict[str, Any]], Reply]] = field(default_factory=list)
    """Answers to the next requests; after them, it answers well."""
    refuse: Callable[[str], str] = lambda text: ""
    """Gives the reason why a text is refused; empty where it is not."""
    url: str = ""

    def __enter__(self) -> FakeEndpoint:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, body: dict[str, Any]) -> Reply:
        """Answer well, unless a text is refused."""
        for text in body["input"]:
            if why := self.refuse(text):
                return 400, {}, {"error": {"message": why}}
        self.texts += body["input"]
        return 200, {}, {"data": entries(body["input"])}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                fake.bodies.append({"path": self.path, **body})
                fake.tokens.append(self.headers.get("authorization"))
                reply = fake.replies.pop(0) if fake.replies else fake.answer
                status, headers, content = reply(body) if callable(reply) else reply
                sent = (content if isinstance(content, str) else json.dumps(content)).encode()
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(sent))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(sent)

        return Handler


def vector_of(text: str) -> list[float]:
    """A vector whose first number says how often good words occur."""
    words = text.split()
    return [sum(word in GOOD for word in words) / 4, *(words.count(x) / 8 for x in WORDS[:7])]


def entries(texts: list[str]) -> list[dict[str, Any]]:
    """Vectors as OpenAI's API gives them."""
    return [{"index": n, "embedding": vector_of(text)} for n, text in enumerate(texts)]
