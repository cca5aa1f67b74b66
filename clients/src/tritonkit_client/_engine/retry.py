"""When a failed call is sent again, after how long a wait, and how many retries an outage may cause. No I/O."""

from __future__ import annotations

import datetime
import email.utils
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from .._protocol.errors import ConnectionFailed, InvalidInput, ModelNotReady, ServerBusy, TritonkitClientError

# A call may be sent again after these errors: nothing ran, or an inference ran, which has no other effects.
# A model that is not ready on a server may be ready on another.
RETRYABLE = (ConnectionFailed, ServerBusy)
ELSEWHERE = (ConnectionFailed, ModelNotReady)
_UTC = datetime.timezone.utc  # noqa: UP017 -- its short name came with Python 3.11


@dataclass(frozen=True)
class Retry:
    """How often and when a failed call is sent again.

    Only inferences outside of sequences and calls that only read are sent again, only after `ConnectionFailed`
    and `ServerBusy` (and after `ModelNotReady` to another server), never past the deadline, and never when
    the budget is spent.

    Attributes:
        attempts: How often a call is sent at most, the first time included.
        base_s: The first wait is a random part of so many seconds, and each further wait of twice as many as the
            one before ("full jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
        cap_s: The limit of these seconds.
        budget: How many retries there may be beyond ``ratio``; successes restore it.
        ratio: Retries for each successful call, in the long run.

    Raises:
        InvalidInput: A number is out of range.
    """

    attempts: int = 3
    base_s: float = 0.05
    cap_s: float = 1.0
    budget: float = 100.0
    ratio: float = 0.1

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.base_s, self.cap_s, self.budget, self.ratio) < 0:
            raise InvalidInput(f"{self} has a number out of range", "at least one attempt, nothing below zero")

    def wait_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Seconds to wait after attempt number ``attempt`` failed; ``retry_after_s`` is what the server asks for."""
        jittered = random.uniform(0, min(self.cap_s, self.base_s * 2 ** (attempt - 1)))
        return jittered if retry_after_s is None else retry_after_s + jittered


class Budget:
    """Keeps retries from multiplying the load of an outage: each costs 1, and each success restores a part of it.

    Thread-safe.
    """

    def __init__(self, retry: Retry) -> None:
        self._full = self._left = retry.budget
        self._ratio = retry.ratio
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Note a success."""
        if self._left < self._full:  # without the lock: a stale value costs a tenth of a retry at most
            with self._lock:
                self._left = min(self._full, self._left + self._ratio)

    def spend(self) -> bool:
        """Take a retry from the budget; False where none is left."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True


def pushback_s(headers: Mapping[str, str], now: datetime.datetime | None = None) -> float | None:
    """How long the server asks the client to wait, in seconds.

    Reads ``grpc-retry-pushback-ms`` (gRPC A6: a negative or unreadable number means "never") and
    ``Retry-After`` (RFC 9110: seconds or a date).

    Returns:
        Seconds, ``inf`` for "never", None where the server does not ask.
    """
    milliseconds = headers.get("grpc-retry-pushback-ms")
    if milliseconds is not None:
        plain = milliseconds.isascii() and milliseconds.isdigit()
        return float(milliseconds) / 1000 if plain else float("inf")
    after = headers.get("Retry-After") or headers.get("retry-after")
    if after is None:
        return None
    if after.isascii() and after.isdigit():
        return float(after)
    try:
        date = email.utils.parsedate_to_datetime(after)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=_UTC)
    return max(0.0, (date - (now or datetime.datetime.now(_UTC))).total_seconds())


def is_retryable(error: TritonkitClientError, elsewhere: bool) -> bool:
    """Whether a call may be sent again after this error; ``elsewhere``: to a server that has not been tried yet."""
    return isinstance(error, RETRYABLE) or (elsewhere and isinstance(error, ELSEWHERE))
