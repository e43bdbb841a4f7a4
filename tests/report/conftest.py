from __future__ import annotations

from pathlib import Path

import pytest

from layerfusion.records.profile import write_profile
from layerfusion.records.search import write_history
from layerfusion.report.contents import Report
from tests.report.fabricate import dataset, search_history, write_job, write_sweep
from tests.report.fabricate_profiles import MODELS, profile
from tests.report.reading import written_report

BREAKING = """'"></style></title></script><img src=x onerror=a()><a href="javascript:a()">"""
HOSTILE = "<script>alert('x')</script>|*a*"


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are as long as they may be, whatever the terminal that the tests run in."""
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A report on a whole sweep, and on a sample of few rows whose name is hostile."""
    folder = tmp_path_factory.mktemp("report")
    write_sweep(folder / "runs", dataset("reviews", overlap=2))
    sample = dataset(
        HOSTILE,
        rows=60,
        sampled=True,
        available={"train": 5000, "test": 900},
        notes=["<b>note</b>", BREAKING],
    )
    for layer, accuracy in (("4", 0.7), ("6", 0.75)):
        write_job(folder / "runs", sample, [("minilm", layer)], accuracy, accuracy, seeds=1)
    write_job(
        folder / "runs",
        sample,
        [("minilm", "4"), ("minilm", "6")],
        0.7,
        0.7,
        fusion="concat",
        seeds=1,
    )
    write_profile(profile("reviews"), folder / "runs" / "profile")
    write_profile(
        profile("reviews", {"smollm2": MODELS["smollm2"]}, ("mean", "last"), judged=True),
        folder / "runs" / "judged",
    )
    write_history(search_history(HOSTILE), folder / "runs" / "search")
    report = written_report(
        folder / "runs", folder / "out", title="A <title>", facts=["limit.test=60 & so on"]
    )
    return folder, report


@pytest.fixture(scope="module")
def written(whole: tuple[Path, Report]) -> Path:
    """The folder with the jobs, `runs`, and the report on them, `out`."""
    return whole[0]


@pytest.fixture(scope="module")
def report(whole: tuple[Path, Report]) -> Report:
    """What is on that report."""
    return whole[1]
