"""A small world of models, texts, a cache and finished jobs, and commands that run in it."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pandas as pd

from layerfusion.assets.staging import build_once
from layerfusion.assets.wheels import wheel_folder
from layerfusion.config.assets import SourceConfig, WheelPart
from tests.tiny import tiny_folder, tiny_texts

PRELOADED = [
    "layerfusion.commands.predict",
    "layerfusion.commands.search",
    "layerfusion.commands.hydra_jobs",
    "layerfusion.report",
    "layerfusion.report.blocks.selections",
    "layerfusion.runs.bundle_loading",
    "layerfusion.runs.job",
    "layerfusion.runs.profile",
    "layerfusion.fusion.training",
    "sklearn.linear_model",
    "sklearn.decomposition",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
]
"""Modules that every command would import first; its process is forked from one that has them."""
SECONDS = 600
"""Seconds after which a command counts as hanging, however busy the machine is."""
TIMES = ("seconds", "train_seconds", "created", "peak_memory_bytes", "head_milliseconds")
"""Facts of a record that differ whenever its job runs."""
MEASURED = ("milliseconds_per_text", "milliseconds_one", "milliseconds_batch")
"""Figures that are measured once and kept in the cache."""
MEASURED_COLUMNS = re.compile(r"ms\b|Extraction, min|Training seconds|Peak memory|Made")
"""Beginnings of the names of a report's columns whose figures differ from run to run."""
MEASURED_WORDS = re.compile(r"\b[\d.,]+(?= ms\b)")
"""Such figures in a report's sentences."""
LEFT_OUT = "layerfusion: left out: "
"""What a report says of a file that cannot be read."""
SHA = "0" * 64
SPACE = """\
name: small
trials: 3
startup: 2
warmup: 1
space:
  fusion: [concat, sum]
  trainer.learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and all that it said."""

    code: int | None
    said: str

    @property
    def mistakes(self) -> list[str]:
        """What is not right about how it ended, whatever it had to do."""
        lines = [line for line in self.said.splitlines() if line.startswith("layerfusion: ")]
        lines = [line for line in lines if not line.startswith(LEFT_OUT)]
        found = []
        if "Traceback" in self.said:
            found.append("a traceback")
        if self.code not in (0, 1, 2):
            found.append(f"exit code {self.code}")
        if self.code == 2 and len(lines) != 1:
            found.append(f"{len(lines)} lines of error")
        if self.code == 0 and lines:
            found.append("an error and exit code 0")
        return found

    def leaves_out(self, path: Path) -> bool:
        """Tell whether a report goes on without a file, and names it."""
        return f"{LEFT_OUT}{path}: " in self.said

    @property
    def noticed(self) -> bool:
        """Tell whether it said that something is damaged or has changed."""
        return any(word in self.said for word in ("damaged", "changed since", "missing", "not a"))


def context() -> ForkServerContext:
    """Return the server from which the commands' processes are forked."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    return server


def start(words: Sequence[str], said: Path, cwd: Path, **limits: int) -> ForkServerProcess:
    """Start a command in a process of its own, as `python -m layerfusion` does."""
    process = context().Process(target=_command, args=(list(words), said, cwd, limits))
    process.start()
    return process


def run(words: Sequence[str], cwd: Path, **limits: int) -> Ended:
    """Run a command to its end."""
    said = cwd / f".said-{os.getpid()}"
    process = start(words, said, cwd, **limits)
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
    return Ended(process.exitcode, said.read_text(errors="replace"))


def _command(words: list[str], said: Path, cwd: Path, limits: Mapping[str, int]) -> None:
    import resource

    from layerfusion.cli import main

    os.environ["TQDM_DISABLE"] = "1"
    os.chdir(cwd)
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(handle, stream)
    if "file_bytes" in limits:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_bytes"], limits["file_bytes"]))
    if limits.get("ordinary"):
        drop_capabilities()
    code = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def drop_capabilities() -> None:
    """Let the permissions of files bind this process, as they bind any user but root."""
    import ctypes

    head = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the structure, this process
    none = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(head, none):
        raise OSError(ctypes.get_errno(), "capset")


class World:
    """Models, texts and a cache under a folder, and the commands of its jobs.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.cache, self.out = root, root / "cache", root / "out"
        self.kept = root.parent / f"{root.name}.kept"
        self.of_first: set[Path] = set()
        """Files of the cache that the first job uses; the second uses the others."""

    def make(self) -> World:
        """Make the models and texts, but run nothing."""
        root = self.root
        root.mkdir()
        tiny_texts(root / "texts.csv", 64)
        other = tiny_texts(root / "other.csv", 70)
        frame = pd.read_csv(other)
        frame.text = frame.text.str.replace("the ", "a ")
        frame.to_csv(other, index=False)
        tiny_folder("llama", root / "llama", num_hidden_layers=2)
        source = SourceConfig(wheel=[WheelPart("packed", "1.0", SHA)])

        def build(staging: Path) -> Path:
            tiny_folder("bert", staging / "content" / "model", num_hidden_layers=2)
            return staging / "content"

        build_once(wheel_folder(source, self.cache), build)
        wheel = f"[{{wheel: [{{name: packed, version: '1.0', sha256: '{SHA}'}}]}}]"
        (root / "mine/backbone").mkdir(parents=True)
        (root / "mine/backbone/packed.yaml").write_text(f"packed:\n  sources: {wheel}\n")
        (root / "mine/search").mkdir()
        (root / "mine/search/small.yaml").write_text(SPACE)
        return self

    # -- commands ---------------------------------------------------------------------------------

    @property
    def first(self) -> list[str]:
        """The job that uses everything: a fetched model, a lexical source, scores."""
        return [
            "--config-dir=mine", "dataset=local", "dataset.path=texts.csv", "backbone=[packed]",
            "lexical=[words]", "layers=greedy", "layers.folds=2", "long_texts=auto", *self._shared,
        ]  # fmt: skip

    @property
    def second(self) -> list[str]:
        """A job with other texts and the user's own model."""
        return [
            "dataset=local", "dataset.path=other.csv", "backbone.tiny.path=llama",
            "lexical=[pairs]", "layers=top_k", "layers.k=2", "layers.folds=2", *self._shared,
        ]  # fmt: skip

    @property
    def _shared(self) -> list[str]:
        return [
            "paths.cache=cache", "paths.outputs=out", "logger=none", "seeds=1", "fusion.width=8",
            # The fastest batches are others in another run, and so are the last digits of vectors.
            "trainer.max_epochs=2", "extract.token_budget=1024",
        ]  # fmt: skip

    @property
    def commands(self) -> dict[str, list[str]]:
        """Every command by its name, in the order in which they run."""
        return {
            "extract": ["extract", *self.second],
            "profile": ["profile", *self.first],
            "profile2": ["profile", *self.second],
            "train": ["train", *self.first, "hydra.run.dir=out/job"],
            "train2": ["train", *self.second, "hydra.run.dir=out/job2"],
            "sweep": ["train", "-m", *self.second, "sweep=grid", "fusion=sum,concat"],
            "search": ["search", "--config-dir=mine", "search=small", *self.second, "layers=last"],
            "predict": ["predict", "out/job", "other.csv", "-o", "predicted.csv"],
            "predict2": ["predict", "out/job2", "other.csv", "-o", "predicted2.csv"],
            "report job": ["report", "out/job"],
            "report profile": ["report", "out/profiles"],
            "report search": ["report", "out/search/small"],
            "report sweep": ["report", "out/sweeps/grid"],
            "report": ["report", "out"],
            "status": ["status", "out/sweeps/grid"],
        }

    def run(self, command: str, *more: str, **limits: int) -> Ended:
        """Run one of the commands, with more words at its end."""
        return run([*self.commands[command], *more], self.root, **limits)

    # -- figures ----------------------------------------------------------------------------------

    def figures(self, command: str) -> Any:
        """Return what a command has found, without what differs from run to run."""
        out = self.out
        return {
            "extract": lambda: None,
            "profile": lambda: self.profile_figures("texts.csv"),
            "profile2": lambda: self.profile_figures("other.csv"),
            "train": lambda: job_figures(out / "job"),
            "train2": lambda: job_figures(out / "job2"),
            "sweep": lambda: [
                job_figures(path.parent) for path in sorted(out.glob("sweeps/*/*/metrics.json"))
            ],
            "search": lambda: search_figures(out / "search/small"),
            "predict": lambda: predicted_figures(self.root / "predicted.csv"),
            "predict2": lambda: predicted_figures(self.root / "predicted2.csv"),
            "report job": lambda: report_figures(out / "job"),
            "report profile": lambda: report_figures(out / "profiles"),
            "report search": lambda: report_figures(out / "search/small"),
            "report": lambda: None,
            "status": lambda: None,
        }[command]()

    def profile_figures(self, texts: str) -> list[dict[str, Any]]:
        """Return the figures of the profile of a file of texts."""
        found = [json.loads(x.read_text()) for x in self.out.glob("profiles/*/profile.json")]
        return [without_times(x) for x in found if x["dataset"]["origin"].endswith(texts)]

    # -- states -----------------------------------------------------------------------------------

    def keep(self) -> None:
        """Keep the present state."""
        shutil.rmtree(self.kept, ignore_errors=True)
        shutil.copytree(self.root, self.kept, symlinks=True)

    def restore(self) -> None:
        """Go back to the state that was kept."""
        for place in self.root.iterdir():
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        shutil.copytree(self.kept, self.root, symlinks=True, dirs_exist_ok=True)


def job_figures(folder: Path) -> dict[str, Any]:
    """Return the figures of a job and its predictions."""
    record = without_times(json.loads((folder / "metrics.json").read_text()))
    table = pd.read_parquet(folder / "predictions.parquet")
    prob = [[round(float(x), 5) for x in row] for row in table.prob]
    return {**record, "files": None, "prob": prob, "pred": table.pred.tolist()}


def search_figures(folder: Path) -> list[Any]:
    """Return the trials of a study that counted, once for each setting."""
    history = json.loads((folder / "search.json").read_text())
    return sorted({json.dumps([x["params"], x["value"]]) for x in history["trials"]})


def predicted_figures(path: Path) -> Any:
    """Return the rows of a table of predictions."""
    return pd.read_csv(path).round(5).to_dict("list")


def report_figures(folder: Path) -> str:
    """Return a report's words and figures, without those that are measured."""
    page = folder / "report.md"
    measured: list[bool] = []
    kept = []
    for line in page.read_text().splitlines() if page.exists() else []:
        cells = re.split(r"(?<!\\)\|", line) if line.startswith("|") else []
        if len(cells) != len(measured):  # the first line of a table, or none
            measured = [bool(MEASURED_COLUMNS.match(cell.strip())) for cell in cells]
        cells = ["" if late else cell for cell, late in zip(cells, measured, strict=True)]
        kept.append("|".join(cells) or MEASURED_WORDS.sub("…", line))
    return "\n".join(kept)


def without_times(content: Any) -> Any:
    """Leave out when and how fast something was made, and round to what is the same everywhere."""
    if isinstance(content, dict):
        left_out = {*TIMES, *MEASURED, "checksum", "head_milliseconds_batch", "versions"}
        kept = {k: v for k, v in content.items() if k not in left_out}
        return {k: without_times(v) for k, v in kept.items()}
    if isinstance(content, list):
        return [without_times(x) for x in content]
    return round(content, 5) if isinstance(content, float) else content
