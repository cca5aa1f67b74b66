"""A folder of finished plans that pods share: each is named by everything that decides its bytes, and whole or absent.

Correct without locks: files are renamed into place, and two builders of one plan both succeed. Locks only save the
second build. What to build and where a plan then goes is for :mod:`tritonkit.engines.prepare`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from tritonkit import atomic, external_data
from tritonkit.dependencies import sha256
from tritonkit.engines import builder
from tritonkit.engines import passport as passports
from tritonkit.engines.jobs import Job
from tritonkit.errors import InputError
from tritonkit.passport import EnginePassport

_FORMAT = 1  # raise it when what is hashed, or how an entry lies on disk, changes
_POINTER = "plan"  # `plan.json` is the passport of the plan that counts; it is written last
_TEMPORARY = ".new-"
_HEARTBEAT_S = 5.0
# A holder that is silent for longer is taken for dead. An NFS client may keep attributes for 60 s (nfs(5), acregmax).
SILENCE_S = 180.0
_LEFTOVER_S = 3600.0  # temporary files live for the seconds of a write; clocks of nodes differ by less than this
_POLL_S = 0.5


class Absent(Exception):
    """There is no plan to take; the text says what is damaged, and is empty if there never was one."""


@dataclass(frozen=True)
class Key:
    """What decides the bytes of a plan.

    Attributes:
        name: The entry's folder: the model, what it is built for, and the start of the hash of ``facts``.
        facts: All of it, as JSON types.
    """

    name: str
    facts: dict[str, object]

    @classmethod
    def of(cls, job: Job, tensorrt: str, capability: builder.Capability, options: builder.Options) -> Key:
        """The key of a job on a GPU.

        Args:
            job: Graph, precision and profiles.
            tensorrt: Version of the builder, four numbers.
            capability: Compute capability of the GPU.
            options: How it is built.
        """
        facts: dict[str, object] = {
            "format": _FORMAT,
            "model": job.model,
            "graph": _hashes(job.graph),
            "precision": job.precision,
            "profiles": [{name: asdict(shapes) for name, shapes in profile.items()} for profile in job.profiles],
            "tensorrt": tensorrt,
            "compute_capability": f"{capability[0]}.{capability[1]}",
            "workspace_bytes": options.workspace_bytes,
            "hardware_compatibility": options.hardware_compatibility,
            "version_compatible": options.version_compatible,
            "weight_stripped": options.weight_stripped,
            "plugins": sorted(sha256(library) for library in options.plugins),
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return cls(f"{job.model}-{job.precision}-sm{capability[0]}{capability[1]}-{digest[:24]}", facts)


def _hashes(graph: Path) -> dict[str, str]:
    """The SHA-256 of the graph, and of the files beside it that hold its weights, by their names."""
    _, *weights = external_data.files(graph)
    named = {"": graph} | {path.relative_to(graph.parent).as_posix(): path for path in weights}
    return {name: sha256(path) for name, path in named.items()}


class Cache:
    """The folder.

    An entry is a folder: ``plan.json``, the passport that says which plan counts, and that plan under its SHA-256.
    """

    def __init__(self, directory: Path, *, silence_s: float = SILENCE_S) -> None:
        """Use ``directory``, which need not exist yet; a builder that is silent for ``silence_s`` counts as dead."""
        self.directory, self._silence_s = directory, silence_s

    def take(self, key: Key, target: Path) -> str:
        """Put the plan at ``target`` and its passport beside it, by a hard link where that goes.

        What is placed is what was checked: the file is verified under a temporary name beside ``target``.

        Returns:
            ``linked`` or ``copied``.

        Raises:
            Absent: There is no such plan, or its bytes are not what its passport says.
            OutputError: ``target`` cannot be written.
            MissingError: The disk is full.
        """
        entry = self.directory / key.name
        try:
            passport = passports.read(entry / _POINTER)
        except InputError as error:
            there = (entry / f"{_POINTER}{passports.SUFFIX}").exists()
            raise Absent(error.message if there else "") from error
        stored = entry / _plan_name(passport)
        temporary = target.with_name(_temporary())
        try:
            how = _link_or_copy(stored, temporary)
            if why := _damage(temporary, passport):
                raise Absent(f"{stored}: {why}")
            with atomic.explained(target):
                passports.path_of(target).unlink(missing_ok=True)  # a plan never lies beside another's passport
                temporary.replace(target)
            passports.write(target, passport)
        finally:
            temporary.unlink(missing_ok=True)
        return how

    def keep(self, key: Key, plan: Path) -> None:
        """Move a finished plan, whose passport lies beside it, into the cache; they must be on its filesystem.

        Raises:
            OutputError: The cache cannot be written.
            MissingError: The disk is full.
        """
        entry = self.directory / key.name
        passport = passports.read(plan)
        with atomic.explained(entry):
            entry.mkdir(parents=True, exist_ok=True)
            plan.replace(entry / _plan_name(passport))
            passports.path_of(plan).replace(entry / f"{_POINTER}{passports.SUFFIX}")
            self._tidy(entry, passport)

    def _tidy(self, entry: Path, passport: EnginePassport) -> None:
        """Remove plans that no longer count and what killed builders left, once nobody can be at them."""
        for path in entry.iterdir():
            old = path.name.startswith(_TEMPORARY) or path.suffix == ".plan"
            with suppress(FileNotFoundError):  # another pod tidies, too
                if old and path.name != _plan_name(passport) and time.time() - path.stat().st_mtime > _LEFTOVER_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def stage(self, key: Key) -> Path:
        """Where to build: a folder that does not exist, on the cache's filesystem, and is no other process's."""
        return self.directory / key.name / _temporary()

    @contextmanager
    def alone(self, key: Key, waiting: Callable[[float], None]) -> Iterator[str]:
        """Wait until no other process builds this plan, then hold them off.

        It ends early, without holding anybody off, when the plan appears, when the other builder is silent, or where
        the filesystem has no locks: whoever comes out of here looks into the cache again and may build.

        Args:
            key: The plan.
            waiting: Called with the seconds waited so far, every half second.

        Yields:
            Why others are not held off; empty if they are.
        """
        entry = self.directory / key.name
        with atomic.explained(entry):
            entry.mkdir(parents=True, exist_ok=True)
            lock = (entry / "lock").open("a+b")
        with lock:
            why = self._wait(lock, entry, waiting)
            if why:
                yield why
                return
            done = threading.Event()
            beating = threading.Thread(target=_beat, args=(lock, done), name="heartbeat", daemon=True)
            beating.start()
            try:
                yield ""
            finally:
                done.set()
                beating.join()

    def _wait(self, lock: IO[bytes], entry: Path, waiting: Callable[[float], None]) -> str:
        pointer = entry / f"{_POINTER}{passports.SUFFIX}"
        start = heard = time.monotonic()
        before, beat = _stamp(pointer), _stamp(entry / "lock")
        while True:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return ""
            except (BlockingIOError, PermissionError):  # held: EAGAIN or EACCES (fcntl(2))
                pass
            except OSError as error:
                return f"{self.directory} has no locks ({error.strerror}): another pod may build the same plan"
            now = time.monotonic()
            if _stamp(pointer) != before:
                return "another process has built it"
            if (stamp := _stamp(entry / "lock")) != beat:
                beat, heard = stamp, now
            if now - heard > self._silence_s:
                return f"its builder has been silent for {now - heard:.0f} s: building it here"
            waiting(now - start)
            time.sleep(_POLL_S)


def why_read_only(directory: Path) -> str:
    """Why nothing can be written into a directory, which is made if it is missing; empty if something can."""
    probe = directory / _temporary()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        return str(error.strerror)
    return ""


def _beat(lock: IO[bytes], done: threading.Event) -> None:
    """Tell those who wait that this process lives: by the lock file's time, which they compare with itself."""
    while True:
        with suppress(OSError):
            os.utime(lock.fileno())
        if done.wait(_HEARTBEAT_S):
            return


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _temporary() -> str:
    """A name that no other pod takes: process numbers repeat from pod to pod."""
    return f"{_TEMPORARY}{uuid.uuid4().hex}"


def _plan_name(passport: EnginePassport) -> str:
    return f"{passport.plan_sha256}.plan"


def _link_or_copy(stored: Path, target: Path) -> str:
    try:
        os.link(stored, target)
        return "linked"
    except FileNotFoundError as error:
        raise Absent(f"{stored} is gone") from error
    except OSError:  # another filesystem, or one without hard links
        pass
    try:
        with atomic.explained(target):
            shutil.copyfile(stored, target)
    except FileNotFoundError as error:
        raise Absent(f"{stored} is gone") from error
    return "copied"


def _damage(plan: Path, passport: EnginePassport) -> str:
    size = plan.stat().st_size
    if size != passport.plan_bytes:
        return f"{size} bytes, and its passport says {passport.plan_bytes}"
    return "" if sha256(plan) == passport.plan_sha256 else "its SHA-256 is not its passport's"
