"""One choice for a language model: a GPU, how many share it, a precision; whether it starts, and what it carries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from tritonkit import gpus
from tritonkit.advisor import language_fit, memory
from tritonkit.advisor.language_latency import BANDWIDTH_SHARE, Coefficients, Deployment, deployment, step
from tritonkit.advisor.language_serving import Load, Served, closed, largest, open_loop
from tritonkit.advisor.memory import GIB, Plan, Settings
from tritonkit.llm import kv_cache
from tritonkit.llm.directory import Directory
from tritonkit.llm.parameters import Parameters

if TYPE_CHECKING:
    from tritonkit.advisor.language import Request

Verdict = Literal["ok", "too slow", "no room", "does not start"]
Basis = Literal["measured", "published", "extrapolated"]
# Requests in flight that are tried at most; vLLM's own largest default.
_MOST = 1024
_MOST_REPLICAS = 4096


@dataclass(frozen=True)
class Choice:
    """One choice, and what came of it.

    Attributes:
        gpu: The GPU.
        gpu_count: GPUs that share each layer.
        precision: Of the weights.
        kv_dtype: Precision of the KV cache.
        verdict: ``ok`` keeps the promise; ``too slow`` and ``no room`` do not; vLLM refuses what ``does not start``.
        plan: What fits.
        served: What one replica does at its share of the load; None where it does not start.
        replicas: Copies that carry the load; None where no number does.
        per_replica: Requests in flight, or a second, that one replica carries within the promise; 0: none.
        basis: Whether rows of this engine on this GPU were measured, were published for it, or neither.
        usd_per_hour: Of all GPUs; None without a price.
        reasons: Why, as sentences.
        changes: What would turn a no into a yes, or cost less, as sentences.
        answer: Tokens of an answer.
    """

    gpu: gpus.Gpu
    gpu_count: int
    precision: str
    kv_dtype: str
    verdict: Verdict
    plan: Plan
    served: Served | None
    replicas: int | None
    per_replica: float
    basis: Basis
    usd_per_hour: float | None
    reasons: tuple[str, ...]
    changes: tuple[str, ...]
    answer: int = 0

    @property
    def gpus_total(self) -> int | None:
        """GPUs of all replicas."""
        return self.replicas * self.gpu_count if self.replicas else None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens of answers a second, of all replicas, at the load."""
        if self.served is None or self.replicas is None:
            return None
        return self.served.requests_per_s * self.answer * self.replicas

    @property
    def usd_per_million(self) -> float | None:
        """US dollars for a million tokens of answers at the load."""
        if self.usd_per_hour is None or not self.tokens_per_s:
            return None
        return self.usd_per_hour / 3600 / self.tokens_per_s * 1e6

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it; times in milliseconds, memory in bytes of one GPU."""
        served = self.served
        return {
            "gpu": self.gpu.key, "gpus_per_replica": self.gpu_count, "precision": self.precision,
            "kv_cache_dtype": self.kv_dtype, "verdict": self.verdict, "basis": self.basis,
            "memory": {
                "total_bytes": self.plan.total_bytes, "weights_bytes": self.plan.weights_bytes,
                "activations_bytes": self.plan.activations_bytes, "kv_cache_bytes": self.plan.cache_bytes,
                "left_for_graphs_bytes": self.plan.graphs_bytes,
                "kv_cache_tokens": self.plan.tokens, "longest_sequence": self.plan.longest,
                "needed_utilization": round(self.plan.needed_utilization, 4),
            },
            "ttft_p50_ms": served and round(served.ttft_p50_ms, 1),
            "ttft_p99_ms": served and round(served.ttft_p99_ms, 1),
            "itl_ms": served and round(served.itl_ms, 2), "bound": served and served.bound,
            "running": served and round(served.running, 1), "busy": served and round(served.busy, 3),
            "tokens_per_s": self.tokens_per_s and round(self.tokens_per_s, 1), "replicas": self.replicas,
            "gpus": self.gpus_total, "per_replica": round(self.per_replica, 3), "usd_per_hour": self.usd_per_hour,
            "usd_per_million_tokens": self.usd_per_million and round(self.usd_per_million, 3),
            "reasons": list(self.reasons), "changes": list(self.changes),
        }  # fmt: skip


def settings(request: Request, gpu: gpus.Gpu) -> Settings:
    """vLLM's flags of a request: its own defaults for the GPU where the request names none."""
    tokens, sequences = memory.defaults(gpu)
    return Settings(
        request.gpu_memory_utilization, request.context, request.max_num_batched_tokens or tokens,
        request.max_num_seqs or sequences, request.block_size,
    )  # fmt: skip


def evaluate(
    model: Directory, parts: Parameters, gpu: gpus.Gpu, count: int, precision: str, request: Request
) -> Choice:
    """Try one choice."""
    kv = "fp8" if request.kv_dtype == "fp8" else "fp16" if precision == "fp16" else "bf16"
    flags = settings(request, gpu)
    deployed = deployment(model, gpu, count, precision, kv)
    plan = memory.plan(parts, model.hidden, deployed.cache, gpu, count, precision, flags)
    choice = Choice(
        gpu, count, precision, kv, "does not start", plan, None, None, 0, _basis(request, gpu, count, precision),
        _price(request, gpu), (), (),
    )  # fmt: skip
    if not plan.starts:
        halved = kv_cache.of(model, "fp8", count) if kv != "fp8" and gpu.compute_capability >= (8, 9) else None
        return replace(choice, reasons=(_why_not(plan),), changes=tuple(_starts_with(plan, halved)))
    return _load(choice, deployed, request)


def _load(choice: Choice, deployed: Deployment, request: Request) -> Choice:
    fit = language_fit.coefficients(request.engine)
    load = Load(request.prompt_tokens, request.answer, request.reuse)
    batched = choice.plan.settings.max_num_batched_tokens
    room = choice.plan.sequences(load.prompt + load.answer)

    def at(running: int) -> Served:
        return closed(deployed, fit, load, running, batched)

    def keeps(served: Served | None) -> bool:
        return served is not None and (
            (request.ttft_ms is None or served.ttft_p99_ms <= request.ttft_ms)
            and (request.itl_ms is None or served.itl_ms <= request.itl_ms)
        )

    if room < 1:
        reason = f"not one sequence of {load.prompt + load.answer:,} tokens has room"
        return replace(choice, verdict="no room", served=at(1), reasons=(reason,))
    alone = at(1)
    if not keeps(alone):
        slow = tuple(_too_slow(alone, deployed, load, request))
        return replace(
            choice,
            verdict="too slow",
            served=alone,
            reasons=slow,
            changes=tuple(_faster(deployed, fit, load, request, batched)),
        )
    if request.rps is not None:
        return _with_rate(choice, deployed, fit, load, request, room, keeps)
    most = largest(lambda running: keeps(at(running)), min(room, _MOST))
    concurrency = request.concurrency or most
    replicas = math.ceil(concurrency / most)
    served = at(math.ceil(concurrency / replicas))
    return _carried(choice, load, replicas, served, float(most), room)


def _with_rate(
    choice: Choice, deployed: Deployment, fit: Coefficients, load: Load, request: Request, room: int,
    keeps: Callable[[Served | None], bool],
) -> Choice:  # fmt: skip
    rate, batched = request.rps or 0.0, choice.plan.settings.max_num_batched_tokens

    def at(replicas: int) -> Served | None:
        return open_loop(deployed, fit, load, rate / replicas, batched, room)

    # More replicas keep a promise better, so the fewest are where `keeps` turns.
    failing = largest(lambda replicas: not keeps(at(replicas)), _MOST_REPLICAS)
    replicas = failing + 1
    served = at(replicas)
    if replicas > _MOST_REPLICAS or served is None:
        reason = f"even {_MOST_REPLICAS:,} replicas do not carry {rate:g} requests a second within the promise"
        return replace(choice, verdict="too slow", served=closed(deployed, fit, load, 1, batched), reasons=(reason,))
    return _carried(choice, load, replicas, served, rate / replicas, room)


def _carried(choice: Choice, load: Load, replicas: int, served: Served, each: float, room: int) -> Choice:
    hourly = choice.usd_per_hour
    tokens = load.prompt + load.answer
    reasons = [
        f"most of the time goes into {served.bound}: a step takes {served.step.total:.1f} ms, a prompt "
        f"{served.prompt_ms:.0f} ms",
        f"the KV cache has room for {room:,} sequences of {tokens:,} tokens, {served.running:.0f} run",
    ]
    if room <= served.running * 1.05:
        reasons.append("the KV cache is the limit: more requests wait, and vLLM preempts where answers are longer")
    changes = []
    if choice.kv_dtype != "fp8" and choice.gpu.compute_capability >= (8, 9) and room <= served.running * 1.05:
        changes.append("--kv-cache-dtype fp8 doubles the room of the KV cache")
    return replace(
        choice,
        verdict="ok",
        served=served,
        replicas=replicas,
        per_replica=each,
        usd_per_hour=None if hourly is None else hourly * choice.gpu_count * replicas,
        reasons=tuple(reasons),
        changes=tuple(changes),
        answer=load.answer,
    )


def _why_not(plan: Plan) -> str:
    gib = plan.weights_bytes / GIB
    budget = plan.total_bytes * plan.settings.gpu_memory_utilization / GIB
    if plan.cache_bytes <= 0:
        return (
            f"weights of {gib:.1f} GiB and {plan.activations_bytes / GIB:.1f} GiB for a step are more than the "
            f"{budget:.1f} GiB that vLLM takes of each GPU"
        )
    needed = (plan.needed_blocks + 1) * plan.blocks.block_bytes
    return (
        f"{plan.cache_bytes / GIB:.2f} GiB are left for the KV cache beside {gib:.1f} GiB of weights, and one sequence "
        f"of {plan.settings.max_model_len:,} tokens takes {needed / GIB:.2f} GiB"
    )


def _starts_with(plan: Plan, halved: kv_cache.KvCache | None) -> list[str]:
    fixes = [f"{flag} starts it" for flag in memory.flags(plan, halved)]
    lacking = plan.needed_utilization * plan.total_bytes - plan.settings.gpu_memory_utilization * plan.total_bytes
    if not fixes:
        fixes.append(f"each GPU lacks {lacking / GIB:.1f} GiB: more GPUs share them, or weights of fewer bits")
    return fixes


def _too_slow(alone: Served, deployed: Deployment, load: Load, request: Request) -> list[str]:
    """Why one request alone is too slow, and which physical bound forbids it, if one does."""
    reasons = []
    if request.itl_ms is not None and alone.itl_ms > request.itl_ms:
        least = alone.step.weights * BANDWIDTH_SHARE
        reason = f"a token takes {alone.itl_ms:.1f} ms with one request alone, above {request.itl_ms:g}"
        if least > request.itl_ms:
            reason += (
                f"; reading the weights alone takes {least:.1f} ms at the full {deployed.gpu.bandwidth_gbs:,.0f} GB/s, "
                f"{least / request.itl_ms:.1f} times what is allowed: no software makes it"
            )
        reasons.append(reason)
    if request.ttft_ms is not None and alone.ttft_p99_ms > request.ttft_ms:
        operations = 2 * deployed.parameters.layers_active * load.fresh / deployed.gpu_count
        least = operations / deployed.peak(deployed.precision) * 1e3
        reason = (
            f"a prompt of {load.fresh:,.0f} tokens takes {alone.ttft_p99_ms:.0f} ms alone, above {request.ttft_ms:g}"
        )
        if least > request.ttft_ms:
            reason += (
                f"; its products alone take {least:.0f} ms at the GPU's peak, {least / request.ttft_ms:.1f} times what "
                "is allowed: no software makes it"
            )
        reasons.append(reason)
    return reasons


def _faster(deployed: Deployment, fit: Coefficients, load: Load, request: Request, batched: int) -> list[str]:
    changes = []
    if request.ttft_ms is not None:

        def fits(tokens: int) -> bool:
            return closed(deployed, fit, Load(tokens, load.answer), 1, batched).ttft_p99_ms <= (request.ttft_ms or 0)

        shortest = largest(fits, int(load.fresh))
        if 0 < shortest < load.fresh:
            changes.append(
                f"prompts of {shortest:,} tokens keep it, or a share of {1 - shortest / load.prompt:.2f} that the "
                "prefix cache knows"
            )
    if request.itl_ms is not None and step(deployed, 1, load.context, fit).weights > request.itl_ms / 2:
        changes.append("more GPUs a replica, or weights of fewer bits, are read in less time")
    return changes


def _basis(request: Request, gpu: gpus.Gpu, count: int, precision: str) -> Basis:
    rows = [row for row in language_fit.rows() if gpus.get(row.gpu).key == gpu.key]
    own = [row for row in rows if row.engine == request.engine]
    if any(row.weights == precision and row.gpu_count == count for row in own):
        return "measured" if request.engine == "vllm" else "published"
    return "published" if rows and any(row.weights == precision for row in rows) else "extrapolated"


def _price(request: Request, gpu: gpus.Gpu) -> float | None:
    for name in (gpu.key, gpu.family):
        if name in request.prices:
            return request.prices[name]
    known = gpus.price(gpu)
    return known.usd_per_hour if known else None
