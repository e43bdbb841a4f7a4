from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerfusion.findings.groups import load_groups
from layerfusion.findings.learning import DrawFinding, find_over_draws, learning_curves
from layerfusion.findings.ranking import rank_jobs
from layerfusion.findings.results import Results
from layerfusion.report.contents import build_report
from layerfusion.report.render.markdown import markdown
from layerfusion.statistics.crossed import CrossedDifference, crossed_interval
from layerfusion.statistics.significance import holm
from tests.report.fabricate import dataset, write_job
from tests.report.reading import section_of

ROWS = 400
BOTH = ("minilm", "smollm2")
DRAWS = 3


def answers(rng: np.random.Generator, accuracy: float) -> np.ndarray:
    """Of two seeds, on rows that are hard for every system."""
    hard = np.random.default_rng(7).permutation(ROWS) / ROWS
    return hard + 0.1 * rng.normal(size=(2, ROWS)) < accuracy


def write(
    runs: Path,
    size: int,
    lift: float,
    *,
    test: str = "t",
    models: tuple[str, ...] = BOTH,
    draws: int = DRAWS,
) -> dict[tuple[int, str], np.ndarray]:
    """Each model alone and both, in draws; validation prefers smollm2 in the last draw only."""
    right: dict[tuple[int, str], np.ndarray] = {}
    rng = np.random.default_rng([size, ord(test)])
    for draw in range(draws):
        data = dataset(
            "toy" + test,
            rows=ROWS,
            fingerprint=f"{test}{size}{draw}".ljust(64, "0"),
            test_fingerprint=test * 64,
            per_class=size,
            draw=draw,
        )
        base = 0.65 + 0.02 * rng.normal()
        last = draw == DRAWS - 1
        for name, accuracy, validation in (
            ("minilm", base, 0.7),
            ("smollm2", base - 0.05, 0.8 if last else 0.6),
            ("both", base + lift, 0.9),
        ):
            given = BOTH if name == "both" else (name,)
            if name != "both" and name not in models:
                continue
            right[draw, name] = answers(rng, accuracy)
            write_job(
                runs,
                data,
                [(model, "6") for model in given],
                accuracy,
                validation,
                right=right[draw, name],
                seeds=2,
                fusion="stacked",
                selection="adaptive",
                recipe="a" * 12,
                considered=given,
            )
    return right


def found_in(runs: Path) -> list[DrawFinding]:
    return [
        one for own in find_over_draws(learning_curves(load_groups(runs))).values() for one in own
    ]


def test_both_are_held_against_the_one_that_validation_of_each_draw_prefers(
    tmp_path: Path,
) -> None:
    right = {size: write(tmp_path, size, 0.08) for size in (10, 50)}
    found = found_in(tmp_path)
    assert [one.size for one in found] == [10, 50]
    for one in found:
        own = {key: answer.mean(axis=0) for key, answer in right[one.size].items()}
        alone = [own[0, "minilm"], own[1, "minilm"], own[2, "smollm2"]]
        differences = [own[draw, "both"] - alone[draw] for draw in range(DRAWS)]
        expected = crossed_interval(np.stack(differences), np.arange(ROWS) % 2, text_of=None)
        assert one.difference == expected
        assert one.family == 2
    assert [one.adjusted for one in found] == holm([one.difference.p for one in found])


def test_which_texts_are_repeated_is_known_from_the_job_of_any_draw(tmp_path: Path) -> None:
    for size in (10, 50):
        write(tmp_path, size, 0.08)
    (curve,) = learning_curves(load_groups(tmp_path))
    texts = np.arange(ROWS) // 5

    def difference(newer: str) -> CrossedDifference:
        groups = [
            replace(group, jobs=tuple(replace(job, text_of=texts) for job in group.jobs))
            if group.data.fingerprint.startswith(newer)
            else group
            for group in curve.groups
        ]
        known = replace(curve, groups=tuple(groups))
        return find_over_draws([known])[known][0].difference

    found = {difference(f"t10{draw}") for draw in range(DRAWS)}
    assert len(found) == 1
    assert found.pop().p != difference("no draw").p


def test_families_reach_over_all_data_sets(tmp_path: Path) -> None:
    for test in ("t", "u"):
        for size in (10, 50):
            write(tmp_path, size, 0.08, test=test)
    found = found_in(tmp_path)
    assert [one.family for one in found] == [4] * 4
    assert [one.adjusted for one in found] == pytest.approx(
        holm([one.difference.p for one in found])
    )


def test_the_page_shows_them_as_table_and_caption(tmp_path: Path) -> None:
    write(tmp_path, 10, 0.25)
    write(tmp_path, 50, 0.0)
    report = build_report(Results(tmp_path), title="t")
    curve = section_of(report, "curve-1")
    table = curve.tables[1]
    few, many = ([cell.replace("\u00a0", " ") for cell in row.texts] for row in table.rows)
    assert few[:4] == ["minilm + smollm2", "adaptive, stacked", "10", "3"]
    assert few[5] == "minilm (2), smollm2 (1)"
    assert (few[-1], many[-1]) == ("▲", "")
    assert "adjusted for the 2 comparisons over draws" in table.note
    caption = curve.figures[0].caption
    assert f"minilm + smollm2: {table.rows[0].texts[7]}▲ with 10 rows a class" in caption
    assert f"{table.rows[1].texts[7]} with 50 rows a class" in caption
    assert "Several models and one of them alone, by rows a class" in markdown(
        report.title, report.intro, report.sections
    )


def test_equal_systems_are_not_marked(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for number, size in enumerate((10, 20, 30, 40)):
        for draw in range(DRAWS):
            data = dataset(
                rows=ROWS,
                fingerprint=f"{number}{draw}".ljust(64, "0"),
                test_fingerprint="t" * 64,
                per_class=size,
                draw=draw,
            )
            for given in (BOTH[:1], BOTH[1:], BOTH):
                right = answers(rng, 0.7)
                sources = [(model, "6") for model in given]
                settings = {"seeds": 2, "recipe": "a", "considered": given, "right": right}
                write_job(tmp_path, data, sources, 0, 0, **settings)
    assert [one.mark for one in found_in(tmp_path)] == [""] * 4


@pytest.mark.parametrize("missing", ["a model alone", "a second draw"])
def test_nothing_is_compared_without(tmp_path: Path, missing: str) -> None:
    models = BOTH[:1] if missing == "a model alone" else BOTH
    for size in (10, 50):
        write(tmp_path, size, 0.1, models=models, draws=1 if missing == "a second draw" else DRAWS)
    assert found_in(tmp_path) == []
    curve = section_of(build_report(Results(tmp_path), title="t"), "curve-1")
    assert len(curve.tables) == 1
    assert "best one of them alone" not in curve.figures[0].caption


def test_draws_leave_the_plain_name_to_the_data_that_they_are_drawn_from(tmp_path: Path) -> None:
    write(tmp_path, 10, 0.05, draws=2)
    write_job(tmp_path, dataset("toyt", rows=ROWS), [("minilm", "6")], 0.7, 0.7)
    labels = [group.label for group in load_groups(tmp_path)]
    assert sorted(labels) == ["toyt", "toyt (data t1000000)", "toyt (data t1010000)"]
    assert [
        ranked.label for ranked in rank_jobs(tmp_path, {}) if ranked.data.per_class is None
    ] == ["toyt"]
