"""A stream of responses: which server, which error, when the beginning is worth another attempt. No I/O."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._protocol.calls import Call, InferRequest, Operation, Response
from .._protocol.classes import classified
from .._protocol.errors import NotSupported, TritonkitClientError
from .._protocol.metadata import ModelMetadata
from .._protocol.tensors import Array
from .._protocol.validation import UNNAMED
from .effects import Attempt, Deadline
from .engine import Engine, build_request

if TYPE_CHECKING:
    from .operations import Inference, Operations
    from .servers import Server


@dataclass(frozen=True)
class PreparedStream:
    """A stream that can be opened: the request, checked and encoded, and its call."""

    request: InferRequest
    call: Call[dict[str, Array]]


def prepare(operations: Operations, inference: Inference) -> Operation[PreparedStream]:
    """Check and encode a request for a stream.

    Raises:
        NotSupported: The protocol has no streams of tensors.
    """
    origin = operations.origin(inference.model, inference.version, operations.request_id(inference))
    if not operations.wire.streams_tensors:
        raise NotSupported(
            "KServe v2 over HTTP has no streams of tensors", f"use a grpc:// endpoint; {UNNAMED}", origin
        )
    metadata: ModelMetadata = yield from operations.metadata(inference.model, inference.version)
    request = operations.copy_to_host(operations.encode_request(metadata, inference, origin))
    return PreparedStream(request, operations.wire.stream(request, origin))


class Stream:
    """One stream over its attempts: says which attempt to open next, and reads the responses.

    A stream is opened again only before its first response; after it, a failure is raised to the caller.
    """

    def __init__(
        self,
        engine: Engine,
        prepared: PreparedStream,
        deadline: Deadline,
        headers: Mapping[str, str],
        idle_s: float | None = None,
    ) -> None:
        self._idle_s = idle_s
        self._engine = engine
        self._prepared = prepared
        self._deadline = deadline
        self._headers = headers
        self._tried: list[Server] = []
        self._server: Server | None = None
        self._begun = False
        self.wait_s = 0.0

    def open(self) -> Attempt:
        """The next attempt: its server, and the request."""
        call = self._prepared.call
        self._server = self._engine.acquire(call, self._tried)
        self._event = self._engine.announce(call, self._server, self._tried, self._headers)
        self._started = time.monotonic()
        self._error: TritonkitClientError | None = None
        self._complete = False
        request = build_request(call, self._deadline.remaining(), self._event.headers)
        request.idle_s = self._idle_s
        return Attempt(self._server, request)

    def read(self, response: Response) -> dict[str, Array] | None:
        """The outputs in a response; None: the stream must be opened again after ``wait_s`` seconds.

        Raises:
            TritonkitClientError: The stream failed.
        """
        assert self._server is not None
        origin = self._prepared.call.origin
        try:
            tensors = self._prepared.call.read(self._deadline.explain(response))
            outputs = classified(tensors, self._prepared.request.outputs, origin)
        except TritonkitClientError as error:
            self._error = error
            wait = self._engine.note_failure(
                self._prepared.call, error, response, self._server, self._tried, self._deadline, final=self._begun
            )
            if wait is None:
                raise
            self.wait_s = wait
            return None
        self._begun = True
        self._engine.note_success(self._server)
        return outputs

    def complete(self) -> None:
        """Note that the server has sent its last response."""
        self._complete = True

    def close(self) -> None:
        """Release the server and announce how the attempt ended."""
        if self._server is not None:
            self._engine.release(self._server)
            self._server = None
            self._engine.announce_end(self._event, self._started, self._error, not (self._complete or self._error))
