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
    """Notices that this process did not run for a while.

    A thread looks ten times a second. That it did not get to run says nothing by itself, as Python code that holds the
    interpreter's lock keeps it waiting, too, and Triton's own thread not. So what the process computed in that time
    counts as time that it ran.
    """

    def __init__(self):
        self._began_s = time.monotonic()
        self._last = (self._began_s, time.process_time())
        self._stalled_s = float("-inf")
        threading.Thread(target=self._look, daemon=True).start()

    def begin(self):
        """Requests have come; end where they may have waited while the process did not run."""
        self._began_s = time.monotonic()
        if self._stalled() or self._began_s - self._stalled_s < JUST_S:
            _end()

    def finish(self):
        """The answers are there; end where Triton has stopped waiting for them."""
        if time.monotonic() - self._began_s < GIVEN_UP_S:
            return
        if self._stalled() or self._stalled_s >= self._began_s:
            _end()

    def _stalled(self):
        """Whether the process did not run for too long since the last look."""
        last_s, computed_s = self._last
        return time.monotonic() - last_s - (time.process_time() - computed_s) >= GIVEN_UP_S

    def _look(self):
        while True:
            time.sleep(LOOK_EVERY_S)
            if self._stalled():
                self._stalled_s = time.monotonic()
            self._last = (time.monotonic(), time.process_time())


def _end():
    os.kill(os.getpid(), signal.SIGKILL)  # at once: what Triton's own code would do at its end, it does in that memory
