"""Says how far a transfer is, every two seconds at most, from as many threads as there are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_PAUSE_S = 2.0


class Meter:
    """Counts bytes and files.

    Args:
        say: Shows a text, as :func:`tritonkit.progress.task` yields it.
        verb: What is being done, for example ``upload``.
        files: How many there are.
        size: Of all of them, in bytes.
    """

    def __init__(self, say: Callable[[str], None], verb: str, files: int, size: int) -> None:
        self._say, self._verb, self._files, self._size = say, verb, files, size
        self._done_files = self._done_size = 0
        self._lock = threading.Lock()
        self._next = 0.0

    def add(self, size: int = 0, files: int = 0) -> None:
        """Count, and say so if it is time."""
        with self._lock:
            self._done_size += size
            self._done_files += files
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + _PAUSE_S
            text = f"{self._verb}, {self._done_files} of {self._files} files"
            text += f", {human(self._done_size)} of {human(self._size)}"
        self._say(text)


def human(size: float) -> str:
    """Bytes in the unit that suits, powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
