"""Waits until a condition holds."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(holds: Callable[[], object], seconds: float = 5.0) -> float:
    """Wait until a condition holds, and return after how many seconds; fails where it does not in time."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds, f"it does not hold after {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - start
