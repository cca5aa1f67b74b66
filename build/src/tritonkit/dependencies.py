"""Notes what an export read, so that an unchanged rebuild can be recognised without running it again.

While user code runs, Python's audit events tell which files are opened. What lies in an installed
distribution is noted as that distribution's version, anything else as a file with its hash; weights that
native code opens unseen (safetensors does) are found beside the files that were seen.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tritonkit import environment

WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".data", ".npz", ".npy"}
_STDLIB = tuple({os.path.realpath(sysconfig.get_path("stdlib")), os.path.realpath(sysconfig.get_path("platstdlib"))})
_SITE = tuple({os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")})
_VOLATILE = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/lib/")
_recorders: list[set[str]] = []


@dataclass(frozen=True)
class FileDependency:
    """A file outside every distribution: equal size and modification time spare hashing it."""

    path: str
    size: int
    mtime_ns: int
    sha256: str

    def holds(self) -> bool:
        """Whether the file's content is still the noted one."""
        try:
            status = Path(self.path).stat()
        except OSError:
            return False
        if (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns):
            return True
        return status.st_size == self.size and sha256(Path(self.path)) == self.sha256


@dataclass(frozen=True)
class Dependencies:
    """Everything outside the recipe that an export depended on.

    Attributes:
        files: Those outside installed distributions.
        distributions: Name to version.
        variables: Environment variables that the user's code read; name to :func:`environment.digest`.
    """

    files: tuple[FileDependency, ...]
    distributions: dict[str, str]
    variables: dict[str, str]

    def hold(self) -> bool:
        """Whether nothing of it has changed."""
        return (
            all(installed_version(name) == version for name, version in self.distributions.items())
            and all(environment.digest(name) == digest for name, digest in self.variables.items())
            and all(file.holds() for file in self.files)
        )

    def as_json(self) -> dict[str, Any]:
        """Plain data; :meth:`from_json` reads it."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Dependencies:
        """The inverse of :meth:`as_json`."""
        files = tuple(FileDependency(**file) for file in data["files"])
        return Dependencies(files, dict(data["distributions"]), dict(data["variables"]))


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Recording:
    """The paths of files that Python code opened for reading, and what it read of the environment."""

    opened: set[str]
    variables: environment.Reads


@contextmanager
def recording() -> Iterator[Recording]:
    """What Python code reads inside the ``with`` block."""
    _install_hook()
    opened: set[str] = set()
    _recorders.append(opened)
    try:
        with environment.noting() as variables:
            yield Recording(opened, variables)
    finally:
        _recorders.remove(opened)


@functools.cache
def _install_hook() -> None:
    sys.addaudithook(_hook)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _recorders and isinstance(args[0], str | bytes | os.PathLike):
        writes = isinstance(args[1], str) and set(args[1]) & set("wax+")
        if not writes:
            path = _absolute(os.fsdecode(args[0]))
            for opened in _recorders:
                opened.add(path)


def collect(read: Recording, known: Iterable[Path], roots: Sequence[Path], ignored: Path) -> Dependencies:
    """Sort what was read into distributions, files and environment variables.

    Args:
        read: From :func:`recording`.
        known: Files that matter whether they were seen or not.
        roots: Every loaded Python module below one of these counts: Python imports a module once, so a
            recording cannot see what an earlier export of the same process has imported.
        ignored: The directory that the export writes to.
    """
    below = tuple(f"{root.resolve()}{os.sep}" for root in roots if str(root.resolve()) not in _SITE)
    modules = _loaded_modules()
    paths = {_absolute(path) for path in known}
    paths |= {path for path in modules if path.startswith(below)}
    paths |= {path for path in read.opened if not path.endswith((".py", ".pyc"))}  # source is read to show it, too
    ignore = (*_VOLATILE, *_STDLIB, f"{ignored.resolve()}{os.sep}")
    real = {path: os.path.realpath(path) for path in paths}
    distributions = _distributions_of(modules | set(real.values()))
    files = {path for path in paths if not real[path].startswith((*_SITE, *ignore)) and Path(path).is_file()}
    files |= {other for path in files for other in (*_weights_beside(path), *_weights_beside(real[path]))}
    variables = {name: environment.digest(name) for name in sorted(read.variables.of(roots))}
    return Dependencies(tuple(_note(path) for path in sorted(files)), distributions, variables)


def _absolute(path: str | Path) -> str:
    """A path with its links left in: a link that is turned to another file is a change."""
    return str(Path.cwd() / path)


def _loaded_modules() -> set[str]:
    """The files of all imported modules, without links; each folder is looked up once for its thousands of files."""
    origins = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    places = [os.path.split(origin) for origin in origins if origin]
    folders = {folder: os.path.realpath(folder) for folder in {folder for folder, _ in places}}
    paths = {os.path.join(folders[folder], name) for folder, name in places}  # noqa: PTH118
    return {os.path.realpath(path) if os.path.islink(path) else path for path in paths}  # noqa: PTH114


def _weights_beside(path: str) -> set[str]:
    if path.endswith(".py"):
        return set()
    return {str(other) for other in Path(path).parent.iterdir() if other.suffix in WEIGHTS and other.is_file()}


def _note(path: str) -> FileDependency:
    status = Path(path).stat()
    return FileDependency(path, status.st_size, status.st_mtime_ns, sha256(Path(path)))


def _distributions_of(paths: Iterable[str]) -> dict[str, str]:
    """The distributions, with their versions, that own the top-level packages of files in site-packages."""
    tops = set()
    for site in _SITE:
        rests = (path[len(site) + 1 :] for path in paths if path.startswith(site + os.sep))
        tops |= {rest.partition(os.sep)[0].partition(".")[0] for rest in rests}
    names = {name for top in tops for name in _packages().get(top, [])}
    return {name: installed_version(name) for name in sorted(names)}


@functools.cache
def _packages() -> dict[str, list[str]]:
    return {package: list(names) for package, names in metadata.packages_distributions().items()}


@functools.cache
def installed_version(name: str) -> str:
    """A distribution's version, empty if it is not installed; as it is when the process first wants it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
