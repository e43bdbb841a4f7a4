from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from layerfusion.findings.groups import DataGroup, load_groups
from layerfusion.findings.identities import best_part, identity_of, without_lexical
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.results import Results
from layerfusion.findings.tests import find_all
from layerfusion.report.block import Folded
from layerfusion.report.blocks.model_counts import count_block
from layerfusion.report.blocks.operators import operator_block
from layerfusion.report.blocks.parts import lexical_block, pair_block
from layerfusion.report.contents import build_report
from layerfusion.report.sentences import told
from layerfusion.statistics.significance import holm, sign_flips
from tests.report.fabricate import dataset, write_job
from tests.report.reading import column_of, text_of

ROWS = 400
SEEDS = 3
LAST = {"minilm": ("minilm", "6"), "smollm2": ("smollm2", "norm"), "mpnet": ("mpnet", "12")}


def _right(accuracy: float, number: int) -> np.ndarray:
    """Which rows three seeds get right; easy rows come first, the seeds differ at the edge."""
    edge = np.random.default_rng(number).random((SEEDS, ROWS)) * 0.1
    return np.arange(ROWS) / ROWS < accuracy + edge - 0.05


def _write(
    runs: Path, models: tuple[str, ...], accuracy: float, validation: float, **kwargs: object
) -> None:
    lexical = kwargs.get("lexical") or ()
    sources = [LAST[name] for name in models] + [("words", "0") for _ in list(lexical)]  # type: ignore[call-overload]
    right = _right(accuracy, 1000 * len(sources) + sum(map(len, models)))
    settings: dict[str, object] = {"recipe": "a" * 12, "fusion": "stacked", "selection": "last"}
    settings |= {"considered": models, "seeds": SEEDS, "right": right} | kwargs
    write_job(runs, dataset(rows=ROWS), sources, accuracy, validation, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models alone, in pairs and together; two of them with words as well."""
    runs = tmp_path_factory.mktemp("experiments")
    accuracy = {"minilm": 0.70, "smollm2": 0.74, "mpnet": 0.80}
    for size in (1, 2, 3):
        for models in combinations(sorted(accuracy), size):
            best = max(accuracy[name] for name in models)
            # Validation prefers smollm2 to mpnet, which is better on test.
            validation = 0.9 if "smollm2" in models else best
            _write(runs, models, best + 0.02 * (size - 1), validation)
    _write(runs, ("minilm",), 0.85, 0.8, lexical=("words",))
    _write(runs, ("minilm", "mpnet"), 0.83, 0.8, lexical=("words",))
    _write(runs, ("minilm",), 0.85, 0.8, recipe="b" * 12, fusion="gated")
    return runs


@pytest.fixture(scope="module")
def group(runs: Path) -> DataGroup:
    (group,) = load_groups(runs)
    return group


def test_a_lexical_source_is_no_language_model(runs: Path) -> None:
    report = build_report(Results(runs), title="t")
    assert report.intro[0].endswith("frozen language models: minilm, mpnet and smollm2.")
    (method,) = (part for part in report.sections[0].parts if isinstance(part, Folded))
    assert "TF-IDF of the texts was taken as well, as words." in str(method.parts[0])


def _job(group: DataGroup, models: str, *, words: bool = False) -> FinishedJob:
    wanted = set(models.split())
    (found,) = [
        job
        for job in group.jobs
        if (system := identity_of(job)) is not None
        and system.recipe == "a" * 12
        and {model.name for model in system.models} == wanted
        and bool(system.lexical) == words
    ]
    return found


# -- which jobs belong together -----------------------------------------------------------------


def test_parts_are_jobs_of_one_model_under_the_same_settings(group: DataGroup) -> None:
    best = best_part(group.jobs)
    assert len(best) == 4  # three pairs and all; of words no two models were run alone
    assert best[_job(group, "minilm mpnet")] is _job(group, "mpnet")
    assert best[_job(group, "minilm smollm2")] is _job(group, "smollm2")
    # On validation smollm2 looks better than mpnet, so that is what one would have taken.
    assert best[_job(group, "mpnet smollm2")] is _job(group, "smollm2")
    pairs = without_lexical(group.jobs)
    assert pairs == {
        _job(group, names, words=True): _job(group, names) for names in ("minilm", "minilm mpnet")
    }


def test_parts_of_layers_fixed_by_name_are_jobs_on_those_layers(tmp_path: Path) -> None:
    for layers in (
        {"minilm": ["3", "5"], "mpnet": ["7"]},
        {"minilm": ["3"], "mpnet": ["8"]},
        {"minilm": ["3", "5"]},
        {"minilm": ["3"]},
        {"mpnet": ["7"]},
    ):
        sources = [(name, layer) for name, own in layers.items() for layer in own]
        settings = {"recipe": "a" * 12, "selection": "fixed", "seeds": SEEDS}
        # Both models are named in every command; what is not fixed to a layer has no part in it.
        write_job(
            tmp_path, dataset(), sources, 0.7, 0.7, considered=("minilm", "mpnet"), **settings
        )
    (group,) = load_groups(tmp_path)

    def job(*wanted: str) -> FinishedJob:
        (found,) = [
            one
            for one in group.jobs
            if [f"{x.backbone} {x.layer}" for x in one.record.layers] == list(wanted)
        ]
        return found

    whole = job("minilm 3", "minilm 5", "mpnet 7")
    best = best_part(group.jobs)
    # Layer 8 of mpnet was not run alone.
    assert list(best) == [whole]
    assert best[whole] in (job("minilm 3", "minilm 5"), job("mpnet 7"))
    block = pair_block(group, find_all([group])[group])
    assert block is not None
    assert block.tables[0].rows[0].texts[0] == "minilm 3, 5 + mpnet 7"
    assert count_block(group, find_all([group])[group]) is None


def test_a_model_under_another_spec_is_another_model(group: DataGroup) -> None:
    other = [
        replace(job, record=replace(job.record, considered={"mpnet": ["another spec"]}))
        if job is _job(group, "mpnet")
        else job
        for job in group.jobs
    ]
    assert _job(group, "minilm mpnet") not in best_part(other)
    assert _job(group, "minilm smollm2") in best_part(other)


def test_records_older_than_recipes_belong_to_nothing(tmp_path: Path) -> None:
    for models in (("minilm",), ("mpnet",), ("minilm", "mpnet")):
        _write(tmp_path, models, 0.7, 0.7, recipe="")
    (old,) = load_groups(tmp_path)
    findings = find_all([old])[old]
    assert best_part(old.jobs) == without_lexical(old.jobs) == {}
    assert pair_block(old, findings) is None
    assert count_block(old, find_all([old])[old]) is None
    assert lexical_block(old, findings) is None


# -- pairs --------------------------------------------------------------------------------------


def test_pairs_are_tested_against_their_part(group: DataGroup) -> None:
    findings = find_all([group])[group]
    rows = [row for row in findings.rows if row.kind == "part"]
    p_values = []
    for row in rows:
        assert row.what is not None
        assert row.against is not None
        test = sign_flips(row.what.correct, row.against.correct, seeds=SEEDS, text_of=None)
        assert row.test.p == pytest.approx(test.p)
        assert row.difference.mean == pytest.approx(
            row.what.correct.mean() - row.against.correct.mean()
        )
        p_values.append(row.test.p)
    assert [row.adjusted for row in rows] == pytest.approx(holm(p_values))


def test_the_table_of_pairs_has_every_job_on_several_models(group: DataGroup) -> None:
    block = pair_block(group, find_all([group])[group])
    assert block is not None
    (table,) = block.tables
    assert column_of(table, "Models") == [
        *("minilm + mpnet", "minilm + smollm2", "mpnet + smollm2", "minilm + mpnet + smollm2")
    ]
    assert column_of(table, "Alone, by validation") == ["mpnet", "smollm2", "smollm2", "smollm2"]
    for models, shown in zip(
        column_of(table, "Models"), column_of(table, "Difference, points"), strict=True
    ):
        job = _job(group, models.replace(" + ", " "))
        difference = 100 * (job.correct.mean() - best_part(group.jobs)[job].correct.mean())
        assert float(shown.split()[0].replace("−", "-")) == pytest.approx(difference, abs=0.051)
    (figure,) = block.figures
    for name in ("minilm", "smollm2", "mpnet", "alone"):
        assert f">{name}</text>" in figure.wide
    assert figure.wide.count(">alone</text>") == 3


def test_the_pairs_begin_with_what_the_chosen_one_is_worth(group: DataGroup) -> None:
    findings = find_all([group])[group]
    block = pair_block(group, findings)
    assert block is not None
    (row,) = findings.among(["part"], [_job(group, "minilm mpnet smollm2")])
    assert row.verdict == "gain"
    assert block.parts[0] == (
        "The combination that validation chooses, minilm + mpnet + smollm2, is"
        f" {told(row, than='smollm2 alone')}."
    )
    lexical = lexical_block(group, findings)
    assert lexical is not None
    (row,) = findings.among(["lexical"], [_job(group, "minilm", words=True)])
    assert lexical.parts[0] == (
        "The combination that validation chooses, minilm with words, is"
        f" {told(row, than='the same without')}."
    )


def test_a_combination_that_took_one_of_its_models_says_so(tmp_path: Path) -> None:
    alone = _right(0.7, 1)
    for considered in (("minilm",), ("mpnet",), ("minilm", "mpnet")):
        judged = 0.8 if "mpnet" in considered else 0.7
        _write(tmp_path, considered[-1:], 0.7, judged, considered=considered, right=alone)
    (group,) = load_groups(tmp_path)
    block = pair_block(group, find_all([group])[group])
    assert block is not None
    assert block.parts[0] == (
        "The combination that validation chooses, minilm + mpnet, ended in the layers of mpnet"
        " alone: nothing more promised a gain."
    )


# -- number of models ---------------------------------------------------------------------------


def test_counts_show_means_and_spreads(group: DataGroup) -> None:
    block = count_block(group, find_all([group])[group])
    assert block is not None
    (table,) = block.tables
    assert column_of(table, "Models") == ["1", "2", "3"]
    assert column_of(table, "Subsets run") == ["3 of 3", "3 of 3", "1 of 1"]
    names = ["minilm", "mpnet", "smollm2"]
    for size, mean, subsets, seeds in zip(
        (1, 2, 3),
        column_of(table, "Mean test %"),
        column_of(table, "Sd over subsets, points"),
        column_of(table, "Sd over seeds, points"),
        strict=True,
    ):
        jobs = [_job(group, " ".join(models)) for models in combinations(names, size)]
        accuracy = np.array([[seed.test["accuracy"] for seed in job.record.seeds] for job in jobs])
        assert mean == f"{100 * accuracy.mean():.1f}"
        if size < 3:
            assert subsets == f"{100 * accuracy.mean(axis=1).std(ddof=1):.2f}"
        assert seeds == f"{100 * np.sqrt(accuracy.var(axis=1, ddof=1).mean()):.2f}"
    assert column_of(table, "Sd over subsets, points")[2] == "–"
    # What validation chooses is not the best on test.
    alone = _job(group, "smollm2").record.test["accuracy"].mean
    assert column_of(table, "Chosen on validation %")[0] == f"{100 * alone:.1f}"


@pytest.mark.parametrize(("sds", "words"), [((3, 2, 1), "and falls"), ((1, 2, 1), "does not fall")])
def test_the_words_say_whether_the_spread_falls(
    tmp_path: Path, sds: tuple[int, int, int], words: str
) -> None:
    names = ("minilm", "mpnet", "smollm2")
    for models in (some for size in (1, 2, 3) for some in combinations(names, size)):
        right = np.zeros((2, ROWS), dtype=bool)
        right[0, : 200 + sds[len(models) - 1]] = True
        right[1, : 200 - sds[len(models) - 1]] = True
        _write(tmp_path, models, 0.5, 0.5, right=right, seeds=2)
    (group,) = load_groups(tmp_path)
    block = count_block(group, find_all([group])[group])
    assert block is not None
    assert words in text_of(block)


def test_two_numbers_of_models_are_no_course(tmp_path: Path) -> None:
    for models in (("minilm",), ("mpnet",), ("minilm", "mpnet")):
        _write(tmp_path, models, 0.5, 0.5)
    (group,) = load_groups(tmp_path)
    assert count_block(group, find_all([group])[group]) is None


# -- lexical sources ----------------------------------------------------------------------------


def test_lexical_sources_are_judged_against_the_same_without(group: DataGroup) -> None:
    findings = find_all([group])[group]
    block = lexical_block(group, findings)
    assert block is not None
    (table,) = block.tables
    assert column_of(table, "Models") == ["minilm", "minilm + mpnet"]
    assert column_of(table, "Taken") == ["minilm, words", "minilm, mpnet, words"]
    assert "2 different comparisons" in table.note
    for names, without, having in zip(
        ("minilm", "minilm mpnet"),
        column_of(table, "Without %"),
        column_of(table, "With %"),
        strict=True,
    ):
        plain, more = _job(group, names), _job(group, names, words=True)
        assert without.startswith(f"{100 * plain.correct.mean():.1f}")
        assert having.startswith(f"{100 * more.correct.mean():.1f}")
    # 15 points over 400 rows, nested: rows that only one has right nearly all fall to one side.
    assert column_of(table, "Shown") == ["▲", ""]


# -- operators ----------------------------------------------------------------------------------


def test_operators_on_the_same_sources_stand_together(tmp_path: Path) -> None:
    heads = {"gated": 0.8, "concat": 0.7, "sum": 0.72}
    for fusion, accuracy in heads.items():
        _write(tmp_path, ("minilm", "mpnet"), accuracy, 0.7, fusion=fusion, head_flops=2_500_000)
    _write(tmp_path, ("minilm", "smollm2"), 0.7, 0.7, fusion="gated")
    (group,) = load_groups(tmp_path)
    findings = find_all([group])[group]
    block = operator_block(group, findings)
    assert block is not None
    (table,) = block.tables
    assert column_of(table, "Operator") == ["gated", "sum", "concat"]
    assert column_of(table, "Head MFLOPs a text") == ["2.500"] * 3
    against = column_of(table, "Against concat, points")
    assert against[0].endswith("▲")
    assert against[2] == "–"
    assert len(block.figures) == 1


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ("gated", "The operator that validation chooses, gated, is better than concat by"),
        (
            "concat",
            "The operator that validation chooses, concat, is worse than the next, gated, by",
        ),
        ("sum", "Whether the operator that validation chooses, sum, beats concat cannot be told:"),
    ],
)
def test_the_operators_begin_with_what_the_chosen_one_is_worth(
    tmp_path: Path, chosen: str, words: str
) -> None:
    for fusion, accuracy in {"gated": 0.8, "concat": 0.7, "sum": 0.7}.items():
        judged = 0.9 if fusion == chosen else accuracy
        right = _right(accuracy, 1)
        _write(tmp_path, ("minilm", "mpnet"), accuracy, judged, fusion=fusion, right=right)
    (group,) = load_groups(tmp_path)
    block = operator_block(group, find_all([group])[group])
    assert block is not None
    assert str(block.parts[0]).startswith(words)


def test_operators_without_concat_say_what_is_missing(tmp_path: Path) -> None:
    for fusion, judged in {"gated": 0.8, "mean": 0.7, "sum": 0.7}.items():
        _write(tmp_path, ("minilm", "mpnet"), 0.7, judged, fusion=fusion)
    (group,) = load_groups(tmp_path)
    block = operator_block(group, find_all([group])[group])
    assert block is not None
    assert block.parts[0] == "Validation chooses gated; concat was not run on these layers."


def test_two_operators_are_no_comparison_of_operators(group: DataGroup) -> None:
    assert operator_block(group, find_all([group])[group]) is None


def test_a_selection_that_settles_on_the_same_layers_is_no_further_comparison(
    tmp_path: Path,
) -> None:
    settings: dict[str, object] = {
        "recipe": "a" * 12, "fusion": "stacked", "selection": "greedy", "seeds": SEEDS
    }  # fmt: skip
    both, alone = _right(0.80, 1), _right(0.72, 2)

    def write(considered: tuple[str, ...], sources: list[tuple[str, str]], right: object) -> None:
        write_job(
            tmp_path, dataset(rows=ROWS), sources, 0.8, 0.8, considered=considered,
            right=right, **settings,  # type: ignore[arg-type]
        )  # fmt: skip

    pair = [LAST["minilm"], LAST["mpnet"]]
    write(("minilm",), [LAST["minilm"]], alone)
    write(("mpnet",), [LAST["mpnet"]], alone)
    write(("smollm2",), [LAST["smollm2"]], alone)
    write(("minilm", "mpnet"), pair, both)
    write(("minilm", "mpnet", "smollm2"), pair, both)  # leaves smollm2 out: the same system
    write(("mpnet", "smollm2"), [LAST["mpnet"]], alone)  # no other than mpnet alone
    (group,) = load_groups(tmp_path)
    findings = find_all([group])[group]
    rows = [row for row in findings.rows if row.kind == "part"]
    assert len(rows) == 3
    assert findings.family["part"] == 1
    found = {tuple(row.what.record.considered): row for row in rows if row.what is not None}
    pair_alone = found["minilm", "mpnet"].test.p
    assert pair_alone < 0.05
    assert found["minilm", "mpnet"].adjusted == pair_alone
    assert found["minilm", "mpnet", "smollm2"].adjusted == pair_alone
    assert found["mpnet", "smollm2"].adjusted == 1.0
