"""Several sweeps on one page: what each chose, on the same rows, and who leads."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerfusion.cli import main
from layerfusion.findings.jobs import read_job
from layerfusion.findings.results import Results
from layerfusion.findings.sweeps import SideBySide
from layerfusion.report import write_comparison
from layerfusion.report.blocks.side_by_side import (
    leader_sections,
    side_by_side_sections,
)
from layerfusion.report.contents import PAGE_SECTIONS, Report, build_comparison
from layerfusion.statistics.intervals import paired_interval
from layerfusion.statistics.significance import holm
from tests.report.fabricate import dataset, write_job
from tests.report.reading import column_of, section_of, text_of

NAMES = ("mr", "sst2", "trec")
BOTH = [("minilm", "4"), ("smollm2", "17")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`deep` has single layers, `wide` also fuses; `r52` differs, and `only` is in one."""
    top = tmp_path_factory.mktemp("sweeps")
    for name, gain in zip(NAMES, (0.15, 0.1, 0.0), strict=True):
        data = dataset(name, rows=200)
        write_job(top / "deep", data, [("minilm", "3")], 0.7, 0.75)
        write_job(top / "deep", data, [("minilm", "5")], 0.75, 0.7)  # better on test alone
        write_job(top / "wide", data, [("minilm", "3")], 0.7, 0.75)
        write_job(top / "wide", data, BOTH, 0.7 + gain, 0.8 if gain else 0.6, selection="greedy")
    for sweep, mark in (("deep", "a"), ("wide", "b")):
        write_job(top / sweep, dataset("r52", fingerprint=mark * 64), [("minilm", "3")], 0.8, 0.8)
    write_job(top / "wide", dataset("only"), [("minilm", "3")], 0.8, 0.8)
    return top


@pytest.fixture(scope="module")
def report(runs: Path) -> Report:
    sweeps = {name: Results(runs / name) for name in ("deep", "wide")}
    return build_comparison(sweeps, title="deep and wide")


def test_choices_are_made_on_validation_and_compared_on_the_same_rows(runs: Path) -> None:
    sides = SideBySide({name: Results(runs / name) for name in ("deep", "wide")})
    assert [data.label for data in sides.shared] == list(NAMES)
    p_values = {}
    for (data, later, earlier), finding in sides.findings.items():
        assert (later, earlier) == ("wide", "deep")
        chosen = data.chosen
        assert chosen["deep"].layer.layer == "3"
        assert chosen["wide"].sources == (1 if data.label == "trec" else 2)
        jobs = [read_job(job.folder, job.record) for job in chosen.values() if job.folder]
        expected = paired_interval(jobs[1].correct, jobs[0].correct, jobs[0].target, text_of=None)
        assert finding.difference.mean == pytest.approx(expected.mean)
        p_values[data.label] = finding.test.p
    adjusted = [finding.adjusted for finding in sides.findings.values()]
    first, second, same = p_values.values()  # on trec both chose the same, which does not count
    assert adjusted == pytest.approx([*holm([first, second]), same])
    assert same == 1


def test_samples_of_one_data_set_are_no_data_sets_of_their_own(tmp_path: Path) -> None:
    for sweep, right in (("a", 0.6), ("b", 0.9)):
        for draw in range(4):
            drawn = dataset("mr", rows=60, per_class=20, draw=draw, fingerprint=f"{draw}" * 64)
            write_job(tmp_path / sweep, drawn, [("minilm", "3")], 0.7, right)
        for rows in (60, 200):
            data = dataset("mr", rows=rows, fingerprint=f"{rows:064}")
            write_job(tmp_path / sweep, data, [("minilm", "3")], 0.7, right)
    sides = SideBySide({name: Results(tmp_path / name) for name in ("a", "b")})
    assert [next(iter(one.groups.values())).rows for one in sides.shared] in ([60, 200], [200, 60])
    (board,) = [one for one in side_by_side_sections(sides) if one.key == "leaderboard"]
    assert "here is 1" in text_of(board)
    assert leader_sections(Results(tmp_path / "a")) == []


def test_the_page_of_another_sweep_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for sweep in ("a", "b", "a-b"):
        write_job(tmp_path / sweep, dataset("mr", rows=40), [("minilm", "3")], 0.7, 0.7)
    words = ["report", f"{tmp_path}/a", f"{tmp_path}/b"]
    assert main(words) == 2
    assert "a-b has jobs, and a page of its own; choose -o FOLDER" in capsys.readouterr().err
    assert main([*words, "-o", f"{tmp_path}/page"]) == 0


def test_each_data_set_says_what_is_better_and_what_it_costs(report: Report) -> None:
    mr = text_of(section_of(report, "data-mr"))
    wide = "wide (layer 4 of minilm and layer 17 of smollm2 (greedy), gated)"
    assert f"{wide} against deep (layer 3 of minilm): better by" in mr
    assert "better by" in mr
    assert "times as many operations (" in mr
    (_, table) = [t for t in section_of(report, "data-mr").tables if t.title][:2]
    assert column_of(table, "First %") == ["0", "100"]
    summary = section_of(report, "summary")
    assert column_of(summary.tables[0], "Data set") == list(NAMES)
    assert column_of(summary.tables[0], "wide over deep, points")[0].endswith("▲")
    assert "3 comparisons on the same test rows" in text_of(summary)


def test_what_differs_in_its_rows_is_not_compared(report: Report) -> None:
    apart = text_of(section_of(report, "apart"))
    assert "r52 has other texts, splits or samples in deep (fingerprint aaaaaaaa" in apart
    assert "only is in one sweep only: wide" in apart
    assert not [section for section in report.sections if section.key == "data-r52"]


def test_a_leaderboard_says_when_it_can_say_nothing(report: Report) -> None:
    leaders = section_of(report, "leaderboard")
    board = leaders.tables[0]
    assert column_of(board, "Sweep") == ["wide", "deep"]
    ranks = [float(rank) for rank in column_of(board, "Mean rank")]
    accuracy = board.frame()[[f"{name} %" for name in NAMES]].to_numpy()
    wins = (accuracy[0] > accuracy[1]).mean() + (accuracy[0] == accuracy[1]).mean() / 2
    assert ranks == pytest.approx([2 - wins, 1 + wins], abs=0.01)
    assert column_of(board, "Not told apart") == ["1", "1"]
    assert "3 data sets cannot tell any two apart" in text_of(leaders)
    assert "would give p 0.250 at best" in text_of(leaders)
    settings = next(t for t in leaders.tables if "settings" in t.title)
    assert set(column_of(settings, "Setting")) == {
        *("minilm 3, gated", "minilm 5, gated", "greedy of minilm and smollm2, gated")
    }


def test_one_folder_has_a_leaderboard_of_its_settings(runs: Path) -> None:
    results = Results(runs / "deep")
    assert not leader_sections(results)  # r52 has one layer only
    jobs = [record.job for _, record in results.jobs if record.dataset.name != "r52"]
    (section,) = leader_sections(Results(runs / "deep", jobs))
    board = section.tables[0]
    assert sorted(column_of(board, "Setting")) == ["minilm 3, gated", "minilm 5, gated"]
    assert "choose by validation" in board.note
    assert leader_sections in PAGE_SECTIONS


def test_settings_of_one_name_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    for name, best in zip(NAMES, (0.8, 0.7, 0.8), strict=True):
        data = dataset(name, rows=100)
        for width, right in ((64, best), (256, 1.5 - best)):
            settings = {"fusion.width": width, "trainer.patience": len(name)}  # the same on each
            for salt in ("a", "b") if width == 256 else ("a",):
                write_job(tmp_path, data, BOTH, right, right, settings=settings,
                          salt=f"{width} {salt}")  # fmt: skip
    (board,) = leader_sections(Results(tmp_path))
    words = {text.rpartition(" gated ")[2] for text in column_of(board.tables[0], "Setting")}
    assert words == {"(fusion.width=64)", "(fusion.width=256) (the chosen of up to 2 jobs)"}
    means = column_of(board.tables[0], "Mean test %")
    assert len(set(means)) == 2  # none is the better of the two on each data set


def test_two_data_sets_have_no_leaderboard_and_equal_choices_are_said(tmp_path: Path) -> None:
    for sweep in ("a", "b"):
        write_job(tmp_path / sweep, dataset("mr", rows=60), [("minilm", "3")], 0.7, 0.7)
    sweeps = {name: Results(tmp_path / name) for name in ("a", "b")}
    report = build_comparison(sweeps, title="a and b")
    assert "b and a chose the same: layer 3 of minilm." in text_of(section_of(report, "data-mr"))
    assert "takes 3 data sets" in text_of(section_of(report, "leaderboard"))
    summary = text_of(section_of(report, "summary"))
    assert "1 cannot be told" in summary
    found = section_of(report, "summary").tables[0]
    assert column_of(found, "b over a, points")[0].startswith("0.0")


def test_three_sweeps_are_compared_in_pairs(runs: Path, tmp_path: Path) -> None:
    for name in NAMES:
        write_job(tmp_path / "third", dataset(name, rows=200), BOTH, 0.9, 0.9, fusion="concat")
    folders = {"deep": runs / "deep", "wide": runs / "wide", "third": tmp_path / "third"}
    sides = SideBySide({name: Results(folder) for name, folder in folders.items()})
    assert len(sides.findings) == 3 * len(NAMES)
    assert {finding.among for finding in sides.findings.values()} == {8}  # trec: the same choice
    (summary, *_) = side_by_side_sections(sides)
    assert "third over deep, points" in [column.title for column in summary.tables[0].columns]


def test_nothing_in_common_is_said_and_not_compared(tmp_path: Path) -> None:
    for sweep in ("mr", "sst2"):
        write_job(tmp_path / sweep, dataset(sweep, rows=60), [("minilm", "3")], 0.7, 0.7)
    sides = SideBySide({name: Results(tmp_path / name) for name in ("mr", "sst2")})
    (first, *_) = side_by_side_sections(sides)
    assert "no data set with the same rows" in text_of(first)


def test_labels_that_differ_under_one_fingerprint_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = "c" * 64
    write_job(tmp_path / "a", dataset("mr", rows=60, fingerprint=same), [("minilm", "3")], 0.7, 0.7)
    other = dataset("mr", rows=40, fingerprint=same)
    write_job(tmp_path / "b", other, [("minilm", "3")], 0.7, 0.7)
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "other test labels of mr than" in capsys.readouterr().err


def test_the_command_writes_beside_the_first_folder_and_changes_neither(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path for name in ("deep", "wide") for path in (runs / name).rglob("*"))
    assert main(["report", str(runs / "deep"), str(runs / "wide")]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == runs.resolve() / "deep-wide" / "report.html"
    text = page.read_text()
    assert "<title>deep and wide</title>" in text
    assert (page.parent / "report.md").exists()
    assert list((page.parent / "figures").glob("side-by-side.png"))
    assert sorted(path for name in ("deep", "wide") for path in (runs / name).rglob("*")) == before
    assert main(["report", str(runs / "deep"), str(runs / "wide"), "-o", str(runs / "own")]) == 0
    assert (runs / "own/report.html").read_text() == text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["deep", "deep"], "is the same as"),
        (["deep", "."], "lies in"),
        (["deep", "empty"], "no finished job"),
        (["deep", "wide", "--texts"], "--block, --texts and --older go with one DIR"),
    ],
)
def test_mistakes_are_one_line(
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    line: str,
) -> None:
    (runs / "empty").mkdir(exist_ok=True)
    monkeypatch.chdir(runs)
    assert main(["report", *words]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for top in ("old", "new"):
        write_job(tmp_path / top / "main", dataset("mr", rows=60), [("minilm", "3")], 0.7, 0.7)
    assert main(["report", *(str(tmp_path / top / "main") for top in ("old", "new"))]) == 0
    page = tmp_path / "old/old_main-new_main/report.html"
    assert "<title>old/main and new/main</title>" in page.read_text()


def test_a_damaged_job_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for sweep in ("a", "b"):
        write_job(tmp_path / sweep, dataset("mr", rows=60), [("minilm", "3")], 0.7, 0.7)
    data = dataset("mr", rows=60)
    broken = write_job(tmp_path / "b", data, [("minilm", "5")], 0.9, 0.9)
    (folder,) = (tmp_path / "b").glob(f"*{broken.job}")
    (folder / "predictions.parquet").write_bytes(b"no")
    folders = {name: tmp_path / name for name in ("a", "b")}
    page = write_comparison(folders, tmp_path / "out", title="a and b")
    assert "left out" in capsys.readouterr().err
    assert "cannot be read" in page.read_text()


def test_the_page_counts_samples_as_each_sweep_does_and_names_what_is_no_accuracy(
    tmp_path: Path,
) -> None:
    for mark in "ab":
        data = dataset("mr", rows=60, fingerprint=mark * 64)
        write_job(tmp_path / "two", data, [("minilm", "3")], 0.7, 0.7)
    f1 = {"objective": "macro_f1"}
    write_job(tmp_path / "f1", dataset("r8"), [("minilm", "3")], 0.8, 0.8, settings=f1)
    sweeps = {name: Results(tmp_path / name) for name in ("two", "f1")}
    report = build_comparison(sweeps, title="two and f1")
    assert "two: 2 jobs on 2 samples of 1 data set; f1: 1 job on 1 data set." in str(report.intro)
    apart = text_of(section_of(report, "apart"))
    assert "% macro-F1 by layer 3" in apart
    assert "% by layer 3" in apart
