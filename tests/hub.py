"""A hub on loopback, as far as huggingface_hub asks one: a repository's files with hashes, and the files."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

REPOSITORY = "someone/tiny"
COMMIT = "5f3c" * 10


@dataclass
class Hub:
    """What the hub has, how it behaves, and which files it was asked for."""

    url: str
    files: dict[str, bytes]
    token: str = ""
    spoiled: set[str] = field(default_factory=set)  # files that come with other bytes than the hub's hash is of
    cut: set[str] = field(default_factory=set)  # files whose connection ends in the middle, once
    sizes: dict[str, int] = field(default_factory=dict)  # sizes that the hub claims
    fetched: list[str] = field(default_factory=list)


def _listed(hub: Hub, name: str) -> dict[str, Any]:
    content = hub.files[name]
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"rfilename": name, "size": hub.sizes.get(name, len(content)), "blobId": blob}
    if name.endswith(".safetensors"):
        entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": entry["size"], "pointerSize": 130}
    return entry


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            code = "GatedRepo" if self.headers.get("Authorization") else "RepoNotFound"
            self._answer(403 if code == "GatedRepo" else 401, b"{}", {"X-Error-Code": code})
        elif path.startswith(f"/api/models/{REPOSITORY}/tree/{COMMIT}"):
            entries = [_listed(self.hub, name) for name in self.hub.files]
            tree = [{"type": "file", "path": e["rfilename"], "oid": e["blobId"], "size": e["size"]} for e in entries]
            self._answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        elif path == f"/api/models/{REPOSITORY}/revision/{COMMIT}":
            about = {"id": REPOSITORY, "sha": COMMIT, "siblings": [_listed(self.hub, name) for name in self.hub.files]}
            self._answer(200, json.dumps(about).encode(), {"Content-Type": "application/json"})
        elif path.startswith(f"/api/models/{REPOSITORY}/revision/"):
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif (name := path.removeprefix(f"/{REPOSITORY}/resolve/{COMMIT}/")) in self.hub.files:
            self._file(name)
        else:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _file(self, name: str) -> None:
        content = self.hub.files[name]
        entry = _listed(self.hub, name)
        etag = entry["lfs"]["sha256"] if "lfs" in entry else entry["blobId"]
        if self.command == "GET":
            self.hub.fetched.append(name)
        body = bytes(len(content)) if name in self.hub.spoiled else content
        first = 0
        if given := self.headers.get("Range"):
            first = int(given.removeprefix("bytes=").split("-")[0])
        headers = {
            "ETag": f'"{etag}"',
            "X-Repo-Commit": COMMIT,
            "X-Linked-Size": str(len(content)),
            "X-Linked-Etag": etag,
        }
        if name in self.hub.cut and self.command == "GET":
            self.hub.cut.discard(name)
            self.send_response(200)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        self._answer(206 if first else 200, body[first:], headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Hub]:
    """A hub with one repository of one commit."""
    handler = type("Handler", (_Handler,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub = Hub(f"http://127.0.0.1:{server.server_port}", files)
        handler.hub = hub  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()
