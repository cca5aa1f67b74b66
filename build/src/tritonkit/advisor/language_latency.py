"""How long a language model's steps take on a GPU: a step that makes tokens, a prompt, a batch that runs to its end.

A roofline with few coefficients: a step multiplies its tokens with the matrices, reads the matrices and the KV cache,
adds up between GPUs, and has an overhead of its own, for each layer and for each sequence. The parts follow one another
in a step, so they are added. The coefficients are fitted by :mod:`tritonkit.advisor.language_fit`, and
:mod:`tritonkit.advisor.validate_language` prints how well they foretell what they were not fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from tritonkit.advisor.memory import WEIGHT_BYTES
from tritonkit.gpus import Gpu
from tritonkit.llm import kv_cache, parameters
from tritonkit.llm.directory import Directory
from tritonkit.llm.kv_cache import KvCache
from tritonkit.llm.parameters import Parameters

Engine = Literal["vllm", "tensorrt_llm"]
# Share of the peak bandwidth at which weights and cache are read. An assumption and not fitted, as the rows cannot tell
# it from the overheads: free, it ended above 1.
BANDWIDTH_SHARE = 0.92
LINK_LATENCY_US = 8.0  # of one sum of a few tokens over NVLink; not fitted, as full batches hide it
# Precision of the multiplications for weights of one: what has no tensor cores of its own is unpacked to 16 bits.
_WIDER = ("fp4", "fp8", "bf16", "fp16")
_COMPUTE = {"int4": "bf16", "mxfp4": "bf16"}


@dataclass(frozen=True)
class Coefficients:
    """What is fitted for one engine.

    Attributes:
        wide_share: Share of the peak that matrix products reach in 16 bits.
        narrow_share: The same in fp8 and fp4.
        expert_share: What products with routed experts reach of what those of an MLP do: a token's experts are many and
            small, and each gets a part of the tokens.
        blackwell_share: What products reach on a GPU of compute capability 10.0 of their share on the others.
        attention_share: Share of the 16-bit peak that attention over a prompt reaches.
        link_share: Share of the link's bandwidth that sums between GPUs reach.
        layer_us: Overhead of a layer in a step, in microseconds.
        step_us: Overhead of a step.
        sequence_us: Overhead of a sequence in a step.
        request_us: Overhead of a request, once.
    """

    wide_share: float = 0.65
    narrow_share: float = 0.6
    expert_share: float = 0.5
    blackwell_share: float = 0.8
    attention_share: float = 0.4
    link_share: float = 0.55
    layer_us: float = 8.0
    step_us: float = 1000.0
    sequence_us: float = 5.0
    request_us: float = 100.0

    def changed(self, values: Mapping[str, float]) -> Coefficients:
        """A copy with some of the coefficients changed."""
        return Coefficients(**{**{field.name: getattr(self, field.name) for field in fields(self)}, **values})


@dataclass(frozen=True)
class Deployment:
    """A model on GPUs that share each layer.

    Attributes:
        parameters: Its parts.
        cache: The KV cache on each GPU.
        layers: Of the model.
        hidden: Width of a layer.
        attention_width: Numbers of all heads' queries and values together, of one layer: what a pair of tokens costs.
        gpu: The GPU.
        gpu_count: How many.
        precision: Of the weights.
    """

    parameters: Parameters
    cache: KvCache
    layers: int
    hidden: int
    attention_width: int
    gpu: Gpu
    gpu_count: int
    precision: str

    @property
    def link_gbs(self) -> float:
        """What a GPU sends to its peers, in 10^9 bytes a second: half of NVLink's figure, which is both directions."""
        return self.gpu.nvlink_gbs / 2 if self.gpu.nvlink_gbs else self.gpu.pcie_gbs

    def peak(self, precision: str) -> float:
        """Dense operations a second in a precision, the next wider one where the GPU lacks it."""
        peaks = self.gpu.peaks
        own = _COMPUTE.get(precision, precision)
        # Blackwell workstation parts publish fp4 only: half of it for each doubling of the width.
        for name in _WIDER[_WIDER.index(own) :] if own in _WIDER else (own,):
            if name in peaks:
                return peaks[name] * 1e12
        return peaks["fp4"] * 1e12 / (2 if own == "fp8" else 4) if "fp4" in peaks else peaks["fp32"] * 1e12


def deployment(directory: Directory, gpu: Gpu, count: int, precision: str, kv: str) -> Deployment:
    """A directory's model on GPUs; ``kv`` is the precision of the cache."""
    return Deployment(
        parameters=parameters.of(directory),
        cache=kv_cache.of(directory, kv, count),
        layers=directory.layers,
        hidden=directory.hidden,
        attention_width=_attention_width(directory),
        gpu=gpu,
        gpu_count=count,
        precision=precision,
    )


@dataclass(frozen=True)
class StepTime:
    """The parts of one step, in milliseconds; they follow one another."""

    compute: float
    weights: float
    cache: float
    link: float
    overhead: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.compute + self.weights + self.cache + self.link + self.overhead

    @property
    def bound(self) -> str:
        """What most of it is."""
        parts = {
            "matrix products": self.compute, "reading the weights": self.weights, "reading the KV cache": self.cache,
            "sums between GPUs": self.link, "overhead of steps": self.overhead,
        }  # fmt: skip
        return max(parts, key=lambda name: parts[name])


def step(
    deployment: Deployment, sequences: float, context: float, fit: Coefficients, prompt_tokens: float = 0
) -> StepTime:
    """One step in which each sequence gets a token, and ``prompt_tokens`` of prompts are read along.

    Args:
        deployment: The model and its GPUs.
        sequences: Sequences that get a token.
        context: Tokens of each so far, on average.
        fit: The engine's coefficients.
        prompt_tokens: Of prompts; their attention is :func:`prompt_ms`'s.
    """
    parameters, count = deployment.parameters, deployment.gpu_count
    bandwidth = deployment.gpu.bandwidth_gbs * 1e9 * BANDWIDTH_SHARE
    wide = deployment.peak("bf16") * fit.wide_share
    tokens = sequences + prompt_tokens
    # Logits are made of one token of each sequence, in 16 bits.
    products = _products(deployment, fit) * tokens + 2 * parameters.head * max(sequences, 1) / wide
    read = parameters.layers_read(tokens) * _layer_bytes(deployment) + 2 * parameters.head
    kept = sum(
        layers.count * layers.bytes_per_token * (context if layers.window is None else min(context, layers.window))
        for layers in deployment.cache.layers
    )
    overhead = fit.step_us + fit.layer_us * deployment.layers + fit.sequence_us * sequences
    return StepTime(
        compute=products / count * 1e3,
        weights=read / count / bandwidth * 1e3,
        cache=sequences * kept / bandwidth * 1e3,
        link=_link_ms(deployment, tokens, fit),
        overhead=overhead / 1e3,
    )


def prompt_ms(deployment: Deployment, tokens: float, fit: Coefficients, before: float = 0) -> float:
    """What a prompt adds to the steps that read it: products, attention and sums, in milliseconds.

    Args:
        deployment: The model and its GPUs.
        tokens: Of the prompt that are not in the cache yet.
        fit: The engine's coefficients.
        before: Tokens that are in the cache already.
    """
    products = _products(deployment, fit) * tokens
    pairs = 0.0
    all_layers = sum(layers.count for layers in deployment.cache.layers) or 1
    for layers in deployment.cache.layers:
        seen = before + tokens / 2
        pairs += layers.count / all_layers * tokens * (seen if layers.window is None else min(seen, layers.window))
    # A multiplication and an addition for each pair, once with queries and keys and once with values.
    attention = 2 * deployment.layers * deployment.attention_width * pairs
    attention /= deployment.peak("bf16") * fit.attention_share
    return (products + attention) / deployment.gpu_count * 1e3 + _link_ms(deployment, tokens, fit, latency=False)


def prefill_ms(
    deployment: Deployment, prompts: float, tokens: float, fit: Coefficients, batched: int, before: float = 0
) -> float:
    """Time until a batch of prompts that came together has its first tokens, nothing else running, in milliseconds."""
    steps = max(1, math.ceil(prompts * tokens / batched))
    empty = step(deployment, prompts / steps, before + tokens, fit)
    # A step's own products are of the prompts' last tokens, which prompt_ms counts.
    return prompts * prompt_ms(deployment, tokens, fit, before) + steps * (empty.weights + empty.overhead)


def offline_tokens_per_s(
    deployment: Deployment, prompt: int, answer: int, fit: Coefficients, sequences: float, requests: int | None = None
) -> float:
    """Tokens of answers a second where all requests are there at the beginning.

    Requests that begin together end together: ``requests`` that are not many times ``sequences`` run in waves of equal
    size, and a wave is smaller than the room that there is.
    """
    running = sequences
    if requests:
        running = requests / math.ceil(requests / sequences - 1e-9)
    decoding = step(deployment, running, prompt + answer / 2, fit).total * answer / running
    request = decoding + prompt_ms(deployment, prompt, fit) + fit.request_us / 1e3
    return answer / request * 1e3


def _products(deployment: Deployment, fit: Coefficients) -> float:
    """Seconds that one token's products with all layers' matrices take on one GPU."""
    parameters = deployment.parameters
    narrow = WEIGHT_BYTES[deployment.precision] <= 1 and deployment.precision not in _COMPUTE
    share = fit.narrow_share if narrow else fit.wide_share
    if deployment.gpu.compute_capability == (10, 0):
        share *= fit.blackwell_share
    plain = parameters.attention + parameters.dense + parameters.routed / fit.expert_share
    return 2 * plain / (deployment.peak(deployment.precision) * share)


def _layer_bytes(deployment: Deployment) -> float:
    """Bytes of a number of the layers, on average."""
    width = WEIGHT_BYTES[deployment.precision]
    if deployment.precision != "mxfp4":
        return width
    parameters = deployment.parameters
    plain = parameters.attention + parameters.dense
    return (2 * plain + width * parameters.routed) / (plain + parameters.routed)


def _link_ms(deployment: Deployment, tokens: float, fit: Coefficients, latency: bool = True) -> float:
    """Two sums a layer over all GPUs: each sends and gets (n - 1) / n of twice the activations."""
    count = deployment.gpu_count
    if count == 1:
        return 0.0
    moved = deployment.layers * 2 * 2 * tokens * deployment.hidden * 2 * (count - 1) / count
    wait = 2 * deployment.layers * LINK_LATENCY_US / 1e3 if latency else 0.0
    return moved / (deployment.link_gbs * 1e9 * fit.link_share) * 1e3 + wait


def _attention_width(directory: Directory) -> int:
    if not directory.number("kv_lora_rank"):
        return 2 * directory.heads * directory.head_dim
    plain = directory.needed("qk_nope_head_dim")
    rope = directory.number("qk_rope_head_dim") or 0
    return directory.heads * (plain + rope + (directory.number("v_head_dim") or plain))
