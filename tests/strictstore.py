"""A server before an S3 server that keeps what Amazon keeps of a multipart upload, and moto does not check.

Amazon S3 refuses a part whose checksum is of another algorithm than the upload was created with, and the completion of
an upload with an algorithm where a part's checksum is missing (Amazon S3 User Guide, "Checking object integrity").
"""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase

HOP_BY_HOP = {"transfer-encoding", "content-length", "expect", "connection"}


@contextlib.contextmanager
def strict(endpoint: str) -> Iterator[tuple[str, list[str]]]:
    """Run it on loopback before ``endpoint``: its own URL, and what it refused so far."""
    algorithms: dict[str, str] = {}
    refusals: list[str] = []
    upstream = urllib.parse.urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing."""

        def forward(self) -> None:
            body = _body(
                self.rfile, self.headers.get("Transfer-Encoding", ""), int(self.headers.get("Content-Length") or 0)
            )
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query, keep_blank_values=True)
            headers = {name.lower(): value for name, value in self.headers.items()}
            problem = _problem(self.command, query, headers, body, algorithms)
            if problem:
                refusals.append(problem)
                text = f"<?xml version='1.0'?><Error><Code>InvalidRequest</Code><Message>{problem}</Message></Error>"
                self._answer(400, {"Content-Type": "application/xml"}, text.encode())
                return
            connection = http.client.HTTPConnection(upstream, timeout=60)
            kept = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            connection.request(self.command, self.path, body, kept | {"Content-Length": str(len(body))})
            response = connection.getresponse()
            content = response.read()
            if self.command == "POST" and "uploads" in query:
                (upload,) = re.findall(rb"<UploadId>([^<]+)", content)
                algorithms[upload.decode()] = headers.get("x-amz-checksum-algorithm", "").lower()
            names = {name: value for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP}
            length = response.getheader("Content-Length") if self.command == "HEAD" else None
            self._answer(response.status, names, content, length)
            connection.close()

        def _answer(self, status: int, headers: dict[str, str], content: bytes, length: str | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward  # noqa: N815 (the names that http.server calls)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", refusals
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _problem(
    method: str, query: dict[str, list[str]], headers: dict[str, str], body: bytes, algorithms: dict[str, str]
) -> str:
    """Why Amazon refuses a request of a multipart upload; empty if it does not."""
    if "uploadId" not in query:
        return ""
    expected = algorithms.get(query["uploadId"][0], "")
    if not expected:
        return ""
    if method == "POST" and f"Checksum{expected.upper()}".encode() not in body:
        return f"The upload was created using a {expected} checksum. The complete request must include it for each part"
    if method == "PUT" and "x-amz-copy-source" not in headers:
        trailer = headers.get("x-amz-trailer", "").rpartition("-")[2]
        sent = next((name.rpartition("-")[2] for name in headers if name.startswith("x-amz-checksum-")), trailer)
        if sent.lower() != expected:
            return f"Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {sent}"
    return ""


def _body(stream: BufferedIOBase, encoding: str, length: int) -> bytes:
    if "chunked" not in encoding.lower():
        return stream.read(length)
    content = b""
    while size := int(stream.readline().split(b";")[0], 16):
        content += stream.read(size)
        stream.readline()
    while stream.readline().strip():
        pass
    return content
