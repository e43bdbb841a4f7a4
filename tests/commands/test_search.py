"""`layerfusion search`: it resumes, prunes, looks at validation only and ends in the report."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from layerfusion.cli import main
from layerfusion.commands import search
from layerfusion.composing.hydra import compose, group_options
from layerfusion.config.commands import SearchCommand, SearchConfig
from layerfusion.errors import UserError
from layerfusion.findings.results import Results
from layerfusion.records.job import read_record
from layerfusion.records.search import find_histories
from layerfusion.report.blocks.searches import search_sections
from layerfusion.runs.sweep import held
from tests.tiny import tiny_folder, tiny_job, tiny_texts

SPACE = """\
name: small
trials: 6
startup: 2
warmup: 1
space:
  layers: [last, all]
  fusion: [concat, sum]
  fusion.width: {low: 4, high: 16}
  trainer.learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    texts = tiny_texts(tmp_path / "texts.csv", 100)
    job = tiny_job(texts, tiny_folder("bert", tmp_path / "bert"), tmp_path / "cache")
    (tmp_path / "mine/search").mkdir(parents=True)
    (tmp_path / "mine/search/small.yaml").write_text(SPACE)
    return [
        "search",
        f"--config-dir={tmp_path / 'mine'}",
        "search=small",
        *job,
        f"paths.outputs={tmp_path}",
        "logger=none",
        "seeds=2",
        "trainer.max_epochs=6",
    ]


def test_a_search_that_was_killed_goes_on_to_its_number_of_trials(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right, begun = search.run_job, 0

    def killed(*given: Any, **named: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun == 3:
            raise KeyboardInterrupt
        return right(*given, **named)

    monkeypatch.setattr(search, "run_job", killed)
    assert main(words) == 130
    folder = tmp_path / "search/small"
    (first,) = find_histories(folder)
    assert len(first.trials) == 2
    capsys.readouterr()
    assert main(words) == 0
    said = capsys.readouterr()
    (history,) = find_histories(folder)
    assert len(history.trials) == 6
    assert history.trials[:2] == first.trials
    values = [trial.value for trial in history.trials if trial.value is not None]
    best = next(trial for trial in history.trials if trial.value == min(values))
    assert best.job is not None
    record = read_record(folder / best.job)
    # the mean over the seeds, on validation; its command line gives the same job
    seeds = [seed.validation["log_loss"] for seed in record.seeds]
    assert best.value == pytest.approx(sum(seeds) / 2)
    command = shlex.split(said.out.strip())
    assert command[:2] == ["layerfusion", "train"]
    assert main(command[1:]) == 0
    assert (tmp_path / "runs" / best.job / "metrics.json").exists()
    # nothing left to do
    capsys.readouterr()
    assert main(words) == 0
    assert "[6/6]" not in capsys.readouterr().err

    (block,) = search_sections(Results(folder))
    (table,) = block.tables[-1:]
    assert len(table.rows) == 6
    assert [row.texts[0] for row in table.rows if row.mark == "chosen"] == [str(best.number)]
    assert main(["status", str(folder)]) == 2
    assert (
        f"this is a search, not a sweep; `layerfusion report {folder}` shows it"
        in capsys.readouterr().err
    )
    assert main(["report", str(folder)]) == 0
    assert "Search history: small" in (folder / "report.md").read_text()
    assert (folder / "figures/search-1-history.png").exists()


def test_a_hopeless_trial_is_pruned_and_not_before_its_time() -> None:
    pruner = search.median_pruner(SearchConfig("x", startup=2, warmup=1))
    study = search.optuna.create_study(direction="minimize", pruner=pruner)
    for first in (1.0, 2.0):
        earlier = study.ask()
        for step in (1, 2):
            earlier.report(first / step, step)
        study.tell(earlier, first / 2)
    told = SimpleNamespace(callback_metrics={search.MONITOR: 0.74})
    kept = search.Pruning(study.ask(), before=0)  # the median of 0.5 and 1.0 is 0.75
    behind = search.Pruning(study.ask(), before=0)
    for _ in range(2):
        kept.on_validation_end(told, None)  # type: ignore[arg-type]
    told.callback_metrics[search.MONITOR] = 0.76
    behind.on_validation_end(told, None)  # type: ignore[arg-type]
    with pytest.raises(search.optuna.TrialPruned):
        behind.on_validation_end(told, None)  # type: ignore[arg-type]
    # the best so far is what is told
    kept.on_validation_end(told, None)  # type: ignore[arg-type]
    assert kept.trial.study.trials[2].intermediate_values == {1: 0.74, 2: 0.74, 3: 0.74}
    second = search.Pruning(kept.trial, before=6)  # the next seed goes on behind the first
    second.on_validation_end(told, None)  # type: ignore[arg-type]
    assert kept.trial.study.trials[2].intermediate_values[7] == 0.76


def test_importance_is_of_what_moves_the_value() -> None:
    study = search.optuna.create_study(direction="minimize")
    assert search.importance(study) == {}
    for number in range(24):
        trial = study.ask()
        value = trial.suggest_float("matters", 0, 1)
        trial.suggest_float("idle", 0, 1)
        study.tell(trial, value**2)
        if number + 1 < search.LEAST_FOR_IMPORTANCE:
            assert search.importance(study) == {}
    shares = search.importance(study)
    assert list(shares) == ["matters", "idle"]
    assert shares["matters"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)


def test_trials_that_all_come_to_the_same_tell_nothing_of_importance() -> None:
    study = search.optuna.create_study(direction="minimize")
    for _ in range(search.LEAST_FOR_IMPORTANCE):
        trial = study.ask()
        trial.suggest_float("idle", 0, 1)
        study.tell(trial, 0.5)
    assert search.importance(study) == {}


def test_what_the_command_line_gives_is_not_drawn(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "search.trials=2", "fusion=concat", "++fusion.width=7"]) == 0
    assert "given, so not searched over: fusion, fusion.width\n" in capsys.readouterr().err
    (history,) = find_histories(tmp_path)
    for trial in history.trials:
        assert set(trial.params) == {"layers", "trainer.learning_rate"}
        assert trial.job is not None
        assert read_record(tmp_path / "search/small" / trial.job).fusion == "concat"
    every = ["fusion=sum", "layers=all", "fusion.width=8", "trainer.learning_rate=0.01"]
    assert main([*words, *every]) == 2
    assert "no key to search over except those given: layers, fusion," in capsys.readouterr().err


def test_mistakes_are_told(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "search.trials=0"]) == 2
    assert "search.trials=0: it must be at least 1" in capsys.readouterr().err
    assert main([*words, "search.trails=3"]) == 2
    assert main([*words, "fusion.dropout=2"]) == 2
    with held(tmp_path / "search/small", wait=False):
        assert main(words) == 2
    assert "another process runs this study" in capsys.readouterr().err
    assert main([*words, "search.trials=1"]) == 0
    assert main([*words, "search.trials=2", "seeds=1"]) == 2
    assert "has a study of another job or space" in capsys.readouterr().err


@pytest.mark.parametrize(
    "values", [3, {"low": 1}, {"low": 3, "high": 1}, {"low": 1, "high": 2, "b": 1}]
)
def test_a_range_that_is_none(values: Any) -> None:
    trial = search.optuna.create_study().ask()
    with pytest.raises(UserError, match=r"search\.space\.seeds"):
        search.suggest(trial, {"seeds": values})


@pytest.mark.parametrize("option", group_options("search"))
def test_every_search_composes(option: str) -> None:
    from omegaconf import OmegaConf

    command = OmegaConf.to_object(compose("search", [f"search={option}"]))
    assert isinstance(command, SearchCommand)
    trial = search.optuna.create_study().ask()
    for word in search.suggest(trial, command.search.space):
        compose("train", [word])
