"""A record that is damaged is left out and named; the page shows all others, with right figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from layerfusion.cli import main
from layerfusion.errors import UserError
from layerfusion.findings.frame import results
from layerfusion.findings.results import Results
from layerfusion.records.job import METRICS, PREDICTIONS
from layerfusion.records.profile import PROFILE, write_profile
from layerfusion.records.search import HISTORY, write_history
from layerfusion.report.plots import plot_layers
from layerfusion.runs.sweep import write_plan
from tests.report.fabricate import dataset, search_history, write_job
from tests.report.fabricate_profiles import profile, stack

DATA = dataset("toy", rows=40)


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change a record of a version that had no checksums."""

    def edit(path: Path) -> None:
        content = json.loads(path.read_text())
        content.pop("checksum")
        change(content)
        path.write_text(json.dumps(content))

    return edit


def column(name: str, values: Callable[[np.ndarray], Any]) -> Callable[[Path], None]:
    """Change a column of the predictions."""

    def edit(path: Path) -> None:
        table = pq.read_table(path)
        found = values(table.column(name).to_numpy().copy())
        place = table.schema.get_field_index(name)
        pq.write_table(table.set_column(place, name, pa.array(found)), path)

    return edit


def other_seed(seeds: np.ndarray) -> np.ndarray:
    seeds[0] = 1
    return seeds


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("moved away")


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: tuple[tuple[str, Callable[[Path], object], str], ...] = (
    (METRICS, lambda path: path.write_text(path.read_text()[:99]), "not a record"),
    (METRICS, lambda path: path.write_text(""), "not a record"),
    (METRICS, lambda path: path.write_bytes(b"\xff\xfe{}"), "not a record"),
    (
        METRICS,
        lambda path: path.write_text(path.read_text().replace("0.7", "0.9", 1)),
        "its checksum differs",
    ),
    (METRICS, folder_instead, "but a folder"),
    (METRICS, link_to_nothing, "a link to nothing"),
    (METRICS, edited(lambda x: x.update(schema=99)), "schema 99"),
    (METRICS, edited(lambda x: x.update(layers=[])), "layers"),
    (
        METRICS,
        edited(lambda x: x["test"]["accuracy"].update(mean=81.5)),
        "test.accuracy",
    ),
    (METRICS, edited(lambda x: x["layers"][0].update(layer="99")), "99 of minilm"),
    (METRICS, edited(lambda x: x["test"]["log_loss"].update(mean=float("nan"))), "NaN"),
    (
        METRICS,
        edited(lambda x: x.update(gates={"classes": [], "highest": [], "lowest": []})),
        "gates: not one for each",
    ),
    (PREDICTIONS, Path.unlink, "missing"),
    (
        PREDICTIONS,
        lambda path: path.write_bytes(path.read_bytes()[:200]),
        "not a table",
    ),
    (PREDICTIONS, column("row", lambda rows: rows - 1), "80 predictions"),
    (PREDICTIONS, column("seed", other_seed), "80 predictions"),
    (PREDICTIONS, column("target", lambda x: x + 7), "none of the 2"),
    (PREDICTIONS, column("pred", lambda x: x + 0.5), "not a whole number"),
    (PROFILE, lambda path: path.write_text("{}"), "not a layer profile"),
    (PROFILE, edited(lambda x: x.update(layers=[])), "layer"),
    (PROFILE, edited(lambda x: x.update(backbones={})), "layers, backbones"),
    (PROFILE, edited(lambda x: x.update(similarity=[])), "similarity: not one number"),
    (HISTORY, lambda path: path.write_text("[]"), "not the history of a search"),
    ("*.json", lambda path: path.write_text("{}"), "not the plan of a sweep"),
)


def test_all_that_is_damaged_is_named_and_the_rest_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One job that is whole, and one record for each damage."""
    write_job(tmp_path / "whole", DATA, [("minilm", "6")], 0.7, 0.7, seeds=2)
    damaged: dict[str, str] = {}
    for number, (name, do, why) in enumerate(DAMAGES):
        folder = tmp_path / str(number)
        if name in (METRICS, PREDICTIONS):
            write_job(folder, DATA, [("minilm", "5")], 0.7, 0.7, seeds=2, salt=str(number))
        elif name == PROFILE:
            write_profile(profile(models={"minilm": stack(2)}, seed=number), folder)
        elif name == HISTORY:
            write_history(search_history("heads", (None,)), folder)
        else:
            write_plan(folder, "train", {"first": ["k=1"]})
        (path,) = folder.rglob(name)
        do(path)
        damaged[path.relative_to(tmp_path).as_posix()] = why
    assert main(["report", str(tmp_path)]) == 0
    start = f"layerfusion: left out: {tmp_path}/"
    said = [line.removeprefix(start) for line in capsys.readouterr().err.splitlines()]
    page = (tmp_path / "report.md").read_text().replace("\\", "")
    rows = [row for row in page.splitlines() if row.startswith("|") and "| damaged |" in row]
    assert len(said) == len(rows) == len(DAMAGES)
    for path, why in damaged.items():
        (line,) = [line for line in said if line.startswith(f"{path}: ")]
        (row,) = [row for row in rows if row.startswith(f"| {path} |")]
        assert why in line
        assert why in row
    assert str(tmp_path) not in page
    assert f"{len(DAMAGES)} files cannot be read: 0/" in page
    assert "1 job on 1 data set;" in page


def test_labels_that_differ_from_those_of_most_jobs_are_damage(tmp_path: Path) -> None:
    for layer in ("3", "5", "6"):
        write_job(tmp_path / layer, DATA, [("minilm", layer)], 0.7, 0.7, seeds=2)
    (path,) = (tmp_path / "3").rglob(PREDICTIONS)
    column("target", lambda labels: 1 - labels)(path)
    results = Results(tmp_path)
    assert [len(group.jobs) for group in results.groups] == [2]
    assert "has other test labels" in results.damaged[path]


def test_a_copy_stands_for_a_damaged_job(tmp_path: Path) -> None:
    for place in ("a", "b"):
        write_job(tmp_path / place, DATA, [("minilm", "5")], 0.7, 0.7, seeds=2)
    (path,) = (tmp_path / "a").rglob(PREDICTIONS)
    path.unlink()
    results = Results(tmp_path)
    assert [len(group.jobs) for group in results.groups] == [1]
    assert list(results.damaged) == [path]


def test_where_nothing_can_be_read_it_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for layer in ("3", "5"):
        job = write_job(tmp_path, DATA, [("minilm", layer)], 0.7, 0.7, seeds=2)
        (tmp_path / f"toy-{job.job}" / METRICS).write_text("")
    assert main(["report", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nothing here can be read" in line
    assert "not a record" in line
    assert "(and 1 file more)" in line
    assert not (tmp_path / "report.html").exists()


def test_a_notebook_is_warned_of_what_is_damaged_and_gets_the_rest(tmp_path: Path) -> None:
    for layer in ("3", "5"):
        write_job(tmp_path / layer, DATA, [("minilm", layer)], 0.7, 0.7, seeds=2)
    (broken,) = (tmp_path / "3").rglob(METRICS)
    broken.write_text("{}")
    with pytest.warns(UserWarning, match="left out: .*not a record"):
        assert list(results(tmp_path)["layers"]) == ["minilm:5"]
    with pytest.warns(UserWarning, match="left out: .*not a record"):
        assert plot_layers(tmp_path, ax=Figure().add_subplot()).has_data()
    (other,) = (tmp_path / "5").rglob(METRICS)
    other.write_text("{}")
    for show in (results, plot_layers):
        with pytest.raises(UserError, match=r"nothing here can be read: .*not a record"):
            show(tmp_path)
