"""Lays out a model repository: every model's directory built beside, then the whole swapped in by one rename.

Models in the repository that are not being built stay as they are (hard links, so no byte is copied), and so do other
versions of one that is, and whatever in its directory tritonkit did not write (:mod:`tritonkit.repository.ownership`).
"""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tritonkit import atomic
from tritonkit import passport as passport_files
from tritonkit.dependencies import sha256
from tritonkit.errors import OutputError
from tritonkit.passport import FIRST, ModelPassport
from tritonkit.repository import config, model_directory, ownership
from tritonkit.repository.ownership import Survey
from tritonkit.store import ABOUT, GRAPH, Artifact

CONFIG, PASSPORT = model_directory.CONFIG, model_directory.PASSPORT
VERSION = str(FIRST)


@dataclass(frozen=True)
class Model:
    """One model's directory to be.

    Attributes:
        name: The directory's name, and the model's.
        config: The text of ``config.pbtxt``.
        passport: What ``passport.json`` says, to which the hashes of all files are added.
        version: Which version of the model the passport is of; versions that are not written stay as they are.
        links: Files that exist elsewhere: path in the directory to their place.
        files: Files to be written: path in the directory to content.
        digests: SHA-256 of linked files, where it is known: a file that needs no copy is then not read again.
        beside: Passports of other versions that are written with it.
    """

    name: str
    config: str
    passport: ModelPassport
    version: int = FIRST
    links: Mapping[str, Path] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[int, ModelPassport] = field(default_factory=dict)

    @property
    def passports(self) -> dict[str, ModelPassport]:
        """Every passport to be, by its path in the directory."""
        others = {f"{version}/{PASSPORT}": passport for version, passport in self.beside.items()}
        return {PASSPORT: self.passport, **others}

    @property
    def content(self) -> dict[str, Path | bytes]:
        """Every file to be: path in the directory to content, or to the file that has it."""
        written = {CONFIG: self.config.encode()}
        written |= {path: passport.to_text().encode() for path, passport in self.passports.items()}
        return {**self.links, **self.files, **written}


def is_current(repository: Path, models: Sequence[Model]) -> bool:
    """Whether the repository already holds exactly these models, whatever else lies beside them."""
    return all(_is_current(repository / model.name, model) for model in models)


def _is_current(directory: Path, model: Model) -> bool:
    content, passports = model.content, model.passports
    try:
        return not ownership.left_over(directory, content) and all(
            _says(directory / path, passports[path]) if path in passports else _is_same(directory / path, origin)
            for path, origin in content.items()
        )
    except OSError:
        return False


def _is_same(path: Path, origin: Path | bytes) -> bool:
    if isinstance(origin, Path):
        return path.samefile(origin) or _same_size(path, origin)
    return path.read_bytes() == origin


def _says(path: Path, passport: ModelPassport) -> bool:
    """Whether the passport in a file says the same, with a list of what was written."""
    written = passport_files.find(path)
    return written is not None and written.files is not None and written.is_same_build(passport)


def _same_size(a: Path, b: Path) -> bool:
    """Enough beside an equal passport, which has its hash: it tells a truncated copy."""
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
        models: What to put there; everything else in it stays, in their own directories too.
        overwrite: Replace files that were edited by hand, or that tritonkit did not write, and links, where a model
            has to be written.

    Raises:
        OutputError: What tritonkit did not write is in the way, or the place cannot be written.
        MissingError: The disk is full.
    """
    surveys = {model.name: ownership.survey(repository / model.name, model.content) for model in models}
    if not overwrite:
        for model in models:
            survey = surveys[model.name]
            _check_links(repository / model.name, survey)
            _check_unedited(repository / model.name / CONFIG, model)
            _check_free(repository / model.name, survey)
    repository = repository.resolve()
    with atomic.staging(repository) as stage:
        new = stage / repository.name
        new.mkdir()
        new.chmod(0o755)
        if repository.exists():
            _link_others(repository, new, {model.name for model in models})
        for model in models:
            _write_model(new / model.name, model)
            _keep(repository / model.name, new / model.name, model, surveys[model.name])
        atomic.put(new, repository)


def foreign(repository: Path, models: Sequence[Model]) -> tuple[str, ...]:
    """Paths in the repository of what lies in the directories of ``models``, and tritonkit did not write."""
    return tuple(
        f"{model.name}/{path}"
        for model in models
        for path in ownership.survey(repository / model.name, model.content).foreign
    )


def _check_links(directory: Path, survey: Survey) -> None:
    """A link would become a folder or file of the repository's own, and what it points to stay as it was."""
    for path in (directory, *(directory / path for path in survey.in_the_way)):
        if path.is_symlink():
            raise OutputError(
                f"{path} is a link ({path.readlink()}): the build would replace it, and leave what it points to",
                "remove the link, or give --overwrite to have it replaced",
            )


def _check_free(directory: Path, survey: Survey) -> None:
    if not survey.in_the_way:
        return
    more = f" and {len(survey.in_the_way) - 1} more" if len(survey.in_the_way) > 1 else ""
    raise OutputError(
        f"{directory / survey.in_the_way[0]}{more}: not as tritonkit wrote it, and would be lost",
        "move it away to keep it, or give --overwrite to have it replaced",
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


def _link(source: str | Path, target: str | Path) -> bool:
    """A hard link where the filesystem allows one, else a copy; whether it is the link."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
        return False
    return True


def files_of(artifact: Artifact, version: int, *, graph: bool = True) -> dict[str, Path]:
    """Where each of an artifact's files goes in a model's directory.

    Args:
        artifact: An export, or a variant of one.
        version: Which version of the model it is.
        graph: Whether to serve its graph too, or only take labels and warm-up data.
    """
    placed = {}
    for path in artifact.path.rglob("*"):
        if path.is_file() and path.name != ABOUT:
            name = path.relative_to(artifact.path).as_posix()
            if not name.startswith(GRAPH):
                placed[name] = path
            elif graph:
                placed[f"{version}/{name}"] = path
    return placed


def _write_model(directory: Path, model: Model) -> None:
    directory.mkdir()
    hashes = {}
    for name, content in model.content.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        known = None
        if not isinstance(content, Path):
            (directory / name).write_bytes(content)
        elif _link(content, directory / name):
            known = model.digests.get(name)
        hashes[name] = known or sha256(directory / name)
    for name, passport in model.passports.items():
        below = name.removesuffix(PASSPORT)
        listed = {path: digest for path, digest in hashes.items() if path.startswith(below) and path != name}
        (directory / name).write_text(passport.to_text(listed), encoding="utf-8")


def _keep(old: Path, new: Path, model: Model, survey: Survey) -> None:
    """Take over what stays of a model's directory; the version that was built last before keeps its passport."""
    for path in survey.kept:
        (new / path).parent.mkdir(parents=True, exist_ok=True)
        if (old / path).is_dir() and not (old / path).is_symlink():
            (new / path).mkdir(exist_ok=True)
        else:
            _link(old / path, new / path)
    last = passport_files.find(old / PASSPORT)
    if last is None or last.version == model.version:
        return
    place = f"{last.version}/{PASSPORT}"
    if place not in model.content and (new / str(last.version)).is_dir():
        (new / place).unlink(missing_ok=True)
        below = f"{last.version}/"
        hashes = {path: digest for path, digest in (last.files or {}).items() if path.startswith(below)}
        (new / place).write_text(last.to_text(hashes), encoding="utf-8")
