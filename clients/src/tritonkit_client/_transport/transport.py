"""What a transport does, blocking and asynchronous; those of gRPC and of HTTP lie beside it. No I/O."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from typing import Protocol

from .._protocol.calls import Request, Response


class Transport(Protocol):
    """A connection to one server that sends and blocks."""

    def send(self, request: Request, credentials: Mapping[str, str]) -> Response:
        """Send a request and wait at most its timeout; failures are responses too."""

    def stream(self, request: Request, credentials: Mapping[str, str]) -> Iterator[Response]:
        """Send a request, and yield its responses as they come; closing the iterator gives the request up."""

    def close(self) -> None:
        """Close the connection; a second time does nothing."""


class AsyncTransport(Protocol):
    """A connection to one server that sends without blocking."""

    def send(self, request: Request, credentials: Mapping[str, str]) -> Awaitable[Response]:
        """See `Transport.send`; cancelling it gives the request up."""

    def stream(self, request: Request, credentials: Mapping[str, str]) -> AsyncIterator[Response]:
        """See `Transport.stream`; cancelling the wait for a part gives the request up."""

    def close(self) -> Awaitable[None]:
        """See `Transport.close`."""
