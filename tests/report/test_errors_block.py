from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from layerfusion.findings.calibration import calibration_words
from layerfusion.findings.groups import load_groups
from layerfusion.findings.mistakes import Answers
from layerfusion.findings.tests import find_all
from layerfusion.fusion.objective import find_shift
from layerfusion.report.blocks.errors import (
    MATRIX,
    WORST,
    bin_table,
    class_table,
    confusion_table,
    error_block,
    mistake_table,
)
from tests.report.fabricate import dataset, write_job


@pytest.fixture
def answers() -> Answers:
    rng = np.random.default_rng(0)
    target = np.repeat([0, 1, 2], [60, 25, 5])
    answer = np.where(rng.random(90) < 0.7, target, rng.integers(0, 3, 90))
    return Answers(["a", "b", "c"], target, answer, rng.uniform(0.34, 1, 90), text_of=None)


def test_classes_have_the_figures_of_scikit_learn(answers: Answers) -> None:
    frame = class_table(answers).frame()
    figures = precision_recall_fscore_support(answers.target, answers.answer)
    precision, recall, f1, rows = map(np.asarray, figures)
    assert frame["Rows"].tolist() == rows.tolist()
    for title, values in (("Precision %", precision), ("Recall %", recall), ("F1 %", f1)):
        assert frame[title].tolist() == pytest.approx((100 * values).tolist())
    assert all(np.less(frame["Recall %, low"], frame["Recall %"]))
    matrix = confusion_matrix(answers.target, answers.answer)
    shown = confusion_table(answers).frame()[["a", "b", "c"]].to_numpy()
    assert shown.tolist() == matrix.tolist()


def test_confusions_of_many_classes_are_a_list_without_the_right_answers() -> None:
    size = MATRIX + 1
    target = np.arange(size).repeat(3)
    answer = target.copy()
    answer[[0, 1]], answer[3] = 5, 6
    names = [f"class {number}" for number in range(size)]
    table = confusion_table(Answers(names, target, answer, np.ones(target.size), text_of=None))
    assert [row.texts for row in table.rows] == [
        ("class 0", "class 5", "2"),
        ("class 1", "class 6", "1"),
    ]


def test_mistakes_come_surest_first_and_show_texts_only_when_given(answers: Answers) -> None:
    table = mistake_table(answers)
    frame = table.frame()
    wrong = np.flatnonzero(answers.answer != answers.target)
    assert len(frame) == min(WORST, wrong.size)
    assert {*frame["Row"].tolist()} <= {*wrong.tolist()}
    assert [*frame["Confidence %"]] == sorted(frame["Confidence %"], reverse=True)
    assert "Text" not in frame.columns.tolist()
    assert "--texts" in table.note
    texts = tuple(f"text {row} " + "x" * 400 for row in range(90))
    shown = mistake_table(
        Answers(
            answers.names, answers.target, answers.answer, answers.confidence, texts, text_of=None
        )
    )
    first = shown.frame().iloc[0]
    assert first["Text"].startswith(f"text {first['Row']} x")
    assert len(first["Text"]) == 300


def test_calibration_counts_every_row_once(answers: Answers) -> None:
    frame = bin_table(answers).frame()
    assert sum(frame["Rows"].tolist()) == 90
    mean = np.dot(frame["Right %"].tolist(), frame["Rows"].tolist()) / 90
    assert float(mean) == pytest.approx(100 * (answers.answer == answers.target).mean())


def test_the_block_is_of_the_job_that_is_used(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(rows=200), [("minilm", "3")], 0.7, 0.6)
    write_job(tmp_path, dataset(rows=200), [("minilm", "4")], 0.5, 0.9)
    (group,) = load_groups(tmp_path)
    block = error_block(group, find_all([group])[group])
    assert block is not None
    wrong = int((~group.best.consensus).sum())
    said = f"{wrong} of 200 test rows are wrong with layer 4 of minilm."
    assert str(block.parts[0]).startswith(said)
    assert len(block.figures) == 1


def test_what_calibration_changed_is_told_where_there_was_one(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(rows=200), [("minilm", "3")], 0.7, 0.6)
    (group,) = load_groups(tmp_path)
    record = group.best.record
    assert calibration_words(record) == ""  # an older record
    seeds = [
        replace(seed, temperature=1.5, uncalibrated={"calibration_error": 0.125})
        for seed in record.seeds
    ]
    for seed in seeds:
        seed.test["calibration_error"] = 0.0625
    words = calibration_words(replace(record, seeds=seeds))
    assert "a temperature of 1.50" in words
    assert "is 6.2 %; before, it was 12.5 %" in words
    alike = replace(record, seeds=[replace(seed, uncalibrated={}) for seed in seeds])
    words = calibration_words(alike)
    assert words.endswith("with a calibration error of 6.2 % on test.")
    shifted = replace(record, seeds=[replace(seed, temperature=1.0) for seed in seeds])
    words = calibration_words(shifted)
    assert "shifted towards rare classes" in words
    stacked = replace(record, seeds=[replace(seed, temperature=None) for seed in seeds])
    words = calibration_words(stacked)
    assert words.endswith("on test is 6.2 %; with equal weights it would be 12.5 %.")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"objective": "macro_f1", "class_weights": "none"}, "for objective=macro_f1"),
        ({"objective": "log_loss", "class_weights": "balanced"}, "for class_weights=balanced"),
        ({}, "for its objective"),
    ],
)
def test_a_shift_not_the_weights_of_a_stack_is_said_to_move_its_probabilities(
    tmp_path: Path, settings: dict[str, str], why: str
) -> None:
    record = write_job(tmp_path, dataset(rows=200), [("minilm", "3")], 0.7, 0.6)
    log_probs = torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log().repeat(20, 1)
    target = torch.tensor([0, 1]).repeat(20)
    prior = torch.tensor([0.8, 0.2])
    shift = find_shift("macro_f1", "balanced", log_probs, target, prior, text_of=None)
    assert shift is not None
    before = {"calibration_error": 0.01}
    seeds = [replace(x, uncalibrated=before, shift=shift.words) for x in record.seeds]
    for seed in seeds:
        seed.test["calibration_error"] = 0.214
    shifted = replace(record, seeds=seeds, settings=settings)
    words = calibration_words(shifted)
    assert f"moved {why} (100 % of the classes' log-frequencies are taken off)" in words
    assert "no longer the frequencies of the classes" in words
    assert words.endswith("the calibration error on test is 21.4 %.")
    assert "equal weights" not in words
    assert "held-out rows have taught" not in words
    one_of_them = [seeds[0], *(replace(seed, shift="") for seed in seeds[1:])]
    assert "in 1 of 6 seeds" in calibration_words(replace(shifted, seeds=one_of_them))
    head = replace(shifted, seeds=[replace(seed, temperature=1.5) for seed in seeds])
    assert calibration_words(head).endswith("is 21.4 %; before, it was 1.0 %.")
