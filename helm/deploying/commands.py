"""The two commands, from looking to the last line; each step is another module's."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from deploying import backends, chart, check, difference, environment, models, preflight, release, show
from deploying.chart import Rendered
from deploying.check import Check
from deploying.cluster import Cluster
from deploying.difference import Difference
from deploying.environment import Environment, command
from deploying.models import Models
from deploying.release import Release
from kubetools import binaries
from tritonkit import atomic, progress
from tritonkit.errors import CheckFailed, MissingError, TritonkitError

_REPORTS = "reports/deploy"


@dataclass(frozen=True)
class _Tools:
    helm: Path | None
    cluster: Cluster | None
    checks: list[Check]


@dataclass(frozen=True)
class _Looked:
    """What was found; ``difference`` is None where no cluster was asked."""

    chart: list[Check]
    preflight: list[Check]
    made: Rendered | None
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
    said = environment.load(name)
    found = models.find(said, project)
    with _values(said, found) as files:
        tools = _tools(said)
        looked = _look(said, found, tools, files, project)
        show.head(said, found, apply)
        _print(looked, said, project)
        if not apply:
            return _dry(said, looked)
        if looked.missing or tools.helm is None or tools.cluster is None or looked.made is None:
            names = ", ".join(dict.fromkeys(one.name for one in looked.missing))
            raise CheckFailed(f"nothing was changed: missing are {names}", "each has its fix above")
        if found.place is not None:
            show.title("publish")
            sys.stdout.flush()
            named = project / f"{_REPORTS}/{said.name}.models.yaml"
            if code := models.publish(said, project, named):
                return code
            files[-1] = named
        _upgrade(said, found, Release(tools.helm, tools.cluster, said.deploy.release), files, looked.made)
        return 0


@contextmanager
def _values(said: Environment, found: Models) -> Iterator[list[Path]]:
    """The values as helm takes them: the environment's, then those that name the models, which win."""
    with tempfile.TemporaryDirectory(prefix="tritonkit-deploy-") as folder:
        own, named = Path(folder, "values.yaml"), Path(folder, "models.yaml")
        own.write_text(yaml.safe_dump(said.values), encoding="utf-8")
        named.write_text(yaml.safe_dump(found.values), encoding="utf-8")
        yield [own, named]


def _tools(said: Environment) -> _Tools:
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
    cluster = Cluster(kubectl, said.deploy.context, said.deploy.namespace) if kubectl else None
    return _Tools(paths["helm"], cluster, checks)


def _look(said: Environment, found: Models, tools: _Tools, files: list[Path], project: Path) -> _Looked:
    with progress.task("deploy") as say:
        version = said.deploy.kubernetes
        answers = False
        here: list[Check] = []
        if tools.cluster:
            say(f"ask {said.deploy.context}")
            here = [preflight.context(tools.cluster)]
            answers = here[0].state == "ok"
            version = tools.cluster.version if answers else version
        proved = [Check("chart", "unchecked", "without helm it was neither linted nor rendered")]
        made = None
        if tools.helm:
            say("lint, render and validate the chart")
            proved, made = chart.prove(tools.helm, said.deploy.release, said.deploy.namespace, files, version)
        checks = list(tools.checks)
        if tools.cluster and made and answers:
            say("preflight")
            checks += preflight.look(tools.cluster, said, made)
        else:
            checks += here
        if not answers:
            what = "namespace, rights, kinds, GPU nodes, device plugin, storage, secrets"
            checks.append(Check("cluster", "unchecked", f"no cluster answers: {what} were not looked at"))
        say("lint the models, ask the object store")
        checks += models.repository(said, project)
        if made:
            checks += backends.devices(said, project, made)
            checks += backends.images(said, project, made)
            checks += backends.drivers(tools.cluster, said, project, made) if tools.cluster and answers else []
        checks.append(models.bucket(found))
        if answers and tools.helm and tools.cluster:
            checks.append(Release(tools.helm, tools.cluster, said.deploy.release).busy(command(said, "rollback")))
        changes = None
        if answers and made and tools.cluster and tools.helm and not _hopeless(checks):
            say("let the API server try the manifest")
            checks.append(difference.attempt(tools.cluster, said.deploy.release, made))
            try:
                changes = difference.find(tools.cluster, tools.helm, said.deploy.release, made)
            except TritonkitError as error:
                checks.append(
                    Check("changes", "unchecked", f"what would change is not known: {error.message}", error.fix)
                )
        return _Looked(proved, checks, made, changes)


def _hopeless(checks: list[Check]) -> bool:
    """Whether the API server would only say again what is known: no namespace, no such kinds, no right."""
    return any(one.name in {"namespace", "kinds", "rights"} for one in check.missing(checks))


def _print(looked: _Looked, said: Environment, project: Path) -> None:
    show.checks("chart", looked.chart)
    show.checks("preflight", looked.preflight)
    if looked.made is None:
        return
    file = f"{_REPORTS}/{said.name}.yaml"
    atomic.write(project / file, looked.made.text.encode())
    if looked.difference is None:
        show.listed(looked.made)
    else:
        show.changes(looked.made, looked.difference)
        if looked.difference.changed:
            changes = f"{_REPORTS}/{said.name}.diff"
            atomic.write(project / changes, looked.difference.text.encode())
            show.diff(looked.difference.text, changes)
    show.say(f"\nThe whole manifest is in {file}.")


def _dry(said: Environment, looked: _Looked) -> int:
    if check.missing(looked.chart):
        show.say("Next: correct what the chart refuses (above).")
        return 1
    if looked.missing:
        first, *more = looked.missing
        also = f" ({len(more)} more above: {', '.join(dict.fromkeys(one.name for one in more))})" if more else ""
        show.say(f"Next: {first.name}: {first.fix or first.text}{also}. Then `{command(said)}` again.")
    else:
        show.say(f"Next: {command(said, apply=True)}")
    return 0


def _upgrade(said: Environment, found: Models, running: Release, files: list[Path], made: Rendered) -> None:
    again = command(said, "rollback")
    timeout = said.deploy.timeout or release.timeout_of(made.objects)
    served = f"models version {found.version}" if found.version else "models that the values name"
    show.title(f"upgrade (helm waits until every pod is ready, at most {timeout})")
    sys.stdout.flush()
    running.upgrade(files, timeout, f"make deploy: {said.name}, {served}")
    asleep = running.without_pods(made.objects)
    if made.hooks and asleep:
        show.title("test: left out")
        show.say(f"  {', '.join(asleep)} has no pod now, so nobody has loaded this yet. To try it:")
        for line in running.how_to_wake(asleep, made.objects):
            show.say(f"    {line}")
    elif made.hooks:
        show.title("test")
        sys.stdout.flush()
        if not running.test(made.hooks):
            raise CheckFailed(f"{said.deploy.release} runs, and its test failed", f"look above; {again} goes back")
    show.title(f"{said.deploy.release} {'will serve' if asleep else 'serves'} {served}")
    for line in release.addresses(running.cluster, made):
        show.say(f"  {line}")
    show.say(f"`{again}` goes back.")


def rollback(name: str, revision: int = 0) -> int:
    """Go back to the revision before, and say which models it serves. The exit code.

    Args:
        name: Of the environment.
        revision: Which one; 0 takes the newest that worked and is not what runs.

    Raises:
        InputError: The environment is wrong.
        CheckFailed: There is nothing to go back to, or its pods did not get ready.
        MissingError: A tool or the cluster is missing.
    """
    said = environment.load(name)
    cluster = Cluster(binaries.kubectl(), said.deploy.context, said.deploy.namespace)
    answer = preflight.context(cluster)
    if answer.state == "missing":
        raise MissingError(answer.text, answer.fix)
    running = Release(binaries.helm(), cluster, said.deploy.release)
    now, wanted = running.previous(revision)
    out = running.manifest(wanted.number)
    timeout = said.deploy.timeout or release.timeout_of(chart.split(out).objects)
    show.say(f"{said.deploy.release} in {said.deploy.namespace} of {said.deploy.context}")
    show.say(f"  from  {now.text}")
    show.say(f"  to    {wanted.text}")
    sys.stdout.flush()
    running.roll_back(wanted.number, timeout)
    show.say(f"{said.deploy.release} serves {wanted.text}, again")
    if text := models.make_current(said, wanted.models):
        show.say(text)
    return 0
