"""Vectors from elsewhere: what is asked for, kept, and refused in one line."""

from __future__ import annotations

import logging
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from layerfusion.config.job import BackboneConfig, ExtractConfig
from layerfusion.embeddings import endpoint
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.given import LAYER, GivenSource, open_given
from layerfusion.errors import Unavailable, UserError
from tests.embeddings.fake_endpoint import FakeEndpoint, entries, vector_of

TEXTS = [f"a good film {'of ' * n}number {n}" for n in range(7)]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    with FakeEndpoint() as fake:
        yield fake


def opened(url: str, cache: Path, **settings: Any) -> GivenSource:
    config = BackboneConfig(endpoint=url, **{"model": "words", "batch": 3, **settings})
    return open_given("paid", config, cache, text="text", store_dtype="float32")


def extract(source: GivenSource, texts: list[str]) -> np.ndarray:
    source.extract([texts], ExtractConfig())
    return source.store.read([text_hash(text) for text in texts], [LAYER])[LAYER]


def refused(source: GivenSource, texts: list[str] = TEXTS) -> str:
    with pytest.raises(UserError) as told:
        extract(source, texts)
    said = str(told.value)
    assert "\n" not in said
    return said


# -- what is asked for ----------------------------------------------------------------------------


def test_each_text_is_asked_for_once_whoever_asks(fake: FakeEndpoint, tmp_path: Path) -> None:
    vectors = extract(opened(fake.url, tmp_path), [*TEXTS, *TEXTS])
    np.testing.assert_allclose(vectors, [vector_of(x) for x in [*TEXTS, *TEXTS]], rtol=1e-6)
    assert sorted(fake.texts) == sorted(TEXTS)
    assert {len(body["input"]) for body in fake.bodies} == {1, 2, 3}
    assert fake.bodies[0].keys() == {"path", "model", "input"}
    assert fake.bodies[0]["path"] == "/v1/embeddings"
    again = opened(f"{fake.url.upper().replace('/V1', '/v1')}/embeddings/", tmp_path)
    extract(again, [*TEXTS[::-1], "another"])
    assert sorted(fake.texts) == sorted([*TEXTS, "another"])


def test_address_model_width_and_template_have_stores_of_their_own(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    sources = [
        opened(fake.url, tmp_path),
        opened(fake.url, tmp_path, model="other"),
        opened(fake.url, tmp_path, dimensions=8),
        opened(fake.url, tmp_path, template="query: {text}"),
        opened(f"{fake.url}/x", tmp_path),
    ]
    assert len({source.store.name for source in sources}) == len(sources)
    same = opened(fake.url, tmp_path, batch=9, timeout=1.5, token_variable="A_TOKEN")
    assert same.store.name == sources[0].store.name
    extract(sources[2], ["a"])
    extract(sources[3], ["a"])
    assert fake.bodies[0]["dimensions"] == 8
    assert fake.bodies[1]["input"] == ["query: a"]


def test_only_the_texts_that_a_selection_needs_are_asked_for(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    source = opened(fake.url, tmp_path)
    source.extract([TEXTS], ExtractConfig(), {"given": []})
    source.extract([TEXTS], ExtractConfig(), {})
    assert not fake.bodies
    source.extract([TEXTS], ExtractConfig(num_shards=2, shard=1))
    some = len(fake.texts)
    assert 0 < some < len(TEXTS)
    source.extract([TEXTS], ExtractConfig(num_shards=2, shard=0))
    assert sorted(fake.texts) == sorted(TEXTS)


def test_the_order_of_an_answer_is_that_of_its_indices(fake: FakeEndpoint, tmp_path: Path) -> None:
    fake.replies = [lambda body: (200, {}, {"data": entries(body["input"])[::-1]})] * 9
    np.testing.assert_allclose(
        extract(opened(fake.url, tmp_path), TEXTS), [vector_of(x) for x in TEXTS], rtol=1e-6
    )


def test_time_is_measured_and_flops_are_not_known(fake: FakeEndpoint, tmp_path: Path) -> None:
    source = opened(fake.url, tmp_path, batch=32)
    texts = ["film " * n + "good" for n in range(40)]
    extract(source, texts)
    assert [len(body["input"]) for body in fake.bodies] == [1, 1, 32, 6]
    seconds = source.store.seconds_per_text(map(text_hash, texts), LAYER)
    assert seconds is not None
    assert 0 < seconds < 1
    assert source.shape.flops(LAYER, [4]) == float("inf")
    from layerfusion.embeddings.latency import read_latency

    latency = read_latency(source.store.folder, len(texts[20]))
    assert latency is not None
    extract(source, [f"{text} again" for text in texts])  # of nearly this length
    assert [len(body["input"]) for body in fake.bodies[4:]] == [32, 8]
    extract(source, ["film " * n for n in range(200, 232)])
    assert [len(body["input"]) for body in fake.bodies[6:]] == [1, 1, 30]
    assert read_latency(source.store.folder, 5 * 216) is not None
    assert latency.one.keys() == latency.batch.keys() == {LAYER}


# -- what fails, and what is kept -----------------------------------------------------------------


def test_a_busy_server_is_asked_again_after_as_long_as_it_asks_for(
    fake: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(endpoint.time, "sleep", waits.append)
    fake.replies = [(429, {"retry-after": "7"}, "slow down"), (503, {}, ""), (500, {}, {"a": 1})]
    extract(opened(fake.url, tmp_path), TEXTS)
    assert waits == [7.0, 0.02, 0.04]
    assert sorted(fake.texts) == sorted(TEXTS)
    waits.clear()
    fake.replies = [(429, {"retry-after": "0"}, ""), (429, {"retry-after": "-3"}, "")]
    extract(opened(fake.url, tmp_path), ["new"])
    assert waits == [0.01, 0.02]  # a server that asks for no wait is not asked again at once


def test_a_server_that_stays_busy_is_given_up_and_what_it_gave_is_kept(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    fake.replies = [fake.answer] * 3 + [(429, {}, {"error": {"message": "quota\nis used up"}})] * 6
    said = refused(opened(fake.url, tmp_path))
    assert (
        "/v1/embeddings: 429 quota is used up, after 6 tries; what it gave before is kept" in said
    )
    assert len(fake.texts) == 5
    extract(opened(fake.url, tmp_path), TEXTS)
    assert sorted(fake.texts) == sorted(TEXTS)
    fake.replies = [(503, {"retry-after": "86400"}, "closed")]
    assert "it asks to wait 86,400 s" in refused(opened(fake.url, tmp_path), ["new"])


def test_a_server_that_never_gave_anything_is_given_up_soon(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    fake.replies = [(503, {}, "no model")] * 9
    assert "503 no model, after 3 tries" in refused(opened(fake.url, tmp_path))
    assert len(fake.bodies) == 3
    fake.replies = [(503, {"retry-after": "0"}, ""), *[(503, {}, "starting")] * 9]
    assert "503 starting, after 3 tries" in refused(opened(fake.url, tmp_path))
    source = opened(fake.url, tmp_path)
    fake.replies = []
    extract(source, TEXTS[:1])
    fake.replies = [(503, {}, "again")] * 9
    assert "503 again, after 6 tries" in refused(source)  # it was there, and may come back


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(endpoint, "FIRST_TRIES", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        said = refused(opened(address, tmp_path, timeout=0.05))
        assert "no answer within 0.05 s (backbone.paid.timeout), after 2 tries" in said
    with pytest.raises(Unavailable) as down:
        extract(opened(address, tmp_path), TEXTS)
    assert down.value.where == f"backbone paid: {address}/embeddings"
    assert pickle.loads(pickle.dumps(down.value)).where == down.value.where
    said = refused(opened(address, tmp_path))
    assert "Connection refused; is the server running, and the address right?" in said


def test_a_text_that_is_too_long_is_named_and_the_others_are_kept(
    fake: FakeEndpoint, tmp_path: Path
) -> None:
    fake.refuse = lambda text: "at most 9 tokens" if text == TEXTS[5] else ""
    said = refused(opened(fake.url, tmp_path, batch=7))
    assert said.endswith(f"400 at most 9 tokens; it is about the text {TEXTS[5]!r}")
    assert TEXTS[5] not in fake.texts
    fake.refuse = lambda text: ""
    extract(opened(fake.url, tmp_path), TEXTS)
    assert sorted(fake.texts) == sorted(TEXTS)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"data": entries(["a"])}, "it gave 1 vectors for 3 texts"),
        ({"data": [{"index": 0, "embedding": [1]}] * 3}, "the index of its vectors is not 0 to 2"),
        ({"data": [{"index": None, "embedding": [1]}] * 2 + [{"embedding": [1, 2]}]}, "widths, [1"),
        ({"data": [{"embedding": [1.0, float("nan")]}] * 3}, "it gave [1.0, nan] in place of a v"),
        ({"data": [{"embedding": [1.0, 1e39]}] * 3}, "it gave [1.0, 1e+39] in place of a vector"),
        ({"data": [{"embedding": ["1"]}] * 3}, "it gave ['1'] in place of a vector"),
        ({"data": [{"embedding": [True]}] * 3}, "it gave [True] in place of a vector"),
        ({"data": [{"embedding": []}] * 3}, "it gave [] in place of a vector"),
        ({"data": [{"embedding": "AACAPw=="}] * 3}, "it gave 'AACAPw==' in place of a vector"),
        ({"data": {"embedding": [1]}}, 'its answer has no vectors: \'{"data"'),
        ({"embeddings": [[1]]}, 'its answer has no vectors: \'{"embeddings"'),
        ("<html>Sign in</html>", "its answer has no vectors: '<html>Sign in</html>'"),
    ],
)
def test_an_answer_that_is_none(fake: FakeEndpoint, body: object, said: str) -> None:
    fake.replies = [(200, {}, body)]
    server = endpoint.Endpoint("paid", BackboneConfig(endpoint=fake.url, model="words"))
    with pytest.raises(UserError) as told:
        list(server.ask(TEXTS[:3]))
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_another_width_midway(fake: FakeEndpoint, tmp_path: Path) -> None:
    wrong = {"data": [{"embedding": [1.0] * 5}] * 3}
    fake.replies = [fake.answer, fake.answer, (200, {}, wrong)]
    source = opened(fake.url, tmp_path)
    assert "gave a vector of 5 numbers, and earlier ones of 8; if another mo" in refused(source)
    extract(source, TEXTS)
    other = opened(fake.url, tmp_path, dimensions=4)
    assert "gave vectors of 8 numbers, and backbone.paid.dimensions=4 asks for 4" in refused(other)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "401 who are you; backbone.paid.token_variable=NAME names the variable of its token"),
        (404, "404 who are you"),
        (302, "302 who are you; it sends on to /other?token=<hidden> and that is not followed"),
        (
            200,
            'its answer has no vectors: \'{"error": {"message": "who are you"}}\'; an address of'
            ' OpenAI\'s API is needed, which gives {"data": [{"embedding": […]}]}',
        ),
    ],
)
def test_a_refusal_is_told_at_once(
    fake: FakeEndpoint, tmp_path: Path, status: int, said: str
) -> None:
    to = {"location": "/other?token=abc"} if status == 302 else {}
    fake.replies = [(status, to, {"error": {"message": "who are you"}})] * 9
    assert refused(opened(fake.url, tmp_path)).endswith(said)
    assert len(fake.bodies) == 1


def test_the_token_comes_from_the_environment_and_goes_nowhere_else(
    fake: FakeEndpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = opened(fake.url, tmp_path, token_variable="MY_PASS")
    monkeypatch.delenv("MY_PASS", raising=False)
    assert "token_variable=MY_PASS: the environment has no such variable; export" in refused(source)
    monkeypatch.setenv("MY_PASS", "abcdef123")
    fake.replies = [(429, {}, "abcdef123 is busy"), (403, {}, "abcdef123 may not")]
    with caplog.at_level(logging.WARNING):
        said = refused(source)
    assert said.endswith("403 <hidden> may not; the token is that of MY_PASS")
    extract(source, TEXTS)
    assert set(fake.tokens) == {"Bearer abcdef123"}
    assert "<hidden> is busy" in caplog.text
    assert "abcdef123" not in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()
                and b"abcdef123" in path.read_bytes()]  # fmt: skip
    monkeypatch.delenv("MY_PASS")
    extract(source, TEXTS)  # which are all in the cache


TOKEN = "tok/en" * 40


@pytest.mark.parametrize(
    "reply",
    [
        (403, {}, {"error": {"message": f"{'x' * 250} {TOKEN} {TOKEN}"}}),
        (403, {}, {"error": {"code": 1, "seen": f"{'x' * 250} {TOKEN}"}}),
        (403, {}, f"{'x' * 250} {TOKEN}".replace("/", "\\/")),
        (302, {"location": f"/{'x' * 150}?{TOKEN}"}, ""),
        (302, {"location": f"/{'x' * 150}?{TOKEN.replace('/', '%2F')}"}, ""),
        (200, {}, f"{'x' * 20} {TOKEN}"),
        (200, {}, {"data": [{"embedding": f"{'x' * 20}{TOKEN}"}]}),
        (200, {}, {"data": [{"embedding": ["x" * 20, [TOKEN]]}]}),
        (200, {}, {"data": [{"embedding": {TOKEN: {"a": TOKEN}}}]}),
        (200, {}, {"data": [{"index": f"{'x' * 20}{TOKEN}", "embedding": [1]}]}),
    ],
)
def test_no_half_of_a_token_stays_where_words_of_a_server_are_cut(
    fake: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: Any
) -> None:
    monkeypatch.setenv("MY_PASS", TOKEN)
    fake.replies = [reply]
    said = refused(opened(fake.url, tmp_path, token_variable="MY_PASS"), ["a"])
    assert "<hidden>" in said
    assert "tok" not in said.replace("MY_PASS", "").replace("the token is that of", "")


def test_half_of_a_surrogate_pair_is_sent_as_an_escape(fake: FakeEndpoint, tmp_path: Path) -> None:
    extract(opened(fake.url, tmp_path), ["half \ud83d of it"])
    assert fake.texts == ["half \ud83d of it"]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HTTP_PROXY", "foo://bar", "Unknown scheme for proxy URL"),
        ("HTTP_PROXY", "http://me:pass@bar:abc", "Invalid port: 'abc'"),
        ("HTTP_PROXY", f"http://{'a' * 70}:80", "label too long"),
        ("SSL_CERT_FILE", "/none/of/these", "No such file or directory"),
    ],
)
def test_variables_of_the_environment_that_are_wrong_are_one_line(
    fake: FakeEndpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    said: str,
) -> None:
    for name in ("http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    told = refused(opened(fake.url, tmp_path))
    assert said in told
    assert "pass@" not in told


def test_an_address_that_cannot_be_asked_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint.time, "sleep", lambda _: pytest.fail("it waits"))
    said = refused(opened("ftp://localhost/v1", tmp_path))
    assert said.endswith("Request URL has an unsupported protocol 'ftp://'.")
    assert "Invalid non-printable" in refused(opened("http://localhost/v1\x07", tmp_path))


def test_no_request_is_begun_when_the_time_is_over(
    fake: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint.time, "sleep", lambda _: pytest.fail("it waits"))
    source = opened(fake.url, tmp_path)
    with pytest.raises(endpoint.OutOfTime):
        source.extract([TEXTS], ExtractConfig(), left=lambda: 3 - len(fake.bodies))
    assert len(fake.bodies) == 3
    assert len(fake.texts) == 5
    fake.replies = [(429, {"retry-after": "7"}, "")]
    with pytest.raises(endpoint.OutOfTime):
        source.extract([TEXTS], ExtractConfig(), left=lambda: 6.0)
    extract(source, TEXTS)
    assert sorted(fake.texts) == sorted(TEXTS)


# -- files ----------------------------------------------------------------------------------------


def filed(file: Path, cache: Path, **settings: Any) -> GivenSource:
    settings = settings or {"column": "v"}
    return open_given(
        "own", BackboneConfig(vectors=str(file), **settings), cache, text="t", store_dtype="float32"
    )


def table(vectors: Any, file: Path, texts: list[str] = TEXTS) -> Path:
    frame = pd.DataFrame({"t": texts, "v": list(vectors)})
    if file.suffix == ".parquet":
        frame.to_parquet(file)
    elif file.suffix == ".jsonl":
        frame.to_json(file, orient="records", lines=True)
    else:
        frame.to_csv(file, index=False)
    return file


def test_every_form_of_file_gives_the_same_vectors(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = np.random.default_rng(0).normal(size=(len(TEXTS), 4)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    table(vectors, tmp_path / "v.csv")
    parts = tmp_path / "parts"
    parts.mkdir()
    table(vectors[:3], parts / "train.parquet", TEXTS[:3])
    table(vectors[3:].tolist(), parts / "test.jsonl", TEXTS[3:])
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 4)
    rows = pa.table({"v": fixed, "t": [f"  {text}\n" for text in TEXTS]})
    pq.write_table(rows, tmp_path / "fixed.parquet", row_group_size=2)
    found = [
        extract(source, TEXTS[::-1])
        for source in (
            filed(table(vectors, tmp_path / "v.parquet"), tmp_path),
            filed(table(vectors.tolist(), tmp_path / "v.jsonl"), tmp_path),
            filed(tmp_path / "fixed.parquet", tmp_path),
            filed(parts, tmp_path),
            filed(tmp_path / "v.npy", tmp_path, rows=str(tmp_path / "v.csv")),
        )
    ]
    for one in found:
        np.testing.assert_allclose(one, vectors[::-1], rtol=1e-6)


def test_a_file_that_changes_has_another_store(tmp_path: Path) -> None:
    first = filed(table([[1.0, 2.0]] * 7, tmp_path / "v.jsonl"), tmp_path)
    extract(first, TEXTS)
    second = filed(table([[3.0, 2.0]] * 7, tmp_path / "v.jsonl"), tmp_path)
    assert extract(second, TEXTS)[0].tolist() == [3.0, 2.0]
    assert first.store.seconds_per_text(map(text_hash, TEXTS), LAYER) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"v": [1.0]}, "v.jsonl, row 3: a vector of 1 numbers, and v.jsonl, row 1 has one of 2"),
        ({"v": "[1, 2]"}, "v.jsonl, row 3: a list of numbers is needed, found '[1, 2]'"),
        ({"v": ["1", "2"]}, "v.jsonl, row 3: a list of numbers is needed, found ['1', '2']"),
        ({"v": None}, "v.jsonl, row 3: a list of numbers is needed, found None"),
        ({"v": [1.0, None]}, "v.jsonl, row 3: a list of numbers is needed, found [1.0, None]"),
        ({"t": "other"}, f"no row has the text {TEXTS[2]!r}"),
        ({"t": TEXTS[0], "v": [9.0, 9.0]}, "row 1 and v.jsonl, row 3 have one text"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    rows = [{"t": text, "v": [1.0, 2.0]} for text in TEXTS]
    rows[2] |= change
    pd.DataFrame(rows).to_json(tmp_path / "v.jsonl", orient="records", lines=True)
    told = refused(filed(tmp_path / "v.jsonl", tmp_path))
    assert told.startswith(f"backbone.own.vectors={tmp_path}/v.jsonl: ")
    assert said in told


def test_repeats_of_one_vector_and_rows_of_other_texts_do_no_harm(tmp_path: Path) -> None:
    rows = [{"t": text, "v": [1.0, 2.0]} for text in [*TEXTS, TEXTS[0], "other"]]
    rows[-1]["v"] = []
    pd.DataFrame(rows).to_json(tmp_path / "v.jsonl", orient="records", lines=True)
    assert extract(filed(tmp_path / "v.jsonl", tmp_path), TEXTS).shape == (7, 2)


def test_vectors_that_tell_no_texts_apart_are_refused_each_time(tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(10)]
    source = filed(table(np.ones((10, 4)), tmp_path / "v.parquet", texts), tmp_path / "cache")
    for _ in range(2):  # nothing was kept that a second try would take for good
        assert "the same vector for 10 different texts" in refused(source, texts)


def test_an_array_that_does_not_follow_its_rows(tmp_path: Path) -> None:
    texts = table([0] * 7, tmp_path / "v.csv")
    for array, said in (
        (np.zeros((6, 2)), f"it has 6 rows, and backbone.own.rows={texts} has 7"),
        (np.zeros(7), "an array of numbers with a row for each text is needed"),
        (np.array([["a"]] * 7), "an array of numbers with a row for each text is needed"),
        (np.array([[None]] * 7), "not readable as .npy"),
    ):
        np.save(tmp_path / "v.npy", array)
        assert said in refused(filed(tmp_path / "v.npy", tmp_path, rows=str(texts)))
    with pytest.raises(UserError, match=r"backbone.own.vectors=.*gone.parquet: it does not exist"):
        filed(tmp_path / "gone.parquet", tmp_path)
