"""Lets one thread give up what another one waits for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class Interrupt:
    """Ends whatever a thread waits for, from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop: Callable[[], object] | None = None
        self._set = False

    def set(self) -> None:
        """End it: what blocks fails at once, and so does what would follow."""
        with self._lock:
            self._set = True
            if self._stop is not None:
                with contextlib.suppress(OSError):
                    self._stop()

    def watch(self, stop: Callable[[], object]) -> None:
        """Say how to end what this thread waits for now.

        Raises:
            ConnectionAbortedError: The end has come already.
        """
        with self._lock:
            if self._set:
                raise ConnectionAbortedError("given up")
            self._stop = stop

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """Inside, it is this thread that can be interrupted."""
        _current.interrupt = self
        try:
            yield
        finally:
            _current.interrupt = None
            with self._lock:
                # A connection goes back to its pool: it must not be ended any more.
                self._stop = None


class _Current(threading.local):
    interrupt: Interrupt | None = None


_current = _Current()


def interruptible() -> Interrupt | None:
    """What may interrupt this thread, if anything."""
    return _current.interrupt
