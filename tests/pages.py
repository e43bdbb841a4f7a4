"""The fenced blocks of the documentation, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+\.(?:yaml|py))\n")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that a reader is to write it to: its first line, as a comment."""
        match = _FILE.match(self.text)
        return match[1] if match else None


@dataclass(frozen=True)
class Command:
    """A command as written, and the lines that the page says it prints."""

    line: str
    says: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line, comments=True)


def name(page: Path) -> str:
    """What a page is called: its path from the root, without its ending."""
    return page.relative_to(ROOT).with_suffix("").as_posix()


def blocks(page: Path) -> list[Block]:
    return [Block(*match) for match in _FENCE.findall(page.read_text())]


def commands(block: Block) -> list[Command]:
    """The commands of a block; in a `console` block those after `$`, each with what it prints."""
    text = block.text.replace("\\\n", " ")
    if block.language != "console":
        return [Command(line) for line in text.splitlines() if shlex.split(line, comments=True)]
    found: list[Command] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:]))
        else:
            found[-1] = Command(found[-1].line, (*found[-1].says, line))
    return found


def inline_commands(page: Path) -> list[Command]:
    """Commands in the running text, those with placeholders left out."""
    prose = re.sub(r"<!--.*?-->", "", _FENCE.sub("", page.read_text()), flags=re.DOTALL)
    spans = re.findall(r"(?<!`)`((?:layerfusion|make|python -m) [^`]+)`", prose)
    lines = [" ".join(span.split()) for span in spans]
    return [Command(line) for line in lines if not re.search(r"…|\b[A-Z]{3,}\b(?!=)", line)]
