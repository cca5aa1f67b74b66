"""The threads of a blocking client beside the caller's: they check servers, look names up and race two attempts."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from .._protocol.calls import Response
from .._transport.interrupt import Interrupt
from .._transport.sockets import addresses
from .effects import Attempt, Effect, Effects, Pause, Race, Resolve
from .events import logger

_GOOD = ("OK", 200)
Perform = Callable[[Effect], Any]


class Watch:
    """Drives `Engine.watch` in a thread, until it is told to stop.

    It refers to nothing of the client but its engine and its connections, so that a client that nobody refers to
    can be collected.
    """

    def __init__(self, effects: Effects[None], perform: Perform) -> None:
        self._effects = effects
        self._perform = perform
        self._wake = threading.Event()
        self._stopped = False
        threading.Thread(target=self._run, name="tritonkit-client-watch", daemon=True).start()

    def wake(self) -> None:
        """End the current pause: a server is due for a check."""
        self._wake.set()

    def stop(self) -> None:
        """End it."""
        self._stopped = True
        self._wake.set()

    def _run(self) -> None:
        effect = next(self._effects)
        while not self._stopped:
            result = None
            if isinstance(effect, Pause):
                self._wake.wait(effect.seconds)
                self._wake.clear()
            else:
                result = self._perform_logged(effect)
            if not self._stopped:
                effect = self._effects.send(result)
        self._effects.close()

    def _perform_logged(self, effect: Effect) -> Any:
        try:
            return self._perform(effect)
        except Exception as error:  # of the caller's function for credentials, say: the next time may go well
            logger.warning("a look at a server failed: %s", type(error).__name__)
            return None


def resolve(effect: Resolve) -> list[str] | None:
    """All addresses of a name; None where it fails, or has no result in time: the system's resolver has no timeout."""
    results: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            results.put(addresses(effect.host, effect.port))
        except (OSError, UnicodeError):
            results.put(None)

    threading.Thread(target=work, name="tritonkit-client-resolve", daemon=True).start()
    try:
        return results.get(timeout=effect.timeout)
    except queue.Empty:
        return None


def race(effect: Race, perform: Callable[[Attempt], Response]) -> tuple[Attempt, Response]:
    """Perform a `Race`: the loser is interrupted, and released once it has ended."""
    ended: queue.SimpleQueue[tuple[Attempt, Response | BaseException]] = queue.SimpleQueue()
    interrupts: dict[int, Interrupt] = {}

    def start(attempt: Attempt) -> None:
        interrupts[id(attempt)] = interrupt = Interrupt()

        def work() -> None:
            outcome: Response | BaseException
            try:
                with interrupt.here():
                    outcome = perform(attempt)
            except BaseException as error:
                outcome = error
            effect.done(attempt)
            ended.put((attempt, outcome))

        threading.Thread(target=work, name="tritonkit-client-race", daemon=True).start()

    def result(outcome: Response | BaseException) -> Response:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    start(effect.first)
    try:
        try:
            winner, outcome = ended.get(timeout=effect.after_s)
        except queue.Empty:
            second = effect.second()
            if second is not None:
                start(second)
            winner, outcome = ended.get()
            if second is not None and not (isinstance(outcome, Response) and outcome.status in _GOOD):
                winner, outcome = ended.get()
        return winner, result(outcome)
    finally:
        for interrupt in interrupts.values():
            interrupt.set()
