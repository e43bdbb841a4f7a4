from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

import pytest

from layerfusion.assets import available, resolve
from layerfusion.assets.paths import content_identity
from layerfusion.config.assets import SourceConfig
from layerfusion.errors import UserError
from tests.assets.fakes import FakeIndex, weights, wheel_source, write_model, write_wheel


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_first_source_that_can_serve_is_taken_and_logged(
    index: FakeIndex, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part = write_wheel(index.folder, "fake", {"pkg/a.csv": b"a"})
    sources = [SourceConfig(path="absent"), wheel_source(part, inside="pkg/a.csv")]
    with caplog.at_level(logging.INFO, logger="layerfusion"):
        asset = resolve(sources, key="dataset fake", kind="dataset", cache=cache)
    assert asset.source is sources[1]
    assert "dataset fake: from wheel fake==1.0" in caplog.text


def test_every_source_is_listed_where_none_serves(index: FakeIndex, cache: Path) -> None:
    index.message = "ERROR: network is unreachable"
    part = write_wheel(index.folder, "fake", {"a": b"a"})
    with pytest.raises(UserError) as error:
        resolve(
            [SourceConfig(path="absent"), wheel_source(part)], key="k", kind="dataset", cache=cache
        )
    message = one_line(error)
    assert message.startswith("k: no source can serve: path absent: not found in")
    assert "LAYERFUSION_DATA" in message
    assert "network is unreachable" in message


@pytest.mark.parametrize("source", [SourceConfig(), SourceConfig(path="a", hub="b/c")])
def test_a_source_is_of_exactly_one_kind(cache: Path, source: SourceConfig) -> None:
    with pytest.raises(UserError, match="exactly one of path, wheel, hub"):
        resolve([source], key="k", kind="dataset", cache=cache)


def test_no_sources_at_all(cache: Path) -> None:
    with pytest.raises(UserError, match=r"k: no source is given; k\.path may name"):
        resolve([], key="k", kind="dataset", cache=cache)


# -- paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["backbone", "dataset"])
def test_paths_are_looked_for_in_the_folders_of_the_environment(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    write_model(tmp_path / "second" / "thing")
    variable = {"backbone": "LAYERFUSION_MODELS", "dataset": "LAYERFUSION_DATA"}[kind]
    monkeypatch.setenv(variable, f"{tmp_path / 'first'}{os.pathsep}{tmp_path / 'second'}")
    source = SourceConfig(path="thing")
    asset = resolve([source], key="k", kind=kind, cache=cache)  # type: ignore[arg-type]
    assert asset.path == tmp_path / "second" / "thing"
    assert asset.origin == "path thing"
    assert available([source], key="backbone.mine", kind=kind, cache=cache) == asset  # type: ignore[arg-type]


def test_working_folder_goes_first_and_absolute_paths_stay(tmp_path: Path, cache: Path) -> None:
    here = write_model(Path.cwd() / "thing")
    for path in ("thing", str(here)):
        asset = resolve([SourceConfig(path=path)], key="k", kind="backbone", cache=cache)
        assert asset.path == here


def test_identity_follows_content_not_place_or_other_files(tmp_path: Path, cache: Path) -> None:
    one, other = write_model(tmp_path / "one"), write_model(tmp_path / "other")
    (other / "README.md").write_text("more")
    before = content_identity(one, cache)
    assert content_identity(other, cache) == before
    (other / "tokenizer.json").write_text('{"a": 1}')
    assert content_identity(other, cache) != before


def test_identity_is_remembered_until_the_file_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model(tmp_path / "one")
    file = folder / "model.safetensors"
    before = content_identity(folder, cache)
    state = file.stat()
    with monkeypatch.context() as patched:
        patched.delattr(hashlib, "file_digest")  # nothing is hashed again
        assert content_identity(folder, cache) == before
    file.write_bytes(bytes(state.st_size))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # as archives of a fixed time do
    changed = content_identity(folder, cache)
    assert changed != before
    other = write_model(tmp_path / "other") / "model.safetensors"
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    other.replace(file)
    assert content_identity(folder, cache) == before


def test_broken_memory_is_only_a_memory(tmp_path: Path, cache: Path) -> None:
    folder = write_model(tmp_path / "one")
    before = content_identity(folder, cache)
    memory = cache / "assets" / "hashes.json"
    memory.write_text('{"cut o')
    assert content_identity(folder, cache) == before
    memory.unlink()
    memory.mkdir()  # which cannot be written either
    assert content_identity(folder, cache) == before


# -- models -------------------------------------------------------------------------------------


def model_error(folder: Path, cache: Path) -> str:
    with pytest.raises(UserError) as error:
        resolve([SourceConfig(path=str(folder))], key="backbone.x", kind="backbone", cache=cache)
    message = one_line(error)
    assert str(folder) in message
    return message


def test_folder_without_config(tmp_path: Path, cache: Path) -> None:
    folder = write_model(tmp_path / "m", config_json=None)
    assert "has no config.json; it holds model.safetensors" in model_error(folder, cache)


def test_folder_without_weights(tmp_path: Path, cache: Path) -> None:
    folder = write_model(tmp_path / "m", model_safetensors=None)
    assert "has no model.safetensors" in model_error(folder, cache)


def test_folder_with_pickled_weights_only(tmp_path: Path, cache: Path) -> None:
    folder = write_model(tmp_path / "m", model_safetensors=None)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    message = model_error(folder, cache)
    assert "pickled weights only (pytorch_model.bin)" in message


def test_folder_that_lacks_a_shard(tmp_path: Path, cache: Path) -> None:
    folder = write_model(tmp_path / "m", model_safetensors=None)
    shards = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / shards["a"]).write_bytes(weights())
    assert "lacks model-2-of-2.safetensors" in model_error(folder, cache)
    (folder / shards["b"]).write_bytes(weights())
    source = SourceConfig(path=str(folder))
    assert resolve([source], key="k", kind="backbone", cache=cache).path == folder


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_of_git_lfs_is_no_file(tmp_path: Path, cache: Path, name: str) -> None:
    folder = write_model(tmp_path / "m")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90000000\n"
    (folder / name).write_text(pointer)
    assert f"{name} is a pointer of Git LFS" in model_error(folder, cache)


def test_weights_at_every_length_but_their_own_are_refused(tmp_path: Path, cache: Path) -> None:
    folder, whole = write_model(tmp_path / "m"), weights(5)
    for length in range(len(whole)):
        (folder / "model.safetensors").write_bytes(whole[:length])
        assert "model.safetensors is damaged or cut off" in model_error(folder, cache)
    (folder / "model.safetensors").write_bytes(whole + b"x")
    assert "it has 74 bytes, and its header asks for 73" in model_error(folder, cache)


@pytest.mark.parametrize(
    ("name", "enough"),
    [("vocab.txt", True), ("tekken.vocab", True), ("tokenizer_config.json", False)],
)
def test_a_model_needs_a_tokenizer(tmp_path: Path, cache: Path, name: str, enough: bool) -> None:
    folder = write_model(tmp_path / "m", tokenizer_json=None)
    (folder / name).write_text("{}")
    if enough:
        source = SourceConfig(path=str(folder))
        assert resolve([source], key="k", kind="backbone", cache=cache).path == folder
        return
    assert "has no tokenizer (no tokenizer.json, vocab.txt or the like)" in model_error(
        folder, cache
    )


def test_file_that_is_no_model(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"pickle")
    assert "pickle" in model_error(file, cache)


def test_several_gguf_files_must_be_told_apart(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    for name in ("a.gguf", "b.gguf"):
        (folder / name).write_bytes(b"x")
    assert "a.gguf, b.gguf" in model_error(folder, cache)


def test_folder_with_a_gguf_is_converted_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "x.gguf").write_bytes(b"x")
    converted: list[Path] = []

    def convert(gguf_file: Path, ready: Path) -> None:
        converted.append(gguf_file)
        write_model(ready)

    monkeypatch.setattr("layerfusion.assets.gguf._convert", convert)
    source = SourceConfig(path=str(folder))
    assert available([source], key="backbone.mine", kind="backbone", cache=cache) is None
    first = resolve([source], key="k", kind="backbone", cache=cache)
    assert resolve([source], key="k", kind="backbone", cache=cache) == first
    assert available([source], key="backbone.mine", kind="backbone", cache=cache) == first
    assert converted == [folder / "x.gguf"]
    assert first.path.parent == cache / "assets"


def test_unreadable_gguf_is_one_line_and_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"no gguf")
    assert "cannot be read" in model_error(file, cache)
    assert not [path for path in (cache / "assets").iterdir() if path.is_dir()]
