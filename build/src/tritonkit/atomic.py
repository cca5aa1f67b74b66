"""Writes that happen whole or not at all: build beside, fsync, rename.

A process killed at any moment leaves what was there before or what was to come, never a part of it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tritonkit.errors import MissingError, OutputError

_AT_FDCWD = -100  # linux/fcntl.h
_RENAME_EXCHANGE = 2  # linux/fs.h; renameat2(2)
_STAGE = ".tritonkit-"


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write ``path`` into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise MissingError(
                f"no space left on the disk that holds {path}", "free some space, or choose another place"
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise OutputError(f"{path} cannot be written: {error.strerror}", "choose a writable place") from error
        if error.errno in {errno.ENOTDIR, errno.EEXIST}:
            raise OutputError(f"{path} is in the way: {error.strerror}", "name a directory") from error
        raise


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """An empty directory beside ``target``, on its filesystem; whatever is still in it at the end is removed.

    Leftovers of processes that were killed are removed first.
    """
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = stage_in(target.parent)
    try:
        with explained(target):
            yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def stage_in(directory: Path) -> Path:
    """A new empty folder there, which :func:`sweep` removes once this process is gone; those of others are now."""
    sweep(directory)
    return Path(tempfile.mkdtemp(prefix=f"{_STAGE}{os.getpid()}-", dir=directory))


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Hold the lock that goes with ``target``, for what cannot be built beside it: other processes wait their turn.

    Where a filesystem has no locks, nobody waits. The lock's file stays beside ``target``.
    """
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f"{target.name}.lock").open("w")
    with lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep(directory: Path, prefix: str = _STAGE) -> None:
    """Remove what processes that were killed left behind: folders and files called ``prefix`` and the process's id."""
    for leftover in directory.glob(f"{prefix}*"):
        owner = leftover.name.removeprefix(prefix).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def sync_tree(directory: Path) -> None:
    """Make every file and directory below ``directory`` durable."""
    for root, _, names in os.walk(directory):
        for name in names:
            if not (Path(root) / name).is_symlink():  # nothing of its own; beside its final place it may lead nowhere
                _fsync(Path(root) / name)
        _fsync(Path(root))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put(new: Path, target: Path) -> None:
    """Move the directory ``new`` to ``target`` in one step; what was at ``target`` is then at ``new``.

    Raises:
        OutputError: The filesystem cannot exchange two directories, or ``target`` is a mount point.
    """
    sync_tree(new)
    if not target.exists():
        new.rename(target)
    else:
        _exchange(new, target)
    _fsync(target.parent)


def put_files(target: Path, files: Mapping[str, str]) -> None:
    """Write text files into the folder ``target`` in one step, all of them or none; whatever else is in it stays."""
    with explained(target), staging(target) as stage:
        new = stage / target.name
        if target.is_dir():
            shutil.copytree(
                target, new, symlinks=True, ignore=lambda folder, _: set(files) if folder == str(target) else set()
            )
        else:
            new.mkdir()
        for name, text in files.items():
            (new / name).write_text(text, encoding="utf-8")
        put(new, target)


def _exchange(a: Path, b: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return
    number = ctypes.get_errno()
    if number in {errno.EINVAL, errno.ENOSYS, errno.EBUSY}:
        raise OutputError(
            f"{b} cannot be replaced in one step: it is a mount point, or its filesystem cannot exchange directories",
            "build into a directory on a local disk, and copy it from there",
        )
    raise OSError(number, os.strerror(number), str(b))


def write(path: Path, data: bytes) -> None:
    """Write one file whole or not at all; a link stays one, and the file that it points to is written."""
    path = Path(os.path.realpath(path))
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f"{_STAGE}{os.getpid()}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _fsync(path.parent)
