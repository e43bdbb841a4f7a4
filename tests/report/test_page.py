from __future__ import annotations

import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from layerfusion.cli import main
from layerfusion.errors import UserError
from layerfusion.report.contents import Report
from layerfusion.report.page import write_report
from layerfusion.report.table import Table
from tests.report.conftest import BREAKING, HOSTILE
from tests.report.fabricate import dataset, write_job

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Checks that every element is closed in order, and gathers what a test asks about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.captions: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def source(written: Path) -> str:
    return (written / "out" / "report.html").read_text()


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def tables(report: Report) -> list[Table]:
    return list(report.tables.values())


def test_every_element_is_closed_in_order(page: Page) -> None:
    assert page.open == []
    assert page.tags.count("main") == 1


def test_ids_are_distinct_and_references_resolve(page: Page, source: str) -> None:
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = {value[1:] for _, name, value in page.attributes if name == "href" and value[0] == "#"}
    used |= set(re.findall(r"url\(#([^)]+)\)", source))
    assert used <= set(ids)


def test_nothing_is_requested_from_anywhere(page: Page, source: str) -> None:
    assert "http" not in source
    values = "".join(value for _, _, value in page.attributes if value[:5] != "data:")
    assert "//" not in re.sub(r"</?\w+>", "", values)
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert not {"src", "srcset"} & {name for _, name, _ in page.attributes}
    assert "@import" not in source
    links = [value for _, name, value in page.attributes if name == "href"]
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in links)


def test_one_of_a_kind_is_not_many(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(rows=40, overlap=1), [("minilm", "6")], 0.7, 0.7, seeds=1)
    write_report(tmp_path, tmp_path / "out", title="t")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "1 test row also occurs in train" in text
    assert "1 of 7 layers was run alone." in text


def test_figures_are_told_with_the_signs_of_the_tables(report: Report) -> None:
    told = [figure.alt for figure in report.figures]
    assert any("−" in alt for alt in told)
    assert not [alt for alt in told if re.search(r"(?<!\w)-\d", alt)]


def test_texts_from_configs_are_escaped(page: Page, source: str, written: Path) -> None:
    assert HOSTILE not in source
    assert HOSTILE in "".join(page.text)
    assert "<b>note</b>" in "".join(page.text)
    assert BREAKING in "".join(page.text)
    assert not {"img", "iframe", "object"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert not [value for _, _, value in page.attributes if "javascript:" in value]
    markdown = (written / "out" / "report.md").read_text()
    assert "<script" not in markdown.replace("\\<script", "")


def test_sample_is_said_before_any_result(source: str) -> None:
    card = source[source.index('id="summary"') :]
    assert "60 of 900 test rows" in card
    assert card.index("60 of 900") < card.index("<h3>")


def test_both_pages_show_every_table(report: Report, page: Page, written: Path) -> None:
    markdown = (written / "out" / "report.md").read_text().replace("\\", "")
    assert page.tags.count("table") == len(tables(report)) > 10
    rows = page.tags.count("tr")
    assert rows == sum(len(table.rows) + 1 for table in tables(report))
    for table in tables(report):
        assert f"**{table.title}**" in markdown
        assert all(len(row.cells) == len(table.columns) for row in table.rows)
    assert sum(line.startswith("| ") for line in markdown.splitlines()) == rows + len(
        tables(report)
    )


def test_figures_are_images_that_both_pages_show(report: Report, page: Page, written: Path) -> None:
    figures = report.figures
    assert page.tags.count("svg") == 2 * len(figures)
    keys = sorted(figure.key for figure in figures)
    folder = written / "out" / "figures"
    for ending, begins in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        files = sorted(folder.glob(f"*{ending}"))
        assert [file.stem for file in files] == keys
        assert all(file.read_bytes().startswith(begins) for file in files)
    assert len(list(folder.iterdir())) == 2 * len(keys)
    markdown = (written / "out" / "report.md").read_text()
    for file in sorted(folder.glob("*.png")):
        assert file.stat().st_size > 5000
        assert f"(figures/{file.name})" in markdown


def test_gated_fusions_have_gate_figures_and_others_do_not(report: Report) -> None:
    gates = [figure.key for figure in report.figures if "-gates-" in figure.key]
    assert gates == [f"reviews-gates-{number}" for number in range(1, 6)]


def test_same_jobs_elsewhere_give_the_same_files(tmp_path: Path) -> None:
    data = dataset(rows=40)
    for layer in ("3", "5"):
        write_job(tmp_path / "a", data, [("minilm", layer)], 0.7, 0.7, seeds=2)
    write_job(tmp_path / "a", data, [("minilm", "3"), ("minilm", "5")], 0.7, 0.7, seeds=2)
    for number, folder in enumerate(sorted((tmp_path / "a").iterdir(), reverse=True)):
        shutil.copytree(folder, tmp_path / "b" / f"{number}" / "deep")
    first = write_report(tmp_path / "a", tmp_path / "one", title="t").parent
    second = write_report(tmp_path / "b", tmp_path / "two", title="t").parent
    files = sorted(path.relative_to(first) for path in first.rglob("*.*"))
    assert {"report.html", "figures/toy-layers.pdf", "tables/toy-models.tex"} <= set(
        map(str, files)
    )
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


def test_no_finished_job_is_an_error_of_one_line(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no finished job") as error:
            write_report(folder, tmp_path / "out", title="t")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_name_of_a_folder_need_be_no_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write_job(tmp_path / "jobs/runs", dataset(rows=40), [("minilm", "6")], 0.7, 0.7, seeds=1)
    (tmp_path / "jobs").rename(folder)
    assert main(["report", str(folder)]) == 0
    assert "caf?" in (folder / "report.html").read_text()


def test_a_link_to_itself_holds_no_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for folders in (["loop"], ["loop", "other"]):
        assert main(["report", *(str(tmp_path / name) for name in folders)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        assert "loop: " in said


@pytest.mark.parametrize("kinds", ["single", "fused"])
def test_one_job_alone_makes_a_report(tmp_path: Path, kinds: str) -> None:
    sources = [("minilm", "6")] + ([("minilm", "5")] if kinds == "fused" else [])
    write_job(tmp_path / "runs", dataset(rows=40), sources, 0.7, 0.7, seeds=1)
    text = write_report(tmp_path / "runs", tmp_path, title="t").read_text()
    assert Page(text).open == []
    assert ("No layer was run alone" in text) == (kinds == "fused")
