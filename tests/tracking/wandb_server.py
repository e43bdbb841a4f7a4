"""A stand-in for W&B's server on this machine: it takes what `wandb sync` uploads and keeps it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import yaml

PROJECT = {"id": "p", "name": "layerfusion", "entity": {"id": "e", "name": "me"}}


@dataclass
class Uploaded:
    """What reached the server."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Run to the variables of its creation, later calls over earlier ones."""
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    summary: dict[str, dict[str, Any]] = field(default_factory=dict)
    exit_code: dict[str, int] = field(default_factory=dict)
    made: list[tuple[str, str]] = field(default_factory=list)
    """Type and name of every artifact."""
    used: list[str] = field(default_factory=list)
    """Names of the artifacts that a run reads."""
    sweep: dict[str, Any] = field(default_factory=dict)
    """The sweep that agents work on, as `wandb sweep` sent it."""
    trials: list[dict[str, Any]] = field(default_factory=list)
    """Parameters of the runs that an agent is still to start."""
    given: list[str] = field(default_factory=list)
    """Runs that an agent was told to start."""


@contextmanager
def wandb_server() -> Iterator[tuple[str, Uploaded]]:
    """Serve until the block ends: the address, and what was uploaded so far."""
    uploaded = Uploaded()
    server = _Server(("127.0.0.1", 0), _handler(uploaded))
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", uploaded
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: wandb-core drops its connections when it is done."""


def _handler(uploaded: Uploaded) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            sent = json.loads(body or b"{}")
            if self.path.endswith("/file_stream"):
                _take_stream(uploaded, self.path.split("/")[-2], sent)
                self._answer({})
            else:
                self._answer({"data": _answer(uploaded, sent, self.headers["Host"])})

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer({})

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _answer(self, content: dict[str, Any]) -> None:
            encoded = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

    return Handler


def _known(uploaded: Uploaded, variables: dict[str, Any]) -> dict[str, Any] | None:
    """What a run that goes on has to know of itself; None for a new one."""
    run = variables["name"]
    if run not in uploaded.runs:
        return None
    rows, summary = uploaded.history.get(run, []), uploaded.summary.get(run, {})
    return {
        "id": "run",
        "name": run,
        "displayName": "",
        "summaryMetrics": json.dumps(summary),
        "logLineCount": 0,
        "historyLineCount": len(rows),
        "eventsLineCount": 0,
        "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]),
        "eventsTail": "[]",
        "config": "{}",
        "tags": [],
        "notes": "",
        "wandbConfig": '{"t": 1}',  # without it the run would count as one that never began
    }


def _commands(uploaded: Uploaded, running: dict[str, bool]) -> list[dict[str, Any]]:
    """What an agent is told: the next run when it has none, or to stop when there is no more."""
    if running:
        return []
    if not uploaded.trials:
        return [{"type": "exit"}]
    arguments = {key: {"value": value} for key, value in uploaded.trials.pop(0).items()}
    uploaded.given.append(f"run{len(uploaded.given)}")
    program = uploaded.sweep["program"]
    run = uploaded.given[-1]
    return [{"type": "run", "program": program, "run_id": run, "args": arguments}]


def _take_stream(uploaded: Uploaded, run: str, sent: dict[str, Any]) -> None:
    files = sent.get("files") or {}
    rows = files.get("wandb-history.jsonl", {}).get("content", [])
    uploaded.history.setdefault(run, []).extend(json.loads(row) for row in rows)
    for row in files.get("wandb-summary.json", {}).get("content", []):
        uploaded.summary[run] = json.loads(row)  # it comes whole each time
    if sent.get("complete"):
        uploaded.exit_code[run] = sent["exitcode"]


def _answer(uploaded: Uploaded, sent: dict[str, Any], host: str) -> dict[str, Any]:
    """What wandb-core has to be told so that it goes on."""
    query, variables = sent.get("query", ""), sent.get("variables") or {}
    if "upsertBucket" in query:
        given = {key: value for key, value in variables.items() if value is not None}
        uploaded.runs.setdefault(variables["name"], {}).update(given)
        bucket = {"id": "run", "name": variables["name"], "displayName": "", "project": PROJECT}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}
    if "query RunResumeStatus" in query:
        return {
            "model": {"id": "p", "name": PROJECT["name"], "bucket": _known(uploaded, variables)}
        }
    if "upsertSweep" in query:
        uploaded.sweep = yaml.safe_load(variables["config"])
        return {"upsertSweep": {"sweep": {"name": "s1", "project": PROJECT}}}
    if "query SweepWithRuns" in query:
        config = yaml.safe_dump(uploaded.sweep)
        return {"project": {"sweep": {"name": "s1", "config": config, "runs": {"edges": []}}}}
    if "createAgent" in query:
        return {"createAgent": {"agent": {"id": "agent"}}}
    if "agentHeartbeat" in query:
        commands = _commands(uploaded, json.loads(variables["runState"]))
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}
    if "createArtifact(" in query:
        given = variables["input"]
        uploaded.made.append((given["artifactTypeName"], given["artifactCollectionName"]))
        artifact = {"id": given["artifactCollectionName"], "state": "COMMITTED"}
        sequence = {"artifactSequence": {"latestArtifact": {"id": artifact["id"]}}}
        return {"createArtifact": {"artifact": artifact | sequence}}
    if "useArtifact(" in query:
        uploaded.used.append(variables["input"]["artifactID"])
        return {"useArtifact": {"artifact": {"id": variables["input"]["artifactID"]}}}
    if "query ArtifactType(" in query:
        return {"project": {"artifact": None}}
    if "viewer" in query:
        none = {"edges": []}
        viewer = {"id": "v", "entity": "me", "username": "me", "flags": "{}", "admin": 0}
        return {"viewer": viewer | {"teams": none, "apiKeys": none}}
    if "createRunFiles" in query:
        files = [
            {"name": name, "uploadUrl": f"http://{host}/upload/{name}"}
            for name in variables["files"]
        ]
        return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}
    return {}
