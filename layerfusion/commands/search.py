"""`layerfusion search` runs an Optuna study over heads and layers, judged on validation alone."""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from layerfusion.assets.files import DiskError, write_atomically
from layerfusion.assets.memo import seal, unseal
from layerfusion.commands.arguments import say
from layerfusion.commands.guesses import with_data
from layerfusion.composing.hydra import compose, split_config_dirs
from layerfusion.config.check import load, require_honest
from layerfusion.config.commands import SearchCommand, SearchConfig
from layerfusion.config.identity import job_id
from layerfusion.config.job import TrainConfig
from layerfusion.config.rules import check_name
from layerfusion.config.secrets import redact_line
from layerfusion.errors import UserError
from layerfusion.fusion.training import MONITOR
from layerfusion.progress import Count, within
from layerfusion.progress import shown as shown_progress
from layerfusion.records.search import SearchHistory, TrialRecord, write_history
from layerfusion.report.ranking import SHOWN, ranking_lines
from layerfusion.runs.job import run_job
from layerfusion.runs.sweep import JobBusy, clear_failure, held, write_failure
from layerfusion.tracking.tracker import EndedEarly

JOURNAL = "optuna.journal"
LEAST_FOR_IMPORTANCE = 10
"""Number of complete trials below which no importance is computed, as it would be mostly noise."""


def main(arguments: Sequence[str]) -> int:
    """Run a study up to its number of trials, starting where an earlier run stopped.

    Returns:
        0, or 1 if no trial is complete.

    Raises:
        UserError: for a mistake in the command line, or if the study has other settings or is run
            by another process.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    command, words = _read(with_data("search", arguments))
    search = command.search
    folder = Path(command.paths.outputs) / "search" / search.name
    try:
        with held(folder, wait=False):
            study = _open_study(folder, search, words)
            _run(study, search, words, folder)
    except JobBusy as error:
        raise UserError(f"search.name={search.name}: another process runs this study") from error
    return _conclude(study, words, folder)


class SealedJournal(JournalFileBackend):
    """Optuna's journal, with a checksum on each line. Lines of older versions have none."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add lines."""
        super().append_logs([seal(line) for line in logs])

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Read the lines from a number on."""
        for line in super().read_logs(log_number_from):
            yield unseal(line)


def mend_journal(path: Path) -> None:
    """Remove what a killed writer has left, and check every line. No other process may use it.

    Raises:
        UserError: if a line is damaged.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder lies where the study's journal is; move it elsewhere")
    Path(f"{path}.lock").unlink(missing_ok=True)
    content = path.read_bytes() if path.exists() else b""
    *lines, unfinished = content.split(b"\n")
    if unfinished:
        write_atomically(path, content.removesuffix(unfinished))
    for number, line in enumerate(lines, 1):
        try:
            unseal(json.loads(line))
        except (ValueError, AttributeError) as error:
            raise UserError(
                f"{path}: line {number} is damaged ({error}); remove the file, and the study begins"
                " anew with the jobs that are finished"
            ) from error


class Hopeless(EndedEarly, optuna.TrialPruned):
    """Ends a trial that is worse than the median of the earlier ones."""


class Pruning(Callback):
    """Reports the best validation log-loss so far after each epoch, and ends a hopeless trial.

    Args:
        trial: the trial of the study.
        before: largest number of epochs of all earlier seeds, from which steps are counted.
    """

    def __init__(self, trial: Trial, before: int) -> None:
        self.trial, self.step, self.best = trial, before, float("inf")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report this epoch.

        Raises:
            Hopeless: if the median of the earlier trials was better at this step.
        """
        self.step += 1
        self.best = min(self.best, float(trainer.callback_metrics[MONITOR]))
        self.trial.report(self.best, self.step)
        if self.trial.should_prune():
            raise Hopeless


def median_pruner(search: SearchConfig) -> optuna.pruners.MedianPruner:
    """Return a pruner that ends trials worse than the median of earlier ones at the same epoch."""
    # Optuna prunes from the step `n_warmup_steps` on, but we wait until `search.warmup` has passed.
    return optuna.pruners.MedianPruner(search.startup, n_warmup_steps=search.warmup + 1)


def suggest(trial: Trial, space: Mapping[str, Any]) -> list[str]:
    """Draw one value for each key of the space, as overrides.

    Raises:
        UserError: for an invalid range.
    """
    drawn = []
    for key, values in space.items():
        if isinstance(values, list):
            value = trial.suggest_categorical(key, values)
        else:
            value = _in_range(trial, key, values)
        drawn.append(f"{key}={value}")
    return drawn


def importance(study: optuna.Study) -> dict[str, float]:
    """Compute the share of the values' variance that each key of the space explains by itself.

    This is fANOVA (Hutter et al. 2014) on the complete trials.

    Returns:
        Share of each key; empty if there are too few trials, or all have the same value.
    """
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < LEAST_FOR_IMPORTANCE or len({trial.value for trial in done}) < 2:
        return {}
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {key: float(share) for key, share in shares.items()}


# -- steps ----------------------------------------------------------------------------------------


def _read(arguments: Sequence[str]) -> tuple[SearchCommand, list[str]]:
    """Split the command line into the settings of the study and the overrides of its jobs."""
    from omegaconf import OmegaConf

    rest, folders = split_config_dirs(arguments)
    places = [f"--config-dir={folder}" for folder in folders]
    own = [word for word in rest if word.startswith(("search=", "search."))]
    shared = [word for word in rest if word.startswith("paths")]
    command = OmegaConf.to_object(compose("search", [*own, *shared, *places]))
    assert isinstance(command, SearchCommand)
    search = command.search
    for key, least in (("trials", 1), ("startup", 0), ("warmup", 0)):
        if getattr(search, key) < least:
            raise UserError(f"search.{key}={getattr(search, key)}: it must be at least {least}")
    check_name("search.name", search.name)
    words = [*places, *(word for word in rest if word not in own)]
    return replace(command, search=replace(search, space=_left_open(search.space, words))), words


def _left_open(space: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Return the space without the keys that the command line sets, which are not drawn.

    Raises:
        UserError: if no key is left.
    """
    given = {word.partition("=")[0].lstrip("+") for word in words}
    fixed = [key for key in space if key in given]
    if len(fixed) == len(space):
        but = f" except those given: {', '.join(fixed)}" if fixed else ""
        raise UserError(f"search.space: it has no key to search over{but}")
    if fixed:
        say(f"given, so not searched over: {', '.join(fixed)}")
    return {key: values for key, values in space.items() if key not in given}


def _open_study(folder: Path, search: SearchConfig, words: Sequence[str]) -> optuna.Study:
    """Open or create the study, and leave out the trials that a kill interrupted."""
    base = load(compose("train", words))
    require_honest(base, "search")
    setup = {"space": search.space, "job": job_id(base)}
    mend_journal(folder / JOURNAL)
    journal = JournalStorage(SealedJournal(str(folder / JOURNAL)))
    study = optuna.create_study(
        study_name=search.name,
        storage=journal,
        direction="minimize",
        load_if_exists=True,
        pruner=median_pruner(search),
    )
    if study.user_attrs.get("setup", setup) != setup:
        raise UserError(
            f"search.name={search.name}: {folder} has a study of another job or space; choose"
            " another name"
        )
    study.set_user_attr("setup", setup)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)  # its successor draws the same values
    return study


def _run(study: optuna.Study, search: SearchConfig, words: Sequence[str], folder: Path) -> None:
    begun, seed = time.monotonic(), load(compose("train", words)).seed
    count = Count("trials", search.trials - len(_ended(study)))
    with shown_progress(), within(count):
        while (done := len(_ended(study))) < search.trials:
            if search.seconds is not None and time.monotonic() - begun > search.seconds:
                say(f"search.seconds={search.seconds:g} have passed; the same command continues")
                return
            # The draws depend on the trials that ended, so those after a kill are those without it.
            study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=search.startup, seed=seed + done
            )
            count.place = done + 1, search.trials
            trial = study.ask()
            drawn = suggest(trial, search.space)
            outcome = _run_trial(study, trial, [*words, *drawn], search.name, folder)
            write_history(_history(study, words), folder)
            count.step()
            say(f"  [{done + 1}/{search.trials}] {' '.join(drawn)}: {outcome}{count.more()}")


def _run_trial(
    study: optuna.Study, trial: Trial, words: Sequence[str], name: str, folder: Path
) -> str:
    """Run one trial as an ordinary job, tell the study, and describe how the trial ended."""
    job: Path | None = None
    try:
        config = load(compose("train", words))
        # A study is judged and pruned by the log-loss on validation, whatever its rows.
        config = replace(config, sweep=f"search_{name}", by_folds=False)
        job = folder / job_id(config)
        trial.set_user_attr("job", job.name)
        with held(job, wait=True):
            clear_failure(job)
            record = run_job(config, job, callbacks=lambda number: _pruning(trial, config, number))
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        return "pruned"
    except (DiskError, OSError):
        # It is not the trial's fault, so the trial does not count; the same command runs it again.
        study.tell(trial, state=TrialState.FAIL)
        raise
    except Exception as error:
        trial.set_user_attr("reason", redact_line(str(error)))
        study.tell(trial, state=TrialState.FAIL)
        if job is not None:
            write_failure(job, "train", words, error)
        if not isinstance(error, UserError):
            raise
        return f"failed: {error}"
    log_loss = record.validation["log_loss"].mean
    study.tell(trial, log_loss)
    return f"validation log-loss {log_loss:.4f}, best {study.best_value:.4f}"


def _pruning(trial: Trial, config: TrainConfig, number: int) -> list[Callback]:
    return [Pruning(trial, number * config.trainer.max_epochs)]


def _conclude(study: optuna.Study, words: Sequence[str], folder: Path) -> int:
    """Print the best trial and the command that runs it."""
    if not study.get_trials(states=(TrialState.COMPLETE,)):
        say("no trial is complete")
        return 1
    history = replace(_history(study, words), importance=importance(study))
    write_history(history, folder)
    best = study.best_trial
    drawn = [f"{key}={value}" for key, value in best.params.items()]
    say(
        f"{history.counts}; best: trial"
        f" {best.number}, validation log-loss {best.value:.4f}, {folder / best.user_attrs['job']}"
    )
    command = " ".join(shlex.quote(word) for word in [*words, *drawn])
    print(f"layerfusion train {redact_line(command)}")
    for line in ranking_lines(folder, most=SHOWN):
        say(line)
    return 0


# -- history --------------------------------------------------------------------------------------


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count, without those that a kill interrupted."""
    kinds = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    trials = study.get_trials(deepcopy=False, states=kinds)
    return [x for x in trials if x.state is not TrialState.FAIL or "reason" in x.user_attrs]


def _history(study: optuna.Study, words: Sequence[str]) -> SearchHistory:
    return SearchHistory(
        study.study_name, redact_line(" ".join(words)), [_record(x) for x in _ended(study)]
    )


def _record(trial: FrozenTrial) -> TrialRecord:
    return TrialRecord(
        trial.number,
        trial.state.name.lower(),
        dict(trial.params),
        trial.value if trial.state is TrialState.COMPLETE else None,
        len(trial.intermediate_values),
        trial.user_attrs.get("job"),
        None if trial.duration is None else trial.duration.total_seconds(),
    )


def _in_range(trial: Trial, key: str, values: Any) -> int | float:
    allowed = {"low", "high", "log", "step"}
    if not isinstance(values, dict) or not {"low", "high"} <= set(values) <= allowed:
        raise UserError(
            f"search.space.{key}={values}: it must be a list of values, or a range"
            " {low: …, high: …}, optionally with log: true or step: …"
        )
    whole = isinstance(values["low"], int) and isinstance(values["high"], int)
    draw = trial.suggest_int if whole else trial.suggest_float
    try:
        return draw(key, **values)
    except ValueError as error:
        raise UserError(f"search.space.{key}: {error}") from error
