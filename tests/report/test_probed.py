"""Real jobs whose selections probed the layers, while no layer was run alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from layerfusion.cli import main
from layerfusion.errors import UserError
from layerfusion.findings.groups import DataGroup, load_groups
from layerfusion.findings.tests import find_all
from layerfusion.records.job import read_record
from layerfusion.report.blocks.costs import cost_block
from layerfusion.report.blocks.layers import layer_block
from layerfusion.report.blocks.summary import group_card
from layerfusion.report.figures import layers as figures
from layerfusion.report.figures.canvas import drawing
from layerfusion.report.plots import plot_layers
from tests.report.reading import column_of
from tests.tiny import tiny_job

LAYERS = ["0", "1", "2", "3"]


def label(number: int) -> str:
    return ("neg", "pos")[(number + (number % 16 in (0, 7))) % 2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("probed")
    draw = np.random.default_rng(0)
    words = (["bad", "awful", "loss", "the"], ["good", "great", "film", "the"])
    # A label in eight is wrong, so that there are mistakes.
    rows = [(f"{' '.join(draw.choice(words[n % 2], 3))} {n}", label(n)) for n in range(160)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(folder / "texts.csv", index=False)
    job = tiny_job(folder / "texts.csv", bert_folder, folder / "cache")
    more = ["logger=none", "seeds=2", "bundle=true"]
    for fusion, layers in (("gated", "adaptive"), ("auto", "adaptive"), ("stacked", "all")):
        run = [f"fusion={fusion}", f"layers={layers}", f"hydra.run.dir={folder / 'runs' / fusion}"]
        assert main(["train", *job, *more, *run]) == 0
    return folder / "runs"


@pytest.fixture(scope="module")
def group(runs: Path) -> DataGroup:
    (group,) = load_groups(runs)
    return group


@pytest.mark.parametrize("fusion", ["gated", "auto", "stacked"])
def test_a_job_records_the_probes_of_all_layers_and_two_references(runs: Path, fusion: str) -> None:
    record = read_record(runs / fusion)
    assert [probe.layer for probe in record.probes] == LAYERS
    assert record.probed_on == "5 folds of train"
    assert all(probe.low <= probe.accuracy <= probe.high for probe in record.probes)
    best = max(record.probes, key=lambda one: (round(one.accuracy, 9), -round(one.log_loss, 9)))
    places = [reference.layer.layer for reference in record.references]
    assert places == list(dict.fromkeys([best.layer, "3"]))
    table = pq.read_table(runs / fusion / "predictions.parquet").to_pandas()
    for reference in record.references:
        answers = table[reference.column]
        accuracy = reference.test["accuracy"]
        assert (answers == table["target"]).mean() == pytest.approx(accuracy.mean)
        assert accuracy.low is not None
        assert accuracy.low <= accuracy.mean
        assert reference.backbone.highest_layer == reference.layer.layer


def test_a_stack_of_the_best_layer_alone_says_what_the_reference_says(
    runs: Path, bert_folder: Path
) -> None:
    record = read_record(runs / "gated")
    reference = record.references[0]
    job = tiny_job(runs.parent / "texts.csv", bert_folder, runs.parent / "cache")
    fixed = ["layers=fixed", f"layers.fixed.tiny=[{reference.layer.layer}]", "fusion=stacked"]
    folder = runs.parent / "alone"
    assert main(["train", *job, *fixed, "seeds=1", "logger=none", f"hydra.run.dir={folder}"]) == 0
    alone = read_record(folder)
    for name in ("accuracy", "macro_f1", "log_loss"):
        assert alone.test[name].mean == pytest.approx(reference.test[name].mean, abs=1e-6)


def test_the_best_probe_is_the_single_layer_that_fusing_is_measured_by(group: DataGroup) -> None:
    assert group.probed
    assert group.chosen is not None
    findings = find_all([group])[group]
    summary = group_card(group, findings)
    assert any(
        name.startswith(("Against best single", "Against last")) for name, _ in summary.facts
    )
    for job in group.fused:
        found = findings.between(job, group.chosen)
        assert found.difference.mean == pytest.approx(
            job.correct.mean() - group.chosen.correct.mean()
        )
    assert group.best.record.fusion != "probe"  # what is used is a job, with a classifier
    assert summary.usage[0][1].startswith("layerfusion predict ")


def test_what_nobody_measured_of_a_reference_is_no_figure(group: DataGroup) -> None:
    table = cost_block(group, find_all([group])[group]).tables[1]
    names = column_of(table, "What")
    for name in ("Training seconds", "Peak memory, MB"):
        found = dict(zip(names, column_of(table, name), strict=True))
        assert {figure for what, figure in found.items() if "(probe)" in what} == {"–"}
        assert "–" not in {figure for what, figure in found.items() if "(probe)" not in what}


def test_the_curve_of_the_probes_stands_in_every_report(group: DataGroup) -> None:
    block = layer_block(group, find_all([group])[group])
    assert [figure.key for figure in block.figures] == [f"{group.key}-probes"]
    assert "5 folds of train" in block.figures[0].caption
    table = next(table for table in block.tables if table.title == "Probes of all layers")
    assert column_of(table, "Layer") == LAYERS
    used = {layer.layer for layer in group.best.record.layers}
    assert {row.texts[1] for row in table.rows if row.mark} == used
    (curve,) = group_card(group, find_all([group])[group]).parts
    assert "probe, 5 folds of train" in curve.wide
    assert len(plot_layers(group).lines) > len(LAYERS)


def test_texts_are_shown_only_when_asked_for(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (runs.parent / "texts.csv").read_text()
    texts = pd.read_csv(runs.parent / "texts.csv")["text"]

    def shown(*options: str) -> int:
        assert main(["report", str(runs), *options]) == 0
        (path,) = (runs / "tables").glob("*-the-surest-mistakes.csv")
        frame = pd.read_csv(path)
        return sum(text in set(frame.reindex(columns=["Text"])["Text"]) for text in texts)

    (group,) = load_groups(runs)
    mistakes = int((~group.best.consensus).sum())
    assert mistakes > 0
    assert shown() == 0
    assert shown("--texts") == mistakes
    (runs.parent / "texts.csv").write_text("text,label\n" + "".join(
        f"{text} x,{label(n)}\n" for n, text in enumerate(texts)
    ))  # fmt: skip
    assert main(["report", str(runs), "--texts"]) == 2
    assert "its texts or labels have changed since the job ran" in capsys.readouterr().err
    (runs.parent / "texts.csv").write_text(whole)  # the other tests read it too


def test_a_stack_of_two_layers_does_not_hide_the_probes_of_all(
    runs: Path, bert_folder: Path, tmp_path: Path
) -> None:
    job = tiny_job(runs.parent / "texts.csv", bert_folder, runs.parent / "cache")
    two = ["layers=fixed", "layers.fixed.tiny=[1,3]", "fusion=stacked", "seeds=1", "logger=none"]
    assert main(["train", *job, *two, f"hydra.run.dir={tmp_path / 'few' / 'two'}"]) == 0
    (few,) = load_groups(tmp_path / "few")
    assert [len(curve.points) for curve in few.probe_curves] == [2]
    block = layer_block(few, find_all([few])[few])
    assert not block.figures  # two points are no curve
    assert block.tables
    with pytest.raises(UserError, match="no selection probed enough layers"):
        plot_layers(tmp_path / "few")
    for fusion in ("gated", "stacked"):
        shutil.copytree(runs / fusion, tmp_path / "few" / fusion)
    (more,) = load_groups(tmp_path / "few")
    assert [len(curve.points) for curve in more.probe_curves] == [len(LAYERS)]


def test_rows_held_out_in_validation_alone_need_no_folds(
    runs: Path, bert_folder: Path, tmp_path: Path
) -> None:
    """A reference would need some, and one text of a class cannot be dealt to folds."""
    job = tiny_job(runs.parent / "texts.csv", bert_folder, runs.parent / "cache")
    few = ["limit.per_class=2", "dataset.validation_size=0.5", "layers.held_out=validation"]
    words = ["layers=adaptive", "fusion=gated", "seeds=1", "logger=none", *few]
    assert main(["train", *job, *words, f"hydra.run.dir={tmp_path / 'few'}"]) == 0
    record = read_record(tmp_path / "few")
    assert (record.references, record.probed_on) == ([], "validation")


@pytest.mark.parametrize("name", ["m", "owner/a-model-with-a-name-that-is-longer-than-the-figure"])
@pytest.mark.parametrize("models", [1, 3, 8])
def test_the_small_curve_has_room_for_many_models_and_long_names(
    group: DataGroup, monkeypatch: pytest.MonkeyPatch, name: str, models: int
) -> None:
    (line,), judged, measure = figures.answer_lines(group)
    many = [
        replace(
            line,
            name=f"{number}{name} {pooling}",
            model=f"{number}{name}",
        )
        for number in range(models)
        for pooling in ("mean", "last", "first")
    ]
    monkeypatch.setattr(figures, "answer_lines", lambda _group: (many, judged, measure))
    colors = {line.model: "#0072b2" for line in many}
    monkeypatch.setattr(figures, "_colors", lambda _group: colors)
    drawn = drawing(  # warns, and so fails, where no room is left for the axes
        "answer", lambda ax: figures.plot_answer_curve(group, ax), alt="", caption="", wide=330.0
    )
    assert drawn.wide.count("<svg") == drawn.narrow.count("<svg") == 1
