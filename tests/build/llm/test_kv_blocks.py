"""Blocks of the KV cache against vLLM's own code: what it answered once is stored, and `make test-llm` asks it anew."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tritonkit.llm import kv_cache
from tritonkit.llm.directory import Directory
from tritonkit.server import engine_environment

HERE = Path(__file__).parent
# Name to a model's configuration and vLLM's settings, and what vLLM 0.32's CPU build answered.
CASES: dict[str, dict[str, Any]] = json.loads((HERE / "kv_blocks.json").read_text())


def ours(case: dict[str, Any], block_size: int, in_flight: int) -> dict[str, Any]:
    dtype = "fp8" if case["kv_cache_dtype"] == "fp8" else "bf16"
    blocks = kv_cache.of(Directory(Path("config.json"), case["config"]), dtype, case["gpus"]).blocks(block_size)
    length, memory = case["max_model_len"], case["memory_bytes"]
    return {
        "block_size": block_size,
        "block_bytes": blocks.block_bytes,
        "blocks": blocks.count(memory),
        "tokens": blocks.tokens(memory, length, in_flight),
        "sequences": blocks.sequences(memory, length, in_flight),
        "groups": sum(count for _, count in blocks.groups),
    }


@pytest.mark.parametrize("name", CASES)
def test_blocks_are_vllms_to_the_byte(name: str) -> None:
    case = CASES[name]
    answer = {**case["vllm"], "groups": len(case["vllm"]["groups"])}
    assert ours(case, answer["block_size"], answer.pop("in_flight")) == answer


def test_the_longest_sequence_that_fits_is_where_vllm_begins_to_refuse() -> None:
    blocks = kv_cache.of(Directory(Path("config.json"), CASES["gemma-2-9b (1:1)"]["config"])).blocks(16)
    memory, in_flight = 2**30, 2048
    longest = blocks.longest(memory, in_flight, 8192)
    usable = blocks.count(memory) - 1
    assert blocks.sequence_blocks(longest, in_flight) <= usable < blocks.sequence_blocks(longest + 1, in_flight)


@pytest.mark.llm
def test_vllm_answers_as_it_did(vllm: engine_environment.EngineEnvironment) -> None:
    variables = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    questions = {name: {key: value for key, value in case.items() if key != "vllm"} for name, case in CASES.items()}
    run = subprocess.run(
        [vllm.python, HERE / "vllm_blocks.py"], input=json.dumps(questions), capture_output=True, text=True, timeout=800,
        env={**os.environ, **variables, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == {name: case["vllm"] for name, case in CASES.items()}
