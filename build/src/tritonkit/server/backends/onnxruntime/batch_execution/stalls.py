"""Ends a process that Triton has given up because it did not run for a second, before it gives wrong answers.

Triton looks once a second whether the process behind a model still runs while it waits for its answer. One that did not
(a machine that was paused, or far too busy) is "not healthy": its callers get an error, but Triton goes on sending
requests to it. Its late answer then becomes that of the next request, and so on, until Triton itself reads freed memory
and ends (docs/decisions/0033). A process that is gone is worth more than one that answers with what others asked for.
"""

import os
import signal
import threading
import time

GIVEN_UP_S = 0.9  # Triton's second, less what its own clock may be late
LOOK_EVERY_S = 0.1
JUST_S = 0.5  # a request that comes so soon after a pause may have waited through it


class StallGuard:
    """Notices that this process did not run for a while; its thread needs the interpreter's lock ten times a second."""

    def __init__(self):
        self._last_s = self._began_s = time.monotonic()
        self._stalled_s = float("-inf")
        threading.Thread(target=self._look, daemon=True).start()

    def begin(self):
        """Requests have come; end where they may have waited while the process did not run."""
        self._began_s = time.monotonic()
        if self._began_s - self._last_s >= GIVEN_UP_S or self._began_s - self._stalled_s < JUST_S:
            _end()

    def finish(self):
        """The answers are there; end where Triton has stopped waiting for them."""
        now_s = time.monotonic()
        if now_s - self._began_s < GIVEN_UP_S:
            return
        if now_s - self._last_s >= GIVEN_UP_S or self._stalled_s >= self._began_s:
            _end()

    def _look(self):
        while True:
            time.sleep(LOOK_EVERY_S)
            now_s = time.monotonic()
            if now_s - self._last_s >= GIVEN_UP_S:
                self._stalled_s = now_s
            self._last_s = now_s


def _end():
    os.kill(os.getpid(), signal.SIGKILL)  # at once: what Triton's own code would do at its end, it does in that memory
