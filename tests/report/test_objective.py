"""Jobs that share an F1 as their objective are chosen and compared by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from layerfusion.findings.choice import judge_of
from layerfusion.findings.groups import DataGroup, load_groups
from layerfusion.findings.tests import find_all
from layerfusion.records.job import Estimate, RunRecord
from layerfusion.report.blocks.summary import Card, group_card
from layerfusion.report.page import write_report
from layerfusion.report.ranking import ranking_lines
from layerfusion.runs.honest import HONEST
from layerfusion.statistics.f1 import f1_scores
from tests.report.fabricate import amend, dataset, write_job
from tests.report.fabricate_sets import LABELS, write_set_job

FIGURES = {"2": (0.9, 0.5), "3": (0.8, 0.7), "4": (0.85, 0.6)}
"""Accuracy and macro-F1 of a layer on the rows that choose, which choose otherwise."""
SHARED = ("macro_f1",) * 3


def figures(layer: str, *, folds: bool = False) -> dict[str, Estimate]:
    accuracy, f1 = FIGURES[layer]
    near = Estimate(f1, None, f1 - 0.02, f1 + 0.02)
    return {
        "accuracy": Estimate(accuracy, None),
        "macro_f1": near if folds else Estimate(f1, None),
        "log_loss": Estimate(0.5, None),
    }


def write(
    runs: Path, objectives: tuple[str, ...] = SHARED, *, validation: int = 300, folds: str = ""
) -> list[RunRecord]:
    """Write three layers; `folds` names those whose folds of train have macro-F1."""
    data = replace(dataset(rows=200), rows={"train": 450, "validation": validation, "test": 200})
    records = []
    for layer, objective in zip(FIGURES, objectives, strict=True):
        record = write_job(
            runs,
            data,
            [("minilm", layer)],
            0.7,
            0.8,
            settings={"objective": objective},
            on_folds=0.8 if validation < 200 else None,
        )
        found = figures(layer)
        chosen = record.on_folds
        if chosen is not None:
            own = figures(layer, folds=True)
            own = own if layer in folds else {x: own[x] for x in ("accuracy", "log_loss")}
            chosen = replace(chosen, figures=own)
        records.append(replace(record, validation=found, on_folds=chosen))
        amend(runs, record, validation=found, on_folds=chosen)
    return records


def read(runs: Path) -> tuple[DataGroup, Card, dict[str, str]]:
    (group,) = load_groups(runs)
    card = group_card(group, find_all([group])[group])
    return (
        group,
        card,
        {name.replace("\u00a0", " "): words.replace("\u00a0", " ") for name, words in card.facts},
    )


def test_a_shared_f1_chooses_and_heads_the_page(tmp_path: Path) -> None:
    write(tmp_path)
    group, card, facts = read(tmp_path)
    best, baseline = group.best, group.best.record.baseline.test["macro_f1"]
    assert best.layer.layer == "3"
    assert card.accuracy[0] == f"{100 * best.record.test['macro_f1'].mean:.1f}\u00a0%"
    assert card.accuracy[1].startswith("macro-F1 [")
    assert facts["Chosen"] == "on 300 validation rows, 70.0 %"
    assert facts["Accuracy"].startswith(f"{100 * best.record.test['accuracy'].mean:.1f} %")
    assert f"Against baseline, {100 * baseline:.1f} %" in facts
    finding = find_all([group])[group].between(best, None)
    assert best.baseline_preds is not None
    own = f1_scores("macro_f1", best.target, best.preds).mean()
    other = f1_scores("macro_f1", best.target, best.baseline_preds[None]).mean()
    assert finding.difference.mean == pytest.approx(own - other)


@pytest.mark.parametrize(
    "objectives",
    [("macro_f1", "macro_f1", "log_loss"), ("log_loss",) * 3, ("accuracy",) * 3],
)
def test_other_and_mixed_objectives_leave_the_choice_to_accuracy(
    tmp_path: Path, objectives: tuple[str, ...]
) -> None:
    write(tmp_path, objectives)
    group, card, facts = read(tmp_path)
    assert group.best.layer.layer == "2"
    assert card.accuracy[0] == f"{100 * group.best.record.test['accuracy'].mean:.1f}\u00a0%"
    assert "F1" not in card.accuracy[1]
    assert "Accuracy" not in facts


def test_micro_f1_of_texts_with_one_class_is_accuracy(tmp_path: Path) -> None:
    write(tmp_path, ("micro_f1",) * 3)
    group, _, _ = read(tmp_path)
    assert (group.best.layer.layer, group.measure) == ("2", "accuracy")


def test_folds_of_train_choose_by_their_f1(tmp_path: Path) -> None:
    records = write(tmp_path, validation=48, folds="234")
    group, _, facts = read(tmp_path)
    assert group.judge.by_folds
    assert group.best.layer.layer == "3"
    assert facts["Chosen"] == "on 450 rows in 5 folds of train, 70.0 %"
    assert HONEST.objective(records[1]) == 0.7  # what a search makes high


@pytest.mark.parametrize(("folds", "said"), [("", "no job has a"), ("24", "1 of 3 jobs has no")])
def test_folds_of_older_records_have_no_f1_and_the_page_says_so(
    tmp_path: Path, folds: str, said: str
) -> None:
    records = write(tmp_path, validation=48, folds=folds)
    judge = judge_of(records)
    assert not judge.by_folds
    assert judge.metric == "macro_f1"
    group, _, facts = read(tmp_path)
    assert group.best.layer.layer == "3"  # validation has macro-F1
    assert facts["Chosen"] == "on 48 validation rows, 70.0 %, too few to choose surely"
    write_report(tmp_path, tmp_path / "page", title="page")
    page = (tmp_path / "page" / "report.md").read_text()
    assert (
        f"{said} macro-F1 on folds of train (older records lack it; by\\_folds=true adds it)"
        in page
    )


def test_the_page_and_the_terminal_name_the_figure_and_its_test(tmp_path: Path) -> None:
    write(tmp_path)
    write_report(tmp_path, tmp_path / "page", title="page")
    page = (tmp_path / "page" / "report.md").read_text()
    assert "the highest macro-F1 on validation" in page
    assert "randomisation test of the same difference" in page
    assert "sign-flip" not in page
    assert "| Test, macro-F1 % |" in page
    lines = " ".join(ranking_lines(tmp_path))
    assert "3 jobs by macro-F1 on 300 validation rows" in lines
    assert "Test, macro-F1 %: 200 rows" in lines


def test_answers_follow_labels_that_another_job_numbers_otherwise(tmp_path: Path) -> None:
    records = write(tmp_path)
    (other,) = [one for one in load_groups(tmp_path)[0].jobs if one.record.layers[0].layer == "4"]
    before = f1_scores("macro_f1", other.target, other.preds)
    # The same predictions, under names in the other order.
    amend(tmp_path, records[2], dataset=replace(records[2].dataset, label_names=["pos", "neg"]))
    assert other.folder is not None
    path = other.folder / "predictions.parquet"
    table = pq.read_table(path)
    for name in ("target", "pred", "baseline"):
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(1 - table.column(name).to_numpy()))
    prob = np.array(table.column("prob").to_pylist(), np.float32)[:, ::-1]
    place = table.column_names.index("prob")
    table = table.set_column(
        place, "prob", pa.FixedSizeListArray.from_arrays(pa.array(prob.reshape(-1)), 2)
    )
    pq.write_table(table, path)
    (again,) = [one for one in load_groups(tmp_path)[0].jobs if one.record.layers[0].layer == "4"]
    assert f1_scores("macro_f1", again.target, again.preds) == pytest.approx(before)


def test_texts_with_several_labels_are_compared_by_the_f1_that_was_asked_for(
    tmp_path: Path,
) -> None:
    data = replace(
        dataset(label_names=list(LABELS), multilabel=True),
        rows={"train": 450, "validation": 300, "test": 200},
    )
    for layer, noise in (("2", 2.0), ("3", 1.5)):
        settings = {"objective": "micro_f1"}
        one = [("minilm", layer)]
        record = write_set_job(tmp_path, data, one, noise, 0.5, settings=settings)
        f1 = {"micro_f1": Estimate(0.5 + 0.1 * (layer == "2"), None)}
        amend(tmp_path, record, validation={**record.validation, **f1})
    group, card, facts = read(tmp_path)
    assert (group.measure, group.best.layer.layer) == ("micro-F1", "2")
    assert card.accuracy[1].startswith("micro-F1 [")
    assert {"Exact match", "Macro-F1"} <= set(facts)
    finding = find_all([group])[group].between(group.best, None)
    base = group.best.record.baseline.test["micro_f1"]
    assert finding.difference.mean == pytest.approx(group.best.score.mean - base, abs=1e-6)
