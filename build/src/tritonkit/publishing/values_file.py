"""The file of chart values that names a published version, for ``helm -f``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml

from tritonkit import atomic
from tritonkit.errors import OutputError
from tritonkit.publishing.locations import Place
from tritonkit.publishing.manifest import Manifest

_HEADER = "# Written by tritonkit:"


def check(path: Path) -> None:
    """Check that the file can be written, before the store is changed: without it helm would not get the version.

    Raises:
        OutputError: It is a folder, a file that tritonkit did not write, or not writable.
        MissingError: The disk is full.
    """
    if path.is_dir():
        raise OutputError(f"--values {path} is a folder", "name a file in it, for example version.yaml")
    if path.is_file() and not path.read_bytes().startswith(_HEADER.encode()):
        raise OutputError(
            f"--values {path} is a file that tritonkit did not write, and would be lost",
            "name another file: helm takes several, -f values.yaml -f version.yaml",
        )
    with atomic.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def write(path: Path, place: Place, manifest: Manifest) -> None:
    """Write the values of a version, whole or not at all.

    Args:
        path: The file; :func:`check` says beforehand whether it can be written.
        place: Where the version is published.
        manifest: The version's.
    """
    values = yaml.safe_dump(place.values(manifest.version, manifest.ensembles, manifest.needs), sort_keys=False)
    atomic.write(path, f"{_HEADER} version {manifest.version} at {place}.\n{values}".encode())
