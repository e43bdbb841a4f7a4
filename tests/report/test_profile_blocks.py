from __future__ import annotations

from pathlib import Path

import pytest

from layerfusion.cli import main
from layerfusion.errors import UserError
from layerfusion.findings.results import Results
from layerfusion.records.profile import write_profile
from layerfusion.report.block import Block
from layerfusion.report.blocks.profiles import profile_sections
from layerfusion.report.page import write_report
from layerfusion.report.table import Table
from tests.report.fabricate import dataset, write_job
from tests.report.fabricate_profiles import profile, together
from tests.report.reading import text_of

MODELS = {"minilm": ["0", "1", "2"], "smollm2": ["0", "1", "2", "norm"]}


def profile_blocks(runs: Path, only: list[str] | None = None) -> list[Block]:
    return profile_sections(Results(runs, only))


def _table(tables: tuple[Table, ...], title: str) -> Table:
    return next(table for table in tables if table.title == title)


def titles(tables: tuple[Table, ...]) -> set[str]:
    return {column.title for table in tables for column in table.columns}


def test_a_profile_has_its_figures_and_every_number(tmp_path: Path) -> None:
    made = profile("toy", MODELS)
    write_profile(made, tmp_path / "p")
    (block,) = profile_blocks(tmp_path)
    assert [figure.key for figure in block.figures] == [
        f"profile-1-{name}" for name in ("accuracy", "scores", "cka")
    ]
    pairs = _table(block.tables, "How models complement each other")
    assert [row.texts[2:] for row in pairs.rows] == [("0.28", "0.66", "+8.4")] * len(made.pairs)
    layers = _table(block.tables, "Every score of every layer")
    found = layers.frame()["Accuracy %"].tolist()
    assert found == [100 * (layer.scores["accuracy"] or 0) for layer in made.layers]
    best = max(
        (layer for layer in made.layers if layer.backbone == "minilm"),
        key=lambda layer: layer.scores["accuracy"] or 0,
    )
    assert f"of minilm, layer {best.layer} with {100 * (best.scores['accuracy'] or 0):.1f}" in (
        text_of(block)
    )


def test_nothing_of_test_is_shown_unless_it_was_judged(tmp_path: Path) -> None:
    write_profile(profile("toy", MODELS), tmp_path / "a" / "p")
    write_profile(profile("toy", MODELS, judged=True), tmp_path / "b" / "p")
    (plain,) = profile_blocks(tmp_path / "a")
    judged, study = profile_blocks(tmp_path / "b")

    assert not {title for title in titles(plain.tables) if "Test" in title}
    shown = [table.title for table in judged.tables if "Test %" in titles((table,))]
    assert shown == ["What each selection takes", "Every score of every layer"]
    assert "behind the best layer in hindsight" in text_of(study)


def test_probes_of_several_layers_have_a_table_and_stand_beside_the_selections(
    tmp_path: Path,
) -> None:
    write_profile(together(profile("toy", MODELS, judged=True)), tmp_path / "p")
    block, study = profile_blocks(tmp_path)
    table = _table(block.tables, "Probes of several layers at once")
    assert [row.texts[0] for row in table.rows] == ["scalar_mix", "group_lasso"]
    assert "Test %" in titles((table,))
    shares = [row.texts[2] for row in table.rows]
    assert "(0.50)" in shares[0]
    assert "(1.00)" in shares[1] or "(0.99)" in shares[1]
    assert not any("(0.00)" in one for one in shares)
    assert "The best of one layer is" in table.note
    means = _table(study.tables, "Selections over all profiles")
    assert {"scalar_mix", "group_lasso", "adaptive"} <= {row.texts[0] for row in means.rows}


def test_jobs_of_others_are_left_out(tmp_path: Path) -> None:
    made = profile("toy", MODELS)
    write_profile(made, tmp_path / "p")
    assert profile_blocks(tmp_path, only=["another"]) == []
    assert len(profile_blocks(tmp_path, only=[made.job])) == 1


@pytest.mark.parametrize("kinds", ["profiles", "jobs", "both"])
def test_one_command_reports_whatever_there_is(
    tmp_path: Path, kinds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if kinds != "jobs":
        write_profile(profile("toy", MODELS, judged=True), tmp_path / "p")
    if kinds != "profiles":
        write_job(tmp_path, dataset(rows=40), [("minilm", "6")], 0.7, 0.7, seeds=1)
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    assert ("Layer profile of toy" in page) == (kinds != "jobs")
    assert ('id="data-toy"' in page) == (kinds != "profiles")
    assert (tmp_path / "figures" / "profile-1-cka.pdf").exists() == (kinds != "jobs")


def test_an_empty_folder_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished job"):
        write_report(tmp_path, tmp_path / "out", title="t")
