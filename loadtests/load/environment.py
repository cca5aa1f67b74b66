"""Where a load test ran, for its report."""

from __future__ import annotations

import json
import os
import platform
import urllib.request
from importlib import metadata
from pathlib import Path

import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from tritonkit.server import runtime


def machine() -> dict[str, str]:
    """This machine and the versions of what sends."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    processor = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return {
        "cpu": processor or platform.processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "gpu": "yes" if runtime.detect_device() == "cuda" else "none",
        "python": platform.python_version(),
        "onnxruntime": metadata.version("onnxruntime"),
        "locust": metadata.version("locust"),
    }


def triton(host: str) -> dict[str, str]:
    """The version of the server at ``grpc://…`` or ``http://…``; nothing where it does not say."""
    protocol, _, address = host.partition("://")
    try:
        if protocol == "grpc":
            with tritonclient.grpc.InferenceServerClient(address) as client:
                return {"triton": str(client.get_server_metadata(client_timeout=2).version)}
        with urllib.request.urlopen(f"{host}/v2", timeout=2) as answer:
            return {"triton": str(json.load(answer)["version"])}
    except (OSError, ValueError, KeyError, InferenceServerException):
        return {}
