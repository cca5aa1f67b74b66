"""Writes a first recipe for a language model's directory, with its limits as comments."""

from __future__ import annotations

from pathlib import Path

from tritonkit import initialise
from tritonkit.llm import directory


def recipe(model: Path, place: Path) -> tuple[str, str]:
    """A name for the model, and the recipe's text.

    Args:
        model: The model's directory.
        place: The folder that the recipe will lie in.

    Raises:
        SourceError: The directory has no ``config.json`` that can be read.
    """
    checkpoint = directory.read(model)
    name = initialise.model_name(model.resolve().name)
    longest, field = checkpoint.longest
    lines = [
        "# Build it with: tritonkit build THIS_FILE; docs/guides/llm.md has every key.",
        f"engine: vllm   # or tensorrt_llm; the architecture is {checkpoint.architecture}",
        f"name: {name}",
        f"source: {{hf: {initialise.relative(model, place)}}}",
        f"# max_model_len: {longest}   # the longest context; this is the model's own ({field})"
        if longest
        else "# max_model_len: 2048   # the longest context; the model has no limit of its own",
        "# gpus: [l4]              # what it will run on: precisions are checked against them",
        "# tensor_parallel_size: 1 # GPUs that share each layer",
        "# kv_cache_dtype: fp8     # halves the KV cache, from compute capability 8.9 on",
        "# slo: {ttft: {p99_ms: 500}, itl: {p99_ms: 50}}",
    ]
    if checkpoint.quantization:
        method = checkpoint.quantization
        lines.insert(1, f"# The weights are quantized ({method}); the engine reads that in config.json.")
    if not checkpoint.has_chat_template:
        lines.insert(1, "# The directory has no chat template: plain prompts work, messages do not.")
    return name, "\n".join(lines) + "\n"
