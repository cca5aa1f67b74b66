"""Sends calls over a pool of urllib3 connections, blocking or from threads of its own; knows no message and
raises no error of its own.

One library serves both kinds of client: measured on loopback, asynchronous httpx2 moves half as many 600 kB
requests a second as urllib3 in threads, and a third as many of 10 MB (docs/decisions/0008).
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import urllib3
from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from ._calls import Outgoing, Reply, closed
from ._endpoint import Endpoint
from ._errors import DEADLINE_EXCEEDED, NO_CONNECTION
from ._interrupt import Interrupt
from ._security import TLS
from ._sockets import DeadlineSSLSocket, connect
from ._tensors import Buffer

# Idle connections kept open; calls beyond that many at once open one more each, for one call.
_POOL_SIZE = 128
# Below this a body is joined and sent at once: one packet instead of one a tensor.
_JOIN_BYTES = 64 * 1024
# Fast, and nearly as small as slower levels make tensors.
_LEVEL = 1


class HttpTransport:
    """The HTTP side of `_calls.Transport`; connects at the first call. Thread-safe, as urllib3's pool is."""

    def __init__(self, endpoint: Endpoint, tls: TLS | None, compression: str | None) -> None:
        self._compression = compression
        self._host = {"host": f"{endpoint.name}:{endpoint.port}"} if endpoint.name else {}
        how: dict[str, Any] = {"maxsize": _POOL_SIZE}
        self._pool: urllib3.HTTPConnectionPool
        if endpoint.tls:
            name = (tls.server_name if tls else "") or endpoint.name or endpoint.host
            context = ssl_context(tls)
            self._pool = urllib3.HTTPSConnectionPool(
                endpoint.host, endpoint.port, ssl_context=context, server_hostname=name, assert_hostname=name, **how
            )
            self._pool.ConnectionCls = _TLSConnection
        else:
            self._pool = urllib3.HTTPConnectionPool(endpoint.host, endpoint.port, **how)
            self._pool.ConnectionCls = _Connection

    def send(self, outgoing: Outgoing, credentials: Mapping[str, str]) -> Reply:
        """See `Transport.send`; the timeout bounds connecting, sending and receiving together."""
        end = None if outgoing.timeout is None else time.monotonic() + outgoing.timeout
        pieces, encoding = self._encoded(outgoing.body)
        body = _joined(pieces)
        headers = {**self._host, **credentials, **outgoing.headers, **encoding}
        left = outgoing.timeout
        while True:
            try:
                return self._exchanged(outgoing, body, headers, left)
            except _Hung as error:
                # RFC 9112, 9.3.1: a server may close an idle connection while a request is on its way to it. That is
                # no failure of the server: another connection has the answer, for requests that may be sent twice.
                if not outgoing.idempotent:
                    return Reply(NO_CONNECTION, message=str(error))
            if end is not None:
                left = end - time.monotonic()
                if left <= 0:
                    return Reply(DEADLINE_EXCEEDED)

    def _exchanged(self, outgoing: Outgoing, body: Any, headers: Mapping[str, str], timeout: float | None) -> Reply:
        """One request over one connection.

        Raises:
            _Hung: An old connection had ended.
        """
        try:
            response = self._pool.urlopen(
                outgoing.method,
                outgoing.target,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(total=timeout),
                retries=False,
                redirect=False,
            )
        except exceptions.ClosedPoolError:
            return closed()
        except exceptions.NewConnectionError as error:
            # Before the next: urllib3 counts it among the timeouts.
            return Reply(NO_CONNECTION, message=str(error))
        except exceptions.TimeoutError as error:
            return Reply(DEADLINE_EXCEEDED, message=str(error))
        except exceptions.HTTPError as error:
            # What happens while sending arrives wrapped: ProtocolError("Connection aborted.", TimeoutError(...)).
            for cause in error.args:
                if isinstance(cause, _Hung):
                    raise cause from None
            timed_out = any(isinstance(cause, TimeoutError) for cause in error.args)
            return Reply(DEADLINE_EXCEEDED if timed_out else NO_CONNECTION, message=str(error))
        return Reply(response.status, body=response.data, headers=response.headers)

    def close(self) -> None:
        """See `Transport.close`; calls in flight end as they would have."""
        self._pool.close()

    def _encoded(self, body: tuple[Buffer, ...]) -> tuple[tuple[Buffer, ...], dict[str, str]]:
        """A body as it travels, and the headers that say so."""
        if self._compression is None:
            # Said here because urllib3 would otherwise send a body in pieces chunked, which copies each
            # piece.
            return body, {"Content-Length": str(sum(map(len, body)))} if body else {}
        headers = {"Accept-Encoding": self._compression}
        if not body:
            return body, headers
        compress = gzip.compress if self._compression == "gzip" else zlib.compress
        small = compress(b"".join(body), _LEVEL)
        return (small,), {**headers, "Content-Encoding": self._compression, "Content-Length": str(len(small))}


class AsyncHttpTransport:
    """The HTTP side of `_calls.AsyncTransport`: the blocking one in threads, one a call in flight, 128 at most."""

    def __init__(self, endpoint: Endpoint, tls: TLS | None, compression: str | None) -> None:
        self._blocking = HttpTransport(endpoint, tls, compression)
        self._threads = ThreadPoolExecutor(_POOL_SIZE, thread_name_prefix="tritonkit-client-http")

    async def send(self, outgoing: Outgoing, credentials: Mapping[str, str]) -> Reply:
        """See `AsyncTransport.send`; cancelling ends the connection, as HTTP/1.1 has no other way to say it."""
        interrupt = Interrupt()
        end = None if outgoing.timeout is None else time.monotonic() + outgoing.timeout

        def work() -> Reply:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return Reply(DEADLINE_EXCEEDED)
            with interrupt.here():
                return self._blocking.send(replace(outgoing, timeout=left), credentials)

        try:
            future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError:  # "cannot schedule new futures after shutdown"
            return closed()
        try:
            # Waited for, although the thread keeps the time too: it may not have begun.
            done, _ = await asyncio.wait({future}, timeout=outgoing.timeout)
        except asyncio.CancelledError:
            interrupt.set()
            future.cancel()
            raise
        if future.cancelled():  # it had no thread yet when the client was closed
            return closed()
        if done:
            reply: Reply = future.result()
            return reply
        interrupt.set()
        future.cancel()
        return Reply(DEADLINE_EXCEEDED)

    async def close(self) -> None:
        """See `Transport.close`."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._blocking.close()


def ssl_context(tls: TLS | None) -> ssl.SSLContext:
    """How a server's certificate is checked, and what is shown to it."""
    tls = tls or TLS()
    context = ssl.create_default_context(cafile=tls.ca)
    context.sslsocket_class = DeadlineSSLSocket
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def _joined(pieces: tuple[Buffer, ...]) -> Any:
    """What urllib3 takes as a body; its annotations leave out the memoryviews that it sends as they are."""
    if not pieces:
        return None
    return b"".join(pieces) if sum(map(len, pieces)) < _JOIN_BYTES else pieces


def _connected(connection: HTTPConnection) -> Any:
    timeout = connection.timeout
    try:
        return connect(connection._dns_host, connection.port, timeout if isinstance(timeout, (int, float)) else None)
    except TimeoutError as error:
        raise exceptions.ConnectTimeoutError(connection, str(error)) from error
    except (OSError, UnicodeError) as error:
        raise exceptions.NewConnectionError(connection, str(error)) from error


class _Hung(OSError):
    """A connection that had given answers before ended instead of giving another."""


class _Connection(HTTPConnection):
    """A connection of sockets that keep a deadline; knows whether it is an old one."""

    _answered = False

    def _new_conn(self) -> Any:
        self._answered = False
        return _connected(self)

    def request(self, *args: Any, **named: Any) -> None:
        """See urllib3; raises `_Hung`, too."""
        # A pipe that breaks is no answer yet: urllib3 reads what the server said before it closed.
        with self._told_apart(ConnectionResetError):
            super().request(*args, **named)

    def getresponse(self) -> Any:
        """See urllib3; raises `_Hung`, too."""
        with self._told_apart(ConnectionResetError, BrokenPipeError):
            response = super().getresponse()
        self._answered = True
        return response

    @contextlib.contextmanager
    def _told_apart(self, *kinds: type[OSError]) -> Iterator[None]:
        try:
            yield
        except kinds as error:  # http.client's RemoteDisconnected is a ConnectionResetError
            if self._answered:
                raise _Hung(str(error)) from error
            raise


class _TLSConnection(_Connection, HTTPSConnection):
    """The same, encrypted."""
