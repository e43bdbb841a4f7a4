"""Builds the site: `python docs/site/build.py` writes outputs/site, and fails on a dead link.

The same pages are read in the repository, where links go to files. Here they go to pages of the
site, or to a copy of the file under `files/`. So every page is copied with its links rewritten, and
Sphinx builds the copy.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import main as sphinx

ROOT = Path(__file__).parents[2]
SITE = ROOT / "outputs/site"
SOURCE = ROOT / "outputs/site-source"
RENAMED = {
    "README.md": "index.md",
    "docs/README.md": "pages.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages that have another name on the site."""
SECTIONS = {
    "Start": ("tutorial", "faq", "glossary", "pages"),
    "Use it": (
        "add_a_data_set", "add_a_model", "python", "predict", "deploy", "dashboards", "sweeps",
        "settings",
    ),
    "Choose": ("layer_selection", "fusion"),
    "Understand": (
        "how_it_works", "method", "results", "as_published", "performance", "scaling",
    ),
    "Extend": ("extend", "contributing", "changelog"),
}  # fmt: skip
"""The contents at the side of every page. A page that is in none of them is an error of Sphinx."""
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)((?:#[^)\s]*)?)\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def build(source: Path = SOURCE, site: Path = SITE) -> int:
    """Copy the pages and let Sphinx make the site of them.

    Args:
        source: folder for the copies; removed first.
        site: folder of the site; removed first.

    Returns:
        Sphinx's exit status: not 0 if a link leads nowhere or a page is missing from the contents.
    """
    for folder in (source, site):
        shutil.rmtree(folder, ignore_errors=True)
    for place in (*RENAMED, *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))):
        to = source / _name(place)
        to.parent.mkdir(parents=True, exist_ok=True)
        parts = _FENCE.split((ROOT / place).read_text("utf-8"))
        parts[::2] = [_moved(part, place, source) for part in parts[::2]]
        parts[1::2] = [part.replace("```math", "```{math}") for part in parts[1::2]]
        to.write_text("".join(parts) + (_contents() if to.name == "index.md" else ""), "utf-8")
    here = str(Path(__file__).parent)
    return sphinx(["-q", "-W", "--keep-going", "-b", "html", "-c", here, str(source), str(site)])


def _moved(text: str, page: str, source: Path) -> str:
    """Let the links of a page lead to where their targets are on the site."""

    def moved(match: re.Match[str]) -> str:
        picture, words, link, anchor = match.groups()
        target = os.path.normpath(os.path.join(os.path.dirname(page), link))
        if "://" in link or link.startswith("mailto:"):
            return match[0]
        if (ROOT / target).is_dir():  # a site does not list folders
            return words
        name = _name(target)
        if not target.endswith(".md") and (ROOT / target).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / target, source / name)
        return f"{picture}[{words}]({name}{anchor})"

    return _LINK.sub(moved, text)


def _name(target: str) -> str:
    """Return where a file of the repository is on the site."""
    if target in RENAMED:
        return RENAMED[target]
    return target.removeprefix("docs/") if target.startswith("docs/") else f"files/{target}"


def _contents() -> str:
    parts = []
    for title, pages in SECTIONS.items():
        lines = "\n".join(pages)
        parts.append(f"\n```{{toctree}}\n:caption: {title}\n:hidden:\n\n{lines}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    status = build()
    print(SITE / "index.html")
    sys.exit(status)
