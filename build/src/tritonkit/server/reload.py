"""Takes up what changes in a repository beside a running Triton: a copy of it at a time, and no request is lost.

Triton reads a copy made of hard links, which nobody changes under it. Once a change in the repository has settled, the
next copy is put in the old one's place by one rename, and Triton is asked to load what differs: it serves the old model
until the new one is ready.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit import atomic
from tritonkit.errors import OutputError
from tritonkit.repository import model_directory, ownership
from tritonkit.server import queue_bounds

ARGUMENTS = ("--model-control-mode=explicit", "--load-model=*")
LOOK_EVERY_S = 1.0  # a change is taken up once two looks in a row see the same
_HASHED_BYTES = 2**20  # larger files are told apart by inode, size and time: a build never writes into one
_NOT_SERVED = {model_directory.PASSPORT}  # Triton does not read it
_ATTEMPTS = 20

Files = frozenset[tuple[str, int, int, int]]


@dataclass(frozen=True)
class Change:
    """What was taken up.

    Attributes:
        loaded: Models that serve their new files now, steps of ensembles included.
        unloaded: Models that are gone from the repository, and from the server.
        failed: Model to Triton's reason for not loading it; what it served before, it still serves.
        reconnected: Ensembles whose steps hand on other tensors than before: Triton changes the steps one after
            another, so requests to these ensembles could fail until all were changed.
        lacking: Model to the packages that its Python needs, its steps' included, and the server was started without.
            It was not loaded; what it served before, it still serves.
    """

    loaded: tuple[str, ...] = ()
    unloaded: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    reconnected: tuple[str, ...] = ()
    lacking: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Reloader:
    """Copies of one repository, and the server that reads the newest.

    Args:
        repository: What to watch; a link to a repository is followed anew at each look.
        place: Becomes a link to the newest copy: what the server is pointed at.
        bounded: Keep bounds of queues (:mod:`tritonkit.server.queue_bounds`).
        packages: What Python models find in the server, each ``name==version``.

    Raises:
        OutputError: The repository changes faster than it can be copied, or cannot be read.
    """

    def __init__(self, repository: Path, place: Path, *, bounded: bool, packages: Collection[str] = ()) -> None:
        self.repository = repository
        self.place = place
        self.bounded = bounded
        self.packages = frozenset(packages)
        self.unbounded: list[str] = []
        self._copies = _make_home(repository.resolve(), place.parent)
        self._number = 0
        self._loaded = self._copy()
        self._looked = self._loaded
        self._digests = {name: _digest(self._current / name) for name in self._loaded}
        self._turn()

    @property
    def _current(self) -> Path:
        return self._copies / str(self._number)

    def look(self, url: str, timeout_s: float) -> Change | None:
        """Take up what has changed and settled since the last call; None where nothing has.

        Args:
            url: The server's address for HTTP.
            timeout_s: How long one model may take to load, in seconds.

        Raises:
            OutputError: See the class.
            OSError: The server cannot be reached.
        """
        try:
            seen = _models(self.repository)
        except OSError:
            return None  # in the middle of a change, or gone: what was loaded stays
        settled = seen == self._looked
        self._looked = seen
        if not settled or seen == self._loaded:
            return None
        before = self._current
        self._number += 1
        copied = self._copy()
        candidates = [name for name in copied if copied[name] != self._loaded.get(name)]
        digests = {name: _digest(self._current / name) for name in candidates}
        changed = [name for name in candidates if digests[name] != self._digests.get(name)]
        gone = sorted(set(self._loaded) - set(copied))
        old, new = _configs(before), _configs(self._current)
        self._turn()
        lacking = {name: packages for name in changed if (packages := self._lacks(name, new))}
        loadable = [name for name in changed if name not in lacking]
        change = replace(self._ask(url, timeout_s, loadable, gone, old, new), lacking=lacking)
        self._loaded, self._looked = copied, copied
        # What was not loaded is looked at again when as little as its passport changes.
        self._digests = {name: "" if name in lacking else digests.get(name) or self._digests[name] for name in copied}
        shutil.rmtree(before, ignore_errors=True)
        return change if changed or gone else None

    def close(self) -> None:
        """Remove the copies."""
        shutil.rmtree(self._copies, ignore_errors=True)

    def _copy(self) -> dict[str, Files]:
        """Copy one state of the repository, not parts of two; the files that it had."""
        for _ in range(_ATTEMPTS):
            shutil.rmtree(self._current, ignore_errors=True)
            try:
                origin = self.repository.resolve()
                before = _models(origin)
                self._current.mkdir()
                for name in before:
                    _link_tree(origin / name, self._current / name)
                if _models(origin) == before and origin == self.repository.resolve():
                    self.unbounded = [] if self.bounded else queue_bounds.lift_in(self._current)
                    return before
            except FileNotFoundError:
                continue
        raise OutputError(
            f"{self.repository} changes while it is being read", "build or copy into it once, and start again"
        )

    def _lacks(self, name: str, configs: Mapping[str, pb.ModelConfig]) -> tuple[str, ...]:
        """Packages that a model's Python needs, its steps' included, and that the server does not have."""
        needed = ownership.packages_of(self._current / model for model in {name} | _steps(name, configs))
        return tuple(sorted(needed - self.packages))

    def _turn(self) -> None:
        """Point the server's link at the newest copy, in one step."""
        link = self.place.with_name(f"{self.place.name}.next")
        link.symlink_to(self._current)
        link.replace(self.place)

    def _ask(
        self, url: str, timeout_s: float, changed: list[str], gone: list[str],
        old: Mapping[str, pb.ModelConfig], new: Mapping[str, pb.ModelConfig],
    ) -> Change:  # fmt: skip
        """Load and unload; an ensemble brings its steps with it, so it comes before them, and they are skipped."""
        covered: set[str] = set()
        failed: dict[str, str] = {}
        for name in sorted(changed, key=lambda name: (-_depth(name, new), name)):
            if name in covered:
                continue
            if reason := call(f"{url}/v2/repository/models/{quote(name)}/load", timeout_s):
                failed[name] = reason
            else:
                covered |= _steps(name, new) | {name}
        for name in gone:
            if reason := call(f"{url}/v2/repository/models/{quote(name)}/unload", timeout_s):
                failed[name] = reason
        return Change(
            tuple(sorted(set(changed) - set(failed))), tuple(name for name in gone if name not in failed), failed,
            tuple(sorted(name for name in old if name in new and _handed_on(old[name]) != _handed_on(new[name]))),
        )  # fmt: skip


def _make_home(repository: Path, work: Path) -> Path:
    """A folder for copies on the repository's own filesystem, where hard links are; else in the server's folder."""
    parent = repository.parent
    if os.access(parent, os.W_OK | os.X_OK) and not os.statvfs(parent).f_flag & os.ST_RDONLY:
        return atomic.stage_in(parent)
    return Path(tempfile.mkdtemp(prefix="copies-", dir=work))


def _models(repository: Path) -> dict[str, Files]:
    """Every model's files, each by its path, inode, size and time of change."""
    return {
        entry.name: frozenset(_files(entry))
        for entry in sorted(repository.resolve().iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
    }


def _files(folder: Path) -> Iterator[tuple[str, int, int, int]]:
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in [*names, *folders]:
            path = Path(root, name)
            about = path.stat()
            relative = path.relative_to(folder).as_posix()
            yield (relative, about.st_ino, about.st_size, about.st_mtime_ns) if name in names else (relative, 0, 0, 0)


def _link_tree(source: Path, target: Path) -> None:
    """Hard links of a folder's files, with the folders' times; a copy where there are no hard links."""
    target.mkdir()
    for entry in source.iterdir():
        if entry.name == "__pycache__":
            continue
        if entry.is_dir():
            _link_tree(entry, target / entry.name)
            continue
        try:
            os.link(entry.resolve(), target / entry.name)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copy2(entry, target / entry.name)
    shutil.copystat(source, target)


def _digest(folder: Path) -> str:
    """What Triton would read, in a few letters: equal contents are not loaded again."""
    state = hashlib.sha256()
    for name, *about in sorted(_files(folder)):
        if name in _NOT_SERVED:
            continue
        path = folder / name
        small = path.is_file() and about[1] <= _HASHED_BYTES
        state.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest() if small else about}\0".encode())
    return state.hexdigest()


def _configs(repository: Path) -> dict[str, pb.ModelConfig]:
    """The configurations that can be read."""
    configs = {folder.name: model_directory.find_config(folder) for folder in repository.iterdir()}
    return {name: config for name, config in configs.items() if config is not None}


def _steps(name: str, configs: Mapping[str, pb.ModelConfig], above: frozenset[str] = frozenset()) -> set[str]:
    """Every model that an ensemble runs, directly or in an ensemble of its own."""
    if name not in configs or name in above:
        return set()
    direct = {step.model_name for step in configs[name].ensemble_scheduling.step}
    return direct.union(*(_steps(inner, configs, above | {name}) for inner in direct))


def _depth(name: str, configs: Mapping[str, pb.ModelConfig]) -> int:
    """How many models stand behind this one: more for an ensemble than for any of its steps."""
    return len(_steps(name, configs))


def _handed_on(config: pb.ModelConfig) -> list[tuple[str, list[str], list[str]]]:
    """The tensors that each step of an ensemble takes and gives; nothing for another model."""
    return [
        (step.model_name, sorted(step.input_map), sorted(step.output_map)) for step in config.ensemble_scheduling.step
    ]


def call(url: str, timeout_s: float) -> str:
    """Ask Triton to load or unload; its reason for not doing so, or nothing."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=b"{}"), timeout=timeout_s):
            return ""
    except urllib.error.HTTPError as error:
        text = error.read().decode("utf-8", errors="replace")
        try:
            return str(json.loads(text)["error"])
        except (ValueError, KeyError, TypeError):
            return text or str(error)
