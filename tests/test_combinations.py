"""The comparison of ways to combine members: on made-up members, and whole on tiny models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from benchmarks import combinations
from benchmarks.combination_methods import (
    ELASTIC_NET,
    FEW,
    HOUSE,
    METHODS,
    RIDGE_STACKING,
    bagged_weights,
    linear,
    linear_losses,
    log_linear,
    log_linear_losses,
    losses,
    methods_for,
    select,
)
from benchmarks.combination_tables import as_json, as_text, over_draws
from benchmarks.combinations import draw_rows, main, sets_of_members
from layerfusion.texts import TextDataset
from layerfusion.texts.splits import Split
from tests.pages import ROOT
from tests.tiny import tiny_folder


def said_of(target: Tensor, classes: int, sure: list[float]) -> Tensor:
    """Members that err independently, each with its own certainty of the right class."""
    generator = torch.Generator().manual_seed(1)
    right = F.one_hot(target, classes).float()
    noise = torch.randn(len(sure), len(target), classes, generator=generator)
    return (torch.tensor(sure)[:, None, None] * right + noise).log_softmax(dim=2)


@pytest.mark.parametrize("classes", [2, 3])
def test_every_method_gives_probabilities_that_are_better_than_a_member_on_average(
    classes: int,
) -> None:
    target = torch.arange(120) % classes
    said = said_of(target, classes, [0.2, 1.0, 1.2, 1.5, *[0.8] * 8])
    methods = methods_for(120, classes)
    assert set(methods) == set(METHODS) - ({ELASTIC_NET} if classes > 2 else set())
    for name, method in methods.items():
        found = method(said, target)(said)
        assert found.shape == (120, classes), name
        torch.testing.assert_close(found.exp().sum(dim=1).float(), torch.ones(120), msg=name)
        assert F.nll_loss(found.float(), target) < losses(said, target).mean(), name


def test_many_rows_of_many_classes_are_not_stacked_by_regression() -> None:
    assert RIDGE_STACKING in methods_for(200, 52)
    assert set(methods_for(1000, 52)) == set(METHODS) - {RIDGE_STACKING, ELASTIC_NET}


def test_a_regression_gives_a_class_that_no_row_has_a_small_probability() -> None:
    target = torch.arange(60) % 2
    said = said_of(target, 3, [1.0, 1.5])
    found = METHODS[RIDGE_STACKING](said, target)(said)
    assert bool(found.isfinite().all())
    assert float(found[:, 2].exp().max()) < 1e-6


@pytest.mark.parametrize(
    ("pool", "losses_of"), [(linear, linear_losses), (log_linear, log_linear_losses)]
)
def test_selection_adds_the_member_with_which_the_pool_is_best(pool: Any, losses_of: Any) -> None:
    target = torch.arange(80) % 3
    said = said_of(target, 3, [0.3, 1.4, 1.3, 1.0])
    counts = torch.tensor([0.0, 2.0, 1.0, 0.0])
    expected = [
        F.nll_loss(pool((counts + F.one_hot(torch.tensor(k), 4)) / 4)(said), target)
        for k in range(4)
    ]
    torch.testing.assert_close(losses_of(said, target)(counts, 4), torch.stack(expected))
    weights = select(losses_of(said, target), 4)
    assert float(weights.sum()) == pytest.approx(1)
    assert F.nll_loss(pool(weights)(said), target) <= losses(said, target).min()
    bags = bagged_weights(said, target, pool)
    assert float(bags.sum()) == pytest.approx(1, abs=1e-5)
    assert bool((bags > 0).sum() >= (weights > 0).sum())


def test_pursuit_reads_no_more_than_its_few_members() -> None:
    target = torch.arange(90) % 3
    said = said_of(target, 3, [1.0] * (FEW + 4))
    combine = METHODS["8 members by pursuit, anchored"](said, target)
    before = combine(said)
    read = 0
    for k in range(len(said)):
        other = said.clone()
        other[k] = said[k].flip(1)
        read += not torch.equal(combine(other), before)
    assert read == FEW


# -- draws and sets -----------------------------------------------------------------------------


def test_draws_are_other_stratified_samples_of_the_same_rows() -> None:
    splits = {
        name: Split(
            tuple(f"{name} {n}" for n in range(size)), np.arange(size, dtype=np.int64) % 4 // 3
        )
        for name, size in (("train", 80), ("validation", 20), ("test", 12))
    }
    whole = TextDataset("toy", splits, ("a", "b"), "", "", {}, sampled=False, overlap=0, notes=())
    drawn = [draw_rows(whole, "40", draw) for draw in (0, 1, 0)]
    texts = [set(one.splits["train"].texts) for one in drawn]
    assert texts[0] == texts[2] != texts[1]
    assert any(text.startswith("validation") for text in texts[0])
    for one in drawn:
        assert np.bincount(one.splits["train"].labels).tolist() == [30, 10]
        assert not len(one.splits["validation"])
        assert one.splits["test"] is splits["test"]
    assert len(draw_rows(whole, "all", 0).splits["train"]) == 100


def test_sets_of_members_are_pairs_and_all() -> None:
    assert list(sets_of_members(["a", "b"])) == [(["a", "b"], False), (["a", "b"], True)]
    found = [models for models, lexical in sets_of_members(["a", "b", "c"]) if lexical]
    assert found == [["a", "b"], ["a", "c"], ["b", "c"], ["a", "b", "c"]]


# -- tables -------------------------------------------------------------------------------------


def cell(data: str, draw: int, lexical: bool, ahead: float) -> dict[str, Any]:
    return {
        "data": data,
        "rows": "200",
        "draw": draw,
        "models": ["a", "b"],
        "lexical": lexical,
        "inputs": "",
        "test_rows": 10,
        "members": 4,
        "figures": {HOUSE: [0.8, 0.5, 0.1], "simplex weights, log-linear": [0.8 + ahead, 0.4, 0.2]},
    }


def test_a_draw_counts_once_and_so_does_a_data_set() -> None:
    ahead = {"x": [0.01, 0.02, 0.06], "y": [-0.01, -0.01, -0.04]}
    cells = [
        cell(data, draw, lexical, behind + (0.01 if lexical else -0.01))
        for data, every in ahead.items()
        for draw, behind in enumerate(every)
        for lexical in (False, True)
    ]
    name = "simplex weights, log-linear"
    value, mean, low, high = over_draws(cells[:6])[name]["accuracy"]
    assert (value, mean) == pytest.approx((0.83, 0.03))
    expected = stats.t.interval(0.95, 2, loc=0.03, scale=stats.sem(ahead["x"]))
    assert (low, high) == pytest.approx(expected)
    kept = json.loads(json.dumps(as_json(cells), allow_nan=False))
    mean, low, high, units = kept["over_datasets"][name]["accuracy"]
    assert units == pytest.approx({"x": 0.03, "y": -0.02})
    expected = stats.t.interval(0.95, 1, loc=0.005, scale=stats.sem([0.03, -0.02]))
    assert (mean, low, high) == pytest.approx((0.005, *expected), abs=1e-6)
    assert [(one["data"], one["draws"]) for one in kept["by_rows"]] == [("x", 3), ("y", 3)]
    assert len(kept["by_members"]) == 4
    assert "+3.0 [-3.6, +9.6]" in as_text(cells)


def test_the_file_of_figures_keeps_other_data_sets_and_numbers_of_rows() -> None:
    before = [cell("x", 0, True, 0.01), {**cell("x", 0, True, 0.03), "rows": "all"}]
    other = [cell("y", 0, True, 0.05), {**cell("x", 1, True, 0.04), "rows": "200"}]
    former = json.loads(json.dumps(as_json(before)))
    kept = as_json(other, former)
    places = [(one["data"], one["rows"]) for one in kept["by_rows"]]
    assert places == [("x", "200"), ("x", "all"), ("y", "200")]
    units = kept["over_datasets"]["simplex weights, log-linear"]["accuracy"][3]
    assert units == pytest.approx({"x": 0.035, "y": 0.05})  # 200 rows of x are the new ones
    assert [one["draws"] for one in kept["by_members"]] == [1, 1, 1]
    assert as_json([*before, other[0]]) == as_json([other[0]], former)


def test_the_page_has_the_figures_that_are_kept() -> None:
    kept = json.loads((ROOT / "docs/results/combinations.json").read_text())["over_datasets"]
    page = (ROOT / "docs/fusion.md").read_text()
    (section,) = [part for part in page.split("\n### ") if "results/combinations.json)" in part]
    for name, of in kept.items():
        if name == HOUSE:
            continue
        *accuracy, units = of["accuracy"]
        loss = of["log_loss"][:3]
        expected = [f"{100 * value:+.1f}" for value in (*units.values(), *accuracy)]
        expected += [f"{value:+.3f}" for value in loss]
        (line,) = re.findall(rf"^\| {re.escape(name)} \|(.*)$", section, re.MULTILINE)
        assert re.findall(r"[+−]\d+\.\d+", line) == [one.replace("-", "−") for one in expected]


# -- whole --------------------------------------------------------------------------------------


def test_what_the_file_holds_is_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    words = (("good", "great", "film", "the"), ("bad", "awful", "film", "the"))
    rows = [(f"{' '.join(generator.choice(words[n % 2], 4))} {n}", n % 2) for n in range(150)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "toy.csv", index=False)
    folders = {name: tiny_folder(name, tmp_path / name) for name in ("bert", "llama", "gpt2")}

    def run(models: list[str], draws: str) -> list[dict[str, Any]]:
        paths = [f"backbone.{name}.path={folders[name]}" for name in models]
        return main(
            [
                "local",
                f"--rows={draws}",
                f"--cells={tmp_path / 'cells.jsonl'}",
                f"--json={tmp_path / 'figures.json'}",
                f"dataset.path={tmp_path / 'toy.csv'}",
                f"paths.cache={tmp_path / 'cache'}",
                "extract.token_budget=512",
                *paths,
            ]
        )

    first = run(["bert", "llama"], "60:2")
    assert [(one["draw"], one["lexical"]) for one in first] == [
        (0, False),
        (0, True),
        (1, False),
        (1, True),
    ]
    assert first[1]["members"] == first[0]["members"] + 2
    # The words of these texts tell their classes apart, and the vectors of random models do not.
    assert first[1]["figures"][HOUSE][0] > 0.8
    assert first[0]["figures"] != first[2]["figures"]
    assert json.loads((tmp_path / "figures.json").read_text())["by_rows"][0]["draws"] == 2

    more = run(["bert", "llama", "gpt2"], "60:1")
    assert more[: len(first)] == first
    added = {"+".join(one["models"]) for one in more[len(first) :]}
    assert added == {"bert+gpt2", "llama+gpt2", "bert+llama+gpt2"}
    monkeypatch.setattr(combinations, "members_of", None)  # nobody needs it
    assert run(["bert", "llama", "gpt2"], "60:1") == more
