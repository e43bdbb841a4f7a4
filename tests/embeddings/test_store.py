from __future__ import annotations

import copy
import errno
import hashlib
import json
import logging
import os
import pickle
import shutil
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, load_file, save

from layerfusion.assets.memo import seal, unseal
from layerfusion.config.job import BackboneConfig, PoolingConfig
from layerfusion.embeddings import store as store_module
from layerfusion.embeddings.cache_key import ROUNDED, BackboneSpec, backbone_spec, text_hash
from layerfusion.embeddings.collect import export_store
from layerfusion.embeddings.inspect import list_stores, verify_stores
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.shards import read_header
from layerfusion.embeddings.store import SCHEMA, EmbeddingStore, TokenCounts
from layerfusion.errors import UserError


def spec_of(**changes: object) -> BackboneSpec:
    config = BackboneConfig()
    spec = backbone_spec(config, PoolingConfig(), model="m", folder=Path("/nowhere"))
    return BackboneSpec(**{**spec.__dict__, **changes})


def fill(store: EmbeddingStore, texts: list[str], layers: list[str], offset: float = 0.0) -> Path:
    values = {
        layer: np.array([[offset + int(layer) + 10 * len(t), 1.0] for t in texts], np.float32)
        for layer in layers
    }
    none = np.zeros(len(texts), int)
    counts = TokenCounts(np.array([len(t) for t in texts]), none, none, none)
    return store.write([text_hash(t) for t in texts], values, counts, seconds=len(texts) * 0.5)


def refill(store: EmbeddingStore, texts: list[str]) -> None:
    fill(store, texts, ["0", "1"])


def hashes(texts: list[str]) -> list[bytes]:
    return [text_hash(text) for text in texts]


def test_a_shard_is_what_the_library_writes_but_for_the_order_of_its_metadata(
    tmp_path: Path,
) -> None:
    store = EmbeddingStore(tmp_path, spec_of())
    values = {"0": np.array([[1.0]], np.float32), "wide": np.array([[1e5, 2e5, -1e5]], np.float32)}
    one = np.array([1])
    path = store.write([text_hash("a")], values, TokenCounts(one, one, one, one), seconds=0.5)
    assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()
    header = read_header(path)
    library = tmp_path / "library"
    library.write_bytes(save(load_file(path), metadata=header["__metadata__"]))
    assert read_header(library) == header
    size = int.from_bytes(path.read_bytes()[:8], "little")
    assert library.read_bytes()[8 + size :] == path.read_bytes()[8 + size :]


def test_rows_come_back_in_the_order_asked_with_repeats(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, spec_of())
    fill(store, ["a", "bb"], ["0", "1"])
    fill(store, ["ccc"], ["0", "1"])
    asked = ["ccc", "a", "bb", "a"]
    found = EmbeddingStore(tmp_path, spec_of()).read(hashes(asked), ["1"])["1"]
    assert found.dtype == np.float32
    assert found[:, 0].tolist() == [31, 11, 21, 11]
    assert store.tokens(hashes(asked)).seen.tolist() == [3, 1, 2, 1]


def test_the_layers_of_a_text_may_lie_in_several_shards(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, spec_of())
    fill(store, ["a", "bb"], ["0"])
    assert store.missing(hashes(["a", "bb", "ccc"]), ["0"]).tolist() == [False, False, True]
    assert store.missing(hashes(["a"]), ["0", "2"]).tolist() == [True]
    fill(store, ["bb", "a"], ["2"])
    assert not store.missing(hashes(["a", "bb"]), ["0", "2"]).any()
    found = store.read(hashes(["a", "bb"]), ["0", "2"])
    assert found["0"][:, 0].tolist() == [10, 20]
    assert found["2"][:, 0].tolist() == [12, 22]
    with pytest.raises(KeyError, match="no \\['1'\\]"):
        store.read(hashes(["a"]), ["1"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(pieces=st.lists(st.sets(st.integers(0, 20), min_size=1), min_size=1, max_size=5))
def test_any_mix_of_shards_reads_as_one_table(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[set[int]]
) -> None:
    root = tmp_path_factory.mktemp("mix")
    store = EmbeddingStore(root, spec_of())
    for piece in pieces:
        fill(store, ["x" * n for n in sorted(piece)], ["0", "1"])
    known = sorted(set().union(*pieces))
    found = EmbeddingStore(root, spec_of()).read(hashes(["x" * n for n in known]), ["1"])["1"]
    assert found[:, 0].tolist() == [1 + 10 * n for n in known]


def test_half_precision_only_where_the_values_allow_it(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, spec_of(store_dtype=ROUNDED))
    values = {"0": np.array([[65504.0]], np.float32), "1": np.array([[65520.0]], np.float32)}
    path = store.write([text_hash("a")], values, TokenCounts(*np.ones((4, 1))), seconds=1.0)
    header = read_header(path)
    assert (header["0"]["dtype"], header["1"]["dtype"]) == ("F16", "F32")
    assert store.read([text_hash("a")], ["1"])["1"].tolist() == [[65520.0]]


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"tokenizer": "other"},
        {"dtype": "bfloat16"},
        {"max_length": 128},
        {"truncation_side": "left"},
        {"template": "query: {text}"},
        {"long_texts": "windows"},
        {"window_overlap": 3},
        {"pool": "last"},
        {"skip_first": True},
        {"store_dtype": ROUNDED},
    ],
)
def test_everything_that_changes_a_vector_changes_the_store(
    tmp_path: Path, change: dict[str, object]
) -> None:
    assert spec_of(**change).hash() != spec_of().hash()
    assert EmbeddingStore(tmp_path, spec_of(**change)).folder != tmp_path / spec_of().hash()


def test_a_spec_has_one_canonical_form() -> None:
    assert json.loads(spec_of().canonical()) == spec_of().__dict__
    assert spec_of().hash() == spec_of().hash()
    assert len(set(BackboneSpec.__dataclass_fields__) ^ set(spec_of().__dict__)) == 0


def test_another_schema_is_refused(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, spec_of())
    described = store.folder / store_module.SPEC_FILE
    raw = unseal(json.loads(described.read_text()))
    described.write_text(json.dumps(seal({**raw, "schema": 99})))
    with pytest.raises(UserError, match="schema 99, this version reads schema 1"):
        EmbeddingStore(tmp_path, spec_of())


def test_a_full_disk_is_one_line_and_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EmbeddingStore(tmp_path, spec_of())
    fill(store, ["a"], ["0"])

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=f"no space left on the disk of {store.folder}"):
            fill(store, ["bb"], ["0"])
    left = sorted(path.name.rpartition(".")[2] for path in store.folder.iterdir())
    assert left == ["json", "safetensors", "used"]
    fill(store, ["bb"], ["0"])
    assert len(EmbeddingStore(tmp_path, spec_of())) == 2


def test_writers_side_by_side_see_each_others_shards(tmp_path: Path) -> None:
    one, two = EmbeddingStore(tmp_path, spec_of()), EmbeddingStore(tmp_path, spec_of())
    fill(one, ["a"], ["0"])
    fill(two, ["a", "bb"], ["0"])
    one.refresh()
    for store in (one, two):
        assert store.read(hashes(["a", "bb"]), ["0"])["0"][:, 0].tolist() == [10, 20]


def test_texts_are_looked_up_while_another_thread_adds_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where the shards are written while the next texts are looked up."""
    store = EmbeddingStore(tmp_path, spec_of())
    fill(store, ["known"], ["0"])
    marked = EmbeddingStore._with
    writers: list[Thread] = []

    def meanwhile(*args: Any) -> np.ndarray:
        accepted = marked(*args)
        if not writers:
            writers.append(Thread(target=fill, args=(store, ["new"], ["0"])))
            writers[0].start()
            writers[0].join(1.0)
        return accepted

    monkeypatch.setattr(EmbeddingStore, "_with", meanwhile)
    assert store.missing(hashes(["known", "new"]), ["0"]).tolist() == [False, True]
    writers[0].join()
    assert not store.missing(hashes(["known", "new"]), ["0"]).any()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda store: pickle.loads(pickle.dumps(store))])
def test_a_store_is_copied_and_goes_to_another_process(tmp_path: Path, copied: Any) -> None:
    store = EmbeddingStore(tmp_path, spec_of())
    fill(store, ["a"], ["0"])
    again = copied(store)
    fill(again, ["bb"], ["0"])
    assert again.read(hashes(["a", "bb"]), ["0"])["0"].shape == (2, 2)


def test_verify_finds_and_removes_a_damaged_shard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = EmbeddingStore(tmp_path / "embeddings", spec_of())
    fill(store, ["a"], ["0"])
    damaged = fill(store, ["bb"], ["0"])
    assert verify_stores(tmp_path, delete=False) == 0
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert verify_stores(tmp_path, delete=False) == 1
    assert str(damaged) in capsys.readouterr().out
    assert verify_stores(tmp_path, delete=True) == 0
    again = EmbeddingStore(tmp_path / "embeddings", spec_of())
    assert again.missing(hashes(["a", "bb"]), ["0"]).tolist() == [False, True]
    (line,) = list_stores(tmp_path)
    assert "1 texts" in line


def test_verify_and_ls_agree_on_a_shard_of_another_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = EmbeddingStore(tmp_path / "embeddings", spec_of())
    two = EmbeddingStore(tmp_path / "embeddings", spec_of(max_length=16))
    shard = fill(one, ["a"], ["0"])
    shutil.copy(shard, two.folder)
    assert sum("1 damaged" in line for line in list_stores(tmp_path)) == 1
    assert verify_stores(tmp_path, delete=True) == 0
    assert "2 shards read, 1 damaged" in capsys.readouterr().out
    assert shard.exists()
    assert not any("damaged" in line for line in list_stores(tmp_path))


def test_ls_tells_stores_apart_and_goes_past_settings_of_another_version(tmp_path: Path) -> None:
    whole = EmbeddingStore(tmp_path / "embeddings", spec_of(store_dtype="float32"))
    rounded = EmbeddingStore(tmp_path / "embeddings", spec_of(store_dtype=ROUNDED))
    lines = {line[:16]: line for line in list_stores(tmp_path)}
    assert ", float32 kept as float16, max_length" in lines[rounded.name]
    assert ", float32, max_length" in lines[whole.name]
    other = json.dumps({"schema": SCHEMA, "spec": {"model": "m"}})
    (rounded.folder / "store.json").write_text(other)
    lines = {line[:16]: line for line in list_stores(tmp_path)}
    assert "store.json: its settings are of another version" in lines[rounded.name]
    fill(rounded, ["a"], ["0"])
    with pytest.raises(UserError, match="its settings are of another version"):
        export_store(tmp_path, rounded.name, tmp_path / "x.npy", [])


def test_verify_and_ls_go_past_what_is_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = EmbeddingStore(tmp_path / "embeddings", spec_of())
    fill(store, ["a"], ["0"])
    (store.folder / "folder.safetensors").mkdir()
    (store.folder / "link.safetensors").symlink_to("nowhere")
    (store.folder / "store.json").write_text("{")
    assert verify_stores(tmp_path, delete=False) == 1
    assert "3 shards read, 2 damaged" in capsys.readouterr().out
    assert verify_stores(tmp_path, delete=True) == 1
    assert [x for x in store.folder.iterdir() if x.is_symlink()] == []
    assert "folder.safetensors is a folder; move it elsewhere" in capsys.readouterr().out
    (line,) = list_stores(tmp_path)
    assert "1 texts" in line
    assert "store.json: not the description of a store" in line


def test_a_cut_off_shard_is_named_and_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = EmbeddingStore(tmp_path, spec_of())
    path = fill(store, ["a"], ["0"])
    path.write_bytes(path.read_bytes()[:-3])
    with caplog.at_level(logging.WARNING):
        again = EmbeddingStore(tmp_path, spec_of())
    assert f"{path} is damaged" in caplog.text
    assert again.missing(hashes(["a"]), ["0"]).all()
    assert not path.exists()


def test_cost_is_shared_among_the_texts_of_a_shard(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, spec_of())
    fill(store, ["a", "bb"], ["0", "1"])
    assert store.seconds_per_text(hashes(["a"]), "1") == pytest.approx(0.5)
    fill(store, ["c"], ["0"])
    assert store.seconds_per_text(hashes(["a", "c"]), "1") == pytest.approx(0.5)
    assert store.seconds_per_text(hashes(["c"]), "1") is None  # its pass ended below
    assert store.bytes_per_text(["1"]) == 2 * 4


@pytest.mark.parametrize(
    ("asked", "dtype", "stored"),
    [
        ("auto", "float32", "float32"),
        ("auto", "bfloat16", ROUNDED),
        ("auto", "float16", ROUNDED),
        ("auto", "nf4", ROUNDED),
        ("float16", "float32", ROUNDED),
        ("float32", "bfloat16", "float32"),
    ],
)
def test_vectors_are_kept_as_precise_as_the_pass_unless_asked_otherwise(
    asked: str, dtype: str, stored: str
) -> None:
    config, nowhere = BackboneConfig(dtype=dtype), Path("/nowhere")
    spec = backbone_spec(config, PoolingConfig(), model="m", folder=nowhere, store_dtype=asked)
    assert spec.store_dtype == stored


@pytest.mark.parametrize("name", ["shard", store_module.SPEC_FILE, store_module.SHAPE_FILE])
def test_every_changed_byte_and_every_cut_is_noticed_and_computed_again(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["a", "bb"]
    store = EmbeddingStore(tmp_path, spec_of())
    shape = ModelShape(("0", "1"), 2, 8, 100, 10, (90,), (80,))
    store.describe_model(shape)
    path = fill(store, texts, ["0", "1"])
    path = path if name == "shard" else store.folder / name
    whole = path.read_bytes()
    noticed, places = 0, range(0, len(whole), 11)
    for place in places:
        for damaged in (
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
            whole[:place],
        ):
            for shard in store.folder.glob("*.safetensors"):
                shard.unlink()
            if name == "shard":
                path.write_bytes(damaged)
            else:
                fill(store, texts, ["0", "1"])
                path.write_bytes(damaged)
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                again = EmbeddingStore(tmp_path, spec_of())
                again.refill = partial(refill, again, texts)
                if again.missing(hashes(texts), ["0", "1"]).any():
                    refill(again, texts)
                known = again.shape
                if known is None:
                    again.describe_model(shape)
                found = again.read(hashes(texts), ["0", "1"])
                tokens = again.tokens(hashes(texts)).seen.tolist()
            noticed += "damaged" in caplog.text
            assert [found[x][:, 0].tolist() for x in ("0", "1")] == [[10, 20], [11, 21]]
            assert again.seconds_per_text(hashes(texts), "1") == pytest.approx(0.5)
            assert tokens == [1, 2]
            assert known in (None, shape)
    assert noticed > 1.6 * len(places)


def test_a_shard_of_another_store_is_no_shard_of_this_one(tmp_path: Path) -> None:
    one, other = EmbeddingStore(tmp_path, spec_of()), EmbeddingStore(tmp_path, spec_of(model="o"))
    path = fill(one, ["a"], ["0"])
    strange = fill(other, ["a"], ["0"], offset=5.0)
    path.unlink()
    strange.rename(one.folder / strange.name)
    again = EmbeddingStore(tmp_path, spec_of())
    assert again.missing(hashes(["a"]), ["0"]).all()


def test_a_shard_of_an_older_version_is_compared_with_its_name(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, spec_of())
    path = fill(store, ["a"], ["0"])
    arrays = load(path.read_bytes())
    old = save(arrays, metadata={"seconds": "0.500000"})
    for damaged in (False, True):
        for shard in store.folder.glob("*.safetensors"):
            shard.unlink()
        content = bytearray(old)
        older = store.folder / f"{hashlib.sha256(old).hexdigest()}.safetensors"
        older.write_bytes(content)
        start, _ = read_header(older)["0"]["data_offsets"]
        content[8 + int.from_bytes(content[:8], "little") + start] ^= 64 * damaged
        older.write_bytes(content)
        again = EmbeddingStore(tmp_path, spec_of())
        if damaged:
            with pytest.raises(UserError, match="it is damaged and left out"):
                again.read(hashes(["a"]), ["0"])
            assert again.missing(hashes(["a"]), ["0"]).all()
        else:
            assert again.read(hashes(["a"]), ["0"])["0"][:, 0].tolist() == [10]


def test_shards_of_earlier_versions_count_no_unknown_tokens(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path, spec_of())
    values = {"0": np.ones((1, 2), np.float32)}
    counts = TokenCounts(*np.array([[7], [1], [5], [2]]))
    path = store.write([text_hash("new")], values, counts, seconds=1.0)
    arrays = load_file(path)
    arrays["tokens"] = arrays["tokens"][:, :2]
    arrays["hashes"] = np.frombuffer(text_hash("old"), np.uint8)[None].copy()
    old = save(arrays, metadata={"seconds": "1.0"})
    path.with_name(f"{hashlib.sha256(old).hexdigest()}.safetensors").write_bytes(old)
    store.refresh()
    read = store.tokens([text_hash("old"), text_hash("new")])
    assert read.seen.tolist() == [7, 7]
    assert read.unknown.tolist() == [0, 2]
    assert read.unknown_share == 2 / 5
    assert store.tokens([text_hash("old")]).unknown_share is None
