"""The files of a model for NVIDIA's vLLM backend: ``model.json``, ``multi_lora.json`` and the configuration.

``model.json`` holds keyword arguments of vLLM's ``AsyncEngineArgs``; the backend (triton-inference-server/vllm_backend,
src/model.py) passes them on as they are, and declares inputs and outputs by itself.
"""

from __future__ import annotations

from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.llm.checks import Checked

ARGUMENTS = "model.json"
ADAPTERS = "multi_lora.json"
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_GENERATION = {"max_tokens": "max_new_tokens"}  # the field's name in generation_config.json


def arguments(checked: Checked, weights: str) -> dict[str, Any]:
    """What ``model.json`` says.

    Args:
        checked: The recipe and its directory.
        weights: Where the server finds the weights, as an absolute path.
    """
    recipe = checked.recipe
    said: dict[str, Any] = {
        "model": weights,
        "served_model_name": recipe.name,
        "gpu_memory_utilization": recipe.gpu_memory_utilization,
        "tensor_parallel_size": recipe.tensor_parallel_size,
        "max_model_len": checked.max_model_len,
        "dtype": DTYPES[checked.dtype],
        "disable_log_stats": False,  # else there are no metrics, whatever the configuration says
    }
    if recipe.kv_cache_dtype != "auto":
        said["kv_cache_dtype"] = recipe.kv_cache_dtype
    if recipe.quantization == "fp8" and not checked.directory.quantization:
        said["quantization"] = "fp8"
    if recipe.max_num_seqs is not None:
        said["max_num_seqs"] = recipe.max_num_seqs
    if recipe.model_impl != "auto":
        said["model_impl"] = recipe.model_impl
    if checked.adapters:
        said |= {"enable_lora": True, "max_lora_rank": checked.max_lora_rank}
    if defaults := recipe.generation.model_dump(exclude_none=True):
        said["override_generation_config"] = {_GENERATION.get(key, key): value for key, value in defaults.items()}
    return said


def config(checked: Checked) -> pb.ModelConfig:
    """The configuration: one instance that takes what devices the engine needs, answers in streams, reports metrics.

    ``KIND_GPU`` would give the engine one GPU, and the backend refuses it with several. Health is checked at each
    request; Triton takes an unhealthy model down only with ``--model-control-mode=explicit``.
    """
    said = pb.ModelConfig(name=checked.recipe.name, backend="vllm")
    said.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_MODEL)
    said.model_transaction_policy.decoupled = True
    for key in ("REPORT_CUSTOM_METRICS", "ENABLE_VLLM_HEALTH_CHECK"):
        said.parameters[key].string_value = "true"
    if checked.recipe.tool_call_parser is not None:  # tritonkit's embedded server reads it; NVIDIA's backend does not
        said.parameters["tool_call_parser"].string_value = checked.recipe.tool_call_parser
    return said
