"""Why the job that is used was chosen by the rows that chose it, and what would choose better."""

from __future__ import annotations

from layerfusion.findings.choice import close_words, ties_words
from layerfusion.findings.groups import DataGroup
from layerfusion.records.format import capital, plural


def choice_reasons(group: DataGroup) -> str | None:
    """Say why these rows chose, what decided between ties and what would choose more surely.

    Returns:
        Sentences; None where nothing is out of the ordinary.
    """
    judge, jobs, scores = group.judge, group.jobs, group.choosing_scores
    if len(jobs) == 1:
        return None
    found = [f"{capital(judge.chooses)}{judge.reason}."] if judge.reason else []
    if ties := ties_words(scores, judge.rows):
        found.append(f"{ties}, so the lower log-loss decided.")
    if close := close_words(scores, judge):
        found.append(f"{close} of the best: more rows would choose more surely.")
        if judge.few and any(not job.record.chosen_by for job in jobs):
            train = plural(group.data.rows["train"], "row")
            found.append(f"fusion=auto chooses layers and fusion on folds of train, {train}.")
    return " ".join(found) or None
