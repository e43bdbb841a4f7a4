"""The dashboard: what would be sent to W&B, and the local page where there is no key."""

from __future__ import annotations

import json
import sys
import warnings
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from wandb.errors import CommError

from layerfusion.cli import main
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.errors import UserError
from layerfusion.findings.groups import load_groups
from layerfusion.findings.mistakes import Answers
from layerfusion.records.gates import ClassGates, GateRecord
from layerfusion.records.job import ProbeRecord
from layerfusion.tracking import dashboard
from layerfusion.tracking import tracker as tracking
from layerfusion.tracking.columns import ROWS, run_config
from layerfusion.tracking.curves import mean_curves
from layerfusion.tracking.media import job_media, profile_media, profile_summary, summary
from tests.report.fabricate import dataset, write_job, write_sweep
from tests.report.fabricate_profiles import profile

SECTIONS = [
    *("Accuracy by layer", "Fusion comparison", "Training", "Gates", "Where it errs", "Cost"),
    "Provenance",
]
ANSWER = {"project": {"internalId": "number"}}


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> Any:
    """wandb-workspaces with everything that it would ask the server answered by nothing."""
    pytest.importorskip("wandb_workspaces", reason="the extra `dashboard` is not installed")
    with warnings.catch_warnings():
        # wandb-workspaces 0.4 is written for pydantic 1 in part.
        warnings.simplefilter("ignore", DeprecationWarning)
        from wandb_workspaces.reports.v2 import interface

    monkeypatch.setattr(interface, "_get_api", lambda: None)
    monkeypatch.setattr(interface, "execute_graphql", lambda *_, **__: ANSWER)
    return interface


def test_without_a_key_the_local_page_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_job(tmp_path / "jobs", dataset(), [("minilm", "4")], 0.7, 0.7)
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main(["dashboard", str(tmp_path)]) == 0
    page = tmp_path / "report.html"
    assert opened == [page.resolve().as_uri()]
    assert capsys.readouterr().out.strip() == str(page)
    assert "<html" in page.read_text()


def test_without_jobs_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", str(tmp_path)]) == 2
    assert "no finished job" in capsys.readouterr().err


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UserError, match=r"pip install 'layerfusion\[dashboard\]'") as error:
        dashboard.publish("p", "me")
    assert "\n" not in str(error.value)


def test_the_workspace_has_its_sections_and_best_runs_first(spaces: Any) -> None:
    view = _sent(dashboard.build_workspace("layerfusion", "me"))
    assert (view["entity"], view["project"]) == ("me", "layerfusion")
    section = view["spec"]["section"]
    assert [one["name"] for one in section["panelBankConfig"]["sections"]] == SECTIONS
    assert all(one["panels"] for one in section["panelBankConfig"]["sections"])
    (runs,) = section["runSets"]
    (key,) = runs["sort"]["keys"]
    assert key == {"key": {"section": "summary", "name": "test/accuracy"}, "ascending": False}


def test_the_report_has_the_same_sections(spaces: Any) -> None:
    blocks = _sent(dashboard.build_report("layerfusion", "me"))["spec"]["blocks"]
    headings = [one["children"][0]["text"] for one in blocks if one["type"] == "heading"]
    assert headings == SECTIONS
    assert sum(one["type"] == "panel-grid" for one in blocks) == len(SECTIONS)


def test_panels_show_what_runs_log(spaces: Any, tmp_path: Path) -> None:
    """Every metric, table and config key that a panel names is one that a run has."""
    write_sweep(tmp_path, dataset())
    jobs = [job.record for group in load_groups(tmp_path) for job in group.jobs]
    probe = ProbeRecord("minilm", "3", "mean", 0.5, 0.8, 0.7, 0.9, 0.4)
    gates = GateRecord([ClassGates("a", 1, [1.0])], [[]], [[]], [[1.0]])
    single = next(job for job in jobs if len(job.layers) == 1)
    jobs.append(replace(single, probes=[probe], gates=gates))
    figures = set().union(*(summary(job) for job in jobs), profile_summary(profile()))
    answers = Answers(
        ["a", "b"], np.array([0, 1]), np.array([0, 0]), np.array([0.9, 0.6]), text_of=None
    )
    media = set(profile_media(profile())).union(*(job_media(job, answers) for job in jobs))
    tables = media | {f"{name}_table" for name in media}
    config = {**run_config(load(compose("train", []))), **ROWS}
    epochs = {0: {"val/log_loss": 0.5, "val/accuracy": 0.5}}
    curves = set(mean_curves({"seed0": epochs, "seed1": epochs})[0])
    from wandb_workspaces.reports import v2 as wr

    panels = [panel for part in dashboard.PARTS for panel in part.panels()]
    seen = 0
    for panel in panels:
        shown = json.loads(panel._to_model().model_dump_json(by_alias=True))["config"]
        for axis in ("xAxis", "yAxis"):
            if str(shown.get(axis)).startswith("summary:"):
                assert shown[axis].removeprefix("summary:") in figures
                seen += 1
        for metric in shown.get("metrics") or [] if isinstance(panel, wr.LinePlot) else []:
            assert metric in curves
            seen += 1
        if shown.get("groupBy"):
            assert shown["groupBy"].removesuffix(".value") in config
            seen += 1
        named = getattr(panel, "table_name", None)
        query = getattr(panel, "query", None)
        if isinstance(query, dict):
            named = query["summaryTable"]["tableKey"]
        if named:
            assert named in tables
            seen += 1
    assert seen >= 30
    for column in dashboard.COLUMNS:
        section, _, name = column.partition(":")
        assert name in figures if section == "summary" else name.removesuffix(".value") in config


def test_publishing_saves_both_and_tells_where(
    spaces: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Saved:
        def __init__(self, kind: str, project: str, entity: str) -> None:
            self.url = f"https://wandb.test/{entity}/{project}/{kind}"
            self.saved = False

        def save(self) -> None:
            self.saved = True

    class Api:
        default_entity = "me"

    made: list[Saved] = []
    for kind in ("workspace", "report"):

        def build(project: str, entity: str, kind: str = kind) -> Saved:
            made.append(Saved(kind, project, entity))
            return made[-1]

        monkeypatch.setattr(dashboard, f"build_{kind}", build)
    monkeypatch.setattr(wandb, "Api", Api)
    monkeypatch.setattr(tracking, "goes_online", lambda: True)
    assert main(["dashboard", "--project", "mine"]) == 0
    addresses = [f"https://wandb.test/me/mine/{kind}" for kind in ("workspace", "report")]
    assert capsys.readouterr().out.split() == addresses
    assert [one.saved for one in made] == [True, True]


def test_what_wandb_refuses_is_one_line(
    spaces: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise CommError("the key is not known\nmore")

    monkeypatch.setattr(wandb, "Api", refuse)
    monkeypatch.setattr(tracking, "goes_online", lambda: True)
    assert main(["dashboard"]) == 2
    assert capsys.readouterr().err.strip() == "layerfusion: dashboard: W&B: the key is not known"


def _sent(thing: Any) -> dict[str, Any]:
    return json.loads(thing._to_model().model_dump_json(by_alias=True, exclude_none=True))
