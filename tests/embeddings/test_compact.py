from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from layerfusion.cli import main
from layerfusion.embeddings.compact import LOCK, compact
from layerfusion.embeddings.inspect import verify_stores
from layerfusion.embeddings.shards import open_shard, read_header
from layerfusion.embeddings.store import EmbeddingStore
from layerfusion.errors import UserError
from tests.embeddings.test_store import fill, hashes, spec_of

ROOT = Path(__file__).parents[2]


def names(count: int, first: int = 0) -> list[str]:
    return ["x" * n for n in range(first + 1, first + count + 1)]


def filled(root: Path, shards: int, rows: int = 3) -> tuple[EmbeddingStore, list[str]]:
    """A store of many shards, and its texts."""
    store = EmbeddingStore(root / "embeddings", spec_of())
    for number in range(shards):
        fill(store, names(rows, rows * number), ["0", "1"])
    return store, names(rows * shards)


def facts(store: EmbeddingStore, texts: list[str]) -> tuple[object, ...]:
    """All that a store says of texts."""
    found = store.read(hashes(texts), ["0", "1"])
    return (
        len(store),
        [found[layer].tolist() for layer in ("0", "1")],
        store.tokens(hashes(texts)).seen.tolist(),
        [store.seconds_per_text(hashes([text]), "1") for text in texts[::7]],
        store.bytes_per_text(["0", "1"]),
    )


def never() -> None:
    raise AssertionError("texts are computed again")


def test_a_store_says_the_same_after_its_shards_were_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, texts = filled(tmp_path, 20)
    store.write(  # of other seconds, and of one more layer
        hashes(["y"]), {x: np.ones((1, 2)) for x in "012"}, store.tokens(hashes(["x"])), seconds=9.0
    )
    before = facts(store, texts)
    size = sum(path.stat().st_size for path in store.folder.glob("*.safetensors"))
    assert main(["cache", "compact", str(tmp_path)]) == 0
    after = sum(path.stat().st_size for path in store.folder.glob("*.safetensors"))
    line = f"21 shards, {size / 1e6:.1f} MB -> 2 shards, {after / 1e6:.1f} MB"
    assert capsys.readouterr().out.splitlines() == [line]
    again = EmbeddingStore(tmp_path / "embeddings", spec_of())
    assert facts(again, texts) == before
    assert again.seconds_per_text(hashes(["y"]), "2") == 9.0
    assert verify_stores(tmp_path, delete=False) == 0
    left = again.shards
    compact(store.folder)
    assert EmbeddingStore(tmp_path / "embeddings", spec_of()).shards == left
    fill(again, ["y" * 100], ["0", "1"])
    assert compact(store.folder).shards == (3, 2)  # a merged shard takes up later ones
    assert facts(EmbeddingStore(tmp_path / "embeddings", spec_of()), texts)[1:] == before[1:]


def test_large_shards_are_left_as_they_are(tmp_path: Path) -> None:
    store, texts = filled(tmp_path, 20)
    size = next(store.folder.glob("*.safetensors")).stat().st_size
    before = facts(store, texts)
    assert compact(store.folder, merged_bytes=7 * size).shards[1] < 10
    large = [path for path in store.folder.glob("*.safetensors") if 2 * path.stat().st_size > size]
    assert compact(store.folder, merged_bytes=size).shards[0] == len(large)
    assert set(store.folder.glob("*.safetensors")) == set(large)
    assert facts(EmbeddingStore(tmp_path / "embeddings", spec_of()), texts) == before


def test_who_opened_the_store_before_finds_everything_after(tmp_path: Path) -> None:
    store, texts = filled(tmp_path, 6)
    reader = EmbeddingStore(tmp_path / "embeddings", spec_of())
    reader.refill = never
    before = facts(store, texts)
    compact(store.folder)
    assert facts(reader, texts) == before
    fill(store, ["new" * 50], ["0", "1"])  # by a writer that does not know of it either
    assert not store.missing(hashes([*texts, "new" * 50]), ["0", "1"]).any()


def test_others_read_and_write_while_shards_are_merged(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 5)
    failed: list[Exception] = []
    store.refill = never

    def work() -> None:
        try:
            for number in range(5, 45):
                fill(store, names(3, 3 * number), ["0", "1"])
                known = names(3 * number + 3)
                found = store.read(hashes(known), ["1"])["1"]
                assert found[:, 0].tolist() == [1 + 10 * len(text) for text in known]
        except Exception as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        compact(store.folder)
    thread.join()
    assert not failed
    compact(store.folder)
    again = EmbeddingStore(tmp_path / "embeddings", spec_of())
    assert len(again) == 135
    assert len(again.shards) == 1


def test_a_kill_after_writing_loses_nothing_and_repeats_go_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, texts = filled(tmp_path, 6)
    before = facts(store, texts)
    right = Path.unlink

    def killed(path: Path, **rest: bool) -> None:
        if path.suffix == ".safetensors":
            raise KeyboardInterrupt
        right(path, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            compact(store.folder)
    assert len(list(store.folder.glob("*.safetensors"))) == 7
    between = EmbeddingStore(tmp_path / "embeddings", spec_of())
    assert facts(between, texts)[:4] == before[:4]
    assert compact(store.folder).shards == (7, 1)
    assert facts(EmbeddingStore(tmp_path / "embeddings", spec_of()), texts) == before


def test_no_good_shard_is_removed_for_a_damaged_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, texts = filled(tmp_path, 2)
    before = facts(store, texts)
    good = {path: path.read_bytes() for path in store.folder.glob("*.safetensors")}
    compact(store.folder)
    (merged,) = store.folder.glob("*.safetensors")
    for path, content in good.items():
        path.write_bytes(content)
    merged.write_bytes(merged.read_bytes()[:-1] + b"?")
    compact(store.folder)
    again = EmbeddingStore(tmp_path / "embeddings", spec_of())
    again.refill = never
    assert facts(again, texts)[1] == before[1]


@pytest.mark.parametrize("by_verify", [False, True])
def test_of_a_damaged_merged_shard_the_other_parts_are_kept(
    tmp_path: Path, by_verify: bool
) -> None:
    store, texts = filled(tmp_path, 5)
    compact(store.folder)
    (merged,) = store.folder.glob("*.safetensors")
    shard, of_rows = open_shard(merged)
    lost = [of_rows[row].tobytes() for row in range(shard.ends[1], shard.ends[2])]
    content = bytearray(merged.read_bytes())
    start, stop = read_header(merged)["0"]["data_offsets"]
    row = (stop - start) // 15
    content[8 + int.from_bytes(content[:8], "little") + start + row * shard.ends[1]] ^= 1
    merged.write_bytes(content)
    reader = EmbeddingStore(tmp_path / "embeddings", spec_of())
    kept = [text for text in hashes(texts) if text not in lost]
    assert reader.read(kept, ["0"])["0"].shape == (12, 2)  # the damage is elsewhere
    if by_verify:
        assert verify_stores(tmp_path, delete=True) == 0
    else:
        with pytest.raises(UserError, match="it is damaged and left out"):
            reader.read(hashes(texts), ["0"])
    again = EmbeddingStore(tmp_path / "embeddings", spec_of())
    assert sorted(h for h in hashes(texts) if again.missing([h], ["0"])[0]) == sorted(lost)
    assert verify_stores(tmp_path, delete=False) == 0


def test_a_damaged_shard_is_left_out_and_told(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 4)
    damaged = sorted(store.folder.glob("*.safetensors"))[1]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    said = str(compact(store.folder))
    assert "4 shards" in said
    assert "-> 2 shards" in said  # the merged one and it
    assert said.endswith("; 1 damaged, left as they are: layerfusion cache verify")
    assert damaged.exists()


def test_one_process_at_a_time_compacts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, _ = filled(tmp_path, 2)
    with FileLock(store.folder / LOCK):
        assert main(["cache", "compact", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "another process is compacting it" in line
    assert main(["cache", "compact", str(tmp_path / "none")]) == 2
    assert "no embeddings are cached there" in capsys.readouterr().err


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    store, texts = filled(tmp_path, 40)
    before = facts(store, texts)
    size = next(store.folder.glob("*.safetensors")).stat().st_size
    code = (
        "import sys; from pathlib import Path; from layerfusion.embeddings.compact import compact\n"
        "print('ready', flush=True)\n"
        f"while True: compact(Path(sys.argv[1]), merged_bytes={4 * size})"
    )
    for _ in range(2):
        words = [sys.executable, "-c", code, str(store.folder)]
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, env=dict(os.environ))
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(np.random.default_rng().uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        found = EmbeddingStore(tmp_path / "embeddings", spec_of())
        found.refill = never
        assert facts(found, texts)[:4] == before[:4]
    compact(store.folder)
    assert verify_stores(tmp_path, delete=False) == 0
    assert facts(EmbeddingStore(tmp_path / "embeddings", spec_of()), texts) == before
