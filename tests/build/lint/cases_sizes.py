"""Execution by prepared sizes: tritonkit's own backend, and convolutions on NVIDIA's."""

from __future__ import annotations

import json
from typing import Any

from onnx import TensorProto, helper

from tritonkit.engines import gpus
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
UNBATCHED = XY.replace("dims: 4", "dims: [-1, 4]")
IDS = graph([helper.make_node("Identity", ["x"], ["y"])], [tensor("x", "N", "L", dtype=TensorProto.INT8)],
            [tensor("y", "N", "L", dtype=TensorProto.INT8)])  # fmt: skip
LENGTHS = (BATCHED + XY).replace("TYPE_FP32 dims: 4", "TYPE_INT8 dims: -1")
RAGGED = LENGTHS.replace("dims: -1 }\nout", "dims: -1 allow_ragged_batch: true }\nout")
STRINGS = relu("N", "L", dtype=TensorProto.STRING)


def model(backend: str, config: str, said: bytes | None = None, passport: str = "") -> Files:
    """An ONNX model of one of the two backends."""
    group = "" if "instance_group" in config else CPU
    files: Files = {"1/model.onnx": said or relu(), "config.pbtxt": backend + group + config}
    return files | ({"passport.json": passport} if passport else {})


def parameter(name: str, value: str) -> str:
    return f"parameters {{ key: {json.dumps(name)} value {{ string_value: {json.dumps(value)} }} }}\n"


def sizes(value: str, name: str = "batch_sizes") -> Files:
    return model(OURS, BATCHED + XY + parameter(name, value))


def padding(config: str = RAGGED, said: bytes = IDS, **changes: Any) -> Files:
    """A model with a padded dimension, changed somewhere."""
    dimension = {"sizes": [8, 16], "inputs": {"x": {"axis": 0, "value": 0}}, "outputs": {"y": {"axis": 0}}} | changes
    return model(OURS, config + parameter("padding", json.dumps({"sequence": dimension})), said)


def image(text: str) -> Options:
    return Options(image=parse_image(text), origin=parse_origin(text))


def invalid(label: str, bad: Files, good: Files | None = None) -> Case:
    return Case("TK133", bad, good or padding(), label=label, runs=False)


def of(x: Any) -> dict[str, Any]:
    return {"x": x}


MEMORY = '{"memory": {"session_bytes": %d, "sizes_bytes": 5000000000, "context_bytes": 500000000}}'
CASES = [
    Case("TK130", model(THEIRS, IMAGES + DYNAMIC, CONVOLUTION), model(OURS, IMAGES + DYNAMIC, CONVOLUTION), runs=False,
         label="ours"),
    Case("TK130", model(THEIRS, IMAGES + DYNAMIC, CONVOLUTION), model(THEIRS, IMAGES + DYNAMIC + TENSORRT, CONVOLUTION),
         runs=False, label="tensorrt"),
    Case("TK130", model(THEIRS, IMAGES + DYNAMIC, CONVOLUTION), model(THEIRS, BATCHED + XY + DYNAMIC), runs=False,
         label="convolution"),
    Case("TK130", model(THEIRS, IMAGES + DYNAMIC, CONVOLUTION), model(THEIRS, IMAGES + DYNAMIC.replace("GPU", "CPU"), CONVOLUTION),
         runs=False, label="cpu"),
    Case("TK130", model(THEIRS, IMAGES + DYNAMIC.replace("GPU", "AUTO"), CONVOLUTION),
         model(THEIRS, IMAGES.replace("size: 4", "size: 1") + DYNAMIC, CONVOLUTION), runs=False, severity="info", label="auto"),
    Case("TK130", model(THEIRS, IMAGES + DYNAMIC.replace("GPU", "AUTO"), CONVOLUTION), model(OURS, IMAGES + DYNAMIC, CONVOLUTION),
         runs=False, label="auto_with_gpu", options=Options(gpu=gpus.find("l4"))),
    Case("TK130", model(THEIRS, IMAGES + GPU, CONVOLUTION), model(OURS, IMAGES + DYNAMIC, CONVOLUTION), runs=False,
         severity="info", label="clients"),
    Case("TK131", sizes("1,2,two"), sizes("1,2,4"), runs=False, label="word"),
    Case("TK131", sizes("1,4,4"), sizes("off"), runs=False, label="twice"),
    Case("TK131", sizes("0,4"), sizes("4"), runs=False, label="zero"),
    Case("TK131", sizes(""), sizes("1, 4"), runs=False, label="empty"),
    Case("TK131", sizes("4,8"), sizes("2,4"), runs=False, label="above"),
    Case("TK131", model(OURS, UNBATCHED + parameter("batch_sizes", "1,2"), relu("N", 4)),
         model(OURS, UNBATCHED + parameter("batch_sizes", "1"), relu("N", 4)), runs=False, label="unbatched"),
    Case("TK131", sizes("yes", "cuda_graphs"), sizes("0", "cuda_graphs"), runs=False, label="graphs"),
    Case("TK132", sizes("1,2"), sizes("1,2,4"), runs=False),
    invalid("json", model(OURS, RAGGED + parameter("padding", "{"), IDS)),
    invalid("list", model(OURS, RAGGED + parameter("padding", "[]"), IDS)),
    invalid("unbatched", padding(LENGTHS.removeprefix(BATCHED).replace("-1", "[-1, -1]"))),
    invalid("many", padding(sizes=list(range(1, 130)), config=RAGGED + parameter("batch_sizes", "2,4")),
            padding(sizes=list(range(1, 129)), config=RAGGED + parameter("batch_sizes", "2,4"))),
    invalid("no_inputs", padding(LENGTHS, inputs={})),
    invalid("no_sizes", padding(sizes=[])),
    invalid("sizes", padding(sizes=[16, 8])),
    invalid("half", padding(inputs=of({"axis": 0}))),
    invalid("axes", padding(outputs=["y"])),
    invalid("input", padding(inputs=of({"axis": 0, "value": 0}) | {"q": {"axis": 0, "value": 0}})),
    invalid("output", padding(outputs={"x": {"axis": 0}})),
    invalid("axis", padding(inputs=of({"axis": 1, "value": 0}))),
    invalid("fixed", padding(RAGGED.replace("dims: -1 }", "dims: 8 }"))),
    invalid("value", padding(inputs=of({"axis": 0, "value": 200})), padding(inputs=of({"axis": 0, "value": -128}))),
    invalid("fraction", padding(inputs=of({"axis": 0, "value": 0.5}))),
    invalid("string", padding(RAGGED.replace("TYPE_INT8", "TYPE_STRING"), STRINGS)),
    invalid("half_precision", padding(RAGGED.replace("INT8", "FP16"), relu("N", "L", dtype=TensorProto.FLOAT16),
                                      inputs=of({"axis": 0, "value": 1e6})),
            padding(RAGGED.replace("INT8", "FP16"), relu("N", "L", dtype=TensorProto.FLOAT16), inputs=of({"axis": 0, "value": -6e4}))),
    Case("TK134", padding(LENGTHS), padding(), runs=False),
    Case("TK135", model(OURS, RAGGED, IDS), padding(), runs=False),
    Case("TK136", model(THEIRS, BATCHED + XY + parameter("batch_sizes", "1,2,4")), sizes("1,2,4"),
         runs=False, options=image("26.09-py3")),
    Case("TK137", sizes("1,2,4"), model(THEIRS, BATCHED + XY), runs=False,
         options=image("nvcr.io/nvidia/tritonserver:26.09-py3"), label="nvidia"),
    Case("TK137", sizes("1,2,4"), model(THEIRS, BATCHED + XY), runs=False, severity="info", options=image("26.09"), label="tag"),
    Case("TK026", model(OURS, BATCHED + XY + TENSORRT), sizes("1,2,4"), runs=False, severity="warning", label="ours"),
    Case("TK042", model(OURS, BATCHED + XY.replace("FP32", "INT64")), sizes("1,2,4"), "is TYPE_INT64 in the conf", runs=False,
         label="ours"),
    Case("TK047", model(OURS, BATCHED + XY, relu(opset=27)), model(OURS, BATCHED + XY, relu(opset=26, ir=13)), runs=False,
         label="ours"),
    Case("TK110", model(OURS, BATCHED + XY + GPU.replace("1", "4"), passport=MEMORY % 1000000000),
         model(OURS, BATCHED + XY + GPU.replace("1", "4"), passport=MEMORY % 1), runs=False, label="measured",
         options=Options(gpu=gpus.find("l4"))),
]  # fmt: skip
