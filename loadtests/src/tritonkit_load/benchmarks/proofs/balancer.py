"""A service's virtual address as kube-proxy makes it: new connections go to the ready endpoints in turn, old ones stay.

It looks at connections only: it retries nothing, closes nothing early and knows no HTTP. Who is ready is told to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Sequence

HOST = "127.0.0.1"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing sends RST


class Balancer:
    """One TCP port in front of changing endpoints; use it as a context manager.

    Attributes:
        port: Where callers connect to.
        connections: How many were accepted.
        refused: How many found no endpoint, or one that did not accept.
    """

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.refused = 0
        self._endpoints: tuple[int, ...] = ()
        self._turn = itertools.count()
        self._thread = threading.Thread(target=self._run, name="balancer", daemon=True)
        self._up = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sides: set[_Side] = set()

    def route(self, ports: Sequence[int]) -> None:
        """Send new connections to these ports from now on."""
        self._endpoints = tuple(ports)

    def __enter__(self) -> Balancer:
        self._thread.start()
        self._up.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        self._loop = asyncio.new_event_loop()
        server = self._loop.run_until_complete(self._loop.create_server(lambda: _Caller(self), HOST, 0, backlog=1024))
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            self._loop.run_until_complete(self._end())
            self._loop.close()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for side in self._sides:
            side.reset()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted is closed in the loop's next turn

    def _connect(self, caller: _Caller) -> None:
        self.connections += 1
        task = self._loop.create_task(self._open(caller))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, caller: _Caller) -> None:
        endpoints = self._endpoints
        if not endpoints:
            self._refuse(caller)
            return
        port = endpoints[next(self._turn) % len(endpoints)]
        try:
            await self._loop.create_connection(lambda: _Side(self, caller), HOST, port)
        except OSError:
            self._refuse(caller)

    def _refuse(self, caller: _Caller) -> None:
        self.refused += 1
        caller.reset()


class _Side(asyncio.Protocol):
    """One half of a connection: its peer writes what this half reads, and ends as this half ends."""

    def __init__(self, balancer: Balancer, peer: _Side | None) -> None:
        self.balancer = balancer
        self.peer = peer
        self.transport: asyncio.Transport | None = None
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.balancer._sides.add(self)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.peer is not None:
            self.peer.joined(self)

    def joined(self, peer: _Side) -> None:
        """Begin to read: the peer is connected."""
        self.peer = peer
        if self.transport is None or self.transport.is_closing():
            peer.reset()
            return
        self.transport.resume_reading()
        if self.ended:
            peer.finish()

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        if self.peer is not None:
            self.peer.finish()
        return True  # the other direction may still have something to say

    def finish(self) -> None:
        """Shut down writing."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()
            if self.ended:
                self.transport.close()

    def reset(self) -> None:
        """Close with RST, as a port that nobody serves does."""
        if self.transport is not None and not self.transport.is_closing():
            with contextlib.suppress(OSError):
                self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.balancer._sides.discard(self)
        peer = self.peer
        if peer is None or peer.transport is None:
            return
        if error is not None:
            peer.reset()
        elif not peer.transport.is_closing():
            peer.transport.close()

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()


class _Caller(_Side):
    """The half towards the caller; it is not read before an endpoint is connected."""

    def __init__(self, balancer: Balancer) -> None:
        super().__init__(balancer, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self.balancer._connect(self)
