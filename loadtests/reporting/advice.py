"""What to do after a run: which setting answers what its figures show, and how an invalid run is cured.

Every page ends its first screen with this. It judges nothing anew; it reads the verdict, the server's side and the
generator's health.
"""

from __future__ import annotations

from load.result import ModelResult, Result, ServerSide
from load.summary import BUSIEST, LATEST_MS

from reporting.page import percent, short
from reporting.tuning_result import TuningResult

WAITS = 0.25  # of the server's time for a request; a queue that takes as much is worth a look
ALONE = 1.1  # samples an execution: nearly every request runs by itself
MOSTLY = 0.5  # of a request's time


def after_load(result: Result) -> tuple[str, ...]:
    """What to do after a load test or a search for a capacity, the most urgent first."""
    if cures := _cures(result):
        return cures
    several = len(result.models) > 1
    found = [
        (f"{name}: " if several else "") + text for name, model in result.models.items() for text in _of(model, result)
    ]
    return tuple(dict.fromkeys([*found, *_next(result)]))


def after_tuning(result: TuningResult) -> tuple[str, ...]:
    """What to do after a search for a configuration."""
    model = result.model
    if result.partial:
        return ("The same command continues where this one was interrupted.",)
    if result.best is None:
        return (
            f"`make capacity MODEL={model}` says how far the model is from the SLO with one request a second.",
            "Loosen the SLO, allow a faster variant (`precisions` in the recipe), or use a GPU (TARGET=cuda).",
        )
    unsure = [ratio for ratio in (result.ratio, result.over_current) if ratio is None or ratio.low <= 1 <= ratio.high]
    wider = ["The same command with a larger BUDGET adds trials and rounds: intervals get narrower."] if unsure else []
    written = [f"`make capacity MODEL={model}` measures the written configuration; `make deploy` ships it."]
    return (*wider, *(written if result.written else []))


def _cures(result: Result) -> tuple[str, ...]:
    """How to get a run that counts; empty where this one does."""
    health, found = result.generator, []
    if health.lateness_p99_ms is not None and health.lateness_p99_ms > LATEST_MS:
        found.append(
            "The generator was late, mostly because something else used its cores: end that, send from another machine "
            "(--host), or send less. A short burst of it is cured by running the same command again."
        )
    if health.cpu >= BUSIEST:
        found.append("One generator process was busy all the time: PROCESSES=2 shares the load, given a core for each.")
    if health.capped:
        found.append(
            "More was due than the server answers, until too many requests were waiting: a lower rate. `make capacity` "
            "finds the highest that the SLO allows."
        )
    if result.partial and result.capacity is None:
        found.append("The test was cut short: let the same command run to its end, or give it a shorter DURATION.")
    if not health.valid and not found:
        found.append("Send for longer (DURATION), so that requests are in the measured seconds, and run it again.")
    return tuple(found)


def _of(model: ModelResult, result: Result) -> list[str]:
    """What one model's figures suggest."""
    missed = result.verdict.met is False
    bound = model.slo.latency_ms if model.slo else None
    found = []
    if bound is not None and model.alone_ms is not None and model.alone_ms > bound:
        return [
            f"One request alone takes {short(model.alone_ms)} ms, and {bound:g} ms are promised: no rate and no batch "
            "cures that. A faster variant (`precisions`), more `batching.threads`, a GPU, or a looser SLO does."
        ]
    if model.failed:
        found.append(
            "Look at the errors below first. Refusals of a full queue mean more load than capacity: send less, or add "
            "pods; all others are the model's or the request's."
        )
    if model.server is not None and model.server.requests:
        found += _of_server(model, model.server, missed=missed)
    return found


def _of_server(model: ModelResult, server: ServerSide, *, missed: bool) -> list[str]:
    """What Triton's own figures suggest: where the time is, and the setting for it."""
    if not server.request_ms:
        return []
    waits = server.queue_ms / server.request_ms
    if waits >= WAITS and server.average_batch < ALONE:
        return [
            f"Requests wait ({percent(waits)} of the server's time) and still run one by one (average batch "
            f"{server.average_batch:.1f}). Either batches of several are not allowed: raise `max_batch_size`, or "
            "`batching.preferred_batch_size`, which the SLO may have set to 1. Or requests cannot share one, as their "
            "lengths differ: give the dimension a `pad` under `shapes`. Or a core runs a batch no faster than its "
            "samples: then `batching.instances`, up to the number of cores, helps. `make tune` measures all of these."
        ]
    if waits >= WAITS:
        return [
            f"Requests wait ({percent(waits)} of the server's time) although they run in batches (average "
            f"{server.average_batch:.1f}): all instances are busy. `make tune` tries `batching.instances`, "
            "`max_queue_delay_us` and faster variants; beyond that, more pods."
        ]
    if missed and server.compute_ms >= MOSTLY * server.request_ms:
        return [
            "Nearly all of the server's time is the model itself: a faster variant (`precisions: [fp32, fp16, int8]`), "
            "smaller batches (`batching.max_batch_size`), more `batching.threads`, or a GPU."
        ]
    if missed and model.service and model.network_ms and model.network_ms >= MOSTLY * model.service.mean:
        return [
            "Most of the time passes outside the server: send from a machine of its own (--host), or send less data "
            "(uint8 instead of floats, shared memory)."
        ]
    return []


def _next(result: Result) -> list[str]:
    """Where the road goes on."""
    model = f"MODEL={next(iter(result.models))}" if len(result.models) == 1 else "MODEL=…"
    if result.capacity is not None:
        higher = []
        if result.capacity.at_least:
            higher = ["It may be higher: free the generator's cores, or use a machine with more, and run it again."]
        return [*higher, f"`make tune {model}` looks for a configuration that takes more; a fleet needs the expected "
                "rate over this one as pods, and some to spare."]  # fmt: skip
    if result.verdict.met:
        return [f"`make capacity {model}` finds the highest rate that the SLO allows; `make deploy` ships the model."]
    if result.verdict.met is None:
        return ["Give an SLO, `slo: {p99_ms: 50}` in the recipe or SLO=p99_ms=50, and the run is judged by it."]
    return [f"`make capacity {model}` finds the highest rate that meets the SLO, `make tune {model}` better settings."]
