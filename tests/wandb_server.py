"""A W&B server for tests: it answers what a client asks to track runs and to save views, and keeps what it got."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "team"
Variables = dict[str, Any]


@dataclass
class WandbServer:
    """url: Its base URL. asked: Each GraphQL operation with its variables. refused: Operations that it refuses."""

    url: str = ""
    asked: list[tuple[str, Variables]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    def find(self, operation: str) -> list[Variables]:
        """Return the variables of each call of an operation."""
        return [variables for name, variables in self.asked if name == operation]

    def answer(self, query: str, variables: Variables) -> dict[str, Any]:
        found = re.search(r"(?:query|mutation)\s+(\w+)", query)
        assert found
        self.asked.append((found[1], variables))
        if found[1] in self.refused:
            return {"errors": [{"message": f"{found[1]} is not allowed"}]}
        return {"data": self._find_data(found[1], variables)}

    def _find_data(self, operation: str, given: Variables) -> dict[str, Any]:
        project = {"id": "p", "name": given.get("project") or given.get("projectName"), "entityName": ENTITY}
        if operation == "Viewer":
            user = {"id": "u", "entity": ENTITY, "username": "me", "name": "me", "email": "me@team", "admin": False}
            return {"viewer": {**user, "flags": "{}", "teams": {"edges": []}, "apiKeys": {"edges": []}}}
        if operation == "UpsertBucket":
            place = {**project, "entity": {"id": "e", "name": ENTITY}}
            bucket = {"id": "b", "name": given["name"], "config": "{}", "sweepName": "", "project": place}
            bucket |= {"displayName": given["displayName"], "description": "", "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in given["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if operation == "CreateArtifact":
            kept = {"id": "a", "state": "COMMITTED", "artifactSequence": {"id": "s", "latestArtifact": None}}
            return {"createArtifact": {"artifact": kept}}
        if operation == "ProjectInternalId":
            return {"project": {"id": "p", "internalId": "77"}}
        if operation == "GetProjects":
            node = {**project, "name": "shardline", "__typename": "Project", "createdAt": "2026-11-30T00:00:00Z"}
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            return {"models": {"pageInfo": page, "edges": [{"node": {**node, "isBenchmark": False, "user": None}}]}}
        if operation in ("UpsertView2", "upsertView"):
            view = {name: given.get(name) for name in ("name", "displayName", "description", "spec", "type")}
            view |= {"id": given.get("id") or f"id-of-{operation}", "project": project, "updatedAt": None}
            return {"upsertView": {"view": view, "inserted": not given.get("id")}}
        return {"project": None} if operation == "ArtifactType" else {}


@contextlib.contextmanager
def run_wandb_server() -> Iterator[WandbServer]:
    """Run a server on a free port of this machine."""
    state = WandbServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer: dict[str, Any] = {}
            if self.path == "/graphql":
                asked = json.loads(body)
                answer = state.answer(asked["query"], asked.get("variables") or {})
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # clients leave without a word
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield state
        server.shutdown()
