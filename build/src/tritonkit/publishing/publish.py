"""Publishes a repository: lint, hash, bring every file and verify it, manifest, and only then the pointer.

A process killed at any moment leaves the version that was current, and files that the next attempt finds.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from tritonkit.errors import CheckFailed, OutputError
from tritonkit.publishing import contents, errors
from tritonkit.publishing.contents import Contents, Source
from tritonkit.publishing.destination import THREADS, Destination, now
from tritonkit.publishing.locations import TRITON_NAME, Place
from tritonkit.publishing.manifest import File, Manifest, version_of
from tritonkit.publishing.transfer_progress import Meter
from tritonkit.publishing.version_history import switch
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
        say: Called with how far it is.
        dry_run: Only find out what would be done.

    Raises:
        CheckFailed: Lint finds errors, a file changed meanwhile, or what is stored is not what was sent.
        OutputError: The repository or the destination cannot be used.
        MissingError: A package, credentials, the network or space is missing.
    """
    say("lint")
    _lint(repository)
    _check_apart(repository, place)
    content = contents.read(repository)
    _check_names(content, place)
    destination = Destination(place)
    with errors.explained(place), ThreadPoolExecutor(THREADS) as pool:
        destination.check(make=True)
        files = contents.digest(content, pool, Meter(say, "hash", len(content.sources), content.size))
        manifest = Manifest(version_of(files), now(), files, *facts(repository))
        transfer = _Transfer(destination, manifest, content, pool)
        return transfer.plan() if dry_run else transfer.run(say)


def _lint(repository: Path) -> None:
    report = lint.check(repository)
    errors = [
        finding for finding in report.findings if finding.severity == "error" and not finding.model.startswith(".")
    ]
    if errors:
        shown = [f"  {finding.model}: {finding.message} ({finding.rule})" for finding in errors[:5]]
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
    models = lint.contents.read(repository, lint.Options())
    names = tuple(name for name, model in models.models.items() if model.ensemble and not name.startswith("."))
    return names, lint.needs.of_image(models)


def _check_apart(repository: Path, place: Place) -> None:
    if place.scheme != "file":
        return
    ours, theirs = repository.resolve(), Path(place.root).resolve()
    if ours == theirs or ours in theirs.parents or theirs in ours.parents:
        raise OutputError(f"{place.root} and the repository lie in each other", "name a folder apart from it")


def _check_names(content: Contents, place: Place) -> None:
    """Triton's pattern for S3 at another endpoint knows few characters."""
    if not place.endpoint or place.scheme != "s3":
        return
    for source in content.sources:
        strange = [part for part in source.path.split("/") if not TRITON_NAME.fullmatch(part)]
        if strange:
            raise OutputError(
                f"Triton cannot read a name like {strange[0]!r} ({source.path}) from S3 at {place.endpoint}",
                "use letters, digits, dots, hyphens, underscores",
            )


class _Transfer:
    """Brings one version to a destination."""

    def __init__(
        self, destination: Destination, manifest: Manifest, content: Contents, pool: ThreadPoolExecutor
    ) -> None:
        self.destination, self.manifest, self.content, self.pool = destination, manifest, content, pool
        self.version = manifest.version
        self.pointer = destination.pointer()
        self.stored = destination.files(self.version)
        published = destination.manifests()
        self.known = next((entry for entry in published if entry.version == self.version), None)
        # Content to a file that has it, in the newest of the other versions.
        self.elsewhere = {
            (file.sha256, file.size): (entry.version, file.path)
            for entry in reversed(published) if entry.version != self.version for file in entry.files
        }  # fmt: skip
        strange = sorted(self.stored.keys() - {file.path for file in manifest.files})
        if strange:
            raise OutputError(
                f"{destination.file(self.version, strange[0])} is not part of that version, and Triton would read it",
                "remove it",
            )

    def plan(self) -> Published:
        """What :meth:`run` would do, by names and sizes."""
        outcomes = {file.path: self._intended(file) for file in self.manifest.files}
        return self._report(outcomes, ())

    def _intended(self, file: File) -> str:
        if file.path in self.stored and self.stored[file.path].size == file.size:
            return "present"
        return "copied" if (file.sha256, file.size) in self.elsewhere else "uploaded"

    def run(self, say: Say) -> Published:
        """Publish the version."""
        meter = Meter(say, "upload", len(self.manifest.files), self.manifest.size)
        outcomes = self._bring_all(meter)
        for source in self.content.sources:
            contents.check_unchanged(source)
        say("switch")
        self.destination.settle(self.version)
        if self.known is None:
            self.destination.put_manifest(self.manifest)
        notes = switch(self.destination, self.known or self.manifest, self.pointer)
        return self._report(outcomes, notes)

    def _bring_all(self, meter: Meter) -> dict[str, str]:
        pairs = zip(self.content.sources, self.manifest.files, strict=True)
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
        outcome = self._bring_cheaply(file)
        if not outcome:
            contents.check_unchanged(source)
            self.destination.upload(self.version, file.path, source.origin or contents.PLACEHOLDER_TEXT)
            if not self.destination.holds(self.version, file):
                contents.check_unchanged(source)
                raise CheckFailed(
                    f"{self.destination.file(self.version, file.path)} is not what was sent: its SHA-256 differs; "
                    "nothing was switched",
                    "publish again; if it persists, something between here and the store changes data",
                )
            outcome = "uploaded"
        meter.add(file.size, files=1)
        return outcome

    def _bring_cheaply(self, file: File) -> str:
        """Bring a file without sending it, as it is there or another version has it; empty if it has to be sent."""
        stored = self.stored.get(file.path)
        if stored and stored.size == file.size and self.destination.holds(self.version, file):
            return "present"
        origin = self.elsewhere.get((file.sha256, file.size))
        if origin is None:
            return ""
        try:
            self.destination.copy(self.version, file, origin)
            return "copied" if self.destination.holds(self.version, file) else ""
        except FileNotFoundError:  # pruned meanwhile
            return ""

    def _report(self, outcomes: dict[str, str], notes: tuple[str, ...]) -> Published:
        by_kind = {
            kind: tuple(path for path, outcome in outcomes.items() if outcome == kind)
            for kind in ("uploaded", "copied", "present")
        }
        sizes = {file.path: file.size for file in self.manifest.files}
        previous = self.pointer.version if self.pointer and self.pointer.version != self.version else ""
        named = replace(self.known, needs=self.manifest.needs) if self.known else self.manifest  # older ones lack it
        return Published(
            named, previous, **by_kind,
            uploaded_bytes=sum(sizes[path] for path in by_kind["uploaded"]), skipped=self.content.skipped,
            notes=(*self.content.notes, *notes),
        )  # fmt: skip
