"""Whether a language model starts on a GPU, and how many tokens its KV cache has room for: vLLM's own budget.

vLLM takes ``gpu_memory_utilization`` of a GPU, loads the weights, runs one step of ``max_num_batched_tokens`` to see
what it takes, and hands what is left out as blocks (:class:`tritonkit.llm.kv_cache.Blocks`). CUDA graphs are captured
afterwards, in what is not taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from tritonkit import gpus
from tritonkit.llm.kv_cache import Blocks, KvCache
from tritonkit.llm.parameters import Parameters

GIB = 2**30
# What CUDA says a GPU has, in GiB: below what is sold, by error correction and what the driver keeps.
# t4: datawhalechina/self-llm#162; a100-40: vllm#12330 (35.45 GiB at 0.9); a100-80: vllm#4408; b200: pytorch/ao#4002;
# h200: 0.9 of it less the weights and the cache that vLLM 0.26 had there, which is 139.81.
_USABLE_GIB = {
    "t4": 14.58, "a100-pcie-40": 39.39, "a100-sxm-40": 39.39, "a100-pcie-80": 79.15, "a100-sxm-80": 79.15,
    "h200": 139.81, "b200": 178.35,
}  # fmt: skip
_GDDR = frozenset({"a10", "a10g", "a40", "l4", "l40s"})  # error correction takes a part of GDDR6: as of the T4, 0.915
_GDDR_SHARE = 0.915
_HBM_SHARE = 0.985  # the smallest of the above with HBM
# What vLLM 0.26 had beside weights and cache on an H200, less the activations below: 0.32 and 0.30 GiB for an 8B and a
# 135M model (2.01 and 0.52 GiB in all).
_OTHER_GIB = 0.3
# For each further GPU's buffers of NCCL and of vLLM's own all-reduce; nothing here has measured it.
_PEERS_GIB = 0.5
# The highest that is advised: CUDA graphs are captured in what is not taken, and 2.4 GiB of them were seen (vllm#7553:
# a 34B on 4 GPUs, vLLM 0.5.4). An assumption; --enforce-eager does without them.
HIGHEST_UTILIZATION = 0.95
_LEAST_TOKENS, _LEAST_SEQUENCES = 512, 8  # fewer of a step, or at a time, are not advised: the GPU would idle
LARGE_GIB = 70  # from here on vLLM's defaults are larger, but on A100s (EngineArgs.get_batch_defaults, 0.24 to 0.32)

# Bytes of a number of a layer's matrices, by precision. int4: 4 bits, a 16-bit scale and a zero point for each 128
# (AWQ and GPTQ, group size 128). fp4: NVFP4, a byte of scale for each 16. mxfp4: a byte for each 32.
WEIGHT_BYTES = {
    "fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "int4": 0.5 + 2.5 / 128,
    "fp4": 0.5 + 1 / 16, "mxfp4": 0.5 + 1 / 32,
}  # fmt: skip


def usable_gib(gpu: gpus.Gpu) -> float:
    """What CUDA says that a GPU has, in GiB; an estimate where no log of it is known here."""
    share = _GDDR_SHARE if gpu.key in _GDDR else _HBM_SHARE
    return _USABLE_GIB.get(gpu.key, gpu.memory_gib * share)


def weights_bytes(parameters: Parameters, precision: str) -> float:
    """Bytes of the weights, of all GPUs together: embeddings and logits stay in 16 bits, and of MXFP4 attention too."""
    ends = parameters.embedding + (0 if parameters.tied else parameters.head)
    width = WEIGHT_BYTES[precision]
    wide = max(2.0, width)
    if precision == "mxfp4":
        return wide * (ends + parameters.attention + parameters.dense) + width * parameters.experts
    if precision in {"fp32", "fp16", "bf16"}:
        return width * parameters.total
    return wide * ends + width * (parameters.attention + parameters.dense + parameters.experts)


@dataclass(frozen=True)
class Settings:
    """vLLM's flags that decide what fits; defaults are those of ``vllm serve`` on a GPU of less than 70 GiB.

    Attributes:
        gpu_memory_utilization: Share of the GPU that vLLM takes.
        max_model_len: Longest sequence, prompt and answer, in tokens.
        max_num_batched_tokens: Tokens of one step.
        max_num_seqs: Sequences that run at the same time.
        block_size: Tokens of a block of the KV cache; None is vLLM's own.
        batches_in_flight: Steps whose tokens are not settled: 2 with asynchronous scheduling from vLLM 0.32 on.
    """

    gpu_memory_utilization: float = 0.9
    max_model_len: int = 8192
    max_num_batched_tokens: int = 2048
    max_num_seqs: int = 256
    block_size: int | None = None
    batches_in_flight: int = 1

    @property
    def in_flight(self) -> int:
        """Tokens that are scheduled and not settled."""
        return self.max_num_batched_tokens * self.batches_in_flight


def defaults(gpu: gpus.Gpu) -> tuple[int, int]:
    """``max_num_batched_tokens`` and ``max_num_seqs`` of ``vllm serve`` on a GPU (EngineArgs.get_batch_defaults)."""
    if usable_gib(gpu) >= 160:
        return 16_384, 1024
    if usable_gib(gpu) >= LARGE_GIB and gpu.family != "a100":
        return 8192, 1024
    return 2048, 256


@dataclass(frozen=True)
class Activations:
    """What a step takes on each GPU beside weights and cache, in bytes.

    Attributes:
        token_bytes: For each token: gate, up and their product between two matrices, the residual and its norm.
        sequence_bytes: For each sequence: logits in fp32.
        other_bytes: The rest, as measured (:data:`_OTHER_GIB`).
    """

    token_bytes: float
    sequence_bytes: float
    other_bytes: float

    def bytes(self, settings: Settings) -> int:
        """Of the largest step."""
        tokens = self.token_bytes * settings.max_num_batched_tokens
        return int(tokens + self.sequence_bytes * settings.max_num_seqs + self.other_bytes)


@dataclass(frozen=True)
class Plan:
    """One model on one kind of GPU with vLLM's settings; all sizes are of one GPU.

    Attributes:
        gpu: The GPU.
        gpu_count: GPUs that share each layer.
        settings: vLLM's flags.
        cache: The KV cache on each GPU.
        weights_bytes: Of the weights on each GPU.
        activations: What a step takes beside them.
    """

    gpu: gpus.Gpu
    gpu_count: int
    settings: Settings
    cache: KvCache
    weights_bytes: int
    activations: Activations

    @property
    def activations_bytes(self) -> int:
        """What the largest step takes beside weights and cache."""
        return self.activations.bytes(self.settings)

    @cached_property
    def blocks(self) -> Blocks:
        """How the cache is handed out."""
        return self.cache.blocks(self.settings.block_size)

    @property
    def total_bytes(self) -> int:
        """What CUDA says the GPU has."""
        return int(usable_gib(self.gpu) * GIB)

    @property
    def cache_bytes(self) -> int:
        """What is left for the KV cache; negative where the weights alone do not fit."""
        budget = int(self.total_bytes * self.settings.gpu_memory_utilization)
        return budget - self.weights_bytes - self.activations_bytes

    @property
    def graphs_bytes(self) -> int:
        """What vLLM does not take, and CUDA graphs and the CUDA context find."""
        return self.total_bytes - int(self.total_bytes * self.settings.gpu_memory_utilization)

    @property
    def starts(self) -> bool:
        """Whether vLLM starts: one sequence of ``max_model_len`` fits, beside a block that vLLM keeps."""
        usable = self.blocks.count(self.cache_bytes) - 1
        return self.cache_bytes > 0 and usable >= self.needed_blocks

    @property
    def needed_blocks(self) -> int:
        """Blocks of one sequence of ``max_model_len``."""
        return self.blocks.sequence_blocks(self.settings.max_model_len, self.settings.in_flight)

    @property
    def needed_utilization(self) -> float:
        """The least ``gpu_memory_utilization`` with which it starts; above 1 where none will do."""
        needed = (self.needed_blocks + 1) * self.blocks.block_bytes
        return (needed + self.weights_bytes + self.activations_bytes) / self.total_bytes

    @property
    def tokens(self) -> int:
        """Tokens that the cache has room for, as vLLM counts: in sequences of ``max_model_len``."""
        return self.blocks.tokens(self.cache_bytes, self.settings.max_model_len, self.settings.in_flight)

    @property
    def longest(self) -> int:
        """The longest sequence that fits, in tokens, up to 2^24; 0 where none does."""
        return self.blocks.longest(self.cache_bytes, self.settings.in_flight, 2**24)

    def sequences(self, tokens: float) -> int:
        """Sequences of so many tokens that run at the same time, at most ``max_num_seqs``."""
        fitting = self.blocks.sequences(self.cache_bytes, max(1, int(tokens)), self.settings.in_flight)
        return int(min(fitting, self.settings.max_num_seqs))


def activations(parameters: Parameters, hidden: int, gpu_count: int, width: int = 2) -> Activations:
    """What a step of a model of ``hidden`` width takes; ``width`` is bytes of a number."""
    other = _OTHER_GIB + (_PEERS_GIB if gpu_count > 1 else 0)
    token = width * (1.5 * parameters.mlp_width / gpu_count + 2 * hidden)
    return Activations(token, 4 * parameters.head / hidden, other * GIB)


def plan(
    parameters: Parameters,
    hidden: int,
    cache: KvCache,
    gpu: gpus.Gpu,
    gpu_count: int,
    precision: str,
    settings: Settings,
) -> Plan:
    """Put a model of ``hidden`` width on a GPU; ``cache`` is that of one of ``gpu_count`` GPUs."""
    weights = int(weights_bytes(parameters, precision) / gpu_count)
    return Plan(gpu, gpu_count, settings, cache, weights, activations(parameters, hidden, gpu_count))


def flags(plan: Plan, halved: KvCache | None) -> list[str]:
    """vLLM's flags, each with its value, with which a plan would start; empty where none is enough.

    Args:
        plan: A plan that does not start.
        halved: The KV cache in fp8, where the GPU and the plan allow it.
    """
    fixes = []
    if plan.needed_utilization <= HIGHEST_UTILIZATION:
        fixes.append(f"--gpu-memory-utilization {math.ceil(plan.needed_utilization * 100) / 100:.2f}")
    for name, least in (("max_num_batched_tokens", _LEAST_TOKENS), ("max_num_seqs", _LEAST_SEQUENCES)):
        smaller = (2**power for power in range(14, 0, -1) if least <= 2**power < getattr(plan.settings, name))
        for value in smaller:
            settings = replace(plan.settings, **{name: value})
            if replace(plan, settings=settings).starts:
                fixes.append(f"--{name.replace('_', '-')} {value}")
                break
    if 0 < plan.longest < plan.settings.max_model_len:
        fixes.append(f"--max-model-len {plan.longest}")
    if halved and replace(plan, cache=halved).starts:
        fixes.append("--kv-cache-dtype fp8")
    return fixes
