"""Drives a flow: which server, which attempt, when again, until when. Yields effects and performs none of them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ._calls import (
    Attempt,
    Call,
    Deadline,
    Effect,
    Flow,
    Operation,
    Outgoing,
    Pause,
    Race,
    Reply,
    Resolve,
    Shared,
    Wait,
    Wire,
)
from ._endpoint import Endpoints, addressed
from ._errors import (
    DEADLINE_EXCEEDED,
    NO_CONNECTION,
    ConnectionFailed,
    DeadlineExceeded,
    NotSupported,
    Origin,
    TritonkitClientError,
    Unauthenticated,
    error_for,
)
from ._events import Hooks, RequestEvent, ResponseEvent, RetryEvent
from ._hedging import Hedge, Latencies
from ._retry import Budget, Retry, is_retryable, pushback_s
from ._servers import Server, Servers

T = TypeVar("T")

# How long a look at a server may take.
_LOOK_TIMEOUT_S = 1.0
# How often a name is looked up again: pods come and go in seconds, resolvers cache for about as long.
_RESOLVE_S = 10.0


# Stands for every announcement that nobody listens to.
_UNTOLD = RequestEvent("", "", "", "", 0)


@dataclass(frozen=True)
class _Outcome:
    """How a shared flow ended."""

    value: Any = None
    error: TritonkitClientError | None = None


class Engine:
    """Everything that happens between an operation and the network, without the network.

    Args:
        wire: The protocol.
        endpoints: What the client was given.
        servers: Where calls go.
        retry: When they go again.
        hooks: Who is told.
        hedge: When a second server is asked as well; None for never.
        refreshes: A refused credential is worth one more attempt, as it is made anew each time.
    """

    def __init__(
        self,
        wire: Wire,
        endpoints: Endpoints,
        servers: Servers,
        retry: Retry,
        hooks: Hooks,
        hedge: Hedge | None,
        refreshes: bool,
    ) -> None:
        self._wire = wire
        self._endpoints = endpoints
        self._servers = servers
        self._retry = retry
        self._budget = Budget(retry)
        self._hooks = hooks
        self._latencies = Latencies(hedge) if hedge else None
        self._refreshes = refreshes
        self._sharing = threading.Lock()
        self._shared: dict[Hashable, Future[_Outcome | None]] = {}
        self.resolved = not endpoints.resolve

    def operate(self, flow: Flow[T], deadline: Deadline, headers: Mapping[str, str]) -> Operation[T]:
        """The effects of a whole operation."""
        if not self.resolved:
            yield from self._resolve(deadline.remaining())
        return (yield from self._drive(flow, deadline, headers))

    def _drive(self, flow: Flow[T], deadline: Deadline, headers: Mapping[str, str]) -> Operation[T]:
        try:
            step = next(flow)
            while True:
                try:
                    if isinstance(step, Shared):
                        result = yield from self._share(step, deadline, headers)
                    else:
                        result = yield from self._exchange(step, deadline, headers)
                except TritonkitClientError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as done:
            value: T = done.value
            return value
        finally:
            flow.close()

    def _share(self, shared: Shared, deadline: Deadline, headers: Mapping[str, str]) -> Operation[Any]:
        """Run a shared flow, or wait for the one who does.

        Calls with other headers may be answered otherwise: those are not waited for. Who gives up, or runs out of time,
        hands on to the next; and what another attempt may cure, everybody tries alone, with the time that they have.
        """
        key = (shared.key, frozenset(headers.items()))
        while True:
            with self._sharing:
                future = self._shared.get(key)
                if future is None:
                    own = self._shared[key] = Future()
            if future is None:
                return (yield from self._lead(key, own, shared, deadline, headers))
            yield Wait(future, deadline.remaining())
            if not future.done():
                raise error_for(DEADLINE_EXCEEDED, deadline.reply().message, shared.origin)
            outcome = future.result()
            if outcome is None or isinstance(outcome.error, DeadlineExceeded):
                continue
            if outcome.error is None:
                return outcome.value
            if is_retryable(outcome.error, elsewhere=True):
                return (yield from self._drive(shared.flow(), deadline, headers))
            raise _repeated(outcome.error, shared.origin) from outcome.error

    def _lead(
        self, key: Hashable, future: Future[_Outcome | None], shared: Shared, deadline: Deadline,
        headers: Mapping[str, str],
    ) -> Operation[Any]:  # fmt: skip
        outcome = None  # for good where the caller gives up
        try:
            value = yield from self._drive(shared.flow(), deadline, headers)
            outcome = _Outcome(value)
            return value
        except TritonkitClientError as error:
            outcome = _Outcome(error=error)
            raise
        finally:
            with self._sharing:
                del self._shared[key]
            future.set_result(outcome)

    def watch(self) -> Operation[None]:
        """The effects of looking after the servers, without end: only where there can be more than one of them.

        The client answers an effect that it could not perform with None.
        """
        resolve_at = time.monotonic() + _RESOLVE_S
        while True:
            for server in self._servers.due():
                call = self._wire.ready(Origin(server.name))
                reply = yield Attempt(server, outgoing(call, _LOOK_TIMEOUT_S, {}))
                self._looked(server, call, reply)
            if self._endpoints.resolve and resolve_at <= time.monotonic():
                yield from self._resolve(_LOOK_TIMEOUT_S)
                resolve_at = time.monotonic() + _RESOLVE_S
            pause = self._servers.pause_s()
            yield Pause(min(pause, max(0.0, resolve_at - time.monotonic())) if self._endpoints.resolve else pause)

    def _looked(self, server: Server, call: Call[bool], reply: Reply | None) -> None:
        if reply is None:  # not even asked: the server is what it was
            self._servers.looked(server, not server.out, server.silent)
            return
        try:
            self._servers.looked(server, bool(call.read(reply)), silent=False)
        except (NotSupported, Unauthenticated):  # it is there, but does not tell everybody
            self._servers.looked(server, ready=True)
        except TritonkitClientError as error:
            self._servers.looked(server, ready=False, silent=isinstance(error, (ConnectionFailed, DeadlineExceeded)))

    def _resolve(self, timeout: float | None) -> Generator[Resolve, list[str] | None, None]:
        (named,) = self._endpoints.all
        addresses = yield Resolve(named.host, named.port, timeout)
        if addresses:  # a resolver that fails is no reason to forget the servers
            self._servers.replace(tuple(addressed(named, address) for address in addresses))
            self.resolved = True

    def acquire(self, call: Call[Any], tried: list[Server]) -> Server:
        """The server for the next attempt of a call, noted among those that were tried; `release` it.

        Raises:
            ConnectionFailed: There is no server.
        """
        server = self._servers.acquire(call.origin.model, tried, call.server)
        if server is None:
            raise error_for(NO_CONNECTION, "the name has no address", call.origin)
        tried.append(server)
        return server

    def release(self, server: Server) -> None:
        """End what `acquire` began."""
        self._servers.release(server)

    def announce(
        self, call: Call[Any], server: Server, tried: list[Server], headers: Mapping[str, str]
    ) -> RequestEvent:
        """Tell that an attempt is about to be sent; its headers are the event's."""
        if not self._hooks.any:
            return _UNTOLD if not headers else replace(_UNTOLD, headers=dict(headers))
        origin = call.origin
        event = RequestEvent(server.name, call.operation, origin.model, origin.request_id, len(tried), dict(headers))
        Hooks.tell(self._hooks.request, event)
        return event

    def answered(self, server: Server) -> None:
        """Note a success."""
        self._servers.answered(server)
        self._budget.earn()

    def failed(
        self,
        call: Call[Any],
        error: TritonkitClientError,
        reply: Reply,
        server: Server,
        tried: list[Server],
        deadline: Deadline,
        final: bool = False,
    ) -> float | None:
        """Note a failure; seconds until the next attempt, None where there is none."""
        error.attempts = len(tried)
        error.endpoint = server.name
        self._servers.failed(server, call.origin.model, error)
        if self._refreshes and isinstance(error, Unauthenticated) and len(tried) == 1 and not final:
            return 0.0
        elsewhere = call.server is None and self._servers.others(tried)
        if final or not call.idempotent or len(tried) >= self._retry.attempts or not is_retryable(error, elsewhere):
            return None
        said = pushback_s(reply.headers)
        wait = 0.0 if elsewhere and said is None else self._retry.wait_s(len(tried), said)
        left = deadline.remaining()
        if math.isinf(wait) or (left is not None and wait >= left):
            return None
        return wait if self._budget.spend() else None

    def _exchange(self, call: Call[T], deadline: Deadline, headers: Mapping[str, str]) -> Operation[T]:
        """Send one call, again where that is safe and useful, and read its answer."""
        tried: list[Server] = []
        while True:
            started = time.monotonic()
            server = self.acquire(call, tried)
            event = self.announce(call, server, tried, headers)
            reply: Reply | None = None
            answered = server
            try:
                left = deadline.remaining()
                if left == 0:
                    reply = deadline.reply()
                elif self._latencies is not None and _may_race(call):
                    raced = self._raced(self._latencies, call, server, event, deadline, tried)
                    answered, event, started, reply = yield from raced
                else:
                    reply = yield Attempt(server, outgoing(call, left, event.headers))
            finally:
                self._servers.release(server)
                if reply is None:  # the caller gave up
                    self.told(event, started, cancelled=True)
            try:
                result = call.read(deadline.said(reply))
            except TritonkitClientError as error:
                wait = self.failed(call, error, reply, answered, tried, deadline)
                self.told(event, started, error)
                if wait is None:
                    raise
                Hooks.tell(self._hooks.retry, RetryEvent(event, error, wait))
            else:
                self.answered(answered)
                if self._hooks.response:
                    self.told(event, started)
                return result
            if wait:
                yield Pause(wait)

    def _raced(
        self,
        latencies: Latencies,
        call: Call[Any],
        server: Server,
        event: RequestEvent,
        deadline: Deadline,
        tried: list[Server],
    ) -> Generator[Effect, Any, tuple[Server, RequestEvent, float, Reply]]:
        """An attempt that another server may overtake: who answered, as which attempt, sent when, and what."""
        seconds: list[tuple[RequestEvent, float]] = []

        def second() -> Attempt | None:
            if not self._servers.others([server]) or not self._budget.spend():
                return None
            other = self._servers.acquire(call.origin.model, [server])
            if other is None:
                return None
            tried.append(other)
            seconds.append((self.announce(call, other, tried, event.headers), time.monotonic()))
            return Attempt(other, outgoing(call, deadline.remaining(), seconds[0][0].headers))

        def done(attempt: Attempt) -> None:
            if attempt is not first:
                self._servers.release(attempt.server)

        first = Attempt(server, outgoing(call, deadline.remaining(), event.headers))
        started = time.monotonic()
        beaten = seconds
        try:
            winner, reply = yield Race(first, latencies.after_s(call.origin.model), second, done)
            latencies.note(call.origin.model, time.monotonic() - started)
            if winner is first:
                return winner.server, event, started, reply
            beaten = [(event, started)]
            return winner.server, *seconds[0], reply
        finally:
            for loser, its_start in beaten:  # the caller may have given up; then the first is `_exchange`'s to tell
                self.told(loser, its_start, cancelled=True)

    def told(
        self,
        event: RequestEvent,
        started: float,
        error: TritonkitClientError | None = None,
        cancelled: bool = False,
    ) -> None:
        """Tell how an announced attempt ended."""
        if self._hooks.response:
            seconds = time.monotonic() - started
            Hooks.tell(self._hooks.response, ResponseEvent(event, seconds, error, cancelled))


def _repeated(error: TritonkitClientError, origin: Origin) -> TritonkitClientError:
    """An error that another call met, as this call's own."""
    copy = type(error)(error.message, error.fix, replace(origin, endpoint=error.endpoint))
    copy.attempts = error.attempts
    return copy


def _may_race(call: Call[Any]) -> bool:
    return call.operation == "infer" and call.idempotent and call.server is None


def outgoing(call: Call[Any], left: float | None, headers: Mapping[str, str]) -> Outgoing:
    """One attempt of a call, with so many seconds left."""
    body, own = call.encode(None if left is None else max(1, int(left * 1e6)))
    joined = {**headers, **own} if headers else own
    return Outgoing(call.target, call.method, body, joined, left, call.idempotent)
