"""`layerfusion cache gc` and `export`: what goes, what stays, and what a file holds."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layerfusion.cli import main
from layerfusion.embeddings.collect import bytes_in, days_in, export_store, remove_store
from layerfusion.embeddings.compact import compact
from layerfusion.embeddings.shards import open_shard
from layerfusion.embeddings.store import EmbeddingStore
from layerfusion.embeddings.usage import USED, hold, last_used, names_of, note_name
from layerfusion.errors import UserError
from tests.embeddings.test_store import fill, hashes, spec_of
from tests.tiny import run

ROOT = Path(__file__).parents[2]


def _stores(cache: Path, days: list[float]) -> list[Path]:
    """A store for each number of days since it was used last."""
    folders = []
    for number, age in enumerate(days):
        store = EmbeddingStore(cache / "embeddings", spec_of(max_length=16 + number))
        fill(store, ["a", "bb", "ccc"], ["0", "1"])
        note_name(store.folder, f"model{number}")
        folders.append(store.folder)
        then = time.time() - 86400 * age
        del store
        os.utime(folders[-1] / USED, (then, then))
    gc.collect()
    return folders


def _left(cache: Path) -> set[Path]:
    return {*(cache / "embeddings").iterdir()}


def test_nothing_goes_unless_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = _stores(tmp_path, [40, 1])
    assert main(["cache", "gc", str(tmp_path), "--unused", "30d"]) == 0
    said = capsys.readouterr().out
    assert f"{old.name} " in said
    assert new.name not in said
    assert said.endswith("would be removed; --delete removes them\n")
    assert _left(tmp_path) == {old, new}
    assert main(["cache", "gc", str(tmp_path), "--unused", "30d", "--delete"]) == 0
    assert _left(tmp_path) == {new}


def test_those_used_longest_ago_go_until_the_rest_is_small_enough(tmp_path: Path) -> None:
    first, second, third = _stores(tmp_path, [3, 9, 5])
    size = sum(path.stat().st_size for path in first.iterdir())
    words = ["cache", "gc", str(tmp_path), "--delete", "--most"]
    assert main([*words, str(2 * size + 50)]) == 0
    assert _left(tmp_path) == {first, third}
    assert main([*words, "1GB"]) == 0
    assert _left(tmp_path) == {first, third}
    assert not second.exists()


@pytest.mark.parametrize("by_name", [True, False])
def test_a_store_goes_by_its_hash_or_the_name_of_its_model(tmp_path: Path, by_name: bool) -> None:
    one, other = _stores(tmp_path, [0, 0])
    spec = "model0" if by_name else one.name[:6]
    assert main(["cache", "gc", str(tmp_path), "--spec", spec, "--delete"]) == 0
    assert _left(tmp_path) == {other}


def test_a_store_that_a_process_has_open_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [folder] = _stores(tmp_path, [90])
    code = (
        "import sys; from pathlib import Path; from layerfusion.embeddings.usage import hold\n"
        "class User: pass\nuser = User(); hold(Path(sys.argv[1]), user)\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert job.stdout is not None
    assert job.stdin is not None
    assert job.stdout.readline() == "open\n"
    words = ["cache", "gc", str(tmp_path), "--spec", "model0", "--delete"]
    assert main(words) == 0
    assert "in use, kept\n0 stores, 0.0 MB removed" in capsys.readouterr().out
    assert len(EmbeddingStore(folder.parent, spec_of(max_length=16))) == 3
    gc.collect()
    job.stdin.close()
    job.wait()
    job.stdout.close()
    assert main(words) == 0
    assert not folder.exists()


def test_what_is_no_store_survives_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [folder] = _stores(tmp_path / "cache", [90])
    root = folder.parent
    elsewhere = tmp_path / "elsewhere"
    for place in (root / "mine", root / "0123456789abcdef", elsewhere, folder):
        place.mkdir(exist_ok=True)
        (place / "notes.txt").write_text("mine")
    (elsewhere / "store.json").write_text("{}")
    (root / "fedcba9876543210").symlink_to(elsewhere)
    cache = str(tmp_path / "cache")
    for words in (["ls"], ["verify", "--delete"], ["compact"], ["gc", "--most", "0", "--delete"]):
        assert main(["cache", words[0], cache, *words[1:]]) == 0
        said = capsys.readouterr()
        assert not re.search("mine|0123456789|fedcba", said.out + said.err)
    for words in (["gc", cache, "--spec", "mine"], ["export", "mine", "x.npy", "--cache", cache]):
        code, error = run(["cache", *words], capsys)
        assert (code, "there is no 'mine'; there are: none" in error) == (2, True)
    for place in (root / "mine", root / "fedcba9876543210", elsewhere):
        with pytest.raises(UserError, match="it is no store of embeddings"):
            remove_store(place)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    stores = ("mine", "0123456789abcdef", folder.name)
    notes = {f"cache/embeddings/{name}/notes.txt" for name in stores}
    assert left == {*notes, "elsewhere/notes.txt", "elsewhere/store.json"}


def test_a_store_whose_description_is_lost_is_still_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [folder] = _stores(tmp_path, [0])
    (folder / "store.json").unlink()
    assert main(["cache", "ls", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(folder.name)
    assert main(["cache", "gc", str(tmp_path), "--most", "0", "--delete"]) == 0
    assert _left(tmp_path) == set()


def test_an_export_looks_again_for_what_is_merged_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [folder] = _stores(tmp_path, [0])
    fill(EmbeddingStore(folder.parent, spec_of(max_length=16)), ["dddd"], ["0", "1"])
    first = iter([True])

    def open_late(path: Path) -> object:
        if next(first, False):
            compact(folder)
        return open_shard(path)

    monkeypatch.setattr("layerfusion.embeddings.collect.open_shard", open_late)
    assert export_store(tmp_path, folder.name, tmp_path / "x.npy", []) == 4


def test_a_store_is_free_once_its_last_user_is_gone(tmp_path: Path) -> None:
    first = EmbeddingStore(tmp_path, spec_of())
    second = EmbeddingStore(tmp_path, spec_of())
    folder = first.folder
    assert not remove_store(folder)
    del first
    gc.collect()
    assert not remove_store(folder)
    del second
    gc.collect()
    assert remove_store(folder)
    assert len(EmbeddingStore(tmp_path, spec_of())) == 0


def test_opening_a_store_is_what_counts_as_use(tmp_path: Path) -> None:
    [folder] = _stores(tmp_path, [50])
    assert time.time() - last_used(folder) > 49 * 86400
    EmbeddingStore(folder.parent, spec_of(max_length=16))
    assert time.time() - last_used(folder) < 3600
    assert names_of(folder) == ["model0"]
    (folder / USED).unlink()  # a store of an older version
    assert time.time() - last_used(folder) < 3600
    assert names_of(folder) == []


def test_a_cache_that_nobody_may_write_is_still_read(tmp_path: Path) -> None:
    class User:
        pass

    (tmp_path / USED).mkdir()  # nothing can be locked there
    hold(tmp_path, User())
    note_name(tmp_path, "minilm")
    assert names_of(tmp_path) == []


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
@pytest.mark.parametrize("layers", [None, "1"])
def test_an_export_holds_the_vectors_of_the_store(
    tmp_path: Path, suffix: str, layers: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    [folder] = _stores(tmp_path, [0])
    out = tmp_path / f"out{suffix}"
    words = ["cache", "export", folder.name[:8], str(out), "--cache", str(tmp_path)]
    assert main([*words, *(["--layers", layers] if layers else [])]) == 0
    assert capsys.readouterr().out == f"3 texts: {out}\n"
    wanted = [layers] if layers else ["0", "1"]
    store = EmbeddingStore(folder.parent, spec_of(max_length=16))
    texts = sorted(hashes(["a", "bb", "ccc"]))
    expected = store.read(texts, wanted)
    if suffix == ".parquet":
        frame = pd.read_parquet(out)
        assert list(frame) == ["text", *wanted]
        assert list(frame.text) == [text.hex() for text in texts]
        found = {layer: np.array(frame[layer].tolist()) for layer in wanted}
    else:
        array = np.load(out)
        assert array.shape == (3, len(wanted), 2)
        found = {layer: array[:, place] for place, layer in enumerate(wanted)}
        lines = (tmp_path / "out.npy.texts.txt").read_text().split()
        assert lines == [text.hex() for text in texts]
    for layer in wanted:
        np.testing.assert_array_equal(found[layer], expected[layer])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gc", "CACHE"], "say which stores, by --unused 30d, --most 10GB or --spec SPEC"),
        (["gc", "CACHE", "--most", "much"], "--most much: a size is needed, such as 500MB"),
        (["gc", "CACHE", "--unused", "-1"], "--unused"),
        (["gc", "CACHE", "--unused", "soon"], "--unused soon: a time is needed, such as 30d"),
        (["gc", "CACHE", "--spec", "nope"], "--spec: there is no 'nope'; there are: "),
        (["export", "STORE"], "cache export: STORE and OUT are needed"),
        (["export", "zz", "x.npy", "--cache", "CACHE"], "store: there is no 'zz'; there are: "),
        (["export", "STORE", "x.csv", "--cache", "CACHE"], "suffix: there is no '.csv'; there are"),
        (["export", "STORE", "x.npy", "--cache", "CACHE", "--layers", "9"], "there is no '9'; there"
         " are: 0, 1"),
        (["export", "", "x.npy", "--cache", "CACHE"], "FOLDER: an empty word"),
        (["ls", "CACHE", "--delete"], "cache ls: --delete is an option of verify and gc"),
        (["gc", "CACHE", "--layers", "0"], "cache gc: --layers is an option of export"),
        (["export", "STORE", "x.npy", "--most", "1"], "cache export: --most is an option of gc"),
        (["ls", "a", "b"], "cache ls: one folder is needed, found"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, other = _stores(tmp_path / "cache", [0, 0])
    places = {"CACHE": "cache", "STORE": folder.name}
    code, error = run(["cache", *(places.get(word, word) for word in words)], capsys)
    assert (code, len(error.splitlines())) == (2, 1)
    assert says in error
    assert _left(tmp_path / "cache") == {folder, other}


@pytest.mark.parametrize(
    "words", [["verify", "--repair", "CACHE"], ["gc", "--most", "1GB", "CACHE"]]
)
def test_a_folder_may_stand_after_the_options(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _stores(tmp_path / "CACHE", [0])
    assert main(["cache", *words]) == 0


def test_sizes_and_times() -> None:
    assert [bytes_in(x) for x in ("10", "1.5kB", "2MB", "3G")] == [10, 1500, 2_000_000, 3 * 10**9]
    assert [days_in(x) for x in ("30", "30d", "12h", "2w")] == [30, 30, 0.5, 14]
