"""Switches, rolls back and prunes versions, so that the pointer never names one that is not whole.

Publishers and pruners may run at the same time on several machines. A publisher writes the pointer and then looks
whether the manifest is still there; a pruner removes the manifest and then looks where the pointer is. Whichever comes
second sees the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tritonkit.errors import CheckFailed, InputError, OutputError
from tritonkit.publishing import errors
from tritonkit.publishing.destination import Destination, Pointer
from tritonkit.publishing.manifest import Manifest

GRACE_MINUTES = 60 * 24  # longer than any upload takes


@dataclass(frozen=True)
class Version:
    """One line of a list of versions: its manifest, and whether it is current or was before."""

    manifest: Manifest
    current: bool
    previous: bool

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        manifest = self.manifest
        return {
            "version": manifest.version, "published": manifest.published, "models": list(manifest.models),
            "files": len(manifest.files), "bytes": manifest.size, "current": self.current, "previous": self.previous,
        }  # fmt: skip


def versions(destination: Destination) -> list[Version]:
    """Every published version, the newest first."""
    with errors.explained(destination.place):
        destination.check()
        pointer = destination.pointer() or Pointer("", "", "")
        return [
            Version(manifest, manifest.version == pointer.version, manifest.version == pointer.previous)
            for manifest in destination.manifests()
        ]


def switch(destination: Destination, manifest: Manifest, seen: Pointer | None) -> tuple[str, ...]:
    """Make a version current; returns what a person should know of it.

    Args:
        destination: The destination.
        manifest: The version.
        seen: The pointer when this process began.

    Raises:
        CheckFailed: The version is not whole, or was pruned meanwhile.
    """
    notes = []
    check_whole(destination, manifest)
    before = destination.pointer()
    if before and before.version != manifest.version and (seen is None or before.version != seen.version):
        notes.append(f"another publisher made {before.version} current meanwhile; now {manifest.version} is")
    if before is None or before.version != manifest.version:
        destination.switch(manifest.version, before.version if before else "")
    if destination.manifest(manifest.version) is None:
        if before:
            destination.switch(before.version, before.previous)
        raise CheckFailed(f"{manifest.version} was pruned while it was being published", "publish again")
    after = destination.pointer()
    if after and after.version != manifest.version:
        notes.append(f"another publisher made {after.version} current right after; the last one wins")
    return tuple(notes)


def roll_back(destination: Destination, version: str = "") -> tuple[Manifest, str]:
    """Make an older version current again.

    Args:
        destination: The destination.
        version: Its name or the first digits of it; the one that was current before if not given.

    Returns:
        The version, and the one that was current.

    Raises:
        InputError: No version, or more than one, begins so.
        CheckFailed: The version is not whole.
    """
    with errors.explained(destination.place):
        destination.check()
        pointer = destination.pointer()
        if pointer is None:
            raise OutputError(f"nothing is published at {destination.place}", "`tritonkit publish` does that")
        if not version and not pointer.previous:
            raise InputError(f"no version was current before {pointer.version}", _list_hint(destination))
        if not version and destination.manifest(pointer.previous) is None:
            raise InputError(
                f"version {pointer.previous}, which was current before, was pruned from {destination.place}",
                f"name another: {_list_hint(destination)}",
            )
        manifest = _find(destination, version or pointer.previous)
        check_whole(destination, manifest)
        switch(destination, manifest, pointer)
        return manifest, pointer.version


def _find(destination: Destination, version: str) -> Manifest:
    matches = [manifest for manifest in destination.manifests() if manifest.version.startswith(version)]
    if len(matches) != 1:
        what = "several versions begin with" if matches else "there is no version"
        raise InputError(f"{what} {version} at {destination.place}", _list_hint(destination))
    return matches[0]


def _list_hint(destination: Destination) -> str:
    return f"`tritonkit versions {destination.place}` lists them"


def check_whole(destination: Destination, manifest: Manifest) -> None:
    """Refuse a version of which a file is not there, or has another size.

    Raises:
        CheckFailed: A file is missing, or has another size.
    """
    stored = destination.files(manifest.version)
    for file in manifest.files:
        if file.path not in stored or stored[file.path].size != file.size:
            what = "has another size than it had" if file.path in stored else "is missing"
            raise CheckFailed(
                f"version {manifest.version} is not whole: {destination.file(manifest.version, file.path)} {what}",
                "publish that repository again, which completes it",
            )


def prune(
    destination: Destination,
    keep: int,
    grace_minutes: float = GRACE_MINUTES,
    say: Callable[[str], None] = lambda _text: None,
) -> list[str]:
    """Remove all but the newest versions, and the files of uploads that were given up; returns the names removed.

    Args:
        destination: The destination.
        keep: How many published versions stay. The current one always does, and counts; the next is the one that was
            current before it, to which a rollback goes.
        grace_minutes: Files of an unpublished version stay while the newest is younger.
        say: Called with what is being removed.

    Raises:
        InputError: ``keep`` is less than 1.
        OutputError: A version that would go has a file that was not published with it; nothing is removed then.
    """
    if keep < 1:
        raise InputError(f"cannot keep {keep} versions: the current one always stays", "say 1 or more")
    with errors.explained(destination.place):
        destination.check()
        pointer = destination.pointer()
        current, previous = (pointer.version, pointer.previous) if pointer else ("", "")
        say("list versions")
        published = destination.manifests()
        others = [manifest for manifest in published if manifest.version != current]
        others.sort(key=lambda manifest: manifest.version != previous)  # the others stay in their order
        room = keep - (len(others) < len(published))
        gone = []
        for manifest in others[room:]:
            _check_foreign(destination, manifest)
        for manifest in others[room:]:
            say(f"remove {manifest.version}, {len(manifest.files)} files")
            if _remove(destination, manifest):
                gone.append(manifest.version)
        say("look for uploads that were given up")
        before = datetime.now(UTC) - timedelta(minutes=grace_minutes)
        known = {manifest.version for manifest in published}
        for version in destination.started():
            if version not in known and _is_abandoned(destination, version, before):
                destination.drop_files(version)
                gone.append(version)
        destination.sweep(before)
        return gone


def _check_foreign(destination: Destination, manifest: Manifest) -> None:
    foreign = sorted(destination.files(manifest.version).keys() - {file.path for file in manifest.files})
    if foreign:
        raise OutputError(
            f"{destination.file(manifest.version, foreign[0])} was not published with version {manifest.version}, and "
            "would go with it; nothing was removed",
            "move it away, and prune again",
        )


def _remove(destination: Destination, manifest: Manifest) -> bool:
    destination.drop_manifest(manifest.version)
    pointer = destination.pointer()
    if pointer and pointer.version == manifest.version:  # made current since we looked
        destination.put_manifest(manifest)
        return False
    destination.drop_files(manifest.version)
    return True


def _is_abandoned(destination: Destination, version: str, before: datetime) -> bool:
    young = any(file.written >= before for file in destination.files(version).values())
    return not young and destination.manifest(version) is None
