from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerfusion.findings.groups import DataGroup, load_groups
from layerfusion.findings.tests import find_all
from layerfusion.records.job import Estimate, ProbeRecord, read_record, write_record
from layerfusion.report.blocks.choices import choice_block
from layerfusion.report.blocks.fusion import fusion_block
from layerfusion.report.blocks.layers import layer_block
from layerfusion.report.blocks.summary import Card, group_card
from layerfusion.report.format import PERCENT, POINTS
from layerfusion.report.sentences import bracket, p_value, told
from layerfusion.report.table import Column
from tests.report.fabricate import dataset, write_job
from tests.report.reading import text_of

ROWS = 200
BOTH = "Use layers 3 and 6 of minilm, gated"


def group_with(runs: Path, *, fused: float, baseline: float = 0.5, **data: Any) -> DataGroup:
    """Layers 3 and 6 alone (70 and 60 %), and both fused; hard rows are hard for all."""
    toy = dataset(rows=ROWS, **data)
    jobs = [
        ([("minilm", "3")], 0.7),
        ([("minilm", "6")], 0.6),
        ([("minilm", "3"), ("minilm", "6")], fused),
    ]
    for sources, accuracy in jobs:
        right = np.tile(np.arange(ROWS) < round(accuracy * ROWS), (2, 1))
        write_job(
            runs,
            toy,
            sources,
            accuracy,
            accuracy,
            seeds=2,
            right=right,
            baseline_right=np.arange(ROWS) < round(baseline * ROWS),
        )
    (group,) = load_groups(runs)
    return group


def summarise(group: DataGroup) -> Card:
    """As in a report on this data set alone."""
    return group_card(group, find_all([group])[group])


def facts(summary: Card) -> dict[str, str]:
    return {name.split(",")[0]: words.replace("\u00a0", " ") for name, words in summary.facts}


def reasons(group: DataGroup) -> str:
    """The first paragraph of the block on the choice."""
    return str(choice_block(group, find_all([group])[group]).parts[0]).replace("\u00a0", " ")


def test_a_layer_without_rivals_was_not_chosen(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(rows=ROWS), [("minilm", "6")], 0.6, 0.6)
    (group,) = load_groups(tmp_path)
    summary = summarise(group)
    assert summary.headline == "Use layer 6 of minilm"
    assert facts(summary)["Chosen"] == "it is the only job here"
    assert facts(summary)["Last layer"] == "it is the last layer of its model"


@pytest.mark.parametrize(
    ("fused", "headline", "fact", "says"),
    [
        (0.6, "Use layer 3 of minilm", "Fused", "worse than the layer alone by 10.0 points [−14"),
        (
            0.8,
            "Use layers 3 and 6 of minilm, gated",
            "Against best single layer",
            "better by 10.0 points [+6",
        ),
        (
            0.705,
            "Use layers 3 and 6 of minilm, gated",
            "Against best single layer",
            "cannot be told: +0.5 points [−1.3",
        ),
    ],
)
def test_the_card_says_what_to_use_and_what_fusing_is_worth(
    tmp_path: Path, fused: float, headline: str, fact: str, says: str
) -> None:
    summary = summarise(group_with(tmp_path, fused=fused))
    assert summary.headline == headline
    assert facts(summary)[fact].startswith(says)
    assert ("200 rows would show" in facts(summary)[fact]) == ("cannot be told" in says)
    cheaper = re.search(
        r"; layer 3 of minilm takes ([\d.]+) GFLOPs, this ([\d.]+)$", facts(summary)[fact]
    )
    assert (cheaper is not None) == ("cannot be told" in says)
    assert cheaper is None or float(cheaper[1]) < float(cheaper[2])


def test_a_gain_that_the_number_of_comparisons_takes_away_is_probable(tmp_path: Path) -> None:
    """Six rows of 200 gained and none lost: p = 2 / 2⁶, which one more comparison doubles."""
    group_with(tmp_path, fused=0.7)
    for number, rows in enumerate((146, 141)):
        right = np.tile(np.arange(ROWS) < rows, (2, 1))
        layers = [("minilm", str(number)), ("minilm", "3")]
        write_job(tmp_path, dataset(rows=ROWS), layers, 0.6, 0.6, seeds=2, right=right)
    (group,) = load_groups(tmp_path)
    findings = find_all([group])[group]
    (row,) = (x for x in findings.rows if x.kind == "layer" and x.test.only_a == 6)
    assert (row.family, row.among, row.mark) == ("layer", 2, "△")
    assert told(row).replace("\u00a0", " ") == (
        "probably better by 3.0 points [+1.0, +5.5], but not after correction for 2 comparisons"
        " (p 0.031, corrected 0.062)"
    )


def test_a_note_counts_no_comparisons_that_there_are_not(tmp_path: Path) -> None:
    for runs, fused in ((tmp_path / "one", False), (tmp_path / "more", True)):
        for layers in ([("minilm", "3")], [("minilm", "6")]):
            write_job(runs, dataset(rows=ROWS), layers, 0.6, 0.6)
        if fused:
            for fusion in ("gated", "sum"):
                sources = [("minilm", "3"), ("minilm", "6")]
                write_job(runs, dataset(rows=ROWS), sources, 0.7, 0.7, fusion=fusion)
        (group,) = load_groups(runs)
        *_, table = fusion_block(group, find_all([group])[group]).tables
        assert ("of the others" in table.note) == fused
        assert "()" not in table.note


def words(group: DataGroup) -> str:
    parts = layer_block(group, find_all([group])[group]).parts
    return str(parts[0]).replace("\u00a0", " ")


def test_hindsight_is_named_as_such(tmp_path: Path) -> None:
    text = words(group_with(tmp_path / "agrees", fused=0.7))
    assert text == (
        "Validation chooses layer 3 of minilm, with 70.0 % [63.6, 76.4] on test. Hindsight agrees:"
        " no single layer does better on test."
    )
    write_job(tmp_path / "not", dataset(), [("minilm", "2")], 0.9, 0.6)
    write_job(tmp_path / "not", dataset(), [("minilm", "3")], 0.6, 0.8)
    (group,) = load_groups(tmp_path / "not")
    assert summarise(group).headline == "Use layer 3 of minilm"
    assert "In hindsight layer 2 of minilm has the highest test accuracy" in words(group)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        (0.5, "better by 20.0 points"),
        (0.9, "worse by 20.0 points"),
        (0.69, "cannot be told: +1.0 points"),
    ],
)
def test_baseline_is_beaten_only_beyond_the_interval(
    tmp_path: Path, baseline: float, expected: str
) -> None:
    summary = summarise(group_with(tmp_path, fused=0.6, baseline=baseline))
    against = facts(summary)["Against baseline"]
    assert against.startswith(expected)
    assert ("; the baseline needs no language model" in against) == ("cannot" in expected)


def test_a_choice_by_few_rows_is_said_to_be_loose(tmp_path: Path) -> None:
    data = dataset(rows=ROWS)
    for layer, validation in (("2", 1.0), ("3", 1.0), ("4", 1.0), ("6", 0.6)):
        loss = 0.1 if layer == "3" else 0.2
        write_job(tmp_path, data, [("minilm", layer)], 0.7, validation, log_loss=loss)
    (group,) = load_groups(tmp_path)
    summary = summarise(group)
    assert summary.headline == "Use layer 3 of minilm"
    assert facts(summary)["Chosen"] == (
        "on 50 validation rows, 100.0 %, too few to choose surely: 3 of 4 jobs lie within one"
        " standard error (2.0 points)"
    )
    assert reasons(group) == (
        "Validation chooses, with too few rows to judge (50, fewer than 200): no job has a figure"
        " on folds of train (by_folds=true adds it). 3 of 4 tie on 50 rows, so the lower log-loss"
        " decided. 3 of 4 jobs lie within one standard error (2.0 points) of the best: more rows"
        " would choose more surely. fusion=auto chooses layers and fusion on folds of train, 450"
        " rows."
    )


@pytest.mark.parametrize(("rows", "loose"), [(199, True), (200, False)])
def test_two_close_jobs_are_a_loose_choice_where_there_are_few_rows(
    tmp_path: Path, rows: int, loose: bool
) -> None:
    data = dataset(rows=ROWS)
    data = replace(data, rows={**data.rows, "validation": rows})
    for layer, validation in (("2", 0.9), ("3", 0.89)):
        write_job(tmp_path, data, [("minilm", layer)], 0.7, validation)
    (group,) = load_groups(tmp_path)
    said = facts(summarise(group))["Chosen"]
    assert said.startswith(f"on {rows} validation rows, 90.0 %")
    assert ("2 of 2 jobs lie within one standard error" in said) is loose


def test_the_card_names_the_command_that_uses_the_job(tmp_path: Path) -> None:
    write_job(tmp_path, dataset("r8", rows=40), [("minilm", "3")], 0.7, 0.7)
    (group,) = load_groups(tmp_path)
    folder = group.best.folder
    assert folder is not None
    again, shell, python = (text for _, text in summarise(group).usage)
    assert again == (
        "layerfusion train dataset=r8 'backbone=[minilm]' layers=fixed 'layers.fixed.minilm=[3]'"
        " fusion=gated hydra.run.dir=outputs/r8"
    )
    assert shell == "layerfusion predict outputs/r8 reviews.csv"
    assert 'lf.load("outputs/r8")' in python
    (folder / ".hydra").mkdir()
    overrides = "- dataset=r8\n- sweep=mine\n- layers=last\n"
    (folder / ".hydra" / "overrides.yaml").write_text(overrides)
    again, shell, _ = (text for _, text in summarise(group).usage)
    own = f"dataset=r8 layers=last bundle=true hydra.run.dir={folder}"
    assert again == f"layerfusion train {own}"
    (folder / "bundle").mkdir()
    assert summarise(group).usage[0][1] == f"layerfusion predict {folder} reviews.csv"


def test_a_job_of_auto_whose_words_are_not_known_is_trained_by_its_experiment(
    tmp_path: Path,
) -> None:
    write_job(tmp_path, dataset("r8", rows=40), [("minilm", "3"), ("words", "0")], 0.7, 0.7)
    (folder,) = (path.parent for path in tmp_path.rglob("metrics.json"))
    considered: dict[str, list[str]] = {"minilm": [], "words": [], "smollm2": []}
    auto: dict[str, Any] = {"chosen_by": "auto", "lexical": ["words"], "considered": considered}
    write_record(replace(read_record(folder), **auto), folder)
    (group,) = load_groups(tmp_path)
    summary = summarise(group)
    assert summary.usage[0][1] == (
        "layerfusion train dataset=r8 'backbone=[minilm,smollm2]' experiment=auto"
        " hydra.run.dir=outputs/r8"
    )
    assert summary.headline == "Use layer 3 of minilm with words, gated (auto)"


def test_sample_is_said_and_whole_data_is_not_called_one(tmp_path: Path) -> None:
    whole = summarise(group_with(tmp_path / "whole", fused=0.7))
    assert whole.sample is None
    available = {"train": 5485, "test": 2189}
    sample = summarise(group_with(tmp_path / "s", fused=0.7, sampled=True, available=available))
    assert sample.sample is not None
    assert "200 of 2,189 test rows, 500 of 5,485 rows" in sample.sample


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.012, "+1.2"), (-0.0304, "−3.0"), (0.0, "0.0"), (0.0002, "+0.02"), (-1e-9, "0.0")],
)
def test_points(value: float, text: str) -> None:
    assert POINTS(value) == text


def test_numbers_that_are_missing_are_not_invented() -> None:
    assert bracket(Estimate(0.5, None)) == "–"
    assert Column("x", lambda x: x, PERCENT).cell(Estimate(0.5, None)).text == "50.0"


def test_p_values() -> None:
    assert p_value(0.0123) == "0.012"
    assert p_value(0.0123, bound=True).replace("\u00a0", " ") == "≤ 0.012"
    assert p_value(1e-9).replace("\u00a0", " ") == "< 0.001"


@pytest.mark.parametrize(
    ("fused", "says"),
    [
        (
            0.8,
            "The fusion that validation chooses, layers 3 and 6 of minilm, gated, is better than"
            " layer 3 of minilm by 10.0 points [",
        ),
        (
            0.705,
            "Whether the fusion that validation chooses, layers 3 and 6 of minilm, gated, beats"
            " layer 3 of minilm cannot be told: +0.5 points [",
        ),
    ],
)
def test_a_sentence_says_whether_fusing_helps(tmp_path: Path, fused: float, says: str) -> None:
    group = group_with(tmp_path, fused=fused)
    said = str(fusion_block(group, find_all([group])[group]).parts[0])
    assert said.replace("\u00a0", " ").startswith(says)


def test_the_best_of_one_layer_is_not_called_so(tmp_path: Path) -> None:
    data = dataset(rows=ROWS)
    write_job(tmp_path, data, [("minilm", "6")], 0.6, 0.6, selection="last")
    write_job(tmp_path, data, [("minilm", "3"), ("minilm", "6")], 0.8, 0.8)
    (group,) = load_groups(tmp_path)
    assert "Against last layer" in facts(summarise(group))
    assert "also its best" not in text_of(fusion_block(group, find_all([group])[group]))


def test_where_only_last_layers_ran_alone_the_probes_say_which_layer_is_best(
    tmp_path: Path,
) -> None:
    data = dataset(rows=ROWS)
    write_job(tmp_path, data, [("minilm", "6")], 0.6, 0.6, selection="last")
    record = write_job(tmp_path, data, [("minilm", "3"), ("minilm", "4")], 0.8, 0.8)
    right = {"3": 0.9, "4": 0.8, "6": 0.7}
    probes = [
        ProbeRecord("minilm", layer, "mean", int(layer) / 6, share, share - 0.1, share + 0.1, 0.3)
        for layer, share in right.items()
    ]
    (folder,) = (path for path in tmp_path.iterdir() if path.name.endswith(record.job))
    write_record(replace(record, probes=probes, probed_on="5 folds of train"), folder)
    (group,) = load_groups(tmp_path)
    block = layer_block(group, find_all([group])[group])
    assert str(block.parts[0]).replace("\u00a0", " ") == (
        "Of single layers, layer 3 of minilm has the best probe: 90.0 % [80.0, 100.0] on 5 folds of"
        " train; the last layer of this model has 70.0 % [60.0, 80.0]."
    )
    assert len(block.figures) == 1  # no chart of single points
