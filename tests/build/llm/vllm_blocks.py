"""Run by the interpreter of vLLM's environment: what vLLM's own code makes of models' KV caches.

It reads cases from standard input, and the last line of its standard output has its answers, both JSON. The layers are those of vLLM's
own model classes, built without memory (on the ``meta`` device); groups and blocks are those of its scheduler.
"""

# mypy: ignore-errors
from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.testing._internal.distributed.fake_pg import FakeStore
from vllm.config import set_current_vllm_config
from vllm.config.vllm import get_layers_from_vllm_config
from vllm.distributed import parallel_state
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.model_executor.models import registry
from vllm.v1.core import kv_cache_utils

_new_group = torch.distributed.new_group
_new_coordinator = parallel_state.init_model_parallel_group


def fake_group(*args: Any, **options: Any) -> Any:
    return _new_group(*args, **{**options, "backend": "fake"})


def silent_coordinator(*args: Any, **options: Any) -> Any:
    return _new_coordinator(
        *args, **{**options, "use_message_queue_broadcaster": False, "use_device_communicator": False}
    )


def answer(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "config.json").write_text(json.dumps(case["config"]))
    count = case["gpus"]
    arguments = EngineArgs(
        model=str(folder), load_format="dummy", skip_tokenizer_init=True, enforce_eager=True, dtype="bfloat16",
        max_model_len=case["max_model_len"], max_num_batched_tokens=case["max_num_batched_tokens"], max_num_seqs=8,
        block_size=case["block_size"], kv_cache_dtype=case["kv_cache_dtype"], async_scheduling=False,
        limit_mm_per_prompt={"image": 0}, disable_hybrid_kv_cache_manager=False,
    )  # fmt: skip
    config = arguments.create_engine_config()
    config.cache_config.kv_cache_layout = "LBNHC"
    config.parallel_config.tensor_parallel_size = config.parallel_config.world_size = count
    with set_current_vllm_config(config):
        # One process is the first of several GPUs: the others are made up, as nothing is sent.
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)
        try:
            parallel_state.init_distributed_environment(count, 0, "", 0, backend="fake")
            parallel_state.initialize_model_parallel(count, 1)
            with torch.device("meta"):
                model = initialize_model(config)
        finally:
            parallel_state.destroy_model_parallel()
            parallel_state.destroy_distributed_environment()
    layers = get_layers_from_vllm_config(config, AttentionLayerBase)
    specs = {name: spec for name, layer in layers.items() if (spec := layer.get_kv_cache_spec(config))}
    (cache,) = kv_cache_utils.get_kv_cache_configs(config, [dict(specs)], [case["memory_bytes"]])
    tokens, concurrency = kv_cache_utils.get_kv_cache_capacity(config, cache)
    del model
    return {
        "block_size": cache.kv_cache_groups[0].kv_cache_spec.block_size,
        "groups": sorted(len(group.layer_names) for group in cache.kv_cache_groups),
        "block_bytes": kv_cache_utils._pool_bytes_per_block(config, cache.kv_cache_groups),
        "blocks": cache.num_blocks, "tokens": tokens, "sequences": concurrency,
        "in_flight": config.max_in_flight_tokens,
    }  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    torch.distributed.new_group = fake_group
    parallel_state.init_model_parallel_group = silent_coordinator
    registry._run_in_subprocess = lambda function: function()
    answers: dict[str, Any] = {}
    for name, case in json.load(sys.stdin).items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                answers[name] = answer(case, Path(folder))
            except Exception as error:
                answers[name] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    sys.stdout.write("\n" + json.dumps(answers) + "\n")  # vLLM logs there too


main()
