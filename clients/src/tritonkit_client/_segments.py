"""Files in ``/dev/shm`` that tensors are put into: made, reused, and removed, also those of processes that died."""

from __future__ import annotations

import ctypes
import mmap
import os
import secrets
import threading
import time
import weakref
from collections.abc import Iterable
from pathlib import Path

from ._tensors import Buffer

FOLDER = Path("/dev/shm")
_PREFIX = "tritonkit-client"
# What a server may still read or write, as its answer never came, is left alone for so long.
_QUARANTINE_S = 60.0


class Segment:
    """One file, mapped.

    Attributes:
        name: Its file's name, and the region's on the servers.
        size: In bytes.
    """

    def __init__(self, size: int) -> None:
        self.name = f"{_PREFIX}-{_owner(os.getpid())}-{secrets.token_hex(6)}"
        self.size = size
        descriptor = os.open(FOLDER / self.name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.ftruncate(descriptor, size)
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)

    def write(self, data: Buffer) -> None:
        """Copy bytes in: the only copy that a tensor makes on its way to the server."""
        memoryview(self._map)[: len(data)] = memoryview(data).cast("B")

    def hold(self) -> ctypes.Array[ctypes.c_char]:
        """The memory, as one object that every array on it keeps alive."""
        return (ctypes.c_char * self.size).from_buffer(self._map)

    def remove(self) -> None:
        """Remove the file; what is mapped stays until nobody uses it."""
        (FOLDER / self.name).unlink(missing_ok=True)


class Segments:
    """The segments of one client, reused by size. Thread-safe.

    Args:
        capacity: Bytes that they may take together.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._free: dict[int, list[Segment]] = {}
        self._names: set[str] = set()
        self._taken = 0
        self._waiting: list[tuple[float, Segment]] = []
        sweep()
        # Also at the end of the interpreter, where nobody closed the client.
        self._end = weakref.finalize(self, _remove, os.getpid(), self._names)

    def take(self, size: int) -> Segment | None:
        """A segment of at least so many bytes; None where that would be more than the capacity."""
        # Powers of two, so that batches of slightly different size use the same one.
        size = 1 << max(20, (size - 1).bit_length())
        with self._lock:
            self._release_waiting()
            free = self._free.get(size)
            if free:
                return free.pop()
            if self._taken + size > self._capacity:
                return None
            segment = Segment(size)
            self._taken += size
            self._names.add(segment.name)
            return segment

    def give(self, segment: Segment) -> None:
        """Take a segment back that nobody reads or writes any more."""
        with self._lock:
            self._free.setdefault(segment.size, []).append(segment)

    def quarantine(self, segments: Iterable[Segment]) -> None:
        """Take segments back that a server may still use."""
        with self._lock:
            self._waiting += [(time.monotonic() + _QUARANTINE_S, segment) for segment in segments]

    def in_quarantine(self) -> set[str]:
        """The names of segments that a server may still use."""
        with self._lock:
            return {segment.name for _, segment in self._waiting}

    def lend(self, segment: Segment) -> memoryview:
        """The memory of a segment, which comes back by itself when no array uses it any more."""
        holder = segment.hold()
        weakref.finalize(holder, self.give, segment).atexit = False
        return memoryview(holder).cast("B")

    def close(self) -> None:
        """Remove every file; arrays on them stay valid."""
        self._end()

    def _release_waiting(self) -> None:
        now = time.monotonic()
        over = [segment for until, segment in self._waiting if until <= now]
        self._waiting = [(until, segment) for until, segment in self._waiting if until > now]
        for segment in over:
            self._free.setdefault(segment.size, []).append(segment)


def sweep() -> None:
    """Remove the files of processes that died."""
    for path in FOLDER.glob(f"{_PREFIX}-*"):
        if is_orphan(path.name):
            path.unlink(missing_ok=True)


def is_orphan(name: str) -> bool:
    """Whether a segment's process is certainly dead: one of another PID namespace is never."""
    parts = name.removeprefix(f"{_PREFIX}-").split("-")
    if not name.startswith(f"{_PREFIX}-") or len(parts) != 4 or not parts[1].isdigit():
        return False
    return parts[0] == _namespace() and "-".join(parts[:3]) != _owner(int(parts[1]))


def _owner(pid: int) -> str:
    """What names a process: also told apart from a later one with the same number."""
    try:
        # proc(5): the 22nd field is the start time; the second may hold spaces and brackets.
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        started = "gone"
    return f"{_namespace()}-{pid}-{started}"


def _namespace() -> str:
    try:
        return "".join(filter(str.isdigit, str(Path("/proc/self/ns/pid").readlink())))
    except OSError:
        return "0"


def _remove(pid: int, names: set[str]) -> None:
    if pid == os.getpid():  # not in a fork, which inherits this
        for name in names:
            (FOLDER / name).unlink(missing_ok=True)
