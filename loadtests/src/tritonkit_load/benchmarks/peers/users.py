"""Callers of the peers, for the load generator: each sends what its server reads fastest by its own documentation."""

from __future__ import annotations

from urllib.parse import urlsplit

from geventhttpclient import HTTPClient

from tritonkit_load.benchmarks.peers import wire
from tritonkit_load.load.payloads import Request
from tritonkit_load.load.users import TIMEOUT_S, Answer, ModelUser, TritonGrpcUser

CONNECTIONS = 1024  # at most; as many are opened as requests are in flight


class BodyUser(ModelUser):
    """Over HTTP, raw tensors in the body and in the answer."""

    protocol = "http"

    def connect(self) -> None:
        """Make a pool of connections, which are kept alive."""
        address = urlsplit(self.host or "")
        self.client = HTTPClient(
            address.hostname or "", address.port, concurrency=CONNECTIONS, connection_timeout=TIMEOUT_S,
            network_timeout=TIMEOUT_S,
        )  # fmt: skip

    def call(self, request: Request) -> Answer:
        """One question."""
        answer = self.client.post(wire.PATH, body=wire.body(request.inputs), headers=wire.HEADERS)
        raw = answer.read()
        if answer.status_code != 200:
            raise ConnectionError(f"status {answer.status_code}")
        return Answer(len(raw))

    def close(self) -> None:
        """Disconnect."""
        self.client.close()


class BytesUser(TritonGrpcUser):
    """KServe v2 over gRPC, raw tensors in one BYTES element: what MLServer unpacks without a number at a time."""

    def call(self, request: Request) -> Answer:
        """One question."""
        return Answer(len(self.client.infer(request.model, wire.boxed(request.inputs))[wire.ANSWER][0, 0]))

    def watch(self, *_: object) -> None:
        """Nothing: the statistics are an extension of Triton's."""
