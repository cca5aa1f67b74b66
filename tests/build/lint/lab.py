"""Models written by code, and the real server that says whether it takes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TypeAlias
from urllib.parse import quote

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tritonkit.repository.lint import RULES, Options, registry
from tritonkit.server import TritonServer


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


# Path in a model's folder → what is there; None is an empty folder.
Content: TypeAlias = "str | bytes | Link | None"
Files: TypeAlias = "dict[str, Content]"

XY = 'input { name: "x" data_type: TYPE_FP32 dims: 4 }\noutput { name: "y" data_type: TYPE_FP32 dims: 4 }\n'
ONE = "instance_group { count: 1 kind: KIND_CPU }\n"
BATCHED = "max_batch_size: 4\n"
IDENTITY = """
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb.InferenceResponse([pb.Tensor("y", array)]) for array in inputs]
"""
F = TensorProto.FLOAT
SERVERS = 6
# Triton asks a backend's process of its own to complete each configuration, which takes as long as the load itself.
AS_WRITTEN = "--disable-auto-complete-config"
NO_ANSWER = "no answer"
DIED = "the server died of it"
_STARTING = Lock()


@dataclass(frozen=True)
class Case:
    """A rule's bad and good model.

    Attributes:
        rule: The id.
        bad: A model that has the problem, and no other that is an error.
        good: The same without it.
        says: Words of Triton's refusal of ``bad``; empty where the server here does not judge it.
        label: What this case of the rule is about.
        runs: Whether the server here can load ``good``.
        hangs: Whether the load may also never end, which is a refusal too.
        ends: Whether the load may also end the server, which is a refusal too.
        requests: Whether Triton loads ``bad`` and fails its requests.
        severity: Of the finding in ``bad``, where it is milder than the rule's.
        options: What lint is told.
        good_options: The same of ``good``; as ``options`` if not given.
    """

    rule: str
    bad: Files
    good: Files
    says: str = ""
    label: str = ""
    runs: bool = True
    hangs: bool = False
    ends: bool = False
    requests: bool = False
    severity: str = ""
    options: Options = field(default_factory=Options)
    good_options: Options | None = None

    @property
    def name(self) -> str:
        """For pytest, and for the model's folder."""
        return f"{self.rule}_{self.label}".strip("_").lower()

    @property
    def core_alone(self) -> bool:
        """Whether Triton's core judges both models, whatever their backend says."""
        text = str(self.bad) + str(self.good)
        if "config.pbtxt" not in self.good:
            return False  # the backend completes it
        judged = RULES[self.rule].enforced_by in {registry.CORE, registry.ADVICE}
        real = (".onnx", "onnxruntime", '"fil"', "part_completed")
        return judged and not self.hangs and not any(word in text for word in real)

    @property
    def completed(self) -> bool:
        """Whether a backend has something to add to the configuration of either model, or could refuse to."""
        return not (is_complete(self.bad) and is_complete(self.good))

    @property
    def advised(self) -> bool:
        """Whether Triton here is to load ``bad`` too."""
        mild = RULES[self.rule].severity != "error"
        return self.runs and not self.says and (mild or self.requests)


def python(config: str = BATCHED + XY, code: str = IDENTITY, **files: Content) -> Files:
    """A Python model."""
    return {"1/model.py": code, "config.pbtxt": f'backend: "python"\n{ONE}{config}'} | _named(files)


def is_complete(files: Files) -> bool:
    """Whether a configuration names its backend and all tensors, so that :data:`AS_WRITTEN` changes nothing for it."""
    config, code = str(files.get("config.pbtxt", "")), str(files.get("1/model.py", ""))
    fields = (r"(backend|platform):", r"input\b", r"output\b")
    return (
        "auto_complete" not in code
        and "part_completed" not in config
        and all(re.search(rf"(?m)^\s*{field}", config) for field in fields)
    )


def onnx_model(config: str | None = BATCHED + XY, graph: bytes | None = None, **files: Content) -> Files:
    """An ONNX model; without ``config`` one that Triton completes."""
    config_file: Files = {} if config is None else {"config.pbtxt": f'backend: "onnxruntime"\n{ONE}{config}'}
    return {"1/model.onnx": graph or relu()} | config_file | _named(files)


def _named(files: Files) -> Files:
    """Folders in keyword arguments are written with two underscores."""
    return {name.replace("__", "/"): content for name, content in files.items()}


def tensor(name: str, *dims: int | str, dtype: int = F) -> onnx.ValueInfoProto:
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, dtype, dims)


def graph(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: list[onnx.TensorProto] | None = None,
    opset: int = 17,
    ir: int = 8,
) -> bytes:
    """An ONNX file."""
    proto = helper.make_graph(nodes, "graph", inputs, outputs, initializers or [])
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    return model.SerializeToString()


def relu(*dims: int | str, dtype: int = F, opset: int = 17, ir: int = 8) -> bytes:
    """A graph from x to y of one shape, ``[N, 4]`` if none is given."""
    shape = dims or ("N", 4)
    node = helper.make_node("Relu" if dtype == F else "Identity", ["x"], ["y"])
    return graph([node], [tensor("x", *shape, dtype=dtype)], [tensor("y", *shape, dtype=dtype)], opset=opset, ir=ir)


def quantized(zero: int, dtype: type[np.generic]) -> bytes:
    """A graph with a quantize and a dequantize node of this zero point."""
    scale = helper.make_tensor("scale", F, [], [0.1])
    point = onnx.numpy_helper.from_array(np.array(zero, dtype=dtype), "zero")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], name="dequantize"),
    ]
    return graph(nodes, [tensor("x", "N", 4)], [tensor("y", "N", 4)], [scale, point])


def ensemble(*steps: str, config: str = BATCHED + XY, **files: Content) -> Files:
    """An ensemble of steps; see :func:`step`."""
    text = f'platform: "ensemble"\n{config}ensemble_scheduling {{\n{"".join(steps)}}}\n'
    return {"1/.gitkeep": "", "config.pbtxt": text} | _named(files)


def step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str], version: int | None = -1) -> str:
    """One step of an ensemble."""
    maps = [f'    input_map {{ key: "{key}" value: "{value}" }}\n' for key, value in inputs.items()]
    maps += [f'    output_map {{ key: "{key}" value: "{value}" }}\n' for key, value in outputs.items()]
    version_line = "" if version is None else f"    model_version: {version}\n"
    return f'  step {{\n    model_name: "{model}"\n{version_line}{"".join(maps)}  }}\n'


def write(folder: Path, files: Files) -> None:
    """Put a model into its folder."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        elif isinstance(content, Link):
            path.symlink_to(content.target)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


# What ensembles in the cases are made of.
PARTS: dict[str, Files] = {
    "part": python(),
    "part_of_ints": python(BATCHED + XY.replace('"y" data_type: TYPE_FP32', '"y" data_type: TYPE_INT32')),
    "part_of_two": python(BATCHED + 'input { name: "x2" data_type: TYPE_FP32 dims: 4 }\n' + XY),
    "part_optional": python(BATCHED + 'input { name: "o" data_type: TYPE_FP32 dims: 1 optional: true }\n' + XY),
    "part_unbatched": python(XY.replace("dims: 4", "dims: [-1, 4]")),
    "part_small": python("max_batch_size: 2\n" + XY),
    "part_decoupled": python(BATCHED + XY + "model_transaction_policy { decoupled: true }\n"),
    "part_completed": onnx_model(None),
}


@dataclass(frozen=True)
class Served:
    """A running server, and why each of its models is not ready; equal models are loaded once."""

    server: TritonServer
    same: Mapping[str, str]
    reasons: Mapping[str, str]

    def why_not(self, name: str) -> str:
        """Empty if the model is served."""
        return self.reasons.get(self.same[name], "it is not in the index")

    def infer(self, name: str) -> str:
        """Ask a model from x to y once: empty if it answers, else what it says instead."""
        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
        url, body = f"{self.server.http_url}/v2/models/{name}/infer", json.dumps({"inputs": [tensor]}).encode()
        try:
            urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=10).close()
        except urllib.error.HTTPError as error:
            with error:
                return str(json.load(error)["error"])
        return ""


def states(server: TritonServer) -> dict[str, str]:
    """Each model in the server's index and why it is not ready; empty if it is."""
    request = urllib.request.Request(f"{server.http_url}/v2/repository/index", data=b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        index = json.load(answer)
    return {
        entry["name"]: "" if entry.get("state") == "READY" else entry.get("reason") or "not ready" for entry in index
    }


def load(server: TritonServer, name: str, timeout_s: float) -> str:
    """Load one model: empty if it loads, else why not.

    Raises:
        ConnectionError: The server died of it.
    """
    return _control(server, name, "load", timeout_s)


def not_ready(server: TritonServer, name: str) -> str:
    """Why a model is not ready although its load was reported as done; empty if it is."""
    try:
        urllib.request.urlopen(f"{server.http_url}/v2/models/{quote(name)}/ready", timeout=10).close()
    except urllib.error.HTTPError as error:
        error.close()
        return "loaded, and not ready"
    return ""


def unload(server: TritonServer, name: str) -> None:
    """Unload one model, so that its process ends."""
    _control(server, name, "unload", 10)


def _control(server: TritonServer, name: str, verb: str, timeout_s: float) -> str:
    url = f"{server.http_url}/v2/repository/models/{quote(name)}/{verb}"
    try:
        urllib.request.urlopen(urllib.request.Request(url, data=b"{}", method="POST"), timeout=timeout_s).close()
    except urllib.error.HTTPError as error:
        with error:
            return str(json.load(error)["error"])
    except TimeoutError:
        return NO_ANSWER
    return ""


def core_only(folder: Path) -> list[str]:
    """The argument that gives a server a backend ``python`` that runs nothing, so that only the core judges a model.

    A load takes milliseconds then; with the real one it takes a Python process, or two. Skips the test where there is
    no C compiler.
    """
    if not shutil.which("cc"):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no C compiler (cc)")
    (folder / "python").mkdir(parents=True)
    library = folder / "python/libtriton_python.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, Path(__file__).with_name("backend.c")], check=True)
    return [f"--backend-directory={folder}"]


def ask(
    repository: Path, timeouts_s: Mapping[str, float], logs: Path, arguments: Sequence[str] = (), servers: int = SERVERS
) -> dict[str, str]:
    """All that Triton says when each model is loaded, in its answer and in its log; empty if it loads.

    Several servers share the models, each loading one at a time: Triton 24.10 waits a second after each Python model
    that fails, and now and then dies of several that fail side by side. A model that does load is unloaded again.

    Args:
        repository: The models.
        timeouts_s: Names of those to load, each with the seconds after which a load counts as one that never ends.
        logs: A folder for the servers' logs.
        arguments: More of the server's own.
        servers: How many.
    """
    groups = [group for start in range(servers) if (group := list(timeouts_s)[start::servers])]
    words = ["--model-control-mode=explicit", *arguments]
    with ThreadPoolExecutor(servers) as pool:
        answers = [
            pool.submit(_ask, repository, {name: timeouts_s[name] for name in group}, logs / f"{number}.log", words)
            for number, group in enumerate(groups)
        ]
        return {name: reply for answer in answers for name, reply in answer.result().items()}


def _ask(repository: Path, timeouts_s: Mapping[str, float], log: Path, arguments: list[str]) -> dict[str, str]:
    """One server's share; a server that dies is started again. A model at which two fresh servers die is the cause."""
    replies: dict[str, str] = {}
    left, deaths = list(timeouts_s), 0
    while left:
        before = len(left)
        with _STARTING:  # a free port is chosen first and bound later
            server = TritonServer(repository, arguments=arguments, log=log, exit_timeout_s=0)
            server.start()
        with ExitStack() as stack, suppress(ConnectionError, urllib.error.URLError):
            stack.callback(server.stop)
            while left:
                name = left[0]
                replies[name] = load(server, name, timeouts_s[name]) or not_ready(server, name)
                if not replies[name]:
                    unload(server, name)
                left.pop(0)
                if replies[name] == NO_ANSWER:  # what comes next might wait for it
                    break
        _add_log(replies, log)
        deaths = deaths + 1 if len(left) == before else 0
        if deaths == 2:
            replies[left.pop(0)], deaths = DIED, 0
    return replies


def _add_log(replies: dict[str, str], log: Path) -> None:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for name, answer in replies.items():
        if not answer:
            continue
        marks = (f"'{name}'", f"/{name}/", f" {name} ", f' {name}"', f"{name}:")
        replies[name] = "\n".join([answer, *(line for line in lines if any(mark in line for mark in marks))])
