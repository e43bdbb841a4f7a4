"""Names of jobs: short, as one would say them, and distinct."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from layerfusion.findings.frame import results
from layerfusion.findings.groups import load_groups
from layerfusion.findings.names import job_name, job_names
from layerfusion.findings.tests import find_all
from layerfusion.records.format import every_layer
from layerfusion.records.job import RunRecord, write_record
from layerfusion.report.blocks.summary import group_card
from layerfusion.report.ranking import ranking_lines
from tests.report.fabricate import MODELS, dataset, write_job

SOURCES = [("minilm", "3"), ("smollm2", "4")]


def read_otherwise(runs: Path, record: RunRecord, **settings: object) -> None:
    """Change how all models of a job read texts."""
    backbones = {
        name: replace(backbone, spec=backbone.spec | settings)
        for name, backbone in record.backbones.items()
    }
    (folder,) = runs.glob(f"*-{record.job}")
    write_record(replace(record, backbones=backbones), folder)


def test_jobs_that_read_texts_otherwise_are_told_apart_by_that(tmp_path: Path) -> None:
    data = dataset(rows=400)
    for salt, reading in (("a", "truncate"), ("b", "windows")):
        record = write_job(tmp_path, data, SOURCES, 0.8, 0.8, salt=salt)
        read_otherwise(tmp_path, record, long_texts=reading)
    (group,) = load_groups(tmp_path)
    assert sorted(job_names(group).values()) == [
        "layer 3 of minilm and layer 4 of smollm2, gated (long_texts=truncate)",
        "layer 3 of minilm and layer 4 of smollm2, gated (long_texts=windows)",
    ]


def test_jobs_with_other_settings_are_told_apart_by_those_that_differ(tmp_path: Path) -> None:
    data, common = dataset(rows=400), {"trainer.batch_size": 64, "fusion.width": 256}
    settings = {
        "a": {**common, "fusion.hidden": 8},
        "b": {**common, "fusion.hidden": 16, "fusion.names": ["x", "y"]},
    }
    for salt, own in settings.items():
        record = write_job(tmp_path, data, SOURCES, 0.8, 0.8, salt=salt)
        write_record(replace(record, settings=own), next(tmp_path.glob(f"*-{record.job}")))
    (group,) = load_groups(tmp_path)
    name = "layer 3 of minilm and layer 4 of smollm2, gated"
    apart = ["fusion.hidden=8", 'fusion.hidden=16, fusion.names=["x", "y"]']
    assert sorted(job_names(group).values()) == sorted(f"{name} ({words})" for words in apart)
    assert sorted(results(tmp_path).settings) == sorted(apart)
    lines = ranking_lines(tmp_path)
    assert any("Settings" in line for line in lines)
    assert any("fusion.hidden=8" in line for line in lines)
    # Beside a record that has no settings, as it is older, nothing can be said.
    old = write_job(tmp_path, data, SOURCES, 0.8, 0.8, salt="c")
    (group,) = load_groups(tmp_path)
    assert f"{name} (job {old.job[:6]})" in job_names(group).values()
    assert set(results(tmp_path).settings) == {""}


def test_a_layer_that_was_run_with_other_settings_is_named_by_them(tmp_path: Path) -> None:
    for salt, rate in (("a", 0.1), ("b", 0.2)):
        record = write_job(tmp_path, dataset(), [("minilm", "3")], 0.8, 0.8, salt=salt)
        settings = {"trainer.learning_rate": rate}
        write_record(replace(record, settings=settings), next(tmp_path.glob(f"*-{record.job}")))
    (group,) = load_groups(tmp_path)
    (name,) = job_names(group).values()
    assert name.startswith("layer 3 of minilm, gated (trainer.learning_rate=0.")


def test_jobs_that_differ_in_nothing_that_is_read_have_their_numbers(tmp_path: Path) -> None:
    data = dataset(rows=400)
    jobs = [write_job(tmp_path, data, SOURCES, 0.8, 0.8, salt=salt).job for salt in "ab"]
    (group,) = load_groups(tmp_path)
    assert sorted(job_names(group).values()) == sorted(
        f"layer 3 of minilm and layer 4 of smollm2, gated (job {job[:6]})" for job in jobs
    )


@pytest.mark.parametrize(
    ("layers", "settings", "name"),
    [
        ("minilm 6 0", {"selection": "greedy"}, "layers 0 and 6 of minilm (greedy), gated"),
        ("minilm 3 2 4 0 1", {}, "layers 0–4 of minilm, gated"),
        ("minilm 0 1 3 4 5", {}, "layers 0, 1 and 3–5 of minilm, gated"),
        ("smollm2 norm 4", {}, "layers 4 and norm of smollm2, gated"),
        ("minilm 6;smollm2 norm", {}, "layer 6 of minilm and the final norm of smollm2, gated"),
        (
            "minilm 6;smollm2 norm",
            {"selection": "last"},
            "last layers of minilm and smollm2, gated",
        ),
        (
            "smollm2 0 1 2 3;words 0;minilm 0 1 2;pairs 0",
            {"selection": "adaptive", "lexical": ["words", "pairs"]},
            "7 layers of smollm2 and minilm with words and pairs (adaptive), gated",
        ),
        (
            "minilm 3;words 0",
            {"selection": "adaptive", "lexical": ["words"], "chosen_by": "auto"},
            "layer 3 of minilm with words, gated (auto)",
        ),
        (
            "words 0;pairs 0",
            {"lexical": ["words", "pairs"]},
            "words and pairs, gated",
        ),
    ],
)
def test_a_name_reads_as_one_would_say_it(
    tmp_path: Path, layers: str, settings: dict[str, object], name: str
) -> None:
    parts = [part.split() for part in layers.split(";")]
    sources = [(model, layer) for model, *own in parts for layer in own]
    models = MODELS | {"pairs": ["0"]}
    record = write_job(tmp_path, dataset(rows=40), sources, 0.8, 0.8, models=models)
    assert job_name(replace(record, **settings)) == name


def test_many_layers_are_counted_in_the_name_and_listed_beside_it(tmp_path: Path) -> None:
    """A layer in two poolings is one layer."""
    sources = [("smollm2", str(n)) for n in (3, 1, 2, 0)] + [("minilm", str(n)) for n in (2, 1, 0)]
    data = dataset(rows=40)
    record = write_job(tmp_path, data, sources, 0.8, 0.8)
    twice = [*record.layers, *(replace(x, pooling="last") for x in record.layers)]
    (folder,) = tmp_path.iterdir()
    write_record(replace(record, layers=twice), folder)
    (group,) = load_groups(tmp_path)
    summary = group_card(group, find_all([group])[group])
    assert summary.headline == "Use 7 layers of smollm2 and minilm, gated"
    assert summary.layers == "smollm2: 0, 1, 2, 3; minilm: 0, 1, 2"
    assert every_layer(replace(record, layers=record.layers[:6])) == ""


def test_jobs_that_differ_in_pooling_or_selection_are_told_apart_by_that(tmp_path: Path) -> None:
    data = dataset(rows=400)
    for pooling in ("mean", "first"):
        write_job(tmp_path, data, SOURCES, 0.8, 0.8, pooling=pooling)
    (group,) = load_groups(tmp_path)
    name = "layer 3 of minilm and layer 4 of smollm2, gated"
    assert sorted(job_names(group).values()) == [
        f"{name} (pooling=first)",
        f"{name} (pooling=mean)",
    ]


def test_the_answer_has_no_number_of_a_job(tmp_path: Path) -> None:
    for salt in "ab":
        write_job(tmp_path, dataset(rows=400), SOURCES, 0.8, 0.8, salt=salt)
    (group,) = load_groups(tmp_path)
    headline = group_card(group, find_all([group])[group]).headline
    assert headline == "Use layer 3 of minilm and layer 4 of smollm2, gated"
