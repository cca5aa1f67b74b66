"""Which files in a model's directory tritonkit wrote, and so may replace and remove; all others stay.

A passport has the SHA-256 of every file that was written with it. What it does not list is somebody else's, and so
is what it lists with another content: such a file is never lost without a word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tritonkit import passport as passport_files
from tritonkit.dependencies import sha256
from tritonkit.passport import ModelPassport
from tritonkit.repository.model_directory import CONFIG, PASSPORT, is_version


@dataclass(frozen=True)
class Survey:
    """What a build finds in a model's directory.

    Attributes:
        kept: Paths that stay unchanged: other versions, and what tritonkit did not write.
        foreign: The paths among ``kept`` that tritonkit did not write.
        in_the_way: Paths at which the build has to write, and which hold what it did not write.
    """

    kept: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    in_the_way: tuple[str, ...] = ()


def files_of(directory: Path) -> dict[str, str]:
    """Path to SHA-256 of what was written with a model's last passport; empty where there is none, or it lists none."""
    passport = passport_files.find(directory / PASSPORT)
    return (passport.files or {}) if passport else {}


def packages_of(directories: Iterable[Path]) -> set[str]:
    """What Python models in these directories import, as their passports say: each ``name==version``."""
    packages: set[str] = set()
    for directory in directories:
        if passport := passport_files.find(directory / PASSPORT):
            packages.update(passport.packages)
    return packages


def passports(directory: Path) -> dict[int, ModelPassport]:
    """The passport of each version that tritonkit built into a model's directory.

    The version that was built last has its own beside ``config.pbtxt``, the others in their folders.
    """
    by_version = {
        int(path.parent.name): passport
        for path in directory.glob(f"*/{PASSPORT}")
        if is_version(path.parent.name) and (passport := passport_files.find(path))
    }
    latest = passport_files.find(directory / PASSPORT)
    return by_version | ({latest.version: latest} if latest else {})


def survey(directory: Path, new: Mapping[str, Path | bytes]) -> Survey:
    """Look at what lies in a model's directory before ``new`` is written there.

    Args:
        directory: The model's; it need not exist.
        new: What will be written: path to content, or to the file that has it.
    """
    if directory.is_symlink():
        return Survey()
    known = passports(directory)
    latest = passport_files.find(directory / PASSPORT)
    written = _written(known)
    built = _versions(new)
    unlisted = latest is not None and latest.files is None  # of tritonkit up to 0.1: it replaced whatever it came upon
    folders = {parent.as_posix() for path in new for parent in Path(path).parents}
    kept, foreign, in_the_way = [], [], []
    for path in _entries(directory):
        place = directory / path
        empty = place.is_dir() and not place.is_symlink()
        if path in new and not empty:
            if not (
                unlisted
                or path == CONFIG
                or _is_passport(path)
                or _holds(place, new[path])
                or _is_as_written(place, written.get(path))
            ):
                in_the_way.append(path)
        elif path in folders or any(parent.as_posix() in new for parent in Path(path).parents):
            if not (empty or _is_as_written(place, written.get(path))):
                in_the_way.append(path)
        elif _of_other_version(path, built):
            kept.append(path)
            if int(path.partition("/")[0]) not in known:
                foreign.append(path)
        elif not (_is_passport(path) or _is_engine(place) or _is_as_written(place, written.get(path))):
            kept.append(path)
            foreign.append(path)
    return Survey(tuple(kept), tuple(foreign), tuple(in_the_way))


def left_over(directory: Path, new: Collection[str]) -> bool:
    """Whether something lies in a model's directory that an earlier build wrote and this one does not."""
    built = _versions(new)
    written = {path for path in _written(passports(directory)) if not _of_other_version(path, built)}
    engines = (
        path.relative_to(directory).as_posix()
        for version in built
        for path in directory.glob(f"{version}/*.plan")
        if _is_engine(path)
    )
    return any((directory / path).is_file() for path in written - set(new)) or any(path not in new for path in engines)


def _written(known: Mapping[int, ModelPassport]) -> dict[str, str]:
    return {path: digest for passport in known.values() for path, digest in (passport.files or {}).items()}


def _versions(paths: Collection[str]) -> set[str]:
    """The version folders that some of the paths are in."""
    return {folder for path in paths if is_version(folder := path.partition("/")[0])}


def _of_other_version(path: str, built: Collection[str]) -> bool:
    folder = path.partition("/")[0]
    return is_version(folder) and folder not in built


def _is_passport(path: str) -> bool:
    """Whether it is where a passport of a model or of one of its versions belongs."""
    folder, _, name = path.rpartition("/")
    return name == PASSPORT and (not folder or is_version(folder))


def _entries(directory: Path) -> Iterator[str]:
    """Files, links and empty folders, but for the bytecode that Python leaves beside a ``model.py`` that ran."""
    for path in sorted(directory.rglob("*")):
        if "__pycache__" in path.relative_to(directory).parts:
            continue
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir()):
            yield path.relative_to(directory).as_posix()


def _holds(place: Path, content: Path | bytes) -> bool:
    if place.is_symlink() or not place.is_file():
        return False
    if isinstance(content, bytes):
        return place.read_bytes() == content
    return place.samefile(content) or (
        place.stat().st_size == content.stat().st_size and sha256(place) == sha256(content)
    )


def _is_as_written(place: Path, digest: str | None) -> bool:
    """Whether a file is what a passport says was written there; asked last, as it reads the whole file."""
    return digest is not None and place.is_file() and not place.is_symlink() and sha256(place) == digest


def _is_engine(place: Path) -> bool:
    """A plan that `tritonkit engine` built, or the passport beside it."""
    passport = place if place.name.endswith(".plan.json") else place.with_name(f"{place.name}.json")
    return passport.name.endswith(".plan.json") and passport_files.find_engine(passport) is not None


def is_engine_as_built(plan: Path) -> bool:
    """Whether a plan is what its passport says was built, or gone, with only that passport left."""
    passport = passport_files.find_engine(plan.with_name(f"{plan.name}.json"))
    return passport is not None and (not plan.exists() or _is_as_written(plan, passport.plan_sha256))
