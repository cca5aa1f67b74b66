"""Fits the coefficients of :mod:`tritonkit.advisor.language_latency` to published and measured rows.

The rows are in ``language_rows.csv``, each with its source; those that name a stage are fitted, the others are only
held against the result. The fitted coefficients are in ``language_coefficients.json``.
"""

from __future__ import annotations

import csv
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritonkit import gpus
from tritonkit.advisor import memory
from tritonkit.advisor.language_latency import (
    Coefficients,
    Deployment,
    Engine,
    deployment,
    offline_tokens_per_s,
    prefill_ms,
    step,
)
from tritonkit.llm.directory import Directory

# What is fitted, and to which rows, in this order; what one stage fits the next ones keep. Published rows of
# TensorRT-LLM are in fp8 and fp4 at full batches, so the 16-bit share and the link's latency are not in them. vLLM's
# rows are of one GPU, and take the shares of the hardware from TensorRT-LLM's.
STAGES: Mapping[str, tuple[Engine, tuple[str, ...]]] = {
    "dense": (
        "tensorrt_llm",
        ("narrow_share", "attention_share", "link_share", "layer_us", "step_us", "sequence_us", "request_us"),
    ),
    "blackwell": ("tensorrt_llm", ("blackwell_share",)),
    "experts": ("tensorrt_llm", ("expert_share",)),
    "vllm": ("vllm", ("wide_share", "narrow_share", "layer_us", "step_us", "sequence_us")),
}
_PRIOR = 0.15  # weight of the starting values, in residuals: a coefficient that no row decides stays there
_STEPS = 40
# trtllm-bench: sequences at most, tokens of a step, share of the free memory that the cache gets (perf-overview.md:
# "a higher KV cache percentage by setting --kv_cache_free_gpu_mem_fraction 0.95"), and what PyTorch and NCCL keep,
# as aiconfigurator 0.12 reserves it (3.5 GB).
_BENCH_SEQUENCES, _BENCH_TOKENS, _BENCH_SHARE, _BENCH_OTHER = 2048, 8192, 0.95, 3.5e9
_BENCH_ACTIVATIONS = 12  # bytes of a step's activations over those of its residual; an assumption, not fitted
_MEASURED_TOKENS = 16_384  # max_num_batched_tokens of the measured vLLM rows: its default offline on an H200


@dataclass(frozen=True)
class Row:
    """One published or measured figure.

    Attributes:
        source: Where it is from.
        stage: The stage that is fitted to it; empty where it is only held against the result.
        engine: The engine.
        model: A name in ``language_models.json``.
        gpu: The GPU's key.
        gpu_count: GPUs that share each layer.
        weights: Precision of the weights.
        kv: Precision of the KV cache.
        prompt: Tokens of a prompt.
        answer: Tokens of an answer.
        requests: Requests of the whole run; None where it is not known or without end.
        batch: Sequences that run together; None where as many run as fit.
        metric: ``tokens_per_s`` of answers, of all GPUs; ``prefill_ms`` of the batch; ``tpot_ms``.
        value: The figure.
    """

    source: str
    stage: str
    engine: Engine
    model: str
    gpu: str
    gpu_count: int
    weights: str
    kv: str
    prompt: int
    answer: int
    requests: int | None
    batch: int | None
    metric: str
    value: float


@functools.cache
def rows() -> tuple[Row, ...]:
    """All rows of the data file, in its order."""
    with resources.files("tritonkit.advisor").joinpath("language_rows.csv").open(encoding="utf-8") as file:
        return tuple(_row(entry) for entry in csv.DictReader(file))


def model(name: str) -> Directory:
    """A published model's ``config.json``, as far as it sizes the model."""
    return Directory(Path(name), _models()[name])


@functools.cache
def coefficients(engine: Engine) -> Coefficients:
    """The fitted coefficients of an engine."""
    text = resources.files("tritonkit.advisor").joinpath("language_coefficients.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return Coefficients(**data[engine])


def predict(row: Row, fit: Coefficients) -> float:
    """What the coefficients say of a row, in its own unit."""
    deployment = _deployment(row)
    if row.metric == "prefill_ms":
        return prefill_ms(deployment, row.batch or 1, row.prompt, fit, _MEASURED_TOKENS)
    if row.metric == "tpot_ms":
        return step(deployment, row.batch or 1, row.prompt + row.answer / 2, fit).total
    return offline_tokens_per_s(deployment, row.prompt, row.answer, fit, _room(row, deployment), row.requests)


def fit(names: Sequence[str], chosen: Sequence[Row], start: Coefficients | None = None) -> Coefficients:
    """Coefficients that foretell these rows best, by least squares of the logarithms (Levenberg and Marquardt).

    Args:
        names: The coefficients to fit; the others stay as they are.
        chosen: The rows.
        start: Where to begin, and where a coefficient stays that no row decides.
    """
    start = start or Coefficients()
    origin = np.log([getattr(start, name) for name in names])

    def residuals(point: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        tried = start.changed(dict(zip(names, np.exp(point).tolist(), strict=True)))
        misses = [math.log(predict(row, tried) / row.value) for row in chosen]
        return np.concatenate([misses, _PRIOR * (point - origin)])

    best = _least_squares(residuals, origin)
    return start.changed(dict(zip(names, np.exp(best).tolist(), strict=True)))


def stage(name: str, start: Coefficients | None = None, keep: Callable[[Row], bool] = lambda _: True) -> Coefficients:
    """Fit one stage to those of its rows that are kept."""
    return fit(STAGES[name][1], [row for row in rows() if row.stage == name and keep(row)], start)


def hardware(other: Coefficients) -> Coefficients:
    """Where the fit of an engine begins: shares of the hardware are the other engine's, the rest is not known yet."""
    shared = ("attention_share", "link_share", "expert_share", "blackwell_share")
    return Coefficients().changed({name: getattr(other, name) for name in shared})


def fit_all() -> dict[Engine, Coefficients]:
    """Both engines' coefficients, from all rows that name a stage."""
    bench = stage("experts", stage("blackwell", stage("dense")))
    measured = stage("vllm", hardware(bench))
    # No published row of TensorRT-LLM is in 16 bits: the hardware's share is vLLM's.
    return {"tensorrt_llm": bench.changed({"wide_share": measured.wide_share}), "vllm": measured}


def _least_squares(
    residuals: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]], point: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    damping, current = 1e-3, residuals(point)
    for _ in range(_STEPS):
        columns = [(residuals(point + step_) - current) / 1e-4 for step_ in np.eye(len(point)) * 1e-4]
        slope = np.stack(columns, axis=1)
        normal = slope.T @ slope
        moved = point - np.linalg.solve(normal + damping * np.diag(np.diag(normal)), slope.T @ current)
        tried = residuals(moved)
        if tried @ tried < current @ current:
            gain = 1 - (tried @ tried) / (current @ current)
            point, current, damping = moved, tried, damping / 3
            if gain < 1e-9:
                break
        else:
            damping *= 4
    return point


@functools.cache
def _deployment_of(name: str, gpu: str, count: int, weights: str, kv: str) -> Deployment:
    return deployment(model(name), gpus.get(gpu), count, weights, kv)


def _deployment(row: Row) -> Deployment:
    return _deployment_of(row.model, row.gpu, row.gpu_count, row.weights, row.kv)


def _room(row: Row, deployment: Deployment) -> float:
    """Sequences that trtllm-bench runs together: as many as are sure to fit to their end."""
    if row.batch:
        return row.batch
    weights = memory.weights_bytes(deployment.parameters, row.weights) / row.gpu_count
    activations = _BENCH_ACTIVATIONS * _BENCH_TOKENS * deployment.hidden * 2
    free = memory.usable_gib(deployment.gpu) * memory.GIB - weights - _BENCH_OTHER - activations
    fitting = free * _BENCH_SHARE / deployment.cache.sequence_bytes(row.prompt + row.answer)
    return max(1.0, min(fitting, _BENCH_SEQUENCES, row.requests or math.inf))


def _row(entry: Mapping[str, str]) -> Row:
    engine: Engine = "vllm" if entry["engine"] == "vllm" else "tensorrt_llm"
    return Row(
        source=entry["source"], stage=entry["stage"], engine=engine, model=entry["model"], gpu=entry["gpu"],
        gpu_count=int(entry["gpus"]), weights=entry["weights"], kv=entry["kv"], prompt=int(entry["prompt"]),
        answer=int(entry["output"]), requests=int(entry["requests"]) if entry["requests"] else None,
        batch=int(entry["batch"]) if entry["batch"] else None, metric=entry["metric"], value=float(entry["value"]),
    )  # fmt: skip


@functools.cache
def _models() -> dict[str, dict[str, Any]]:
    text = resources.files("tritonkit.advisor").joinpath("language_models.json").read_text(encoding="utf-8")
    models: dict[str, dict[str, Any]] = json.loads(text)["models"]
    return models
