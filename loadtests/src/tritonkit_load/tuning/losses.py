"""Repeats a measurement in which the server ended.

Triton 24.10 itself ends now and then while models are loaded and unloaded under load (docs/guides/loadtests.md), which
says nothing of the configuration that was being measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tritonkit.errors import CheckFailed

T = TypeVar("T")
FIX = "run the same command again, which tries them again; `tritonkit serve --log FILE` shows the server's own words"


class ServerLost(CheckFailed):
    """The server, or a process of its model, ended in a measurement; another server runs by now."""

    def __init__(self, message: str) -> None:
        super().__init__(message, FIX)


def twice(measure: Callable[[], T]) -> T:
    """Measure; once more from the beginning where the server was lost.

    Raises:
        ServerLost: It was lost both times.
    """
    try:
        return measure()
    except ServerLost:
        return measure()


def note(lost: list[str]) -> tuple[str, ...]:
    """A sentence for the console and the page on the servers that were lost; none where there were none."""
    if not lost:
        return ()
    times = "once" if len(lost) == 1 else f"{len(lost)} times"
    return (
        f"The server was lost {times} and started again ({'; '.join(dict.fromkeys(lost))}): what was being measured "
        "was measured again from its beginning; a configuration fails only where the server is lost with it twice.",
    )
