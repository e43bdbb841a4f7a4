from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from layerfusion.findings.groups import load_groups
from layerfusion.findings.learning import learning_curves
from layerfusion.findings.results import Results
from layerfusion.report.blocks.learning_curves import chosen_line, curve_block
from layerfusion.report.blocks.summary import Card, group_card
from layerfusion.report.contents import build_report
from layerfusion.report.figures.canvas import Drawing
from layerfusion.report.figures.colors import model_colors
from layerfusion.statistics.power_law import fit_power_law
from tests.report.fabricate import dataset, write_job

ACCURACIES = {10: (0.55, 0.65, 0.60), 50: (0.7, 0.72), None: (0.8,)}
ROWS = 200


def plain(*words: str) -> str:
    """The words of a card with ordinary spaces."""
    return " ".join(words).replace("\u00a0", " ")


def _write(runs: Path, *, test: str = "t" * 64, models: tuple[str, ...] = ("minilm",)) -> None:
    """One system on samples of 10 and 50 rows a class, in draws, and on all rows."""
    for size, accuracies in ACCURACIES.items():
        for draw, accuracy in enumerate(accuracies):
            data = dataset(
                "toy",
                rows=ROWS,
                fingerprint=f"{size}-{draw}-{test}".ljust(64, "0"),
                test_fingerprint=test,
                per_class=size,
                draw=draw,
            )
            if size is not None:
                data.rows.update(train=2 * size - 2, validation=2)
            write_job(
                runs,
                data,
                [(name, "6") for name in models],
                accuracy,
                accuracy,
                right=np.tile(np.arange(ROWS) < round(accuracy * ROWS), (2, 1)),
                seeds=2,
                fusion="stacked",
                recipe="a" * 12,
                considered=models,
            )


def test_a_curve_joins_samples_with_the_same_test_rows(tmp_path: Path) -> None:
    _write(tmp_path)
    groups = load_groups(tmp_path)
    assert len(groups) == 6
    (trial,) = learning_curves(groups)
    assert trial.sizes == [10, 50, None]
    block = curve_block(trial, model_colors(groups[0].models), (), "curve-1")
    table, _ = block.tables
    titles = [column.title for column in table.columns]
    assert titles == ["Models", "10 a class", "50 a class", "All (250)"]
    baseline, row = table.rows
    assert baseline.texts[0] == "TF-IDF baseline"
    # Sample deviations by hand: 5, 5 and 0 points off 60 make 5; 70 and 72 make the root of 2.
    assert [cell.replace("\u00a0", " ") for cell in row.texts] == [
        "minilm 6",
        "60.0 ± 5.0 (3)",
        "71.0 ± 1.4 (2)",
        "80.0 (1)",
    ]


def test_a_curve_says_what_more_labels_would_give(tmp_path: Path) -> None:
    _write(tmp_path)
    groups = load_groups(tmp_path)
    (curve,) = learning_curves(groups)
    block = curve_block(curve, model_colors(groups[0].models), (), "curve-1")
    (row,) = block.tables[1].rows  # the baseline has the same errors everywhere, so it has no law
    # The slope of the least-squares line through the logarithms, by numpy's own fit.
    points = [(curve.rows(size), x) for size, found in ACCURACIES.items() for x in found]
    rows, accuracies = np.array(points).T
    slope = np.polyfit(np.log(rows), np.log(1 - accuracies), 1)[0]
    cut = 1 - 2**slope
    texts = [cell.replace("\u00a0", " ") for cell in row.texts]
    assert texts[:3] == ["minilm 6", "250", "80.0"]
    assert texts[3].startswith(f"{100 * cut:.1f} [")
    assert texts[4].startswith(f"{100 * (1 - 0.2 * (1 - cut)):.1f} [")
    assert texts[5] == f"{250 * (0.2 / 0.19) ** (-1 / slope):.0f}"
    sentence = block.parts[3]
    assert isinstance(sentence, str)
    assert (
        "If that goes on, twice the rows, 500 a class on average, would give"
        f" {100 * (1 - 0.2 * (1 - cut)):.1f}"
    ) in sentence
    assert "Rows a class on average" in block.tables[1].frame()


def test_samples_alone_are_answered_by_what_the_largest_say(tmp_path: Path) -> None:
    _write(tmp_path)
    for record in [x.parent for x in tmp_path.rglob("metrics.json")]:
        if '"per_class": null' in (record / "metrics.json").read_text():
            shutil.rmtree(record)
    report = build_report(Results(tmp_path), title="t")
    card = report.sections[0].parts[0]
    assert isinstance(card, Card)
    assert card.headline == "Use minilm 6"
    assert plain(*card.accuracy) == "71.0 % ± 1.4 over the draws, with 50 rows a class"
    facts = {name: plain(words) for name, words in card.facts}
    assert facts["Against baseline, 76.5\u00a0%"] == (
        "\u22125.5 points on average: no more than without a language model"
    )
    assert facts["With fewer rows"] == ("10 rows a class: 60.0 ± 5.0 % (baseline 76.5 ± 0.0 %)")
    assert facts["With more"].startswith("Each doubling of the labels has avoided")


def test_the_curve_is_in_the_card_where_there_are_samples_and_all_rows(tmp_path: Path) -> None:
    _write(tmp_path)
    results = Results(tmp_path)
    report = build_report(results, title="t")
    card = report.sections[0].parts[0]
    assert isinstance(card, Card)
    (figure,) = card.parts
    assert figure.key.endswith("-answer-curve")
    assert "minilm 6" in figure.wide
    assert "TF-IDF baseline" in figure.wide
    fewer = plain(dict(card.facts)["With fewer rows"])
    assert fewer.startswith("10 rows a class: 60.0 ± 5.0 % (baseline ")
    assert "; 50 rows a class: 71.0 ± 1.4 % (" in fewer
    # Without samples the card has the curve over layers, if any.
    (group,) = results.sections
    alone = group_card(group, results.findings[group])
    assert alone.parts == ()
    assert "With fewer rows" not in dict(alone.facts)


def test_one_draw_of_each_size_is_called_so(tmp_path: Path) -> None:
    _write(tmp_path)
    several, one = (
        learning_curves([x for x in load_groups(tmp_path) if x.data.draw < draws])[0]
        for draws in (3, 1)
    )
    for curve, spread in ((several, True), (one, False)):
        block = curve_block(curve, model_colors(curve.groups[0].models), (), "curve-1")
        sentence, figure, *_ = block.parts
        assert isinstance(figure, Drawing)
        assert ("in several draws" in str(sentence)) == spread
        assert ("standard deviation" in figure.caption) == spread
        assert ("standard deviation" in block.tables[0].note) == spread


def test_validation_chooses_what_a_curve_names(tmp_path: Path) -> None:
    """Test may not choose: here it prefers the other model."""
    for model, on_validation, on_test in (("minilm", 0.9, 0.7), ("mpnet", 0.6, 0.8)):
        for size in (10, 50):
            data = dataset(
                "toy",
                rows=ROWS,
                fingerprint=f"{size}".ljust(64, "0"),
                test_fingerprint="t" * 64,
                per_class=size,
            )
            write_job(
                tmp_path,
                data,
                [(model, "6")],
                on_test,
                on_validation,
                fusion="stacked",
                recipe="a" * 12,
                considered=(model,),
            )
    (curve,) = learning_curves(load_groups(tmp_path))
    line = chosen_line(curve)
    assert line is not None
    assert line.name == "minilm 6"


def test_samples_that_do_not_agree_promise_nothing() -> None:
    law = fit_power_law({10: (0.5, 0.7), 50: (0.65, 0.6)})
    assert law is not None
    assert not law.falls
    assert fit_power_law({10: (0.5, 0.7)}) is None  # one size
    assert fit_power_law({10: (0.5,), 20: (0.6,)}) is None  # no error of the line
    assert fit_power_law({10: (0.5,), 20: (0.9,), 40: (1.0,)}) is None  # no errors are left


def test_samples_of_a_curve_have_no_section_of_their_own(tmp_path: Path) -> None:
    _write(tmp_path)
    report = build_report(Results(tmp_path), title="t")
    assert [section.key[:5] for section in report.sections] == [
        *("summa", "curve", "data-", "prove")
    ]
    assert "6 jobs on 6 samples of 1 data set;" in report.intro[0]
    jobs = report.tables["jobs"]
    assert len(jobs.rows) == 6


def test_other_test_rows_are_another_curve(tmp_path: Path) -> None:
    _write(tmp_path)
    _write(tmp_path, test="u" * 64)
    assert len(learning_curves(load_groups(tmp_path))) == 2


@pytest.mark.parametrize("fingerprint", ["", "t" * 64])
def test_one_size_is_no_curve(tmp_path: Path, fingerprint: str) -> None:
    for draw in (0, 1):
        data = dataset(
            fingerprint=str(draw) * 64, test_fingerprint=fingerprint, per_class=10, draw=draw
        )
        write_job(tmp_path, data, [("minilm", "6")], 0.7, 0.7, recipe="a", considered=["minilm"])
    report = build_report(Results(tmp_path), title="t")
    assert [section.key[:5] for section in report.sections] == [
        *("summa", "data-", "data-", "prove")
    ]
