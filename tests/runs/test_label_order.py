"""The same texts and labels with the labels in another order: one fingerprint, other numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import layerfusion as lf
from layerfusion.errors import UserError
from layerfusion.records.job import read_record
from layerfusion.records.settings import config_of_job
from layerfusion.runs.job_texts import texts_of
from tests.tiny import TOPICS, tiny_folder, tiny_topics


@pytest.mark.parametrize("multilabel", [False, True])
def test_what_is_kept_of_a_job_fits_labels_in_another_order(
    tmp_path: Path, *, multilabel: bool
) -> None:
    texts, topics = tiny_topics(120)
    names = [*TOPICS] if multilabel else ["film", "no"]
    lists = [[name for name, has in row.items() if has] for row in topics.to_dict("records")]
    labels = lists if multilabel else ["film" if "film" in one else "no" for one in lists]
    model = tiny_folder("bert", tmp_path / "tiny")
    found = []
    for order in (names, names[::-1]):
        data = lf.load_dataset(texts, labels, label_names=order, name="ordered")
        assert list(data.label_names) == order
        job = lf.train(
            data, model, layers="adaptive", fusion="concat", seeds=1,
            folder=tmp_path / "jobs" / order[0], cache=tmp_path / "cache", logger="none",
            trainer={"max_epochs": 2}, extract={"token_budget": 512},
        )  # fmt: skip
        rows = pd.read_parquet(job.folder / "predictions.parquet")
        found.append({
            column: [_named(order, row) for row in np.stack(list(rows[column])).tolist()]
            for column in ("target", "baseline", "best_probe")
        })  # fmt: skip
    first, second = found
    assert first["target"] == second["target"]
    # Either is learned anew: what order changes is rounding, and at most a row.
    for name in ("baseline", "best_probe"):
        same = np.mean([a == b for a, b in zip(first[name], second[name], strict=True)])
        assert same > 0.9, name
    lf.write_report(tmp_path / "jobs")
    page = (tmp_path / "jobs" / "report.md").read_text()
    assert page.splitlines()[2].startswith("2 jobs on 1 data set")
    assert "damaged" not in page


def _named(order: list[str], row: object) -> list[str]:
    if isinstance(row, list):
        return sorted(name for name, has in zip(order, row, strict=True) if has)
    return [order[row]]  # type: ignore[index]


def test_numbers_of_a_job_are_not_read_in_another_order_of_its_labels(tmp_path: Path) -> None:
    """Class names that were put in another order since would name each other's rows."""
    texts, topics = tiny_topics(60)
    data = tmp_path / "data"
    data.mkdir()
    pd.DataFrame({"text": texts, "label": topics[next(iter(TOPICS))]}).to_parquet(
        data / "train.parquet"
    )
    names = data / "labels.json"
    names.write_text('["no", "yes"]')
    loaded = lf.load_dataset(data)
    job = lf.train(
        data, tiny_folder("bert", tmp_path / "tiny"), seeds=1, folder=tmp_path / "job",
        cache=tmp_path / "cache", logger="none", trainer={"max_epochs": 1},
    )  # fmt: skip
    record = read_record(job.folder)
    assert texts_of(config_of_job(job.folder), record).label_names == loaded.label_names
    turned = replace(record, dataset=replace(record.dataset, label_names=["yes", "no"]))
    with pytest.raises(UserError, match="or the order of the labels has"):
        texts_of(config_of_job(job.folder), turned)
