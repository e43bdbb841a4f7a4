"""What to type to use the classifier of a finished job."""

from __future__ import annotations

import json
import re
import shlex

from layerfusion.config.job import AUTO
from layerfusion.config.secrets import redact_line
from layerfusion.findings.grouping import grouped
from layerfusion.findings.jobs import FinishedJob
from layerfusion.records.job import BUNDLE

OVERRIDES = ".hydra/overrides.yaml"
"""Words of the command line of a job, where Hydra started it."""
OWN = ("bundle=", "hydra.", "sweep=")
"""Begin words that the command for one job sets itself."""
PLAIN = re.compile(r"[\w.-]+")
"""Names that the command line reads as they stand."""
LIKE_IT = "Train one like it, on all rows"
MOST = 6
"""Most layers that a command names."""


def commands(job: FinishedJob) -> list[tuple[str, str]]:
    """List what to type, each with a heading: a shell command, and three lines of Python.

    A job of a sweep kept no classifier. The first command then runs it again with its settings, on
    what is in the cache, and keeps it. Where the job's own words are not known, it trains one like
    it, with the same layers and fusion but on all rows, and the heading says so.
    """
    if job.folder is None:
        return []
    place, found = str(job.folder), []
    if not (job.folder / BUNDLE).is_dir():
        again = _again(job)
        heading, words = ("Keep the classifier", again) if again else (LIKE_IT, _like_it(job))
        if not words:
            return [
                ("To use it", "Run the job again with bundle=true, which keeps its classifier.")
            ]
        if words[-1].startswith("hydra.run.dir="):
            place = words[-1].removeprefix("hydra.run.dir=")
        found.append((heading, f"layerfusion train {shlex.join(words)}"))
    shell = f"layerfusion predict {shlex.quote(place)} reviews.csv"
    loaded = json.dumps(place, ensure_ascii=False)
    record = job.record
    servers = {
        name: record.backbones[name].endpoint
        for name in record.backbone_names
        if record.backbones[name].endpoint
    }
    if servers:  # which no classifier asks unless it is told to
        shell += "".join(
            f" --endpoint {shlex.quote(f'{name}={url}')}" for name, url in servers.items()
        )
        loaded += f", endpoints={json.dumps(servers, ensure_ascii=False)}"
    python = (
        "import layerfusion as lf\n"
        f"model = lf.load({loaded})\n"
        'model.predict(["a text", "another one"])'
    )
    return [*found, ("Shell", shell), ("Python", python)]


def _again(job: FinishedJob) -> list[str]:
    """Give the words after `layerfusion train` that keep the job's classifier; none if unknown."""
    import yaml

    assert job.folder is not None
    try:
        words = yaml.safe_load((job.folder / OVERRIDES).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError):
        return []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return []
    kept = [word for word in words if not word.startswith(OWN)]
    return [*map(redact_line, kept), "bundle=true", f"hydra.run.dir={job.folder}"]


def _like_it(job: FinishedJob) -> list[str]:
    """Give the words after `layerfusion train` for the same layers and fusion; none if too odd."""
    record = job.record
    by_model = grouped(record.layers, lambda layer: layer.backbone)
    models = [name for name in record.considered if name not in record.lexical]
    names = (record.dataset.name, record.fusion, *(str(x.layer) for x in record.layers), *models)
    if record.dataset.name in ("local", "memory") or not all(map(PLAIN.fullmatch, names)):
        return []
    data, folder = f"dataset={record.dataset.name}", f"hydra.run.dir=outputs/{record.dataset.name}"
    if record.chosen_by == AUTO:
        return [data, f"backbone=[{','.join(models)}]", "experiment=auto", folder]
    plain = {layer.pooling for layer in record.layers} == {"mean"} and not record.lexical
    if not plain or len(record.layers) > MOST:
        return []
    fixed = [
        f"layers.fixed.{name}=[{','.join(x.layer for x in own)}]" for name, own in by_model.items()
    ]
    return [
        data,
        f"backbone=[{','.join(by_model)}]",
        "layers=fixed",
        *fixed,
        f"fusion={record.fusion}",
        folder,
    ]
