"""Publishes a repository: lint, hash, bring every file and verify it, manifest, and only then the pointer.

A process killed at any moment leaves the version that was current, and files that the next attempt finds.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from tritonkit.errors import CheckFailed, OutputError
from tritonkit.publishing import contents, refusals
from tritonkit.publishing.contents import Contents, Source
from tritonkit.publishing.keeping import switch
from tritonkit.publishing.manifest import File, Manifest, version_of
from tritonkit.publishing.meter import Meter
from tritonkit.publishing.places import TRITON_NAME, Place
from tritonkit.publishing.shelf import THREADS, Shelf, now
from tritonkit.repository import lint

Say = Callable[[str], None]


@dataclass(frozen=True)
class Published:
    """What was done.

    Attributes:
        manifest: The version.
        previous: The version that was current before; empty if none was, or if it was this one.
        uploaded: Paths of files that were sent.
        copied: Paths of files that the store copied from another version.
        present: Paths of files that were there already.
        uploaded_bytes: Size of the files that were sent.
        skipped: Files at the top of the repository, which belong to no model.
        notes: What else a person should know.
    """

    manifest: Manifest
    previous: str
    uploaded: tuple[str, ...]
    copied: tuple[str, ...]
    present: tuple[str, ...]
    uploaded_bytes: int
    skipped: tuple[str, ...]
    notes: tuple[str, ...] = ()


def publish(repository: Path, place: Place, say: Say = lambda _text: None, *, dry_run: bool = False) -> Published:
    """Publish ``repository`` at ``place``, and make it current.

    Args:
        repository: A model repository.
        place: The destination; a folder is made, a bucket is not.
        say: Is told how far it is.
        dry_run: Only find out what would be done.

    Raises:
        CheckFailed: Lint finds errors, a file changed meanwhile, or what is stored is not what was sent.
        OutputError: The repository or the destination cannot be used.
        MissingError: A package, credentials, the network or space is missing.
    """
    say("lint")
    _lint(repository)
    _check_apart(repository, place)
    found = contents.read(repository)
    _check_names(found, place)
    shelf = Shelf(place)
    with refusals.explained(place), ThreadPoolExecutor(THREADS) as pool:
        shelf.check(make=True)
        files = contents.digest(found, pool, Meter(say, "hash", len(found.sources), found.size))
        manifest = Manifest(version_of(files), now(), files, *facts(repository))
        transfer = _Transfer(shelf, manifest, found, pool)
        return transfer.plan() if dry_run else transfer.run(say)


def _lint(repository: Path) -> None:
    found = lint.check(repository)
    errors = [one for one in found.findings if one.severity == "error" and not one.model.startswith(".")]
    if errors:
        shown = [f"  {one.model}: {one.message} ({one.rule})" for one in errors[:5]]
        more = [f"  and {len(errors) - 5} more"] if len(errors) > 5 else []
        raise CheckFailed(
            "\n".join([f"lint finds errors in {repository}; nothing was published:", *shown, *more]),
            f"`tritonkit lint {repository}` says how to correct them",
        )


def facts(repository: Path) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """What the chart has to know of a repository beside its place.

    Returns:
        Names of its ensembles, whose requests Triton counts once more for every step, and of each model what it needs
        that NVIDIA's image lacks.
    """
    found = lint.contents.read(repository, lint.Options())
    names = tuple(name for name, model in found.models.items() if model.ensemble and not name.startswith("."))
    return names, lint.needs.of_image(found)


def _check_apart(repository: Path, place: Place) -> None:
    if place.scheme != "file":
        return
    ours, theirs = repository.resolve(), Path(place.root).resolve()
    if ours == theirs or ours in theirs.parents or theirs in ours.parents:
        raise OutputError(f"{place.root} and the repository lie in each other", "name a folder apart from it")


def _check_names(found: Contents, place: Place) -> None:
    """Triton's pattern for S3 at another endpoint knows few characters."""
    if not place.endpoint or place.scheme != "s3":
        return
    for source in found.sources:
        strange = [part for part in source.path.split("/") if not TRITON_NAME.fullmatch(part)]
        if strange:
            raise OutputError(
                f"Triton cannot read a name like {strange[0]!r} ({source.path}) from S3 at {place.endpoint}",
                "use letters, digits, dots, hyphens, underscores",
            )


class _Transfer:
    """Brings one version to a shelf."""

    def __init__(self, shelf: Shelf, manifest: Manifest, found: Contents, pool: ThreadPoolExecutor) -> None:
        self.shelf, self.manifest, self.found, self.pool = shelf, manifest, found, pool
        self.version = manifest.version
        self.pointer = shelf.pointer()
        self.stored = shelf.files(self.version)
        published = shelf.manifests()
        self.known = next((one for one in published if one.version == self.version), None)
        # Content to a file that has it, in the newest of the other versions.
        self.elsewhere = {
            (file.sha256, file.size): (one.version, file.path)
            for one in reversed(published) if one.version != self.version for file in one.files
        }  # fmt: skip
        strange = sorted(self.stored.keys() - {file.path for file in manifest.files})
        if strange:
            raise OutputError(
                f"{shelf.file(self.version, strange[0])} is not part of that version, and Triton would read it",
                "remove it",
            )

    def plan(self) -> Published:
        """What :meth:`run` would do, by names and sizes."""
        said = {file.path: self._intended(file) for file in self.manifest.files}
        return self._told(said, ())

    def _intended(self, file: File) -> str:
        if file.path in self.stored and self.stored[file.path].size == file.size:
            return "present"
        return "copied" if (file.sha256, file.size) in self.elsewhere else "uploaded"

    def run(self, say: Say) -> Published:
        """Do it."""
        meter = Meter(say, "upload", len(self.manifest.files), self.manifest.size)
        said = self._bring_all(meter)
        for source in self.found.sources:
            contents.check_unchanged(source)
        say("switch")
        self.shelf.settle(self.version)
        if self.known is None:
            self.shelf.put_manifest(self.manifest)
        notes = switch(self.shelf, self.known or self.manifest, self.pointer)
        return self._told(said, notes)

    def _bring_all(self, meter: Meter) -> dict[str, str]:
        pairs = zip(self.found.sources, self.manifest.files, strict=True)
        tasks = {file.path: self.pool.submit(self._bring, source, file, meter) for source, file in pairs}
        try:
            wait(tasks.values(), return_when=FIRST_EXCEPTION)
            for task in tasks.values():
                if task.done():
                    task.result()
        except BaseException:
            self.pool.shutdown(cancel_futures=True)
            raise
        return {path: task.result() for path, task in tasks.items()}

    def _bring(self, source: Source, file: File, meter: Meter) -> str:
        done = self._bring_cheaply(file)
        if not done:
            contents.check_unchanged(source)
            self.shelf.upload(self.version, file.path, source.origin or contents.PLACEHOLDER_TEXT)
            if not self.shelf.holds(self.version, file):
                contents.check_unchanged(source)
                raise CheckFailed(
                    f"{self.shelf.file(self.version, file.path)} is not what was sent: its SHA-256 differs; "
                    "nothing was switched",
                    "publish again; if it persists, something between here and the store changes data",
                )
            done = "uploaded"
        meter.add(file.size, files=1)
        return done

    def _bring_cheaply(self, file: File) -> str:
        """Without sending it: it is there, or another version has it. Empty if it has to be sent."""
        stored = self.stored.get(file.path)
        if stored and stored.size == file.size and self.shelf.holds(self.version, file):
            return "present"
        origin = self.elsewhere.get((file.sha256, file.size))
        if origin is None:
            return ""
        try:
            self.shelf.copy(self.version, file, origin)
            return "copied" if self.shelf.holds(self.version, file) else ""
        except FileNotFoundError:  # pruned meanwhile
            return ""

    def _told(self, said: dict[str, str], notes: tuple[str, ...]) -> Published:
        by_kind = {
            kind: tuple(path for path, done in said.items() if done == kind)
            for kind in ("uploaded", "copied", "present")
        }
        sizes = {file.path: file.size for file in self.manifest.files}
        previous = self.pointer.version if self.pointer and self.pointer.version != self.version else ""
        named = replace(self.known, needs=self.manifest.needs) if self.known else self.manifest  # older ones lack it
        return Published(
            named, previous, **by_kind,
            uploaded_bytes=sum(sizes[path] for path in by_kind["uploaded"]), skipped=self.found.skipped,
            notes=(*self.found.notes, *notes),
        )  # fmt: skip
