"""Notes which environment variables a user's code reads while it runs, as its export depends on them.

Libraries read dozens that say where caches are or what to log; only what code outside installed packages reads counts.
Code that goes through all variables, to hand them to a child for example, is not taken to depend on each.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

_OURS = f"{Path(__file__).parent}{os.sep}"
_STDLIB = tuple({f"{real(sysconfig.get_path('stdlib'))}{os.sep}" for real in (str, os.path.realpath)})
_INSTALLED = ("site-packages", "dist-packages")


@dataclass
class Reads:
    """The variables that were read: file of the code that read them to their names."""

    names: dict[str, set[str]] = field(default_factory=dict)

    def of(self, roots: Iterable[Path]) -> set[str]:
        """The names that code outside installed packages read, or code below one of these folders."""
        below = tuple(f"{root.resolve()}{os.sep}" for root in roots)
        return {
            name
            for file, names in self.names.items()
            if file.startswith(below) or not (_is_library(file) or file.startswith("<"))
            for name in names
        }


def digest(name: str) -> str:
    """The SHA-256 of a variable's value, which may be a secret; empty where it is not set."""
    value = os.environ.get(name)
    return "" if value is None else hashlib.sha256(os.fsencode(value)).hexdigest()


class _Noting(type(os.environ)):  # type: ignore[misc]
    """The class of ``os.environ`` while reads are noted."""

    def __getitem__(self, key: str) -> str:
        _note(sys._getframe(1), key)
        value: str = super().__getitem__(key)
        return value

    def __iter__(self) -> Iterator[str]:
        caller = _caller(sys._getframe(1))
        if caller:
            _through_all.add((caller.f_code.co_filename, caller.f_lineno))
        return super().__iter__()  # type: ignore[no-any-return]


_reads: list[Reads] = []
_through_all: set[tuple[str, int]] = set()


@contextmanager
def noting() -> Iterator[Reads]:
    """What Python code reads of the environment inside the ``with`` block.

    Modules read variables when they are imported, once a process: what was read in earlier blocks is among it.
    """
    reads = Reads({file: set(names) for file, names in _earlier.names.items()})
    plain = type(os.environ)
    _reads.append(reads)
    if plain is not _Noting:
        os.environ.__class__ = _Noting
    try:
        yield reads
    finally:
        _reads.remove(reads)
        os.environ.__class__ = plain
        for file, names in reads.names.items():
            _earlier.names.setdefault(file, set()).update(names)


_earlier = Reads()


def _note(frame: FrameType | None, name: str) -> None:
    caller = _caller(frame)
    if caller is None or (caller.f_code.co_filename, caller.f_lineno) in _through_all:
        return
    for reads in _reads:
        reads.names.setdefault(caller.f_code.co_filename, set()).add(name)


def _caller(frame: FrameType | None) -> FrameType | None:
    """The caller: the first frame outside Python's own library, if it is none of ours."""
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith("<frozen") and (not file.startswith(_STDLIB) or _is_installed(file)):
            return None if file.startswith(_OURS) else frame
        frame = frame.f_back
    return None


def _is_library(file: str) -> bool:
    return file.startswith(_STDLIB) or _is_installed(file)


def _is_installed(file: str) -> bool:
    return any(f"{os.sep}{folder}{os.sep}" in file for folder in _INSTALLED)
