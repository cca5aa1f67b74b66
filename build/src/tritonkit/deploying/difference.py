"""What a release would change in a cluster, as the API server reports after a dry run.

helm 4 applies on the server's side as the field manager ``helm``. ``kubectl diff --server-side`` under the same name
sends the same requests as dry runs, so defaults, other managers' fields and fields that would go are all in its answer.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tritonkit.deploying import chart
from tritonkit.deploying.chart import Object, Rendered
from tritonkit.deploying.check import Check
from tritonkit.deploying.cluster import Cluster
from tritonkit.errors import CheckFailed
from tritonkit.kubetools import manifest

_MANAGER = "helm"  # the field manager of helm 4 is the name of its program
_FORCED = ("--server-side", f"--field-manager={_MANAGER}", "--force-conflicts")


@dataclass(frozen=True)
class Difference:
    """Names of objects, such as ``Deployment triton``, by what would happen to them.

    Attributes:
        text: The changes as a unified diff, Secrets masked by kubectl.
    """

    created: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    text: str = ""


def attempt(cluster: Cluster, release: str, rendered: Rendered) -> Check:
    """Send the manifest as a dry run: the API server checks schemas, admission, quotas and fields that others own."""
    owned = chart.as_stream([_owned(obj, release, cluster.namespace) for obj in rendered.objects])
    done = cluster.run(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", f"--field-manager={_MANAGER}", "-f", "-",
        stdin=owned,
    )  # fmt: skip
    stderr = "\n".join(line for line in done.stderr.splitlines() if line.strip())
    if done.returncode == 0:
        text = "the API server takes the manifest (a dry run: nothing was kept)"
        return Check("server", "note", f"{text}, and warns:\n{stderr}") if stderr else Check("server", "ok", text)
    fix = "correct what it names"
    if "conflict" in stderr:
        fix = (
            "somebody else set these fields: take their change back, or put it into the values and take the fields "
            "over once with helm upgrade --force-conflicts"
        )
    return Check("server", "missing", f"the API server does not take the manifest: {stderr or done.stdout}", fix)


def find(cluster: Cluster, helm: Path, release: str, rendered: Rendered) -> Difference:
    """Find what would change if the API server took the manifest.

    Raises:
        Unreachable: The cluster does not answer.
        Forbidden: This user may not read the release's objects.
        CheckFailed: The API server refuses the manifest.
    """
    names = [chart.name(obj) for obj in rendered.objects]
    live = {chart.name(obj) for obj in _live(cluster, rendered)}
    removed = tuple(name for name in _deployed(cluster, helm, release) if name not in names)
    created = tuple(name for name in names if name not in live)
    owned = [_owned(obj, release, cluster.namespace) for obj in rendered.objects if chart.name(obj) in live]
    text = _diff(cluster, owned) if owned else ""
    touched = _touched(text, rendered)
    changed = tuple(name for name in names if name in live and name in touched)
    unchanged = tuple(name for name in names if name in live and name not in touched)
    return Difference(created, changed, unchanged, removed, _readable(text))


def _readable(text: str) -> str:
    """Remove the names and times of kubectl's temporary files."""
    kept = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("diff "))
    return re.sub(r"^(---|\+\+\+) \S*/(\S+)\t.*$", r"\1 \2", kept, flags=re.MULTILINE)


def _diff(cluster: Cluster, owned: list[Object]) -> str:
    done = cluster.run("diff", *_FORCED, "-f", "-", stdin=chart.as_stream(owned))
    if done.returncode > 1:  # 1 says that there is a difference
        raise CheckFailed(f"kubectl diff: {done.stderr.strip()}", "is the program `diff` installed?")
    return done.stdout


def _owned(obj: Object, release: str, namespace: str) -> Object:
    """An object with the annotations that helm adds when it applies it; without them every object would differ."""
    own_annotations = obj["metadata"].get("annotations") or {}
    owner = {"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": namespace}
    return obj | {"metadata": obj["metadata"] | {"annotations": own_annotations | owner}}


def _live(cluster: Cluster, rendered: Rendered) -> list[Object]:
    known = [obj for obj in rendered.objects if (obj["apiVersion"], obj["kind"]) in cluster.kinds]
    if not known:
        return []
    output = cluster.ask("get", "-f", "-", "-o", "json", "--ignore-not-found", stdin=chart.as_stream(known))
    live = json.loads(output) if output else {}
    return list(live["items"]) if live.get("kind") == "List" else [live] if live else []


def _deployed(cluster: Cluster, helm: Path, release: str) -> list[str]:
    """The names of the release's objects now; empty if there is no release."""
    done = subprocess.run(
        [str(helm), "get", "manifest", release, "--namespace", cluster.namespace, "--kube-context", cluster.context],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [chart.name(obj) for obj in manifest.objects(done.stdout)] if done.returncode == 0 else []


def _touched(text: str, rendered: Rendered) -> set[str]:
    """The names of the objects in a diff, whose files kubectl names ``GROUP.VERSION.KIND.NAMESPACE.NAME``."""
    files = re.findall(r"^diff .*/(\S+)$", text, re.MULTILINE)
    ends = {chart.name(obj): (f".{obj['kind']}.", f".{obj['metadata']['name']}") for obj in rendered.objects}
    return {name for name, (kind, end) in ends.items() if any(kind in file and file.endswith(end) for file in files)}
