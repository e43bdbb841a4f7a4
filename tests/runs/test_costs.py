"""What a text costs, in the record of a job."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from layerfusion.cli import main
from layerfusion.records.job import read_record


def test_the_time_of_a_text_is_that_of_the_jobs_own_texts(
    job: list[str], texts: Path, tmp_path: Path
) -> None:
    longer = tmp_path / "longer"
    longer.mkdir()
    for split in ("train", "test"):
        frame = pd.read_csv(texts / f"{split}.csv")
        frame["text"] = [" ".join([text] * 6) for text in frame["text"]]
        frame.to_csv(longer / f"{split}.csv", index=False)
    asked = [*job, "layers=last", "pooling=[mean]"]
    for name, folder in (("short", texts), ("long", longer), ("again", texts)):
        own = [word.replace(str(texts), str(folder)) for word in asked]
        assert main(["train", *own, f"hydra.run.dir={tmp_path / name}"]) == 0
    measured = {}
    for path in (tmp_path / "cache").glob("embeddings/*/latency-*.json"):
        facts = json.loads(path.read_text())["facts"]
        measured[facts["length"]] = facts
    assert len(measured) == 2
    short, long = (measured[length] for length in sorted(measured))
    for name, facts in (("short", short), ("long", long), ("again", short)):
        [cost] = read_record(tmp_path / name).backbones.values()
        assert cost.milliseconds_one == 1000 * facts["one"][cost.highest_layer]
        assert cost.milliseconds_batch == 1000 * facts["batch"][cost.highest_layer]
