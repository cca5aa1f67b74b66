"""What a release would change in a cluster, as the API server says after trying it.

helm 4 applies on the server's side as the field manager ``helm``. ``kubectl diff --server-side`` under the same name
sends the same requests as dry runs, so defaults, other managers' fields and fields that would go are all in its answer.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

from deploying import chart
from deploying.chart import Object, Rendered
from deploying.cluster import Cluster

_MANAGER = "helm"  # the field manager of helm 4 is the name of its program
_FORCED = ("--server-side", f"--field-manager={_MANAGER}", "--force-conflicts")


@dataclass(frozen=True)
class Difference:
    """Names of objects, ``Deployment triton``, by what would happen to them.

    Attributes:
        text: The changes as a unified diff, Secrets masked by kubectl.
        problem: What the API server says against the manifest; empty if nothing. Then only ``created`` and
            ``removed`` are known.
    """

    created: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    text: str = ""
    problem: str = ""


def find(cluster: Cluster, helm: Path, release: str, made: Rendered) -> Difference:
    """Let the API server try the manifest.

    Raises:
        Unreachable: The cluster does not answer.
        Forbidden: This user may not read the release's objects.
    """
    names = [chart.name(one) for one in made.objects]
    live = {chart.name(one) for one in _live(cluster, made)}
    removed = tuple(name for name in _deployed(cluster, helm, release) if name not in names)
    created = tuple(name for name in names if name not in live)
    owned = [_owned(one, release, cluster.namespace) for one in made.objects]
    done = cluster.run("diff", *_FORCED, "-f", "-", given=chart.as_list(owned))
    if done.returncode > 1:
        said = "\n".join(line for line in done.stderr.splitlines() if line.strip())
        rest = tuple(name for name in names if name in live)
        return Difference(created, (), rest, removed, problem=said or done.stdout)
    touched = _touched(done.stdout, made)
    changed = tuple(name for name in names if name in live and name in touched)
    unchanged = tuple(name for name in names if name in live and name not in touched)
    return Difference(created, changed, unchanged, removed, done.stdout)


def _owned(one: Object, release: str, namespace: str) -> Object:
    """An object with the annotations that helm adds when it applies it; without them all would seem to change."""
    said = one["metadata"].get("annotations") or {}
    owner = {"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": namespace}
    return one | {"metadata": one["metadata"] | {"annotations": said | owner}}


def _live(cluster: Cluster, made: Rendered) -> list[Object]:
    known = [one for one in made.objects if (one["apiVersion"], one["kind"]) in cluster.kinds]
    if not known:
        return []
    said = cluster.ask("get", "-f", "-", "-o", "json", "--ignore-not-found", given=chart.as_list(known))
    found = json.loads(said) if said else {}
    return list(found["items"]) if found.get("kind") == "List" else [found] if found else []


def _deployed(cluster: Cluster, helm: Path, release: str) -> list[str]:
    """What the release's manifest has now; nothing if there is no release."""
    done = subprocess.run(
        [str(helm), "get", "manifest", release, "--namespace", cluster.namespace, "--kube-context", cluster.context],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [chart.name(one) for one in yaml.safe_load_all(done.stdout) if one] if done.returncode == 0 else []


def _touched(text: str, made: Rendered) -> set[str]:
    """kubectl names its files ``GROUP.VERSION.KIND.NAMESPACE.NAME``."""
    files = re.findall(r"^diff .*/(\S+)$", text, re.MULTILINE)
    ends = {chart.name(one): (f".{one['kind']}.", f".{one['metadata']['name']}") for one in made.objects}
    return {name for name, (kind, end) in ends.items() if any(kind in file and file.endswith(end) for file in files)}
