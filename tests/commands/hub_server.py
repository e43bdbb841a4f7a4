"""A hub of models on this machine: the few endpoints by which a folder is sent and fetched."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "a1b2" * 8


class Hub:
    """Repositories with their commits."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        """Repository to commit to files; the last commit is that of `main`."""
        self.private: dict[str, bool] = {}
        self.seen: list[str] = []
        self.endpoint = ""

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, Any, dict]:
        """Return status, body and headers."""
        self.seen.append(f"{method} {path}")
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if path == "/api/repos/create":
            return self._create(json.loads(body), token)
        if found := re.fullmatch(r"/api/models/(\w+/\w+)/preupload/main", path):
            files = json.loads(body)["files"]
            said = {"uploadMode": "regular", "shouldIgnore": False}
            return 200, {"files": [{"path": one["path"], **said} for one in files]}, {}
        if found := re.fullmatch(r"/api/models/(\w+/\w+)/commit/main", path):
            return self._commit(found[1], body)
        if found := re.fullmatch(r"/api/models/(\w+/\w+)(?:/revision/(\w+))?", path):
            return self._info(found[1], found[2] or "main", token)
        if found := re.fullmatch(r"/api/models/(\w+/\w+)/tree/(\w+)", path):
            return self._tree(*found.groups())
        if found := re.fullmatch(r"/(\w+/\w+)/resolve/(\w+)/([\w.-]+)", path):
            return self._file(*found.groups())
        return 404, {"error": f"no {path}"}, {}

    def _create(self, asked: dict[str, Any], token: str) -> tuple[int, Any, dict]:
        repo = f"{asked.get('organization')}/{asked['name']}"
        if token != TOKEN:
            return 401, {"error": "Invalid credentials"}, {}
        if repo in self.repos:
            return 409, {"error": "You already created this model repo", "url": repo}, {}
        self.repos[repo] = {}
        self.private[repo] = "private" in (
            asked.get("visibility"),
            *(k for k, v in asked.items() if v is True),
        )
        return 200, {"url": f"{self.endpoint}/{repo}", "id": repo, "name": repo}, {}

    def _commit(self, repo: str, body: bytes) -> tuple[int, Any, dict]:
        files = dict(next(reversed(self.repos[repo].values()), {}))
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        commit = hashlib.sha1(body).hexdigest()
        self.repos[repo][commit] = files
        url = f"{self.endpoint}/{repo}/commit/{commit}"
        return 200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""}, {}

    def _at(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.repos.get(repo, {})
        commit = next(reversed(commits), "") if revision == "main" else revision
        return (commit, commits[commit]) if commit in commits else None

    def _info(self, repo: str, revision: str, token: str) -> tuple[int, Any, dict]:
        if repo not in self.repos or (self.private[repo] and token != TOKEN):
            return 401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        found = self._at(repo, revision)
        if revision == "main" and not self.repos[repo]:
            found = "0" * 40, {}  # a new repository has a commit of the hub's own
        if found is None:
            return 404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"}
        siblings = [{"rfilename": name} for name in found[1]]
        about = {"id": repo, "modelId": repo, "private": self.private[repo]}
        return 200, {**about, "sha": found[0], "siblings": siblings}, {}

    def _tree(self, repo: str, revision: str) -> tuple[int, Any, dict]:
        found = self._at(repo, revision)
        if found is None:
            return 404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"}
        files = found[1].items()
        return 200, [{"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
                     for name, content in files], {}  # fmt: skip

    def _file(self, repo: str, revision: str, name: str) -> tuple[int, Any, dict]:
        found = self._at(repo, revision)
        if found is None or name not in found[1]:
            return 404, {"error": "no such file"}, {"X-Error-Code": "EntryNotFound"}
        content = found[1][name]
        return 200, content, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": found[0]}


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a hub over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
            path = self.path.partition("?")[0]
            status, found, headers = hub.answer(self.command, path, body, token)
            content = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_POST = do_HEAD = _answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()
