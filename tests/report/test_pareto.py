from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfusion.findings.compare import flops, front
from layerfusion.findings.costs import latency
from layerfusion.findings.groups import DataGroup, load_groups
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.tests import find_all, worth_their_price
from layerfusion.records.job import write_record
from layerfusion.report.blocks.costs import head_cost_table, model_cost_table
from layerfusion.report.blocks.pareto import pareto_block
from layerfusion.report.blocks.summary import cost_words
from tests.report.fabricate import dataset, write_job
from tests.report.reading import column_of, text_of

LAYERS = ("0", "2", "4", "6")


def _group(folder: Path, validation: tuple[float, ...]) -> DataGroup:
    data = dataset(rows=40)
    for layer, accuracy in zip(LAYERS, validation, strict=True):
        write_job(folder, data, [("minilm", layer)], 0.7, accuracy, seeds=2, head_flops=1000)
    (group,) = load_groups(folder)
    return group


def _on_front(jobs: list[FinishedJob]) -> set[str]:
    """By the definition: nothing else is at least as good in both and better in one."""
    points = {
        job.layer.layer: (flops(job), round(job.record.validation["accuracy"].mean, 9))
        for job in jobs
    }
    return {
        layer
        for layer, (cost, accuracy) in points.items()
        if not any(
            other_cost <= cost and other >= accuracy and (other_cost < cost or other > accuracy)
            for other_cost, other in points.values()
        )
    }


@given(st.tuples(*[st.sampled_from([0.6, 0.7, 0.8])] * 4))
def test_the_front_is_what_nothing_beats(
    tmp_path_factory: pytest.TempPathFactory, validation: tuple[float, ...]
) -> None:
    group = _groups(tmp_path_factory, validation)
    best = front(group.jobs)
    assert {job.layer.layer for job in best} == _on_front(list(group.jobs))
    costs = [flops(job) for job in best]
    assert costs == sorted(costs)


_made: dict[tuple[float, ...], DataGroup] = {}


def _groups(factory: pytest.TempPathFactory, validation: tuple[float, ...]) -> DataGroup:
    if validation not in _made:
        _made[validation] = _group(factory.mktemp("front"), validation)
    return _made[validation]


def test_operations_are_those_of_each_model_once_and_of_the_head(tmp_path: Path) -> None:
    pairs = [("minilm", "2"), ("minilm", "6"), ("smollm2", "15")]
    record = write_job(tmp_path, dataset(rows=40), pairs, 0.7, 0.7, seeds=2, head_flops=1234)
    (group,) = load_groups(tmp_path)
    expected = (
        sum(record.backbones[name].flops_per_text or 0 for name in ("minilm", "smollm2")) + 1234
    )
    assert flops(group.jobs[0]) == pytest.approx(expected)


def test_latency_of_a_job_is_that_of_its_models_and_its_head(tmp_path: Path) -> None:
    data = dataset(rows=40)
    both = [("minilm", "6"), ("smollm2", "norm")]
    write_job(tmp_path, data, both, 0.7, 0.7, seeds=2, head_milliseconds=(0.5, 1.0))
    write_job(tmp_path, data, [("minilm", "6")], 0.7, 0.7, seeds=2)
    (group,) = load_groups(tmp_path)
    table = head_cost_table({job: job.record.job for job in group.jobs})
    found = set(
        zip(column_of(table, "ms, one text"), column_of(table, "ms, batch of 32"), strict=True)
    )
    # 2.5 and 40 ms a layer are made up there; the head of the second was not measured.
    layers = 7 + 32
    assert found == {(f"{2.5 * layers + 0.5:.1f}", f"{40 * layers + 1:,.1f}"), ("–", "–")}
    models = model_cost_table(group)
    assert column_of(models, "ms, one text") == [f"{2.5 * 7:.1f}", f"{2.5 * 32:.1f}"]


def test_all_that_a_page_says_of_the_time_of_a_text_counts_the_head(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(rows=40), [("minilm", "6")], 0.7, 0.7, head_milliseconds=(0.5, 1))
    (group,) = load_groups(tmp_path)
    (job,) = group.jobs
    (shown,) = column_of(head_cost_table({job: "this"}), "ms, one text")
    assert shown == f"{2.5 * 7 + 0.5:.1f}"
    assert cost_words(job).startswith(f"{shown} ms, ")
    assert job.record.milliseconds_one == latency(job)


def test_the_figure_and_the_table_show_the_front(tmp_path: Path) -> None:
    group = _group(tmp_path, (0.6, 0.7, 0.65, 0.8))
    block = pareto_block(group, find_all([group])[group])
    assert block is not None
    (table,) = block.tables
    assert table.rows[0].texts[0].startswith("layer 0")
    assert len(table.rows) == 3
    assert "3 jobs" in text_of(block)
    costs = table.frame()["GFLOPs a text"]
    assert np.all(np.diff(costs) > 0)
    assert block.figures[0].key == "toy-cost"


def test_only_what_test_shows_is_worth_its_price(tmp_path: Path) -> None:
    """Validation puts all on the front; by test one is better, one as good and one worse."""
    data, rows = dataset(rows=400), np.arange(400)
    right = {"0": rows < 240, "2": rows < 320, "4": np.roll(rows < 322, 3), "6": rows < 200}
    for place, (layer, own) in enumerate(right.items()):
        seeds = np.tile(own, (2, 1))
        write_job(tmp_path, data, [("minilm", layer)], 0.7, 0.6 + place / 20, seeds=2, right=seeds)
    (group,) = load_groups(tmp_path)
    best = front(group.jobs)
    assert [job.layer.layer for job in best] == list(LAYERS)
    steps = worth_their_price(best)
    assert [one.verdict for one in steps.values()] == ["gain", "open", "loss"]
    assert [one.against for one in steps.values()] == [best[0], best[1], best[1]]
    assert all(one.adjusted == min(1, 3 * one.test.p) for one in steps.values())
    block = pareto_block(group, find_all([group])[group])
    assert block is not None
    words = text_of(block)
    assert "Worth its price: Layer 2 of minilm is better than layer 0 of minilm by 20.0" in words
    assert (
        "Test does not show 2 other jobs to be worth the price. Layer 6 of minilm is worse" in words
    )
    assert [row.mark for row in block.tables[0].rows] == ["chosen", "chosen", "", ""]


def test_where_test_cannot_tell_nothing_is_worth_its_price(tmp_path: Path) -> None:
    group = _group(tmp_path, (0.6, 0.7, 0.65, 0.8))
    block = pareto_block(group, find_all([group])[group])
    assert block is not None
    words = text_of(block)
    assert "Test does not show 2 dearer jobs to be worth the price. Whether" in words
    assert "Worth its price" not in words


def test_one_job_has_no_front(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(rows=40), [("minilm", "6")], 0.7, 0.7, seeds=1)
    (group,) = load_groups(tmp_path)
    assert pareto_block(group, find_all([group])[group]) is None


def test_unknown_tokens_are_shown_where_there_are_some(tmp_path: Path) -> None:
    data = dataset(rows=40)
    for name, shares in (("none", (None, 0.0)), ("some", (0.0, 0.1234)), ("old", (None, 1e-5))):
        for model, share in zip(("minilm", "mpnet"), shares, strict=True):
            record = write_job(tmp_path / name, data, [(model, "6")], 0.7, 0.7, seeds=1)
            backbones = {model: replace(record.backbones[model], unknown_share=share)}
            folder = tmp_path / name / f"toy-{record.job}"
            write_record(replace(record, backbones=backbones), folder)
    titles = {}
    for name in ("none", "some", "old"):
        (group,) = load_groups(tmp_path / name)
        table = model_cost_table(group)
        titles[name] = [column.title for column in table.columns]
        if name != "none":
            assert "Tokens unknown: those" in table.note
            shown = ["–", "12.34"] if name == "some" else ["–", "<\u00a00.01"]
            assert column_of(table, "Tokens unknown %") == shown
    assert "Tokens unknown %" not in titles["none"]


def test_on_a_tie_the_front_goes_on_to_what_is_used(tmp_path: Path) -> None:
    """One rule chooses on a page: the job that is used is never beside the front."""
    data = dataset(rows=40)
    for layer, loss in (("2", 0.4), ("4", 0.2), ("6", 0.3)):
        write_job(tmp_path, data, [("minilm", layer)], 0.7, 0.9, log_loss=loss)
    (group,) = load_groups(tmp_path)
    assert [job.layer.layer for job in front(group.jobs)] == ["2", "4"]
    assert front(group.jobs)[-1] is group.best
