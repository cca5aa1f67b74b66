"""Lays out a model repository: every model's directory built beside, then the whole swapped in by one rename.

Models in the repository that are not being built stay as they are (hard links, so no byte is copied).
"""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tritonkit import atomic
from tritonkit.errors import OutputError
from tritonkit.repository import config
from tritonkit.store import ABOUT, GRAPH, Artifact

CONFIG = "config.pbtxt"
VERSION = "1"
PASSPORT = "passport.json"


@dataclass(frozen=True)
class Model:
    """One model's directory to be.

    Attributes:
        name: The directory's name, and the model's.
        config: The text of ``config.pbtxt``.
        passport: The text of ``passport.json``.
        links: Files that exist elsewhere: path in the directory to their place.
        files: Files to be written: path in the directory to content.
    """

    name: str
    config: str
    passport: str
    links: Mapping[str, Path] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def is_current(repository: Path, models: Sequence[Model]) -> bool:
    """Whether the repository already holds exactly these models."""
    return all(_is_current(repository / model.name, model) for model in models)


def _is_current(directory: Path, model: Model) -> bool:
    linked = model.links
    written = _written(model)
    try:
        found = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if _is_ours(path)}
        return (
            found == {*linked, *written}
            and all((directory / name).read_bytes() == content for name, content in written.items())
            and all((directory / name).samefile(origin) or _same_size(directory / name, origin)
                    for name, origin in linked.items())
        )  # fmt: skip
    except OSError:
        return False


def _is_ours(path: Path) -> bool:
    """A file, and not the bytecode that Python leaves beside a ``model.py`` which a server runs."""
    return path.is_file() and path.parent.name != "__pycache__"


def _same_size(a: Path, b: Path) -> bool:
    """Enough beside an equal passport, which has the graph's hash: it tells a truncated copy."""
    return a.stat().st_size == b.stat().st_size


def check_place(repository: Path) -> None:
    """Refuse a place that cannot hold a repository, before any work is done.

    Raises:
        OutputError: It is not a directory, is a link to nothing, or cannot be written.
    """
    if repository.is_symlink() and not repository.exists():
        raise OutputError(
            f"{repository} is a link to nothing ({repository.readlink()})",
            "make the folder that it points to, or remove the link",
        )
    repository = repository.resolve()  # a link stays, and the folder behind it is written
    if repository.exists() and not repository.is_dir():
        raise OutputError(f"{repository} is not a directory", "name a directory for the model repository")
    nearest = next(place for place in (repository, *repository.parents) if place.exists())
    holder = repository.parent if repository.exists() else nearest
    for place in (nearest, holder):
        if not os.access(place, os.W_OK | os.X_OK) or _read_only(place):
            raise OutputError(f"{place} is read-only", "choose another place with --repository")


def _read_only(place: Path) -> bool:
    return bool(os.statvfs(place).f_flag & os.ST_RDONLY)


def write(repository: Path, models: Sequence[Model], *, overwrite: bool) -> None:
    """Put ``models`` into ``repository`` in one step.

    Args:
        repository: The directory, made if it does not exist; a link to one stays a link to it.
        models: What to put there; everything else in it stays.
        overwrite: Replace a model's directory even if its configuration was edited by hand, or links are in it.

    Raises:
        OutputError: A configuration was edited by hand, a link would be lost, or the place cannot be written.
        MissingError: The disk is full.
    """
    if not overwrite:
        for model in models:
            _check_links(repository / model.name)
            _check_unedited(repository / model.name / CONFIG, model)
    repository = repository.resolve()
    with atomic.staging(repository) as stage:
        new = stage / repository.name
        new.mkdir()
        new.chmod(0o755)
        if repository.exists():
            _link_others(repository, new, {model.name for model in models})
        for model in models:
            _write_model(new / model.name, model)
        atomic.put(new, repository)


def _check_links(directory: Path) -> None:
    """A link would become a folder or file of the repository's own, and what it points to stay as it was."""
    for path in (directory, *sorted(directory.rglob("*"))):
        if path.is_symlink():
            raise OutputError(
                f"{path} is a link ({path.readlink()}): the build would replace it, and leave what it points to",
                "remove the link, or give --overwrite to have it replaced",
            )


def _check_unedited(path: Path, model: Model) -> None:
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    if text != model.config and not config.is_ours(text):
        diff = difflib.unified_diff(
            text.splitlines(), model.config.splitlines(), str(path), "from the recipe", n=1, lineterm=""
        )
        raise OutputError(
            f"{path} was edited by hand and would be lost:\n" + "\n".join(diff),
            "put the change into the recipe, or give --overwrite",
        )


def _link_others(old: Path, new: Path, replaced: set[str]) -> None:
    for entry in old.iterdir():
        if entry.name in replaced:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True, copy_function=_link)
        else:
            _link(entry, new / entry.name)


def _link(source: str | Path, target: str | Path) -> None:
    """A hard link where the filesystem allows one, else a copy."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def files_of(artifact: Artifact, *, graph: bool = True) -> dict[str, Path]:
    """Where each of an artifact's files goes in a model's directory.

    Args:
        artifact: An export, or a variant of one.
        graph: Whether to serve its graph too, or only take labels and warm-up data.
    """
    placed = {}
    for path in artifact.path.rglob("*"):
        if path.is_file() and path.name != ABOUT:
            name = path.relative_to(artifact.path).as_posix()
            if not name.startswith(GRAPH):
                placed[name] = path
            elif graph:
                placed[f"{VERSION}/{name}"] = path
    return placed


def _written(model: Model) -> dict[str, bytes]:
    """The contents of all other files."""
    return {**model.files, CONFIG: model.config.encode(), PASSPORT: model.passport.encode()}


def _write_model(directory: Path, model: Model) -> None:
    directory.mkdir()
    for name, origin in model.links.items():
        (directory / name).parent.mkdir(exist_ok=True)
        _link(origin, directory / name)
    for name, content in _written(model).items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)
