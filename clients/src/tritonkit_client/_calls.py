"""The seam between what does no I/O and what does: a `Wire` makes `Call`s, a transport sends them.

A transport of another kind (asynchronous, many servers) sends the same calls; it never looks inside one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from ._errors import DEADLINE_EXCEEDED, Origin
from ._metadata import ModelLimits, ModelMetadata, ModelStatistics
from ._tensors import Array, Buffer

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        status: An HTTP status code or the name of a gRPC status; `NO_CONNECTION` or `DEADLINE_EXCEEDED` where
            no server said anything.
        body: The answer; empty where there is none.
        message: What is known about a failure outside the body.
        headers: HTTP's, found whatever their case; empty over gRPC.
    """

    status: int | str
    body: bytes = b""
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call(Generic[T_co]):
    """One request, ready to be sent, and how to read its reply.

    Attributes:
        target: An RPC's full name, or a path with the endpoint's own in front.
        read: Turns the reply into the result; raises a `TritonkitClientError` where the reply is a failure.
        body: The message in pieces, so that a tensor's own memory is one of them; empty where HTTP sends a
            GET.
        headers: HTTP's; empty over gRPC.
    """

    target: str
    read: Callable[[Reply], T_co]
    body: tuple[Buffer, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


# What an operation of the client is: it yields calls, is sent their results (or thrown their errors), and
# returns.
Flow = Generator[Call[Any], Any, T]


@dataclass(frozen=True)
class Tensor:
    """One input, encoded."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer


@dataclass(frozen=True)
class InferRequest:
    """One inference, checked and encoded; no ``outputs`` means all of them."""

    model: str
    version: str
    request_id: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]


class Wire(Protocol):
    """A protocol without its connection: every operation as a call."""

    def live(self, origin: Origin) -> Call[bool]:
        """Whether the server runs."""

    def ready(self, origin: Origin) -> Call[bool]:
        """Whether the server and its models are ready."""

    def model_ready(self, version: str, origin: Origin) -> Call[bool]:
        """Whether one model is ready; False too where there is no such model."""

    def metadata(self, version: str, origin: Origin) -> Call[ModelMetadata]:
        """A model's tensors, without what only its configuration says."""

    def limits(self, version: str, origin: Origin) -> Call[ModelLimits]:
        """What only a model's configuration says."""

    def statistics(self, version: str, origin: Origin) -> Call[tuple[ModelStatistics, ...]]:
        """The server's counters, one entry a version."""

    def infer(self, request: InferRequest, origin: Origin) -> Call[dict[str, Array]]:
        """One inference; the result is in the order of the server's answer."""


class Transport(Protocol):
    """A connection that sends calls."""

    def send(self, call: Call[Any], timeout: float | None) -> Reply:
        """Send one call and wait at most ``timeout`` seconds (None: for ever); failures are replies too."""

    def close(self) -> None:
        """Close the connection; a second time does nothing."""


class Deadline:
    """How long one operation may still take, over all of its calls."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._end = time.monotonic() + limit_s

    def remaining(self) -> float | None:
        """Seconds left, at least 0; None where there is no limit."""
        return None if math.isinf(self._end) else max(0.0, self._end - time.monotonic())

    def reply(self) -> Reply:
        """What a call gets whose time is up."""
        return Reply(DEADLINE_EXCEEDED, message=f"timeout={self._limit_s:g} s")
