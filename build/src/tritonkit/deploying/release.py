"""A release in its cluster: upgraded, tested, rolled back; each by helm, with its own words shown.

When to do that is for :mod:`.commands`; nothing here asks whether it should.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tritonkit.deploying import chart, models, show
from tritonkit.deploying.chart import Object, Rendered
from tritonkit.deploying.check import Check
from tritonkit.deploying.cluster import Cluster
from tritonkit.errors import CheckFailed

_GOOD = {"deployed", "superseded"}
_LIST = "helm list {place} shows the releases"
# What to do at helm's own words.
_FIXES = {
    "release: not found": f"nothing is deployed under this name there: deploy it first; {_LIST}",
    "unreachable": "check the network, the VPN, and that you are logged in: kubectl --context {context} cluster-info",
    "forbidden": "ask for the right to read Secrets in this namespace, where helm keeps its releases",
    "unauthorized": "log in to the cluster again",
}
_MARGIN_S = 120  # for what is not pods
_TEST_S = 900  # of a test whose pod says no time: the chart's tests.timeoutSeconds


@dataclass(frozen=True)
class Revision:
    """One revision of a release: its number, state, time, and the models that its values name, once asked for."""

    number: int
    status: str
    updated: str
    models: str = ""

    @property
    def text(self) -> str:
        """As a person says it."""
        served = f"models version {self.models}" if self.models else "models that its values name"
        return f"revision {self.number} of {self.updated[:16].replace('T', ' ')}, {served}"


class Release:
    """A release of the chart.

    Args:
        helm: The program.
        cluster: The cluster that it is in.
        name: The release's name.
    """

    def __init__(self, helm: Path, cluster: Cluster, name: str) -> None:
        self.helm, self.cluster, self.name = helm, cluster, name

    def _command(self, *arguments: str) -> list[str]:
        place = ["--namespace", self.cluster.namespace, "--kube-context", self.cluster.context]
        return [str(self.helm), *arguments, *place]

    def _show(self, *arguments: str) -> bool:
        """Run with helm's own output before the person; whether it worked.

        After an interruption this waits until helm has repaired the release: a helm that is killed leaves it
        ``pending``, and helm then refuses every upgrade. A second interruption does not wait.
        """
        with subprocess.Popen(self._command(*arguments)) as helm:
            try:
                return helm.wait() == 0
            except KeyboardInterrupt:
                helm.send_signal(signal.SIGTERM)
                show.say("interrupted: helm is told to stop; wait until it has put the release right")
                sys.stdout.flush()
                helm.wait()
                show.say(f"stopped; now {self._runs()}")
                raise

    def _ask(self, *arguments: str) -> Any:
        done = subprocess.run(self._command(*arguments, "-o", "json"), capture_output=True, text=True, check=False)
        if done.returncode:
            stderr = done.stderr.strip()
            fix = next((fix for words, fix in _FIXES.items() if words in stderr.lower()), _LIST)
            place = f"--kube-context {self.cluster.context} -n {self.cluster.namespace}"
            fix = fix.format(place=place, context=self.cluster.context)
            raise CheckFailed(f"helm {' '.join(arguments)}: {stderr}", fix)
        return json.loads(done.stdout)

    def upgrade(self, folder: Path, files: Sequence[Path], timeout: str, description: str) -> None:
        """Install or upgrade the release, wait until all pods are ready, and roll back if they do not get ready.

        Args:
            folder: The chart's.
            files: Of values; the later ones win.
            timeout: Of helm, such as ``45m``.
            description: For the release's history.

        Raises:
            CheckFailed: The pods did not get ready.
        """
        values = [word for file in files for word in ("--values", str(file))]
        done = self._show(
            "upgrade", "--install", self.name, str(folder), *values, "--rollback-on-failure", "--wait=watcher",
            "--wait-for-jobs", "--hide-notes", "--timeout", timeout, "--description", description,
        )  # fmt: skip
        if not done:
            raise CheckFailed(
                f"helm could not bring {self.name} up; now {self._runs()}",
                f"kubectl --context {self.cluster.context} -n {self.cluster.namespace} get events,pods shows why",
            )

    def _runs(self) -> str:
        try:
            deployed = [revision for revision in self.history() if revision.status == "deployed"]
        except CheckFailed:
            return "nothing runs, as before"
        if not deployed:
            return f"no revision works: helm history {self.name}"
        return f"{self._with_models(deployed[-1]).text}, runs"

    def test(self, hooks: Sequence[Object]) -> bool:
        """Send real inferences with ``helm test``, for at most the time that its pod allows.

        Args:
            hooks: The manifest's hooks.
        """
        seconds = max((hook["spec"].get("activeDeadlineSeconds", _TEST_S) for hook in hooks), default=_TEST_S)
        return self._show("test", self.name, "--logs", "--timeout", f"{seconds + _MARGIN_S}s")

    def without_pods(self, objects: Sequence[Object]) -> list[str]:
        """Deployments that may have no pod, and have none now: no pod has loaded their models yet.

        Args:
            objects: The manifest's objects.
        """
        may = [obj for obj in objects if obj["kind"] == "Deployment" and chart.replicas(obj, objects)[0] == 0]
        names = [str(deployment["metadata"]["name"]) for deployment in may]
        return [
            name for name in names if not (self.cluster.get("deployment", name) or {}).get("spec", {}).get("replicas")
        ]

    def how_to_wake(self, names: Sequence[str], objects: Sequence[Object]) -> list[str]:
        """Commands that start a pod of each of these Deployments, test it, and take it away again.

        KEDA would undo what is scaled by hand; ``paused-replicas`` is its own word for it (KEDA's documentation,
        "Pause autoscaling").
        """
        kubectl = f"kubectl --context {self.cluster.context} -n {self.cluster.namespace}"
        scaled = {obj["spec"]["scaleTargetRef"]["name"] for obj in objects if obj["kind"] == "ScaledObject"}

        def scale(name: str, count: int) -> str:
            if name not in scaled:
                return f"{kubectl} scale deployment {name} --replicas={count}"
            word = f"={count}" if count else "-"
            return f"{kubectl} annotate scaledobject {name} autoscaling.keda.sh/paused-replicas{word}"

        ready = "--for=jsonpath='{.status.readyReplicas}'=1"
        return [
            *(scale(name, 1) for name in names),
            *(f"{kubectl} wait {ready} --timeout={timeout_of(objects)} deployment/{name}" for name in names),
            f"helm --kube-context {self.cluster.context} -n {self.cluster.namespace} test {self.name} --logs",
            *(scale(name, 0) for name in names),
        ]

    def history(self) -> list[Revision]:
        """Every revision that helm has kept, the oldest first.

        Raises:
            CheckFailed: There is no such release.
        """
        entries = self._ask("history", self.name)
        return [Revision(entry["revision"], entry["status"], entry["updated"]) for entry in entries]

    def _with_models(self, revision: Revision) -> Revision:
        return replace(revision, models=models.version_in(self.values(revision.number)))

    def values(self, revision: int) -> Object:
        """The values that a revision was given."""
        return dict(self._ask("get", "values", self.name, "--revision", str(revision)) or {})

    def manifest(self, revision: int) -> str:
        """The manifest of a revision."""
        command = self._command("get", "manifest", self.name, "--revision", str(revision))
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def busy(self, again: str) -> Check:
        """Whether helm would take an upgrade: not while another is under way, nor after one that was killed.

        Args:
            again: The command that rolls back.
        """
        try:
            last = self._ask("history", self.name, "--max", "1")[-1]
        except CheckFailed:
            return Check("release", "ok", f"{self.name} is not there yet, or may not be read")
        status, number = last["status"], last["revision"]
        if not status.startswith("pending"):
            return Check(
                "release", "ok", f"revision {number} of {self.name} is {status}; no other upgrade is under way"
            )
        fix = f"wait for it; if nobody runs helm any more, `{again}`"
        if status == "pending-install":
            fix = f"wait for it; if nobody runs helm any more: {' '.join(self._command('uninstall', self.name))}"
        what = "another upgrade is under way, or was killed; helm takes none until it has ended"
        return Check("release", "missing", f"revision {number} of {self.name} is {status}: {what}", fix)

    def previous(self, number: int = 0) -> tuple[Revision, Revision]:
        """The revision that runs and the one to go back to, with their models.

        Args:
            number: A revision; 0 takes the newest that worked and is not what runs now. After an upgrade that was
                killed or failed midway, what runs is a mixture, so that is the newest that worked.

        Raises:
            CheckFailed: There is no such revision.
        """
        kept = self.history()
        now, to = self._choose(kept, number)
        return self._with_models(now), self._with_models(to)

    def _choose(self, kept: Sequence[Revision], number: int) -> tuple[Revision, Revision]:
        running = next((revision for revision in reversed(kept) if revision.status == "deployed"), kept[-1])
        if kept[-1].status not in _GOOD:
            running = kept[-1]
        if number:
            revision = next((revision for revision in kept if revision.number == number), None)
            if revision is None:
                raise CheckFailed(f"{self.name} has no revision {number}", f"helm has {_listed(kept)}")
            return running, revision
        if running.status not in _GOOD and (good := [revision for revision in kept if revision.status in _GOOD]):
            return running, good[-1]
        now = self.manifest(running.number)
        for revision in reversed(kept):
            if revision.number < running.number and revision.status in _GOOD and self.manifest(revision.number) != now:
                return running, revision
        raise CheckFailed(
            f"{self.name} has no earlier revision that worked and differs from what runs: {_listed(kept)}",
            "deploy a version that works",
        )

    def roll_back(self, revision: int, timeout: str) -> None:
        """Roll back to a revision, and wait until all pods are ready.

        Raises:
            CheckFailed: The pods did not get ready.
        """
        arguments = ("rollback", self.name, str(revision), "--wait=watcher", "--wait-for-jobs", "--timeout", timeout)
        if not self._show(*arguments):
            raise CheckFailed(
                f"helm could not bring revision {revision} of {self.name} up",
                f"kubectl --context {self.cluster.context} -n {self.cluster.namespace} get events,pods shows why",
            )


def _listed(kept: Sequence[Revision]) -> str:
    return ", ".join(f"{revision.number} ({revision.status})" for revision in kept)


def timeout_of(objects: Sequence[Object]) -> str:
    """The longest that a rollout may take when nothing is wrong: each Deployment's pods one after another, and Jobs.

    ``progressDeadlineSeconds`` has the time of one pod: to fetch, build engines and load.
    """
    pods = [
        obj["spec"].get("progressDeadlineSeconds", 600) * max(chart.replicas(obj, objects)[1], 1)
        for obj in objects
        if obj["kind"] == "Deployment"
    ]
    jobs = [obj["spec"].get("activeDeadlineSeconds", 600) for obj in objects if obj["kind"] == "Job"]
    return f"{max(pods, default=0) + max(jobs, default=0) + _MARGIN_S}s"


def addresses(cluster: Cluster, rendered: Rendered) -> list[str]:
    """The release's addresses, one a line; a port-forward of kubectl where it has no address of its own."""
    urls = [
        f"http://{host}" if obj["kind"] == "HTTPRoute" else f"grpc://{host}"
        for obj in rendered.objects
        if obj["kind"] in {"HTTPRoute", "GRPCRoute"}
        for host in obj["spec"].get("hostnames", [])
    ]
    for obj in rendered.objects:
        if obj["kind"] == "Ingress":
            scheme = "grpc" if obj["metadata"]["name"].endswith("-grpc") else "http"
            scheme += "s" if _encrypted(obj) else ""
            urls += [f"{scheme}://{rule['host']}" for rule in obj["spec"]["rules"] if "host" in rule]
    urls = list(dict.fromkeys(urls))
    services = [obj for obj in rendered.objects if obj["kind"] == "Service" and obj["spec"].get("clusterIP") != "None"]
    for service in services:
        urls += _balancer(cluster, service)
    if not urls:
        for service in services:
            name, ports = service["metadata"]["name"], service["spec"]["ports"]
            if name.endswith(("-http", "-grpc")):
                port = ports[0]["port"]
                place = f"--context {cluster.context} -n {cluster.namespace}"
                urls.append(f"kubectl {place} port-forward service/{name} {port}:{port}")
    return urls


def _encrypted(ingress: Object) -> bool:
    """Whether it is called with TLS: by a Secret of its own, or by a certificate that an ALB finds by the host name."""
    annotations = ingress["metadata"].get("annotations") or {}
    return bool(ingress["spec"].get("tls")) or "HTTPS" in annotations.get("alb.ingress.kubernetes.io/listen-ports", "")


def _balancer(cluster: Cluster, service: Object) -> list[str]:
    if service["spec"].get("type") != "LoadBalancer":
        return []
    live = cluster.get("service", service["metadata"]["name"]) or {}
    outside = live.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    scheme = "grpc" if service["metadata"]["name"].endswith("-grpc") else "http"
    return [
        f"{scheme}://{ingress.get('hostname') or ingress.get('ip')}:{port['port']}"
        for ingress in outside
        for port in service["spec"]["ports"]
    ]
