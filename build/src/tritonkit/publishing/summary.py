"""Says what publishing did, in the lines that `tritonkit publish` and `tritonkit deploy` print."""

from __future__ import annotations

from tritonkit.cli.output import counted
from tritonkit.publishing.locations import Place
from tritonkit.publishing.publish import Published
from tritonkit.publishing.transfer_progress import human


def lines(result: Published, place: Place, *, dry_run: bool = False) -> list[str]:
    """The outcome of publishing at ``place``, the most important line first.

    Args:
        result: What :func:`tritonkit.publishing.publish` returned.
        place: The destination.
        dry_run: Whether it was only looked at.
    """
    manifest = result.manifest
    models, files = counted(len(manifest.models), "model"), counted(len(manifest.files), "file")
    return [
        f"version {manifest.version} {'would be' if dry_run else 'is'} published at {place}, and current",
        f"  {models}, {files}, {human(manifest.size)}: "
        f"{len(result.uploaded)} uploaded ({human(result.uploaded_bytes)}), {len(result.copied)} copied in the store, "
        f"{len(result.present)} there already",
        *([f"  left out, as they belong to no model: {', '.join(result.skipped)}"] if result.skipped else []),
        *(f"  note: {note}" for note in result.notes),
    ]
