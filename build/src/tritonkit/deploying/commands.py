"""The two commands, from looking to the last line; each step is another module's."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tritonkit import atomic, progress
from tritonkit.deploying import backends, chart, chart_source, check, difference, models, preflight, release, show
from tritonkit.deploying import environment as environments
from tritonkit.deploying.chart import Rendered
from tritonkit.deploying.chart_source import Chart
from tritonkit.deploying.check import Check
from tritonkit.deploying.cluster import Cluster
from tritonkit.deploying.difference import Difference
from tritonkit.deploying.environment import Environment, command
from tritonkit.deploying.models import Models
from tritonkit.deploying.release import Release
from tritonkit.errors import CheckFailed, MissingError, TritonkitError
from tritonkit.kubetools import binaries

_REPORTS = "reports/deploy"


@dataclass(frozen=True)
class _Tools:
    helm: Path | None
    cluster: Cluster | None
    checks: list[Check]


@dataclass(frozen=True)
class _Inspection:
    """The results of all checks before a deployment; ``difference`` is None where no cluster was asked."""

    chart: list[Check]
    preflight: list[Check]
    rendered: Rendered | None
    difference: Difference | None

    @property
    def missing(self) -> list[Check]:
        return check.missing([*self.chart, *self.preflight])


def deploy(name: str, project: Path, *, apply: bool) -> int:
    """Show what a deployment would be, or do it. The exit code.

    Args:
        name: Of the environment.
        project: The folder that ``deploy.repository`` counts from, and that gets ``reports``.
        apply: Whether to do it.

    Raises:
        InputError: The environment is wrong.
        CheckFailed: Something is missing, the pods did not get ready, or ``helm test`` failed.
    """
    environment = environments.load(name, project)
    served_models = models.find(environment, project)
    tools = _tools(environment)
    with (
        chart_source.unpacked(environment, project, tools.helm) as source,
        _values(environment, served_models) as files,
    ):
        inspection = _inspect(environment, served_models, tools, source, files, project)
        show.head(environment, served_models, source, apply)
        _print(inspection, environment, project)
        if not apply:
            return _dry(environment, inspection)
        if inspection.missing or tools.helm is None or tools.cluster is None or inspection.rendered is None:
            names = ", ".join(dict.fromkeys(finding.name for finding in inspection.missing))
            raise CheckFailed(f"nothing was changed: missing are {names}", "each has its fix above")
        if served_models.place is not None:
            show.title("publish")
            sys.stdout.flush()
            files[-1] = models.publish(environment, project, project / f"{_REPORTS}/{environment.name}.models.yaml")
        running = Release(tools.helm, tools.cluster, environment.deploy.release)
        _upgrade(environment, served_models, running, source, files, inspection.rendered)
        return 0


@contextmanager
def _values(environment: Environment, served_models: Models) -> Iterator[list[Path]]:
    """The values as helm takes them: the environment's, then those that name the models, which win."""
    with tempfile.TemporaryDirectory(prefix="tritonkit-deploy-") as folder:
        own, named = Path(folder, "values.yaml"), Path(folder, "models.yaml")
        own.write_text(yaml.safe_dump(environment.values), encoding="utf-8")
        named.write_text(yaml.safe_dump(served_models.values), encoding="utf-8")
        yield [own, named]


def _tools(environment: Environment) -> _Tools:
    checks = []
    paths: dict[str, Path | None] = {}
    for tool, find in (("helm", binaries.helm), ("kubectl", binaries.kubectl)):
        try:
            paths[tool] = find()
            checks.append(Check(tool, "ok", str(paths[tool])))
        except MissingError as error:
            paths[tool] = None
            checks.append(Check(tool, "missing", error.message, error.fix))
    kubectl = paths["kubectl"]
    cluster = Cluster(kubectl, environment.deploy.context, environment.deploy.namespace) if kubectl else None
    return _Tools(paths["helm"], cluster, checks)


def _inspect(
    environment: Environment, served_models: Models, tools: _Tools, source: Chart, files: list[Path], project: Path
) -> _Inspection:
    settings = environment.deploy
    with progress.task("deploy") as say:
        version = settings.kubernetes
        answers = False
        here: list[Check] = []
        if tools.cluster:
            say(f"ask {settings.context}")
            here = [preflight.context(tools.cluster)]
            answers = here[0].state == "ok"
            version = tools.cluster.version if answers else version
        proved = [Check("chart", "unchecked", "without helm it was neither linted nor rendered")]
        rendered = None
        if tools.helm:
            say("lint, render and validate the chart")
            proved, rendered = chart.prove(
                tools.helm, source.folder, settings.release, settings.namespace, files, version
            )
        checks = list(tools.checks)
        if tools.cluster and rendered and answers:
            say("preflight")
            checks += preflight.look(tools.cluster, environment, rendered)
        else:
            checks += here
        if not answers:
            what = "namespace, rights, kinds, GPU nodes, device plugin, storage, secrets"
            checks.append(Check("cluster", "unchecked", f"no cluster answers: {what} were not looked at"))
        say("lint the models, ask the object store")
        checks += models.repository(environment, project)
        if rendered:
            checks += backends.devices(environment, project, rendered)
            checks += backends.images(environment, project, rendered)
            if tools.cluster and answers:
                checks += backends.drivers(tools.cluster, environment, project, rendered)
        checks.append(models.bucket(served_models))
        if answers and tools.helm and tools.cluster:
            checks.append(Release(tools.helm, tools.cluster, settings.release).busy(command(environment, "rollback")))
        changes = None
        if answers and rendered and tools.cluster and tools.helm and not _hopeless(checks):
            say("let the API server try the manifest")
            checks.append(difference.attempt(tools.cluster, settings.release, rendered))
            try:
                changes = difference.find(tools.cluster, tools.helm, settings.release, rendered)
            except TritonkitError as error:
                checks.append(
                    Check("changes", "unchecked", f"what would change is not known: {error.message}", error.fix)
                )
        return _Inspection(proved, checks, rendered, changes)


def _hopeless(checks: list[Check]) -> bool:
    """Whether asking the API server is pointless: the namespace, kinds or rights that it needs are missing."""
    return any(finding.name in {"namespace", "kinds", "rights"} for finding in check.missing(checks))


def _print(inspection: _Inspection, environment: Environment, project: Path) -> None:
    show.checks("chart", inspection.chart)
    show.checks("preflight", inspection.preflight)
    if inspection.rendered is None:
        return
    file = f"{_REPORTS}/{environment.name}.yaml"
    atomic.write(project / file, inspection.rendered.text.encode())
    if inspection.difference is None:
        show.listed(inspection.rendered)
    else:
        show.changes(inspection.rendered, inspection.difference)
        if inspection.difference.changed:
            changes = f"{_REPORTS}/{environment.name}.diff"
            atomic.write(project / changes, inspection.difference.text.encode())
            show.diff(inspection.difference.text, changes)
    show.say(f"\nThe whole manifest is in {file}.")


def _dry(environment: Environment, inspection: _Inspection) -> int:
    if check.missing(inspection.chart):
        show.say("Next: correct what the chart refuses (above).")
        return 1
    if inspection.missing:
        first, *more = inspection.missing
        names = ", ".join(dict.fromkeys(finding.name for finding in more))
        also = f" ({len(more)} more above: {names})" if more else ""
        show.say(f"Next: {first.name}: {first.fix or first.text}{also}. Then `{command(environment)}` again.")
    else:
        show.say(f"Next: {command(environment, apply=True)}")
    return 0


def _upgrade(
    environment: Environment, served_models: Models, running: Release, source: Chart, files: list[Path],
    rendered: Rendered,
) -> None:  # fmt: skip
    again = command(environment, "rollback")
    timeout = environment.deploy.timeout or release.timeout_of(rendered.objects)
    served = f"models version {served_models.version}" if served_models.version else "models that the values name"
    show.title(f"upgrade (helm waits until every pod is ready, at most {timeout})")
    sys.stdout.flush()
    running.upgrade(source.folder, files, timeout, f"tritonkit deploy: {environment.name}, {served}")
    asleep = running.without_pods(rendered.objects)
    if rendered.hooks and asleep:
        show.title("test: left out")
        show.say(f"  {', '.join(asleep)} has no pod now, so nobody has loaded this yet. To try it:")
        for line in running.how_to_wake(asleep, rendered.objects):
            show.say(f"    {line}")
    elif rendered.hooks:
        show.title("test")
        sys.stdout.flush()
        if not running.test(rendered.hooks):
            text = f"{environment.deploy.release} runs, and its test failed"
            raise CheckFailed(text, f"look above; {again} goes back")
    show.title(f"{environment.deploy.release} {'will serve' if asleep else 'serves'} {served}")
    for line in release.addresses(running.cluster, rendered):
        show.say(f"  {line}")
    show.say(f"`{again}` goes back.")


def rollback(name: str, project: Path, revision: int = 0) -> int:
    """Go back to the revision before, and say which models it serves. The exit code.

    Args:
        name: Of the environment.
        project: The folder that has ``helm/environments``.
        revision: Which one; 0 takes the newest that worked and is not what runs.

    Raises:
        InputError: The environment is wrong.
        CheckFailed: There is nothing to go back to, or its pods did not get ready.
        MissingError: A tool or the cluster is missing.
    """
    environment = environments.load(name, project)
    cluster = Cluster(binaries.kubectl(), environment.deploy.context, environment.deploy.namespace)
    answer = preflight.context(cluster)
    if answer.state == "missing":
        raise MissingError(answer.text, answer.fix)
    running = Release(binaries.helm(), cluster, environment.deploy.release)
    now, target = running.previous(revision)
    out = running.manifest(target.number)
    timeout = environment.deploy.timeout or release.timeout_of(chart.split(out).objects)
    show.say(f"{environment.deploy.release} in {environment.deploy.namespace} of {environment.deploy.context}")
    show.say(f"  from  {now.text}")
    show.say(f"  to    {target.text}")
    sys.stdout.flush()
    running.roll_back(target.number, timeout)
    show.say(f"{environment.deploy.release} serves {target.text}, again")
    if text := models.make_current(environment, target.models):
        show.say(text)
    return 0
