from __future__ import annotations

import itertools
from dataclasses import replace
from html import escape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from layerfusion.findings.gates import MOST_CLASSES, MOST_SOURCES, leading_sources, telling_classes
from layerfusion.records.gates import ClassGates, gate_record
from layerfusion.records.job import LayerRecord, read_record
from layerfusion.report.block import Block, Folded
from layerfusion.report.blocks.gates import plot_mean_gates
from layerfusion.report.contents import Report
from layerfusion.report.figures.axes import NARROW, WIDE
from layerfusion.report.figures.canvas import sheet
from layerfusion.report.page import write_report
from tests.report.fabricate import amend, dataset, write_job
from tests.report.fabricate_sets import set_dataset, true_labels, write_set_job
from tests.report.reading import section_of, written_report

TEXT = "<b>bold</b> | *text*"
ROWS = 40
SOURCES = [("minilm", "3"), ("minilm", "6"), ("mpnet", "12")]


def _gates(sources: int, seed: int = 0) -> np.ndarray:
    raw = np.random.default_rng(seed).gamma(2.0, size=(ROWS, sources))
    return raw / raw.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    runs = tmp_path_factory.mktemp("gates")
    data = dataset(rows=ROWS)
    gates, target = _gates(3), np.arange(ROWS) % 2
    texts = [f"text {row} {TEXT}" for row in range(ROWS)]
    epochs = [[[0.2, 0.3, 0.5], [0.1, 0.3, 0.6]], [[0.4, 0.3, 0.3], [0.1, 0.5, 0.4]]]
    kept = gate_record(gates, target, texts, data.label_names, epochs)
    mean = gates.mean(axis=0).tolist()
    for salt, validation in (("worse", 0.7), ("better", 0.8)):
        write_job(runs, data, SOURCES, 0.75, validation, salt=salt, gates=mean, gate_record=kept)
    shown = {data.fingerprint: texts}
    return runs, written_report(runs, runs / "out", title="t", texts=shown)


@pytest.fixture(scope="module")
def section(report: Report) -> Block:
    blocks = [part for part in section_of(report, "data-toy").parts if isinstance(part, Block)]
    return next(block for block in blocks if block.title == "What the fusion leans on")


def _details(block: Block) -> Block:
    (details,) = [x for x in block.parts if isinstance(x, Folded) and x.title]
    return Block(details.title, details.parts)


def test_records_keep_their_gates(written: Path) -> None:
    records = [read_record(path.parent) for path in written.glob("*/metrics.json")]
    assert len(records) == 2
    for record in records:
        assert record.gates is not None
        assert [one.label for one in record.gates.classes] == ["neg", "pos"]


def test_the_page_says_why_the_weights_of_a_stack_are_as_they_are(tmp_path: Path) -> None:
    data, gates = dataset(rows=ROWS), [0.5, 0.3, 0.2]
    made = write_job(tmp_path, data, SOURCES, 0.75, 0.8, gates=gates)
    amend(tmp_path, made, fusion_notes=["seed 0: weights held near equal ones", "seed 1: other"])
    page = write_report(tmp_path, tmp_path / "out", title="t").read_text()
    assert "Seed 0: weights held near equal ones. Dashed: 1/3" in page


def test_the_details_are_of_the_fusion_that_validation_chooses(section: Block) -> None:
    keys = [figure.key.removeprefix("toy-gates-") for figure in section.figures]
    assert sorted(keys) in (
        ["1", "1-classes", "1-epochs", "2"],
        ["1", "2", "2-classes", "2-epochs"],
    )
    details = [figure.key.rpartition("-")[2] for figure in _details(section).figures]
    assert details == ["classes", "epochs"]


def test_tables_show_gates_by_class_and_texts_at_both_ends(section: Block) -> None:
    by_class, texts = _details(section).tables
    gates = _gates(3)
    assert [column.title for column in by_class.columns][2:] == ["neg (20 rows)", "pos (20 rows)"]
    for k, row in enumerate(by_class.rows):
        expected = [gates[:, k].mean(), gates[::2, k].mean(), gates[1::2, k].mean()]
        assert row.texts[1:] == tuple(f"{gate:.3f}" for gate in expected)
    assert len(texts.rows) == 3 * 6
    first = texts.rows[0].texts
    top = int(gates[:, 0].argmax())
    assert first[1:] == (
        "highest",
        f"{gates[top, 0]:.3f}",
        ("neg", "pos")[top % 2],
        f"{top}",
        f"text {top} {TEXT}",
    )


def test_a_page_has_texts_only_if_asked(written: Path, tmp_path: Path) -> None:
    write_report(written, tmp_path, title="t")
    for name in ("report.html", "report.md"):
        page = (tmp_path / name).read_text()
        assert "the highest and the lowest gates" in page
        assert "bold</b>" not in page
        assert "bold&lt;" not in page
        assert "*text*" not in page
    assert not [x for x in (tmp_path / "tables").iterdir() if "*text*" in x.read_text()]


def test_gates_are_those_of_labels_where_a_text_has_several(written: Path, tmp_path: Path) -> None:
    data = set_dataset(rows=ROWS)
    gates = _gates(3)
    kept = gate_record(gates, true_labels(ROWS), ["a text"] * ROWS, data.label_names)
    mean = gates.mean(axis=0).tolist()
    write_set_job(tmp_path, data, SOURCES, 1.2, 0.8, fusion="gated", gates=mean, gate_record=kept)
    write_report(tmp_path, tmp_path / "out", title="t")
    page = (tmp_path / "out" / "report.md").read_text()
    for words in ("Mean gates by label", "| All rows |", "over the test rows with a label and"):
        assert words in page
    section = page.partition("### What the fusion leans on")[2].partition("\n### ")[0]
    assert "by class" not in section
    assert "of a class" not in section


def test_example_texts_are_escaped(written: Path) -> None:
    page = (written / "out" / "report.html").read_text()
    assert TEXT not in page
    assert escape(TEXT) in page
    assert "<b>" not in (written / "out" / "report.md").read_text()


def test_many_classes_and_sources_stay_readable() -> None:
    labels = [f"class {number}" for number in range(52)]
    sources = [("smollm2", str(layer)) for layer in range(30)]
    gates = _gates(30)
    target = np.arange(ROWS) % 2 * 30
    target[:4] = [1, 2, 3, 4]
    kept = gate_record(gates, target, ["t"] * ROWS, labels)
    layers = [
        LayerRecord(name, layer, "mean", 0.5, 64, "", float(gate))
        for (name, layer), gate in zip(sources, gates.mean(axis=0), strict=True)
    ]
    shown = leading_sources(layers)
    assert len(shown) == MOST_SOURCES
    assert sorted(gates.mean(axis=0))[-MOST_SOURCES] == min(gates.mean(axis=0)[k] for k in shown)
    many = [ClassGates(label, 9, (gates[k % ROWS]).tolist()) for k, label in enumerate(labels)]
    assert len(telling_classes(many, layers)) == MOST_CLASSES
    assert len(telling_classes(kept.classes, layers)) == 6  # those that test has


def test_a_class_of_few_rows_has_to_differ_more() -> None:
    layers = [LayerRecord("m", str(k), "mean", 0.5, 64, "", 0.5) for k in range(2)]
    even = [ClassGates(f"even {k}", 100, [0.5, 0.5]) for k in range(MOST_CLASSES - 1)]
    few, many = ClassGates("few", 1, [0.7, 0.3]), ClassGates("many", 100, [0.6, 0.4])
    names = [one.label for one in telling_classes([*even, few, many], layers)]
    assert "many" in names
    assert "few" in names
    crowd = [ClassGates(f"crowd {k}", 100, [0.6, 0.4]) for k in range(MOST_CLASSES)]
    assert few not in telling_classes([few, *crowd], layers)


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("poolings", [("mean",), ("mean", "first", "last")])
def test_layers_of_a_model_stand_together_and_no_label_covers_another(
    poolings: tuple[str, ...], width: float, tmp_path: Path
) -> None:
    found = [("minilm", str(n), p) for n in (6, 0, 3, 1, 2, 5, 4) for p in poolings]
    found += [("words", "0", "tfidf"), ("smollm2", "norm", "last")]
    found += [("smollm2", str(n), p) for n in range(29, 0, -1) for p in poolings]
    order = np.random.default_rng(0).permutation(len(found))
    record = write_job(tmp_path, dataset(), SOURCES, 0.7, 0.7, lexical=["words"])
    layers = []
    for n in order.tolist():
        backbone, layer, pooling = found[n]
        layers.append(LayerRecord(backbone, layer, pooling, 0.5, 8, "", (n - 9) / 99))
    job = SimpleNamespace(record=replace(record, layers=layers, lexical=["words"]))
    ax = sheet(width).add_subplot()
    colors = dict.fromkeys(("minilm", "words", "smollm2"), "#000000")
    plot_mean_gates(job, colors, ax)  # type: ignore[arg-type]
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    bars = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    drawn = [(bar.get_x(), bar.get_height()) for bar in bars]
    assert len(drawn) == len(layers)
    legend = ax.get_legend()
    assert legend is not None
    assert {text.get_text() for text in legend.get_texts()} == colors.keys()
    heights = [height for _, height in sorted(drawn)]
    ranked = {"norm": 99}
    models = list(dict.fromkeys(layer.backbone for layer in layers))
    turns = list(dict.fromkeys(layer.pooling for layer in layers))
    wanted = sorted(
        layers,
        key=lambda x: (
            models.index(x.backbone),
            turns.index(x.pooling),
            ranked.get(x.layer) or int(x.layer),
        ),
    )
    assert heights == pytest.approx([layer.mean_gate for layer in wanted])
    texts = [*ax.get_xticklabels(), *ax.texts, *legend.get_texts(), ax.xaxis.label]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert len(boxes) >= 7
    assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
