"""Lets every Python process of an environment end when the process that started it does, however that ends.

It is copied into vLLM's environment as ``tritonkit_end_with_parent`` and imported at each start of Python there, and
does nothing unless ``TRITONKIT_PARENT`` names the process that started this one: whoever uses it by hand is not
touched. The kernel sends the signal when the *thread* that started a process ends (prctl(2)).
"""

import ctypes
import os
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, linux/prctl.h
_PARENT = "TRITONKIT_PARENT"
# It removes shared memory once those that used it have ended, and then ends by itself.
_OUTLIVES = "multiprocessing.resource_tracker"


def end_with_parent() -> None:
    """Ask the kernel to kill this process with its parent; end at once if that has ended already."""
    parent = int(os.environ[_PARENT])
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent and not _runs(parent):
        os._exit(1)
    os.environ[_PARENT] = str(os.getpid())  # of those that this process starts


def _runs(process: int) -> bool:
    """Whether a process is there: a shell may stand between it and this one."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if os.environ.get(_PARENT, "").isdigit() and not any(_OUTLIVES in word for word in sys.orig_argv):
    end_with_parent()
    os.register_at_fork(after_in_child=end_with_parent)  # a fork forgets what it asked for
