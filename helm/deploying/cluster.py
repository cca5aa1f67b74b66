"""Asks a cluster through ``kubectl``, always in a named context; reads, and lets the API server try a manifest.

What the answers mean for a release is for :mod:`deploying.preflight` and :mod:`deploying.difference`.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tritonkit.errors import CheckFailed, MissingError

Object = dict[str, Any]
_ATTRIBUTES = ("verb", "group", "resource")
_TIMEOUT_S = 15  # of one request; an API server that needs longer to answer a read will not carry a rollout


class Forbidden(CheckFailed):
    """The cluster answers, and does not let this user do that."""


class Unreachable(MissingError):
    """The cluster does not answer, or there is no such context."""


@dataclass(frozen=True)
class Kind:
    """A kind that the cluster serves: the name of its resource, ``deployments``, and whether it is in namespaces."""

    resource: str
    namespaced: bool


class Cluster:
    """A context of the kubeconfig, and a namespace.

    Args:
        kubectl: The program.
        context: The context's name.
        namespace: Of everything that has one.
    """

    def __init__(self, kubectl: Path, context: str, namespace: str) -> None:
        self.kubectl, self.context, self.namespace = kubectl, context, namespace

    @cached_property
    def contexts(self) -> dict[str, str]:
        """What the kubeconfig has: the contexts' names, and the addresses of their API servers.

        Raises:
            Unreachable: It cannot be read.
        """
        command = [str(self.kubectl), "config", "view", "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["kubectl said nothing"])[-1]
            raise Unreachable(f"the kubeconfig cannot be read: {last}", "correct it, or get a new one")
        said = json.loads(done.stdout or "{}")
        servers = {one["name"]: one["cluster"].get("server", "") for one in said.get("clusters") or []}
        return {one["name"]: servers.get(one["context"].get("cluster"), "") for one in said.get("contexts") or []}

    def run(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """One command of kubectl, whatever its exit code."""
        command = [
            str(self.kubectl), f"--context={self.context}", f"--namespace={self.namespace}",
            f"--request-timeout={_TIMEOUT_S}s", *arguments,
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, input=given, check=False)

    def ask(self, *arguments: str, given: str | None = None) -> str | None:
        """What a command prints; None if what it asks for does not exist.

        Raises:
            Forbidden: This user may not ask that.
            Unreachable: The cluster does not answer.
        """
        done = self.run(*arguments, given=given)
        if done.returncode == 0:
            return done.stdout
        said = done.stderr.strip()
        if "(NotFound)" in said or "doesn't have a resource type" in said:
            return None
        last = (said.splitlines() or ["kubectl said nothing"])[-1]
        if "(Forbidden)" in said or "forbidden" in last:
            raise Forbidden(f"you may not do that in context {self.context}: {last}", "ask for that right")
        raise Unreachable(f"context {self.context}: {last}", "check the network, the VPN, and that you are logged in")

    def get(self, resource: str, name: str = "", *arguments: str) -> Object | None:
        """An object, or a list of them; None if there is no such object or kind.

        Raises:
            Forbidden: This user may not read it.
            Unreachable: The cluster does not answer.
        """
        said = self.ask("get", resource, *([name] if name else []), "-o", "json", *arguments)
        return None if said is None else dict(json.loads(said))

    @cached_property
    def version(self) -> str:
        """Of the API server, ``1.34``.

        Raises:
            Unreachable: It does not answer.
        """
        said = json.loads(self.ask("version", "-o", "json") or "{}").get("serverVersion")
        if not said:
            raise Unreachable(f"context {self.context} says no version", "check the address in the kubeconfig")
        return f"{said['major']}.{re.match('[0-9]*', said['minor'])[0]}"  # type: ignore[index]

    @cached_property
    def kinds(self) -> dict[tuple[str, str], Kind]:
        """What it serves: (``apps/v1``, ``Deployment``) to its resource."""
        found = {}
        for line in (self.run("api-resources", "--no-headers").stdout).splitlines():
            words = line.split()
            if len(words) >= 4:
                found[words[-3], words[-1]] = Kind(words[0], words[-2] == "true")
        return found

    @cached_property
    def groups(self) -> list[str]:
        """The API groups with their versions: ``apps/v1``, ``keda.sh/v1alpha1``."""
        return self.run("api-versions").stdout.split()

    def may(self, wanted: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
        """Which of these this user may not do, asked in one go.

        Args:
            wanted: (verb, API group, resource), in this namespace.

        Raises:
            Unreachable: The cluster does not answer.
        """
        reviews = [
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {
                    "resourceAttributes": {"namespace": self.namespace} | dict(zip(_ATTRIBUTES, one, strict=True))
                },
            }
            for one in wanted
        ]
        given = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews})
        said = self.ask("create", "-f", "-", "-o", "json", "--validate=ignore", given=given)
        answers = _documents(said or "")
        return [one for one, answer in zip(wanted, answers, strict=True) if not answer["status"].get("allowed")]


def _documents(text: str) -> list[Object]:
    """The JSON objects that kubectl prints one after another."""
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        one, end = decoder.raw_decode(text)
        found.append(one)
        text = text[end:]
    return found
