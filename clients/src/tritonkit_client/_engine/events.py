"""The events of a client and their listeners: a request is sent, an attempt ended, a call will be sent again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict, cast

from .._protocol.errors import InvalidInput, TritonkitClientError

logger = logging.getLogger("tritonkit_client")


@dataclass(frozen=True)
class RequestEvent:
    """A request is about to be sent.

    Attributes:
        endpoint: The server.
        operation: ``infer``, ``metadata``, ``ready``, ...
        model, request_id: Empty where they do not apply.
        attempt: 1 for the first.
        headers: What a listener puts here is sent along, as HTTP headers or gRPC metadata: ``traceparent``, say.
    """

    endpoint: str
    operation: str
    model: str
    request_id: str
    attempt: int
    headers: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class ResponseEvent:
    """An attempt ended: with a response, with an error, or because the caller gave it up (neither).

    Attributes:
        request: The event that announced the attempt; the same object.
        seconds: How long the attempt took.
        error: Why the attempt failed; None where it did not.
        cancelled: Nobody waits for the response any more.
    """

    request: RequestEvent
    seconds: float
    error: TritonkitClientError | None = None
    cancelled: bool = False


@dataclass(frozen=True)
class RetryEvent:
    """A call that failed will be sent again.

    Attributes:
        request: The event that announced the failed attempt.
        error: Why it failed.
        wait_s: Seconds until the next attempt.
    """

    request: RequestEvent
    error: TritonkitClientError
    wait_s: float


Listener = Callable[[Any], object]


class HookSet(TypedDict, total=False):
    """Listeners by the kind of event; there are no other kinds."""

    request: Iterable[Callable[[RequestEvent], object]]
    response: Iterable[Callable[[ResponseEvent], object]]
    retry: Iterable[Callable[[RetryEvent], object]]


# A type checker does not take a dictionary in a variable for a `HookSet`, and one with listeners of several events only
# for this mapping.
Hooked = HookSet | Mapping[str, Iterable[Listener]]
EventHooks = Hooked | Iterable[Hooked]
_KINDS = ("request", "response", "retry")


class Hooks:
    """The listeners of one client. A listener that raises is logged and disturbs neither the call nor the others.

    Raises:
        InvalidInput: A kind of event is unknown.
    """

    def __init__(self, hooks: EventHooks | None = None) -> None:
        sets = [cast("Mapping[str, Iterable[Listener]]", hook_set)
                for hook_set in ([hooks] if isinstance(hooks, Mapping) else hooks or ())]  # fmt: skip
        for kind in (kind for hook_set in sets for kind in hook_set):
            if kind not in _KINDS:
                raise InvalidInput(f"there is no event {kind!r}", f"the events are {', '.join(_KINDS)}")
        self.request, self.response, self.retry = (
            tuple(listener for hook_set in sets for listener in hook_set.get(kind, ())) for kind in _KINDS
        )

    @property
    def any(self) -> bool:
        """Whether anybody listens."""
        return bool(self.request or self.response or self.retry)

    @staticmethod
    def tell(listeners: tuple[Listener, ...], event: object) -> None:
        """Call every listener."""
        for listener in listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("a listener of %s failed", type(event).__name__)
