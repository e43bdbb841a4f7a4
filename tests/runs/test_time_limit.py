"""`time_limit`: which models fit, what is said of the others, and jobs that keep to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import layerfusion as lf
from layerfusion.cli import main
from layerfusion.commands import hydra_jobs
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.job import TrainConfig
from layerfusion.errors import UserError
from layerfusion.fusion.deadline import Deadline
from layerfusion.records.job import METRICS, RunRecord, read_record
from layerfusion.runs import time_limit
from layerfusion.runs.inputs import prepare_texts
from layerfusion.runs.job_texts import dataset_of
from layerfusion.runs.plan import BackbonePlan, Plan, plan_texts
from layerfusion.runs.time_limit import extract_in_time, plans_in_time
from tests.tiny import run, tiny_folder, tiny_texts

MODELS = ("minilm", "smollm2", "granite")


def config_of(*words: str) -> TrainConfig:
    return load(compose("train", [f"backbone=[{','.join(MODELS)}]", "logger=none", *words]))


def plan_of(*seconds: float, pilot: int | None = None, download: int = 0) -> Plan:
    """A plan of as many models as there are seconds, for 1,000 texts each."""
    models = [
        BackbonePlan(name, download, 1000, 1000 if each else 0, 9, False, 3, 1.0, 1, each)
        for name, each in zip(MODELS, seconds, strict=False)
    ]
    rows = {"train": 700, "validation": 100, "test": 200}
    return Plan("texts", rows, 1.0, "cpu", tuple(models), pilot)


def stopped(limit: float) -> Deadline:
    """A limit of which all is left, however long the test takes."""
    return Deadline(limit, begun=0, now=lambda: 0)


@pytest.mark.parametrize(
    ("seconds", "kept"),
    [
        ([30, 500, 40], ["minilm", "granite"]),
        ([30, 30, 30], ["minilm", "smollm2", "granite"]),
        ([60, 50, 40], ["granite", "smollm2"]),  # the largest set is that of the cheapest
        ([0, 0, 900], ["minilm", "smollm2"]),  # they are in the cache
    ],
)
def test_as_many_models_are_kept_as_fit_into_the_share_of_extraction(
    seconds: list[float], kept: list[str]
) -> None:
    deadline = stopped(140)  # 98 s for extraction
    plans = plans_in_time(plan_of(*seconds), config_of("time_limit=140"), deadline)
    assert [plan.name for plan in plans] == kept
    assert len(deadline.left_out) == 3 - len(kept)


def test_a_model_that_is_left_out_is_named_with_what_it_would_take() -> None:
    deadline = stopped(600)
    plans_in_time(plan_of(30, 540, 40), config_of("time_limit=600"), deadline)
    assert deadline.left_out == [
        "smollm2 is left out: its extraction would take about 9 min, and 6 min are left for it"
        " (time_limit=600)"
    ]


def test_a_download_counts() -> None:
    plan = plan_of(1, download=2_000_000_000)
    with pytest.raises(UserError, match="its download and extraction would take about 3 min"):
        plans_in_time(plan, config_of("time_limit=60"), stopped(60))


def test_where_no_model_fits_one_line_says_the_ways_out() -> None:
    with pytest.raises(UserError) as caught:
        plans_in_time(plan_of(300, 900), config_of("time_limit=60"), stopped(60))
    line = str(caught.value)
    assert line.startswith("time_limit=60: there is no time for any model, minilm is the cheapest:")
    for way in ("about 5 min", "limit.train", "backbone.minilm.max_length", "layers.pilot"):
        assert way in line
    assert "\n" not in line


def test_a_server_that_nobody_can_plan_is_asked_where_no_model_fits() -> None:
    server = "{endpoint: 'http://localhost/v1', model: m}"
    config = config_of("time_limit=60", f"+backbone.paid={server}")
    plan = plan_of(300, 900)
    asked = replace(plan.backbones[0], name="paid", seconds=0.0, elsewhere="m at localhost")
    plan = replace(plan, backbones=(asked, *plan.backbones))
    deadline = stopped(60)
    assert [one.name for one in plans_in_time(plan, config, deadline)] == ["paid"]
    assert len(deadline.left_out) == 2


def test_models_in_the_cache_fit_even_when_the_time_is_over() -> None:
    deadline = Deadline(1, begun=0, now=lambda: 9)
    assert len(plans_in_time(plan_of(0, 0), config_of("time_limit=1"), deadline)) == 2


def test_only_the_sample_of_a_pilot_has_to_fit() -> None:
    words = ("time_limit=100", "layers=adaptive", "layers.pilot=100")
    kept = plans_in_time(plan_of(300, 600, pilot=100), config_of(*words), stopped(100))
    assert [plan.name for plan in kept] == ["minilm"]  # 30 of 70 s; the other takes 60


def test_fixed_layers_of_a_model_for_which_there_is_no_time_are_one_line() -> None:
    fixed = [f"layers.fixed.{name}=[1]" for name in MODELS]
    config = config_of("time_limit=60", "layers=fixed", *fixed)
    with pytest.raises(UserError, match=r"^layers.fixed.smollm2: there is no time .* backbone and"):
        plans_in_time(plan_of(1, 900, 2), config, stopped(60))


@pytest.mark.parametrize("value", ["0", "-5", "nan", "inf", "soon", "true", "[1]"])
def test_a_limit_that_is_no_time_is_one_line(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tiny_texts(tmp_path / "texts.csv", 20)
    words = ["train", str(texts), f"paths.outputs={tmp_path}", f"time_limit={value}"]
    code, said = run(words, capsys)
    assert code == 2
    assert "time_limit" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("command", ["extract", "profile"])
def test_commands_that_leave_nothing_out_take_no_limit(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tiny_texts(tmp_path / "texts.csv", 20)
    words = [command, str(texts), f"paths.outputs={tmp_path}", "time_limit=5", "logger=none"]
    code, said = run(words, capsys)
    assert code == 2
    assert f"`layerfusion {command}` leaves nothing out" in said


def test_functions_of_python_that_leave_nothing_out_take_no_limit(tmp_path: Path) -> None:
    texts = tiny_texts(tmp_path / "texts.csv", 20)
    model = tiny_folder("bert", tmp_path / "bert")
    asked: dict[str, Any] = {"cache": tmp_path / "cache", "time_limit": 5}
    for name, call in {
        "extract": lambda: lf.extract(texts, model, **asked),
        "embed": lambda: lf.embed(["a film"], model, **asked),
        "select_layers": lambda: lf.select_layers(texts, model, "last", **asked),
        "rank": lambda: lf.rank(model, ["a", "b", "c", "d"], [0, 1, 0, 1], **asked),
    }.items():
        with pytest.raises(UserError, match=f"^time_limit=5: .*; {name} leaves nothing out$"):
            call()


def test_the_time_of_a_sweeps_job_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(hydra_jobs, "run_hydra", lambda _, run, __: given.append(run) or 0)
    hydra_jobs.train(["dataset=r8", "time_limit=60"])
    hydra_jobs.train(["-m", "dataset=r8", "time_limit=60"])
    assert given[0].keywords["begun"] > 0
    assert given[1] is hydra_jobs._train_job


# -- jobs on tiny models ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("time")
    for family in ("bert", "llama"):
        tiny_folder(family, root / family)
    tiny_texts(root / "texts.csv", 80)
    return root


def words_of(place: Path, *words: str) -> list[str]:
    models = [f"backbone.{name}.path={place / name}" for name in ("bert", "llama")]
    common = [f"paths.cache={place / 'cache'}", f"paths.outputs={place / 'out'}", "logger=none"]
    quick = ["layers.folds=2", "extract.token_budget=512", "fusion=auto", "layers=adaptive"]
    data = ["dataset=local", f"dataset.path={place / 'texts.csv'}"]
    return [*data, *models, *common, *quick, "seeds=1", *words]


def record_of(place: Path, name: str, *words: str) -> RunRecord:
    folder = place / name
    assert main(["train", *words_of(place, *words), f"hydra.run.dir={folder}"]) == 0
    return read_record(folder)


def slow(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make the plan say of a model that it takes ten days."""

    def plan(config: TrainConfig, dataset: lf.TextDataset) -> Plan:
        made = plan_texts(config, dataset)
        models = [
            replace(one, seconds=864_000.0, missing=one.texts) if one.name == name else one
            for one in made.backbones
        ]
        return replace(made, backbones=tuple(models))

    monkeypatch.setattr(time_limit, "plan_texts", plan)


def test_a_job_within_its_time_is_as_without_a_limit_and_is_finished_then(
    place: Path,
) -> None:
    within = record_of(place, "within", "time_limit=500")
    without = record_of(place, "without")
    assert within.test == without.test
    assert within.job != without.job
    assert without.time_notes == []
    (note,) = within.time_notes
    assert note.startswith("nothing was left out, and ")
    written = (place / "within" / METRICS).stat().st_mtime_ns
    assert record_of(place, "within", "time_limit=500") == within
    assert (place / "within" / METRICS).stat().st_mtime_ns == written


def test_a_job_without_the_slow_model_is_that_of_the_others_and_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, "llama")
    kept = record_of(place, "kept", "time_limit=501")
    assert [*kept.considered] == ["bert"]
    left, why = kept.time_notes
    assert left.startswith("llama is left out: its extraction would take about 240.0 h, and ")
    assert "a faster machine" in why
    alone = record_of(place, "alone", f"backbone.bert.path={place / 'bert'}", "~backbone.llama")
    assert kept.test == alone.test
    written = (place / "kept" / METRICS).stat().st_mtime_ns
    assert record_of(place, "kept", "time_limit=501") == kept
    assert (place / "kept" / METRICS).stat().st_mtime_ns == written


def test_models_are_extracted_until_the_time_is_over(place: Path, tmp_path: Path) -> None:
    """The plan says that both fit; the clock, that the first took all the time."""
    words = words_of(place, f"paths.cache={tmp_path}", "time_limit=100")
    config = load(compose("train", words))
    dataset = dataset_of(config)
    times = iter([0.0, 0.0, 0.0])
    deadline = Deadline(100, begun=0, now=lambda: next(times, 90.0))
    plans = [replace(one, seconds=5) for one in plan_texts(config, dataset).backbones]
    kept = extract_in_time(config, dataset, plans, deadline)
    assert [*kept.backbone] == ["bert"]
    assert deadline.left_out[0].startswith("llama is left out: ")


def test_a_pilot_chooses_what_all_texts_can_pass_through_in_time(
    place: Path, tmp_path: Path
) -> None:
    words = words_of(place, f"paths.cache={tmp_path}", "layers.pilot=20", "time_limit=10")
    config = load(compose("train", words))
    deadline = Deadline(10, begun=0, now=lambda: 10)
    inputs = prepare_texts(config, dataset_of(config), deadline)
    assert {layer.layer for layer in inputs.selection.layers} == {"0"}
    assert deadline.left_out[0].startswith("after the pilot only layers of at most 0 GFLOPs a text")
    freely = prepare_texts(config, dataset_of(config), stopped(1e6))
    assert {layer.layer for layer in freely.selection.layers} != {"0"}
    assert freely.deadline.left_out == []
