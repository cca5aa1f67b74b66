"""``tritonkit publish``, ``versions``, ``rollback`` and ``fetch``: repositories in object stores and shared folders."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from tritonkit.cli.interrupt import leaving_at_once
from tritonkit.cli.output import Verbs, counted, make_table, out, print_json

if TYPE_CHECKING:
    from tritonkit.publishing import Place, Published
    from tritonkit.publishing.manifest import Manifest

_MOST_MINUTES = 60 * 24 * 365 * 10
_DESTINATION = "s3://bucket/folder, gs://…, az://container/…, file:///folder, or a path"


def add(verbs: Verbs, _common: argparse.ArgumentParser, report: argparse.ArgumentParser) -> None:
    """Add the arguments of the four."""
    place = argparse.ArgumentParser(add_help=False, parents=[report])
    place.add_argument(
        "--endpoint-url", metavar="URL", help="an S3-compatible store that is not Amazon's, or an emulator"
    )
    values = argparse.ArgumentParser(add_help=False, parents=[place])
    values.add_argument("--values", type=Path, metavar="FILE", help="write the Helm values that name the version")

    publish = verbs.add_parser(
        "publish", parents=[values], help="upload a repository as a new version, switch to it",
        examples=["tritonkit publish model_repository s3://my-models/prod --values version.yaml"],
    )  # fmt: skip
    publish.add_argument(
        "repository", type=Path, nargs="?", default=Path("model_repository"), help="default: %(default)s"
    )
    publish.add_argument("destination", help=_DESTINATION)
    publish.add_argument("--dry-run", action="store_true", help="say what would be uploaded, write nothing")
    publish.set_defaults(command=_publish)

    versions = verbs.add_parser(
        "versions", parents=[place], help="list published versions, remove old ones",
        examples=["tritonkit versions s3://my-models/prod", "tritonkit versions s3://my-models/prod --prune 5"],
    )  # fmt: skip
    versions.add_argument("destination", help=_DESTINATION)
    versions.add_argument(
        "--prune", type=int, metavar="KEEP", help="remove all but the KEEP newest and the current one"
    )
    versions.add_argument(
        "--grace",
        type=float,
        metavar="MINUTES",
        help="with --prune: unfinished uploads stay while younger; default: 1440",
    )
    versions.set_defaults(command=_versions)

    rollback = verbs.add_parser(
        "rollback", parents=[values], help="make an older version current again",
        examples=["tritonkit rollback s3://my-models/prod"],
    )  # fmt: skip
    rollback.add_argument("destination", help=_DESTINATION)
    rollback.add_argument("version", nargs="?", default="", help="default: the one that was current before")
    rollback.set_defaults(command=_rollback)

    fetch = verbs.add_parser(
        "fetch", parents=[place], help="download a published version, verified, into a folder",
        examples=["tritonkit fetch s3://my-models/prod model_repository"],
    )  # fmt: skip
    fetch.add_argument("uri", help="DESTINATION/versions/VERSION, or a destination for its current version")
    fetch.add_argument("directory", type=Path)
    fetch.set_defaults(command=_fetch)


def _publish(options: argparse.Namespace) -> int:
    from tritonkit import progress, publishing
    from tritonkit.publishing import summary, values_file

    place = publishing.parse(options.destination, options.endpoint_url)
    if options.values:
        values_file.check(options.values)
    with leaving_at_once(), progress.task("publish") as say:
        result = publishing.publish(options.repository, place, say, dry_run=options.dry_run)
    version = result.manifest.version
    if options.values and not options.dry_run:
        values_file.write(options.values, place, result.manifest)
    if options.json:
        print_json(_named(place, result.manifest) | _as_json(result) | {"dry_run": options.dry_run})
        return 0
    for line in summary.lines(result, place, dry_run=options.dry_run):
        _say(line)
    if not options.dry_run:
        _say_next(options, place, version)
        if result.previous:
            _say(f"  `tritonkit rollback {place}` goes back to {result.previous}")
    return 0


def _as_json(result: Published) -> dict[str, Any]:
    return {
        "models": list(result.manifest.models), "files": len(result.manifest.files), "bytes": result.manifest.size,
        "uploaded": list(result.uploaded), "uploaded_bytes": result.uploaded_bytes, "copied": list(result.copied),
        "present": list(result.present), "previous": result.previous, "skipped": list(result.skipped),
        "notes": list(result.notes),
    }  # fmt: skip


def _versions(options: argparse.Namespace) -> int:
    from tritonkit import progress, publishing
    from tritonkit.publishing.transfer_progress import human

    _check_prune(options)
    place = publishing.parse(options.destination, options.endpoint_url)
    store = publishing.Destination(place)
    pruned: list[str] = []
    if options.prune is not None:
        grace = publishing.GRACE_MINUTES if options.grace is None else options.grace
        with progress.task("prune") as say:
            pruned = publishing.prune(store, options.prune, grace, say)
    versions = publishing.versions(store)
    if options.json:
        print_json(
            {"destination": str(place), "versions": [version.as_json() for version in versions], "pruned": pruned}
        )
        return 0
    table = make_table("version", "published", "models", "files", "size", "")
    for version in versions:
        what = "current" if version.current else "before it" if version.previous else ""
        manifest = version.manifest
        table.add_row(
            manifest.version, manifest.published[:16].replace("T", " ") + " UTC", str(len(manifest.models)),
            str(len(manifest.files)), human(manifest.size), what,
        )  # fmt: skip
    if versions:
        out.print(table)
    else:
        _say(f"nothing is published at {place}")
    if options.prune is not None:
        _say(f"removed: {', '.join(pruned)}" if pruned else "nothing to remove")
    return 0


def _rollback(options: argparse.Namespace) -> int:
    from tritonkit import publishing
    from tritonkit.publishing import values_file

    place = publishing.parse(options.destination, options.endpoint_url)
    if options.values:
        values_file.check(options.values)
    manifest, before = publishing.roll_back(publishing.Destination(place), options.version)
    if options.values:
        values_file.write(options.values, place, manifest)
    if options.json:
        print_json(_named(place, manifest) | {"previous": before})
        return 0
    _say(f"version {manifest.version} is current at {place}; before it was {before}")
    _say_next(options, place, manifest.version)
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from tritonkit import progress, publishing
    from tritonkit.publishing.transfer_progress import human

    place = publishing.parse(options.uri, options.endpoint_url)
    with progress.task("fetch") as say:
        result = publishing.fetch(place, options.directory, say)
    version = result.manifest.version
    if options.json:
        print_json(
            {"version": version, "directory": str(options.directory), "models": list(result.manifest.models),
             "files": len(result.manifest.files), "downloaded": result.downloaded, "bytes": result.downloaded_bytes}
        )  # fmt: skip
        return 0
    _say(
        f"version {version} is in {options.directory}: {counted(len(result.manifest.models), 'model')}, "
        f"{counted(len(result.manifest.files), 'file')} verified, {result.downloaded} of them downloaded "
        f"({human(result.downloaded_bytes)})"
    )
    return 0


def _named(place: Place, manifest: Manifest) -> dict[str, Any]:
    version = manifest.version
    values = place.values(version, manifest.ensembles, manifest.needs)
    return {"version": version, "destination": str(place), "uri": place.uri(version), "values": values}


def _say_next(options: argparse.Namespace, place: Place, version: str) -> None:
    _say(f"  Triton reads {place.uri(version)}")
    if options.values:
        _say(f"  {options.values} names it: helm upgrade … -f {options.values}")


def _check_prune(options: argparse.Namespace) -> None:
    from tritonkit.errors import InputError

    if options.grace is None:
        return
    if options.prune is None:
        raise InputError("--grace goes with --prune", "--prune 5 --grace 60")
    if not math.isfinite(options.grace) or not 0 <= options.grace <= _MOST_MINUTES:
        raise InputError(f"--grace {options.grace:g} is no time in minutes", "for example --grace 1440, a day")


def _say(text: str) -> None:
    out.print(escape(text), soft_wrap=True)
