"""Renders the chart for the proofs: ``helm template`` with a claim as the source of models.

A claim without the check of passports needs no init container, and none is run here; what others render, and whether it
is right, is proved in ``tests/helm``.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritonkit.errors import CheckFailed
from tritonkit.kubetools import binaries, manifest

CHART = Path("helm/tritonkit")  # of the checkout that this runs in

_NO_INIT: dict[str, Any] = {
    "models": {"pvc": {"claimName": "models"}}, "engineBuild": {"checkPassports": False}
}  # fmt: skip


def render(values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Every document that the chart renders with these values.

    Raises:
        CheckFailed: Helm refused; its own words are in the message.
        MissingError: There is no helm 4.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(_NO_INIT | dict(values or {}), file)
        file.flush()
        done = subprocess.run(
            [str(binaries.helm()), "template", "drain", str(CHART), "--values", file.name],
            capture_output=True, text=True, check=False, env=binaries.rendering_environment(),
        )  # fmt: skip
    if done.returncode:
        raise CheckFailed(f"helm template failed:\n{done.stderr.strip()}", "correct the values or the chart")
    return manifest.objects(done.stdout)
