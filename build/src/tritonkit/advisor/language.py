"""Advice for a language model: on which GPUs, in how many pieces and in which precision it keeps its promise.

:func:`advise` is what the command calls. Each choice says whether vLLM starts there, what callers get, what bounds it,
how many replicas carry the load, and which flag would change a no.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tritonkit import gpus
from tritonkit.advisor import engine_choice, language_choice
from tritonkit.advisor.engine_choice import EngineAdvice, Facts
from tritonkit.advisor.language_choice import Choice
from tritonkit.advisor.language_latency import Engine
from tritonkit.errors import InputError, SourceError
from tritonkit.llm import architectures, directory, kv_cache, parameters
from tritonkit.llm.directory import CONFIG, Directory

COUNTS = (1, 2, 4, 8)  # GPUs of one node that share each layer
# quant_method of config.json, and of ModelOpt its algorithm → the precision of the weights.
_QUANTIZED = {
    "fp8": "fp8", "fbgemm_fp8": "fp8", "awq": "int4", "gptq": "int4", "mxfp4": "mxfp4", "nvfp4": "fp4",
    "modelopt": "fp8", "modelopt_fp4": "fp4",
}  # fmt: skip
# Compute capability from which vLLM runs weights of a precision: AWQ 7.5, Marlin's MXFP4 8.0 (quantization/*.py, 0.32).
_SINCE = {"bf16": (8, 0), "fp8": (8, 9), "fp4": (10, 0), "mxfp4": (8, 0), "int4": (7, 5)}


@dataclass(frozen=True)
class Request:
    """The load of a language model, what its callers are promised, and what may serve it.

    Attributes:
        prompt: Tokens of a prompt; the context less the answer if not given.
        answer: Tokens of an answer.
        context: Longest sequence that is served, prompt and answer together (``max_model_len``).
        concurrency: Requests in flight at the same time, of all replicas.
        rps: Requests a second that come at random, of all replicas; instead of ``concurrency``.
        ttft_ms: Largest time to the first token, as a 99th percentile.
        itl_ms: Largest mean time between the tokens of an answer.
        reuse: Share of a prompt that is in the KV cache already, from 0 to below 1.
        gpus: Names of GPUs; all of the catalogue if empty.
        gpu_counts: GPUs that share each layer, to try.
        precisions: Of the weights: bf16, fp8, int4, fp4; those that the GPU and the checkpoint allow if empty.
        kv_dtype: ``auto`` keeps the cache in 16 bits, ``fp8`` halves it.
        engine: vllm or tensorrt_llm: whose coefficients are used.
        gpu_memory_utilization: Share of each GPU's memory that the engine takes.
        max_num_batched_tokens: Tokens of a step; vLLM's default for the GPU if not given.
        max_num_seqs: Sequences of a step; vLLM's default for the GPU if not given.
        block_size: Tokens of a block of the KV cache; vLLM's default if not given.
        prices: US dollars an hour of one GPU, by key; the catalogue's dated ones where not given.
        steady: Whether the same weights stay for weeks and fill their GPUs; for the choice of an engine.
        needs_triton: Whether the model shares its endpoint with models of other kinds; likewise.
    """

    prompt: int | None = None
    answer: int = 256
    context: int = 8192
    concurrency: int | None = None
    rps: float | None = None
    ttft_ms: float | None = None
    itl_ms: float | None = None
    reuse: float = 0.0
    gpus: tuple[str, ...] = ()
    gpu_counts: tuple[int, ...] = COUNTS
    precisions: tuple[str, ...] = ()
    kv_dtype: str = "auto"
    engine: Engine = "vllm"
    gpu_memory_utilization: float = 0.9
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    block_size: int | None = None
    prices: Mapping[str, float] = field(default_factory=dict)
    steady: bool = False
    needs_triton: bool = False

    @property
    def prompt_tokens(self) -> int:
        """Tokens of a prompt."""
        return self.prompt or max(1, self.context - self.answer)


@dataclass(frozen=True)
class Result:
    """Advice for one model.

    Attributes:
        model: The name of its directory or file.
        architecture: The model's.
        request: The load and the promise that the advice is for.
        parameters: How many numbers the model has, by part.
        engine: What to serve it with, and why.
        choices: All that were tried, the best first.
        notes: What holds for all of them.
    """

    model: str
    architecture: str
    request: Request
    parameters: parameters.Parameters
    engine: EngineAdvice
    choices: tuple[Choice, ...]
    notes: tuple[str, ...]

    @property
    def best(self) -> Choice | None:
        """The first that keeps the promise."""
        return next((choice for choice in self.choices if choice.verdict == "ok"), None)

    def short(self) -> tuple[Choice, ...]:
        """One choice for each GPU and precision: the best of its counts of GPUs."""
        unique: dict[tuple[str, str], Choice] = {}
        for choice in self.choices:
            unique.setdefault((choice.gpu.key, choice.precision), choice)
        return tuple(unique.values())

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        request = {name: getattr(self.request, name) for name in self.request.__dataclass_fields__}
        return {
            "model": self.model,
            "architecture": self.architecture,
            "parameters": {"total": self.parameters.total, "active": self.parameters.active},
            "request": {**request, "prompt": self.request.prompt_tokens, "prices": dict(self.request.prices)},
            "engine": self.engine.to_json(),
            "choices": [choice.to_json() for choice in self.choices],
            "notes": list(self.notes),
        }


def advise(path: Path, request: Request) -> Result:
    """Try a model on GPUs.

    Args:
        path: A Hugging Face directory, or a ``config.json`` alone. No weights are needed.
        request: The load, the promise, and what may serve it.

    Raises:
        SourceError: The file is missing or broken, contradicts itself, or names an unknown architecture.
        InputError: The request has an impossible value, or names a GPU that is not in the catalogue.
    """
    model = directory.read_any(path)
    _check_architecture(model, request.engine)
    parameters.check(model)
    _check(request, model)
    parts = parameters.of(model)
    chosen = [part for name in request.gpus for part in gpus.members(name)] if request.gpus else list(gpus.all())
    tried: list[Choice] = []
    for gpu in dict.fromkeys(chosen):
        for precision in _precisions(model, gpu, request):
            tried += [
                language_choice.evaluate(model, parts, gpu, count, precision, request)
                for count in request.gpu_counts
                if _divides(model, count)
            ]
    if not tried:
        raise _nothing(model, request, chosen)
    engine = engine_choice.choose(Facts("language", steady=request.steady, needs_triton=request.needs_triton))
    return Result(
        path.name,
        model.architecture,
        request,
        parts,
        engine,
        tuple(sorted(tried, key=_rank)),
        tuple(_notes(model, request)),
    )


def _check(request: Request, model: Directory) -> None:
    positive = {
        "--answer": request.answer, "--context": request.context, "--prompt": request.prompt, "--rps": request.rps,
        "--concurrency": request.concurrency, "--ttft-ms": request.ttft_ms, "--itl-ms": request.itl_ms,
        "--max-num-batched-tokens": request.max_num_batched_tokens, "--max-num-seqs": request.max_num_seqs,
        "--block-size": request.block_size, "--tensor-parallel-size": min(request.gpu_counts, default=0),
        **{f"the price of {name}": value for name, value in request.prices.items()},
    }  # fmt: skip
    for name, value in positive.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} {value:g} is no positive number", f"give {name} a number above 0")
    if not 0 < request.gpu_memory_utilization <= 1:
        message = f"--gpu-memory-utilization {request.gpu_memory_utilization:g} is not above 0 and at most 1"
        raise InputError(message, "0.9 leaves room for CUDA graphs")
    if not 0 <= request.reuse < 1:
        raise InputError(
            f"--reuse {request.reuse:g} is not from 0 to below 1", "it is the share of a prompt that is known"
        )
    if request.rps is not None and request.concurrency is not None:
        raise InputError("--rps and --concurrency are two ways to say the load", "give one of them")
    if request.kv_dtype not in ("auto", "fp8"):
        raise InputError(f"--kv-cache-dtype {request.kv_dtype} is not known here", "auto or fp8")
    longest, name = model.longest
    if longest is not None and request.context > longest:
        message = f"--context {request.context} is above {longest}, the longest context of the model ({name})"
        raise InputError(message, f"--context {longest}, or less")
    if request.prompt_tokens + request.answer > request.context:
        message = f"a prompt of {request.prompt_tokens} and an answer of {request.answer} tokens"
        raise InputError(
            f"{message} are more than --context {request.context}",
            f"--context {request.prompt_tokens + request.answer}, or shorter ones",
        )


def _check_architecture(model: Directory, engine: Engine) -> None:
    name = model.architecture
    if not name:
        raise SourceError(f"{model.path / CONFIG} names no architecture", 'add  "architectures": ["…ForCausalLM"]')
    support = architectures.find(name)
    if engine == "vllm" and not support.releases:
        near = architectures.nearest(name)
        raise SourceError(
            f"{model.path / CONFIG} names the architecture {name}, which vLLM "
            f"{' and '.join(architectures.releases())} do not have",
            f"did you mean {near}?" if near else "name one that vLLM has: https://docs.vllm.ai/en/latest/models",
        )
    if support.releases and not support.generates:
        raise SourceError(
            f"{name} embeds or classifies: it answers no prompt with text",
            "export it to ONNX and advise for that graph",
        )


def _precisions(model: Directory, gpu: gpus.Gpu, request: Request) -> Sequence[str]:
    since = gpu.compute_capability
    if model.quantization:
        own = _quantized(model)
        possible = [own] if since >= _SINCE.get(own, (0, 0)) else []
    else:
        wide = "bf16" if since >= _SINCE["bf16"] else "fp16"
        possible = [wide, *(name for name in ("fp8", "int4", "fp4") if since >= _SINCE[name])]
    return [name for name in possible if not request.precisions or name in request.precisions]


def _quantized(model: Directory) -> str:
    settings = model.config.get("quantization_config") or model.text.get("quantization_config") or {}
    if "NVFP4" in str(settings.get("quant_algo", "")).upper():
        return "fp4"
    if model.quantization == "compressed-tensors":
        groups = list((settings.get("config_groups") or {}).values())
        bits = (groups[0].get("weights") or {}).get("num_bits") if groups else None
        if bits in (4, 8):
            return "int4" if bits == 4 else "fp8"
    if model.quantization not in _QUANTIZED:
        raise SourceError(
            f"{model.path / CONFIG} says that the weights are quantized by {model.quantization}, unknown here",
            f"known are {', '.join(_QUANTIZED)} and compressed-tensors of 4 or 8 bits",
        )
    return _QUANTIZED[model.quantization]


def _divides(model: Directory, count: int) -> bool:
    return model.heads % count == 0 and (model.kv_heads % count == 0 or count % model.kv_heads == 0)


def _nothing(model: Directory, request: Request, chosen: Sequence[gpus.Gpu]) -> InputError:
    if not any(_divides(model, count) for count in request.gpu_counts):
        counts = [count for count in range(1, 65) if _divides(model, count)]
        return InputError(
            f"{model.heads} attention and {model.kv_heads} KV heads cannot be shared by "
            f"{' or '.join(map(str, request.gpu_counts))} GPUs",
            f"--tensor-parallel-size one of {', '.join(map(str, counts))}",
        )
    names = ", ".join(gpu.key for gpu in chosen)
    if model.quantization:
        return InputError(
            f"the weights are quantized ({model.quantization}), which none of {names} runs",
            "name GPUs from compute capability 8.9 on for fp8, 10.0 for fp4; or take another checkpoint",
        )
    return InputError(
        f"none of {names} runs {' or '.join(request.precisions)}", "leave --precision out to see what they run"
    )


_ORDER = {"ok": 0, "too slow": 1, "no room": 2, "does not start": 3}


def _rank(choice: Choice) -> tuple[float, ...]:
    cost = choice.usd_per_million if choice.usd_per_million is not None else math.inf
    speed = choice.served.ttft_p99_ms + choice.served.itl_ms if choice.served else -choice.plan.cache_bytes
    return (_ORDER[choice.verdict], cost, choice.gpus_total or math.inf, speed, choice.gpu_count)


def _notes(model: Directory, request: Request) -> list[str]:
    notes = [
        "Times are predicted: docs/guides/advisor-llm.md says how far off they were on figures that they never saw.",
        f"The KV cache takes {kv_cache.of(model).bytes_per_token:,} bytes a token in 16 bits, of all GPUs together.",
    ]
    if request.prompt is None:
        notes.append(f"Prompts are taken as the whole context less the answer: {request.prompt_tokens:,} tokens.")
    kinds = model.text.get("layer_types") or ()
    if any(kind in kv_cache.STATELESS for kind in kinds):
        notes.append("Layers without attention keep a state of fixed size, which is not counted here.")
    if model.number("num_local_experts", "num_experts", "n_routed_experts"):
        notes.append("Of mixtures of experts, few published figures are known: predictions were off by up to 56 %.")
    return notes
