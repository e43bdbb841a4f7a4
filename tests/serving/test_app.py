"""The server over HTTP: answers, refusals, load, and how it starts and stops."""

from __future__ import annotations

import asyncio
import errno
import gc
import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient

from benchmarks.serving import Connections, load
from layerfusion.cli import main
from layerfusion.commands.serve import _listen
from layerfusion.errors import Unavailable, UserError
from layerfusion.runs.bundle_loading import load_bundle
from layerfusion.serving.app import Classifier, make_app
from layerfusion.serving.batching import Limits
from tests.tiny import tiny_folder, tiny_job, tiny_texts

LIMITS = Limits(
    max_texts=5, max_characters=200, max_bytes=2000, max_batch=4, max_wait=0.001, max_queue=8,
    deadline=1.0,
)  # fmt: skip
SECRET = "my secret text"


def classify(texts: Sequence[str]) -> np.ndarray:
    """Say `pos` of texts with a p; take 20 ms for a batch, and longer where a text asks for it."""
    if "unreadable" in texts:
        raise UserError(f"the tokenizer makes no token of {texts[0]!r}")
    if "elsewhere" in texts:
        raise Unavailable(
            f"503 I was asked for {texts!r}", where="backbone paid: http://localhost/v1"
        )
    time.sleep(3.0 if "slow" in texts else 0.02)
    share = np.array([0.75 if "p" in text else 0.25 for text in texts], np.float32)
    return np.stack([1 - share, share], axis=1)


Serve = Callable[[Callable[[Sequence[str]], np.ndarray]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a function from texts to probabilities; returns the address."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(function: Callable[[Sequence[str]], np.ndarray]) -> str:
        app = make_app(Classifier(("neg", "pos"), "0123", function), LIMITS)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        listening = _listen("127.0.0.1", 0)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        servers.append((server, thread))
        thread.start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def ready(url: str) -> str:
    for _ in range(200):
        if httpx.get(f"{url}/health").status_code == 200:
            return url
        time.sleep(0.02)
    raise AssertionError("it never was ready")


def test_labels_and_probabilities_and_what_is_counted(serve: Serve) -> None:
    url = ready(serve(classify))
    answer = httpx.post(f"{url}/predict", json={"texts": ["a pop", " b \n"]})
    assert answer.json() == {
        "classes": ["neg", "pos"],
        "labels": ["pos", "neg"],
        "probabilities": [[0.25, 0.75], [0.75, 0.25]],
    }
    httpx.get(f"{url}/somewhere/{SECRET}")
    counts = httpx.get(f"{url}/metrics").text
    assert 'layerfusion_requests_total{path="/predict",status="200"} 1.0' in counts
    assert 'layerfusion_requests_total{path="other",status="404"} 1.0' in counts
    assert "layerfusion_texts_total 2.0" in counts
    assert "layerfusion_ready 1.0" in counts


def test_all_labels_of_a_text_are_listed_and_described() -> None:
    def two(texts: Sequence[str]) -> np.ndarray:
        return np.array([[0.75, 0.5] if "p" in text else [0.25, 0.125] for text in texts])

    app = make_app(Classifier(("a", "b"), "0123", two, multilabel=True), LIMITS)
    with TestClient(app) as client:
        while client.get("/health").status_code != 200:
            time.sleep(0.01)
        answer = client.post("/predict", json={"texts": ["a pop", "b"]}).json()
        document = client.get("/openapi.json").json()
    assert answer == {
        "classes": ["a", "b"],
        "labels": [["a", "b"], []],
        "probabilities": [[0.75, 0.5], [0.25, 0.125]],
    }
    found = document["paths"]["/predict"]["post"]["responses"]["200"]["content"]
    schema = document["components"]["schemas"]["MultilabelAnswer"]
    assert found["application/json"]["schema"]["$ref"].endswith("/MultilabelAnswer")
    assert schema["properties"]["labels"]["items"]["type"] == "array"
    assert "Answer" not in document["components"]["schemas"]


def test_a_server_of_vectors_that_is_down_is_no_fault_of_the_texts(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    url = ready(serve(classify))
    answer = httpx.post(f"{url}/predict", json={"texts": ["elsewhere", SECRET]})
    said = "a server of vectors does not answer as it should; try again in 10 s"
    assert (answer.status_code, answer.json()) == (503, {"code": "no_vectors", "message": said})
    assert answer.headers["retry-after"] == "10"
    assert "a batch of 2 texts failed: no vectors from backbone paid: http://loc" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"texts": []}, 422, "invalid"),
        ({"texts": ["a"] * 6}, 422, "invalid"),
        ({"texts": [SECRET * 15]}, 422, "invalid"),
        ({"texts": [SECRET, 3]}, 422, "invalid"),
        ({"texts": [SECRET, " \n"]}, 422, "invalid"),
        ({"texts": [SECRET, "\x1c"]}, 422, "invalid"),
        ({"texts": [SECRET], SECRET: 1}, 422, "invalid"),
        ({"texts": [f"{SECRET}\ud800"]}, 422, "invalid"),
        ({"text": SECRET}, 422, "invalid"),
        ([SECRET], 422, "invalid"),
        ({"texts": ["unreadable"]}, 422, "not_classified"),
        (f'{{"texts": ["{SECRET}', 400, "no_json"),
        (b"\x80" + SECRET.encode(), 400, "no_json"),
        ('{"texts": ["a good film"]}'.encode("utf-16"), 400, "no_json"),
        ({"texts": [SECRET * 200]}, 413, "too_large"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_without_a_word_of_it(
    body: object, status: int, code: str, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    url = ready(serve(classify))
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    head = {"content-type": "application/json"}
    answer = httpx.post(f"{url}/predict", content=content, headers=head)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json().keys() == {"code", "message"}
    for place in (answer.text, caplog.text):
        assert "secret" not in place
        assert "unreadable" not in place
        assert "Traceback" not in place


def test_what_is_no_json_is_told_by_its_headers(serve: Serve) -> None:
    url = ready(serve(classify))
    content = json.dumps({"texts": ["a pop"]}).encode()
    for kind in ("", "text/plain", "application/x-www-form-urlencoded"):
        answer = httpx.post(f"{url}/predict", content=content, headers={"content-type": kind})
        assert (answer.status_code, answer.json()["code"]) == (415, "content_type")
        assert "application/json is needed" in answer.json()["message"]
    for kind in ("application/json", "Application/JSON; charset=utf-8", "application/x+json"):
        answer = httpx.post(f"{url}/predict", content=content, headers={"content-type": kind})
        assert answer.status_code == 200
    head = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = httpx.post(f"{url}/predict", content=gzip.compress(content), headers=head)
    assert answer.status_code == 400
    assert answer.json()["message"] == "the body has to be JSON in UTF-8 and no content-encoding"


def test_health_and_metrics_answer_head(serve: Serve) -> None:
    url = ready(serve(classify))
    for path in ("/health", "/metrics"):
        answer = httpx.head(f"{url}{path}")
        assert (answer.status_code, answer.content) == (200, b"")


def test_a_body_that_does_not_arrive_leaves_no_connection(serve: Serve) -> None:
    url = ready(serve(classify))
    port = int(url.rpartition(":")[2])
    asked = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(asked)
        parts = iter(lambda: client.recv(4096), b"")  # it ends where the server closes
        assert b"408" in b"".join(parts)


def test_a_body_without_a_stated_length_is_cut_off_too(serve: Serve) -> None:
    url = ready(serve(classify))

    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    assert httpx.post(f"{url}/predict", content=parts()).status_code == 413


def test_health_answers_while_models_load_and_while_they_work(serve: Serve) -> None:
    loading = threading.Event()

    def slow_to_load(texts: Sequence[str]) -> np.ndarray:
        loading.wait(10)
        return classify(texts)

    url = serve(slow_to_load)
    assert httpx.get(f"{url}/health").json() == {"ready": False, "job": "0123"}
    early = httpx.post(f"{url}/predict", json={"texts": ["p"]})
    assert (early.status_code, early.headers["retry-after"]) == (503, "1")
    loading.set()
    ready(url)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(httpx.post, f"{url}/predict", json={"texts": ["slow"]}, timeout=10)
        time.sleep(0.1)
        begun = time.perf_counter()
        assert httpx.get(f"{url}/health").status_code == 200
        assert time.perf_counter() - begun < 0.5
        answer = slow.result()
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")


def test_four_times_the_load_is_refused_in_part_and_the_rest_answered_in_time(serve: Serve) -> None:
    """A batch of 4 takes 20 ms: 200 texts a second. The queue of 8 is two batches long."""
    url = ready(serve(classify))
    heavy = asyncio.run(load(url, rate=800, seconds=1))
    assert heavy.statuses.keys() == {200, 503}
    assert heavy.statuses[503] > 100
    # The client sends 800 requests a second from the same cores, which delays its own clock.
    assert heavy.percentile(0.99) < 2 * LIMITS.deadline
    assert max(heavy.health) < LIMITS.deadline
    light = asyncio.run(load(url, rate=20, seconds=0.5))
    assert light.statuses == {200: 10}


def test_a_refusal_says_when_to_come_again(serve: Serve) -> None:
    url = ready(serve(classify))

    async def many() -> list[int]:
        connections = Connections(url)
        body = b'{"texts": ["p", "p", "p", "p"]}'
        found = await asyncio.gather(
            *(connections.request("POST", "/predict", body) for _ in range(20))
        )
        await connections.close()
        return found

    with ThreadPoolExecutor() as pool:
        flood = pool.submit(asyncio.run, many())
        refused = None
        while refused is None and not flood.done():
            answer = httpx.post(f"{url}/predict", json={"texts": ["p"] * 5})
            refused = answer if answer.status_code == 503 else None
        assert 503 in flood.result()
    if refused is not None:
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["code"] == "queue_full"


def test_without_room_a_request_is_refused_unread_and_who_has_left_is_not_computed(
    serve: Serve,
) -> None:
    go, passed = threading.Event(), list[str]()

    def held_up(texts: Sequence[str]) -> np.ndarray:
        if "held up" in texts:
            go.wait(10)
        passed.extend(texts)
        return classify(texts)

    url = ready(serve(held_up))
    host, port = url.removeprefix("http://").split(":")
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"

    def sent(texts: Sequence[str]) -> socket.socket:
        body = json.dumps({"texts": texts}).encode()
        connection = socket.create_connection((host, int(port)))
        connection.sendall(head + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        return connection

    def waiting() -> float:
        counts = httpx.get(f"{url}/metrics").text
        return float(re.findall(r"(?m)^layerfusion_queue_texts (\S+)", counts)[0])

    def until(count: int) -> None:
        for _ in range(200):
            if waiting() == count:
                return
            time.sleep(0.005)
        raise AssertionError(f"{waiting()} texts wait, and not {count}")

    first = sent(["held up"])
    time.sleep(0.05)
    others = [sent(["gone"] * 4), sent(["gone too"] * 4)]
    until(8)  # the queue is full
    with socket.create_connection((host, int(port))) as unread:
        unread.settimeout(0.5)
        unread.sendall(head + b"content-length: 1000\r\n\r\n")  # and nothing of its body
        assert unread.recv(100).startswith(b"HTTP/1.1 503")
    for other in others:
        other.close()
    until(0)
    go.set()
    assert first.recv(100).startswith(b"HTTP/1.1 200")
    first.close()
    assert httpx.post(f"{url}/predict", json={"texts": ["p"]}).status_code == 200
    assert passed == ["a first text", "held up", "p"]
    counts = httpx.get(f"{url}/metrics").text
    assert 'layerfusion_requests_total{path="/predict",status="499"} 2.0' in counts


def test_answers_are_sent_at_once_and_what_was_loaded_is_not_walked_through(serve: Serve) -> None:
    gc.unfreeze()  # what the tests' own modules hold: see conftest.py
    url = ready(serve(classify))
    assert gc.get_freeze_count() > 0  # a full collection of garbage would stop all answers
    with _listen("127.0.0.1", 0) as listening:
        client = socket.create_connection(listening.getsockname())
        taken, _ = listening.accept()
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for one in (client, taken):
            one.close()
    assert httpx.get(f"{url}/health").status_code == 200


def test_its_document_describes_the_refusals_that_it_sends(serve: Serve) -> None:
    url = ready(serve(classify))
    document = httpx.get(f"{url}/openapi.json").json()
    told = document["paths"]["/predict"]["post"]["responses"]
    assert told.keys() == {"200", "400", "408", "413", "415", "422", "500", "503", "504"}
    for status, answer in told.items():
        name = "Answer" if status == "200" else "Problem"
        schema = answer["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{name}"}
    texts = document["components"]["schemas"]["Texts"]["properties"]["texts"]
    assert (texts["maxItems"], texts["items"]["maxLength"]) == (5, 200)


# -- the command --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("serve")
    arguments = tiny_job(
        tiny_texts(root / "texts.csv", 40), tiny_folder("bert", root / "bert"), root / "cache"
    )
    settings = ["layers=last", "fusion=concat", "seeds=1", "logger=none"]
    assert main(["train", *arguments, *settings, f"hydra.run.dir={root}/job"]) == 0
    return root / "job"


def test_a_port_that_may_not_be_had_names_one_that_may(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> Callable[..., None]:
        def create_server(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        return create_server

    for number, port, other in (
        (errno.EACCES, 80, "--port 8000"),
        (errno.EADDRINUSE, 65535, "--port 65534"),
        (errno.EMFILE, 9000, "--host"),
    ):
        monkeypatch.setattr("socket.create_server", refuse(number))
        with pytest.raises(UserError, match=f"choose another, such as {other}"):
            _listen("127.0.0.1", port)


def test_why_the_models_cannot_be_loaded_is_told() -> None:
    def broken(_texts: Sequence[str]) -> np.ndarray:
        raise RuntimeError("out of\nmemory")

    told: list[UserError] = []
    app = make_app(Classifier(("a", "b"), "0", broken), LIMITS, told.append)

    async def start() -> None:
        async with app.router.lifespan_context(app):
            while not told:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(start(), 10))
    assert str(told[0]) == "serve: the models cannot be loaded: out of memory"


def test_it_says_what_predict_says_and_answers_before_it_stops(job: Path) -> None:
    command = [sys.executable, "-m", "layerfusion", "serve", str(job), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        found = re.search(r"http://127.0.0.1:\d+", run.stdout.readline())
        assert found is not None
        url = found[0]
        while httpx.get(f"{url}/health").status_code != 200:
            assert run.poll() is None
            time.sleep(0.1)
        texts = ["the good film", "an awful plot  "]
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(httpx.post, f"{url}/predict", json={"texts": texts}, timeout=30)
            time.sleep(0.003)  # it is on its way, or even answered
            answer = asked.result()
            run.send_signal(signal.SIGTERM)
        _, told = run.communicate(timeout=60)
    assert (run.returncode, told) == (0, "")
    bundle = load_bundle(job)
    np.testing.assert_allclose(
        answer.json()["probabilities"], bundle.probabilities(texts), atol=1e-5
    )
    assert answer.json()["labels"] == bundle.predict(texts).tolist()


def test_mistakes_are_told_in_a_line(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with _listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        for arguments, said in (
            (["--deadline", "nan"], "--deadline nan: a number above 0 is needed"),
            (["--deadline", "inf"], "--deadline inf: a number above 0 is needed"),
            (["--max-batch", "-2"], "--max-batch -2: a number above 0 is needed"),
            (["--max-delay", "0"], "--max-delay 0.0: a number above 0 is needed"),
            (["--max-wait", "-1"], "--max-wait -1.0: a number from 0 on is needed"),
            (["--host", "a" * 70], "it is no name of a host"),
            (
                ["--port", str(port)],
                f"choose another, such as --port {port + 1}",
            ),
            (["--port", "70000"], "a port has a number from 0 to 65535"),
            (["--host", "192.0.2.1"], "choose another, such as --host 127.0.0.1"),
            (["--host", "no.such.host.invalid"], "--host no.such.host.invalid"),
            (["--max-texts", "0"], "--max-texts 0: a number above 0 is needed"),
            (["--model", "tiny=/nowhere", "--port", "0"], "backbone.tiny"),
        ):
            capsys.readouterr()
            assert main(["serve", str(job), *arguments]) == 2
            told = capsys.readouterr().err.strip()
            assert said in told
            assert "\n" not in told
