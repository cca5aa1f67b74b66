"""Where a load test ran, for its report: the machine, its GPUs, and how the server runs the models."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import tritonclient.grpc
from google.protobuf import json_format
from tritonclient.utils import InferenceServerException

from tritonkit.server import runtime

TIMEOUT_S = 2
NVIDIA_SMI_S = 10
# onnxruntime's distributions; a machine with a GPU has the second.
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
KINDS = {"KIND_CPU": "CPU", "KIND_GPU": "GPU"}


def machine() -> dict[str, str]:
    """This machine and the versions of what sends."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    processor = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return {
        "cpu": processor or platform.processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "gpu": ", ".join(gpus()) or "none",
        "python": platform.python_version(),
        "onnxruntime": _onnxruntime(),
        "locust": metadata.version("locust"),
    }


def gpus() -> list[str]:
    """The name of every GPU that this process may use, as ``nvidia-smi`` has it; empty without an NVIDIA driver."""
    if runtime.detect_device() != "cuda":
        return []
    command = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ["NVIDIA, of unknown model"]
    return visible(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(listing: str, chosen: str | None) -> list[str]:
    """The names in a listing of index, UUID and name that ``CUDA_VISIBLE_DEVICES`` leaves; all of them without it."""
    rows = [[part.strip() for part in line.split(",", 2)] for line in listing.splitlines() if line.count(",") >= 2]
    if chosen is None:
        return [name for _, _, name in rows]
    devices = [device.strip() for device in chosen.split(",") if device.strip()]
    return [name for device in devices for index, uuid, name in rows if device == index or uuid.startswith(device)]


def triton(host: str, models: Sequence[str] = ()) -> dict[str, str]:
    """The server at ``grpc://…`` or ``http://…``: its version, and on which devices it runs how many instances.

    Nothing where it does not say.
    """
    protocol, _, address = host.partition("://")
    try:
        if protocol == "grpc":
            with tritonclient.grpc.InferenceServerClient(address) as client:
                version = str(client.get_server_metadata(client_timeout=TIMEOUT_S).version)
                return {"triton": version} | _instances({model: _grpc_config(client, model) for model in models})
        version = str(_get(f"{host}/v2")["version"])
        return {"triton": version} | _instances({model: _http_config(host, model) for model in models})
    except (OSError, ValueError, KeyError, InferenceServerException):
        return {}


def instances(config: Mapping[str, Any]) -> str:
    """In words, how many instances of a model run on each device: ``4 on GPU 0, 4 on GPU 1``.

    Args:
        config: The model's configuration as the running server has it: it names the GPUs that the file left out.
    """
    parts = []
    for group in config.get("instance_group", []):
        kind, count = KINDS.get(group.get("kind", ""), ""), int(group.get("count", 1))
        devices = [f"GPU {gpu}" for gpu in group.get("gpus", [])] if kind == "GPU" else []
        parts += [f"{count} on {device}" for device in devices or ([kind] if kind else [])]
    return ", ".join(parts)


def _instances(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    by_model = {model: words for model, config in configs.items() if (words := instances(config))}
    named = [f"{model}: {words}" if len(configs) > 1 else words for model, words in by_model.items()]
    return {"instances": "; ".join(named)} if named else {}


def _grpc_config(client: Any, model: str) -> Mapping[str, Any]:
    """A model's configuration; empty for other servers, as it is an extension of Triton's."""
    try:
        message = client.get_model_config(model, client_timeout=TIMEOUT_S).config
    except InferenceServerException:
        return {}
    config: Mapping[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return config


def _http_config(host: str, model: str) -> Mapping[str, Any]:
    try:
        return _get(f"{host}/v2/models/{model}/config")
    except (OSError, ValueError):
        return {}


def _get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
        content: dict[str, Any] = json.load(response)
        return content


def _onnxruntime() -> str:
    """The version of onnxruntime in this process; the server has its own."""
    for name in RUNTIMES:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "none"
