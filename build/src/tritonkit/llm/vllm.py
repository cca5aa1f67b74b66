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
    engine_arguments: dict[str, Any] = {
        "model": weights,
        "served_model_name": recipe.name,
        "gpu_memory_utilization": recipe.gpu_memory_utilization,
        "tensor_parallel_size": recipe.tensor_parallel_size,
        "max_model_len": checked.max_model_len,
        "dtype": DTYPES[checked.dtype],
        "disable_log_stats": False,  # else there are no metrics, whatever the configuration says
    }
    if recipe.kv_cache_dtype != "auto":
        engine_arguments["kv_cache_dtype"] = recipe.kv_cache_dtype
    if recipe.quantization == "fp8" and not checked.directory.quantization:
        engine_arguments["quantization"] = "fp8"
    if recipe.max_num_seqs is not None:
        engine_arguments["max_num_seqs"] = recipe.max_num_seqs
    if recipe.model_impl != "auto":
        engine_arguments["model_impl"] = recipe.model_impl
    if checked.adapters:
        engine_arguments |= {"enable_lora": True, "max_lora_rank": checked.max_lora_rank}
    if defaults := recipe.generation.model_dump(exclude_none=True):
        engine_arguments["override_generation_config"] = {
            _GENERATION.get(key, key): value for key, value in defaults.items()
        }
    return engine_arguments


def config(checked: Checked) -> pb.ModelConfig:
    """The configuration: one instance on as many devices as the engine needs, which streams and reports metrics.

    ``KIND_GPU`` would give the engine one GPU, and the backend refuses it with several. Health is checked at each
    request; Triton takes an unhealthy model down only with ``--model-control-mode=explicit``.
    """
    model_config = pb.ModelConfig(name=checked.recipe.name, backend="vllm")
    model_config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_MODEL)
    model_config.model_transaction_policy.decoupled = True
    for key in ("REPORT_CUSTOM_METRICS", "ENABLE_VLLM_HEALTH_CHECK"):
        model_config.parameters[key].string_value = "true"
    if checked.recipe.tool_call_parser is not None:  # tritonkit's embedded server reads it; NVIDIA's backend does not
        model_config.parameters["tool_call_parser"].string_value = checked.recipe.tool_call_parser
    return model_config
