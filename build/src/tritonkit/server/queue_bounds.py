"""Lays out a repository without the queue bounds that make an older Triton stall; the repository stays as it is.

With any bound, Triton before 26.08 can miss the wake-up of an idle instance and look again half a second later
(docs/decisions/0003). Releases that are deployed have that mended, and their configurations should have bounds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format

from tritonkit.repository import model_directory
from tritonkit.repository.model_directory import CONFIG

STALLS_BEFORE = "26.08"
# These read configurations later, or other ones: a copy made now would be out of date or pass them by.
_READS_LATER = ("--model-control-mode", "--model-config-name", "--repository-poll-secs")


def lift(repository: Path, place: Path, arguments: Sequence[str] = ()) -> list[str]:
    """Make ``place`` what ``repository`` is, without the bounds of its queues.

    Args:
        repository: A model repository.
        place: Does not exist yet: becomes a link to it, or a folder of links where a bound is lifted.
        arguments: The server's; with those that let it read configurations later, nothing is lifted.

    Returns:
        Models whose bounds were lifted.
    """
    if reads_later(arguments):
        place.symlink_to(repository.absolute())  # whatever that is when it is read
        return []
    origin = repository.resolve()  # one version of it, though a link is turned meanwhile
    lifted = {folder.name: text for folder in origin.iterdir() if (text := _unbounded(folder))}
    if not lifted:
        place.symlink_to(origin)
        return []
    place.mkdir()
    for entry in origin.iterdir():
        if entry.name not in lifted:
            (place / entry.name).symlink_to(entry)
            continue
        model = place / entry.name
        model.mkdir()
        for inner in entry.iterdir():
            if inner.name != CONFIG:
                (model / inner.name).symlink_to(inner)
        (model / CONFIG).write_text(lifted[entry.name], encoding="utf-8")
    return sorted(lifted)


def reads_later(arguments: Sequence[str]) -> str:
    """The option that lets a server read configurations later, or other ones; empty where none does."""
    return next((name for argument in arguments if (name := argument.partition("=")[0]) in _READS_LATER), "")


def bounded(repository: Path) -> list[str]:
    """Models whose queues have bounds."""
    return sorted(folder.name for folder in repository.resolve().iterdir() if _unbounded(folder))


def lift_in(copy: Path) -> list[str]:
    """Take the bounds out of a copy of a repository; files there may be hard links, so they are replaced.

    Returns:
        Models whose bounds were lifted.
    """
    lifted = {folder: text for folder in sorted(copy.iterdir()) if (text := _unbounded(folder))}
    for folder, text in lifted.items():
        path = folder / CONFIG
        about = path.stat()
        path.unlink()
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    return [folder.name for folder in lifted]


def _unbounded(folder: Path) -> str:
    """The configuration without bounds; empty where it has none, or cannot be read, which Triton will say."""
    config = model_directory.find_config(folder)
    if config is None:
        return ""
    batching = config.dynamic_batching
    policies = [batching.default_queue_policy, *batching.priority_queue_policy.values()]
    if not any(
        policy.max_queue_size or policy.default_timeout_microseconds or policy.allow_timeout_override
        for policy in policies
    ):
        return ""
    batching.ClearField("default_queue_policy")
    batching.priority_queue_policy.clear()
    return text_format.MessageToString(config)
