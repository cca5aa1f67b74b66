"""Folders, versions, files, and settings of a model as a whole."""

from __future__ import annotations

from onnx import helper

from tritonkit import gpus
from tritonkit.repository.lint import Options

from .lab import BATCHED, IDENTITY, ONE, XY, Case, Files, Link, graph, onnx_model, python, relu, tensor
from .lab import F as FLOAT

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 17\n"


def moved(version: str, **others: str) -> Files:
    """A Python model with another version folder."""
    files: Files = {"config.pbtxt": f'backend: "python"\n{ONE}{BATCHED}{XY}', f"{version}/model.py": IDENTITY}
    return files | {name.replace("__", "/"): text for name, text in others.items()}


def external(size: int) -> bytes:
    """A graph whose weights are in ``weights.bin``."""
    weight = helper.make_tensor("w", FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    weight.ClearField("float_data")
    weight.data_location = weight.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", str(size))):
        weight.external_data.add(key=key, value=value)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return graph([node], [tensor("x", "N", 4)], [tensor("y", "N", 4)], [weight])


LABELLED = BATCHED + XY.replace('"y" data_type: TYPE_FP32', '"y" label_filename: "labels.txt" data_type: TYPE_FP32')
ENVIRONMENT = 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }\n'
EMPTY_TAR = bytes(1024)


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


CASES = [
    Case("TK001", {"HEAD": "", "objects/pack": ""}, python(), "could not determine backend", "stray"),
    Case("TK002", python(BATCHED + XY + "max_batchsize: 4\n"), python(), "failed to read text proto", "unknown_field"),
    Case("TK002", python(BATCHED + XY.replace("dims: 4", "dims: [4,]")), python(), "failed to read", "comma"),
    Case("TK002", python(BATCHED + XY.replace("TYPE_FP32", "FP32")), python(), "failed to read text proto", "enum"),
    Case("TK002", python("\ufeff" + BATCHED + XY), python(), "failed to read text proto", "mark"),
    Case("TK002", python() | {"config.pbtxt": bytes(range(1, 127))}, python(), "failed to read text proto", "binary"),
    Case("TK003", python(BATCHED + XY + "dynamic_batching {}\nsequence_batching {}\n"), python(), "failed to read text"),
    Case("TK004", python('name: "other"\n' + BATCHED + XY), python(), "directory name must equal model name"),
    Case("TK005", moved("v1"), python(), "at least one version must be available"),
    Case("TK006", python(BATCHED + XY + "version_policy { specific { versions: [3] } }\n"),
         python(BATCHED + XY + "version_policy { specific { versions: [1] } }\n"), "at least one version"),
    Case("TK006", python(BATCHED + XY + "version_policy { latest { num_versions: 0 } }\n"),
         python(BATCHED + XY + "version_policy { latest { num_versions: 1 } }\n"), "at least one version", "latest"),
    Case("TK007", moved("1", **{"02__model.py": IDENTITY}), moved("1", **{"2__model.py": IDENTITY})),
    Case("TK008", moved("1", **{"2_backup__model.py": IDENTITY}), moved("1", **{"1_backup__model.py": IDENTITY}),
         "no answer", hangs=True),
    Case("TK009", {"1/weights.bin": "w", "config.pbtxt": BATCHED}, {"1/model.py": IDENTITY}, "Could not determine backend"),
    Case("TK009", {"1/model.onnx": relu(), ".ipynb_checkpoints/x": ""},
         {"1/model.onnx": relu(), ".ipynb_checkpoints/x": "", "config.pbtxt": 'backend: "onnxruntime"\n'},
         "Could not determine backend", "hidden_folder"),
    Case("TK009", {"10/weights.bin": "w", "2/model.onnx": relu()}, {"10/model.onnx": relu(), "2/model.onnx": relu()},
         "Could not determine backend", "first_by_name"),
    Case("TK010", {"1/model.onnx": relu(), "config.pbtxt": 'platform: "onnx"\n'},
         {"1/model.onnx": relu(), "config.pbtxt": 'platform: "onnxruntime_onnx"\n'}, "unexpected platform type"),
    Case("TK010", {"1/model.onnx": relu(), "config.pbtxt": 'platform: "tensorrt_plan"\nbackend: "onnxruntime"\n'},
         onnx_model(), "unexpected 'platform' and 'backend' pair", "pair"),
    Case("TK011", {"config.pbtxt": moved("1")["config.pbtxt"], "1/.gitkeep": ""}, python(), "no answer", "python", hangs=True),
    Case("TK011", {"1/net.onnx": relu(), "config.pbtxt": 'backend: "onnxruntime"\n'},
         {"1/net.onnx": relu(), "config.pbtxt": 'backend: "onnxruntime"\ndefault_model_filename: "net.onnx"\n'},
         "model.onnx", "onnx"),
    Case("TK012", onnx_model(graph=LFS.encode()), onnx_model(), "INVALID_PROTOBUF", "pointer"),
    Case("TK012", onnx_model() | {"1/model.onnx": b""}, onnx_model(), "No graph was found", "empty"),
    Case("TK012", onnx_model(graph=relu()[:40]), onnx_model(), "ONNXRuntimeError", "cut"),
    Case("TK013", onnx_model(graph=external(16)), onnx_model(graph=external(16)) | {"1/weights.bin": bytes(16)},
         "weights.bin", "missing"),
    Case("TK013", onnx_model(graph=external(16)) | {"1/weights.bin": bytes(8)},
         onnx_model(graph=external(16)) | {"1/weights.bin": bytes(16)}, "ONNXRuntimeError", "cut"),
    Case("TK014", python(LABELLED), python(LABELLED) | {"labels.txt": "a\nb\nc\nd\n"}, "failed to open text file"),
    Case("TK015", python(LABELLED) | {"labels.txt": "a\nb\n"}, python(LABELLED) | {"labels.txt": "a\nb\nc\nd\n"}),
    Case("TK016", {"1/model.py": IDENTITY, "config.pbtxt": Link("nowhere")}, python(), "failed to poll"),
    Case("TK016", python() | {"notes.txt": Link("nowhere")}, python() | {"1/notes.txt": Link("nowhere")},
         "failed to stat", "beside"),
    Case("TK016", python() | {"2": Link("nowhere")}, python(), "failed to stat", "version"),
    Case("TK020", python("max_batch_size: -1\n" + XY), python(), "must be non-negative"),
    Case("TK021", python() | {"config.pbtxt": f'backend: "python"\n{BATCHED}{XY}'
         "instance_group { count: 1 kind: KIND_CPU gpus: [0] }\n"}, python(), "has kind KIND_CPU but specifies"),
    Case("TK022", python() | {"config.pbtxt": f'backend: "python"\n{BATCHED}{XY}instance_group {{ count: 0 }}\n'}, python()),
    Case("TK023", python() | {"passport.json": '{"target": "cuda"}'}, python() | {"passport.json": '{"target": "cpu"}'}),
    Case("TK025", onnx_model(BATCHED + XY + parameter("enable_mem_arena", "2")), onnx_model(BATCHED + XY + parameter("enable_mem_arena", "on")),
         "neither 1 nor 0", "arena"),
    Case("TK025", onnx_model(BATCHED + XY + parameter("intra_op_thread_count", "two")),
         onnx_model(BATCHED + XY + parameter("intra_op_thread_count", "2")), "not a whole number"),
    Case("TK026", onnx_model(BATCHED + XY + 'optimization { execution_accelerators { gpu_execution_accelerator { '
                             'name: "tensorrt" parameters { key: "precision" value: "FP16" } } } }\n'),
         onnx_model(BATCHED + XY + 'optimization { execution_accelerators { gpu_execution_accelerator { '
                    'name: "tensorrt" parameters { key: "precision_mode" value: "FP32" } } } }\n')),
    Case("TK027", python(BATCHED + XY + ENVIRONMENT), python(), "env.tar.gz"),
    Case("TK110", onnx_model() | {"config.pbtxt": f'backend: "onnxruntime"\n{BATCHED}{XY}'
                                  "instance_group { count: 2000000000 kind: KIND_GPU }\n"},
         onnx_model() | {"config.pbtxt": f'backend: "onnxruntime"\n{BATCHED}{XY}instance_group {{ kind: KIND_GPU }}\n'},
         runs=False, options=Options(gpu=gpus.get("t4"))),
    Case("TK120", python(code="class TritonPythonModel:\n    def execute(self, requests)\n        return []\n"), python(),
         "SyntaxError"),
    Case("TK121", python(code="class Model:\n    def execute(self, requests):\n        return []\n"), python(),
         "no attribute 'TritonPythonModel'"),
    Case("TK122", python(code="class TritonPythonModel:\n    def initialize(self, args):\n        pass\n"), python(), requests=True),
    Case("TK190", python("# tritonkit: ignore TK052\n" + BATCHED + XY),
         python("# tritonkit: ignore TK052\n" + BATCHED + XY + "dynamic_batching {}\n")),
]  # fmt: skip
