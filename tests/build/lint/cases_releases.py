"""States, releases of Triton, and what a graph needs beside itself."""

from __future__ import annotations

from onnx import helper

from tritonkit.repository.lint import Options

from .cases_layout import external
from .lab import BATCHED, IDENTITY, ONE, XY, Case, Files, Link, graph, onnx_model, python, tensor

EMBEDDED = Options(image=(24, 10))
INITIAL = 'name: "i" data_type: TYPE_FP32 dims: 4 zero_data: true'
FILE = INITIAL.replace("zero_data: true", 'data_file: "zero"')


def state(initial: str, more: str = "") -> Files:
    """A Python model with one state."""
    return python(
        f"{BATCHED}{XY}sequence_batching {{ {more} state {{ input_name: 's' output_name: 't' data_type: TYPE_FP32 dims: 4 "
        f"initial_state {{ {initial} }} }} }}\n"
    )


def growing(settings: str, kind: str = "KIND_CPU") -> Files:
    """A Python model with a state that has no beginning."""
    head = f'backend: "python"\ninstance_group {{ count: 1 kind: {kind} }}\n{BATCHED}{XY}'
    states = f"state {{ input_name: 's' output_name: 't' data_type: TYPE_FP32 dims: 4 {settings} }}"
    return python() | {"config.pbtxt": f"{head}sequence_batching {{ {states} }}\n"}


def operator(name: str, domain: str = "", opset: int = 17) -> bytes:
    """A graph of one node."""
    return graph(
        [helper.make_node(name, ["x"], ["y"], domain=domain)], [tensor("x", "N", 4)], [tensor("y", "N", 4)], opset=opset
    )


def importing(lines: str, helper: str = "") -> Files:
    """A Python model whose file begins with these lines, and a file beside it."""
    return python(code=lines + IDENTITY) | {"1/helper.py": helper}


ON_GPU: Files = {"config.pbtxt": f'backend: "onnxruntime"\n{ONE.replace("CPU", "GPU")}{BATCHED}{XY}'}
NVIDIA = Options(image=(26, 9), origin="nvidia", variant="py3")
TAG = Options(image=(26, 9))
OWN = Options(image=(26, 9), origin="other")
ABSENT = "import absent_from_images\n"
TOLERANT = "try:\n    import absent_from_images\nexcept ImportError:\n    pass\n"
INSIDE = "def later():\n    import absent_from_images\n"
GOOD = state(INITIAL)
TWICE = INITIAL + " } initial_state { " + INITIAL.replace('"i"', '"j"')
OPEN = graph([helper.make_node("Flatten", ["x"], ["y"], axis=1)], [tensor("x", "N", 2, 2)], [tensor("y", "N", "M")])
SQUARE = 'input { name: "x" data_type: TYPE_FP32 dims: [2, 2] }\noutput { name: "y" data_type: TYPE_FP32 dims: %s }\n'
WEIGHTS = external(16)
CASES = [
    Case("TK043", onnx_model(BATCHED + SQUARE % "-1", OPEN), onnx_model(BATCHED + SQUARE % "4", OPEN),
         "has dims [-1] in the configuration", "inferred"),
    Case("TK145", state(TWICE), GOOD, "must contain exactly one or zero element", "several", ends=True),
    Case("TK145", state(INITIAL.replace("FP32", "INT32")), GOOD, "does not match the state data type", "type", ends=True),
    Case("TK145", state(INITIAL.replace('name: "i"', "")), GOOD, "'name' must be set", "name", ends=True),
    Case("TK145", state(INITIAL.replace("dims: 4", "dims: [4, 1]")), GOOD, "number of dimensions", "rank", ends=True),
    Case("TK145", state(INITIAL.replace("dims: 4", "dims: -1")), GOOD, "contains variable dimensions", "open", ends=True),
    Case("TK145", state(INITIAL.replace("dims: 4", "dims: 5")), GOOD, "dim description", "dim", ends=True),
    Case("TK145", state(INITIAL.replace("zero_data: true", "")), GOOD, "to have state_data set", "values", ends=True),
    Case("TK145", state(FILE) | {"initial_state/zero": bytes(8)}, state(FILE) | {"initial_state/zero": bytes(16)},
         "expects 16 bytes", "short", ends=True),
    Case("TK146", growing("use_growable_memory: true use_same_buffer_for_input_output: true"), growing("use_same_buffer_for_input_output: true"),
         label="cpu", requests=True),
    Case("TK146", growing("use_growable_memory: true"), growing(""), label="buffers", requests=True),
    Case("TK147", python(BATCHED + XY + "model_metrics { }\n"), python(), "failed to read text proto", options=EMBEDDED),
    Case("TK148", python() | {"config.pbtxt": f'backend: "python"\n{BATCHED}{XY}instance_group {{ kind: 99 }}\n'}, python(),
         "unexpected kind KIND_AUTO"),
    Case("TK149", python(BATCHED + XY + "model_repository_agents { agents { } }\n"), python(), "for repo agent ''", "name"),
    Case("TK149", python(BATCHED + XY + "model_repository_agents { }\n"), python(), "the server died of it", "none", ends=True),
    Case("TK150", python(), python(), label="older", options=Options(image=(22, 11)), good_options=Options(image=(22, 12))),
    Case("TK150", python(), python(), label="newer", options=Options(image=(27, 1)), good_options=EMBEDDED),
    Case("TK151", python(), python(), label="both", options=EMBEDDED, good_options=Options(image=(25, 4))),
    Case("TK151", python(), python(), label="second", options=Options(image=(24, 12)), good_options=Options(image=(23, 9))),
    Case("TK152", onnx_model(graph=operator("Nope")), onnx_model(), "ONNXRuntimeError", "name"),
    Case("TK152", onnx_model(graph=operator("Gelu")), onnx_model(graph=operator("Gelu", opset=20)), "ONNXRuntimeError", "opset"),
    Case("TK152", onnx_model(graph=operator("EfficientNMS_TRT", "TRT")), onnx_model(), "ONNXRuntimeError", "domain"),
    Case("TK153", onnx_model(graph=WEIGHTS) | {"1/weights.bin": Link("../weights.bin"), "weights.bin": bytes(16)},
         onnx_model(graph=WEIGHTS) | {"1/weights.bin": Link("data/weights.bin"), "1/data/weights.bin": bytes(16)},
         "escapes model directory"),
    Case("TK154", python(BATCHED + XY + 'metric_tags { key: "a-b" value: "c" }\n'),
         python(BATCHED + XY + 'metric_tags { key: "a_b" value: "c" }\n'), "the server died of it", ends=True),
    Case("TK155", onnx_model(), onnx_model() | ON_GPU, options=Options(has_gpu=True), runs=False),
    Case("TK155", onnx_model() | {"passport.json": '{"target": "cpu", "precision": "int8"}'}, python(), label="built",
         options=Options(has_gpu=True)),
    Case("TK156", onnx_model() | ON_GPU, onnx_model(), options=Options(has_gpu=False), runs=False),
    Case("TK157", importing(ABSENT), importing("import numpy\n"), "absent_from_images", "module", options=NVIDIA),
    Case("TK157", importing("from helper import x\n", ABSENT + "x = 1\n"),
         importing("from helper import x\n", "x = 1\n"), "absent_from_images", "beside", options=NVIDIA),
    Case("TK157", importing(ABSENT), importing(TOLERANT), "absent_from_images", "tag", severity="info", options=TAG),
    Case("TK157", importing(ABSENT), importing(ABSENT.replace("absent_from_images", "numpy.linalg")), "absent_from_images",
         "own", runs=False, options=NVIDIA, good_options=OWN),
]  # fmt: skip
