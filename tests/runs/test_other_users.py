"""What one user has made, another one uses: places that may not be read, masks, shared caches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfusion.assets.files import write_atomically
from layerfusion.assets.staging import build_once, write_new_folder
from layerfusion.cli import main
from tests.tiny import tiny_folder, tiny_job, tiny_texts
from tests.trust.world import Ended, run

REPOSITORY = Path(__file__).parents[2]


def ran(place: Path, *words: str) -> Ended:
    """Run a command to which the permissions of files apply, as they do to any user but root."""
    return run(words, place, ordinary=True)


@pytest.fixture(scope="module")
def job() -> Iterator[tuple[Path, Path]]:
    """A copy of a job and of its model, and the folder of the one who made them, now closed."""
    with tempfile.TemporaryDirectory() as folder:
        theirs, mine = Path(folder, "theirs"), Path(folder, "mine")
        theirs.mkdir()
        tiny_folder("bert", theirs / "bert")
        data = tiny_texts(theirs / "texts.csv", 60)
        words = [*tiny_job(data, theirs / "bert", theirs / "cache"), "logger=none", "layers=last",
                 f"hydra.run.dir={theirs}/job"]  # fmt: skip
        assert main(["train", *words]) == 0
        mine.mkdir()
        shutil.copytree(theirs / "job", mine / "job")
        shutil.copytree(theirs / "bert", mine / "bert")
        shutil.copy(data, mine)
        shutil.copytree(theirs / "job", mine / "closed/job")
        shutil.copytree(theirs / "cache", mine / "read_only")
        places = [mine / "closed/job", mine / "read_only"]
        every = [path for place in places for path in (place, *place.rglob("*"))]
        for path in every:
            path.chmod(0o555 if path.is_dir() else 0o444)
        theirs.chmod(0)
        yield mine, theirs
        for path in [theirs, *every]:
            path.chmod(0o755)


def test_the_makers_own_folders_are_not_needed(job: tuple[Path, Path]) -> None:
    mine, theirs = job
    model = ["--model", "tiny=bert"]
    for words in (["predict", "job", "texts.csv", "-o", "out.csv"], ["drift", "job", "texts.csv"]):
        done = ran(mine, *words, *model)
        assert done.code == 0, done.said
    done = ran(mine, "errors", "job", "--train", *model)
    assert (done.code, done.said.count("\n")) == (2, 1)
    assert f"{theirs}: Permission denied" not in done.said


def test_a_folder_of_a_job_that_may_not_be_written_is_one_line(job: tuple[Path, Path]) -> None:
    mine, _ = job
    words = [*tiny_job(mine / "texts.csv", mine / "bert", mine / "read_only"), "logger=none"]
    done = ran(mine, "train", *words, "hydra.run.dir=closed/job")
    assert done.code == 2
    assert done.said.splitlines()[-1] == (
        f"layerfusion: {mine}/closed/job/train.log: Permission denied"
    )
    assert "Traceback" not in done.said
    assert "choose another folder" in ran(mine, "report", "closed/job").said


def test_a_cache_that_may_only_be_read_serves_what_it_holds(job: tuple[Path, Path]) -> None:
    mine, _ = job
    words = [*tiny_job(mine / "texts.csv", mine / "bert", mine / "read_only"), "logger=none"]
    done = ran(mine, "train", *words, "layers=last", "hydra.run.dir=again")
    assert done.code == 0, done.said
    done = ran(mine, "train", *words, "pooling=max", "hydra.run.dir=other")
    assert done.code == 2
    assert "it cannot be written: Permission denied; choose another folder" in done.said


@pytest.mark.parametrize(("mask", "of_file", "of_folder"), [(0o077, 0o600, 0o700),
                                                            (0o002, 0o664, 0o775)])  # fmt: skip
def test_the_users_mask_is_kept(mask: int, of_file: int, of_folder: int, tmp_path: Path) -> None:
    def build(folder: Path) -> Path:
        (folder / "in").mkdir()
        (folder / "in/weights").touch(0o600)  # as safetensors writes them
        return folder

    def fill(folder: Path) -> None:
        build(folder)

    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", b"text")
        write_new_folder(tmp_path / "export", fill)
        build_once(tmp_path / "model", build)
    finally:
        os.umask(before)
    files = ["file", "export/in/weights", "model/in/weights", ".model.files.json"]
    for names, wanted in ((files, of_file), (["export", "model", "model/in"], of_folder)):
        for name in names:
            assert (tmp_path / name).stat().st_mode & 0o777 == wanted, name


def test_no_folder_for_temporary_files_is_needed(tmp_path: Path) -> None:
    code = (
        "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/none']\n"
        "from layerfusion.cli import main; assert main(['-V']) == 0\n"
        "assert tempfile.gettempdir() != '/none'"
    )
    environment = {**os.environ, "HOME": str(tmp_path / "none"), "PYTHONPATH": str(REPOSITORY)}
    environment.pop("XDG_CONFIG_HOME", None)
    environment.pop("MPLCONFIGDIR", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
