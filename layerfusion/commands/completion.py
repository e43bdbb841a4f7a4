"""`layerfusion completion SHELL`: what completes the command line in bash, zsh and fish.

The script that it prints asks `layerfusion --complete LINE`, which answers with whole words, one a
line. Nothing here imports Hydra or torch, since a shell waits for the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from layerfusion.commands.arguments import ArgumentParser
from layerfusion.config.describe import GROUPS, LISTS, find_key, keys, options
from layerfusion.errors import unknown

# A word that ends in one of these goes on, so that no space is put behind it.
_BASH = """\
_layerfusion() {
  local line="${COMP_LINE:0:COMP_POINT}" word kept reply
  word="${line##* }"
  kept="${word%"${word##*[=:]}"}"
  [[ $word == [\\'\\"]* ]] && kept=""
  COMPREPLY=()
  while IFS= read -r reply; do
    COMPREPLY+=("${reply#"$kept"}")
  done < <(layerfusion --complete "$line" 2>/dev/null)
  if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != *[=./,] ]]; then
    compopt +o nospace
  fi
}
complete -o nospace -o default -F _layerfusion layerfusion
"""
_ZSH = """\
#compdef layerfusion
_layerfusion() {
  local -a found
  found=(${(f)"$(layerfusion --complete "$LBUFFER" 2>/dev/null)"})
  if (( ${#found} )); then
    compadd -Q -S '' -- ${(M)found:#*[=./,]}
    compadd -Q -- ${found:#*[=./,]}
  else
    _files
  fi
}
compdef _layerfusion layerfusion
"""
_FISH = """\
function __layerfusion
  set -l found (layerfusion --complete (commandline -cp) 2>/dev/null)
  if test (count $found) -gt 0
    printf '%s\\n' $found
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c layerfusion -f -a '(__layerfusion)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
HOW = {
    "bash": 'eval "$(layerfusion completion bash)"  in ~/.bashrc',
    "zsh": 'eval "$(layerfusion completion zsh)"  in ~/.zshrc, below compinit',
    "fish": "layerfusion completion fish > ~/.config/fish/completions/layerfusion.fish",
}
_FLAGS = ("--multirun", "--config-dir", "--cfg", "--help")
_OF_JOB = ("predict", "errors", "drift", "export", "serve")
_OF_FOLDER = ("report", "results", "status", "dashboard")
_WORDS = {
    "cache": ("ls", "verify", "compact", "gc", "export"),
    "completion": tuple(SCRIPTS),
}


def main(arguments: Sequence[str]) -> int:
    """Print the script for a shell."""
    parser = ArgumentParser(
        "layerfusion completion",
        description="Print what completes commands, groups, options, keys and job folders.",
        epilog="; ".join(HOW.values()),
    )
    parser.add_argument("shell", metavar="bash|zsh|fish")
    shell = parser.parse_args(arguments).shell
    if shell not in SCRIPTS:
        raise unknown("layerfusion completion", shell, SCRIPTS)
    print(SCRIPTS[shell], end="")
    return 0


def complete(line: str, commands: Sequence[str], composed: Sequence[str]) -> list[str]:
    """Complete the last word of a command line.

    Args:
        line: as far as the cursor, `layerfusion` included.
        commands: all commands.
        composed: those whose words are overrides.

    Returns:
        Whole words. None where files of any name fit.

    Example:
        >>> complete("layerfusion train layers=a", ["train"], ["train"])
        ['layers=adaptive', 'layers=all']
    """
    words = line.split()[1:]
    if not line.endswith((" ", "\t")) and words:
        *before, last = words
        last = last.lstrip("\"'")
    else:
        before, last = words, ""
    if not before:
        return [name for name in commands if name.startswith(last)]
    command = before[0]
    if command in composed:
        found = list(_overrides(last, before))
    elif command == "explain":
        found = [*keys(), *GROUPS, *_option_names()]
    elif command in _OF_JOB and len(before) == 1:
        found = [f"{path.parent}/" for path in sorted(Path("outputs").glob("*/*/metrics.json"))]
        found += [f"{one.parent}/" for one in sorted(Path("outputs").glob("*/*/*/metrics.json"))]
    elif command in _OF_FOLDER and len(before) == 1:
        found = [f"{path}/" for path in sorted(Path("outputs").glob("*/*")) if path.is_dir()]
    else:
        found = list(_WORDS.get(command, ())) if len(before) == 1 else []
    return sorted({word for word in found if word.startswith(last)})


def _overrides(last: str, before: Sequence[str]) -> Iterator[str]:
    """Complete an override of a job."""
    key, equals, value = last.partition("=")
    plain = key.lstrip("+~")
    if not equals:
        yield from (f"{group}=" for group in GROUPS if group not in ("search", "reproduce"))
        yield from (f"{before[0]}=" for _ in range(before[0] in ("search", "reproduce")))
        for name in keys():
            if not name.startswith(("search.", "reproduce.")) or name.startswith(before[0]):
                yield f"{name.partition('NAME')[0] if 'NAME' in name else f'{name}='}"
        yield from _of_named(last)
        yield from _FLAGS
        if not any("=" not in word and not word.startswith("-") for word in before[1:]):
            yield from (option.name for option in options("dataset"))
            yield from _files(last)
        return
    if plain in GROUPS:
        part = re.split(r"[,\[]", value)[-1]
        start = value.removesuffix(part)
        opened = "[" if plain in LISTS and not value else ""
        names = [option.name for option in options(plain) if option.name.startswith(part)]
        # The last name of a list may be followed by another; so no space may follow it.
        ends = ("]", ",") if start.startswith("[") and len(names) == 1 else ("",)
        yield from (f"{key}={opened}{start}{name}{end}" for name in names for end in ends)
        return
    known = find_key(plain)
    if known is not None and known.default in ("true", "false"):
        yield from (f"{key}={word}" for word in ("true", "false"))
    elif known is not None:
        yield from (f"{key}={word}" for word in known.allowed if "." not in word)


def _of_named(last: str) -> Iterator[str]:
    """Complete `backbone.minilm.` and the like."""
    for group in LISTS:
        if not last.startswith(f"{group}."):
            continue
        inner = [name.rpartition(".")[2] for name in keys() if name.startswith(f"{group}.NAME.")]
        for option in options(group):
            if last.startswith(f"{group}.{option.name}."):
                yield from (f"{group}.{option.name}.{key}=" for key in inner)
            else:
                yield f"{group}.{option.name}."


def _files(last: str) -> Iterator[str]:
    """Complete the path of a file or folder."""
    folder = Path(last).parent if last and not last.endswith("/") else Path(last)
    start = "" if str(folder) == "." and not last.startswith("./") else f"{folder}/"
    start = "./" if start == "./" or (last.startswith("./") and str(folder) == ".") else start
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            yield f"{start}{path.name}" + ("/" if path.is_dir() else "")


def _option_names() -> list[str]:
    return [option.name for group in GROUPS for option in options(group)]
