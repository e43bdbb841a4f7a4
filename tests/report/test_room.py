"""The report reads records: it needs no model, and a user adds a block from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from layerfusion.cli import main
from layerfusion.errors import UserError
from layerfusion.records.profile import write_profile
from tests.report.fabricate import dataset, write_job
from tests.report.fabricate_profiles import profile, stack

HEAVY = ("torch", "sklearn", "lightning", "transformers", "wandb")
CALIBRATION = '''
from layerfusion.report import PERCENT, Block, Column, Table


def calibration(group, findings):
    """List the calibration error of every fusion."""
    if not group.fused:
        return None
    columns = (
        Column("Fusion", lambda job: job.record.fusion),
        Column("Error of mine %", lambda job: job.record.test["calibration_error"], PERCENT),
        Column("Gain, points", lambda job: findings.between(job, None).difference, PERCENT),
    )
    return Block("How well fusions are calibrated", (Table("Errors", group.fused, *columns),))


def broken(group, findings):
    """Return what is no block."""
    return "text"
'''


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    both = [("minilm", "3"), ("minilm", "5")]
    for sources in (both[:1], both[1:], both):
        write_job(tmp_path / "runs", dataset(rows=40), sources, 0.7, 0.7, seeds=2)
    write_profile(profile(models={"minilm": stack(3)}, judged=True), tmp_path / "runs" / "p")
    return tmp_path / "runs"


def test_a_report_imports_no_library_of_models(runs: Path) -> None:
    code = (
        "import sys; from layerfusion.cli import main; main(sys.argv[1:]);"
        f"print(sorted({set(HEAVY)!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "report", str(runs)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert (runs / "report.html").exists()


def test_a_block_from_outside_is_part_of_every_section(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_blocks.py").write_text(CALIBRATION)
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(runs), "--block", "my_blocks:calibration"]) == 0
    assert ">How well fusions are calibrated<" in (runs / "report.html").read_text()
    assert "### How well fusions are calibrated" in (runs / "report.md").read_text()
    head = (runs / "tables" / "toy-errors.csv").read_text().splitlines()[0]
    assert head.startswith('Fusion,Error of mine %,"Error of mine %, sd","Gain, points",')


def test_what_is_no_block_is_an_error_that_names_it(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong_blocks.py").write_text(CALIBRATION)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="block wrong_blocks:broken: returned 'text'; it has"):
        run_report(runs, "wrong_blocks:broken")
    with pytest.raises(UserError, match="--block=wrong_blocks:none: wrong_blocks has no 'none'"):
        run_report(runs, "wrong_blocks:none")


def run_report(runs: Path, block: str) -> None:
    from layerfusion.commands.reports import report

    report([str(runs), "--block", block])
