"""The part of a Kubernetes API server that helm and kubectl talk to, in memory: for tests where no cluster is.

Real ``helm`` and ``kubectl`` send it their real requests: discovery, access reviews, CRUD with server-side apply and
dry runs, watches. What it holds, and what controllers would make of it, is :mod:`fakecluster.state`'s.
"""

from __future__ import annotations

import base64
import copy
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fakecluster.state import VERBS, ApiServer, Object, merged
from tritonkit.kubetools import manifest

_PROTOBUF = b"k8s\0"


def _selected(obj: Object, selector: str) -> bool:
    labels = obj["metadata"].get("labels") or {}
    for term in filter(None, selector.split(",")):
        if not re.fullmatch(r"[\w./-]+(=|==|!=)[\w.-]*", term):
            continue
        key, differs, value = re.match(r"([^!=]+)(!?)=+(.*)", term).groups()  # type: ignore[union-attr]
        if (labels.get(key) == value) == bool(differs):
            return False
    return True


def _fields(data: bytes) -> dict[int, list[Any]]:
    """A protobuf message, as far as its wire format says: numbers, and bytes of all else."""
    fields: dict[int, list[Any]] = {}
    position = 0

    def number() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        tag = number()
        value = number()
        if tag & 7 == 2:
            fields.setdefault(tag >> 3, []).append(data[position : position + value])
            position += value
        else:
            fields.setdefault(tag >> 3, []).append(value)
    return fields


def _map(entries: list[bytes]) -> dict[str, bytes]:
    pairs = [_fields(entry) for entry in entries]
    return {pair[1][0].decode(): pair[2][0] if 2 in pair else b"" for pair in pairs}


def _secret(data: bytes) -> Object:
    """A Secret as helm stores releases: its client sends protobuf (k8s.io/api/core/v1/generated.proto)."""
    secret = _fields(_fields(data[len(_PROTOBUF) :])[2][0])
    meta = _fields(secret[1][0])
    labels = {key: value.decode() for key, value in _map(meta.get(11, [])).items()}
    values = {key: base64.b64encode(value).decode() for key, value in _map(secret.get(2, [])).items()}
    named = {"name": meta[1][0].decode(), "labels": labels}
    if meta.get(3, [b""])[0]:
        named["namespace"] = meta[3][0].decode()
    return {"apiVersion": "v1", "kind": "Secret", "metadata": named, "data": values, "type": secret[3][0].decode()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the other side's delayed acknowledgement
    state: ApiServer

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, data: Object, code: int = 200) -> None:
        body = json.dumps(data).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, code: int, reason: str, message: str) -> None:
        self._send({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
                    "message": message}, code)  # fmt: skip

    def _body(self) -> Object:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if text.startswith(_PROTOBUF):
            return _secret(text)
        return dict(manifest.read(text.decode()) or {}) if text else {}

    def _parsed(self) -> tuple[str, str, str, str, dict[str, str]] | None:
        """API version, resource, namespace, name, query; None after an answer."""
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        match = re.fullmatch(
            r"/(?:api/(v1)|apis/([^/]+/[^/]+))(?:/namespaces/([^/]+)(?=/))?(?:/([^/]+))?(?:/([^/]+))?(?:/\w+)?",
            url.path,
        )
        if match:
            api, namespace, resource, name = match[1] or match[2], match[3] or "", match[4] or "", match[5] or ""
            served = self.state.served
            if api in served and (not resource or any(resource == entry[0] for entry in served[api])):
                return api, resource, namespace, name, query
        self._refuse(404, "NotFound", "the server could not find the requested resource")
        return None

    def _allowed(self, verb: str, resource: str) -> bool:
        if (verb, resource) in self.state.denied:
            self._refuse(403, "Forbidden", f'{resource} is forbidden: User "me" cannot {verb} resource "{resource}"')
            return False
        return True

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        groups = sorted({api.partition("/")[0] for api in self.state.served if "/" in api})
        if path == "/version":
            self._send({"major": "1", "minor": self.state.minor, "gitVersion": f"v1.{self.state.minor.rstrip('+')}.0"})
        elif path == "/api":
            self._send({"kind": "APIVersions", "versions": ["v1"]})
        elif path == "/apis":
            listed = [{"name": group, "versions": _versions(self.state, group),
                       "preferredVersion": _versions(self.state, group)[0]} for group in groups]  # fmt: skip
            self._send({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})
        elif path == "/openapi/v3":
            paths = {_root(api): {"serverRelativeURL": f"/openapi/v3/{_root(api)}"} for api in self.state.served}
            self._send({"paths": paths})
        elif path.startswith("/openapi/v3/"):
            api = path.removeprefix("/openapi/v3/").partition("/")[2]
            self._send(
                {"openapi": "3.0.0", "info": {"title": "", "version": ""}, "paths": _operations(self.state, api)}
            )
        elif path.endswith("/exec"):
            self._refuse(501, "NotImplemented", "no container runs here")
        elif path.endswith("/log"):
            self._send({"said": "a line of the pod's log"})
        elif request := self._parsed():
            self._read(*request)

    def _read(self, api: str, resource: str, namespace: str, name: str, query: dict[str, str]) -> None:
        if not resource:
            listed = [{"name": plural, "kind": kind, "namespaced": inside, "singularName": kind.lower(), "verbs": VERBS}
                      for plural, kind, inside in self.state.served[api]]  # fmt: skip
            self._send({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api, "resources": listed})
        elif query.get("watch") in {"true", "1"}:
            self._watch(api, resource, namespace, query)
        elif not self._allowed("get" if name else "list", resource):
            return
        elif name:
            obj = self.state.get((api, resource, namespace, name))
            if obj:
                self._send(obj)
            else:
                self._refuse(404, "NotFound", f'{resource} "{name}" not found')
        else:
            kind = next(kind for plural, kind, _ in self.state.served[api] if plural == resource)
            with self.state.lock:
                items = [item for item in self.state.all(api, resource, namespace)
                         if _selected(item, query.get("labelSelector", ""))]  # fmt: skip
                self._send({"kind": f"{kind}List", "apiVersion": api, "items": items,
                            "metadata": {"resourceVersion": self.state.clock}})  # fmt: skip

    def _watch(self, api: str, resource: str, namespace: str, query: dict[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        seen = int(query.get("resourceVersion") or 0)
        until = time.monotonic() + min(float(query.get("timeoutSeconds") or 20), 20)
        if query.get("sendInitialEvents") == "true":
            with self.state.lock:  # what happens after this moment is an event
                there, seen = self.state.all(api, resource, namespace), int(self.state.clock)
            for obj in there:
                self._chunk({"type": "ADDED", "object": obj})
            kind = next(kind for plural, kind, _ in self.state.served[api] if plural == resource)
            meta = {"resourceVersion": str(seen), "annotations": {"k8s.io/initial-events-end": "true"}}
            self._chunk({"type": "BOOKMARK", "object": {"kind": kind, "apiVersion": api, "metadata": meta}})
        try:
            while time.monotonic() < until:
                for clock, what, obj in self.state.events(seen, api, resource, namespace):
                    self._chunk({"type": what, "object": obj})
                    seen = clock
                time.sleep(0.05)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def _chunk(self, event: Object) -> None:
        data = json.dumps(event).encode() + b"\n"
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def do_POST(self) -> None:
        if urlsplit(self.path).path.endswith("/exec"):
            self._refuse(501, "NotImplemented", "no container runs here")
            return
        body = self._body()
        request = self._parsed()
        if not request:
            return
        api, resource, namespace, _, query = request
        if resource == "selfsubjectaccessreviews":
            attributes = body["spec"]["resourceAttributes"]
            allowed = (attributes["verb"], attributes["resource"]) not in self.state.denied
            self._send(body | {"metadata": {"name": ""}, "status": {"allowed": allowed}}, 201)
            return
        name = body["metadata"]["name"]
        if self._allowed("create", resource) and self._write("create", resource, name, query):
            if self.state.get((api, resource, namespace, name)):
                self._refuse(409, "AlreadyExists", f'{resource} "{name}" already exists')
            else:
                body["metadata"].setdefault("namespace", namespace) if namespace else None
                self._send(self.state.put((api, resource, namespace, name), body), 201)

    def _write(self, verb: str, resource: str, name: str, query: dict[str, str]) -> bool:
        if "dryRun" not in query:
            self.state.writes.append(f"{verb} {resource} {name}")
        return True

    def do_PUT(self) -> None:
        body = self._body()
        request = self._parsed()
        if request:
            api, resource, namespace, name, query = request
            if self._allowed("update", resource) and self._write("update", resource, name, query):
                self._send(self.state.put((api, resource, namespace, name), body))

    def do_PATCH(self) -> None:
        body = self._body()
        request = self._parsed()
        if not request:
            return
        api, resource, namespace, name, query = request
        if self._allowed("patch", resource) and self._write("patch", resource, name, query):
            key = (api, resource, namespace, name)
            if "apply" in self.headers["Content-Type"]:
                conflicts = self.state.conflicts(key, body, query["fieldManager"])
                if conflicts and query.get("force") != "true":
                    listing = "\n".join(f"- {conflict}" for conflict in conflicts)
                    self._refuse(409, "Conflict", f"Apply failed with {len(conflicts)} conflict: {listing}")
                    return
                self._send(self.state.apply(key, body, query["fieldManager"], "dryRun" in query))
            else:
                self._send(self.state.put(key, merged(copy.deepcopy(self.state.get(key)), body)))

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = self._parsed()
        if not request:
            return
        api, resource, namespace, name, query = request
        if self._allowed("delete", resource) and self._write("delete", resource, name, query):
            obj = self.state.delete((api, resource, namespace, name))
            if obj:
                self._send({"kind": "Status", "apiVersion": "v1", "status": "Success"})
            else:
                self._refuse(404, "NotFound", f'{resource} "{name}" not found')


def _root(api: str) -> str:
    return f"apis/{api}" if "/" in api else f"api/{api}"


def _operations(state: ApiServer, api: str) -> Object:
    """Says of every kind that the server itself looks for unknown fields, which spares clients the schemas."""
    group, _, version = api.rpartition("/")
    parameters = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    return {
        f"/{_root(api)}/{name}/{{name}}": {
            "patch": {
                "parameters": parameters, "responses": {},
                "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
            }
        }
        for name, kind, _ in state.served.get(api, [])
    }  # fmt: skip


def _versions(state: ApiServer, group: str) -> list[Object]:
    return [{"groupVersion": api, "version": api.partition("/")[2]} for api in state.served
            if api.partition("/")[0] == group and "/" in api]  # fmt: skip


@contextmanager
def running() -> Iterator[ApiServer]:
    """An API server on a free port of this machine."""
    state = ApiServer()
    handler = type("Handler", (_Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
