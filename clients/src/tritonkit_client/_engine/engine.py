"""Drives an operation: which server, which attempt, when again, until when. Yields effects and performs none."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from .._protocol.calls import Call, Operation, Request, Response, SharedOperation, Wire
from .._protocol.errors import (
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
from .._transport.endpoint import Endpoints, addressed
from .effects import Attempt, Deadline, Effect, Effects, Pause, Race, Resolve, Wait
from .events import Hooks, RequestEvent, ResponseEvent, RetryEvent
from .hedging import Hedge, Latencies
from .retry import Budget, Retry, is_retryable, pushback_s
from .servers import Server, Servers

T = TypeVar("T")

# How long the check of a server may take.
_CHECK_TIMEOUT_S = 1.0
# How often a name is looked up again: pods come and go in seconds, resolvers cache for about as long.
_RESOLVE_S = 10.0


# Stands for every event that nobody listens to.
_NO_EVENT = RequestEvent("", "", "", "", 0)


@dataclass(frozen=True)
class _Outcome:
    """How a shared operation ended."""

    value: Any = None
    error: TritonkitClientError | None = None


class Engine:
    """Everything that happens between an operation and the network, without the network.

    Args:
        wire: The protocol.
        endpoints: The addresses that the client was given.
        servers: Where attempts go.
        retry: When a call gets another attempt.
        hooks: The listeners for events.
        hedge: When a second server gets an attempt as well; None for never.
        refreshes: Credentials are made anew for each attempt: a call whose credentials are refused gets one more.
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

    def operate(self, operation: Operation[T], deadline: Deadline, headers: Mapping[str, str]) -> Effects[T]:
        """The effects of a whole operation."""
        if not self.resolved:
            yield from self._resolve(deadline.remaining())
        return (yield from self._drive(operation, deadline, headers))

    def _drive(self, operation: Operation[T], deadline: Deadline, headers: Mapping[str, str]) -> Effects[T]:
        try:
            step = next(operation)
            while True:
                try:
                    if isinstance(step, SharedOperation):
                        result = yield from self._share(step, deadline, headers)
                    else:
                        result = yield from self._exchange(step, deadline, headers)
                except TritonkitClientError as error:
                    step = operation.throw(error)
                else:
                    step = operation.send(result)
        except StopIteration as done:
            value: T = done.value
            return value
        finally:
            operation.close()

    def _share(self, shared: SharedOperation, deadline: Deadline, headers: Mapping[str, str]) -> Effects[Any]:
        """Run a shared operation, or wait for the caller that runs it.

        A server may answer other headers otherwise: callers with other headers are not waited for. When the running
        caller gives up, or has no time left, the next one runs it. After an error that another attempt may cure, each
        caller tries alone, with the time that it has left.
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
                raise error_for(DEADLINE_EXCEEDED, deadline.response().message, shared.origin)
            outcome = future.result()
            if outcome is None or isinstance(outcome.error, DeadlineExceeded):
                continue
            if outcome.error is None:
                return outcome.value
            if is_retryable(outcome.error, elsewhere=True):
                return (yield from self._drive(shared.start(), deadline, headers))
            raise _repeated(outcome.error, shared.origin) from outcome.error

    def _lead(
        self, key: Hashable, future: Future[_Outcome | None], shared: SharedOperation, deadline: Deadline,
        headers: Mapping[str, str],
    ) -> Effects[Any]:  # fmt: skip
        outcome = None  # stays None where the caller gives up
        try:
            value = yield from self._drive(shared.start(), deadline, headers)
            outcome = _Outcome(value)
            return value
        except TritonkitClientError as error:
            outcome = _Outcome(error=error)
            raise
        finally:
            with self._sharing:
                del self._shared[key]
            future.set_result(outcome)

    def watch(self) -> Effects[None]:
        """The effects of checking the servers, without end; only for a client that can have more than one.

        The client answers an effect that it could not perform with None.
        """
        resolve_at = time.monotonic() + _RESOLVE_S
        while True:
            for server in self._servers.due():
                call = self._wire.ready(Origin(server.name))
                response = yield Attempt(server, build_request(call, _CHECK_TIMEOUT_S, {}))
                self._note_check(server, call, response)
            if self._endpoints.resolve and resolve_at <= time.monotonic():
                yield from self._resolve(_CHECK_TIMEOUT_S)
                resolve_at = time.monotonic() + _RESOLVE_S
            pause = self._servers.pause_s()
            yield Pause(min(pause, max(0.0, resolve_at - time.monotonic())) if self._endpoints.resolve else pause)

    def _note_check(self, server: Server, call: Call[bool], response: Response | None) -> None:
        if response is None:  # nothing was sent: the server's state stays
            self._servers.note_check(server, not server.out, server.silent)
            return
        try:
            self._servers.note_check(server, bool(call.read(response)), silent=False)
        except (NotSupported, Unauthenticated):  # it runs, but does not tell everybody whether it is ready
            self._servers.note_check(server, ready=True)
        except TritonkitClientError as error:
            self._servers.note_check(
                server, ready=False, silent=isinstance(error, (ConnectionFailed, DeadlineExceeded))
            )

    def _resolve(self, timeout: float | None) -> Generator[Resolve, list[str] | None, None]:
        (named,) = self._endpoints.all
        addresses = yield Resolve(named.host, named.port, timeout)
        if addresses:  # a resolver that fails is no reason to forget the servers
            self._servers.replace(tuple(addressed(named, address) for address in addresses))
            self.resolved = True

    def acquire(self, call: Call[Any], tried: list[Server]) -> Server:
        """Choose the server for the next attempt of a call, and add it to ``tried``; `release` it afterwards.

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
        """Tell listeners that an attempt is about to be sent; the attempt sends the event's headers."""
        if not self._hooks.any:
            return _NO_EVENT if not headers else replace(_NO_EVENT, headers=dict(headers))
        origin = call.origin
        event = RequestEvent(server.name, call.operation, origin.model, origin.request_id, len(tried), dict(headers))
        Hooks.tell(self._hooks.request, event)
        return event

    def note_success(self, server: Server) -> None:
        """Note a success."""
        self._servers.note_success(server)
        self._budget.earn()

    def note_failure(
        self,
        call: Call[Any],
        error: TritonkitClientError,
        response: Response,
        server: Server,
        tried: list[Server],
        deadline: Deadline,
        final: bool = False,
    ) -> float | None:
        """Note a failure; seconds until the next attempt, None where there is none."""
        error.attempts = len(tried)
        error.endpoint = server.name
        self._servers.note_failure(server, call.origin.model, error)
        if self._refreshes and isinstance(error, Unauthenticated) and len(tried) == 1 and not final:
            return 0.0
        elsewhere = call.server is None and self._servers.others(tried)
        if final or not call.idempotent or len(tried) >= self._retry.attempts or not is_retryable(error, elsewhere):
            return None
        pushback = pushback_s(response.headers)
        wait = 0.0 if elsewhere and pushback is None else self._retry.wait_s(len(tried), pushback)
        left = deadline.remaining()
        if math.isinf(wait) or (left is not None and wait >= left):
            return None
        return wait if self._budget.spend() else None

    def _exchange(self, call: Call[T], deadline: Deadline, headers: Mapping[str, str]) -> Effects[T]:
        """Send a call, again where that is safe and useful, and read its response."""
        tried: list[Server] = []
        while True:
            started = time.monotonic()
            server = self.acquire(call, tried)
            event = self.announce(call, server, tried, headers)
            response: Response | None = None
            responder = server
            try:
                left = deadline.remaining()
                if left == 0:
                    response = deadline.response()
                elif self._latencies is not None and _may_race(call):
                    race = self._race(self._latencies, call, server, event, deadline, tried)
                    responder, event, started, response = yield from race
                else:
                    response = yield Attempt(server, build_request(call, left, event.headers))
            finally:
                self._servers.release(server)
                if response is None:  # the caller gave up
                    self.announce_end(event, started, cancelled=True)
            try:
                result = call.read(deadline.explain(response))
            except TritonkitClientError as error:
                wait = self.note_failure(call, error, response, responder, tried, deadline)
                self.announce_end(event, started, error)
                if wait is None:
                    raise
                Hooks.tell(self._hooks.retry, RetryEvent(event, error, wait))
            else:
                self.note_success(responder)
                if self._hooks.response:
                    self.announce_end(event, started)
                return result
            if wait:
                yield Pause(wait)

    def _race(
        self,
        latencies: Latencies,
        call: Call[Any],
        server: Server,
        event: RequestEvent,
        deadline: Deadline,
        tried: list[Server],
    ) -> Generator[Effect, Any, tuple[Server, RequestEvent, float, Response]]:
        """An attempt that one at another server may overtake: the winner's server, event, start and response."""
        seconds: list[tuple[RequestEvent, float]] = []

        def second() -> Attempt | None:
            if not self._servers.others([server]) or not self._budget.spend():
                return None
            other = self._servers.acquire(call.origin.model, [server])
            if other is None:
                return None
            tried.append(other)
            seconds.append((self.announce(call, other, tried, event.headers), time.monotonic()))
            return Attempt(other, build_request(call, deadline.remaining(), seconds[0][0].headers))

        def done(attempt: Attempt) -> None:
            if attempt is not first:
                self._servers.release(attempt.server)

        first = Attempt(server, build_request(call, deadline.remaining(), event.headers))
        started = time.monotonic()
        beaten = seconds
        try:
            winner, response = yield Race(first, latencies.after_s(call.origin.model), second, done)
            latencies.note(call.origin.model, time.monotonic() - started)
            if winner is first:
                return winner.server, event, started, response
            beaten = [(event, started)]
            return winner.server, *seconds[0], response
        finally:
            for loser, its_start in beaten:  # the caller may have given up; then the first is `_exchange`'s to tell
                self.announce_end(loser, its_start, cancelled=True)

    def announce_end(
        self,
        event: RequestEvent,
        started: float,
        error: TritonkitClientError | None = None,
        cancelled: bool = False,
    ) -> None:
        """Tell listeners how an announced attempt ended."""
        if self._hooks.response:
            seconds = time.monotonic() - started
            Hooks.tell(self._hooks.response, ResponseEvent(event, seconds, error, cancelled))


def _repeated(error: TritonkitClientError, origin: Origin) -> TritonkitClientError:
    """A copy of another call's error, with this call's origin."""
    copy = type(error)(error.message, error.fix, replace(origin, endpoint=error.endpoint))
    copy.attempts = error.attempts
    return copy


def _may_race(call: Call[Any]) -> bool:
    return call.operation == "infer" and call.idempotent and call.server is None


def build_request(call: Call[Any], left: float | None, headers: Mapping[str, str]) -> Request:
    """The request of one attempt of a call, with so many seconds left."""
    body, own = call.encode(None if left is None else max(1, int(left * 1e6)))
    joined = {**headers, **own} if headers else own
    return Request(call.target, call.method, body, joined, left, call.idempotent)
