"""What the probabilities of a job are worth, and what was done to them, in sentences."""

from __future__ import annotations

from statistics import mean

from layerfusion.findings.choice import OBJECTIVE
from layerfusion.records.format import plural
from layerfusion.records.job import RunRecord

WEIGHTS = "class_weights"
"""Key of the weights of the classes in the settings of a record."""


def calibration_words(record: RunRecord) -> str:
    """Say what calibration or a shift for the objective changed; nothing for an older record."""
    seeds = [one for one in record.seeds if one.uncalibrated or one.temperature is not None]
    if not seeds:
        return ""
    temperature = mean(seed.temperature or 1.0 for seed in seeds)
    after = 100 * mean(seed.test["calibration_error"] for seed in seeds)
    before = 100 * mean((seed.uncalibrated or seed.test)["calibration_error"] for seed in seeds)
    stacked = seeds[0].temperature is None
    if shifts := [seed.shift for seed in record.seeds if seed.shift]:
        # What a stack would be at equal weights lacks the shift too, so that it tells nothing.
        was = "" if stacked else f"; before, it was {before:.1f} %"
        return (
            f"{_shift_words(record, shifts)}: the calibration error on test is {after:.1f} %{was}."
        )
    if not any(seed.uncalibrated for seed in seeds):
        return (
            " Validation asked for no temperature: the probabilities are those of the trained head,"
            f" with a calibration error of {after:.1f} % on test."
        )
    was = "before, it was"
    what = f"calibrated on validation, with a temperature of {temperature:.2f}"
    if stacked:
        what = "calibrated by the stack's weights, which held-out rows have taught"
        was = "with equal weights it would be"
    elif temperature == 1:
        what = "shifted towards rare classes, as its objective asks"
    told = f"the calibration error on test is {after:.1f} %; {was} {before:.1f} %"
    return f" Its probabilities are {what}: {told}."


def _shift_words(record: RunRecord, shifts: list[str]) -> str:
    """Say why and how the answers were moved, and what that makes of the probabilities."""
    settings = record.settings
    weighed = settings.get(WEIGHTS, "none") != "none"
    key = WEIGHTS if weighed else OBJECTIVE
    why = f"for {key}={settings[key]}" if key in settings else "for its objective"
    kinds = record.dataset.kinds
    how = " or ".join(dict.fromkeys(shifts)).replace("%", " %")
    seeds = len(record.seeds)
    several = f" in {len(shifts)} of {plural(seeds, 'seed')}" if len(shifts) < seeds else ""
    return (
        f" Its answers were moved {why}{several} ({how}), so that its probabilities are no longer"
        f" the frequencies of the {kinds}"
    )
