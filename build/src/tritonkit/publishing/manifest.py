"""What a version is: its files with sizes and SHA-256, and the hash of that list, which is the version's name.

It neither reads a repository (:mod:`tritonkit.publishing.contents`) nor a store
(:mod:`tritonkit.publishing.destination`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath

from pydantic import TypeAdapter, ValidationError

from tritonkit import __version__
from tritonkit.errors import CheckFailed

VERSION_DIGITS = 16  # 64 bits of SHA-256: as good as unique among the versions that one place ever holds


@dataclass(frozen=True)
class File:
    """One file of a version.

    Attributes:
        path: Where it lies in the repository, with slashes.
        size: In bytes.
        sha256: Of its content, in hexadecimal.
    """

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A version.

    Attributes:
        version: :func:`version_of` its files.
        published: When it was complete, in ISO 8601, UTC.
        files: In the order of their paths.
        ensembles: Names of the models that are ensembles of others; the chart's metrics count them apart.
        needs: Of each model, what it loads that NVIDIA's image lacks: a backend, or modules of Python.
        tritonkit: The release that wrote it.
    """

    version: str
    published: str
    files: tuple[File, ...]
    ensembles: tuple[str, ...] = ()
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tritonkit: str = __version__

    @property
    def size(self) -> int:
        """Of all files, in bytes."""
        return sum(file.size for file in self.files)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(sorted({PurePosixPath(file.path).parts[0] for file in self.files}))

    def as_json(self) -> bytes:
        """What is stored."""
        return json.dumps(asdict(self), indent=1).encode()


def version_of(files: tuple[File, ...]) -> str:
    """The name of the version with these files; equal content has an equal name, wherever and whenever."""
    listed = sorted([file.path, file.size, file.sha256] for file in files)
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:VERSION_DIGITS]


def is_version(name: str) -> bool:
    """Whether it looks like the name of a version."""
    return len(name) == VERSION_DIGITS and set(name) <= set("0123456789abcdef")


def parse(data: bytes, where: str) -> Manifest:
    """A stored manifest.

    Raises:
        CheckFailed: ``data`` is no manifest, or its files are not those that its version is named after.
    """
    try:
        manifest = TypeAdapter(Manifest).validate_json(data)
    except ValidationError as error:
        raise CheckFailed(f"{where} is no manifest: {error.errors()[0]['msg']}", "publish that version again") from None
    if manifest.version != version_of(manifest.files):
        raise CheckFailed(
            f"{where} was altered: its files do not make {manifest.version}", "publish that version again"
        )
    for file in manifest.files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
            raise CheckFailed(f"{where} names a file outside of any model: {file.path}", "publish that version again")
    return manifest
