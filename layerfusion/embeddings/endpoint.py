"""Vectors from a server that speaks OpenAI's API of embeddings, such as vLLM, TEI or Ollama.

No text is asked for twice: what an answer gave is yielded, and kept by the caller, before the next
request. A request that failed is repeated only where the server did not answer it with vectors.
"""

from __future__ import annotations

import email.utils
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from threading import Event
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import numpy as np

from layerfusion.config.job import BackboneConfig
from layerfusion.config.secrets import HIDDEN, redact
from layerfusion.errors import OutOfTime, Unavailable, UserError, one_line, short

log = logging.getLogger(__name__)

logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every request

TRIES = 6
"""Number of times that a request is sent before it is given up."""
FIRST_TRIES = 3
"""The same for a server that has given no vector yet, and does not say that it is only busy."""
BUSY_ALONE = 429
"""Status of a server that answers, and does not want more requests now."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second try, which double with each one, up to a limit."""
LONGEST_ASKED = 300.0
"""Seconds that a server may ask for with `Retry-After`."""
BUSY = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Statuses after which the same request may succeed."""
OF_TEXTS = (400, 413, 422)
"""Statuses that may be about one of the texts, such as one that is too long."""
OF_TOKEN = (401, 403)
LONGEST_WORDS = 300
"""Characters that are shown of a server's own words."""
SHOWN_LEVELS = 6
"""Lists inside of lists that are shown of an answer."""


@dataclass(frozen=True)
class Answer:
    """Vectors of the next texts, in their order."""

    vectors: np.ndarray
    """Shape: (texts, width), float32."""
    seconds: float
    """From the request to its answer, without the tries that failed."""


class _Refused(Exception):
    """The server refused a request for what is in it. The message is the server's."""


@dataclass(frozen=True)
class Endpoint:
    """A server of embeddings, as a backbone's settings name it."""

    name: str
    """Name of the backbone."""
    config: BackboneConfig
    _gave: Event = field(default_factory=Event, repr=False, compare=False)
    """Set once it has given a vector."""

    @property
    def url(self) -> str:
        """Return the address that requests go to."""
        return f"{base_url(str(self.config.endpoint))}/embeddings"

    @property
    def identity(self) -> str:
        """Name everything about the server that the vectors depend on."""
        asked = self.config.dimensions
        width = "" if asked is None else f" dimensions={asked}"
        return f"endpoint {base_url(str(self.config.endpoint))} {self.config.model}{width}"

    @property
    def origin(self) -> str:
        """Return where the vectors come from, for readers."""
        return f"{self.config.model} at {base_url(str(self.config.endpoint))}"

    def ask(
        self,
        texts: Sequence[str],
        *,
        alone: int = 0,
        left: Callable[[], float] = lambda: math.inf,
    ) -> Iterator[Answer]:
        """Ask for the vectors of texts, in requests of at most `batch` texts.

        Args:
            texts: the texts, without their template and without repeats.
            alone: number of the first texts that have a request each.
            left: gives the seconds that are left for it; no request is begun when they are over,
                none waits longer for its answer, and none is waited for that is to be repeated.

        Yields:
            The vectors of the next texts, one request after the other.

        Raises:
            UserError: naming the text that the server refuses.
            Unavailable: naming the server and what is wrong: it cannot be reached, or answers with
                something else than a vector for each text.
            OutOfTime: if the time is over before all texts have vectors.
        """
        with self._client() as client:
            sent = _Sent(client, left)
            start = 0
            while start < len(texts):
                batch = texts[start : start + (1 if start < alone else self.config.batch)]
                yield from self._halves(sent, batch)
                start += len(batch)

    def _client(self) -> httpx.Client:
        """Make the connection, by the variables of the environment on proxies and certificates."""
        headers = {"Content-Type": "application/json", **self._headers()}
        try:
            return httpx.Client(timeout=self.config.timeout, headers=headers)
        except (httpx.InvalidURL, ValueError, OSError, ImportError) as error:
            raise self._unavailable(
                f"{self._line(error)}; look at the variables of the environment that name a proxy"
                " or certificates (HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE)"
            ) from error

    def _halves(self, sent: _Sent, texts: Sequence[str]) -> Iterator[Answer]:
        """Ask for some texts, and if the server refuses them, for either half.

        So one text that it refuses does not take the others with it, and can be named.
        """
        try:
            answer = self._request(sent, texts)
        except _Refused as refusal:
            if len(texts) == 1:
                raise UserError(
                    f"{self._told(refusal)}; it is about the text {short(texts[0])}"
                ) from None
            half = len(texts) // 2
            yield from self._halves(sent, texts[:half])
            yield from self._halves(sent, texts[half:])
            return
        yield answer

    def _request(self, sent: _Sent, texts: Sequence[str]) -> Answer:
        """Send one request until it is answered.

        Raises:
            _Refused: where the server refuses what is in it.
            Unavailable: where it fails otherwise.
            OutOfTime: where there is no time for it.
        """
        body: dict[str, Any] = {
            "model": self.config.model,
            "input": [self.config.template.replace("{text}", text) for text in texts],
        }
        if self.config.dimensions is not None:
            body["dimensions"] = self.config.dimensions
        content = json.dumps(body).encode()  # which writes half a surrogate pair as an escape
        tries = TRIES if self._gave.is_set() else FIRST_TRIES
        for number in count(1):
            if (left := sent.left()) <= 0:
                raise OutOfTime
            begun = time.perf_counter()
            asked_wait = 0.0
            try:
                response = sent.client.post(
                    self.url, content=content, timeout=min(left, self.config.timeout)
                )
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
                raise self._unavailable(self._line(error)) from error
            except httpx.ConnectError as error:
                # A server that has answered before may only be starting anew.
                if not sent.answered:
                    raise self._unavailable(
                        f"{self._line(error)}; is the server running, and the address right?"
                    ) from error
                why = self._line(error)
            except httpx.TimeoutException:
                why = f"no answer within {self.config.timeout:g} s (backbone.{self.name}.timeout)"
            except httpx.HTTPError as error:
                why = self._line(error) or type(error).__name__
            else:
                seconds = time.perf_counter() - begun
                sent.answered = True
                if response.status_code == httpx.codes.OK:
                    vectors = self._vectors(response, len(texts))
                    self._gave.set()
                    return Answer(vectors, seconds)
                why = f"{response.status_code} {self._words(response)}"
                if response.status_code in OF_TEXTS:
                    raise _Refused(why)
                if response.status_code not in BUSY:
                    raise self._unavailable(why + self._hint(response))
                asked_wait = _retry_after(response)
                if asked_wait or response.status_code == BUSY_ALONE:
                    tries = TRIES
            wait = max(asked_wait, min(LONGEST_WAIT, FIRST_WAIT * 2 ** (number - 1)))
            if number >= tries or wait > LONGEST_ASKED:
                asks = f"; it asks to wait {wait:,.0f} s" if wait > LONGEST_ASKED else ""
                raise self._unavailable(
                    f"{why}, after {number} {'try' if number == 1 else 'tries'}{asks};"
                    " what it gave before is kept, and the same command goes on from there"
                )
            if wait > sent.left():
                raise OutOfTime
            log.warning("%s; trying again in %.0f s", self._told(why), wait)
            time.sleep(wait)
        raise AssertionError("a loop that returns or raises")

    def _vectors(self, response: httpx.Response, count: int) -> np.ndarray:
        """Read the vectors of an answer, in the order of the texts. Shape: (texts, width)."""
        try:
            entries = json.loads(response.content)["data"]
            found = [(entry.get("index"), entry["embedding"]) for entry in entries]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self._unavailable(
                f"its answer has no vectors: {self._shown(response.text)}; an"
                ' address of OpenAI\'s API is needed, which gives {"data": [{"embedding": […]}]}'
            ) from None
        if len(found) != count:
            raise self._unavailable(f"it gave {len(found)} vectors for {count} texts")
        if any(index is not None for index, _ in found):
            places = [index for index, _ in found]
            if any(type(index) is not int for index in places) or sorted(places) != [*range(count)]:
                raise self._unavailable(
                    f"the index of its vectors is not 0 to {count - 1}: {self._shown(places)}"
                )
            found.sort(key=lambda entry: entry[0])
        vectors = []
        for _, values in found:
            vector = as_vector(values)
            if vector is None:
                raise self._unavailable(f"it gave {self._shown(values)} in place of a vector")
            vectors.append(vector)
        if len(widths := {len(vector) for vector in vectors}) > 1:
            raise self._unavailable(f"its vectors have different widths, {sorted(widths)}")
        return np.stack(vectors)

    def _headers(self) -> dict[str, str]:
        variable = self.config.token_variable
        if variable is None:
            return {}
        token = os.environ.get(variable, "").strip()
        if not token:
            raise UserError(
                f"backbone.{self.name}.token_variable={variable}: the environment has no such"
                f" variable; export {variable}=… with the token of {self.url}"
            )
        if not token.isascii() or not token.isprintable():
            raise UserError(
                f"backbone.{self.name}.token_variable={variable}: its value is no token, as it"
                " holds characters that no header may have"
            )
        return {"Authorization": f"Bearer {token}"}

    def _unavailable(self, what: str) -> Unavailable:
        return Unavailable(self._told(what), where=f"backbone {self.name}: {self.url}")

    def _told(self, what: object) -> str:
        """Begin a message with the server, and keep the token out of it."""
        return self._hidden(f"backbone {self.name}: {self.url}: {what}")

    def _hidden(self, text: str) -> str:
        """Hide the token, in every form that an answer may repeat it in.

        This comes before a text is cut: no part of the token may stay at its end.
        """
        token = os.environ.get(self.config.token_variable or "", "").strip()
        forms = [token, json.dumps(token)[1:-1], token.replace("/", "\\/"), quote(token, safe="")]
        for form in forms if token else ():
            text = text.replace(form, HIDDEN)
        return redact(text)

    def _line(self, error: Exception) -> str:
        """Put an error into one line, without the token."""
        return one_line(self._hidden(one_line(error, limit=sys.maxsize)))

    def _words(self, response: httpx.Response) -> str:
        """Find the server's own words in an answer that is an error, without the token."""
        try:
            found: Any = json.loads(response.content)
        except (ValueError, RecursionError):
            found = response.text
        for key in ("error", "message", "detail"):
            if isinstance(found, dict) and found.get(key):
                found = found[key]
        words = self._hidden(found if isinstance(found, str) else response.text)
        return " ".join(words.split())[:LONGEST_WORDS] or response.reason_phrase

    def _shown(self, value: object) -> str:
        """Show a part of an answer as `short` does, without the token."""
        return short(self._without_token(value, SHOWN_LEVELS))

    def _without_token(self, value: object, levels: int) -> object:
        if isinstance(value, str):
            return self._hidden(value)
        if not isinstance(value, list | dict):
            return value
        if levels == 0:
            return "…"
        if isinstance(value, list):
            return [self._without_token(entry, levels - 1) for entry in value]
        return {
            self._hidden(key): self._without_token(entry, levels - 1)
            for key, entry in value.items()
        }

    def _hint(self, response: httpx.Response) -> str:
        if place := response.headers.get("location"):
            return f"; it sends on to {one_line(self._hidden(place))} and that is not followed"
        if response.status_code not in OF_TOKEN:
            return ""
        variable = self.config.token_variable
        if variable is None:
            return f"; backbone.{self.name}.token_variable=NAME names the variable of its token"
        return f"; the token is that of {variable}"


@dataclass
class _Sent:
    """The connection to a server, and whether it has answered before."""

    client: httpx.Client
    left: Callable[[], float]
    """Gives the seconds that are left."""
    answered: bool = False


def as_vector(values: object) -> np.ndarray | None:
    """Return a list of numbers as float32; None for anything else, and where one is not finite.

    Example:
        >>> as_vector([0.5, 1]), as_vector("0.5"), as_vector([0.5, float("nan")])
        (array([0.5, 1. ], dtype=float32), None, None)
    """
    if not isinstance(values, list | tuple | np.ndarray) or not len(values):
        return None
    if isinstance(values, np.ndarray):
        if values.ndim != 1 or values.dtype.kind not in "fiu":
            return None
    elif not all(type(value) in (int, float) for value in values):
        return None
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(values, np.float64).astype(np.float32)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return vector if np.isfinite(vector).all() else None


def base_url(address: str) -> str:
    """Return an address in the one form that it is known by.

    Example:
        >>> base_url("HTTP://LocalHost:8000/v1/embeddings/")
        'http://localhost:8000/v1'
    """
    place = urlsplit(address.strip())
    path = place.path.rstrip("/").removesuffix("/embeddings").rstrip("/")
    return f"{place.scheme.lower()}://{place.netloc.lower()}{path}"


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds that a server asks to wait, which it gives as a number or a date; or 0."""
    asked = response.headers.get("retry-after", "").strip()
    try:
        seconds = float(asked)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(asked).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
