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
    """The cluster answers, and this user lacks the permission."""


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
        namespace: The namespace of everything that has one.
    """

    def __init__(self, kubectl: Path, context: str, namespace: str) -> None:
        self.kubectl, self.context, self.namespace = kubectl, context, namespace

    @cached_property
    def contexts(self) -> dict[str, str]:
        """The kubeconfig's contexts: their names, and the addresses of their API servers.

        Raises:
            Unreachable: The kubeconfig cannot be read.
        """
        command = [str(self.kubectl), "config", "view", "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["kubectl said nothing"])[-1]
            raise Unreachable(f"the kubeconfig cannot be read: {last}", "correct it, or get a new one")
        config = json.loads(done.stdout or "{}")
        servers = {cluster["name"]: cluster["cluster"].get("server", "") for cluster in config.get("clusters") or []}
        return {
            context["name"]: servers.get(context["context"].get("cluster"), "")
            for context in config.get("contexts") or []
        }

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run one command of kubectl, whatever its exit code."""
        command = [
            str(self.kubectl), f"--context={self.context}", f"--namespace={self.namespace}",
            f"--request-timeout={_TIMEOUT_S}s", *arguments,
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, input=stdin, check=False)

    def ask(self, *arguments: str, stdin: str | None = None) -> str | None:
        """The output of a command; None if the object or kind does not exist.

        Raises:
            Forbidden: This user lacks the permission.
            Unreachable: The cluster does not answer.
        """
        done = self.run(*arguments, stdin=stdin)
        if done.returncode == 0:
            return done.stdout
        stderr = done.stderr.strip()
        if "(NotFound)" in stderr or "doesn't have a resource type" in stderr:
            return None
        last = (stderr.splitlines() or ["kubectl said nothing"])[-1]
        if "(Forbidden)" in stderr or "forbidden" in last:
            raise Forbidden(f"you may not do that in context {self.context}: {last}", "ask for that right")
        raise Unreachable(f"context {self.context}: {last}", "check the network, the VPN, and that you are logged in")

    def get(self, resource: str, name: str = "", *arguments: str) -> Object | None:
        """An object, or a list of them; None if there is no such object or kind.

        Raises:
            Forbidden: This user may not read it.
            Unreachable: The cluster does not answer.
        """
        output = self.ask("get", resource, *([name] if name else []), "-o", "json", *arguments)
        return None if output is None else dict(json.loads(output))

    @cached_property
    def version(self) -> str:
        """The API server's version, ``1.34``.

        Raises:
            Unreachable: The API server does not answer.
        """
        version = json.loads(self.ask("version", "-o", "json") or "{}").get("serverVersion")
        if not version:
            raise Unreachable(f"context {self.context} says no version", "check the address in the kubeconfig")
        return f"{version['major']}.{re.match('[0-9]*', version['minor'])[0]}"  # type: ignore[index]

    @cached_property
    def kinds(self) -> dict[tuple[str, str], Kind]:
        """The kinds that the cluster serves: (``apps/v1``, ``Deployment``) to its resource."""
        kinds = {}
        for line in (self.run("api-resources", "--no-headers").stdout).splitlines():
            words = line.split()
            if len(words) >= 4:
                kinds[words[-3], words[-1]] = Kind(words[0], words[-2] == "true")
        return kinds

    @cached_property
    def groups(self) -> list[str]:
        """The API groups with their versions: ``apps/v1``, ``keda.sh/v1alpha1``."""
        return self.run("api-versions").stdout.split()

    def may(self, permissions: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
        """Which of these permissions this user does not have, asked in one request.

        Args:
            permissions: (verb, API group, resource), in this namespace.

        Raises:
            Unreachable: The cluster does not answer.
        """
        reviews = [
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {
                    "resourceAttributes": {"namespace": self.namespace}
                    | dict(zip(_ATTRIBUTES, permission, strict=True))
                },
            }
            for permission in permissions
        ]
        stdin = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews})
        output = self.ask("create", "-f", "-", "-o", "json", "--validate=ignore", stdin=stdin)
        answers = _documents(output or "")
        return [
            permission
            for permission, answer in zip(permissions, answers, strict=True)
            if not answer["status"].get("allowed")
        ]


def _documents(text: str) -> list[Object]:
    """The JSON objects that kubectl prints one after another."""
    decoder, documents = json.JSONDecoder(), []
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        documents.append(document)
        text = text[end:]
    return documents
