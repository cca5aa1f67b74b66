"""The servers behind one client: which one is asked next, which one is out, when it is looked at again. No I/O."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ._endpoint import Endpoint
from ._errors import ConnectionFailed, DeadlineExceeded, ModelNotReady, ServerBusy, TritonkitClientError

# A server that is out is looked at so soon, and then after twice as long each time up to the limit.
_FIRST_LOOK_S, _LAST_LOOK_S = 0.1, 5.0
# A server that is in is looked at so often, whether it answers requests or not.
_LOOK_S = 5.0
# So many calls in a row without an answer before their deadlines put a server out: fewer may be a slow model.
_TIMEOUTS = 3
# For how long a server is passed over for a model that it said is not ready.
_AVOID_S = 1.0


class Server:
    """One server: its connection, how many calls it has, and whether it takes part.

    Attributes:
        endpoint: Where it is.
        transport: What sends to it; made by the client that owns it.
        in_flight: Calls that it has not answered.
        out: It does not take part until it is found ready again.
        silent: It is out because nothing came from it, and not because it said that it is not ready.
    """

    def __init__(self, endpoint: Endpoint, transport: Any) -> None:
        self.endpoint = endpoint
        self.name = str(endpoint)
        self.transport = transport
        self.in_flight = 0
        self.out = self.silent = False
        self.look_at = time.monotonic() + random.uniform(0, _LOOK_S)
        self.looks = 0
        self.timeouts = 0
        self.avoid: dict[str, float] = {}


class Servers:
    """The set of servers; each request goes to the one with the fewest calls in flight, in turn among equals.

    Thread-safe.

    Args:
        endpoints: Where they are.
        connect: Makes a transport; called once a server.
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

        Servers that this call has not tried come first, then those that take part; where none does, those that
        are out are tried rather than nobody.
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
        """Whether a server that takes part has not been tried."""
        return any(not server.out and server not in tried for server in self._all)

    def note_success(self, server: Server) -> None:
        """Note that a server answered something."""
        server.timeouts = 0

    def note_failure(self, server: Server, model: str, error: TritonkitClientError) -> None:
        """Note a failure, and put the server out if it is the server's."""
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
        """The servers that it is time to look at."""
        now = time.monotonic()
        return [server for server in self.all if server.look_at <= now]

    def pause_s(self) -> float:
        """Seconds until a server is due; 0 where one is."""
        return max(0.0, min((server.look_at for server in self.all), default=0.0) - time.monotonic())

    def note_look(self, server: Server, ready: bool, silent: bool = True) -> None:
        """Note what a look at a server found; ``silent``: where it is not ready, that it said nothing at all."""
        if not ready:
            self._put_out(server, silent)
            return
        with self._lock:
            server.out = server.silent = False
            server.looks = server.timeouts = 0
            server.look_at = time.monotonic() + _LOOK_S * random.uniform(0.8, 1.2)

    def replace(self, endpoints: Sequence[Endpoint]) -> list[Server]:
        """Make the set these endpoints; those that stay keep their connections. Returns the servers that went.

        Those end with their last call: what held their connections is collected then.
        """
        with self._lock:
            known = {server.endpoint: server for server in self._all}
            gone = [server for server in self._all if server.endpoint not in endpoints]
            self._all = [known.get(endpoint) or Server(endpoint, self._connect(endpoint)) for endpoint in endpoints]
        return gone

    def _choose(self, model: str, tried: Collection[Server]) -> Server | None:
        everyone = self._all
        if len(everyone) < 2:
            return everyone[0] if everyone else None
        taking_part = [server for server in everyone if not server.out]
        now = time.monotonic()
        able = [server for server in taking_part if server.avoid.get(model, 0.0) <= now]
        untried = [server for server in able if server not in tried]
        # Without anybody else those that are out. Where all of them say that they are not ready (one broken model is
        # enough for that), they share the work as ever; else the one that was put out longest ago is next.
        talking = [server for server in everyone if not server.silent]
        among = untried or able or taking_part or talking or [min(everyone, key=lambda server: server.look_at)]
        turn = next(self._turns)
        return min((among[(turn + i) % len(among)] for i in range(len(among))), key=lambda server: server.in_flight)

    def _put_out(self, server: Server, silent: bool = True) -> None:
        if len(self._all) < 2:
            return
        with self._lock:
            fresh = not server.out
            server.out, server.silent = True, silent
            server.looks = 0 if fresh else server.looks + 1
            wait = min(_LAST_LOOK_S, _FIRST_LOOK_S * 2**server.looks)
            server.look_at = time.monotonic() + wait * random.uniform(0.5, 1.0)
        if fresh:
            self.on_change()
