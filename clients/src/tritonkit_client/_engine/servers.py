"""The servers of one client: which gets the next attempt, which are out, and when each is checked. No I/O."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from .._protocol.errors import ConnectionFailed, DeadlineExceeded, ModelNotReady, ServerBusy, TritonkitClientError
from .._transport.endpoint import Endpoint

# A server that is out is checked so soon, and then after twice as long each time up to the limit.
_FIRST_CHECK_S, _LAST_CHECK_S = 0.1, 5.0
# A server that is in is checked so often, whether it answers requests or not.
_CHECK_S = 5.0
# So many calls in a row without a response before their deadlines put a server out: fewer may be a slow model.
_TIMEOUTS = 3
# For how long a server is passed over for a model that it said is not ready.
_AVOID_S = 1.0


class Server:
    """One server: its connection, how many calls it has, and whether it takes part.

    Attributes:
        endpoint: Where it is.
        transport: The connection that sends to it.
        in_flight: How many attempts at it have not ended.
        out: Whether it is left out until a check says that it is ready.
        silent: It is out because no response came from it, and not because it said that it is not ready.
    """

    def __init__(self, endpoint: Endpoint, transport: Any) -> None:
        self.endpoint = endpoint
        self.name = str(endpoint)
        self.transport = transport
        self.in_flight = 0
        self.out = self.silent = False
        self.check_at = time.monotonic() + random.uniform(0, _CHECK_S)
        self.checks = 0
        self.timeouts = 0
        self.avoid: dict[str, float] = {}


class Servers:
    """The set of servers; an attempt goes to the server with the fewest in flight, in turn among equals.

    Thread-safe.

    Args:
        endpoints: Where they are.
        connect: Makes the transport of a server.
    """

    def __init__(self, endpoints: Sequence[Endpoint], connect: Callable[[Endpoint], Any]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._turns = itertools.count()
        self._all = [Server(endpoint, connect(endpoint)) for endpoint in endpoints]
        self.on_change: Callable[[], None] = lambda: None

    @property
    def all(self) -> tuple[Server, ...]:
        """Every server, those that are out included."""
        return tuple(self._all)

    def acquire(self, model: str, tried: Collection[Server], pinned: Server | None = None) -> Server | None:
        """Choose a server for one attempt and count the attempt; None where there is no server at all.

        Servers that this call has not tried come first, then all that are in; where all are out, one of them is
        tried nevertheless.
        """
        with self._lock:
            server = pinned or self._choose(model, tried)
            if server is not None:
                server.in_flight += 1
            return server

    def release(self, server: Server) -> None:
        """End what `acquire` began."""
        with self._lock:
            server.in_flight -= 1

    def others(self, tried: Collection[Server]) -> bool:
        """Whether there is a server that is in and has not been tried."""
        return any(not server.out and server not in tried for server in self._all)

    def note_success(self, server: Server) -> None:
        """Note that a server answered something."""
        server.timeouts = 0

    def note_failure(self, server: Server, model: str, error: TritonkitClientError) -> None:
        """Note a failure, and put the server out where the failure is the server's and not the model's."""
        if isinstance(error, DeadlineExceeded):
            server.timeouts += 1
            gone = server.timeouts >= _TIMEOUTS
        else:
            server.timeouts = 0
            # "Server is stopping, scheduler for model has stopped accepting new inference requests"
            stopping = type(error) is ServerBusy and "stopping" in error.message
            gone = isinstance(error, ConnectionFailed) or stopping
        if gone:
            self._put_out(server)
        elif isinstance(error, ModelNotReady) and len(self._all) > 1:
            server.avoid[model] = time.monotonic() + _AVOID_S

    def due(self) -> list[Server]:
        """The servers whose check is due."""
        now = time.monotonic()
        return [server for server in self.all if server.check_at <= now]

    def pause_s(self) -> float:
        """Seconds until the next check is due; 0 where it is already."""
        return max(0.0, min((server.check_at for server in self.all), default=0.0) - time.monotonic())

    def note_check(self, server: Server, ready: bool, silent: bool = True) -> None:
        """Note the result of a check; ``silent``: the server is not ready because no response came from it."""
        if not ready:
            self._put_out(server, silent)
            return
        with self._lock:
            server.out = server.silent = False
            server.checks = server.timeouts = 0
            server.check_at = time.monotonic() + _CHECK_S * random.uniform(0.8, 1.2)

    def replace(self, endpoints: Sequence[Endpoint]) -> list[Server]:
        """Replace the set of servers; those that stay keep their connections. Returns the servers that were removed.

        The connection of a removed server closes after its last call, when the server is collected.
        """
        with self._lock:
            known = {server.endpoint: server for server in self._all}
            gone = [server for server in self._all if server.endpoint not in endpoints]
            self._all = [known.get(endpoint) or Server(endpoint, self._connect(endpoint)) for endpoint in endpoints]
        return gone

    def _choose(self, model: str, tried: Collection[Server]) -> Server | None:
        servers = self._all
        if len(servers) < 2:
            return servers[0] if servers else None
        available = [server for server in servers if not server.out]
        now = time.monotonic()
        able = [server for server in available if server.avoid.get(model, 0.0) <= now]
        untried = [server for server in able if server not in tried]
        # All are out. Those that say that they are not ready (a single broken model is enough for that) share the
        # calls as usual; if none says so, the server whose next check is nearest is tried.
        responsive = [server for server in servers if not server.silent]
        candidates = untried or able or available or responsive or [min(servers, key=lambda server: server.check_at)]
        turn = next(self._turns)
        count = len(candidates)
        return min((candidates[(turn + i) % count] for i in range(count)), key=lambda server: server.in_flight)

    def _put_out(self, server: Server, silent: bool = True) -> None:
        if len(self._all) < 2:
            return
        with self._lock:
            fresh = not server.out
            server.out, server.silent = True, silent
            server.checks = 0 if fresh else server.checks + 1
            wait = min(_LAST_CHECK_S, _FIRST_CHECK_S * 2**server.checks)
            server.check_at = time.monotonic() + wait * random.uniform(0.5, 1.0)
        if fresh:
            self.on_change()
