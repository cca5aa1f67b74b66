"""Lets a thread end the wait of another thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class Interrupt:
    """Ends whatever a thread waits for, from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop: Callable[[], object] | None = None
        self._set = False

    def set(self) -> None:
        """End the wait: the blocking call fails at once, and so does every later one."""
        with self._lock:
            self._set = True
            if self._stop is not None:
                with contextlib.suppress(OSError):
                    self._stop()

    def watch(self, stop: Callable[[], object]) -> None:
        """Set the function that ends the present wait of this thread.

        Raises:
            ConnectionAbortedError: The interrupt was set before.
        """
        with self._lock:
            if self._set:
                raise ConnectionAbortedError("given up")
            self._stop = stop

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """Inside this context, the interrupt is this thread's."""
        _current.interrupt = self
        try:
            yield
        finally:
            _current.interrupt = None
            with self._lock:
                # A connection goes back to its pool: it must not be ended any more.
                self._stop = None


class IdleWatch:
    """Ends a thread's wait for the next part of a stream once it takes too long; a context manager.

    Args:
        limit_s: How long it may wait each time.
        stop: Ends it.

    Attributes:
        expired: Whether it was ended.
    """

    def __init__(self, limit_s: float, stop: Callable[[], object]) -> None:
        self.expired = False
        self._limit_s = limit_s
        self._stop = stop
        self._until: float | None = None
        self._over = threading.Event()

    def __enter__(self) -> IdleWatch:
        threading.Thread(target=self._run, name="tritonkit-client-idle", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside this context, the time that the thread waits is limited."""
        self._until = time.monotonic() + self._limit_s
        try:
            yield
        finally:
            self._until = None

    def _run(self) -> None:
        # A wait that begins while this sleeps ends no earlier than this sleep does: it needs no waking.
        pause = self._limit_s
        while not self._over.wait(pause):
            until = self._until
            pause = self._limit_s if until is None else until - time.monotonic()
            if pause <= 0:
                self.expired = True
                self._stop()
                return


class _Current(threading.local):
    interrupt: Interrupt | None = None


_current = _Current()


def interruptible() -> Interrupt | None:
    """The interrupt of this thread; None where it has none."""
    return _current.interrupt
