"""Which settings name a job."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from layerfusion.commands.overrides import config_of
from layerfusion.composing.hydra import compose
from layerfusion.config import identity
from layerfusion.config.check import load
from layerfusion.config.identity import job_id, profile_id, recorded_settings


def name_of(*overrides: str) -> str:
    return job_id(load(compose("train", list(overrides))))


@pytest.mark.parametrize(
    ("common", "one", "other"),
    [
        ("fusion=concat", "fusion.width=64", "fusion.width=65"),
        ("layers=greedy", "layers.folds=4", "layers.folds=5"),
        ("fusion=stacked", "layers.folds=4", "layers.folds=5"),
        ("fusion=auto", "layers.folds=4", "layers.folds=5"),
        ("fusion=auto", "fusion.widths=[8]", "fusion.widths=[9]"),
        ("fusion=auto", "fusion.members=8", "fusion.members=9"),
        ("fusion=auto", "fusion.prefer=cheap", "fusion.prefer=accurate"),
        ("limit.per_class=10", "limit.draw=1", "limit.draw=2"),
        ("", "seed=0", "seed=1"),
        ("fusion=stacked", "objective=log_loss", "objective=macro_f1"),
        ("fusion=concat", "class_weights=none", "class_weights=balanced"),
        ("fusion=concat", "time_limit=600", "time_limit=601"),
        ("", "pooling=[mean,last]", "pooling=[last,mean]"),
        ("", "backbone=[minilm]", "backbone=[mpnet]"),
    ],
)
def test_what_changes_a_result_changes_the_name(common: str, one: str, other: str) -> None:
    shared = [common] if common else []
    assert name_of(*shared, one) != name_of(*shared, other)


@pytest.mark.parametrize(
    ("common", "one", "other"),
    [
        ("", "paths.outputs=a", "paths.outputs=b"),
        ("", "extract.token_budget=64", "extract.token_budget=65"),
        ("", "sweep=a", "sweep=b"),
        ("", "logger=none", "logger=wandb"),
        ("fusion=concat", "layers.folds=4", "layers.folds=5"),
        ("fusion=concat", "fusion.widths=[8]", "fusion.widths=[9]"),
        ("", "limit.draw=1", "limit.draw=2"),
    ],
)
def test_what_changes_no_result_changes_no_name(common: str, one: str, other: str) -> None:
    shared = [common] if common else []
    assert name_of(*shared, one) == name_of(*shared, other)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("fusion=gated fusion.temperature=2", "68158e5653a3"),
        ("fusion=matmul fusion.side=8 dataset=r8", "62e574c9bb97"),
        ("fusion=auto", "4f0a6ee37316"),
        ("experiment=auto lexical=[words,characters] dataset=r8", "75bd71196ec9"),
        ("experiment=auto dataset=r8", "3be335064f3a"),
        ("fusion=auto fusion.among=[stacked,late] dataset=r8", "a31abfdc4d5b"),
        ("fusion=stacked dataset.multilabel=true", "350cca30db67"),
        ("fusion=auto dataset.multilabel=true fusion.among=[stacked]", "be13cfff186e"),
    ],
)
def test_a_job_keeps_its_name_while_its_results_stay(overrides: str, name: str) -> None:
    assert name_of(*overrides.split()) == name


@pytest.mark.parametrize("several", ["dataset.multilabel=true", "dataset.label_columns=[a,b]"])
def test_what_auto_tries_where_texts_have_several_labels_is_in_the_name(several: str) -> None:
    named = {
        among: name_of("fusion=auto", several, *([f"fusion.among=[{among}]"] if among else []))
        for among in ("", "stacked", "stacked,late_stack")
    }
    assert named[""] == named["stacked,late_stack"] != named["stacked"]
    assert name_of("fusion=auto") == name_of("fusion=auto", "fusion.among=[stacked]")


@pytest.mark.parametrize("setting", ["objective=log_loss", "class_weights=none", "time_limit=null"])
def test_a_key_that_is_as_before_there_was_one_changes_no_name(setting: str) -> None:
    assert name_of("fusion=concat") == name_of("fusion=concat", setting)


def test_layers_go_by_a_folder_as_models_do(bert_folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "my (model)"
    shutil.copytree(bert_folder, mine)
    for place in (mine, str(mine)):
        fixed = {place: [1], "minilm": [3]}
        config = config_of("r8", ["minilm", place], {}, layers=fixed)
        assert dict(config.layers.fixed) == {"my__model_": [1], "minilm": [3]}


def test_layers_fixed_for_several_models_may_be_one_mapping() -> None:
    one = name_of("layers=fixed", "layers.fixed.minilm=[3,norm]")
    assert name_of("layers=fixed", "layers.fixed={minilm: [3, norm]}") == one
    config = config_of("r8", "minilm", {}, layers={"minilm": [3, "norm"]}, fusion="gated")
    assert config.layers.fixed == {"minilm": [3, "norm"]}


def test_jobs_with_class_weights_have_a_version_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [("fusion=late",), ("fusion=late", "class_weights=balanced")]
    before = [name_of(*job) for job in jobs]
    monkeypatch.setattr(identity, "WEIGHTED_VERSION", identity.WEIGHTED_VERSION + 1)
    same, other = (name_of(*job) for job in jobs)
    assert same == before[0]
    assert other != before[1]


@pytest.mark.parametrize(
    ("version", "changed"),
    [
        ("HEAD_VERSION", [False, True, True, True, True, False]),
        ("STACK_VERSION", [True, True, True, False, False, False]),
        ("PROBE_VERSION", [True, True, True, False, True, False]),
    ],
)
def test_what_comes_out_otherwise_has_another_name(
    version: str, changed: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of before answers only for what was computed before."""
    published = "protocol=as_published fusion=published_sum"
    scored = "fusion=gated layers=top_k"
    jobs = ["fusion=stacked", "fusion=late_stack", "fusion=auto", "fusion=gated", scored, published]
    before = [name_of(*job.split()) for job in jobs]
    monkeypatch.setattr(identity, version, getattr(identity, version) + 1)
    after = [name_of(*job.split()) for job in jobs]
    assert [one != other for one, other in zip(before, after, strict=True)] == changed


def test_an_operator_of_the_users_is_named_by_its_class_and_arguments(tmp_path: Path) -> None:
    (tmp_path / "fusion").mkdir()
    names = set()
    for target in ("mine.A", "mine.B"):
        for scale in (1, 2):
            text = f"name: of_mine\n_target_: {target}\nscale: {scale}\n"
            (tmp_path / "fusion" / "of_mine.yaml").write_text(text)
            for fusion in ("of_mine", "auto fusion.among=[of_mine]"):
                names.add(name_of(f"--config-dir={tmp_path}", *f"fusion={fusion}".split()))
    assert len(names) == 8


def test_profiles_keep_the_names_that_they_had_before_there_was_more_to_compare() -> None:
    def named(*overrides: str) -> str:
        return profile_id(load(compose("profile", list(overrides))))

    usual = named("dataset=mr", "backbone=minilm")
    assert usual == named(
        "dataset=mr",
        "backbone=minilm",
        "profile.selections=[top_k,adaptive,greedy,sparse,even]",
        "profile.multi_layer=[]",
    )
    assert usual != named("dataset=mr", "backbone=minilm", "profile.multi_layer=[scalar_mix]")
    assert usual != named("dataset=mr", "backbone=minilm", "profile.selections=[even]")


def test_a_record_has_the_settings_of_selection_fusion_and_training() -> None:
    words = ["fusion=gated", "fusion.temperature=2", "layers=top_k", "layers.k=3"]
    budget = ["layers.budget.flops_per_text=1e9", "objective=macro_f1", "trainer.batch_size=8"]
    settings = recorded_settings(load(compose("train", [*words, *budget])))
    expected = {
        "fusion.temperature": 2.0,
        "layers.k": 3,
        "layers.score": "probe",
        "layers.budget.flops_per_text": 1e9,
        "objective": "macro_f1",
        "trainer.batch_size": 8,
    }
    assert settings == settings | expected
    told_elsewhere = {"fusion.name", "fusion.target", "fusion.widths", "layers.name", "time_limit"}
    assert not settings.keys() & told_elsewhere
    last = recorded_settings(load(compose("train", ["layers=last", "fusion=concat"])))
    assert not any(key.startswith("layers.") for key in last)
    assert recorded_settings(load(compose("train", ["fusion=auto"])))["fusion.widths"] == [64, 256]


def test_settings_in_python_are_dicts_as_deep_as_the_keys() -> None:
    deep = {
        "backbone_": {"minilm": {"max_length": 64}},
        "layers_": {"budget": {"flops_per_text": 1e9}, "k": 2},
    }
    flat = {"backbone.minilm.max_length": 64, "layers.budget.flops_per_text": 1e9, "layers.k": 2}
    config = config_of("r8", "minilm", deep, layers="top_k", fusion="auto")
    assert config.backbone["minilm"].max_length == 64
    assert config == config_of("r8", "minilm", flat, layers="top_k", fusion="auto")
