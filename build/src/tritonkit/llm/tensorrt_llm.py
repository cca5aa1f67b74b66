"""The files of a model for TensorRT-LLM's ``llmapi`` template: ``model.yaml``, the configuration, and ``model.py``.

The template's own ``model.py`` stays where NVIDIA's image has it, and the short one that is laid out runs it there: it
belongs to the image's TensorRT-LLM, and a copy would be of another version. Not run here: it needs a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.llm.checks import Checked
from tritonkit.llm.vllm import DTYPES

ARGUMENTS = "model.yaml"
# The parameter that tells clients where the adapters are, by name: a request has to say so.
ADAPTERS = "lora_adapters"
MODEL = Path(__file__).with_name("llmapi_model.py")  # the model.py that is laid out
# Inputs and outputs of the template (NVIDIA/TensorRT-LLM, triton_backend/all_models/llmapi/tensorrt_llm/config.pbtxt),
# which does not declare them by itself; with the number of values, -1 for any.
_INPUTS = {
    "text_input": ("STRING", -1),
    "streaming": ("BOOL", 1),
    "stop": ("BOOL", 1),
    "sampling_param_best_of": ("INT32", 1),
    "sampling_param_temperature": ("FP32", 1),
    "sampling_param_top_k": ("INT32", 1),
    "sampling_param_top_p": ("FP32", 1),
    "sampling_param_frequency_penalty": ("FP32", 1),
    "sampling_param_presence_penalty": ("FP32", 1),
    "sampling_param_max_tokens": ("INT32", 1),
    "sampling_param_stop": ("STRING", -1),
    "sampling_param_seed": ("UINT64", 1),
    "sampling_param_exclude_input_from_output": ("BOOL", 1),
    "sampling_param_return_perf_metrics": ("BOOL", 1),
    "return_finish_reason": ("BOOL", 1),
    "return_stop_reason": ("BOOL", 1),
    "return_cumulative_logprob": ("BOOL", 1),
}
_LORA_INPUTS = {
    "lora_id": ("UINT64", 1),
    "lora_name": ("STRING", 1),
    "lora_path": ("STRING", 1),
    "lora_ckpt_source": ("STRING", 1),
}
_OUTPUTS = {
    "text_output": ("STRING", -1),
    "finish_reason": ("STRING", -1),
    "stop_reason": ("STRING", -1),
    "cumulative_logprob": ("FP32", -1),
    "kv_cache_reused_block": ("INT32", -1),
    "kv_cache_missed_block": ("INT32", -1),
    "kv_cache_alloc_new_blocks": ("INT32", -1),
    "kv_cache_alloc_total_blocks": ("INT32", -1),
    "kv_cache_hit_rate": ("FP32", -1),
    "arrival_time_ns": ("INT64", 1),
    "first_scheduled_time_ns": ("INT64", 1),
    "first_token_time_ns": ("INT64", 1),
    "last_token_time_ns": ("INT64", 1),
    "acceptance_rate": ("FP32", 1),
    "total_accepted_draft_tokens": ("INT32", 1),
    "total_draft_tokens": ("INT32", 1),
}


def arguments(checked: Checked, weights: str) -> str:
    """The text of ``model.yaml``: keyword arguments of ``tensorrt_llm.LLM``, and Triton's settings of the model.

    Args:
        checked: The recipe and its directory.
        weights: Where the server finds the weights, as an absolute path.
    """
    recipe = checked.recipe
    cache: dict[str, Any] = {"free_gpu_memory_fraction": recipe.gpu_memory_utilization}
    if recipe.kv_cache_dtype != "auto":
        cache["dtype"] = recipe.kv_cache_dtype
    llm_arguments: dict[str, Any] = {
        "model": weights,
        "backend": "pytorch",
        "dtype": DTYPES[checked.dtype],
        "max_seq_len": checked.max_model_len,
        "tensor_parallel_size": recipe.tensor_parallel_size,
        "kv_cache_config": cache,
    }
    if recipe.max_num_seqs is not None:
        llm_arguments["max_batch_size"] = recipe.max_num_seqs
    if checked.adapters:
        llm_arguments["enable_lora"] = True
        llm_arguments["lora_config"] = {"max_lora_rank": checked.max_lora_rank, "max_loras": len(checked.adapters)}
    # max_batch_size 0 is all that the template has; decoupled, as it cannot stream otherwise.
    llm_arguments["triton_config"] = {"max_batch_size": 0, "decoupled": True}
    return yaml.safe_dump(llm_arguments, sort_keys=False)


def config(checked: Checked) -> pb.ModelConfig:
    """The configuration. Batch size and decoupling are in ``model.yaml``, as the template overwrites them."""
    model_config = pb.ModelConfig(name=checked.recipe.name, backend="python")
    model_config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)
    inputs = _INPUTS | (_LORA_INPUTS if checked.adapters else {})
    for name, (dtype, size) in inputs.items():
        kind = pb.DataType.Value(f"TYPE_{dtype}")
        model_config.input.add(name=name, data_type=kind, dims=[size], optional=name != "text_input")
    for name, (dtype, size) in _OUTPUTS.items():
        model_config.output.add(name=name, data_type=pb.DataType.Value(f"TYPE_{dtype}"), dims=[size])
    return model_config
