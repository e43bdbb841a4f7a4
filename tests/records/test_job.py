"""Records: facts by field, read by type; those of the first schema are read too."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from layerfusion.errors import UserError
from layerfusion.fusion import objective
from layerfusion.records.job import METRICS, read_record, write_record

OLD = Path(__file__).parent / "data" / "schema_1.json"
"""A record as schema 1 had it: floor, entrants, teams, and facts inside of sentences."""


def written(folder: Path, change: Any = None) -> Path:
    raw = json.loads(OLD.read_text())
    if change is not None:
        change(raw)
    (folder / METRICS).write_text(json.dumps(raw))
    return folder


def test_a_record_of_schema_1_is_read_with_its_facts_in_fields(tmp_path: Path) -> None:
    raw = json.loads(OLD.read_text())
    record = read_record(written(tmp_path))
    assert raw["schema"] == 1
    assert (raw["fusion"], record.fusion, record.chosen_by) == ("auto: gated", "gated", "auto")
    assert record.fusion_label == "auto: gated"
    assert record.baseline.test == raw["floor"]["test"]
    assert record.decision == [raw["fusion_notes"][0].removeprefix("auto: ")]
    assert record.fusion_notes == raw["fusion_notes"][1:]
    assert [layer.reason for layer in record.layers] == ["held-out log-loss 0.4, the best"] * 2
    assert record.candidates[0].layer_set == raw["entrants"][0]["team"]
    assert record.protocol_facts == {}
    write_record(record, tmp_path)
    assert read_record(tmp_path) == record


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_shift_of_a_seed_is_read_from_its_note_in_records_without_a_field(
    tmp_path: Path, multilabel: bool
) -> None:
    whole = objective._whole_shift(torch.tensor([0.8, 0.2]), multilabel=multilabel)
    shifts = [objective._share(x, whole, multilabel=multilabel) for x in objective.SHARES]
    shifts += [objective._threshold(x, whole) for x in objective.THRESHOLDS]
    for shift in shifts:

        def change(raw: dict[str, Any], words: str = shift.words) -> None:
            raw["fusion_notes"] = ["seed 0: one weight", f"seed 1: one weight; {words}"]

        record = read_record(written(tmp_path, change))
        assert [seed.shift for seed in record.seeds] == ["", shift.words]
        bare = [replace(seed, shift="") for seed in record.seeds]
        write_record(replace(record, seeds=bare), tmp_path)
        assert read_record(tmp_path).seeds == bare  # where there is a field, it is what counts


def test_what_the_published_protocol_left_is_read(tmp_path: Path) -> None:
    facts = {"residual": False, "padding": {"minilm": 0.2}, "epochs": 100, "halvings": 50}

    def change(raw: dict[str, Any]) -> None:
        raw["published"] = facts

    assert read_record(written(tmp_path, change)).protocol_facts == facts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["cost"].update(head_parameters="many"), "cost.head_parameters: Input"),
        (lambda raw: raw["test"]["accuracy"].update(mean=None), "test.accuracy.mean: Input"),
        (lambda raw: raw.pop("layers"), "'layers'"),
        (lambda raw: raw["seeds"][1].pop("best_epoch"), "seeds.1.best_epoch: Field required"),
        (lambda raw: raw.update(schema=3), "schema 3, this version reads 1 and 2"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_record(written(tmp_path, change))
    assert str(tmp_path / METRICS) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '{"schema": 2}', "\x00"])
def test_what_is_no_record_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / METRICS).write_text(content)
    with pytest.raises(UserError, match=r"metrics\.json: not a record of a finished job"):
        read_record(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    (tmp_path / METRICS).mkdir()
    with pytest.raises(UserError, match=r"metrics\.json: not a record of a finished job"):
        read_record(tmp_path)
