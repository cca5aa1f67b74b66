"""Lets several searches for a limit take turns, one run each, so that a noisy machine disturbs all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from greenlet import getcurrent, greenlet

from tritonkit.errors import TritonkitError
from tritonkit_load.tuning.limit import Ask

T = TypeVar("T")


class _Search(Generic[T]):
    """One search, which stops at every question until it is given the answer."""

    def __init__(self, search: Callable[[Ask], T], ask: Ask) -> None:
        outside = getcurrent()
        self._inside = greenlet(lambda: search(lambda rate: outside.switch(rate)))
        self._ask = ask
        self._answer: tuple[Any, ...] = ()

    def turn(self) -> T | TritonkitError | None:
        """One question and its answer; the result or error of the search when it is over, else None."""
        try:
            value = self._inside.switch(*self._answer)
            if self._inside.dead:
                result: T = value
                return result
            self._answer = (self._ask(value),)
        except TritonkitError as error:
            return error
        return None


def take(searches: Mapping[str, Callable[[Ask], T]], asks: Mapping[str, Ask]) -> dict[str, T | TritonkitError]:
    """Run all searches to their end, each asking one rate a turn.

    Args:
        searches: By name, what looks for a limit by asking.
        asks: By name, what answers.

    Returns:
        By name, what each found, or the error that ended it.
    """
    running = {name: _Search(search, asks[name]) for name, search in searches.items()}
    outcomes: dict[str, T | TritonkitError] = {}
    while running:
        for name, search in list(running.items()):
            if (result := search.turn()) is not None:
                outcomes[name] = result
                del running[name]
    return outcomes
