"""Sockets whose timeout bounds a whole exchange, and that another thread can interrupt."""

from __future__ import annotations

import socket
import ssl
import time
from functools import partial
from typing import Any

from .interrupt import interruptible


def watched(sock: socket.socket) -> None:
    """Let this thread's interrupt, if it has one, end this socket."""
    interrupt = interruptible()
    if interrupt is not None:
        # The plain method: SSLSocket's own would take the TLS state from under its reader.
        interrupt.watch(partial(socket.socket.shutdown, sock, socket.SHUT_RDWR))


class _Bounded(socket.socket):
    """A socket whose timeout bounds everything after it is set; a plain socket's bounds each read by itself.

    urllib3 sets a socket's timeout before it sends and before it receives, each time to the rest of the
    total; a server that sends a byte a second would nevertheless keep a plain socket waiting for as long as
    it likes.
    """

    _end: float | None = None

    def settimeout(self, value: float | None, /) -> None:
        self._end = None if value is None else time.monotonic() + value
        super().settimeout(value)

    def recv_into(self, *args: Any) -> int:
        self._bound()
        return super().recv_into(*args)

    def send(self, *args: Any, **named: Any) -> int:  # gevent's sendall calls it with a timeout of its own
        self._bound()
        return super().send(*args, **named)

    def sendall(self, *args: Any) -> None:
        self._bound()
        super().sendall(*args)

    def _bound(self) -> None:
        watched(self)
        if self._end is not None:
            left = self._end - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            super().settimeout(left)


class DeadlineSocket(_Bounded):
    """The socket of a connection without TLS."""


class DeadlineSSLSocket(_Bounded, ssl.SSLSocket):
    """The socket of a connection with TLS; an SSLContext with this ``sslsocket_class`` makes it."""


def connect(host: str, port: int, timeout: float | None) -> socket.socket:
    """Connect to the first address of a host that accepts; the timeout bounds trying all of them together.

    Raises:
        TimeoutError: The last address did not answer in time.
        OSError: No address accepts, or there is none.
        UnicodeError: The host cannot be a name.
    """
    end = None if timeout is None else time.monotonic() + timeout
    failure: OSError = OSError("the name has no address")
    for family, kind, proto, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = DeadlineSocket(family, kind, proto)
        try:
            watched(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # The system notices a peer that has vanished, also while nothing is sent.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.settimeout(None if end is None else max(0.001, end - time.monotonic()))
            sock.connect(address)
            # Later steps, an encrypted connection's handshake say, have the rest of the time, not all of it again.
            sock.settimeout(None if end is None else max(0.001, end - time.monotonic()))
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def addresses(host: str, port: int) -> list[str]:
    """All addresses of a name, in a stable order.

    Raises:
        OSError, UnicodeError: The name cannot be looked up.
    """
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in entries})
