"""`--help` of the commands that Hydra composes, and `layerfusion explain`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from layerfusion.cli import COMMANDS, COMPOSED, main
from layerfusion.commands.guesses import with_data
from layerfusion.commands.help import ABOUT, explained, help_lines
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.describe import GROUPS, glossary, keys, options
from layerfusion.errors import UserError
from tests.test_docs import single

HEAVY = {"torch", "hydra", "omegaconf", "numpy", "pandas", "transformers", "lightning", "optuna"}
BLOCKED = [*sorted(HEAVY - {"numpy"}), "wandb", "sklearn", "fastapi", "httpx"]
READERS = "layerfusion.texts.dataset"
"""Takes as long to import as all that a help page needs."""


@pytest.mark.parametrize("command", COMPOSED)
def test_help_lists_each_option_of_each_group(command: str) -> None:
    said = "\n".join(help_lines(command))
    for group in ABOUT[command].groups:
        assert f"\n{group}: {GROUPS[group]}" in said
        for option in options(group):
            assert f"\n  {option.name}" in said
    assert all(f"\n  {key}" in said for key in ABOUT[command].keys)
    assert max(map(len, said.splitlines())) <= 100


def test_options_of_the_user_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers/middle.yaml").write_text(
        "# The one in the middle of each model.\nname: x\n"
    )
    assert main(["train", "--config-dir", str(tmp_path), "--help"]) == 0
    assert (
        "  middle                The one in the middle of each model\n" in capsys.readouterr().out
    )


@pytest.mark.parametrize("words", [["train", "--help"], ["search", "-h"], ["explain", "mass"],
                                   ["reproduce", "--help"], ["--complete", "layerfusion train la"],
                                   ["completion", "bash"]])  # fmt: skip
def test_help_is_fast_since_it_imports_nothing_heavy(words: list[str]) -> None:
    code = f"import sys, layerfusion.cli as c; c.main({words!r}); print('loaded', *sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(ran.stdout.rpartition("loaded")[2].split()) & HEAVY


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_without_any_extra(command: str) -> None:
    code = (
        f"import sys; sys.modules |= dict.fromkeys({[*BLOCKED, READERS]!r})\n"
        f"import layerfusion.cli as c; sys.exit(c.main([{command!r}, '--help']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"layerfusion {command}" in ran.stdout
    if command in ("predict", "report", "export", "pull"):
        assert " -o" in ran.stdout  # one option says where what they write goes


def test_the_examples_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"a film that is number {n},{n % 2}\n" for n in range(30))
    Path("reviews.csv").write_text(f"review,stars\n{rows}")
    Path("mine").mkdir()
    Path("mine/config.json").write_text("{}")
    composed = 0
    for command, about in ABOUT.items():
        for words, _ in about.examples:
            words = [word.strip("'") for word in words.split()]
            if command == "reproduce":
                continue
            words = with_data(command, words)
            jobs = [word for word in words if not word.startswith("search.")]
            load(compose("profile" if command == "profile" else "train", single(jobs)))
            composed += 1
    assert composed >= 15


@pytest.mark.parametrize("name", keys())
def test_every_key_is_explained(name: str) -> None:
    first, *others = explained(name)
    assert first.startswith(f"{name}: a key (default: ")
    assert any(line.startswith("  example: layerfusion ") for line in others)


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_and_option_is_explained(group: str) -> None:
    assert explained(group)[0].startswith(f"{group}: a group of options")
    for option in options(group):
        said = explained(f"{group}={option.name}")
        assert said[0].startswith(f"{group}={option.name}: an option")
        assert said[0] in explained(option.name)


@pytest.mark.parametrize("word", glossary())
def test_every_word_of_the_glossary_is_explained(word: str) -> None:
    assert f"{word}: a word of the glossary" in explained(word)


def test_keys_of_hydra_that_the_documentation_uses_are_explained() -> None:
    assert explained("hydra.run.dir=outputs/x")[0] == "hydra.run.dir: a key of Hydra"
    assert "joblib" in " ".join(explained("hydra/launcher"))


def test_the_last_part_of_a_key_and_a_plural_are_enough() -> None:
    assert explained("mass") == explained("layers.mass")
    assert explained("gates") == explained("gate")
    assert explained("backbone.minilm.dtype") == explained("backbone.NAME.dtype")


@pytest.mark.parametrize(
    ("word", "meant"), [("layers.mas", "layers.mass"), ("adaptve", "adaptive")]
)
def test_a_word_that_is_none_names_the_nearest(word: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"there is no '{word}'.*did you mean.* {meant}"):
        explained(word)


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["trian"], "train"), (["train", "layers.mas=1"], "mass"), (["train", "layers=adaptve"],
     "adaptive"), (["train", "sms_spam", "fusion=gatd"], "gated")],
)  # fmt: skip
def test_a_misspelt_word_names_the_nearest(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.endswith(f"; did you mean {meant}?\n")
    assert len(said.splitlines()) == 1


def test_every_composed_command_has_help() -> None:
    assert set(COMPOSED) == set(ABOUT)
    assert set(COMPOSED) < set(COMMANDS)
