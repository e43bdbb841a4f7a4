"""Jobs on texts with several labels: read, judged and shown."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import precision_recall_fscore_support

from layerfusion.cli import main
from layerfusion.errors import UserError
from layerfusion.findings.frame import results
from layerfusion.findings.groups import load_groups
from layerfusion.findings.jobs import FinishedJob, read_predictions
from layerfusion.findings.learning import find_over_draws, learning_curves
from layerfusion.findings.measures import SETS, drawn_words, measure_of
from layerfusion.findings.set_mistakes import SetAnswers, answers_of_job, doubtful_sets
from layerfusion.findings.shown import baseline_estimates
from layerfusion.findings.tests import find_all
from layerfusion.records.job import METRICS, PREDICTIONS, find_records, write_record
from layerfusion.records.profile import write_profile
from layerfusion.report import write_comparison
from layerfusion.report.blocks.errors import bin_table, class_table, threshold_table
from layerfusion.report.format import NONE
from layerfusion.report.page import write_report
from layerfusion.report.ranking import ranking_lines
from layerfusion.statistics.answers import answers
from layerfusion.statistics.crossed import crossed_interval
from layerfusion.statistics.intervals import paired_interval
from layerfusion.texts.cells import labels_in
from tests.report.fabricate import dataset, write_job
from tests.report.fabricate_profiles import profile
from tests.report.fabricate_sets import (
    LABELS,
    lists,
    set_dataset,
    true_labels,
    write_set_job,
    write_set_sweep,
)

BOTH = [("minilm", "4"), ("mpnet", "12")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    write_set_sweep(folder, set_dataset())
    return folder


def one_job(folder: Path, rows: int = 30) -> tuple[Path, FinishedJob]:
    write_set_job(folder, set_dataset(rows=rows), [("minilm", "3")], 1.5, 0.6, seeds=2)
    (group,) = load_groups(folder)
    (path,) = folder.rglob(PREDICTIONS)
    return path, group.jobs[0]


# -- reading --------------------------------------------------------------------------------------


def test_a_row_is_right_where_all_its_labels_are(tmp_path: Path) -> None:
    path, job = one_job(tmp_path)
    frame = pq.read_table(path).to_pandas()
    shares = np.zeros(30)
    for _, line in frame.iterrows():
        shares[line.row] += all(line.pred == line.target) / 2
    assert job.correct.tolist() == shares.tolist()
    assert job.correct.mean() == pytest.approx(job.record.test["accuracy"].mean)
    assert job.consensus.mean() == pytest.approx(job.record.test["consensus"].mean)
    assert job.target.tolist() == true_labels(30).tolist()
    assert job.baseline is not None
    assert job.baseline.mean() == pytest.approx(job.record.baseline.test["accuracy"])


def test_the_order_of_the_lines_means_nothing(tmp_path: Path) -> None:
    path, job = one_job(tmp_path)
    table = pq.read_table(path)
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(table))), path)
    (group,) = load_groups(tmp_path)
    assert group.jobs[0].correct.tolist() == job.correct.tolist()
    assert group.jobs[0].target.tolist() == job.target.tolist()


def column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda table: column(table, "pred", pa.array([1] * len(table))),
            r"pred is int64, expected true or false for each of 4 labels",
        ),
        (
            lambda table: column(table, "target", lists(np.ones((len(table), 3), dtype=bool))),
            r"target is fixed_size_list.*\[3\], expected true or false for each of 4 labels",
        ),
        (
            lambda table: column(table, "baseline", lists(np.ones((len(table), 4)))),
            "baseline is not true or false everywhere",
        ),
        (
            lambda table: column(
                table,
                "pred",
                pa.array([None] * len(table), pa.list_(pa.bool_(), 4)),
            ),
            f"pred is missing in {60} rows",
        ),
        (
            lambda table: column(
                table,
                "target",
                lists(np.arange(len(table) * 4).reshape(-1, 4) < len(table) * 2),
            ),
            "the label of a test row is not the same for all seeds",
        ),
    ],
)
def test_damaged_sets_are_refused_in_one_line(
    damage: Callable[[pa.Table], pa.Table], says: str, tmp_path: Path
) -> None:
    path, _ = one_job(tmp_path)
    pq.write_table(damage(pq.read_table(path)), path)
    with pytest.raises(UserError, match=says) as error:
        load_groups(tmp_path)
    assert "\n" not in str(error.value)


def test_sets_that_the_record_does_not_speak_of_are_refused(tmp_path: Path) -> None:
    path, job = one_job(tmp_path)
    data = replace(job.record.dataset, multilabel=False)
    write_record(replace(job.record, dataset=data), path.parent)
    with pytest.raises(UserError, match="target is not a whole number everywhere"):
        load_groups(tmp_path)


# -- mistakes -------------------------------------------------------------------------------------


@pytest.fixture
def found() -> SetAnswers:
    rng = np.random.default_rng(1)
    target = true_labels(300)
    logits = 3.0 * target - 1.5 + rng.normal(size=target.shape)
    return SetAnswers(LABELS, target, 1 / (1 + np.exp(-logits)), text_of=None)


def test_labels_have_the_figures_of_scikit_learn(found: SetAnswers) -> None:
    expected = precision_recall_fscore_support(found.target, found.answer)
    frame = class_table(found).frame()
    precision, recall, f1, rows = map(np.asarray, expected)
    assert frame["Rows"].tolist() == rows.tolist()
    for title, values in (("Precision %", precision), ("Recall %", recall), ("F1 %", f1)):
        assert frame[title].tolist() == pytest.approx((100 * values).tolist())
    share = 100 * found.answer.mean(axis=0)
    assert frame["Answered in % of rows"].tolist() == pytest.approx(share.tolist())


def test_a_label_without_a_row_or_an_answer_has_no_figure() -> None:
    nothing = SetAnswers(
        ["a", "b"], np.array([[True, False]]), np.array([[0.1, 0.2]]), text_of=None
    )
    lost, none = nothing.classes()
    assert (lost.recall, lost.f1) == (0.0, 0.0)
    assert np.isnan([lost.precision, none.precision, none.recall, none.f1]).all()
    assert [row.texts[2] for row in class_table(nothing).rows] != ["–", "–"]


def test_every_label_of_every_row_has_a_place_among_the_probabilities(found: SetAnswers) -> None:
    frame = bin_table(found).frame()
    assert sum(frame["Labels"]) == found.target.size
    had = np.dot(frame["Had %"], frame["Labels"]) / found.target.size
    assert float(had) == pytest.approx(100 * found.target.mean())
    assert all(np.less_equal(frame["Had %, low"], frame["Had %"]))


def test_thresholds_trade_precision_for_recall(found: SetAnswers) -> None:
    levels = {one.threshold: one for one in found.by_threshold()}
    for threshold, level in levels.items():
        said = found.probabilities.astype(np.float32) >= np.float32(threshold)
        micro = precision_recall_fscore_support(found.target, said, average="micro")
        assert (level.precision, level.recall, level.micro_f1) == pytest.approx(micro[:3])
        assert level.exact == (said == found.target).all(axis=1).mean()
    assert levels[0.5].exact == found.right.mean()
    assert [row.mark for row in threshold_table(found).rows].count("chosen") == 1


def test_the_worst_row_has_the_largest_log_loss(found: SetAnswers) -> None:
    rows = found.worst()
    assert {*rows.tolist()} == {*np.flatnonzero(~found.right).tolist()}
    assert (np.diff(found.losses[rows]) <= 0).all()
    told = np.where(found.target[0], found.probabilities[0], 1 - found.probabilities[0])
    assert found.losses[0] == pytest.approx(-np.log(told).sum())


def test_labels_that_were_turned_around_are_in_doubt_by_row_and_label() -> None:
    target = true_labels(300)
    sure = np.where(target, 0.9, 0.1)
    labels = target.copy()
    wrong = [(3, 0), (40, 1), (99, 2), (200, 3)]
    for surer, place in enumerate(wrong):
        labels[place] = ~labels[place]
        apart = 0.09 - 0.02 * surer
        sure[place] += apart if target[place] else -apart
    doubts = doubtful_sets(sure, labels)
    assert list(zip(doubts.rows.tolist(), doubts.labels.tolist(), strict=True)) == wrong


# -- comparisons ----------------------------------------------------------------------------------


def test_differences_are_over_rows_in_one_stratum(runs: Path) -> None:
    (group,) = load_groups(runs)
    findings = find_all([group])[group]
    best, single = group.best, group.chosen
    assert single is not None
    one = np.zeros(group.rows, dtype=int)
    expected = paired_interval(best.correct, single.correct, one, text_of=None)
    assert findings.between(best, single).difference == expected


def test_draws_are_over_rows_in_one_stratum(tmp_path: Path) -> None:
    for size, draw in ((10, 0), (10, 1), (50, 0)):
        data = set_dataset(
            rows=60,
            fingerprint=f"{size}{draw}".ljust(64, "0"),
            test_fingerprint="t" * 64,
            per_class=size,
            draw=draw,
        )
        for given, noise in ((("minilm",), 1.8), (("mpnet",), 2.0), (("minilm", "mpnet"), 1.2)):
            write_set_job(
                tmp_path,
                data,
                [(name, "6") for name in given],
                noise,
                0.9 - noise / 5,
                fusion="stacked",
                selection="adaptive",
                recipe="a" * 12,
                considered=given,
            )
    (curve,) = learning_curves(load_groups(tmp_path))
    ((found,),) = find_over_draws([curve]).values()
    apart = np.stack([job.correct - alone.correct for job, alone in found.pairs])
    assert found.difference == crossed_interval(apart, np.zeros(60, dtype=int), text_of=None)
    write_report(tmp_path, tmp_path / "out", title="Draws")
    assert "Test exact match by rows a label" in (tmp_path / "out" / "report.html").read_text()


# -- pages and tables -----------------------------------------------------------------------------


def test_the_page_speaks_of_exact_match_and_shows_both_f1(runs: Path, tmp_path: Path) -> None:
    write_report(runs, tmp_path, title="Tags")
    page = (tmp_path / "report.html").read_text()
    for words in (
        "of the texts have all their labels right (exact match)",
        "stands for accuracy: the share of the texts whose labels are all right",
        "Micro-F1",
        "Test, exact match %",
        "Each label",
        "The worst mistakes",
        "A row has any number of the labels:",
    ):
        assert words in page
    for words in ("What was taken for what", "stratified by class", "Gates by class"):
        assert words not in page
    lines = (tmp_path / "report.md").read_text()
    assert "****" not in lines
    assert f"{NONE}, over all labels" not in lines
    tables = {path.stem for path in (tmp_path / "tables").glob("*.csv")}
    assert {"tags-each-label", "tags-how-frequent-each-label-is"} <= tables
    with (tmp_path / "tables" / "tags-single-layers-and-fusions.csv").open() as file:
        header = next(csv.reader(file))
    assert {"Test, exact match %", "Micro-F1 %", "Macro-F1 %"} <= {*header}
    with (tmp_path / "tables" / "tags-how-frequent-each-label-is.csv").open() as file:
        rows = {row["Label"]: int(row["Test rows"]) for row in csv.DictReader(file)}
    assert rows == dict(zip(LABELS, true_labels(240).sum(axis=0).tolist(), strict=True))


def test_a_page_without_such_texts_says_nothing_of_them(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(rows=60), [("minilm", "3")], 0.7, 0.6)
    write_report(tmp_path, tmp_path / "out", title="Toy")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "exact match" not in page.lower()
    assert "Micro-F1" not in page


def test_two_folders_side_by_side(tmp_path: Path) -> None:
    data = set_dataset(rows=80)
    write_set_job(tmp_path / "deep", data, [("minilm", "3")], 1.6, 0.6)
    write_set_job(tmp_path / "wide", data, BOTH, 1.2, 0.7)
    sweeps = {name: tmp_path / name for name in ("deep", "wide")}
    page = write_comparison(sweeps, tmp_path / "out", title="both").read_text()
    assert "Test, exact match %" in page
    assert "Test %" not in page
    assert "“exact match” stands for accuracy" in page


def test_results_rank_by_exact_match_and_have_both_f1(runs: Path) -> None:
    lines = ranking_lines(runs)
    assert lines[0] == "tags: 10 jobs by exact match on 50 validation rows"
    assert "exact match" in lines[1]
    assert "“exact match” stands for accuracy" in " ".join(lines)
    frame = results(runs)
    micro = dict(zip(frame["job"].tolist(), frame["micro_f1"].tolist(), strict=True))
    assert micro == {one.job: one.test["micro_f1"].mean for _, one in find_records(runs)}
    assert all(f"{100 * one:.1f}" in " ".join(lines) for one in micro.values())


def test_results_of_one_label_a_text_have_no_micro_f1(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(rows=40), [("minilm", "3")], 0.9, 0.7)
    assert np.isnan(results(tmp_path)["micro_f1"].tolist()).all()
    assert "F1" not in " ".join(ranking_lines(tmp_path))


# -- commands -------------------------------------------------------------------------------------


def test_errors_shows_labels_thresholds_and_the_worst_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, job = one_job(tmp_path)
    assert main(["errors", str(path.parent), "-n", "2"]) == 0
    said = capsys.readouterr().out
    share = 100 * job.consensus.mean()
    wrong = int((~job.consensus).sum())
    assert f"tags: {wrong} of 30 test rows are wrong, exact match {share:.1f} %" in said
    assert "exact match: the share of the rows whose labels are all right" in said
    assert all(f"\n{label}" in said for label in LABELS)
    assert "labels named from" in said
    assert said.count("\n  row ") == min(wrong, 2)
    assert "answers: " not in said  # no confusion


def test_every_row_as_csv_names_all_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, job = one_job(tmp_path)
    assert main(["errors", str(path.parent), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert sorted(int(row["row"]) for row in rows) == list(range(30))
    for row in rows:
        named = [label for label in row["label"].split(";") if label]
        assert named == [LABELS[k] for k in np.flatnonzero(job.target[int(row["row"])])]
        answer = [label for label in row["answer"].split(";") if label]
        assert answer == [label for label in LABELS if float(row[f"p({label})"]) >= 0.5]
        assert (row["right"] == "true") == (row["label"] == row["answer"])
    wrong = [float(row["log_loss"]) for row in rows if row["right"] == "false"]
    assert wrong == sorted(wrong, reverse=True)
    assert [row["right"] for row in rows] == sorted(row["right"] for row in rows)


def test_labels_that_hold_a_separator_are_read_in_one_way_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["arts, crafts", "rock; pop", *LABELS[2:]]
    data = set_dataset(rows=30, label_names=names)
    write_set_job(tmp_path / "runs", data, [("minilm", "3")], 1.5, 0.6, seeds=2)
    ((path, record),) = find_records(tmp_path / "runs")
    job = read_predictions(path, record)
    capsys.readouterr()
    assert main(["errors", str(path), "--csv"]) == 0
    for row in csv.DictReader(io.StringIO(capsys.readouterr().out)):
        has = np.flatnonzero(job.target[int(row["row"])])
        assert labels_in(row["label"], ";") == json.loads(row["label"]) == [names[k] for k in has]
    assert main(["errors", str(path)]) == 0
    assert re.search(r'; has \[("arts, crafts")?.*\]; log-loss', capsys.readouterr().out)


def test_mteb_gets_exact_match_and_macro_f1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = set_dataset(rows=30, origin="hub mteb/tags@ab", available={"train": 500, "test": 30})
    record = write_set_job(tmp_path / "runs", data, [("minilm", "3")], 1.5, 0.6, seeds=2)
    (folder,) = (place for place, _ in find_records(tmp_path / "runs"))
    (folder / "config.yaml").write_text("dataset: {subset: null}\n")
    assert main(["results", str(tmp_path / "runs"), "--mteb", str(tmp_path / "out")]) == 0
    (file,) = capsys.readouterr().out.split()
    (entry,) = json.loads(Path(file).read_text())["scores"]["test"]
    assert entry["main_score"] == entry["accuracy"] == record.test["accuracy"].mean
    assert entry["f1"] == record.test["macro_f1"].mean


def test_the_consensus_is_what_the_answers_are(tmp_path: Path) -> None:
    path, job = one_job(tmp_path)
    read = read_predictions(path.parent, job.record)
    found = answers_of_job(LABELS, read)
    assert isinstance(found, SetAnswers)
    assert found.right.tolist() == job.consensus.tolist()
    assert found.answer.tolist() == answers(read.mean, multilabel=True).tolist()
    assert (path.parent / METRICS).is_file()


def test_the_profile_of_such_texts_speaks_of_exact_match(tmp_path: Path) -> None:
    made = profile("reviews", judged=True)
    several = replace(made, dataset=replace(made.dataset, multilabel=True))
    write_profile(several, tmp_path / "runs" / "profile")
    write_report(tmp_path / "runs", tmp_path / "out", title="Profile")
    page = (tmp_path / "out" / "report.html").read_text()
    for words in (
        "Best by held-out probe exact match",
        "Held-out exact match of a linear probe",
        "“exact match” stands for accuracy",
        "Exact match %",
        "Test, exact match %",
    ):
        assert words in page


def test_pages_on_several_labels_speak_of_no_class_and_no_accuracy(tmp_path: Path) -> None:
    for size, draw in ((4, 0), (4, 1), (8, 0), (8, 1)):
        data = set_dataset(
            fingerprint=f"{size}{draw}", test_fingerprint="t", per_class=size, draw=draw
        )
        for models in (["minilm"], ["mpnet"], ["minilm", "mpnet"]):
            sources = [(name, "6") for name in models]
            settings = {"recipe": "r", "considered": models, "selection": "last"}
            write_set_job(tmp_path / "a", data, sources, 1.5, 0.6, **settings)
    for sweep in ("a", "b"):
        write_set_sweep(tmp_path / sweep, set_dataset())
    judged = profile("tags", judged=True)
    several = replace(judged.dataset, multilabel=True, label_names=LABELS)
    write_profile(replace(judged, dataset=several), tmp_path / "a" / "profile")
    write_report(tmp_path / "a", tmp_path / "page", title="page")
    sweeps = {name: tmp_path / name for name in ("a", "b")}
    write_comparison(sweeps, tmp_path / "both", title="both")
    for page, rows in (("page", "rows a label"), ("both", "")):
        text = (tmp_path / page / "report.md").read_text().replace(SETS, "")
        assert rows in text
        assert "the highest exact match on validation" in text
        assert "drawn from all rows together" in text
        for wrong in ("rows a class", "each class", "class by class", "highest accuracy"):
            assert wrong not in text
        for wrong in ("mean accuracies", "test accuracy", "Accuracy and cost", "probe accuracy"):
            assert wrong not in text


def test_pages_on_both_kinds_name_both() -> None:
    classes, several = dataset(), set_dataset()
    assert measure_of([classes]) == "accuracy"
    assert measure_of([several]) == "exact match"
    assert measure_of([classes, several, classes]) == "accuracy or exact match"
    assert drawn_words([classes]) == "drawn class by class"
    assert "where a text has several labels" in drawn_words([classes, several])


def test_micro_f1_of_the_baseline_has_an_interval(runs: Path) -> None:
    (group,) = load_groups(runs)
    baseline = group.jobs[0].record.baseline
    micro = baseline_estimates(baseline)["micro_f1"]
    assert micro.low is not None
    assert micro.high is not None
    assert micro.low < micro.mean < micro.high
    older = replace(baseline, micro_f1_low=None, micro_f1_high=None)
    assert baseline_estimates(older)["micro_f1"].low is None
