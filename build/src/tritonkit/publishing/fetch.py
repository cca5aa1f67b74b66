"""Brings a published version into a folder, verified file by file; each model appears there by one rename.

It runs in a pod before Triton starts: the folder is usually an empty volume, and after a restart it holds what an
earlier run brought, with what others have added to it (engines), which stays.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tritonkit import atomic
from tritonkit.errors import CheckFailed, MissingError, OutputError
from tritonkit.publishing import errors
from tritonkit.publishing.contents import CHUNK_BYTES
from tritonkit.publishing.destination import THREADS, Destination
from tritonkit.publishing.locations import Place, split_version
from tritonkit.publishing.manifest import File, Manifest, is_version
from tritonkit.publishing.transfer_progress import Meter, human
from tritonkit.publishing.version_history import check_whole

RECORD = ".tritonkit-fetched.json"
_LOCK = ".tritonkit-fetch.lock"
_STAGE = ".tritonkit-fetch"
_PART = ".part"


@dataclass(frozen=True)
class Fetched:
    """What was done: the version, how many files were downloaded, and their size in bytes."""

    manifest: Manifest
    downloaded: int
    downloaded_bytes: int


def fetch(place: Place, directory: Path, say: Callable[[str], None] = lambda _text: None) -> Fetched:
    """Bring a version into ``directory``.

    Args:
        place: ``DESTINATION/versions/VERSION``, or a destination, which means its current version.
        directory: Made if it does not exist; may be a mount point. Models of an earlier fetch that the version does not
            have are removed, anything else that is in it is refused.
        say: Called with how far it is.

    Raises:
        CheckFailed: The version is not whole, or a file is not what was published.
        OutputError: Nothing is published there, or the folder cannot be used.
        MissingError: A package, credentials, the network or space is missing.
    """
    store, version = split_version(place)
    destination = Destination(store)
    with errors.explained(store):
        say("find the version")
        manifest = _manifest(destination, version)
        check_whole(destination, manifest)
    with atomic.explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with _alone(directory, say):
            return _Visit(destination, manifest, directory, say).run()


def _manifest(destination: Destination, version: str) -> Manifest:
    if not version:
        pointer = destination.pointer()
        if pointer is None:
            destination.check()
            raise OutputError(
                f"nothing is published at {destination.place}",
                "`tritonkit publish` does that; the chart serves what else lies there with checkPassports=false",
            )
        version = pointer.version
    manifest = destination.manifest(version)
    if manifest is None:
        destination.check()
        if destination.files(version):
            raise CheckFailed(
                f"version {version} at {destination.place} is not whole: its upload did not end",
                "publish that repository again, which completes it",
            )
        raise OutputError(
            f"there is no version {version} at {destination.place}",
            f"`tritonkit versions {destination.place}` lists them",
        )
    return manifest


@contextmanager
def _alone(directory: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One fetch at a time in a folder; the next finds everything there."""
    with (directory / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("wait for another fetch into the same folder")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            say(f"go on without a lock, as {directory} has none ({error.strerror})")
        yield


class _Stopped(Exception):
    """The fetch was interrupted; the part of the file that was downloaded stays."""


class _Visit:
    """One fetch of one version into one folder."""

    def __init__(
        self, destination: Destination, manifest: Manifest, directory: Path, say: Callable[[str], None]
    ) -> None:
        self.destination, self.manifest, self.directory, self.say = destination, manifest, directory, say
        self.stage = directory / _STAGE / manifest.version
        self.stopped = threading.Event()
        self.recorded_version, self.recorded_models, self.recorded_files = self._record()

    def _record(self) -> tuple[str, set[str], set[str] | None]:
        """Version, models and files of the last fetch into this folder; None for files that it did not record."""
        try:
            record = json.loads((self.directory / RECORD).read_text(encoding="utf-8"))
            files = set(map(str, record["files"])) if "files" in record else None
            return str(record["version"]), set(record["models"]), files
        except (OSError, ValueError, KeyError, TypeError):
            return "", set(), None

    def run(self) -> Fetched:
        """Bring the version into the folder."""
        self._check_strangers()
        self._check_foreign()
        meter = Meter(self.say, "check", len(self.manifest.files), self.manifest.size)
        with ThreadPoolExecutor(THREADS) as pool:
            there = pool.map(lambda file: self._is_there(file, meter), self.manifest.files)
            missing = [file for file, placed in zip(self.manifest.files, there, strict=True) if not placed]
            models = {_model(file) for file in missing}
            if self.recorded_version != self.manifest.version:
                models = set(self.manifest.models)
            self._check_space(missing)
            self._clear_stage()
            meter = Meter(self.say, "download", len(missing), sum(file.size for file in missing))
            with errors.explained(self.destination.place):
                brought = self._bring_all(pool, missing, meter)
        self._place(models, set(missing))
        sizes = [file.size for file, downloaded in zip(missing, brought, strict=True) if downloaded]
        return Fetched(self.manifest, len(sizes), sum(sizes))

    def _check_strangers(self) -> None:
        """A model in the folder that no fetch brought would be served, too; and a link would be lost."""
        known = self.recorded_models | set(self.manifest.models) | {"lost+found"}
        strange = [path.name for path in self.directory.iterdir() if path.is_dir() and path.name not in known]
        strange = sorted(name for name in strange if not name.startswith("."))
        if strange:
            raise OutputError(
                f"{self.directory} holds what no fetch brought: {', '.join(strange[:5])}", "name an empty folder"
            )
        for name in sorted(known):
            path = self.directory / name
            if path.is_symlink():
                raise OutputError(
                    f"{path} is a link ({path.readlink()}): the fetch would replace it, and leave what it points to as "
                    "it is",
                    "remove the link, or name an empty folder",
                )

    def _check_foreign(self) -> None:
        """Another version takes a model's whole folder: what somebody put there would be gone."""
        if self.recorded_version == self.manifest.version or self.recorded_files is None:
            return
        ours = self.recorded_files | {file.path for file in self.manifest.files}
        for stage in (self.directory / _STAGE).glob("*"):  # a fetch killed between two models left some of that version
            begun = self.destination.manifest(stage.name) if is_version(stage.name) else None
            ours |= {file.path for file in begun.files} if begun else set()
        foreign = [
            path
            for model in sorted(self.recorded_models)
            for path in sorted((self.directory / model).rglob("*"))
            if (path.is_symlink() or not path.is_dir())
            and path.relative_to(self.directory).as_posix() not in ours
            and not _is_made_here(path)
        ]
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise OutputError(
                f"{foreign[0]}{more}: no fetch brought it, and version {self.manifest.version} would replace it",
                "move it out of there, or name an empty folder",
            )

    def _is_there(self, file: File, meter: Meter) -> bool:
        there = _same(self.directory / file.path, file)
        meter.add(file.size, files=1)
        return there

    def _check_space(self, missing: list[File]) -> None:
        staged = sum(path.stat().st_size for path in self.stage.rglob("*") if path.is_file())
        needed = sum(file.size for file in missing) - staged
        free = shutil.disk_usage(self.directory).free
        if needed > free:
            raise MissingError(
                f"{self.directory} has {human(free)} free; the version needs {human(needed)}",
                "use a larger volume",
            )

    def _clear_stage(self) -> None:
        """Drop what was staged of other versions."""
        for path in (self.directory / _STAGE).glob("*"):
            if path != self.stage:
                shutil.rmtree(path)

    def _bring_all(self, pool: ThreadPoolExecutor, missing: list[File], meter: Meter) -> list[bool]:
        try:
            return list(pool.map(lambda file: self._bring(file, meter), missing))
        except KeyboardInterrupt:
            self.stopped.set()  # large files under way end at their next piece
            raise

    def _bring(self, file: File, meter: Meter) -> bool:
        """Stage a file; False if an earlier attempt had staged it."""
        target = self.stage / file.path
        staged = _same(target, file)
        if not staged:
            with atomic.explained(target):
                target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(target.name + _PART)
            resumed = part.exists()
            if self._download(file, part, meter) != file.sha256 and resumed:
                part.unlink()
                self._download(file, part, meter)
            if not _same(part, file):
                part.unlink()
                raise CheckFailed(
                    f"{self.destination.file(self.manifest.version, file.path)} is not what was published: "
                    f"its SHA-256 is not {file.sha256[:12]}…",
                    "publish that repository again, which replaces the file",
                )
            part.rename(target)
        meter.add(files=1)
        return not staged

    def _download(self, file: File, part: Path, meter: Meter) -> str:
        """Go on where an earlier attempt stopped; returns the SHA-256 of the whole file."""
        sha256 = hashlib.sha256()
        with part.open("a+b", buffering=0) as out:
            out.seek(0)
            while chunk := out.read(CHUNK_BYTES):
                sha256.update(chunk)
            for chunk in self.destination.chunks(self.manifest.version, file.path, out.tell()):
                if self.stopped.is_set():
                    raise _Stopped
                with atomic.explained(part):  # of this machine, not of the store
                    _write(out, chunk)
                sha256.update(chunk)
                meter.add(len(chunk))
        return sha256.hexdigest()

    def _place(self, models: set[str], missing: set[File]) -> None:
        """Put every changed model into place by one rename, write the record, and remove models that are gone."""
        self.say("into place")
        self._drop_strangers_in_stage()
        for file in self.manifest.files:
            if _model(file) in models and file not in missing:
                _link(self.directory / file.path, self.stage / file.path)
        for model in sorted(models):
            atomic.put(self.stage / model, self.directory / model)
        record = {
            "version": self.manifest.version, "models": list(self.manifest.models),
            "files": [file.path for file in self.manifest.files],
        }  # fmt: skip
        atomic.write(self.directory / RECORD, json.dumps(record).encode())
        for name in sorted(self.recorded_models - set(self.manifest.models)):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        shutil.rmtree(self.directory / _STAGE, ignore_errors=True)

    def _drop_strangers_in_stage(self) -> None:
        """Remove what a fetch that was killed between two models had taken out of the folder, its engines included."""
        ours = {self.stage / file.path for file in self.manifest.files}
        for path in self.stage.rglob("*"):
            if path not in ours and not path.is_dir():
                path.unlink()
        for path in sorted(self.stage.rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _is_made_here(path: Path) -> bool:
    """Engines that were built on the node, and bytecode: the next version makes its own."""
    return path.name.endswith((".plan", ".plan.json")) or path.parent.name == "__pycache__"


def _model(file: File) -> str:
    return file.path.partition("/")[0]


def _write(out: IO[bytes], data: bytes) -> None:
    """Write all the data: one call of an unbuffered file may take less."""
    left = memoryview(data)
    while left:
        left = left[out.write(left) :]


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the filesystem has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _same(path: Path, file: File) -> bool:
    """Whether a local file is what was published."""
    try:
        if path.stat().st_size != file.size:
            return False
        sha256 = hashlib.sha256()
        with path.open("rb") as opened:
            while chunk := opened.read(CHUNK_BYTES):
                sha256.update(chunk)
    except OSError:
        return False
    return sha256.hexdigest() == file.sha256
