"""Model repositories as other people write them, after the kinds that Triton's documentation and tutorials show.

None was copied. ``Stranger.runs`` says which the embedded server can load: it has the Python backend and ours for
onnxruntime and FIL, no other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from onnx import TensorProto, helper

from tritonkit.repository.lint import Options

from .lab import IDENTITY, Files, graph, relu, tensor
from .stranger_forests import FORESTS, ON_GPU

I64 = TensorProto.INT64
EMPTY: Files = {"1/.gitkeep": ""}


@dataclass(frozen=True)
class Stranger:
    """One repository: its models, files at its top, and whether it can be loaded here."""

    name: str
    models: dict[str, Files]
    top: Files = field(default_factory=dict)
    runs: bool = True
    options: Options = field(default_factory=Options)


def python(config: str, body: str = "", code: str = IDENTITY) -> Files:
    return {
        "config.pbtxt": f'backend: "python"\n{config}',
        "1/model.py": code.replace("def execute", body + "def execute"),
    }


def answering(expression: str, imports: str = "") -> str:
    """A Python model that answers every request with one tensor."""
    return (
        f"import numpy as np\nimport triton_python_backend_utils as pb\n{imports}\n\nclass TritonPythonModel:\n"
        "    def initialize(self, args):\n        self.config = args['model_config']\n\n"
        "    def execute(self, requests):\n        answers = []\n        for request in requests:\n"
        f"            answers.append(pb.InferenceResponse([pb.Tensor('OUTPUT0', {expression})]))\n"
        "        return answers\n\n    def finalize(self):\n        pass\n"
    )


DENSENET = """
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 8, 8 ]
    reshape { shape: [ 1, 3, 8, 8 ] }
  }
]
output [
  {
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ 10 ]
    reshape { shape: [ 1, 10, 1, 1 ] }
    label_filename: "densenet_labels.txt"
  }
]
"""
POOLED = graph(
    [helper.make_node("ReduceMean", ["data_0"], ["m"], axes=[1, 2, 3], keepdims=1),
     helper.make_node("Concat", ["m"] * 10, ["fc6_1"], axis=1)],
    [tensor("data_0", 1, 3, 8, 8)], [tensor("fc6_1", 1, 10, 1, 1)],
)  # fmt: skip
TOKENS = graph(
    [
        helper.make_node("Add", ["input_ids", "attention_mask"], ["s"]),
        helper.make_node("Cast", ["s"], ["logits"], to=1),
    ],
    [tensor("input_ids", "batch", "sequence", dtype=I64), tensor("attention_mask", "batch", "sequence", dtype=I64)],
    [tensor("logits", "batch", "sequence")],
)
PREPROCESS = """
input [ { name: "INPUT0" data_type: TYPE_UINT8 dims: [ -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 3, 8, 8 ] } ]
"""
IMAGE_ENSEMBLE = """
name: "image_ensemble"
platform: "ensemble"
max_batch_size: 0
input [ { name: "RAW" data_type: TYPE_UINT8 dims: [ -1 ] } ]
output [ { name: "CLASSES" data_type: TYPE_FP32 dims: [ 10 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "image_preprocess"
      model_version: -1
      input_map { key: "INPUT0", value: "RAW" }
      output_map { key: "OUTPUT0", value: "tensor" }
    },
    {
      model_name: "densenet_onnx2"
      model_version: -1
      input_map { key: "data_0", value: "tensor" }
      output_map { key: "fc6_1", value: "CLASSES" }
    }
  ]
}
"""
SEQUENCE = """
max_batch_size: 8
sequence_batching {
  max_sequence_idle_microseconds: 5000000
  oldest { max_candidate_sequences: 4 preferred_batch_size: [ 4, 8 ] }
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] },
    { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY bool_false_true: [ false, true ] } ] },
    { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }
  ]
}
input [ { name: "INPUT0" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU } ]
"""
IMPLICIT_STATE = """
backend: "onnxruntime"
max_batch_size: 8
sequence_batching {
  control_input [ { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] } ]
  state [ {
    input_name: "S_IN" output_name: "S_OUT" data_type: TYPE_INT32 dims: [ 1 ]
    initial_state: { data_type: TYPE_INT32 dims: [ 1 ] zero_data: true name: "initial" }
  } ]
}
input [ { name: "x" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_INT32 dims: [ 1 ] } ]
"""
IMPLICIT_GRAPH = graph(
    [helper.make_node("Add", ["x", "S_IN"], ["a"]), helper.make_node("Add", ["a", "START"], ["y"]),
     helper.make_node("Identity", ["y"], ["S_OUT"])],
    [tensor(name, "N", 1, dtype=TensorProto.INT32) for name in ("x", "S_IN", "START")],
    [tensor(name, "N", 1, dtype=TensorProto.INT32) for name in ("y", "S_OUT")],
)  # fmt: skip
PAIR = 'input [ { name: "INPUT0" data_type: %s dims: [ %s ] } ]\noutput [ { name: "OUTPUT0" data_type: %s dims: [ %s ] } ]\n'
ECHO = answering("pb.get_input_tensor_by_name(request, 'INPUT0').as_numpy()")
BLS = answering(
    "pb.InferenceRequest(model_name='bls_inner', requested_output_names=['OUTPUT0'], "
    "inputs=[pb.get_input_tensor_by_name(request, 'INPUT0')]).exec().output_tensors()[0].as_numpy()"
)
REPEAT = (
    "import numpy as np\nimport triton_python_backend_utils as pb\n\nclass TritonPythonModel:\n"
    "    @staticmethod\n    def auto_complete_config(config):\n"
    "        config.add_input({'name': 'IN', 'data_type': 'TYPE_INT32', 'dims': [1]})\n"
    "        config.add_output({'name': 'OUT', 'data_type': 'TYPE_INT32', 'dims': [1]})\n"
    "        config.set_model_transaction_policy(dict(decoupled=True))\n        return config\n\n"
    "    def execute(self, requests):\n        for request in requests:\n"
    "            sender = request.get_response_sender()\n"
    "            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)\n        return None\n"
)
INHERITED = "from base import Base\n\nclass TritonPythonModel(Base):\n    def initialize(self, args):\n        pass\n"
BASE = "import triton_python_backend_utils as pb\n\nclass Base:\n    async def execute(self, requests):\n        return []\n"

STRANGERS = [
    Stranger("forests", {name: files for name, files in FORESTS.items() if name != "xgboost_shap"}),
    Stranger("forests_on_gpus", ON_GPU, runs=False),
    Stranger("quickstart", {"densenet_onnx": {"config.pbtxt": DENSENET, "1/model.onnx": POOLED,
                                              "densenet_labels.txt": "label\n" * 10}},
             top={"README.md": "# models", "fetch_models.sh": "#!/bin/sh\n", ".gitignore": "*.plan\n"}),
    Stranger("completed", {"no_config": {"1/model.onnx": relu()}, "empty_config": {"config.pbtxt": "", "1/model.onnx": TOKENS},
                           "only_batching": {"config.pbtxt": "max_batch_size: 32\ndynamic_batching { }\n", "1/model.onnx": TOKENS},
                           "no_config_python": {"1/model.py": ECHO}}),
    Stranger("transformer", {"bert": {"config.pbtxt": """
# exported with optimum
backend: "onnxruntime"
max_batch_size: 16
input [
  { name: "input_ids",  data_type: TYPE_INT64,  dims: [ -1 ] },
  { name: "attention_mask"; data_type: TYPE_INT64; dims: [ -1 ]; }
]
output < name: 'logits' data_type: TYPE_FP32 dims: -1 >
instance_group [ { count: 1, kind: KIND_CPU } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
model_warmup [ { name: "zeros" batch_size: 2 inputs { key: "input_ids" value: { data_type: TYPE_INT64 dims: 8 zero_data: true } }
                 inputs { key: "attention_mask" value: { data_type: TYPE_INT64 dims: 8 random_data: true } } } ]
""", "1/model.onnx": TOKENS}}),
    Stranger("ensemble", {"image_preprocess": python(PREPROCESS, code=answering("np.zeros((3, 8, 8), np.float32)")),
                          "densenet_onnx2": {"config.pbtxt": DENSENET.replace("densenet_onnx", "densenet_onnx2"),
                                             "1/model.onnx": POOLED, "densenet_labels.txt": "label\n" * 10},
                          "image_ensemble": EMPTY | {"config.pbtxt": IMAGE_ENSEMBLE}}),
    Stranger("strings", {"string_identity": python("max_batch_size: 64\n" + PAIR % ("TYPE_STRING", "-1", "TYPE_STRING", "-1"),
                                                   code=ECHO)}),
    Stranger("business_logic", {"bls_outer": python(PAIR % ("TYPE_FP32", "-1", "TYPE_FP32", "-1"), code=BLS),
                                "bls_inner": python(PAIR % ("TYPE_FP32", "-1", "TYPE_FP32", "-1"), code=ECHO)}),
    Stranger("stateful", {"accumulate": python(SEQUENCE, code=ECHO)}),
    Stranger("implicit_state", {"accumulate_onnx": {"config.pbtxt": IMPLICIT_STATE, "1/model.onnx": IMPLICIT_GRAPH}}),
    Stranger("decoupled", {"repeat_completed": {"config.pbtxt": 'backend: "python"\n', "1/model.py": REPEAT},
                           "square": python("model_transaction_policy { decoupled: True }\n"
                                            + PAIR % ("TYPE_INT32", "1", "TYPE_INT32", "1"), code=REPEAT.split("    @static")[0]
                                            + "    def execute(self, requests):\n        return None\n")}),
    Stranger("versions", {"three": {"config.pbtxt": 'version_policy: { latest { num_versions: 2 } }\n', "1/model.onnx": relu(),
                                    "2/model.onnx": relu(), "10/model.onnx": relu(), "notebooks/explore.ipynb": "{}"},
                          "all_versions": {"config.pbtxt": 'backend: "onnxruntime" version_policy: { all { } }\n',
                                           "3/model.onnx": relu(), "5/model.onnx": relu(), "assets/vocab.txt": "a\n"},
                          "old_backup": {"1/model.onnx": relu(), "1_old/model.onnx": relu(), "config.pbtxt": 'backend: "onnxruntime"'}}),
    Stranger("optional_inputs", {"optional": python('max_batch_size: 8\ninput [ { name: "INPUT0" data_type: TYPE_FP32 dims: 1 '
                                 'optional: true }, { name: "INPUT1" data_type: TYPE_FP32 dims: 1 optional: true } ]\n'
                                 'output { name: "OUTPUT0" data_type: TYPE_FP32 dims: 1 }\n', code=ECHO)}),
    Stranger("ragged", {"ragged_python": python('max_batch_size: 16\ninput { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] '
                        'allow_ragged_batch: true }\noutput { name: "OUTPUT0" data_type: TYPE_FP32 dims: 1 }\n'
                        'batch_input { kind: BATCH_ACCUMULATED_ELEMENT_COUNT target_name: "INDEX" data_type: TYPE_FP32 '
                        'source_input: "INPUT0" }\ndynamic_batching { max_queue_delay_microseconds: 1000 }\n', code=ECHO)}),
    Stranger("cached", {"cached": python("max_batch_size: 8\nresponse_cache { enable: true }\n"
                                         + PAIR % ("TYPE_FP32", "4", "TYPE_FP32", "4"), code=ECHO)},
             options=Options(server=("--cache-config=local,size=1048576",))),
    Stranger("on_cpus", {"two_groups": python("""
max_batch_size: 8
instance_group [ { name: "a" count: 1 kind: KIND_CPU }, { name: "b" count: 1 kind: KIND_CPU passive: false
                   rate_limiter { resources [ { name: "R1" count: 2 } ] priority: 1 } } ]
dynamic_batching { priority_levels: 3 default_priority_level: 2 preserve_ordering: false
  default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 50000 allow_timeout_override: true max_queue_size: 16 }
  priority_queue_policy { key: 1 value { timeout_action: REJECT default_timeout_microseconds: 1000 } } }
optimization { priority: PRIORITY_MAX input_pinned_memory { enable: false } }
parameters: { key: "anything" value: { string_value: "${ENV}" } }
metric_tags { key: "team" value: "a" }
""" + PAIR % ("TYPE_FP32", "4", "TYPE_FP32", "4"), code=ECHO)}),
    Stranger("inherited", {"inherits": {"config.pbtxt": 'backend: "python"\n', "1/model.py": INHERITED, "1/base.py": BASE},
                           "imports": {"1/model.py": "from implementation import TritonPythonModel\n",
                                       "1/implementation.py": ECHO}}),
    Stranger("custom_configs", {"tuned": {"config.pbtxt": 'backend: "onnxruntime" max_batch_size: 8\n', "1/model.onnx": TOKENS,
                                          "configs/h100.pbtxt": 'backend: "onnxruntime" max_batch_size: 64\n',
                                          "notes.pbtxt": "not a configuration"}}),
    Stranger("dotted", {"my.model.v2": {"config.pbtxt": 'backend: "onnxruntime"\n', "1/model.onnx": relu()}}),
    Stranger("tensorrt", {"resnet50_trt": {"config.pbtxt": """
name: "resnet50_trt"
platform: "tensorrt_plan"
max_batch_size: 128
input [ { name: "input" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 224, 224 ] } ]
output [ { name: "output" data_type: TYPE_FP32 dims: [ 1000 ] } ]
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] profile: [ "0", "1" ] } ]
cc_model_filenames [ { key: "7.5" value: "t4.plan" }, { key: "8.0" value: "a100.plan" } ]
optimization { cuda { graphs: true } }
""", "1/t4.plan": "ptrt", "1/a100.plan": "ptrt"}, "plain": {"1/model.plan": "ptrt"}}, runs=False),
    Stranger("torchscript", {"libtorch": {"config.pbtxt": """
platform: "pytorch_libtorch"
max_batch_size: 8
input [ { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] } ]
output [ { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 1000 ] } ]
parameters: { key: "DISABLE_OPTIMIZED_EXECUTION" value: { string_value: "true" } }
""", "1/model.pt": "PK"}}, runs=False),
    Stranger("other_backends", {
        "saved": {"config.pbtxt": 'platform: "tensorflow_savedmodel"\n', "1/model.savedmodel/saved_model.pb": "x"},
        "openvino": {"config.pbtxt": 'backend: "openvino"\n', "1/model.xml": "<net/>", "1/model.bin": "x"},
        "vllm_model": {"config.pbtxt": 'backend: "vllm"\ninstance_group [ { count: 1 kind: KIND_MODEL } ]\n',
                       "1/model.json": '{"model": "facebook/opt-125m"}'},
        "dali": {"config.pbtxt": 'backend: "dali"\nmax_batch_size: 64\ninput [ { name: "IN" data_type: TYPE_UINT8 dims: [ -1 ] } ]\n'
                 'output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] } ]\n', "1/model.dali": "x"},
        "trees": {"config.pbtxt": 'backend: "fil"\nmax_batch_size: 1024\ninput [ { name: "input__0" data_type: TYPE_FP32 '
                  'dims: [ 32 ] } ]\noutput [ { name: "output__0" data_type: TYPE_FP32 dims: [ 1 ] } ]\n'
                  'parameters [ { key: "model_type" value: { string_value: "xgboost" } }, { key: "is_classifier" value: { '
                  'string_value: "false" } } ]\n', "1/xgboost.model": "x"},
        "own_backend": {"config.pbtxt": 'backend: "mine"\ninput [ { name: "a" data_type: TYPE_BF16 dims: 1 } ]\n',
                        "libtriton_mine.so": "x", "1/.gitkeep": ""},
        "checked": {"config.pbtxt": 'backend: "onnxruntime"\nmodel_repository_agents { agents [ { name: "checksum" parameters { '
                    'key: "MD5:1/model.onnx" value: "0" } } ] }\n', "1/model.onnx": relu()},
    }, runs=False),
    Stranger("onnx_on_gpu", {"accelerated": {"config.pbtxt": """
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
instance_group [ { count: 2 kind: KIND_GPU } ]
optimization { graph { level: 1 } execution_accelerators { gpu_execution_accelerator [ {
  name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } parameters { key: "max_workspace_size_bytes" value: "1073741824" }
  parameters { key: "trt_engine_cache_enable" value: "true" } } ] } }
""", "1/model.onnx": relu()}, "ragged_onnx": {"config.pbtxt": 'backend: "onnxruntime" max_batch_size: 16\n'
     'input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }\n'
     'batch_input { kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_FP32 source_input: "x" }\n'
     'output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }\n', "1/model.onnx": graph(
         [helper.make_node("Relu", ["n"], ["y"]), helper.make_node("Relu", ["x"], ["z"])],
         [tensor("x", "M"), tensor("n", "N", 1)], [tensor("y", "N", 1)])}}, runs=False),
]  # fmt: skip
