"""Writes docs/settings.md from the configs: every group, option and key with its meaning."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from layerfusion.config.describe import GROUPS, LISTS, Key, default_option, keys, options

PAGE = Path(__file__).parents[1] / "settings.md"
INTRODUCTION = """\
# Settings

Every option and key, with its default. This page is made from the files in `conf/` and from the
classes that check them (`make docs`), so it is what the program does. `layerfusion explain KEY`
says the same in the shell.

On the command line an option is `GROUP=NAME`, and a key is `KEY=VALUE`: `layers=adaptive
layers.max_layers=4`. The groups `backbone`, `pooling` and `lexical` take lists,
`'backbone=[minilm,smollm2]'`, and their keys stand under the name of an option: what is
`backbone.NAME.dtype` here is `backbone.minilm.dtype=bfloat16` there. `null` means that a key is not
set. In a sweep (`-m`), `KEY=A,B` runs both.
"""


def page() -> str:
    """Return the whole page as Markdown."""
    found = keys()
    alone = [key for name, key in found.items() if "." not in name]
    parts = [INTRODUCTION, "## A job as a whole\n", *_keys(alone)]
    parts += ["## limit: seeded samples, for a quick look\n"]
    parts += _keys(key for name, key in found.items() if name.startswith("limit."))
    for group, meaning in GROUPS.items():
        parts.append(f"## {group}: {meaning}\n")
        parts += _options(group)
        parts += _keys(key for name, key in found.items() if name.startswith(f"{group}."))
    parts += ["## profile: the scores of `layerfusion profile`\n"]
    parts += _keys(key for name, key in found.items() if name.startswith("profile."))
    return "\n".join(parts)


def _options(group: str) -> list[str]:
    """Return the table of a group's options; the default ones are set off."""
    found = options(group)
    if not found:
        return []
    chosen = default_option(group).strip("[]").split(",")
    rows = [
        f"| {'**' if one.name in chosen else ''}`{one.name}`{'**' if one.name in chosen else ''}"
        f" | {_cell(one.meaning)} |"
        for one in found
    ]
    listed = "list of options" if group in LISTS else "option"
    return [f"| {listed} (default: bold) | what it is |", "|---|---|", *rows, ""]


def _keys(found: Iterable[Key]) -> list[str]:
    """Return a table of keys, or nothing where there is none."""
    rows = [
        f"| `{key.name}` | {f'`{_cell(key.default)}`' if key.default else ''}"
        f" | {_cell(key.meaning + _rule(key))} |"
        for key in found
    ]
    return ["| key | default | meaning |", "|---|---|---|", *rows, ""] if rows else []


def _rule(key: Key) -> str:
    """Say what values a key takes, where its meaning does not say so already."""
    listed = key.default.startswith("[")
    named = [value for value in key.allowed if " " not in value]  # others are said in words
    if any(value not in key.meaning for value in named):
        values = ", ".join(f"`{value}`" for value in named)
        return f" {'Each is one' if listed else 'One'} of {values}."
    said = key.must.removeprefix("be ").removeprefix("lie ") in key.meaning
    return f" {'Each' if listed else 'It'} must {key.must}." if key.must and not said else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
