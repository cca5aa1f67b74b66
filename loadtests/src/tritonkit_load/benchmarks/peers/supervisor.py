"""Runs one command, and ends it with everything it started as soon as the supervisor's standard input closes.

Servers start workers in sessions of their own, which no signal to a process group reaches. The supervisor adopts
whatever their parents leave behind, and its input closes however its own parent ended.

    python supervisor.py COMMAND...
"""

from __future__ import annotations

import ctypes
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

ADOPT = 36  # prctl(2), PR_SET_CHILD_SUBREAPER
LOOKS_S = 0.1
ENDS_S = 8.0  # for a server to end by itself: PyTriton's takes the longest
KILLED_S = 5.0


def main() -> int:
    """Run the command; its exit status."""
    ctypes.CDLL(None).prctl(ADOPT, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    try:
        while process.poll() is None and not select.select([sys.stdin], [], [], LOOKS_S)[0]:
            pass
    finally:
        _end(process)
    return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the command to end, and kill what is left of it, however deep."""
    import psutil  # not before: a server's time to be ready counts from the supervisor's start

    family = _family()
    for member in family:
        member.resume()  # who is stopped takes no other signal
    if process.poll() is None:
        process.terminate()
    _, left = psutil.wait_procs(family, timeout=ENDS_S)
    while left:
        for member in left:
            member.kill()
        psutil.wait_procs(left, timeout=KILLED_S)
        left = _family()
    process.wait()


def _family() -> list[psutil.Process]:
    import psutil

    descendants: list[psutil.Process] = psutil.Process().children(recursive=True)
    return [process for process in descendants if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


if __name__ == "__main__":
    sys.exit(main())
