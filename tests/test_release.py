"""The package as it is released: its archives hold what it needs, and its papers agree."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import layerfusion
from layerfusion.cli import main
from layerfusion.errors import EXTRA_OF
from tests.tiny import tiny_job, tiny_texts

ROOT = Path(__file__).parents[1]
ALIEN = {"outputs", ".venv", "__pycache__", ".git"}
"""What no archive may hold."""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source archive; the wheel is built from the latter, unpacked elsewhere."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / source.name.removesuffix(".tar.gz")
    subprocess.run([*build, "-t", "wheel"], cwd=unpacked, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel, source


def test_the_source_archive_holds_the_project_and_nothing_else(
    archives: tuple[Path, Path],
) -> None:
    with tarfile.open(archives[1]) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames() if "/" in name]
    assert not [name for name in names if ALIEN & set(Path(name).parts)]
    tracked = [f"layerfusion/{path.relative_to(ROOT / 'layerfusion')}" for path in
               (ROOT / "layerfusion").rglob("*.py")]  # fmt: skip
    assert set(tracked) <= set(names)
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "Makefile"} <= set(names)


def test_the_wheel_runs_without_the_project_beside_it(
    archives: tuple[Path, Path], tmp_path: Path
) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target"]
    subprocess.run([*install, site, archives[0]], check=True, capture_output=True)

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "layerfusion", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import layerfusion; print(layerfusion.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
    assert "train" in run("--help")
    composed = run("train", "experiment=auto", "--cfg", "job")
    assert "name: auto" in composed


# -- without what trains ------------------------------------------------------------------------

WITHOUT = """
import sys
for package in {packages!r}:
    sys.modules[package] = None  # as Python has a package that is not there
"""
COMMAND = """
from layerfusion.cli import main
sys.exit(main(sys.argv[1:]))
"""
COMMANDS = """
import json
from layerfusion.cli import main
for words in json.loads(sys.argv[1]):
    assert main(words) == 0, words
"""
CALLS = """
import layerfusion as lf
words = ["a good film", "a bad plot"] * 20, ["pos", "neg"] * 20
for call in (
    lambda: lf.load_dataset(sys.argv[1]),
    lambda: lf.open_backbones("minilm"),
    lambda: lf.extract(lf.load_dataset(*words), "minilm"),
    lambda: lf.embed(words[0], "minilm"),
    lambda: lf.profile_layers(lf.load_dataset(*words), "minilm"),
    lambda: lf.select_layers(lf.load_dataset(*words), "minilm"),
    lambda: lf.train(lf.load_dataset(*words), "minilm"),
    lambda: lf.fit(words[0], words[1]),
    lambda: lf.write_report(sys.argv[1]),
    lambda: lf.plot_layers(sys.argv[1]),
    lambda: lf.LayerFusionClassifier(),
    lambda: lf.TextEmbedder().fit(words[0]).transform(words[0]),
):
    try:
        call()
    except lf.UserError as error:
        print(error)
"""


def _without_training(*words: str, code: str = COMMAND) -> subprocess.CompletedProcess[str]:
    """Run a command, or other code, where no package of the extra `train` is installed."""
    code = WITHOUT.format(packages=sorted(EXTRA_OF)) + code
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )


def test_a_classifier_is_used_where_nothing_that_trains_is_installed(
    bert_folder: Path, tmp_path: Path
) -> None:
    texts = tiny_texts(tmp_path / "texts.csv", 60)
    job = [*tiny_job(texts, bert_folder, tmp_path / "cache"), "logger=none", "lexical=[words]"]
    assert main(["train", *job, "fusion=stacked", f"hydra.run.dir={tmp_path / 'job'}"]) == 0
    full, light = (tmp_path / f"{name}.csv" for name in ("full", "light"))
    predict = ["predict", str(tmp_path / "job"), str(texts), "-o"]
    assert main([*predict, str(full)]) == 0
    export = ["export", str(tmp_path / "job"), "--output"]
    words = [
        [*predict, str(light)],
        [*export, str(tmp_path / "exported"), "--to", "transformers"],
        [*export, str(tmp_path / "onnx"), "--to", "onnx", "--int8"],
    ]
    done = _without_training(json.dumps(words), code=COMMANDS)
    assert done.returncode == 0, done.stderr
    assert light.read_text() == full.read_text()
    assert re.search("8 bits on 12 rows of .*difference of a probability", done.stdout)


@pytest.mark.parametrize("command", ["train", "plan", "search", "report", "results", "reproduce"])
def test_a_command_that_needs_more_says_what_brings_it(command: str, tmp_path: Path) -> None:
    done = _without_training(command, str(tmp_path))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.endswith("pip install 'layerfusion[train]' brings all that training needs")


def test_a_call_from_python_that_needs_more_says_what_brings_it(tmp_path: Path) -> None:
    done = _without_training(str(tiny_texts(tmp_path / "texts.csv", 60)), code=CALLS)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == CALLS.count("lambda")
    for line in lines:
        assert line.endswith("pip install 'layerfusion[train]' brings all that training needs")


def test_the_extras_are_those_of_the_messages() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = {
        name
        for package in EXTRA_OF
        for name in metadata.packages_distributions()[package]
        if name != "layerfusion"
    }
    brought = {re.split(r"[<>=\[]", one)[0] for one in extras["optional-dependencies"]["train"]}
    assert brought <= told
    always = {re.split(r"[<>=\[]", one)[0] for one in extras["dependencies"]}
    assert not told & always


def test_the_papers_name_the_version_and_the_rooms() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {layerfusion.__version__}\n" in citation
    changes = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert changes[:2] == ["Unreleased", layerfusion.__version__] or (
        changes[0] == layerfusion.__version__
    )
    rooms = re.findall(r"^\| `(\w+)/` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    folders = {path.parent.name for path in (ROOT / "layerfusion").glob("*/__init__.py")}
    assert set(rooms) == folders
