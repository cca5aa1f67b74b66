"""Sends requests over a pool of urllib3 connections, blocking or from threads of its own; does not know what they mean
and raises no error of its own.

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
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import urllib3
from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from .._protocol.calls import Request, Response, closed_response, idle_response
from .._protocol.errors import DEADLINE_EXCEEDED, NO_CONNECTION
from .._protocol.tensors import Buffer
from .endpoint import Endpoint
from .interrupt import Interrupt
from .security import TLS
from .sockets import DeadlineSSLSocket, connect

# Idle connections kept open; calls beyond that many at once open one more each, for one call.
_POOL_SIZE = 128
# Below this a body is joined and sent at once: one packet instead of one a tensor.
_JOIN_BYTES = 64 * 1024
# How much of a stream is taken at once, at most.
_CHUNK_BYTES = 64 * 1024
# How much later than its thread a waiting task gives up: the thread's own response tells more.
_GRACE_S = 0.1
# Fast, and nearly as small as slower levels make tensors.
_LEVEL = 1


class HttpTransport:
    """The HTTP side of `Transport`; connects at the first call. Thread-safe, as urllib3's pool is."""

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

    def send(self, request: Request, credentials: Mapping[str, str]) -> Response:
        """See `Transport.send`; the timeout bounds connecting, sending and receiving together."""
        end = None if request.timeout is None else time.monotonic() + request.timeout
        pieces, encoding = self._encoded(request.body)
        body = _joined(pieces)
        headers = {**self._host, **credentials, **request.headers, **encoding}
        left = request.timeout
        while True:
            try:
                return self._exchanged(request, body, headers, left)
            except _StaleConnection as error:
                # RFC 9112, 9.3.1: a server may close an idle connection while a request is on its way to it. That is
                # no failure of the server: a request that may be sent twice is sent over another connection.
                if not request.idempotent:
                    return Response(NO_CONNECTION, message=str(error))
            if end is not None:
                left = end - time.monotonic()
                if left <= 0:
                    return Response(DEADLINE_EXCEEDED)

    def _exchanged(self, request: Request, body: Any, headers: Mapping[str, str], timeout: float | None) -> Response:
        """One request over one connection.

        Raises:
            _StaleConnection: The server had closed an idle connection.
        """
        try:
            response = self._open(request, body, headers, timeout)
        except exceptions.HTTPError as error:
            stale = _stale_connection(error)
            if stale is not None:
                raise stale from None
            return _failed_response(error)
        return Response(response.status, body=response.data, headers=response.headers)

    def _open(
        self, request: Request, body: Any, headers: Mapping[str, str], timeout: float | None, preload: bool = True
    ) -> Any:
        """urllib3's response to a request; not ``preload``: only its headers are read."""
        return self._pool.urlopen(
            request.method,
            request.target,
            body=body,
            headers=headers,
            timeout=urllib3.Timeout(total=timeout),
            retries=False,
            redirect=False,
            preload_content=preload,
        )

    def stream(self, request: Request, credentials: Mapping[str, str]) -> Generator[Response, None, None]:
        """See `Transport.stream`: server-sent events, each a response; closing the iterator ends the connection.

        Events that nobody takes wait in the server's memory: nothing holds the model back, as gRPC's flow control does.
        """
        clock = _Clock(request)
        headers = {**self._host, "Accept": "text/event-stream", **credentials, **request.headers}
        response: Any = None
        try:
            while response is None:
                try:
                    response = self._open(request, b"".join(request.body), headers, clock.next_s(), preload=False)
                except exceptions.HTTPError as error:
                    if _stale_connection(error) is None:
                        raise
            if response.status == 200:
                for event in _events(_chunks(response, clock)):
                    yield Response(200, body=event)
            else:
                body = b"".join(_chunks(response, clock))
                yield Response(response.status, b"".join(_events(iter((body,)))) or body, headers=response.headers)
        except exceptions.HTTPError as error:
            failure = _failed_response(error)
            yield idle_response(request.idle_s) if failure.status == DEADLINE_EXCEEDED and clock.idles else failure
        finally:
            if response is not None and not response.closed:
                response.close()

    def close(self) -> None:
        """See `Transport.close`; calls in flight end as they would have."""
        self._pool.close()

    def _encoded(self, body: tuple[Buffer, ...]) -> tuple[tuple[Buffer, ...], dict[str, str]]:
        """A body, compressed where that is set, and its headers."""
        if self._compression is None:
            # Without the header urllib3 would send a body in pieces chunked, which copies each piece.
            return body, {"Content-Length": str(sum(map(len, body)))} if body else {}
        headers = {"Accept-Encoding": self._compression}
        if not body:
            return body, headers
        compress = gzip.compress if self._compression == "gzip" else zlib.compress
        small = compress(b"".join(body), _LEVEL)
        return (small,), {**headers, "Content-Encoding": self._compression, "Content-Length": str(len(small))}


class _Clock:
    """How long the next part of a stream may take: the rest of its deadline, or its idle time where that is shorter.

    Attributes:
        idles: Whether the idle time was the shorter one.
    """

    def __init__(self, request: Request) -> None:
        self._end = None if request.timeout is None else time.monotonic() + request.timeout
        self._idle_s = request.idle_s
        self.idles = False

    def next_s(self) -> float | None:
        """Seconds for the next part; None for no limit."""
        left = None if self._end is None else max(0.001, self._end - time.monotonic())
        self.idles = self._idle_s is not None and (left is None or self._idle_s < left)
        return self._idle_s if self.idles else left


class AsyncHttpTransport:
    """The HTTP side of `AsyncTransport`: `HttpTransport` in threads, one for each request, 128 at most."""

    def __init__(self, endpoint: Endpoint, tls: TLS | None, compression: str | None) -> None:
        self._blocking = HttpTransport(endpoint, tls, compression)
        self._threads = ThreadPoolExecutor(_POOL_SIZE, thread_name_prefix="tritonkit-client-http")

    async def send(self, request: Request, credentials: Mapping[str, str]) -> Response:
        """See `AsyncTransport.send`; cancelling ends the connection, as HTTP/1.1 has no other way to say it."""
        interrupt = Interrupt()
        end = None if request.timeout is None else time.monotonic() + request.timeout

        def work() -> Response:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return Response(DEADLINE_EXCEEDED)
            with interrupt.here():
                return self._blocking.send(replace(request, timeout=left), credentials)

        try:
            future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError:  # "cannot schedule new futures after shutdown"
            return closed_response()
        try:
            # With a timeout, although the thread keeps the time too: it may not have begun.
            done, _ = await asyncio.wait({future}, timeout=request.timeout)
        except asyncio.CancelledError:
            interrupt.set()
            future.cancel()
            raise
        if future.cancelled():  # it had no thread yet when the client was closed
            return closed_response()
        if done:
            response: Response = future.result()
            return response
        interrupt.set()
        future.cancel()
        return Response(DEADLINE_EXCEEDED)

    async def stream(self, request: Request, credentials: Mapping[str, str]) -> AsyncIterator[Response]:
        """See `HttpTransport.stream`; a thread waits for each response."""
        responses = self._blocking.stream(request, credentials)
        interrupt = Interrupt()
        end = None if request.timeout is None else time.monotonic() + request.timeout

        def step() -> Response | None:
            with interrupt.here():
                return next(responses, None)

        waiting: Future[Response | None] | None = None
        try:
            while True:
                try:
                    waiting = self._threads.submit(step)
                except RuntimeError:  # "cannot schedule new futures after shutdown"
                    yield closed_response()
                    return
                # With a timeout, although the thread keeps the time too: it may not have begun.
                left = None if end is None else end - time.monotonic() + _GRACE_S
                done, _ = await asyncio.wait({asyncio.wrap_future(waiting)}, timeout=left)
                if not done:
                    yield Response(DEADLINE_EXCEEDED)
                    return
                response = waiting.result()
                waiting = None
                if response is None:
                    return
                yield response
        finally:
            if waiting is None or waiting.cancel():
                responses.close()
            else:  # its thread still waits for the response
                waiting.add_done_callback(lambda _: responses.close())
                interrupt.set()

    async def close(self) -> None:
        """See `Transport.close`."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._blocking.close()


def ssl_context(tls: TLS | None) -> ssl.SSLContext:
    """The context that checks a server's certificate, and has the client's own."""
    tls = tls or TLS()
    context = ssl.create_default_context(cafile=tls.ca)
    context.sslsocket_class = DeadlineSSLSocket
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def _failed_response(error: exceptions.HTTPError) -> Response:
    """The response of a failed exchange."""
    if isinstance(error, exceptions.ClosedPoolError):
        return closed_response()
    if isinstance(error, exceptions.NewConnectionError):  # urllib3 counts it among the timeouts
        return Response(NO_CONNECTION, message=str(error))
    if isinstance(error, exceptions.TimeoutError):
        return Response(DEADLINE_EXCEEDED, message=str(error))
    # What happens while sending arrives wrapped: ProtocolError("Connection aborted.", TimeoutError(...)).
    timed_out = any(isinstance(cause, TimeoutError) for cause in error.args)
    return Response(DEADLINE_EXCEEDED if timed_out else NO_CONNECTION, message=str(error))


def _stale_connection(error: exceptions.HTTPError) -> _StaleConnection | None:
    """The `_StaleConnection` that an error wraps, if any."""
    return next((cause for cause in error.args if isinstance(cause, _StaleConnection)), None)


def _chunks(response: Any, clock: _Clock) -> Iterator[bytes]:
    """The pieces of a body as they come."""
    sock = response.connection.stream_socket
    while True:
        sock.settimeout(clock.next_s())
        chunk = response.read1(_CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def _events(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The data of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), which end with
    an empty line; blocks without data are left out.
    """
    buffer = b""
    for chunk in chunks:
        *blocks, buffer = (buffer + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        for block in blocks:
            lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
            if lines:
                yield b"\n".join(lines)


def _joined(pieces: tuple[Buffer, ...]) -> Any:
    """A body as urllib3 takes it; its annotations leave out memoryviews, which it sends without a copy."""
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


class _StaleConnection(OSError):
    """A connection that had carried responses before ended before the next one."""


class _Connection(HTTPConnection):
    """A connection of sockets that keep a deadline; knows whether it has carried a response."""

    _answered = False
    stream_socket: Any = None

    def _new_conn(self) -> Any:
        self._answered = False
        return _connected(self)

    def request(self, *args: Any, **named: Any) -> None:
        """See urllib3; raises `_StaleConnection`, too."""
        # A broken pipe is no failure yet: urllib3 reads what the server sent before it closed.
        with self._marking_stale(ConnectionResetError):
            super().request(*args, **named)

    def getresponse(self) -> Any:
        """See urllib3; raises `_StaleConnection`, too."""
        self.stream_socket = self.sock  # http.client forgets it where the server will close the connection
        with self._marking_stale(ConnectionResetError, BrokenPipeError):
            response = super().getresponse()
        self._answered = True
        return response

    @contextlib.contextmanager
    def _marking_stale(self, *kinds: type[OSError]) -> Iterator[None]:
        try:
            yield
        except kinds as error:  # http.client's RemoteDisconnected is a ConnectionResetError
            if self._answered:
                raise _StaleConnection(str(error)) from error
            raise


class _TLSConnection(_Connection, HTTPSConnection):
    """The same, encrypted."""
