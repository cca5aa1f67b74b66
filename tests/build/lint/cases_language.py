"""Language models: vLLM, TensorRT-LLM's llmapi template, and engines of TensorRT-LLM up to 1.2."""

from __future__ import annotations

import json
from typing import Any

from tritonkit.repository.lint import Options

from .cases_layout import parameter
from .lab import Case, Content, Files

MODEL = "instance_group { count: 1 kind: KIND_MODEL }\n"
METRICS = parameter("REPORT_CUSTOM_METRICS", "true")
ENGINE = parameter("gpt_model_path", "/engines/llama")
TEMPLATE = """
import tensorrt_llm

CONFIG = "model.yaml"

class TritonPythonModel:
    def execute(self, requests):
        return []
"""
TRITON = "triton_config: {max_batch_size: 0, decoupled: false}\n"


def vllm(config: str = MODEL + METRICS, arguments: Any = None, **files: Content) -> Files:
    engine_arguments = {"model": "/models/m/1/weights"} if arguments is None else arguments
    text = engine_arguments if isinstance(engine_arguments, str) else json.dumps(engine_arguments)
    beside = {f"1/{name}.json": content for name, content in files.items()}
    return {"config.pbtxt": f'backend: "vllm"\n{config}', "1/model.json": text} | beside


def legacy(config: str = ENGINE) -> Files:
    tensors = (
        'input { name: "input_ids" data_type: TYPE_INT32 dims: -1 }\n'
        'output { name: "output_ids" data_type: TYPE_INT32 dims: -1 }\n'
    )
    return {"config.pbtxt": f'backend: "tensorrtllm"\nmax_batch_size: 8\n{tensors}{config}', "1/.gitkeep": ""}


def llmapi(config: str = "", arguments: str = f"model: m\nbackend: pytorch\n{TRITON}", count: int = 1) -> Files:
    tensors = (
        'input { name: "text_input" data_type: TYPE_STRING dims: -1 }\n'
        'output { name: "text_output" data_type: TYPE_STRING dims: -1 }\n'
    )
    text = f'backend: "python"\ninstance_group {{ count: {count} kind: KIND_CPU }}\n{tensors}{config}'
    return {"config.pbtxt": text, "1/model.py": TEMPLATE, "1/model.yaml": arguments}


def without(files: Files, name: str) -> Files:
    return {path: content for path, content in files.items() if path != name} | {"1/.gitkeep": ""}


SEVERAL = {"model": "m", "tensor_parallel_size": 2}
ADAPTED = {"model": "m", "enable_lora": "true"}
PLAIN = Options(image=(26, 7), origin="nvidia", variant="py3")
OF_VLLM = Options(image=(26, 7), origin="nvidia", variant="vllm-python-py3")
OF_TRTLLM = Options(image=(26, 7), origin="nvidia", variant="trtllm-python-py3")
CASES = [
    Case("TK160", without(vllm(), "1/model.json"), vllm(), label="missing", runs=False),
    Case("TK160", vllm(arguments="{model: m}"), vllm(), label="json", runs=False),
    Case("TK160", vllm(arguments={"dtype": "auto"}), vllm(), label="nameless", runs=False, severity="warning"),
    Case("TK161", vllm(arguments={"model": "m", "disable_log_requests": True}), vllm(), runs=False),
    Case("TK162", vllm(METRICS + "instance_group { kind: KIND_GPU }\n", SEVERAL), vllm(arguments=SEVERAL), runs=False),
    Case("TK163", vllm(arguments=ADAPTED), vllm(arguments=ADAPTED, multi_lora='{"sql": "/a"}'), label="missing", runs=False),
    Case("TK163", vllm(arguments=ADAPTED, multi_lora='["sql"]'), vllm(arguments=ADAPTED, multi_lora='{"sql": "/a"}'),
         label="list", runs=False),
    Case("TK163", vllm(multi_lora='{"sql": "/a"}'), vllm(), label="unread", runs=False, severity="warning"),
    Case("TK164", vllm(MODEL + METRICS + "max_batch_size: 4\n"), vllm(), label="batch", runs=False),
    Case("TK164", vllm(MODEL + METRICS + "model_transaction_policy { decoupled: false }\n"),
         vllm(MODEL + METRICS + "model_transaction_policy { decoupled: true }\n"), label="policy", runs=False),
    Case("TK165", vllm(MODEL), vllm(), label="parameter", runs=False),
    Case("TK165", vllm(arguments={"model": "m", "disable_log_stats": True}), vllm(), label="stats", runs=False,
         severity="warning"),
    Case("TK002", legacy().copy() | {"config.pbtxt": "max_batch_size: ${triton_max_batch_size}\n"}, legacy(),
         "failed to read text proto", label="template", runs=False),
    Case("TK166", legacy(), llmapi(), runs=False),
    Case("TK167", legacy(""), legacy(), label="missing", runs=False),
    Case("TK167", legacy(parameter("gpt_model_path", "${engine_dir}")), legacy(), label="placeholder", runs=False),
    Case("TK168", without(llmapi(), "1/model.yaml"), llmapi(), label="missing", runs=False),
    Case("TK168", llmapi(arguments="model: m\n"), llmapi(), label="triton_config", runs=False),
    Case("TK168", llmapi(arguments="- m\n"), llmapi(), label="list", runs=False),
    Case("TK168", llmapi("max_batch_size: 8\n"), llmapi(), label="batch", runs=False),
    Case("TK169", llmapi(count=2), llmapi(parameter("gpu_device_ids", "0,1;2,3"), count=2), runs=False),
    Case("TK170", vllm(), vllm(), label="vllm", runs=False, options=PLAIN, good_options=OF_VLLM),
    Case("TK170", legacy(), legacy(), label="engines", runs=False, options=OF_VLLM, good_options=OF_TRTLLM),
    Case("TK170", llmapi(), llmapi(), label="llmapi", runs=False, options=OF_VLLM, good_options=OF_TRTLLM),
]  # fmt: skip
