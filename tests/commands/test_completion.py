"""Completion, typed into a real shell where there is one."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from layerfusion.cli import COMMANDS, COMPOSED, main
from layerfusion.commands.completion import SCRIPTS, complete


def _complete(line: str) -> list[str]:
    return complete(line, [*COMMANDS], COMPOSED)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("layerfusion tr", ["train"]),
        ("layerfusion train layers=a", ["layers=adaptive", "layers=all"]),
        ("layerfusion train layers.mas", ["layers.mass="]),
        (
            "layerfusion train backbone=[minilm,sm",
            ["backbone=[minilm,smollm2,", "backbone=[minilm,smollm2]"],
        ),
        (
            "layerfusion train 'backbone=[minilm,sm",
            ["backbone=[minilm,smollm2,", "backbone=[minilm,smollm2]"],
        ),
        ("layerfusion train backbone=mini", ["backbone=minilm"]),
        ("layerfusion train backbone.mini", ["backbone.minilm."]),
        ("layerfusion train backbone.minilm.dty", ["backbone.minilm.dtype="]),
        ("layerfusion train backbone.minilm.dtype=b", ["backbone.minilm.dtype=bfloat16"]),
        ("layerfusion train dataset.dedupe=t", ["dataset.dedupe=true"]),
        ("layerfusion train sms", ["sms_spam"]),
        ("layerfusion train reviews.csv sms", []),
        ("layerfusion train rev", ["reviews.csv"]),
        ("layerfusion train ./rev", ["./reviews.csv"]),
        ("layerfusion train dat/", ["dat/a.csv"]),
        ("layerfusion search search.tr", ["search.trials="]),
        ("layerfusion train search.tr", []),
        ("layerfusion predict outputs/runs/", ["outputs/runs/job/"]),
        ("layerfusion export outputs/runs/", ["outputs/runs/job/"]),
        ("layerfusion serve outputs/sw", ["outputs/sweeps/s/job/"]),
        ("layerfusion report outputs/sw", ["outputs/sweeps/s/"]),
        ("layerfusion cache v", ["verify"]),
        ("layerfusion explain layers.mas", ["layers.mass"]),
        ("layerfusion predict outputs/runs/job ", []),
    ],
)
def test_the_last_word_is_completed(
    line: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reviews.csv").touch()
    Path("dat").mkdir()
    Path("dat/a.csv").touch()
    for job in ("runs/job", "sweeps/s/job"):
        Path(f"outputs/{job}").mkdir(parents=True)
        Path(f"outputs/{job}/metrics.json").touch()
    assert _complete(line) == found


def test_no_group_and_no_command_is_left_out() -> None:
    assert _complete("layerfusion ") == [*COMMANDS]
    some = {"layers=", "fusion=", "seeds=", "limit.train=", "--multirun"}
    assert some < {*_complete("layerfusion train ")}


@pytest.fixture
def shell_folder(tmp_path: Path) -> Path:
    """A folder with a `layerfusion` that is this one."""
    program = tmp_path / "bin/layerfusion"
    program.parent.mkdir()
    root = Path(__file__).parents[2]
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(root)!r})\n"
        "from layerfusion.cli import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    return tmp_path


def _typed(shell: list[str], folder: Path, keys: str, until: str) -> str:
    """Type into a shell at a terminal, and return what the terminal shows."""
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "TERM": "dumb"}
    environment |= {"PS1": "$ ", "INPUTRC": "/dev/null", "HOME": str(folder)}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        shell, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    shown = ""
    try:
        os.write(ours, keys.encode())
        end = time.monotonic() + 30
        while until not in shown and time.monotonic() < end:
            if select.select([ours], [], [], 0.2)[0]:
                shown += os.read(ours, 10_000).decode(errors="replace").replace("\a", "")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
    return shown


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(layerfusion completion bash)"'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -Uz compinit; compinit -u; eval "$(layerfusion completion zsh)"',
    ),
    "fish": (["fish", "--no-config", "-i"], "layerfusion completion fish | source"),
}
"""How a shell is started without the files of the user, and told of the completion."""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("layerfusion tra\t", "layerfusion train "),
        ("layerfusion train layers=adap\t", "layerfusion train layers=adaptive "),
        ("layerfusion train 'backbone=[minilm,smol\t]'", "'backbone=[minilm,smollm2]'"),
        ('layerfusion train "layers=adap\t', '"layers=adaptive'),
        ("layerfusion train layers.mas\t0.5", "mass=0.5"),
        ("layerfusion train revi\tlayers=la\t", "layers=last "),
        ("layerfusion predict job/pre\t", "job/predictions.parquet"),  # as the shell does itself
    ],
)
def test_a_shell_completes_what_is_typed(
    shell: str, typed: str, becomes: str, shell_folder: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (shell_folder / "reviews.csv").touch()
    (shell_folder / "job").mkdir()
    (shell_folder / "job/predictions.parquet").touch()
    command, begin = SHELLS[shell]
    shown = _typed(command, shell_folder, f"{begin}\n{typed}", becomes)
    assert becomes in shown


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_script_of_another_shell_can_be_read_by_it(
    shell: str, shell_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert script == SCRIPTS[shell]
    assert script.count("layerfusion --complete") == 1
    if shutil.which(shell):
        (shell_folder / "script").write_text(script)
        subprocess.run([shell, "-n", str(shell_folder / "script")], check=True)


def test_a_shell_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "there is no 'tcsh'; there are: bash, zsh, fish" in capsys.readouterr().err
