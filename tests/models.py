"""Small models for the embedded server's Python backend, one for each behaviour."""

from __future__ import annotations

from pathlib import Path

DATATYPES = (
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64",
    "BF16", "BYTES",
)  # fmt: skip

# Returns every input that it gets: `in_FP32` as `out_FP32`. BF16 has no numpy type inside the server.
IDENTITY = """
import triton_python_backend_utils as pb_utils

def same(tensor):
    name = tensor.name().replace("in_", "out_")
    if tensor.name() == "in_BF16":
        return pb_utils.Tensor.from_dlpack(name, tensor.to_dlpack())
    return pb_utils.Tensor(name, tensor.as_numpy())

class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([same(t) for t in request.inputs()]) for request in requests]
"""

# Returns its only input.
ECHO = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", array)]) for array in arrays]
"""

ARITHMETIC = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            left, right = (
                pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("left", "right")
            )
            outputs = [pb_utils.Tensor("sum", left + right), pb_utils.Tensor("difference", left - right)]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
"""

ZEROS = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        zeros = pb_utils.Tensor("logits", np.zeros((1, 1000), np.float32))
        return [pb_utils.InferenceResponse([zeros]) for _ in requests]
"""

# Sleeps for as long as its input `timeout` says; a negative time is an error inside the model.
SLEEP = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            seconds = pb_utils.get_input_tensor_by_name(request, "timeout").as_numpy()
            time.sleep(float(seconds.flat[0]))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("slept", seconds)]))
        return responses
"""


# Answers with the request's parameters, headers among them, its timeout and its id.
INSPECT = """
import json
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            seen = {
                "parameters": json.loads(request.parameters()), "timeout_us": request.timeout(),
                "id": request.request_id(), "sequence": request.correlation_id(),
            }
            text = np.array([json.dumps(seen).encode()], dtype=object)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("seen", text)]))
        return responses
"""

# Counts up to its input, one response each, as slowly and as large as asked; a cancelled request leaves a file.
COUNT = """
import pathlib, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            def value(name):
                return pb_utils.get_input_tensor_by_name(request, name).as_numpy().flat[0]
            for number in range(int(value("upto"))):
                if request.is_cancelled():
                    pathlib.Path(value("mark").decode()).write_text(str(number))
                    break
                payload = np.full(int(value("size")), number, np.int32)
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("number", payload)]))
                time.sleep(float(value("pause")))
            if value("upto") < 0:
                sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("it went wrong")))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""

# A response for each word of its prompt.
WRITER = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for word in pb_utils.get_input_tensor_by_name(request, "prompt").as_numpy().flat[0].split():
                output = pb_utils.Tensor("word", np.array([word], dtype=object))
                sender.send(pb_utils.InferenceResponse([output]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""

# A row of scores for each image.
SCORES = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        rows = [len(pb_utils.get_input_tensor_by_name(request, "image").as_numpy()) for request in requests]
        outputs = [pb_utils.Tensor("scores", np.zeros((count, 2), np.float32)) for count in rows]
        return [pb_utils.InferenceResponse([output]) for output in outputs]
"""

# As many numbers as asked for, whatever the shapes of the inputs.
GROW = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            size = int(pb_utils.get_input_tensor_by_name(request, "n").as_numpy()[0])
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("out", np.full(size, size, np.int32))]))
        return responses
"""

# Adds up the inputs of a sequence; answers with the sum, and with the sequence's id and flags.
SUM = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.totals = {}

    def execute(self, requests):
        responses = []
        for request in requests:
            def value(name):
                return pb_utils.get_input_tensor_by_name(request, name).as_numpy().flat[0]
            key = int(value("key"))
            if value("start"):
                self.totals[key] = 0.0
            self.totals[key] += float(value("x"))
            out = np.array([self.totals[key], key, value("start"), value("end"), len(self.totals)], np.float64)
            if value("end"):
                del self.totals[key]
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("state", out.reshape(1, 5))]))
        return responses
"""


def tensor(kind: str, name: str, datatype: str, dims: str, more: str = "") -> str:
    """One input or output of a config.pbtxt."""
    triton = "STRING" if datatype == "BYTES" else datatype
    return f'{kind} {{ name: "{name}" data_type: TYPE_{triton} dims: [{dims}] {more} }}\n'


def arithmetic_config(size: int) -> str:
    """A batching model with two inputs and two outputs of ``size`` elements a sample."""
    sides = "".join(tensor("input", name, "FP32", str(size)) for name in ("left", "right"))
    results = "".join(tensor("output", name, "FP32", str(size)) for name in ("sum", "difference"))
    return f'backend: "python"\nmax_batch_size: 4\n{sides}{results}'


def identity_config() -> str:
    inputs = "".join(tensor("input", f"in_{name}", name, "-1, -1", "optional: true") for name in DATATYPES)
    outputs = "".join(tensor("output", f"out_{name}", name, "-1, -1") for name in DATATYPES)
    return f'backend: "python"\n{inputs}{outputs}'


def sleep_config(more: str = "", size: str = "1") -> str:
    sides = tensor("input", "timeout", "FP32", size) + tensor("output", "slept", "FP32", size)
    return f'backend: "python"\nmax_batch_size: 1\n{sides}{more}'


def count_config() -> str:
    inputs = "".join(
        tensor("input", name, datatype, "1")
        for name, datatype in (("upto", "INT32"), ("size", "INT32"), ("pause", "FP32"), ("mark", "BYTES"))
    )
    return f'backend: "python"\nmodel_transaction_policy {{ decoupled: true }}\n{inputs}' + tensor(
        "output", "number", "INT32", "-1"
    )


def sum_config() -> str:
    controls = "".join(
        f'control_input {{ name: "{name}" control {{ kind: {kind} {more} }} }}\n'
        for name, kind, more in (
            ("start", "CONTROL_SEQUENCE_START", "int32_false_true: [0, 1]"),
            ("end", "CONTROL_SEQUENCE_END", "int32_false_true: [0, 1]"),
            ("key", "CONTROL_SEQUENCE_CORRID", "data_type: TYPE_UINT64"),
        )
    )
    sides = tensor("input", "x", "FP32", "1") + tensor("output", "state", "FP64", "5")
    return f'backend: "python"\nmax_batch_size: 1\nsequence_batching {{ oldest {{ max_candidate_sequences: 8 }} {controls} }}\n{sides}'


def add_model(repository: Path, name: str, code: str, config: str) -> None:
    """Write a model of the Python backend."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(code)
    (repository / name / "config.pbtxt").write_text(config)


def echo_config(datatype: str, dims: str, more: str = "") -> str:
    sides = tensor("input", "x", datatype, dims) + tensor("output", "y", datatype, dims, more)
    return f'backend: "python"\nmax_batch_size: 4\n{sides}'


def _models() -> dict[str, tuple[str, str]]:
    """Code and configuration by name."""
    seen = tensor("input", "x", "FP32", "1", "optional: true") + tensor("output", "seen", "BYTES", "1")
    image = tensor("input", "image", "UINT8", "224, 224, 3")
    speech = tensor("input", "timeout", "FP32", "1") + tensor("input", "audio", "FP32", "-1")
    logits = tensor("output", "logits", "FP32", "1000")
    impatient = "timeout_action: REJECT default_timeout_microseconds: 300000"
    return {
        "identity": (IDENTITY, identity_config()),
        "arithmetic": (ARITHMETIC, arithmetic_config(3)),
        "labelled": (ECHO, echo_config("FP32", "3", 'label_filename: "labels.txt"')),
        "photo": (ECHO, echo_config("UINT8", "4, 6, 3")),
        "reloaded": (ARITHMETIC, arithmetic_config(3)),
        "sleep": (SLEEP, sleep_config()),
        "sleep3": (SLEEP, sleep_config("instance_group { count: 3 kind: KIND_CPU }")),
        "inspect": (INSPECT, f'backend: "python"\n{seen}'),
        "grow": (
            GROW,
            f'backend: "python"\n{tensor("input", "n", "INT32", "1")}{tensor("output", "out", "INT32", "-1")}',
        ),
        "sleep_big": (SLEEP, sleep_config(size="-1")),
        "count": (COUNT, count_config()),
        "sum": (SUM, sum_config()),
        # What docs/reference/clients.md calls.
        "classifier": (
            SCORES,
            f'backend: "python"\nmax_batch_size: 64\n{image}{tensor("output", "scores", "FP32", "2")}',
        ),
        "tracker": (SUM, sum_config()),
        "writer": (
            WRITER,
            'backend: "python"\nmodel_transaction_policy { decoupled: true }\n'
            + tensor("input", "prompt", "BYTES", "1")
            + tensor("output", "word", "BYTES", "1"),
        ),
        "efficientnet_lite0": (ZEROS, f'backend: "python"\nmax_batch_size: 64\n{image}{logits}'),
        "speech": (ZEROS, f'backend: "python"\nmax_batch_size: 64\n{speech}{logits}'),
        "queue": (SLEEP, sleep_config(_queue("max_queue_size: 1"))),
        "impatient": (SLEEP, sleep_config(_queue(impatient))),
    }


def _queue(policy: str) -> str:
    return f"dynamic_batching {{ default_queue_policy {{ {policy} }} }}"


def write_models(repository: Path, *names: str) -> None:
    """Write the models of these names; all of them without a name."""
    for name, (code, config) in _models().items():
        if name in names or not names:
            add_model(repository, name, code, config)
            if "labels.txt" in config:
                (repository / name / "labels.txt").write_text("cat\ndog: large\nfish\n")
