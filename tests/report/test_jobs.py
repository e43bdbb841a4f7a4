from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from layerfusion.errors import UserError
from layerfusion.findings.groups import load_groups
from layerfusion.records.job import PREDICTIONS
from tests.report.fabricate import dataset, write_job


def one_job(folder: Path) -> Path:
    write_job(folder, dataset(rows=10), [("minilm", "3")], 0.7, 0.7, seeds=2)
    (path,) = folder.rglob(PREDICTIONS)
    return path


def test_correct_is_the_share_of_seeds(tmp_path: Path) -> None:
    right = np.array([[True, False, True], [True, False, False]])
    data = dataset(rows=3)
    write_job(tmp_path, data, [("minilm", "3")], 0, 0, seeds=2, right=right)
    (group,) = load_groups(tmp_path)
    (job,) = group.jobs
    assert job.correct.tolist() == [1.0, 0.0, 0.5]
    assert job.correct.mean() == pytest.approx(job.record.test["accuracy"].mean)


def test_consensus_is_what_the_mean_probability_says(tmp_path: Path) -> None:
    path = one_job(tmp_path)
    table = pq.read_table(path).to_pandas()
    # Row 0 (class 0): one seed is wrong and surer than the other, so that the consensus is wrong.
    # Row 1 (class 1): the same the other way round.
    for row, seed, prob in (
        *((0, 0, [0.6, 0.4]), (0, 1, [0.1, 0.9])),
        *((1, 0, [0.55, 0.45]), (1, 1, [0.2, 0.8])),
    ):
        place = table.index[(table.row == row) & (table.seed == seed)][0]
        table.at[place, "prob"] = np.array(prob, np.float32)
        table.at[place, "pred"] = int(np.argmax(prob))
    # The order of the lines means nothing.
    mixed = table.sample(frac=1, random_state=0)
    prob = pa.FixedSizeListArray.from_arrays(np.concatenate(list(mixed.prob)), 2)
    found = pa.Table.from_pandas(mixed.drop(columns="prob"), preserve_index=False)
    pq.write_table(found.append_column("prob", prob), path)
    (group,) = load_groups(tmp_path)
    (job,) = group.jobs
    assert job.correct[:2].tolist() == [0.5, 0.5]
    assert job.consensus[:2].tolist() == [False, True]
    means = table.groupby("row").prob.apply(lambda one: np.stack(list(one)).mean(axis=0).argmax())
    assert job.consensus.tolist() == (means.to_numpy() == job.target).tolist()


def test_baseline_is_read_where_a_job_kept_it(tmp_path: Path) -> None:
    right = np.arange(10) % 3 > 0
    for name, keep in (("new", True), ("old", False)):
        write_job(
            tmp_path / name,
            dataset(rows=10),
            [("minilm", "3")],
            0.7,
            0.7,
            baseline_right=right,
            keep_baseline=keep,
        )
    new, old = (load_groups(tmp_path / name)[0].jobs[0] for name in ("new", "old"))
    assert new.baseline is not None
    assert new.baseline.tolist() == right.tolist()
    assert old.baseline is None
    assert old.consensus.tolist() == new.consensus.tolist()


def test_missing_predictions_are_named(tmp_path: Path) -> None:
    path = one_job(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"predictions\.parquet: missing") as error:
        load_groups(tmp_path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_predictions_that_do_not_fit_the_record_are_refused(tmp_path: Path) -> None:
    path = one_job(tmp_path)
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 19), path)
    with pytest.raises(UserError, match="19 predictions, expected one for each of 10 test rows"):
        load_groups(tmp_path)
    pq.write_table(table.drop_columns(["pred"]), path)
    with pytest.raises(UserError, match="columns"):
        load_groups(tmp_path)
    wide = pa.FixedSizeListArray.from_arrays(np.zeros(60, np.float32), 3)
    place = table.schema.get_field_index("prob")
    pq.write_table(table.set_column(place, "prob", wide), path)
    with pytest.raises(UserError, match="expected the probabilities of 2 classes"):
        load_groups(tmp_path)
    path.write_bytes(b"not parquet")
    with pytest.raises(UserError, match="not a table"):
        load_groups(tmp_path)
