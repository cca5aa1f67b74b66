"""Sends calls over a pool of urllib3 connections; knows no message and raises no error of its own."""

from __future__ import annotations

import socket
import time
from typing import Any

import urllib3
from urllib3 import exceptions
from urllib3.connection import HTTPConnection

from ._calls import Call, Reply
from ._endpoint import Endpoint
from ._errors import DEADLINE_EXCEEDED, NO_CONNECTION
from ._tensors import Buffer

# Idle connections kept open; calls beyond that many at once open one more each, for one call.
_POOL_SIZE = 128
# Below this a body is joined and sent at once: one packet instead of one a tensor.
_JOIN_BYTES = 64 * 1024


class HttpTransport:
    """The HTTP side of `_calls.Transport`; connects at the first call. Thread-safe, as urllib3's pool is."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._pool = urllib3.HTTPConnectionPool(endpoint.host, endpoint.port, maxsize=_POOL_SIZE)
        self._pool.ConnectionCls = _DeadlineConnection

    def send(self, call: Call[Any], timeout: float | None) -> Reply:
        """See `Transport.send`; the timeout bounds connecting, sending and receiving together."""
        try:
            response = self._pool.urlopen(
                "POST" if call.body else "GET",
                call.target,
                body=_body(call.body),
                headers=_headers(call),
                timeout=urllib3.Timeout(total=timeout),
                retries=False,
                redirect=False,
            )
        except exceptions.NewConnectionError as error:
            # Before the next: urllib3 counts it among the timeouts.
            return Reply(NO_CONNECTION, message=str(error))
        except exceptions.TimeoutError as error:
            return Reply(DEADLINE_EXCEEDED, message=str(error))
        except exceptions.HTTPError as error:
            # A timeout while sending arrives wrapped: ProtocolError("Connection aborted.",
            # TimeoutError(...)).
            timed_out = any(isinstance(cause, TimeoutError) for cause in error.args)
            return Reply(DEADLINE_EXCEEDED if timed_out else NO_CONNECTION, message=str(error))
        return Reply(response.status, body=response.data, headers=response.headers)

    def close(self) -> None:
        """See `Transport.close`; calls in flight end as they would have."""
        self._pool.close()


def _body(pieces: tuple[Buffer, ...]) -> Any:
    """What urllib3 takes as a body; its annotations leave out the memoryviews that it sends as they are."""
    if not pieces:
        return None
    return b"".join(pieces) if sum(map(len, pieces)) < _JOIN_BYTES else pieces


def _headers(call: Call[Any]) -> dict[str, str]:
    if not call.body:
        return dict(call.headers)
    # Said here because urllib3 would otherwise send a body in pieces chunked, which copies each piece.
    return {**call.headers, "Content-Length": str(sum(map(len, call.body)))}


class _DeadlineSocket(socket.socket):
    """A socket whose timeout bounds all that follows it, where a plain one's bounds each read by itself.

    urllib3 sets a socket's timeout before it sends and before it receives, each time to what is left of the
    total; a server that sends one byte a second would nevertheless keep a plain socket waiting for as long as
    it likes.
    """

    _end: float | None = None

    def settimeout(self, value: float | None, /) -> None:
        self._end = None if value is None else time.monotonic() + value
        super().settimeout(value)

    def recv_into(self, *args: Any) -> int:
        self._bound()
        return super().recv_into(*args)

    def sendall(self, *args: Any) -> None:
        self._bound()
        super().sendall(*args)

    def _bound(self) -> None:
        if self._end is not None:
            left = self._end - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            super().settimeout(left)


class _DeadlineConnection(HTTPConnection):
    """A connection of such sockets, whose timeout also bounds trying all addresses of a host together."""

    def _new_conn(self) -> socket.socket:
        end = None if self.timeout is None else time.monotonic() + self.timeout
        failure: Exception = OSError("the name has no address")
        try:
            addresses = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise exceptions.NewConnectionError(self, str(error)) from error
        for family, kind, proto, _, address in addresses:
            sock = _DeadlineSocket(family, kind, proto)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(None if end is None else max(0.001, end - time.monotonic()))
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        if isinstance(failure, TimeoutError):
            raise exceptions.ConnectTimeoutError(self, str(failure))
        raise exceptions.NewConnectionError(self, str(failure))
