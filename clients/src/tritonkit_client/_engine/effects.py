"""What the engine makes of an operation: effects, which a client performs, and the time that is left for them.

An effect is an attempt, a race of two of them, a pause, ... A client of another kind (asynchronous, say) performs the
same ones; it never looks inside a call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from .._protocol.calls import Request, Response
from .._protocol.errors import DEADLINE_EXCEEDED
from .servers import Server

T = TypeVar("T")


# Slots and not frozen, as what `_protocol.calls` has of each request.
@dataclass(slots=True)
class Attempt:
    """An effect: send a request to a server; the client answers with a `Response`."""

    server: Server
    request: Request


@dataclass(frozen=True)
class Race:
    """An effect: make an attempt, without a response after ``after_s`` also one at another server, and take the first
    good response.

    The client calls ``second`` for the second attempt (None: there is no other server), calls ``done`` with each
    attempt once nothing waits for it any more, and answers with the winner's `Attempt` and `Response`.
    """

    first: Attempt
    after_s: float
    second: Callable[[], Attempt | None]
    done: Callable[[Attempt], None]


@dataclass(frozen=True)
class Pause:
    """An effect: let so many seconds pass."""

    seconds: float


@dataclass(frozen=True)
class Resolve:
    """An effect: look up all addresses of a name; the client answers with them, or with None where it failed."""

    host: str
    port: int
    timeout: float | None


@dataclass(frozen=True)
class Wait:
    """An effect: wait until a future is done, for so many seconds at most (None: for ever)."""

    future: Future[Any]
    timeout: float | None


Effect = Attempt | Race | Pause | Resolve | Wait
# What the engine makes of an operation, for a client to perform.
Effects = Generator[Effect, Any, T]


class Deadline:
    """How long one operation may still take, over all of its calls."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._end = time.monotonic() + limit_s

    def remaining(self) -> float | None:
        """Seconds left, at least 0; None where there is no limit."""
        return None if math.isinf(self._end) else max(0.0, self._end - time.monotonic())

    def response(self) -> Response:
        """The response of a call whose time is up."""
        return Response(DEADLINE_EXCEEDED, message=f"timeout={self._limit_s:g} s")

    def explain(self, response: Response) -> Response:
        """A response, with this deadline's message where its time ran out."""
        return self.response() if response.status == DEADLINE_EXCEEDED else response
