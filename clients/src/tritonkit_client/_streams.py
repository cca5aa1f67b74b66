"""A stream of responses: which server, which error, when the beginning is worth another attempt. No I/O."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._calls import Attempt, Call, Deadline, Flow, InferRequest, Reply
from ._classes import classified
from ._engine import Engine, outgoing
from ._errors import NotSupported, TritonkitClientError
from ._metadata import ModelMetadata
from ._tensors import Array
from ._validation import UNNAMED

if TYPE_CHECKING:
    from ._flows import Asked, Flows
    from ._servers import Server


@dataclass(frozen=True)
class Prepared:
    """A stream that can be opened: the request, checked and encoded, and who asked."""

    request: InferRequest
    call: Call[dict[str, Array]]


def prepare(flows: Flows, asked: Asked) -> Flow[Prepared]:
    """Check and encode a request for a stream.

    Raises:
        NotSupported: The protocol has no streams of tensors.
    """
    origin = flows.origin(asked.model, asked.version, flows.request_id(asked))
    if not flows.wire.streams_tensors:
        raise NotSupported(
            "KServe v2 over HTTP has no streams of tensors", f"use a grpc:// endpoint; {UNNAMED}", origin
        )
    metadata: ModelMetadata = yield from flows.metadata(asked.model, asked.version)
    request = flows.carried(flows.request(metadata, asked, origin))
    return Prepared(request, flows.wire.stream(request, origin))


class Stream:
    """One stream over its attempts; a client asks it what to open and gives it what came.

    Only the beginning is tried again: once a response was handed out, a failure is the caller's.
    """

    def __init__(
        self,
        engine: Engine,
        prepared: Prepared,
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
        """Choose a server and say what to send to it."""
        call = self._prepared.call
        self._server = self._engine.acquire(call, self._tried)
        self._event = self._engine.announce(call, self._server, self._tried, self._headers)
        self._started = time.monotonic()
        self._error: TritonkitClientError | None = None
        self._complete = False
        sent = outgoing(call, self._deadline.remaining(), self._event.headers)
        sent.idle_s = self._idle_s
        return Attempt(self._server, sent)

    def read(self, reply: Reply) -> dict[str, Array] | None:
        """The outputs in a reply; None: nothing was lost, open it again after ``wait_s`` seconds.

        Raises:
            TritonkitClientError: The stream failed.
        """
        assert self._server is not None
        origin = self._prepared.call.origin
        try:
            answer = self._prepared.call.read(self._deadline.said(reply))
            outputs = classified(answer, self._prepared.request.outputs, origin)
        except TritonkitClientError as error:
            self._error = error
            wait = self._engine.failed(
                self._prepared.call, error, reply, self._server, self._tried, self._deadline, final=self._begun
            )
            if wait is None:
                raise
            self.wait_s = wait
            return None
        self._begun = True
        self._engine.answered(self._server)
        return outputs

    def complete(self) -> None:
        """Note that the server has nothing more to say."""
        self._complete = True

    def close(self) -> None:
        """Give the server free."""
        if self._server is not None:
            self._engine.release(self._server)
            self._server = None
            self._engine.told(self._event, self._started, self._error, not (self._complete or self._error))
