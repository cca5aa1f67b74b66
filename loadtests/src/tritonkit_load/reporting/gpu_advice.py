"""What to do after `make bench-gpu`: what limits a served model, how many instances to choose, what to measure again.

It judges by the goals of gpu_goals.py; each piece of advice rests on figures of the result.
"""

from __future__ import annotations

from collections.abc import Iterator

from tritonkit_load.reporting.gpu_goals import (
    EFFICIENTNET_BYTES,
    LEAST_MIXED,
    LEAST_SERVED,
    MEMORY_WITHIN,
    built,
    per_instance,
    title,
)
from tritonkit_load.reporting.gpu_result import GpuResult, InProcess, Load, Mixed, Served
from tritonkit_load.reporting.page import counted, short

BUSY = 0.9  # of the host's cores
OCCUPIED = 0.7  # of a core, by an instance: the rest of its time it waits for the GPU
TIE = 1.03  # times the rate: less is no reason for more instances
GIB = 2**30


def after_gpu(result: GpuResult) -> tuple[str, ...]:
    """What to do next, the most urgent first."""
    texts = [text for served in built(result) for text in _of_served(served, result)]
    texts += [text for alone in result.in_process for text in _of_graph(alone)]
    texts += [text for mixed in result.mixed for text in _of_mixed(mixed)]
    refused = [title(row.model, row.precision) for row in result.gate if row.verdict == "refused"]
    if refused:
        texts.append(
            f"{', '.join(refused)}: refused by the gate, so a build serves the simpler variant. Left out of "
            "`precisions`, it costs no build any time."
        )
    if not (result.served or result.in_process):
        return ("`make bench-gpu` on a machine with a GPU measures it.",)
    return (
        *dict.fromkeys(texts),
        "A model of your own: `make tune TARGET=cuda MODEL=my_model.yaml` finds its instances and batches on this GPU, "
        "`make capacity TARGET=cuda MODEL=my_model.yaml` what it then serves within its SLO.",
    )


def _of_served(served: Served, result: GpuResult) -> Iterator[str]:
    """What limits a model behind Triton, and which number of instances serves most."""
    name, busiest = title(served.model, served.precision), max(served.loads, key=lambda load: load.rate.median)
    failed = sum(load.failed for load in served.loads)
    if failed:
        yield (
            f"{name}: {counted(failed, 'request')} failed. A queue refuses what it cannot answer in time: send less, "
            "or raise `batching.max_queue_size`."
        )
    yield from _instances(served, result)
    if served.ratio.median < LEAST_SERVED:
        yield f"{name}: served over in process is {served.ratio.median:.2f}. {_limit(served, busiest, result)}"
    device = per_instance(result, served)
    if device and abs(served.memory.reported / (device * served.memory.instances) - 1) > MEMORY_WITHIN:
        yield (
            f"{name}: the device's memory does not fit what the instances report, so something else used the GPU "
            "meanwhile: end it, and run `make bench-gpu ONLY=served` again."
        )


def _limit(served: Served, load: Load, result: GpuResult) -> str:
    """What was short where a model served most."""
    cores = int(result.environment.get("cores", 0))
    used = load.server_cores + load.instance_cores + load.caller_cores
    each = load.instance_cores / served.instances / served.gpus
    if cores and used >= BUSY * cores:
        return f"All {cores} cores are busy ({used:.1f}): send from another machine, or use one with more cores."
    if each >= OCCUPIED:
        return (
            f"Each instance uses {each:.2f} of a core beside the GPU's work, on rows that come one a request: requests "
            "that carry several samples each cost it less."
        )
    prepared = [size for alone in result.in_process if _same(alone, served) for size in alone.size_ms]
    most = max(map(_rows, prepared), default=0)
    if most and load.batch < most / 2:
        return (
            f"Batches have {load.batch:.0f} rows where {most} are prepared for: more requests in flight, or fewer "
            "`batching.instances`, fill them."
        )
    return (
        "Neither the host's cores nor the instances are busy, so the GPU is what is short: a faster variant "
        "(`precisions` in the recipe), or another GPU."
    )


def _instances(served: Served, result: GpuResult) -> Iterator[str]:
    """Which number of instances to choose, of those that were measured with as many requests in flight."""
    name, most = title(served.model, served.precision), max(load.in_flight for load in served.loads)
    rates = {
        other.instances: load.rate.median
        for other in result.served
        if _same(other, served) and other.gpus == served.gpus
        for load in other.loads
        if load.in_flight == most
    }
    if len(rates) < 2:
        if served.ratio.median < LEAST_SERVED:
            yield (
                f"{name}: only {counted(served.instances, 'instance')} measured. "
                f"`python -m tritonkit_load.benchmarks.bench_gpu --only served --models {served.model}` "
                "measures 1, 2, 4 and 6."
            )
        return
    highest = max(rates.values())
    choice = min(count for count, rate in rates.items() if rate * TIE >= highest)
    if choice == served.instances:
        if served.ratio.median < LEAST_SERVED:
            each = ", ".join(f"{count} serve {short(rate)}" for count, rate in sorted(rates.items()))
            yield f"{name}: keep `batching.instances: {choice}`; of those that were measured, {each} a second."
        return
    device = per_instance(result, served)
    memory = f"; an instance takes {device / GIB:.1f} GiB" if device else ""
    yield (
        f"{name}: `batching.instances: {choice}` in its recipe. With {most} in flight it serves "
        f"{short(rates[choice])} a second, and {served.instances}, as built, {short(rates[served.instances])}{memory}."
    )


def _of_graph(alone: InProcess) -> Iterator[str]:
    """What the graph by itself suggests."""
    name = title(alone.model, alone.precision)
    if not alone.graphs:
        yield f"{name}: runs without CUDA graphs; the server's log, in its line `prepared`, says why."
    memory = alone.memory
    if alone.model == "efficientnet_lite0" and memory.reported >= EFFICIENTNET_BYTES and memory.sizes > memory.session:
        yield (
            f"{name}: prepared sizes take {memory.sizes / GIB:.1f} of an instance's {memory.reported / GIB:.1f} GiB, "
            "one session each: fewer `batching.batch_sizes`, such as `[1, 8, 64]`, take less, and pad more."
        )


def _of_mixed(mixed: Mixed) -> Iterator[str]:
    """What texts of many lengths suggest."""
    name = f"{title(mixed.model, mixed.precision)} {mixed.where}"
    if mixed.error > mixed.tolerance:
        yield f"{name}: padded answers differ too much: take `pad` out of `shapes`, and lengths are not mixed."
    elif mixed.ratio.median < LEAST_MIXED:
        yield (
            f"{name}: mixed lengths reach {mixed.ratio.median:.2f} of equal ones, as short texts are padded up to a "
            "prepared length: `sizes` under `shapes`, nearer to the lengths that you have, pad less."
        )


def _same(part: InProcess | Served, other: Served) -> bool:
    return (part.model, part.precision) == (other.model, other.precision)


def _rows(size: str) -> int:
    """Of a prepared size, "64" or "64 x 128"."""
    return int(size.split(" ")[0])
