"""What of a model repository is published: which files, what they hash to, and whether they changed since.

Links are followed, names that begin with a dot and Python's bytecode are left out, and a folder without files gets a
placeholder, because object stores have no empty folders and Triton wants an ensemble's version folder.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tritonkit.errors import CheckFailed, OutputError
from tritonkit.publishing.manifest import File
from tritonkit.publishing.transfer_progress import Meter

PLACEHOLDER = ".empty"
PLACEHOLDER_TEXT = b"An object store has no empty folders; this file keeps one.\n"
CHUNK_BYTES = 2**24


@dataclass(frozen=True)
class Source:
    """One file to publish.

    Attributes:
        path: Where it goes in the repository, with slashes.
        origin: Where it is; None for a placeholder.
        size: In bytes.
        seen: Device, inode, size and time of change: another when somebody wrote it.
    """

    path: str
    origin: Path | None
    size: int
    seen: tuple[int, ...] = ()


@dataclass(frozen=True)
class Contents:
    """Everything that is published of a repository.

    Attributes:
        sources: In the order of their paths.
        skipped: Files at the top of the repository, which belong to no model.
        foreign: Files that are taken from outside the repository, by links: ``path -> where it lies``.
    """

    sources: tuple[Source, ...]
    skipped: tuple[str, ...] = field(default=())
    foreign: tuple[str, ...] = field(default=())

    @property
    def size(self) -> int:
        """Of all files, in bytes."""
        return sum(source.size for source in self.sources)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of them."""
        if not self.foreign:
            return ()
        more = f" and {len(self.foreign) - 5} more" if len(self.foreign) > 5 else ""
        return (f"links lead out of the repository, to what is published too: {', '.join(self.foreign[:5])}{more}",)


def read(repository: Path) -> Contents:
    """Look at every file.

    Raises:
        OutputError: The repository has no model, or something in it cannot be read.
    """
    sources: list[Source] = []
    skipped = []
    for entry in _entries(repository):
        if entry.is_dir():
            sources += _below(entry, entry.name, ())
        else:
            skipped.append(entry.name)
    if not sources:
        raise OutputError(
            f"{repository} holds no model",
            "name a model repository; `tritonkit build RECIPE` or, in a checkout, `make build` makes one",
        )
    sources.sort(key=lambda source: source.path)
    return Contents(tuple(sources), tuple(skipped), tuple(_foreign(sources, repository.resolve())))


def _foreign(sources: Sequence[Source], repository: Path) -> Iterator[str]:
    for source in sources:
        place = source.origin.resolve() if source.origin else repository
        if not place.is_relative_to(repository):
            yield f"{source.path} -> {place}"


def _entries(directory: Path) -> list[Path]:
    try:
        paths = sorted(directory.iterdir())
    except OSError as error:
        raise OutputError(f"{directory} cannot be listed: {error.strerror}", "correct its permissions") from error
    return [entry for entry in paths if not entry.name.startswith(".") and entry.name != "__pycache__"]


def _below(directory: Path, name: str, above: tuple[tuple[int, int], ...]) -> Iterator[Source]:
    status = directory.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise OutputError(f"{directory} is a link to a folder that it is in", "remove the link")
    entries = _entries(directory)
    if not entries and above:
        yield Source(f"{name}/{PLACEHOLDER}", None, len(PLACEHOLDER_TEXT))
    for entry in entries:
        path = f"{name}/{entry.name}"
        try:
            path.encode()
            status = entry.stat()
        except UnicodeEncodeError:
            raise OutputError(f"{entry!r} has a name that is not UTF-8", "rename it") from None
        except OSError as error:
            what = "is a link to nothing" if entry.is_symlink() else f"cannot be read: {error.strerror}"
            raise OutputError(f"{entry} {what}", "correct or remove it") from error
        if stat.S_ISDIR(status.st_mode):
            yield from _below(entry, path, (*above, here))
        elif stat.S_ISREG(status.st_mode):
            yield Source(path, entry, status.st_size, _seen(status))
        else:
            raise OutputError(f"{entry} is no regular file", "remove it")


def _seen(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def check_unchanged(source: Source) -> None:
    """Refuse a file that was written since it was read.

    Raises:
        CheckFailed: The file was written since, or is gone.
    """
    if source.origin is None:
        return
    try:
        same = _seen(source.origin.stat()) == source.seen
    except OSError:
        same = False
    if not same:
        raise CheckFailed(
            f"{source.origin} changed while it was being published; nothing was switched",
            "let the build finish, and publish again",
        )


def digest(contents: Contents, pool: ThreadPoolExecutor, meter: Meter) -> tuple[File, ...]:
    """Hash every file, several at a time.

    Raises:
        CheckFailed: A file changed meanwhile.
        OutputError: A file cannot be read.
    """

    def hash_source(source: Source) -> File:
        file = File(source.path, source.size, _sha256(source, meter))
        check_unchanged(source)
        return file

    return tuple(pool.map(hash_source, contents.sources))


def _sha256(source: Source, meter: Meter) -> str:
    if source.origin is None:
        return hashlib.sha256(PLACEHOLDER_TEXT).hexdigest()
    sha256 = hashlib.sha256()
    try:
        with source.origin.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                sha256.update(chunk)
                meter.add(len(chunk))
    except OSError as error:
        raise OutputError(f"{source.origin} cannot be read: {error.strerror}", "correct its permissions") from error
    meter.add(files=1)
    return sha256.hexdigest()
