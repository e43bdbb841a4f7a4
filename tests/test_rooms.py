"""The order of the rooms: each imports only rooms to its left."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import layerfusion

PACKAGE = Path(layerfusion.__file__).parent
ROOMS = (
    "errors",
    "calls",
    "progress",
    "config",
    "assets",
    "texts",
    "embeddings",
    "statistics",
    "layers",
    "fusion",
    "records",
    "findings",
    "report",
    "tracking",
    "runs",
    "export",
    "serving",
    "published",
    "composing",
    "commands",
    "estimators",
    "cli",
)
"""From left to right, as the data flows."""
MOST_MENTIONS = 6
"""Lines outside of its room that may name the published protocol."""
REPORT_READS = {
    "errors",
    "calls",
    "progress",
    "config",
    "assets",
    "statistics",
    "records",
    "findings",
    "report",
}
"""Rooms that the report may import: it needs what jobs left, not what made it."""


def imports_of(path: Path) -> Iterator[str]:
    """The modules of LayerFusion that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def rooms_used(room: str) -> dict[str, str]:
    """Room to a file of `room` that imports it."""
    place = PACKAGE / room
    files = sorted(place.rglob("*.py")) if place.is_dir() else [PACKAGE / f"{room}.py"]
    return {
        module.split(".")[1]: str(path.relative_to(PACKAGE))
        for path in files
        for module in imports_of(path)
        if module.startswith("layerfusion.")
    }


def test_the_package_has_these_rooms_and_nothing_loose() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert found - {"__pycache__", "conf"} == {*ROOMS, "__init__", "__main__"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_to_its_left(room: str) -> None:
    behind = {
        used: file
        for used, file in rooms_used(room).items()
        if used in ROOMS and ROOMS.index(used) > ROOMS.index(room)
    }
    assert not behind


def imports_when_run(path: Path) -> set[str]:
    """The modules of LayerFusion that a file imports, without those for the types alone."""
    tree = ast.parse(path.read_text())
    typed = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    return {
        module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node not in typed and node.module
        for module in (node.module, *(f"{node.module}.{name.name}" for name in node.names))
    }


def test_no_two_files_import_each_other() -> None:
    files = {
        ".".join(("layerfusion", *path.relative_to(PACKAGE).with_suffix("").parts)): path
        for path in PACKAGE.rglob("*.py")
        if path.stem not in ("__init__", "__main__")
    }
    used = {name: imports_when_run(path) & set(files) for name, path in files.items()}
    assert len(used) > 200
    assert not [(a, b) for a in used for b in used[a] if a < b and a in used[b]]


def test_the_report_reads_records_and_statistics_only() -> None:
    assert set(rooms_used("report")) <= REPORT_READS


def test_the_published_protocol_is_a_client_that_few_lines_name() -> None:
    mentions = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] != "published"
        for line in path.read_text().splitlines()
        if "published" in line.lower()
    ]
    assert len(mentions) <= MOST_MENTIONS, mentions


def names_no_encoding(call: ast.Call) -> bool:
    """Whether a call reads or writes text in whatever encoding the machine has."""
    path = ast.unparse(call.func).split(".")
    attribute = path[-1] if len(path) > 1 else ""
    named = {keyword.arg for keyword in call.keywords}
    if attribute in ("read_text", "write_text"):
        return "encoding" not in named and len(call.args) < 1 + (attribute == "write_text")
    if path[-1] != "open":
        return False
    modes = [one.value for one in call.args if isinstance(one, ast.Constant)]
    binary = any(isinstance(mode, str) and "b" in mode for mode in modes)
    other = path[0] in ("os", "webbrowser", "opened")  # no file, or one of an archive
    return not other and not binary and "encoding" not in named


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_files_are_in_utf_8_on_every_machine(path: Path) -> None:
    calls = [x for x in ast.walk(ast.parse(path.read_text())) if isinstance(x, ast.Call)]
    assert [call.lineno for call in calls if names_no_encoding(call)] == []
