"""The page as people see it: in Chromium, on a phone, on a desk, in the dark and on paper."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Playwright, sync_playwright

PHONE, DESK = 360, 1280
WIDTHS = (PHONE, 600, 900, DESK)
NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Opened:
    """A page and everything that it complained about or asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        path = _executable(driver)
        if path is None:
            pytest.skip(
                "no Chromium: install it (apt-get install chromium) or run `playwright"
                " install chromium`"
            )
        # Root, which containers run as, has no sandbox.
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def _executable(driver: Playwright) -> str | None:
    installed = [shutil.which(name) for name in NAMES] + [driver.chromium.executable_path]
    return next((path for path in installed if path and Path(path).exists()), None)


def _open(browser: Browser, report: Path, width: int, **options: object) -> Opened:
    context = browser.new_context(viewport={"width": width, "height": 800}, **options)  # type: ignore[arg-type]
    opened = Opened(context.new_page())
    opened.page.on("console", lambda message: opened.complaints.append(message.text))
    opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.page.goto(report.as_uri())
    return opened


@pytest.fixture(scope="module")
def source(written: Path) -> Path:
    return written / "out" / "report.html"


@pytest.fixture(scope="module", params=WIDTHS)
def opened(browser: Browser, source: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    opened = _open(browser, source, request.param)
    yield opened
    opened.page.context.close()


@pytest.fixture
def desk(browser: Browser, source: Path) -> Iterator[Page]:
    page = _open(browser, source, DESK).page
    yield page
    page.context.close()


def test_it_complains_of_nothing_and_asks_for_nothing(opened: Opened, source: Path) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert opened.complaints == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {source.as_uri()}


def test_the_page_does_not_scroll_sideways(opened: Opened) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    widest, room = opened.page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert widest <= room
    # What is wider than the page scrolls in a box of its own.
    outside = opened.page.evaluate(
        """[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, svg'))
           .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"""
    )
    assert outside == []


def test_no_heading_of_a_table_is_broken_into_a_word_a_line(opened: Opened) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    seen, high = opened.page.evaluate(
        """() => {
          const all = [...document.querySelectorAll("thead th")].filter(h => h.textContent.trim());
          const lines = head => {
            const range = document.createRange();
            range.selectNodeContents(document.createTreeWalker(head, 4).nextNode());  // its text
            const tops = [...range.getClientRects()].map(box => Math.round(box.bottom));
            return new Set(tops).size;
          };
          return [all.length, all.filter(h => lines(h) > 2).map(h => h.textContent)];
        }"""
    )
    assert seen > 20
    assert high == []


def test_no_label_of_a_figure_covers_another_or_leaves_it(opened: Opened) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    seen, faults = opened.page.evaluate(
        """() => {
          let seen = 0;
          const faults = [];
          for (const svg of document.querySelectorAll("figure svg")) {
            if (!svg.getClientRects().length) continue;
            const all = svg.getBoundingClientRect(), room = 3;
            const labels = [...svg.querySelectorAll("text")].filter((x) => x.textContent.trim());
            const boxes = labels.map((x) => [x.textContent.trim(), x.getBoundingClientRect()]);
            seen += boxes.length;
            boxes.forEach(([words, a], n) => {
              if (a.left < all.left - room || a.right > all.right + room
                  || a.top < all.top - room || a.bottom > all.bottom + room) faults.push([words]);
              for (const [others, b] of boxes.slice(n + 1)) {
                const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                const lower = Math.min(a.height, b.height);
                if (wide > 2 && high > 0.35 * lower) faults.push([words, others]);
              }
            });
          }
          return [seen, faults];
        }"""
    )
    assert seen > 20
    assert faults == []


def test_every_figure_is_there_once_and_has_size(opened: Opened) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    sizes = opened.page.evaluate(
        """[...document.querySelectorAll('figure')].map(f => [...f.querySelectorAll('svg')]
           .map(s => s.getBoundingClientRect()).filter(b => b.width > 0)
           .map(b => [b.width, b.height]))"""
    )
    assert len(sizes) > 5
    for shown in sizes:
        ((width, height),) = shown
        assert min(width, height) > 100


@pytest.mark.parametrize("how", ["click", "keyboard"])
def test_a_table_sorts(desk: Page, how: str) -> None:
    table = desk.locator("section[id^=data-] > .scroll table.named").first
    place = [text.split("%")[0] for text in table.locator("thead th").all_inner_texts()].index(
        "Test "
    )
    head = table.locator("thead th").nth(place)
    button = head.locator("button")

    def column() -> list[str]:
        return table.locator(f"tbody td:nth-child({place + 1})").all_inner_texts()

    def press() -> None:
        if how == "click":
            button.click()
        else:
            button.focus()
            desk.keyboard.press("Enter")

    at_first = column()
    numbers = sorted(float(cell.split()[0]) for cell in at_first)
    assert numbers != [float(cell.split()[0]) for cell in at_first]
    press()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(cell.split()[0]) for cell in column()] == numbers
    press()
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(cell.split()[0]) for cell in column()] == numbers[::-1]
    press()
    assert head.get_attribute("aria-sort") is None
    assert column() == at_first


def test_signs_intervals_times_and_gaps_sort_as_numbers(browser: Browser, source: Path) -> None:
    numbers = {"1,234": 1234, "−1.2 [−2.0, +0.1]": -1.2, "+0.5 ▲": 0.5, "12.0 s": 12, "2 min": 120}
    script = source.read_text().split("<script>")[1].split("</script>")[0]
    cells = [f"<td data-order={number}>{text}</td>" for text, number in numbers.items()]
    cells = ["<td>–</td>", *cells, "<td>norm</td>"]
    rows = "".join(f"<tr>{cell}</tr>" for cell in cells)
    context = browser.new_context()
    page = context.new_page()
    page.set_content(
        f"<table><thead><tr><th class=number>x</th></tr></thead><tbody>{rows}</tbody></table>"
        f"<script>{script}</script>"
    )
    ordered = sorted(numbers, key=lambda text: numbers[text])
    page.click("button")
    assert page.locator("td").all_inner_texts() == [*ordered, "–", "norm"]
    page.click("button")
    assert page.locator("td").all_inner_texts() == [*ordered[::-1], "–", "norm"]
    context.close()


def _points(page: Page, source: Path) -> list[tuple[float, float, str]]:
    """Return where the first figure has points, on the screen, and what each should say."""
    text = source.read_text()
    start = text.index('<section id="data-')
    svg = text[text.index("<svg", start) : text.index("</svg>", start)]
    tips = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="8"><title>(.*?)</title>', svg)
    places = Counter(tip[:2] for tip in tips)
    (wide,) = re.findall(r'viewBox="0 0 ([\d.]+) ', svg)
    figure = page.locator("section[id^=data-] figure .wide svg").first
    figure.scroll_into_view_if_needed()
    box = figure.bounding_box()
    assert box is not None
    scale = box["width"] / float(wide)
    alone = [tip for tip in tips if places[tip[:2]] == 1]
    assert len(alone) >= 2
    return [(box["x"] + scale * float(x), box["y"] + scale * float(y), w) for x, y, w in alone]


def test_the_nearest_point_says_what_it_is(desk: Page, source: Path) -> None:
    for x, y, words in _points(desk, source):
        desk.mouse.move(x, y)
        assert desk.locator(".tip").inner_text() == words
        assert re.search(r", layer \w+: [\d.]+ % \[[\d.]+, [\d.]+\]$", words)
    desk.mouse.move(0, 0)
    assert not desk.locator(".tip").is_visible()


@pytest.mark.parametrize("how", ["click", "keyboard"])
def test_the_name_of_a_curve_mutes_it(desk: Page, how: str) -> None:
    name = desk.locator("section[id^=data-] figure .wide svg [role=button]").first
    key = name.get_attribute("data-series")
    muted = desk.locator("svg .muted-series")

    def press() -> None:
        if how == "click":
            name.click()
        else:
            name.focus()
            desk.keyboard.press("Enter")

    press()
    assert name.get_attribute("aria-pressed") == "true"
    assert muted.count() >= 3  # its band, its line and its name
    assert {one.get_attribute("data-series") for one in muted.all()} == {key}
    press()
    assert muted.count() == 0


def test_a_long_table_is_filtered(desk: Page) -> None:
    desk.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    box = desk.locator("input.filter").first
    rows = box.locator("xpath=following-sibling::*[1]").locator("tbody tr")
    first = rows.first.locator("td").first.inner_text()
    box.fill(first)
    shown = [row for row in rows.all() if row.is_visible()]
    assert 0 < len(shown) < rows.count()
    assert all(first.lower() in row.inner_text().lower() for row in shown)
    box.fill("")
    assert all(row.is_visible() for row in rows.all())


def test_tables_and_figures_are_saved(desk: Page, tmp_path: Path) -> None:
    def saved(button: Locator) -> bytes:
        with desk.expect_download() as download:
            button.click()
        download.value.save_as(tmp_path / download.value.suggested_filename)
        return (tmp_path / download.value.suggested_filename).read_bytes()

    figure = desk.locator("section[id^=data-] > figure").first
    svg = saved(figure.get_by_text("SVG", exact=True)).decode()
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in svg
    picture = Image.open(io.BytesIO(saved(figure.get_by_text("PNG", exact=True))))
    assert min(picture.size) > 300
    assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20
    table = desk.locator("section[id^=data-] > .scroll").first
    content = saved(table.locator("xpath=following-sibling::p[1]").get_by_text("CSV"))
    lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))
    assert [line[0] for line in lines[1:]] == table.locator("td:first-child").all_inner_texts()
    assert not [cell for line in lines for cell in line if re.match("[=@\u2212]", cell)]
    numbers = [cell for line in lines[1:] for cell in line if re.match(r"-?\d", cell)]
    assert any(cell.startswith("-") for cell in numbers)
    assert len(numbers) > len(lines)


def test_a_table_that_is_too_wide_folds_what_is_not_needed_at_first(
    browser: Browser, source: Path
) -> None:
    page = _open(browser, source, PHONE).page
    table = page.locator(".scroll", has=page.locator("table.named [data-later]")).first
    button = table.locator("xpath=following-sibling::p[1]").locator(".columns")
    heads = table.locator("thead th")
    titles = heads.all_text_contents()

    def shown() -> list[str]:
        return [head.text_content() or "" for head in heads.all() if head.is_visible()]

    few = shown()
    assert few == [title for title in titles if title in few]
    assert few[1:] == ["Test %", "Against chosen layer, points"]
    folded = ", ".join(title for title in titles if title not in few)
    assert button.text_content() == f"more columns: {folded}"
    button.click()
    assert shown() == titles
    button.click()
    assert shown() == few
    page.emulate_media(media="print")
    assert shown() == titles
    page.emulate_media(media="screen")
    page.set_viewport_size({"width": 1600, "height": 800})
    heads.last.wait_for()
    assert shown() == titles
    assert not button.is_visible()
    page.context.close()


def test_a_phone_shows_the_main_table_without_scrolling(browser: Browser, source: Path) -> None:
    """What, its accuracy with interval and its gain, for each row."""
    page = _open(browser, source, 390).page
    table = page.locator("section[id^=data-] > .scroll table.named").first
    for row in table.locator("tr").all():
        cells = row.locator("th, td").all()
        what, accuracy, gain = (cells[n].bounding_box() for n in (0, 2, 3))
        assert what is not None
        assert accuracy is not None
        assert gain is not None
        assert what["y"] + what["height"] <= accuracy["y"] + 1  # a line of its own above them
        assert what["width"] > 300
        for box in (what, accuracy, gain):
            assert 0 <= box["x"] < box["x"] + box["width"] <= 390
    assert table.evaluate("t => t.parentElement.scrollWidth <= t.parentElement.clientWidth")
    texts = table.locator("tbody td.number").evaluate_all(
        "all => all.filter(td => td.checkVisibility()).map(td => td.textContent)"
    )
    assert sum("[" in text for text in texts) >= 5
    page.context.close()


@pytest.mark.parametrize("more", [False, True])
def test_no_table_scrolls_on_a_phone(browser: Browser, source: Path, more: bool) -> None:
    """What has more columns than fit is a block a row, in which each figure has its heading."""
    page = _open(browser, source, PHONE).page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.wait_for_timeout(100)  # the tables fold after they have a size
    if more:
        page.evaluate("document.querySelectorAll('.columns:not([hidden])').forEach(b => b.click())")
    wide, headings = page.evaluate(
        """() => {
          const all = [...document.querySelectorAll(".scroll")];
          const figures = all.flatMap((x) => x.matches(".stacked") ? [...x.querySelectorAll("td")] : []);
          const shown = figures.filter((td) => td.checkVisibility() && td.cellIndex);
          const before = (td) => getComputedStyle(td, "::before").content.slice(1, -1);
          const own = (td) => td.closest("table").tHead.rows[0].cells[td.cellIndex].textContent;
          return [all.filter((x) => x.scrollWidth > x.clientWidth + 1).map((x) => x.ariaLabel),
                  shown.map((td) => [before(td), own(td)])];
        }"""  # noqa: E501
    )
    assert wide == []
    assert len(headings) > 20
    assert all(before == own for before, own in headings)
    page.context.close()


def test_a_table_is_filtered_on_a_phone(browser: Browser, source: Path) -> None:
    page = _open(browser, source, PHONE).page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for box in page.locator("input.filter").all():
        box.fill("no row has these words")
        rows = box.locator("xpath=following-sibling::*[1]").locator("tbody tr")
        assert not any(row.is_visible() for row in rows.all())
    page.context.close()


def test_no_table_of_a_data_set_scrolls_on_a_desk(browser: Browser, source: Path) -> None:
    page = _open(browser, source, 1400).page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.wait_for_timeout(100)  # the tables fold after they have a size
    wide = page.evaluate(
        """[...document.querySelectorAll('section[id^=data-] .scroll')]
           .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)"""
    )
    assert wide == []
    page.context.close()


def test_the_contents_stay_and_parts_have_addresses(desk: Page) -> None:
    desk.evaluate("scrollTo(0, 3000)")
    place = desk.locator("nav").bounding_box()
    assert place is not None
    assert abs(place["y"]) < 1
    ids = [one.get_attribute("id") for one in desk.locator("h3[id], h4[id]").all()]
    assert len(ids) > 3
    assert len(ids) == len(set(ids))
    links = [one.get_attribute("href") for one in desk.locator("a.anchor").all()]
    assert all(desk.locator(f"[id='{(link or '')[1:]}']").count() == 1 for link in links)


def test_a_tap_says_what_a_point_is(browser: Browser, source: Path) -> None:
    page = _open(browser, source, DESK, has_touch=True).page
    for x, y, words in _points(page, source):
        page.touchscreen.tap(x, y)
        assert page.locator(".tip").inner_text() == words
    page.touchscreen.tap(1, 1)
    assert page.locator(".tip").is_hidden()
    page.context.close()


def test_the_script_is_small(source: Path) -> None:
    script = source.read_text().split("<script>")[1].split("</script>")[0]
    assert 8_000 < len(script.encode()) <= 14_000


def test_without_javascript_points_have_titles(browser: Browser, source: Path) -> None:
    page = _open(browser, source, DESK, java_script_enabled=False).page
    titles = page.locator("figure .wide .tips title").all_text_contents()
    assert len(titles) > 10
    assert page.locator(".save, .filter").count() == 0
    page.context.close()


def test_without_javascript_the_tables_stand(browser: Browser, source: Path) -> None:
    page = _open(browser, source, DESK, java_script_enabled=False).page
    assert page.locator("table").count() > 10
    assert page.locator("th button").count() == 0
    page.context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_first_screen_looks_the_same_without_javascript(
    browser: Browser, source: Path, width: int
) -> None:
    """The script adds links to save figures, and moves or hides nothing."""

    def screen(**options: object) -> np.ndarray:
        page = _open(browser, source, width, **options).page
        image = Image.open(io.BytesIO(page.screenshot())).convert("L")
        page.context.close()
        return np.asarray(image.resize((image.width // 8, image.height // 8), Image.Resampling.BOX))

    def differing(one: np.ndarray, other: np.ndarray) -> float:
        """Share of the squares of 8 by 8 pixels whose grey differs by a tenth of its range."""
        assert one.shape == other.shape
        return float((np.abs(one.astype(int) - other) > 25).mean())

    with_script, without = screen(), screen(java_script_enabled=False)
    assert without.std() > 5  # there is something on it
    assert differing(with_script, without) < 0.01
    assert differing(screen(), with_script) == 0
    moved = np.roll(without, 3, axis=0)
    assert differing(with_script, moved) > 0.02  # three rows of squares lower would be seen


def _contrast(page: Page) -> tuple[float, float]:
    """Luminance of the ground, and the contrast of text on it as WCAG has it."""
    colors = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    light = []
    for color in colors:
        channels = [int(x) / 255 for x in color[4:-1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    low, high = sorted(light)
    return light[0], (high + 0.05) / (low + 0.05)


def test_light_and_dark_can_be_read(desk: Page) -> None:
    desk.emulate_media(color_scheme="light")
    ground, contrast = _contrast(desk)
    assert ground > 0.9
    assert contrast > 7
    desk.emulate_media(color_scheme="dark")
    ground, contrast = _contrast(desk)
    assert ground < 0.1
    assert contrast > 7


def test_nothing_of_a_figure_is_lost_in_the_dark(desk: Page) -> None:
    """What is no cell takes the colours of the page; the cells of maps keep theirs."""
    fills = """() => [...document.querySelectorAll("figure .wide svg")].map(svg => [
      [...svg.querySelectorAll("text")].filter(x => x.textContent.trim())
        .map(x => [x.textContent, getComputedStyle(x).fill]),
      [...svg.querySelectorAll("path")].map(x => getComputedStyle(x).fill)])"""
    desk.emulate_media(color_scheme="light")
    light = desk.evaluate(fills)
    desk.emulate_media(color_scheme="dark")
    dark = desk.evaluate(fills)
    assert len(light) == len(dark) > 5
    black = [text for texts, _ in dark for text, fill in texts if fill == "rgb(0, 0, 0)"]
    assert black == []
    maps = [
        (one, other)
        for (_, one), (_, other) in zip(light, dark, strict=True)
        if "rgb(8, 48, 107)" in one  # the best of a map of ranks
    ]
    assert len(maps) >= 2
    frame = {"none", "rgb(92, 98, 107)", "rgb(31, 35, 40)"}
    for one, other in maps:
        cells = [(a, b) for a, b in zip(one, other, strict=True) if a not in frame]
        assert len(cells) > 50
        assert all(a == b for a, b in cells)


def test_paper_is_light_and_short_and_cuts_nothing_that_it_shows(desk: Page) -> None:
    desk.emulate_media(media="print", color_scheme="dark")
    assert _contrast(desk)[0] > 0.9
    desk.set_viewport_size({"width": 700, "height": 1000})  # A4 without its margins
    cut = desk.evaluate(
        """[...document.querySelectorAll('.scroll')]
           .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.getAttribute('aria-label'))"""
    )
    assert cut == []
    sections = desk.locator("section").count()
    folded = desk.locator("details:not([open])")
    assert folded.count() > 5
    assert not any(one.is_visible() for one in folded.all())
    short = desk.pdf(format="A4")
    assert short.startswith(b"%PDF")
    desk.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    whole = desk.pdf(format="A4")
    pages = [pdf.count(b"/Type /Page\n") for pdf in (short, whole)]
    assert sections - 1 <= pages[0] < pages[1]


def test_the_answer_stands_on_the_first_screen(browser: Browser, source: Path) -> None:
    page = _open(browser, source, 1400).page
    card = page.locator(".card").first
    box = card.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= 900
    for part in ("h3", ".value", ".facts", ".usage pre"):
        assert card.locator(part).first.is_visible()
    assert page.locator(".card figure svg >> visible=true").count() == 1  # the other has no curve
    page.context.close()
