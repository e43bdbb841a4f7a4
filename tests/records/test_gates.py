from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.identity import job_id, recipe_id
from layerfusion.records.gates import EXAMPLES, LONGEST, GateRecord, clipped, gate_record
from layerfusion.records.json_files import read_json, write_json

GATES = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.4, 0.6], [0.7, 0.3]])
TARGET = np.array([0, 0, 2, 2, 2])
TEXTS = ["zero", "one", "two", "three", "four"]
LABELS = ["a", "b", "c"]


def test_gates_by_class_are_means_over_its_rows() -> None:
    record = gate_record(GATES, TARGET, TEXTS, LABELS)
    assert [(one.label, one.rows) for one in record.classes] == [("a", 2), ("c", 3)]
    assert record.classes[0].gates == pytest.approx([0.55, 0.45])
    assert record.classes[1].gates == pytest.approx([1.6 / 3, 1.4 / 3], abs=1e-6)


def test_a_text_counts_with_each_of_its_labels_and_those_without_any_are_one_more_class() -> None:
    target = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
    record = gate_record(GATES, target, TEXTS, LABELS)
    assert [(one.label, one.rows) for one in record.classes] == [
        ("a", 2),
        ("b", 2),
        ("no label", 2),
    ]
    assert record.classes[0].gates == pytest.approx([0.8, 0.2])
    assert record.classes[2].gates == pytest.approx([0.45, 0.55])
    assert [text.label for text in record.highest[0]] == ["a, b", "a", "no label"]
    assert record.fits(2)


def test_example_texts_are_those_at_both_ends() -> None:
    record = gate_record(GATES, TARGET, TEXTS, LABELS)
    assert [text.text for text in record.highest[0]] == ["zero", "four", "two"]
    assert [text.text for text in record.lowest[0]] == ["one", "three", "two"]
    # Of two sources the gates add up to one, so their ends are turned around.
    assert [text.row for text in record.highest[1]] == [text.row for text in record.lowest[0]]
    assert (record.highest[0][1].label, record.highest[0][1].gate) == ("c", 0.7)
    assert all(len(end) == EXAMPLES for end in record.highest + record.lowest)


def test_gates_that_are_the_same_for_every_text_have_no_ends() -> None:
    record = gate_record(np.full((5, 2), 0.5), TARGET, TEXTS, LABELS)
    assert record.highest == record.lowest == [[], []]


def test_epochs_are_means_over_the_seeds_that_all_reached() -> None:
    short, long = [[0.5, 0.5], [0.6, 0.4]], [[0.5, 0.5], [0.8, 0.2], [0.9, 0.1]]
    record = gate_record(GATES, TARGET, TEXTS, LABELS, [short, long])
    np.testing.assert_allclose(record.epochs, [[0.5, 0.5], [0.7, 0.3]])


@pytest.mark.parametrize("length", [LONGEST - 1, LONGEST, LONGEST + 1, 1000])
def test_long_texts_are_cut(length: int) -> None:
    shown = clipped("x" * length)
    assert len(shown) == min(length, LONGEST)
    assert shown.endswith("…") == (length > LONGEST)
    assert clipped("two\n\n lines\t") == "two lines"


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    record = gate_record(GATES, TARGET, TEXTS, LABELS, [[[0.5, 0.5]]])
    write_json(tmp_path / "gates.json", record)
    assert read_json(tmp_path / "gates.json", GateRecord, "gates") == record


# -- what jobs share ----------------------------------------------------------------------------


def _ids(*overrides: str) -> tuple[str, str]:
    config = load(compose("train", ["paths=default", *overrides]))
    return job_id(config), recipe_id(config)


@pytest.mark.parametrize(
    "override",
    ["backbone=[mpnet]", "lexical=[words]", "limit.per_class=10", "backbone=[minilm,mpnet]"],
)
def test_a_recipe_leaves_out_what_a_job_is_given(override: str) -> None:
    job, recipe = _ids()
    other, same = _ids(override)
    assert (job == other, recipe == same) == (False, True)


def test_a_recipe_leaves_out_which_layers_are_fixed() -> None:
    (one, recipe), (other, same) = (
        _ids("layers=fixed", f"layers.fixed.minilm={layers}") for layers in ("[3]", "[3,5]")
    )
    assert one != other
    assert recipe == same != _ids()[1]


@pytest.mark.parametrize("override", ["fusion=concat", "layers=all", "pooling=[last]", "seeds=2"])
def test_a_recipe_holds_what_a_job_does(override: str) -> None:
    assert _ids()[1] != _ids(override)[1]


def test_a_draw_of_nothing_is_no_other_job() -> None:
    assert _ids() == _ids("limit.draw=2")
    assert _ids("limit.per_class=10")[0] != _ids("limit.per_class=10", "limit.draw=2")[0]
