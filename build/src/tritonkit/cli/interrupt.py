"""Ends the process at once on Ctrl-C, where all that is under way may stay as it is."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Ctrl-C does not wait for large files under way: what publishing leaves is whole at every moment."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        Console(stderr=True).show_cursor()
        sys.stderr.write("\nstopped; the same command goes on where it was\n")
        sys.stderr.flush()
        os._exit(130)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
