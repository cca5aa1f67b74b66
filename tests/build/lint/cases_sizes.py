"""Execution by prepared sizes: tritonkit's own backend, and convolutions on NVIDIA's."""

from __future__ import annotations

import json
from typing import Any

from onnx import TensorProto, helper

from tritonkit import gpus
from tritonkit.repository.lint import Options
from tritonkit.repository.lint.findings import parse_image, parse_origin

from .lab import BATCHED, XY, Case, Files, graph, relu, tensor

GPU = "instance_group { count: 1 kind: KIND_GPU }\n"
CPU = GPU.replace("GPU", "CPU")
OURS = 'backend: "tritonkit_onnxruntime"\n'
THEIRS = 'backend: "onnxruntime"\n'
DYNAMIC = "dynamic_batching {}\n" + GPU  # two instances, or the queue of one would be another rule's
KERNEL = helper.make_tensor("w", TensorProto.FLOAT, [4, 4, 1, 1], [0.0] * 16)
CONVOLUTION = graph(
    [helper.make_node("Conv", ["x", "w"], ["y"])],
    [tensor("x", "N", 4, 2, 2)],
    [tensor("y", "N", 4, 2, 2)],
    [KERNEL],
)
IMAGES = BATCHED + XY.replace("dims: 4", "dims: [4, 2, 2]")
TENSORRT = 'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }\n'
UNBATCHED = XY.replace("dims: 4", "dims: [1, 4]")
IDS = graph([helper.make_node("Identity", ["x"], ["y"])], [tensor("x", "N", "L", dtype=TensorProto.INT8)],
            [tensor("y", "N", "L", dtype=TensorProto.INT8)])  # fmt: skip
LENGTHS = (BATCHED + XY).replace("TYPE_FP32 dims: 4", "TYPE_INT8 dims: -1")
RAGGED = LENGTHS.replace("dims: -1 }\nout", "dims: -1 allow_ragged_batch: true }\nout")
STRINGS = relu("N", "L", dtype=TensorProto.STRING)
TEXTS = BATCHED + XY.replace("TYPE_FP32 dims: 4", "TYPE_STRING dims: 4")
TEXT = relu("N", 4, dtype=TensorProto.STRING)


def model(backend: str, config: str, onnx_bytes: bytes | None = None, passport: str = "") -> Files:
    """An ONNX model of one of the two backends."""
    group = "" if "instance_group" in config else CPU
    files: Files = {"1/model.onnx": onnx_bytes or relu(), "config.pbtxt": backend + group + config}
    return files | ({"passport.json": passport} if passport else {})


def parameter(name: str, value: str) -> str:
    return f"parameters {{ key: {json.dumps(name)} value {{ string_value: {json.dumps(value)} }} }}\n"


def sizes(value: str, more: str = "") -> Files:
    return model(OURS, BATCHED + XY + parameter("batch_sizes", value) + more)


def graphs(value: str) -> Files:
    return sizes("1,2,4", parameter("cuda_graphs", value))


def padded(text: str, config: str = RAGGED, onnx_bytes: bytes = IDS, batches: str = "1,2,4") -> Files:
    return model(OURS, config + parameter("batch_sizes", batches) + parameter("padding", text), onnx_bytes)


def padding(config: str = RAGGED, onnx_bytes: bytes = IDS, batches: str = "1,2,4", **changes: Any) -> Files:
    """A model with a padded dimension, changed somewhere."""
    dimension = {"sizes": [8, 16], "inputs": {"x": {"axis": 0, "value": 0}}, "outputs": {"y": {"axis": 0}}} | changes
    return padded(json.dumps({"sequence": dimension}), config, onnx_bytes, batches)


def image(text: str) -> Options:
    return Options(image=parse_image(text), origin=parse_origin(text))


def invalid(label: str, says: str, bad: Files, good: Files | None = None) -> Case:
    return Case("TK133", bad, good or padding(), says, label=label)


def of(x: Any) -> dict[str, Any]:
    return {"x": x}


def gpu(config: str, label: str, good: Files, severity: str = "", options: Options | None = None) -> Case:
    """A stranger's convolutions on a GPU; no server here has one."""
    bad = model(THEIRS, IMAGES + config, CONVOLUTION)
    return Case("TK130", bad, good, label=label, runs=False, severity=severity, options=options or Options())


MEMORY = '{"memory": {"session_bytes": %d, "sizes_bytes": 5000000000, "context_bytes": 500000000}}'
FOUR = GPU.replace("1", "4")
L4 = Options(gpu=gpus.get("l4"))
AUTO = DYNAMIC.replace("GPU", "AUTO")
OURS_ON_GPU = model(OURS, IMAGES + DYNAMIC, CONVOLUTION)
SQUARES = LENGTHS.replace("-1", "[-1, -1]")
SQUARE = graph([helper.make_node("Identity", ["x"], ["y"])], [tensor("x", "N", "L", "L", dtype=TensorProto.INT8)],
               [tensor("y", "N", "L", "L", dtype=TensorProto.INT8)])  # fmt: skip
CUT = {"axis": 0}


WARMUP = """model_warmup { name: "w" batch_size: 1
  inputs { key: "x" value { data_type: TYPE_INT8 dims: %d zero_data: true } } }
"""


def twice(value: int) -> Files:
    """Two dimensions of one input, the second filled with another value."""
    dimensions = {
        "a": {"sizes": [8], "inputs": of({"axis": 0, "value": 0}), "outputs": {"y": {"axis": 0}}},
        "b": {"sizes": [8], "inputs": of({"axis": 1, "value": value}), "outputs": {"y": {"axis": 1}}},
    }
    return padded(json.dumps(dimensions), SQUARES, SQUARE)


CASES = [
    gpu(DYNAMIC, "ours", OURS_ON_GPU),
    gpu(DYNAMIC, "tensorrt", model(THEIRS, IMAGES + DYNAMIC + TENSORRT, CONVOLUTION)),
    gpu(DYNAMIC, "no_convolution", model(THEIRS, BATCHED + XY + DYNAMIC)),
    gpu(DYNAMIC, "cpu", model(THEIRS, IMAGES + DYNAMIC.replace("GPU", "CPU"), CONVOLUTION)),
    gpu(AUTO, "auto", model(THEIRS, IMAGES.replace("size: 4", "size: 1") + DYNAMIC, CONVOLUTION), "info"),
    gpu(AUTO, "auto_with_gpu", OURS_ON_GPU, options=L4),
    gpu(GPU, "clients", OURS_ON_GPU, "info"),
    Case("TK131", sizes("1,2,two"), sizes("1,2,4"), "batch_sizes is", "word"),
    Case("TK131", sizes("1,4,4"), sizes("off"), "batch_sizes is", "twice"),
    Case("TK131", sizes("0,4"), sizes("4"), "batch_sizes is", "zero"),
    Case("TK131", sizes("4,8"), sizes("2, 4"), "batch_sizes goes up to 8", "above"),
    Case("TK131", model(OURS, UNBATCHED + parameter("batch_sizes", "1,2"), relu(1, 4)),
         model(OURS, UNBATCHED + parameter("batch_sizes", "1"), relu(1, 4)), "batch_sizes needs max_batch_size", "unbatched"),
    Case("TK131", graphs("yes"), graphs("0"), "cuda_graphs is", "graphs"),
    Case("TK132", sizes("1,2"), sizes("1,2,4")),
    invalid("json", "padding cannot be read", padded("{")),
    invalid("list", "padding cannot be read", padded("[]")),
    invalid("unbatched", "padding needs max_batch_size", padding(SQUARES.removeprefix(BATCHED), batches="1")),
    invalid("many", "258 sizes", padding(sizes=list(range(1, 130)), batches="2,4"), padding(sizes=list(range(1, 129)), batches="2,4")),
    invalid("no_inputs", "names no inputs", padding(LENGTHS, inputs={})),
    invalid("no_sizes", "sizes is []", padding(sizes=[])),
    invalid("sizes", "say rising numbers", padding(sizes=[16, 8])),
    invalid("half", "padding cannot be read", padding(inputs=of({"axis": 0}))),
    invalid("axes", "padding cannot be read", padding(outputs=["y"])),
    invalid("input", "names the input 'q'", padding(inputs=of({"axis": 0, "value": 0}) | {"q": {"axis": 0, "value": 0}})),
    invalid("output", "names the output 'x'", padding(outputs={"x": CUT})),
    invalid("axis", "name an axis", padding(inputs=of({"axis": 1, "value": 0}))),
    invalid("fixed", "name an axis", padding(RAGGED.replace("dims: -1 }", "dims: 8 }"))),
    invalid("value", "cannot hold 200", padding(inputs=of({"axis": 0, "value": 200})), padding(inputs=of({"axis": 0, "value": -128}))),
    invalid("fraction", "cannot hold 0.5", padding(inputs=of({"axis": 0, "value": 0.5})), padding(inputs=of({"axis": 0, "value": 1.0}))),
    invalid("string", "cannot be padded", padding(RAGGED.replace("TYPE_INT8", "TYPE_STRING"), STRINGS)),
    Case("TK133", padding(RAGGED + WARMUP % 32), padding(RAGGED + WARMUP % 16), "above the largest prepared one", "short",
         hangs=True),
    invalid("two_values", "say one value", twice(1), twice(0)),
    Case("TK134", padding(LENGTHS), padding()),
    Case("TK135", model(OURS, RAGGED, IDS), padding()),
    Case("TK136", model(THEIRS, BATCHED + XY + parameter("batch_sizes", "1,2,4")), sizes("1,2,4"), options=image("26.09-py3")),
    Case("TK137", sizes("1,2,4"), model(THEIRS, BATCHED + XY), options=image("nvcr.io/nvidia/tritonserver:26.09-py3"), label="nvidia"),
    Case("TK137", sizes("1,2,4"), model(THEIRS, BATCHED + XY), severity="info", options=image("26.09"), label="tag"),
    Case("TK138", model(OURS, LENGTHS + parameter("batch_sizes", "1,2,4"), IDS), padding(), label="input"),
    Case("TK138", padding(outputs={}), padding(), label="output"),
    Case("TK138", model(OURS, TEXTS + parameter("batch_sizes", "1,2,4"), TEXT),
         model(OURS, TEXTS + parameter("batch_sizes", "off"), TEXT), label="strings"),
    Case("TK026", model(OURS, BATCHED + XY + TENSORRT), sizes("1,2,4"), runs=False, severity="warning", label="ours"),
    Case("TK042", model(OURS, BATCHED + XY.replace("FP32", "INT64")), sizes("1,2,4"), "is TYPE_INT64 in the conf", label="ours"),
    Case("TK047", model(OURS, BATCHED + XY, relu(opset=27)), model(OURS, BATCHED + XY, relu(opset=26, ir=13)), runs=False,
         label="ours"),
    Case("TK110", model(OURS, BATCHED + XY + FOUR, passport=MEMORY % 1000000000),
         model(OURS, BATCHED + XY + FOUR, passport=MEMORY % 1), runs=False, label="measured", options=L4),
]  # fmt: skip
