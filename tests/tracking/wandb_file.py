"""Reads W&B's offline run file without W&B: what was really written, not what was meant."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_FILE_HEADER = 7  # ":W&B", a magic number and a version
_BLOCK = 32768
VARIABLES = (
    *("API_KEY", "PROJECT", "ENTITY", "MODE", "DISABLED", "NAME", "RUN_GROUP", "TAGS", "NOTES"),
    *("JOB_TYPE", "RUN_ID", "RESUME", "DIR", "DATA_DIR", "SWEEP_ID", "SWEEP_PARAM_PATH"),
)
"""Variables of W&B that change a run. W&B keeps others (`WANDB_SERVICE`) for itself."""
NAMES = ("display_name", "entity", "project", "run_group", "job_type", "notes")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass(frozen=True)
class Artifact:
    """An artifact that a run made, or, where `used`, one that it read."""

    kind: str
    metadata: dict[str, Any]
    entries: dict[str, str]
    """Path inside the artifact to what it refers to; empty where the file itself is kept."""
    used: bool


@dataclass
class OfflineRun:
    history: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    better: dict[str, str] = field(default_factory=dict)
    """Metric to the end of the scale that its summary keeps: max or min."""
    hidden: set[str] = field(default_factory=set)
    """Metrics, or patterns of their names, that get no chart by themselves."""
    artifacts: dict[str, Artifact] = field(default_factory=dict)


def read_offline_run(folder: Path) -> OfflineRun:
    """The run under a job's folder; W&B's service may still be writing when `finish` returns."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    until = time.monotonic() + 20
    while (found := parse(path.read_bytes())).exit_code is None and time.monotonic() < until:
        time.sleep(0.02)
    return found


def parse(written: bytes) -> OfflineRun:
    """What a run's file says, up to the last record that is whole."""
    found = OfflineRun()
    for content in _records(written):
        record: Any = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.config |= _items(record.run.config.update)
            for key in ("run_id", *NAMES):
                found.run[key] = getattr(record.run, key)
            found.run["tags"] = list(record.run.tags)
        elif kind == "config":
            found.config |= _items(record.config.update)
        elif kind == "history":
            found.history.append(_items(record.history.item))
        elif kind == "summary":
            found.summary |= _items(record.summary.update)
        elif kind == "metric":
            ends = [end for end in ("max", "min") if getattr(record.metric.summary, end)]
            if record.metric.options.hidden:
                found.hidden.add(record.metric.name or record.metric.glob_name)
            found.better |= dict.fromkeys([record.metric.name] * len(ends), "".join(ends))
        elif kind == "artifact":
            one = record.artifact
            found.artifacts[one.name] = Artifact(
                one.type,
                json.loads(one.metadata or "{}"),
                {entry.path: entry.ref for entry in one.manifest.contents},
                one.use_after_commit,
            )
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def charts(run: OfflineRun) -> set[str]:
    """The metrics of a run that W&B makes a chart of by itself: logged over time and not hidden."""
    logged = {key for row in run.history for key, value in row.items() if _is_number(value)}
    return {
        key
        for key in logged
        if not key.startswith("_")
        and "." not in key
        and not any(fnmatch(key, one) for one in run.hidden)
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(content: bytes) -> Iterator[bytes]:
    """The whole records of a LevelDB log: fragments in blocks, with checksum, length and kind."""
    position, parts = _FILE_HEADER, b""
    while position + 7 <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        if position + 7 + length > len(content):
            return  # the service is in the middle of writing it, or was killed there
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        assert kind in (_FULL, _FIRST, _MIDDLE, _LAST)
        if kind in (_FULL, _LAST):
            yield parts
            parts = b""
