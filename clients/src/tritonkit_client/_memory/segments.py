"""Pieces of memory that tensors are put into: allocates, reuses and removes them, also those of processes that died.

Segments of system memory, files in ``/dev/shm``, are here; those of a GPU are in `cuda`.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Protocol

from .._protocol.calls import Region, Tensor

FOLDER = Path("/dev/shm")
_PREFIX = "tritonkit-client"
# A segment that a server may still read or write, as its response never came, is not used for so long.
_QUARANTINE_S = 60.0
# The smallest segment. CUDA shares memory in blocks of 2 MiB: a smaller one would show a server its neighbours ("CUDA
# Programming Guide", Interprocess Communication). Of a file only what was written takes memory.
_SMALLEST = 2 << 20


class Segment(Protocol):
    """One piece of memory.

    Attributes:
        name: The region's on the servers.
        size: In bytes.
        region: What a server needs to open it.
    """

    name: str
    size: int
    region: Region

    def write(self, tensor: Tensor) -> None:
        """Copy a tensor in: the only copy on its way to the server."""

    def read(self, size: int, done: Callable[[], None]) -> memoryview:
        """The first bytes; calls ``done`` once nobody uses the segment for them any more."""

    def remove(self, used: bool) -> None:
        """Free the memory; ``used``: a server may still use it."""


class FileSegment:
    """A `Segment` that is a file, mapped; its name is the file's too.

    Raises:
        MemoryError: There is no room for it: a container's ``/dev/shm`` may have 64 MB.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.region = Region(name, size, key=f"/{name}")
        descriptor = os.open(FOLDER / name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            # Reserved now: a page that is missing when it is written to would end the process (SIGBUS).
            os.posix_fallocate(descriptor, 0, size)
            self._map = mmap.mmap(descriptor, size)
        except OSError as error:
            (FOLDER / name).unlink(missing_ok=True)
            raise MemoryError(f"{FOLDER} has no room for {size} bytes: {error}") from error
        finally:
            os.close(descriptor)

    def write(self, tensor: Tensor) -> None:
        """See `Segment.write`."""
        memoryview(self._map)[: len(tensor.data)] = memoryview(tensor.data).cast("B")

    def read(self, size: int, done: Callable[[], None]) -> memoryview:
        """See `Segment.read`; here it is the memory itself."""
        # One object that every array on it keeps alive.
        holder = (ctypes.c_char * self.size).from_buffer(self._map)
        weakref.finalize(holder, done).atexit = False
        return memoryview(holder).cast("B")[:size]

    def remove(self, used: bool) -> None:  # noqa: ARG002 -- a file can go at any time
        """Remove the file; what is mapped stays until nobody uses it."""
        (FOLDER / self.name).unlink(missing_ok=True)


class Segments:
    """The segments of one client, reused by size. Thread-safe.

    Args:
        capacity: Bytes that they may take together.
        make: Makes a segment of a name and a size; raises MemoryError where there is no memory for it.
    """

    def __init__(self, capacity: int, make: Callable[[str, int], Segment] = FileSegment) -> None:
        self._capacity = capacity
        self._make = make
        # Reentrant: arrays that Python collects while the lock is held give their segments back.
        self._lock = threading.RLock()
        self._free: dict[int, list[Segment]] = {}
        self._all: dict[str, Segment] = {}
        self._taken = 0
        self._waiting: list[tuple[float, Segment]] = []
        self._pid = os.getpid()
        sweep()
        # Also at the end of the interpreter, where nobody closed the client.
        self._end = weakref.finalize(self, _remove, self._pid, self._all)

    def take(self, size: int) -> Segment | None:
        """A segment of at least so many bytes; None where it would exceed the capacity, or the memory that is free."""
        # Powers of two, so that batches of slightly different size use the same segment.
        size = max(_SMALLEST, 1 << (size - 1).bit_length())
        with self._lock:
            self._release_waiting()
            free = self._free.get(size)
            if free:
                return free.pop()
            if self._taken + size > self._capacity:
                return None
            try:
                segment = self._make(f"{_PREFIX}-{_owner(self._pid)}-{secrets.token_hex(6)}", size)
            except MemoryError:
                return None
            self._taken += size
            self._all[segment.name] = segment
            return segment

    def give(self, segment: Segment) -> None:
        """Take back a segment that nobody reads or writes any more."""
        with self._lock:
            self._free.setdefault(segment.size, []).append(segment)

    def quarantine(self, segments: Iterable[Segment]) -> None:
        """Take back segments that a server may still use; they are reused later."""
        with self._lock:
            self._waiting += [(time.monotonic() + _QUARANTINE_S, segment) for segment in segments]

    def in_quarantine(self) -> set[str]:
        """The names of segments that a server may still use."""
        with self._lock:
            return {segment.name for _, segment in self._waiting}

    def lend(self, segment: Segment, size: int) -> memoryview:
        """The first bytes of a segment, which comes back by itself once nobody uses them any more."""
        return segment.read(size, partial(self.give, segment))

    def close(self, registered: Collection[str] = ()) -> None:
        """Remove every segment; arrays on them stay valid.

        Args:
            registered: The names of those that a server may still have registered.
        """
        if self._pid != os.getpid() or self._end.detach() is None:
            return
        with self._lock:
            idle = {segment.name for free in self._free.values() for segment in free}
            everything = list(self._all.values())
        for segment in everything:
            segment.remove(used=segment.name not in idle or segment.name in registered)

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
    """Whether a segment's process is certainly dead; of a process in another PID namespace nobody knows."""
    parts = name.removeprefix(f"{_PREFIX}-").split("-")
    if not name.startswith(f"{_PREFIX}-") or len(parts) != 4 or not parts[1].isdigit():
        return False
    return parts[0] == _namespace() and "-".join(parts[:3]) != _owner(int(parts[1]))


def _owner(pid: int) -> str:
    """A name of a process that no later process with the same number has."""
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


def _remove(pid: int, segments: dict[str, Segment]) -> None:
    if pid == os.getpid():  # not in a fork, which inherits this
        for segment in segments.values():
            segment.remove(used=True)
