"""By which rows jobs are chosen: validation, or folds of train where it has too few rows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from layerfusion.findings.choice import judge_of
from layerfusion.findings.compare import front
from layerfusion.findings.groups import DataGroup, load_groups
from layerfusion.findings.reasons import choice_reasons
from layerfusion.findings.tests import find_all
from layerfusion.records.format import capital
from layerfusion.records.job import (
    METRICS,
    DataRecord,
    Estimate,
    FoldsRecord,
    read_record,
    write_record,
)
from layerfusion.report.blocks.summary import group_card
from layerfusion.report.page import write_report
from layerfusion.report.ranking import ranking_lines
from tests.report.fabricate import dataset, write_job

LAYERS = {"2": (0.9, 0.6), "3": (0.8, 0.9), "4": (0.7, 0.7)}
"""Accuracy of a layer on validation and on folds of train, which choose otherwise."""


def data_with(validation: int, train: int = 270) -> DataRecord:
    return replace(dataset(rows=200), rows={"train": train, "validation": validation, "test": 200})


def write_layers(runs: Path, data: DataRecord, without: tuple[str, ...] = ()) -> DataGroup:
    for layer, (validation, on_folds) in LAYERS.items():
        folds = None if layer in without else on_folds
        write_job(runs, data, [("minilm", layer)], 0.7, validation, on_folds=folds)
    (group,) = load_groups(runs)
    return group


def ranked(runs: Path) -> list[str]:
    """The layers, as they are ranked in the terminal."""
    lines = ranking_lines(runs)
    return re.findall(r"layer (\d) of minilm", " ".join(lines))


def words(runs: Path) -> str:
    """All that the page and the terminal say."""
    write_report(runs, runs / "page", title="page")
    page = " ".join(file.read_text() for file in sorted((runs / "page").glob("*.md")))
    return f"{page} {' '.join(ranking_lines(runs))}".replace("\u00a0", " ")


def chosen_words(group: DataGroup) -> str:
    facts = dict(group_card(group, find_all([group])[group]).facts)
    return facts["Chosen"].replace("\u00a0", " ")


def test_few_rows_of_validation_leave_the_choice_to_folds_of_train(tmp_path: Path) -> None:
    group = write_layers(tmp_path, data_with(30))
    assert group.best.layer.layer == "3"
    assert group.chosen is group.best
    assert group.curves[0].best is group.best
    assert front(group.jobs)[-1] is group.best
    assert ranked(tmp_path) == ["3", "4", "2"]
    said = words(tmp_path)
    assert "3 jobs by accuracy on 270 rows in 5 folds of train" in said
    assert "Folds of train choose, as validation has 30 rows, fewer than 200." in said
    assert "Folds of train choose layer 3 of minilm" in said
    assert "Folds of train %" in said
    assert chosen_words(group) == "on 270 rows in 5 folds of train, 90.0 %"


def test_rows_of_validation_that_repeat_few_texts_leave_the_choice_to_folds_too(
    tmp_path: Path,
) -> None:
    data = replace(data_with(300), worth={"validation": 30.0})
    group = write_layers(tmp_path, data)
    assert group.best.layer.layer == "3"
    few = "as validation has 300 rows that are worth 30 independent ones, fewer than 200"
    said = words(tmp_path)
    assert f"Folds of train choose, {few}." in said
    assert "Where validation has fewer than 200 independent rows" in said
    for folder in sorted(one.parent for one in tmp_path.rglob(METRICS)):
        record = read_record(folder)
        assert record.on_folds is not None
        write_record(replace(record, on_folds=replace(record.on_folds, worth=20.0)), folder)
    (group,) = load_groups(tmp_path)
    assert group.best.layer.layer == "2"  # 20 are no more than 30, however many rows there are
    assert group.judge.few


@pytest.mark.parametrize("older", LAYERS)
def test_what_rows_are_worth_is_known_from_any_job(older: str, tmp_path: Path) -> None:
    """An older job does not know it, and the rows of all jobs are the same."""
    write_layers(tmp_path, replace(data_with(300), worth={"validation": 199.7}))
    for folder in sorted(one.parent for one in tmp_path.rglob(METRICS)):
        record = read_record(folder)
        assert record.on_folds is not None
        on_folds = replace(record.on_folds, worth=250.0)
        if record.layers[0].layer == older:
            record = replace(record, dataset=replace(record.dataset, worth={}))
            on_folds = replace(on_folds, worth=None)
        write_record(replace(record, on_folds=on_folds), folder)
    (group,) = load_groups(tmp_path)
    assert group.best.layer.layer == "3"
    assert (group.judge.by_folds, group.judge.worth) == (True, 250.0)
    assert "are worth 199 independent ones, fewer than 200" in words(tmp_path)


def test_the_standard_error_of_the_best_is_that_of_what_rows_are_worth(tmp_path: Path) -> None:
    best = Estimate(0.9, None)
    errors = []
    for name, worth in (
        ("older", {}),
        ("plain", {"validation": 300.0}),
        ("few", {"validation": 75.0}),
    ):
        group = write_layers(
            tmp_path / name, replace(data_with(300), worth=worth), without=tuple(LAYERS)
        )
        errors.append(group.judge.standard_error(best))
    assert errors[0] == errors[1] == (0.9 * (1 - 0.9) / 300) ** 0.5
    assert errors[2] == pytest.approx(2 * errors[1])


def test_enough_rows_of_validation_choose_whatever_the_folds_say(tmp_path: Path) -> None:
    group = write_layers(tmp_path, data_with(300))
    assert group.best.layer.layer == "2"
    assert ranked(tmp_path) == ["2", "3", "4"]
    assert "3 jobs by accuracy on 300 validation rows" in (said := words(tmp_path))
    assert "too few rows" not in said
    assert chosen_words(group) == "on 300 validation rows, 90.0 %"


def test_one_job_without_folds_leaves_all_to_validation_and_it_is_said(tmp_path: Path) -> None:
    group = write_layers(tmp_path, data_with(30), without=("4",))
    assert group.best.layer.layer == "2"
    assert ranked(tmp_path) == ["2", "3", "4"]
    doubt = (
        "with too few rows to judge (30, fewer than 200): 1 of 3 jobs has no figure on folds of"
        " train (by_folds=true adds it)"
    )
    assert f"Validation chooses, {doubt}." in " ".join(ranking_lines(tmp_path)).replace("  ", " ")
    assert doubt in str(choice_reasons(group))


@pytest.mark.parametrize(
    "changed", [{"rows": 20}, {"rows": 260}, {"folds": 4}], ids=["few", "rows", "folds"]
)
def test_folds_that_cannot_be_compared_choose_nothing(
    tmp_path: Path, changed: dict[str, int]
) -> None:
    group = write_layers(tmp_path, data_with(30))
    records = [job.record for job in group.jobs]
    folds = records[0].on_folds
    assert isinstance(folds, FoldsRecord)
    other = replace(records[0], on_folds=replace(folds, **changed))
    all_few = [replace(one, on_folds=replace(folds, rows=20)) for one in records]
    judge = judge_of(all_few if changed == {"rows": 20} else [other, *records[1:]])
    assert not judge.by_folds
    assert capital(judge.chooses) == "Validation chooses"
    assert "the folds of train are not the same for all jobs" in judge.doubt


def test_ties_and_what_test_could_show_are_said(tmp_path: Path) -> None:
    for layer in LAYERS:
        write_job(tmp_path, data_with(30), [("minilm", layer)], 0.7, 1.0)
    said = " ".join(ranking_lines(tmp_path))
    assert "(3 of 3 tie on 30 rows)" in said
    assert "200 test rows would show a difference of" in said
    (group,) = load_groups(tmp_path)
    assert "3 of 3 tie on 30 rows, so the lower log-loss decided" in str(choice_reasons(group))
    assert "3 of 3 jobs lie within one standard error" in chosen_words(group)


def test_the_terminal_ranks_first_what_the_page_uses_on_a_tie(tmp_path: Path) -> None:
    for layer, loss in (("2", 0.3), ("3", 0.1), ("4", 0.2)):
        write_job(tmp_path, data_with(300), [("minilm", layer)], 0.7, 0.9, log_loss=loss)
    (group,) = load_groups(tmp_path)
    assert ranked(tmp_path)[0] == group.best.layer.layer == "3"


def test_a_record_of_before_has_no_folds(tmp_path: Path) -> None:
    record = write_job(tmp_path, data_with(30), [("minilm", "3")], 0.7, 0.9)
    (folder,) = tmp_path.iterdir()
    raw = json.loads((folder / METRICS).read_text())
    for key in ("on_folds", "checksum"):
        raw.pop(key)
    (folder / METRICS).write_text(json.dumps(raw))
    assert read_record(folder) == record
    write_record(replace(record, on_folds=FoldsRecord(5, 270, {})), folder)
    with pytest.raises(Exception, match=r"on_folds\.figures: not accuracy and log_loss"):
        read_record(folder)
