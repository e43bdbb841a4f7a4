"""Selection, profile and pilot as jobs run them, on a tiny model and a tiny file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from layerfusion.config.job import LayersConfig, LexicalConfig
from layerfusion.embeddings.cache_key import TFIDF
from layerfusion.embeddings.lexical import open_lexical
from layerfusion.fusion import classifier
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.held_out import held_out_probes
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.repeats import distinct_share, standard_error
from layerfusion.layers.similarity import linear_cka
from layerfusion.records.job import find_records
from layerfusion.records.profile import find_profiles
from layerfusion.runs import job_texts, pilot, select_layers
from tests.tiny import run

SCORED = ("layers=top_k layers.k=2", "layers=adaptive", "layers=greedy")


def chosen(folder: Path) -> dict[str, list[tuple[str, str, str]]]:
    return {
        record.job: [(layer.layer, layer.pooling, layer.reason) for layer in record.layers]
        for _, record in find_records(folder)
    }


@pytest.mark.parametrize("selection", SCORED)
def test_a_selection_records_what_it_chose_and_why(
    selection: str, job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(["train", *job, *selection.split()], capsys)
    assert code == 0, said
    ((_, record),) = find_records(tmp_path / "outputs")
    assert list(record.considered) == ["tiny"]
    assert len(record.considered["tiny"]) == 2  # a store a pooling
    for layer in record.layers:
        assert layer.reason.startswith("held-out log-loss")
        name = "norm" if layer.layer == "norm" else f"layer {layer.layer}"
        assert f"selected {name} of tiny" in said
        assert f": {layer.reason}" in said
    if selection != SCORED[2]:
        assert sum(layer.weight or 0 for layer in record.layers) == pytest.approx(1)


AUTO = "layers=all fusion=auto fusion.among=[stacked,gated] fusion.widths=[4] lexical=[words]"


@pytest.mark.parametrize("selection", [*SCORED, "layers=adaptive layers.pilot=60", AUTO])
def test_test_labels_change_no_choice(
    selection: str,
    job: list[str],
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = tmp_path / "turned"
    copy.mkdir()
    train = pd.read_csv(texts / "train.csv")
    test = pd.read_csv(texts / "test.csv")
    train.to_csv(copy / "train.csv", index=False)
    test.label = test.label.map({"n": "p", "p": "n"})
    test.to_csv(copy / "test.csv", index=False)
    found = []
    for folder, name in ((texts, "first"), (copy, "second")):
        outputs = tmp_path / name
        job_texts._datasets.clear()  # as in a new process
        arguments = ["train", *job, *selection.split(), f"dataset.path={folder}"]
        assert run([*arguments, f"paths.outputs={outputs}"], capsys)[0] == 0
        ((_, record),) = find_records(outputs)
        found.append((record.layers, record.test["accuracy"].mean, record.candidates))
    (layers, accuracy, fusion_candidates), (same, turned, again) = found
    assert fusion_candidates == again
    assert [(x.layer, x.pooling, x.reason) for x in layers] == [
        (x.layer, x.pooling, x.reason) for x in same
    ]
    assert accuracy + turned == pytest.approx(1)  # the labels of test did change


def test_a_pilot_keeps_the_chosen_layers_of_the_rest_only(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", *job, "layers=top_k", "layers.k=1", "layers.budget.max_layer=1"]
    code, said = run([*arguments, "layers.pilot=60", "extract.shard_texts=32"], capsys)
    assert code == 0, said
    ((_, record),) = find_records(tmp_path / "outputs")
    pilot = record.pilot
    assert pilot is not None
    assert pilot.flops is not None
    assert pilot.flops_full is not None
    assert pilot.rows[0] == 60
    assert pilot.rows[-1] == pilot.texts_whole < 216
    assert pilot.texts == 300
    assert pilot.flops < pilot.flops_full
    assert pilot.bytes < pilot.bytes_full
    (layer,) = record.layers
    stores = list((tmp_path / "cache/embeddings").iterdir())
    texts_by_layer = [_texts_by_layer(folder) for folder in stores]
    used = next(found for found in texts_by_layer if found[layer.layer] == 300)
    others = [count for name, count in used.items() if name != layer.layer]
    others += [count for found in texts_by_layer if found is not used for count in found.values()]
    assert set(others) == {pilot.texts_whole}


def _texts_by_layer(folder: Path) -> dict[str, int]:
    from layerfusion.embeddings.shards import open_shard

    shards = [open_shard(path) for path in folder.glob("*.safetensors")]
    texts: dict[str, set[bytes]] = {}
    for shard, hashes in shards:
        for layer in shard.layers:
            texts.setdefault(layer, set()).update(map(bytes, hashes))
    return {layer: len(of_layer) for layer, of_layer in texts.items()}


def test_a_pilot_gives_the_job_of_the_full_way_where_it_chooses_the_same(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", *job, "layers=top_k", "layers.k=1", "layers.budget.max_layer=0"]
    records = []
    for name, more in (("whole", []), ("pilot", ["layers.pilot=40"])):
        places = [f"paths.cache={tmp_path / name}", f"paths.outputs={tmp_path / name / 'out'}"]
        assert run([*arguments, *places, *more, "pooling=[mean]"], capsys)[0] == 0
        ((_, record),) = find_records(tmp_path / name / "out")
        records.append(record)
    assert [x.layer for x in records[0].layers] == [x.layer for x in records[1].layers] == ["0"]
    assert records[0].test["log_loss"].mean == pytest.approx(records[1].test["log_loss"].mean)


def test_auto_goes_on_where_a_pilot_left_a_model_and_a_pooling_out(
    job: list[str],
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    second = f"backbone.second.path={folders['bert']}"
    selection = ["layers=top_k", "layers.k=1", "layers.pilot=60"]
    arguments = ["train", *job, second, *selection, *AUTO.split()[1:-1]]
    code, said = run(arguments, capsys)
    assert code == 0, said
    ((_, record),) = find_records(tmp_path / "outputs")
    assert record.pilot is not None
    assert record.pilot.texts_whole < 216
    assert len(record.layers) == 1


def test_auto_records_all_that_it_judged_and_runs_what_it_prefers(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*job, "layers=adaptive", *AUTO.split()[1:]]
    code, said = run(["train", *arguments], capsys)
    assert code == 0, said
    ((_, record),) = find_records(tmp_path / "outputs")
    best = record.candidates[0]
    assert (record.chosen_by, record.fusion) == ("auto", best.fusion)
    assert record.fusion_label == f"auto: {best.fusion}"
    assert [f"{x.backbone}:{x.layer}:{x.pooling}" for x in record.layers] == best.layers
    assert best.behind == 0
    assert {one.fusion for one in record.candidates} == {"stacked", "gated"}
    assert best.layer_set == "every layer"
    for one in record.candidates[1:]:
        if one.folds == 3 and one.behind_error is not None:
            assert one.behind >= -2 * one.behind_error  # else it would have been taken
    assert "the most layers of" in record.decision[0]
    assert "none of which is surely better" in record.decision[0]


def test_auto_counts_the_words_that_a_stack_weighs(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stack weighs counted words; the vectors of words, far fewer numbers, are for heads."""
    words = ["lexical=[characters,pairs_bayes]", "fusion=auto", "layers=all", "seeds=1"]
    code, said = run(["train", *job, *words], capsys)
    assert code == 0, said
    ((_, record),) = find_records(tmp_path / "outputs")
    (taken,) = {x.head_parameters for x in record.candidates if len(x.layers) == 12}
    assert len(record.layers) == 12
    # What is left are the numbers of the pool, which are not known before it is fitted.
    pool = record.cost.head_parameters - taken
    assert 0 < pool <= 13 + 3 * 12 * 12


@pytest.mark.parametrize(("selection", "told"), [("last", True), ("all", False)])
def test_auto_says_where_it_was_not_free_to_look_at_all_layers(
    selection: str, told: bool, job: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    setting = f"layers={selection} fusion=auto fusion.among=[stacked]"
    code, said = run(["train", *job, *setting.split()], capsys)
    assert code == 0, said
    assert (f"only the layers of layers={selection};" in said) == told


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("fusion.among=[gatd]", "fusion.among"),
        ("fusion.among=[]", "at least one"),
        ("fusion.widths=[0]", "fusion.widths"),
        ("fusion.among=[late] fusion.residual=true", "late ends in classes and has no residual"),
        ("fusion.among=[stacked,matmul] fusion.widths=[32,10]", "fusion.width=10: matmul needs"),
        ("layers=adaptive layers.budget.flops_per_text=-1", "flops_per_text"),
    ],
)
def test_a_mistake_in_auto_gets_one_line(
    setting: str, words: str, job: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(["train", *job, "fusion=auto", *setting.split()], capsys)
    assert code == 2
    assert words in said
    assert "\n" not in said


def test_probes_are_kept_between_jobs(
    job: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from layerfusion.layers import held_out

    assert run(["train", *job, "layers=adaptive"], capsys)[0] == 0

    def never(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("the probes were fitted again")

    monkeypatch.setattr(held_out, "cross_validate_in_batches", never)
    assert run(["train", *job, "layers=greedy", "fusion=concat"], capsys)[0] == 0


def test_probes_that_were_fitted_before_a_kill_are_not_fitted_again(
    job: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from layerfusion.layers import held_out, probe

    fitted: list[int] = []
    real = held_out.cross_validate_in_batches

    def killed(features: Any, *arguments: Any, **settings: Any) -> Any:
        for batch in real(features, *arguments, **settings):
            yield batch
            fitted.append(len(features))
            if len(fitted) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(probe, "CELLS", 1)  # every layer is a batch of its own
    monkeypatch.setattr(held_out, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(probe, "GPU_BYTES_A_CELL", 2**62)
    monkeypatch.setattr(held_out, "cross_validate_in_batches", killed)
    assert run(["train", *job, "layers=adaptive"], capsys)[0] != 0
    assert run(["train", *job, "layers=adaptive"], capsys)[0] == 0
    assert fitted[2] == fitted[0] - 2


@pytest.mark.parametrize(("words", "times"), [(["by_folds=false"], 1), ([], 1 + 3)])
def test_a_sweep_selects_once_and_once_without_each_fold(
    job: list[str],
    words: list[str],
    times: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = []
    real = select_layers.select_scored

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(select_layers, "select_scored", counted)
    sweep = ["train", "-m", *job, "layers=adaptive,greedy", "fusion=gated,concat", *words]
    code, said = run(sweep, capsys)
    assert code == 0, said
    assert len(calls) == 2 * times
    # Each selection is shown once, though two jobs have it.
    assert said.count("selected layer") + said.count("selected norm") >= 2


def test_a_profile_holds_every_score_of_every_layer(
    job: list[str], folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [f"backbone.small.path={folders['bert']}", f"backbone.plain.path={folders['fnet']}"]
    arguments = ["profile", *job, *models, "profile.judge=true"]
    arguments += ["profile.multi_layer=[scalar_mix,group_lasso]"]
    arguments += ["profile.selections=[adaptive,greedy,top_k,loes,even,all]"]
    code, said = run(arguments, capsys)
    assert code == 0, said
    ((folder, profile),) = find_profiles(tmp_path / "outputs")
    assert len(profile.layers) == 2 * (5 + 4 + 4)
    for layer in profile.layers:
        blocks = layer.layer not in ("0", "norm") and layer.backbone != "plain"
        for name, value in layer.scores.items():
            has = blocks if name in ("attention_entropy", "gradient_entropy") else True
            assert (value is not None) == has, (layer.name, name)
        assert layer.test is not None
        assert layer.test.low <= layer.test.mean <= layer.test.high
    assert "plain gives no attention" in profile.missing["attention_entropy"]
    assert len(profile.pairs) == 3
    similarity = np.array(profile.similarity)
    assert np.allclose(similarity, similarity.T)
    assert np.allclose(np.diag(similarity), 1)
    names = [selection.name for selection in profile.selections]
    assert {"last", "best by accuracy", "best by gradient", "top_k", "adaptive", "greedy"} < set(
        names
    )
    for selection in profile.selections:
        assert selection.regret is not None
        assert selection.regret.low <= selection.regret.mean <= selection.regret.high
        if len(selection.layers) == 1:
            assert selection.regret.mean >= 0  # hindsight is the best of all single layers
            assert selection.test == profile.layers[selection.layers[0]].test
    assert {"loes", "even", "all"} < set(names)
    assert "sparse" not in names
    by_name = {selection.name: selection for selection in profile.selections}
    assert len(by_name["loes"].layers) == len(by_name["adaptive"].layers)
    mix, lasso = profile.multi_layer
    assert {(profile.layers[n].backbone, profile.layers[n].pooling) for n in mix.layers} in [
        {(name, pooling)} for name in profile.backbones for pooling in ("mean", "last")
    ]
    assert len(lasso.layers) == len(profile.layers)
    for probe in (mix, lasso):
        assert abs(sum(probe.shares) - 1) < 1e-5
        assert probe.test is not None
        assert probe.regret is not None
        assert "Probes of several layers at once" in said
    best = max(layer.test.mean for layer in profile.layers if layer.test)
    assert profile.hindsight is not None
    assert profile.layers[profile.hindsight].test.mean == best  # type: ignore[union-attr]
    before = (folder / "profile.json").stat().st_mtime_ns
    assert "finished before" in run(arguments, capsys)[1]
    assert (folder / "profile.json").stat().st_mtime_ns == before


def test_a_score_that_cannot_be_kept_is_no_score_that_a_model_lacks(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["profile", *job, "profile.scores=[attention_entropy]"]
    before = set((tmp_path / "cache").glob("scores/*.json"))
    assert run(quick, capsys)[0] == 0
    for path in set((tmp_path / "cache").glob("scores/*.json")) - before:
        path.unlink()
        path.mkdir()
    shutil.rmtree(tmp_path / "outputs/profiles")
    code, said = run(quick, capsys)
    assert (code, "a folder lies where a file is written" in said) == (2, True), said
    assert not find_profiles(tmp_path / "outputs")


def test_a_budget_is_kept(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", *job, "layers=adaptive", "layers.budget.max_layer=2"], capsys)[0] == 0
    assert run(["train", *job, "layers=last", "layers.budget.max_layer=1"], capsys)[0] == 0
    for layers in chosen(tmp_path / "outputs").values():
        assert all(layer in ("0", "1", "2") for layer, _, _ in layers)


def test_every_selection_of_a_profile_keeps_to_the_budget(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["profile.scores=[probe,effective_rank]", "layers.budget.max_layer=1"]
    assert run(["profile", *job, *quick], capsys)[0] == 0
    ((_, profile),) = find_profiles(tmp_path / "outputs")
    assert {"last", "best by log_loss", "best by effective_rank", "adaptive"} <= {
        one.name for one in profile.selections
    }
    for one in profile.selections:
        assert {profile.layers[n].layer for n in one.layers} <= {"0", "1"}, one.name
    (last,) = (one.layers for one in profile.selections if one.name == "last")
    assert [profile.layers[n].layer for n in last] == ["1"]


def test_a_profile_is_made_again_where_something_that_changes_it_changed(
    job: list[str], folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = [*job, "profile.scores=[probe]"]
    assert "finished before" not in run(["profile", *quick], capsys)[1]
    for more in (
        ["layers.folds=2"],
        ["layers.held_out=validation"],
        ["pooling=[last,mean]"],
        ["layers.budget.max_layer=0"],
    ):
        code, said = run(["profile", *quick, *more], capsys)
        assert code == 0, said
        assert "finished before" not in said, more
    assert (
        "finished before"
        in run(["profile", *quick, "layers=adaptive", "layers.score=logme"], capsys)[1]
    )
    copy = tmp_path / "model"
    shutil.copytree(folders["llama"], copy)
    own = [x for x in quick if "backbone.tiny" not in x] + [f"backbone.tiny.path={copy}"]
    assert run(["profile", *own], capsys)[0] == 0
    shutil.rmtree(copy)
    shutil.copytree(folders["bert"], copy)
    assert "finished before" not in run(["profile", *own], capsys)[1]


def test_a_pilot_too_small_for_its_folds_grows(
    job: list[str], texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(texts / "train.csv")
    table.label = [f"class{number % 20}" for number in range(len(table))]
    path = tmp_path / "many.csv"
    table.to_csv(path, index=False)
    arguments = ["train", *job, f"dataset.path={path}", "layers=greedy", "layers.pilot=20"]
    code, said = run(arguments, capsys)
    assert code == 0, said
    assert "20 rows do not settle the choice yet" in said
    ((_, record),) = find_records(tmp_path / "outputs")
    assert record.pilot is not None
    assert record.pilot.rows[0] == 20
    assert len(record.pilot.rows) > 1


def test_a_pilot_may_rank_by_a_score_from_the_model_under_a_budget(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "layers=top_k layers.k=1 layers.score=gradient layers.budget.max_layer=1 layers.pilot=60"
    code, said = run(["train", *job, *more.split()], capsys)
    assert code == 0, said
    ((_, record),) = find_records(tmp_path / "outputs")
    assert record.layers[0].layer in ("0", "1")


def test_a_few_huge_features_do_not_make_layers_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    huge = 1e4 * torch.randn(200, 1, generator=generator)
    layers = [torch.cat([torch.randn(200, 30, generator=generator), huge], dim=1) for _ in "ab"]
    nobody = torch.zeros(200, dtype=torch.int64)
    candidates = Candidates((), tuple(layers), nobody, nobody, (), 2, {})
    assert float(linear_cka(layers)[0, 1]) > 0.99
    assert float(select_layers.similarity_of(candidates)[0, 1]) < 0.2


def test_a_regression_on_words_has_no_vectors_in_the_record(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["lexical=[words]", "layers=fixed", "layers.fixed.tiny=[1]", "layers.fixed.words=[0]"]
    found = {}
    for fusion in ("stacked", "concat"):
        fused = [*words, f"fusion={fusion}", "pooling=[mean]", f"paths.outputs={tmp_path / fusion}"]
        assert run(["train", *job, *fused], capsys)[0] == 0
        ((_, record),) = find_records(tmp_path / fusion)
        lexical, width = record.backbones["words"], record.layers[1].width
        found[fusion] = (lexical.parameters, lexical.store_bytes, width), record.cost
    (parameters, size, width), _ = found["concat"]
    assert min(parameters, size) > 0
    assert width > 2
    (parameters, size, width), cost = found["stacked"]
    assert (parameters, size, width) == (0, 0, 2)
    assert cost.head_parameters > 2 * 200, "the weights of the regression, of 200 words at least"


def test_repeated_texts_make_no_choice_surer(
    job: list[str],
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pilot and a trained head are told which rows repeat a text."""
    folder = tmp_path / "doubled"
    folder.mkdir()
    for split in ("train", "test"):
        rows = pd.read_csv(texts / f"{split}.csv")
        pd.concat([rows] * 2).to_csv(folder / f"{split}.csv", index=False)
    repeated: dict[str, list[float]] = {"pilot": [], "head": []}

    def error(values: Tensor, text_of: Tensor | None) -> float:
        repeated["pilot"].append(distinct_share(text_of))
        return standard_error(values, text_of)

    def temperature(logits: Tensor, target: Tensor, text_of: Tensor | None) -> float:
        repeated["head"].append(distinct_share(text_of))
        return 1.0

    monkeypatch.setattr(pilot, "standard_error", error)
    monkeypatch.setattr(classifier, "temperature_of", temperature)
    arguments = ["train", *job, "layers=top_k", "layers.k=1", "layers.pilot=60"]
    code, said = run([*arguments, f"dataset.path={folder}"], capsys)
    assert code == 0, said
    assert all(repeated.values())
    assert max(repeated["pilot"] + repeated["head"]) < 1


def test_the_texts_of_probes_are_known_when_they_are_read_again(tmp_path: Path) -> None:
    (layer,) = layers = (LayerId("w", "tfidf", TFIDF),)
    once = [f"{'good fine' if n % 2 else 'bad poor'} {n}" for n in range(40)]
    source = open_lexical("w", LexicalConfig(width=4), once, once, tmp_path)
    candidates = Candidates(
        layers,
        [torch.zeros(80, 4)],
        torch.arange(40).repeat(2) % 2,
        (torch.arange(40) // 10).repeat(2),
        tuple(once * 2),
        2,
        {layer.backbone: source},
    )
    fitted, read = (
        held_out_probes(candidates, LayersConfig(), torch.device("cpu"))[0][0] for _ in range(2)
    )
    for one in (fitted, read):
        assert one.text_of is not None
        assert one.text_of.equal(torch.arange(40).repeat(2))
