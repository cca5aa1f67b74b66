"""Which version of the models a release serves: found without a network, published, and read back from values."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from tritonkit import progress, publishing
from tritonkit.cli.interrupt import leaving_at_once
from tritonkit.cli.output import out
from tritonkit.deploying import environment as environments
from tritonkit.deploying.check import Check
from tritonkit.deploying.environment import Environment
from tritonkit.deploying.environment import repository as folder
from tritonkit.errors import InputError, TritonkitError
from tritonkit.publishing import contents, errors, locations, manifest, summary, values_file, version_history
from tritonkit.publishing.destination import THREADS, Destination
from tritonkit.publishing.publish import facts
from tritonkit.publishing.transfer_progress import Meter, human
from tritonkit.repository import lint

_MOST_ERRORS = 5


@dataclass(frozen=True)
class Models:
    """What will be served.

    Attributes:
        text: As a sentence.
        values: Chart values that name the version; empty if the environment's own values do.
        version: The version; empty if the environment's own values name the models.
        place: Where it is published, if it is.
    """

    text: str
    values: dict[str, Any]
    version: str = ""
    place: locations.Place | None = None


def find(environment: Environment, project: Path) -> Models:
    """Compute the version that publishing would create, by hashing the repository; nothing is sent.

    Raises:
        InputError: There are no models, or the environment names both a destination and models.
        OutputError: The destination is not a location that models can be published to.
    """
    deploy = environment.deploy
    named = _named(environment)
    own = [name for name in ("uri", "nfs.server", "image.reference") if _at(named, name)]
    if not deploy.publish:
        if not own and not _at(named, "pvc.claimName"):
            raise InputError(
                f"{environment.path} names no models",
                "set deploy.publish, or one of values.models.uri, pvc, nfs, image",
            )
        return Models(f"those that values.models names ({', '.join(own) or 'pvc.claimName'})", {})
    if own:
        raise InputError(
            f"{environment.path} sets deploy.publish and values.models.{own[0]}, which say different things",
            "remove one of them",
        )
    if "://" not in deploy.publish and not deploy.publish.startswith("/"):
        text = f"{environment.path}: deploy.publish: {deploy.publish} does not say which store it is in"
        raise InputError(text, f"write s3://{deploy.publish} for a bucket, file:///… for a folder that nodes mount")
    place = locations.parse(deploy.publish, deploy.endpoint_url or None)
    repository = project / folder(environment)
    if not repository.is_dir():
        raise InputError(*_no_repository(environment, repository))
    version, text = _version(repository)
    values = place.values(version, *facts(repository))
    return Models(f"{text}, from {folder(environment)}", values, version, place)


def _no_repository(environment: Environment, repository: Path) -> tuple[str, str]:
    if environment.deploy.repository:
        return f"there is no model repository {repository}", "build one there, or correct deploy.repository"
    target = environments.target(environment)
    return (
        f"there is no model repository {repository}, and {environment.name}'s pods run models of the target {target}",
        f"{environments.build_command(target)}; or set values.accelerator.kind, or deploy.repository for other places",
    )


def _named(environment: Environment) -> dict[str, Any]:
    models = environment.values.get("models") or {}
    if not isinstance(models, dict):
        text = f"{environment.path}: values.models is {models!r}, and not a mapping"
        raise InputError(text, "models: {uri: s3://…}")
    return models


def _at(values: dict[str, Any], name: str) -> Any:
    """The value at ``pvc.claimName``; None where there is none. Wrong types are left to the chart's schema."""
    value: Any = values
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _version(repository: Path) -> tuple[str, str]:
    tree = contents.read(repository)
    with progress.task("models") as say, ThreadPoolExecutor(THREADS) as pool:
        files = contents.digest(tree, pool, Meter(say, "hash", len(tree.sources), tree.size))
    names = sorted({file.path.partition("/")[0] for file in files})
    version = manifest.version_of(files)
    return version, f"version {version}: {', '.join(names)} ({human(tree.size)})"


def repository(environment: Environment, project: Path) -> list[Check]:
    """What `tritonkit publish` would refuse of the repository."""
    if not environment.deploy.publish:
        return []
    findings = lint.check(project / folder(environment)).findings
    errors = [finding for finding in findings if finding.severity == "error" and not finding.model.startswith(".")]
    if errors:
        errors_text = "\n".join(f"{finding.model}: {finding.message}" for finding in errors[:_MOST_ERRORS])
        more = f"\nand {len(errors) - _MOST_ERRORS} more" if len(errors) > _MOST_ERRORS else ""
        fix = f"`tritonkit build` makes the weights; `tritonkit lint {folder(environment)}` says more"
        return [Check("models", "missing", errors_text + more, fix)]
    return [Check("models", "ok", f"lint has no errors in {folder(environment)}")]


def bucket(models: Models) -> Check:
    """Whether this machine may use the destination, and whether the version is there already."""
    if models.place is None:
        return Check("bucket", "ok", "not needed: nothing is published")
    try:
        destination = Destination(models.place)
        with errors.explained(models.place):
            destination.check(make=True)
            there = destination.manifest(models.version) is not None
    except TritonkitError as error:
        return Check("bucket", "missing", error.message, error.fix)
    state = "this version is there already" if there else "this version is not there yet"
    return Check("bucket", "ok", f"{models.place} answers this machine's credentials; {state}. Pods use their own")


def publish(environment: Environment, project: Path, values: Path) -> Path:
    """Publish the repository as a new version, print the outcome, and write the chart's values that name the version.

    Args:
        environment: Whose ``deploy.publish`` is the destination.
        project: The folder that ``deploy.repository`` counts from.
        values: The file to write.

    Returns:
        ``values``.

    Raises:
        CheckFailed: Lint finds errors, a file changed meanwhile, or what is stored is not what was sent.
        OutputError: The repository or the destination cannot be used.
        MissingError: A package, credentials, the network or space is missing.
    """
    deploy = environment.deploy
    place = locations.parse(deploy.publish, deploy.endpoint_url or None)
    values_file.check(values)
    with leaving_at_once(), progress.task("publish") as say:
        result = publishing.publish(project / folder(environment), place, say)
    values_file.write(values, place, result.manifest)
    for line in summary.lines(result, place):
        out.print(escape(line), soft_wrap=True)
    return values


def version_in(values: dict[str, Any]) -> str:
    """The version that a release's values name, as a word for people."""
    named = values.get("models") or {}
    where = str(named.get("uri") or (named.get("pvc") or {}).get("subPath") or "")
    parent, _, last = where.rpartition("/")
    if manifest.is_version(last) and (parent == locations.VERSIONS or parent.endswith(f"/{locations.VERSIONS}")):
        return last
    return ""


def make_current(environment: Environment, version: str) -> str:
    """Make the store's pointer name a version, so that pruning keeps it; returns the outcome as a sentence."""
    deploy = environment.deploy
    if not deploy.publish or not version:
        return ""
    try:
        place = locations.parse(deploy.publish, deploy.endpoint_url or None)
        destination = Destination(place)
        pointer = destination.pointer()
        if pointer and pointer.version == version:
            return f"{place} already has {version} as current"
        version_history.roll_back(destination, version)
    except TritonkitError as error:
        return f"the pointer at {deploy.publish} still names another version, and pruning may remove this one: {error}"
    return f"{place} has {version} as current again"
