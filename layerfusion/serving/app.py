"""The HTTP interface of a classifier: what it takes, what it answers and what it refuses."""

# Annotations are evaluated here, since FastAPI reads those of functions inside a function.
import asyncio
import gc
import json
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field, create_model
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from layerfusion import __version__
from layerfusion.embeddings.breaker import PAUSE
from layerfusion.errors import UserError, one_line
from layerfusion.runs.naming import labels_of
from layerfusion.serving.batching import Batcher, Limits, NotClassified, QueueFull, VectorsMissing

log = logging.getLogger(__name__)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of the histogram of answers' times."""
NOT_EMPTY = r"[^\s\x1c-\x1f\x85]"
"""A character that `str.strip` keeps, in a form that every dialect of patterns reads alike."""
PREDICT = "/predict"
LEFT = 499
"""Status under which a request is counted whose client left before its answer."""
CLOSE = {"Connection": "close"}
"""Header of an answer to a body that has not been read: what comes of it is no new request."""
LATER = round(PAUSE)
"""Seconds after which a request may be tried again that a server of vectors let fail."""
ABOUT = (
    """Labels and probabilities of texts, from a classifier that a job of LayerFusion trained."""
)


class Answer(BaseModel):
    """Labels and probabilities of the texts, in their order."""

    classes: list[str] = Field(examples=[["negative", "positive"]])
    labels: list[str] = Field(examples=[["positive"]])
    """The most probable class of each text."""
    probabilities: list[list[float]] = Field(examples=[[[0.12, 0.88]]])
    """The probabilities of the classes of each text; they add up to 1."""


class MultilabelAnswer(BaseModel):
    """All labels that each text has, in the order of the texts, and their probabilities."""

    classes: list[str] = Field(examples=[["crude", "ship", "trade"]])
    labels: list[list[str]] = Field(examples=[[["crude", "ship"], []]])
    """The labels of each text whose probability is one half or more; a text may have none."""
    probabilities: list[list[float]] = Field(examples=[[[0.97, 0.61, 0.04], [0.02, 0.31, 0.11]]])
    """The probability of each label; each is a decision of its own, so they do not add up to 1."""


class Problem(BaseModel):
    """Why a request was not answered."""

    code: str = Field(examples=["queue_full"])
    message: str = Field(examples=["too many texts wait; try again in 2 seconds"])


class Health(BaseModel):
    """Whether texts can be classified now."""

    ready: bool
    job: str = Field(examples=["65fa36f8adcc"])
    """Hash of the job that trained the classifier."""


@dataclass(frozen=True)
class Classifier:
    """What a server needs of a classifier."""

    label_names: Sequence[str]
    job: str
    classify: Callable[[Sequence[str]], np.ndarray]
    """From texts to probabilities, shape (texts, classes). The first call loads the models."""
    multilabel: bool = False
    """Whether a text has any number of the labels."""


class _Metrics:
    """Counts for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        more: dict[str, Any] = {"registry": self.registry, "namespace": "layerfusion"}
        self.requests = Counter(
            "requests", "Requests by path and status.", ["path", "status"], **more
        )
        self.seconds = Histogram(
            "request_seconds",
            "Time from a request to its answer.",
            ["path"],
            buckets=SECONDS,
            **more,
        )
        self.batch = Histogram(
            "batch_texts", "Texts that passed the models together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128), **more,
        )  # fmt: skip
        self.model = Histogram("batch_seconds", "Time of a batch.", buckets=SECONDS, **more)
        self.texts = Counter("texts", "Texts classified.", **more)
        self.queue = Gauge("queue_texts", "Texts that wait.", **more)
        self.ready = Gauge("ready", "1 once the models are loaded.", **more)

    def passed(self, texts: int, seconds: float) -> None:
        """Count a batch."""
        self.batch.observe(texts)
        self.model.observe(seconds)
        self.texts.inc(texts)


def problem(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Make the answer to a request that is refused."""
    body = Problem(code=code, message=message)
    return JSONResponse(body.model_dump(), status, headers)


def too_many(seconds: float) -> JSONResponse:
    """Make the answer to a request for which there is no room for some seconds."""
    wait = str(math.ceil(seconds))
    said = f"too many texts wait; try again in {wait} s"
    return problem(503, "queue_full", said, {"Retry-After": wait})


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe refusals for the OpenAPI document."""
    told = {
        400: "The body is no JSON in UTF-8.",
        408: "The body did not arrive in time.",
        413: "The body is too large.",
        415: "The body is not said to be JSON, by content-type.",
        422: "The body is not what is asked for, or a text cannot be classified.",
        500: "The models failed.",
        503: "The models are not loaded yet, too many texts wait, or a server of vectors is down.",
        504: "The deadline of the request passed.",
    }
    retry = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return {
        status: {
            "model": Problem,
            "description": told[status],
            **({"headers": retry} if status == 503 else {}),
        }
        for status in statuses
    }


def make_app(
    classifier: Classifier,
    limits: Limits,
    failed: Callable[[UserError], object] = lambda error: None,
) -> FastAPI:
    """Make the application.

    The models are loaded when it starts, while it answers that it is not ready.

    Args:
        classifier: the classifier.
        limits: what it takes.
        failed: called if the models cannot be loaded.
    """
    metrics = _Metrics()
    state = _State()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        batcher = Batcher(classifier.classify, limits, metrics.passed)
        metrics.queue.set_function(lambda: batcher.queued)
        running = asyncio.create_task(batcher.run())
        loading = asyncio.create_task(load(batcher))
        yield
        loading.cancel()
        state.batcher = None
        batcher.close()
        await running

    async def load(batcher: Batcher) -> None:
        """Load the models by classifying a first text, and be ready from then on."""
        loaded = asyncio.get_running_loop().run_in_executor(
            None, classifier.classify, ["a first text"]
        )
        await asyncio.wait({loaded})
        error = loaded.exception()
        if isinstance(error, UserError):
            failed(error)
            return
        if error is not None:
            failed(UserError(f"serve: the models cannot be loaded: {one_line(error)}"))
            return
        # The models and their libraries are a million objects that stay. Whenever the collector of
        # garbage walks through them, nothing is answered for half a second.
        gc.collect()
        gc.freeze()
        state.batcher = batcher
        metrics.ready.set(1)

    app = FastAPI(
        title="LayerFusion classifier", version=__version__, description=ABOUT, lifespan=lifespan
    )
    text = Annotated[str, Field(min_length=1, max_length=limits.max_characters, pattern=NOT_EMPTY)]
    texts: Any = Annotated[
        list[text],
        Field(
            min_length=1,
            max_length=limits.max_texts,
            examples=[["Are we still on for lunch?"]],
            description="Texts to classify; outer white space is stripped.",
        ),
    ]
    Texts: Any = create_model(
        "Texts", __config__=ConfigDict(extra="forbid", strict=True), texts=(texts, ...)
    )

    @app.post(
        PREDICT,
        response_model=MultilabelAnswer if classifier.multilabel else Answer,
        responses=refusals(400, 408, 413, 415, 422, 500, 503, 504),
    )
    async def predict(request: Request, body: Texts) -> Any:  # type: ignore[valid-type]
        """Classify texts. Texts of requests that come at the same time pass the models together."""
        if json.detect_encoding(await request.body()) not in ("utf-8", "utf-8-sig"):
            return no_json(request)
        if state.batcher is None:
            return problem(503, "not_ready", "the models are being loaded", {"Retry-After": "1"})
        if not all(text.strip() for text in body.texts):
            return problem(422, "invalid", "texts: one of them is empty")
        try:
            async with asyncio.timeout(limits.deadline):
                found = await state.batcher.submit(body.texts)
        except QueueFull as full:
            return too_many(full.seconds)
        except TimeoutError:
            return problem(504, "deadline", f"no answer within {limits.deadline:g} s")
        except NotClassified:
            return problem(422, "not_classified", "a model cannot read one of the texts")
        except VectorsMissing:
            said = f"a server of vectors does not answer as it should; try again in {LATER} s"
            return problem(503, "no_vectors", said, {"Retry-After": str(LATER)})
        except RuntimeError:
            return problem(500, "failed", "the models failed on these texts")
        names = list(classifier.label_names)
        return JSONResponse(
            {
                "classes": names,
                "labels": labels_of(found, names, multilabel=classifier.multilabel),
                "probabilities": found.astype(float).tolist(),
            }
        )

    @app.head("/health", include_in_schema=False)
    @app.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> Any:
        """Say whether the models are loaded: 200 if they are, 503 if not."""
        ready = state.batcher is not None
        body = Health(ready=ready, job=classifier.job)
        return JSONResponse(body.model_dump(), 200 if ready else 503)

    @app.head("/metrics", include_in_schema=False)
    @app.get("/metrics", response_class=PlainTextResponse)
    async def show_metrics() -> Any:
        """Give counts and times in the text format of Prometheus."""
        return PlainTextResponse(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    def no_json(request: Request) -> JSONResponse:
        packed = " and no content-encoding" if "content-encoding" in request.headers else ""
        return problem(400, "no_json", f"the body has to be JSON in UTF-8{packed}")

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = request.headers.get("content-type", "").partition(";")[0].strip()
        if not re.fullmatch(r"application/(.+\+)?json", found, re.IGNORECASE):
            said = "content-type: application/json is needed"
            return problem(415, "content_type", said + (", not another one" if found else ""))
        if any(one["type"] == "json_invalid" for one in error.errors()):
            return no_json(request)
        return problem(422, "invalid", "; ".join(map(_fault, error.errors()[:3])))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:
            return no_json(request)
        return problem(error.status_code, "http", str(error.detail), dict(error.headers or {}))

    app.add_middleware(_Guard, limits=limits, metrics=metrics, state=state)
    return app


@dataclass
class _State:
    """The queue, once the models are loaded."""

    batcher: Batcher | None = None


def _fault(error: dict[str, Any]) -> str:
    """Say where the body is wrong and how, without repeating its content, which may be private."""
    place = ".".join(str(part) for part in error["loc"] if part == "texts" or isinstance(part, int))
    return f"{place or 'body'}: {error['msg']}"


class _Counted:
    """Sends an answer, and keeps its status."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.status = LEFT

    async def __call__(self, message: Message) -> None:
        """Send the next part."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self.send(message)


class _Guard:
    """Stands before everything else: refuses what need not be read, forgets who left, and counts.

    Under a load that is too high nearly all that the server does is to refuse. So a request for
    which there is no room is refused unread, and a body that is too large or too slow before
    anything takes it in.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: _Metrics, state: _State) -> None:
        self.app = app
        self.limits = limits
        self.metrics = metrics
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        known = (PREDICT, "/health", "/metrics")
        path = scope["path"] if scope["path"] in known else "other"
        counted = _Counted(send)
        if refused := self._no_room(scope):
            await refused(scope, receive, counted)
        else:
            await self._read_and_answer(scope, receive, counted)
        self.metrics.requests.labels(path, str(counted.status)).inc()
        self.metrics.seconds.labels(path).observe(time.perf_counter() - begun)

    async def _read_and_answer(self, scope: Scope, receive: Receive, counted: _Counted) -> None:
        try:
            async with asyncio.timeout(self.limits.deadline):
                body = await self._body(scope, receive)
        except TimeoutError:
            answer = problem(408, "slow", "the body did not arrive in time", CLOSE)
            await answer(scope, receive, counted)
            return
        if body is None:
            said = f"the body has more than {self.limits.max_bytes:,} bytes"
            answer = problem(413, "too_large", said, CLOSE)
            await answer(scope, receive, counted)
        elif body:
            answering = asyncio.ensure_future(self.app(scope, _Replay(body, receive), counted))
            await _while_there(answering, receive, counted)

    def _no_room(self, scope: Scope) -> JSONResponse | None:
        """Make the answer to a request for which there is no room, whatever its texts are."""
        batcher = self.state.batcher
        if batcher is None or scope["path"] != PREDICT or scope["method"] != "POST":
            return None
        seconds = batcher.full()
        return None if seconds is None else too_many(seconds)

    async def _body(self, scope: Scope, receive: Receive) -> list[Message] | None:
        """Read the body; None if it is too large, and nothing if the client left."""
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if stated.isdigit() and int(stated) > self.limits.max_bytes:
            return None
        size, messages = 0, []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return []
            size += len(message.get("body", b""))
            if size > self.limits.max_bytes:
                return None
            messages.append(message)
            if not message.get("more_body"):
                return messages


class _Replay:
    """Gives the parts of a body that has been read, and then what comes after it."""

    def __init__(self, messages: list[Message], receive: Receive) -> None:
        self.messages = messages[::-1]
        self.receive = receive

    async def __call__(self) -> Message:
        """Return the next message."""
        return self.messages.pop() if self.messages else await self.receive()


async def _while_there(
    answering: asyncio.Future[None], receive: Receive, counted: _Counted
) -> None:
    """Wait for an answer, and stop it if the client leaves, so that its texts are not computed."""

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    leaving = asyncio.ensure_future(left())
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if counted.status == LEFT and not answering.done():
            answering.cancel()
        await asyncio.wait({answering})
    finally:
        answering.cancel()
        leaving.cancel()
    if not answering.cancelled():
        answering.result()
