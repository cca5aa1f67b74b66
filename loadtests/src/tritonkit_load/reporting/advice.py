"""What to do after a run: which setting answers what its figures show, and how an invalid run is cured.

Every page ends its first screen with this. It judges nothing anew; it reads the verdict, the server's side and the
generator's health. What to do after a comparison of servers is in comparison_advice.py, after `make bench-gpu` in
gpu_advice.py.
"""

from __future__ import annotations

import math
from typing import Any

from tritonkit_load.load import slo
from tritonkit_load.load.result import ModelResult, Result, ServerSide
from tritonkit_load.load.summary import BUSIEST, LATEST_MS
from tritonkit_load.reporting.page import counted, percent, short
from tritonkit_load.reporting.tuning_result import TuningResult
from tritonkit_load.reporting.verbs import capacity, host, setting, variables, verb

WAITS = 0.25  # of the server's time for a request; a queue that takes as much is worth a look
ALONE = 1.1  # samples an execution: nearly every request runs by itself
MOSTLY = 0.5  # of a request's time
SPARE = 1.1  # times the least duration, as the number of arrivals in it is chance
MORE = 1.1  # times the answers: with less, more users at a time are not worth their wait


def after_load(result: Result) -> tuple[str, ...]:
    """What to do after a load test or a search for a capacity, the most urgent first."""
    if cures := _cures(result):
        return cures
    several = len(result.models) > 1
    texts = [
        (f"{name}: " if several else "") + text for name, model in result.models.items() for text in _of(model, result)
    ]
    return tuple(dict.fromkeys([*_longer(result), *texts, *_next(result)]))


def after_tuning(result: TuningResult) -> tuple[str, ...]:
    """What to do after a search for a configuration."""
    if result.partial:
        return ("The same command continues where this one was interrupted.",)
    if result.failure or result.best is None:
        return _after_nothing(result)
    unsure = [ratio for ratio in (result.ratio, result.over_current) if ratio is None or ratio.low <= 1 <= ratio.high]
    wider = ["The same command with a larger BUDGET adds trials and rounds: intervals get narrower."] if unsure else []
    about = variables(result.command, result.model)
    written = [f"`make capacity {about}` measures the written configuration; `make deploy` ships it."]
    return (*wider, *(written if result.written else []))


def _after_nothing(result: TuningResult) -> tuple[str, ...]:
    """What to do after a search that came to nothing, by what that is due to."""
    about = variables(result.command, result.model)
    if result.cause in {"slo", ""}:
        return (
            f"`make loadtest {about} ARRIVALS=poisson:1` shows where the time of one request a second goes.",
            "Loosen the SLO (SLO=p99_ms=…, or `slo` in the recipe), allow a faster variant (`precisions` in the "
            "recipe), or use a GPU (TARGET=cuda).",
        )
    if result.cause == "generator":
        return (
            "The generator could not send its load: end what else uses this machine's cores, or use a machine with "
            "more. The same command tries these configurations again.",
        )
    return (f"`make loadtest {about}` shows alone why it is not served; then the same command continues.",)


def after_demo(summary: dict[str, Any]) -> tuple[str, ...]:
    """What to do after `make demo`: what each model's figures suggest, and how a model of one's own is served."""
    texts = []
    for name, model in summary["models"].items():
        steps = sorted(model["curve"], key=lambda step: step["users"])
        texts += [f"{name}: {text}" for text in _of_steps(name, steps)] if steps else []
    measure = " and ".join(f"`make capacity MODEL={name}`" for name in summary["models"])
    return (
        *texts,
        f"{measure}: the highest rate within {'its SLO' if len(summary['models']) == 1 else 'each SLO'}.",
        "A model of your own: `tritonkit init` writes its recipe, `make build MODEL=my_model.yaml` checks and lays it "
        "out, `make loadtest MODEL=my_model.yaml` makes such a page of it.",
    )


def after_llm_demo(summary: dict[str, Any]) -> tuple[str, ...]:
    """What to do after `make demo-llm`: what its steps suggest, how to ask the model again, a model of one's own."""
    steps = sorted(summary["curve"], key=lambda step: step["streams"])
    name, repository = summary["model"]["name"], summary["model"]["repository"]
    return (
        *_of_streams(steps),
        f"`tritonkit serve {repository}` serves it again. Then `tritonkit-client generate grpc://127.0.0.1:8001 {name} "
        "'Who are you?' --chat --stream` asks it, as does any OpenAI client at the address that `serve` prints.",
        "A model of your own: `tritonkit init DIRECTORY` writes the recipe of a Hugging Face directory, `tritonkit "
        "build` checks it and lays it out, for this server and for NVIDIA's image; `make bench-llm "
        "MODEL=my_model.yaml` measures what Triton costs beside vLLM's own server. docs/guides/llm.md has the rest.",
    )


def _of_streams(steps: list[dict[str, Any]]) -> list[str]:
    """Where more streams get no more tokens, or what they win and cost."""
    if len(steps) < 2:
        return []
    rates = {step["streams"]: step["output_tokens_per_s"] for step in steps}
    first, last, most = steps[0], steps[-1], max(rates.values())
    enough = next((streams for streams, rate in rates.items() if rate * MORE >= most), last["streams"])
    if enough < last["streams"]:
        return [
            f"More than {counted(enough, 'stream')} at a time got no more tokens here ({short(rates[enough])} a second "
            f"with {enough}, {short(rates[last['streams']])} with {last['streams']}): `max_num_seqs: {enough}` in the "
            "recipe lets the others wait, and those that run get theirs sooner."
        ]
    return [
        f"{counted(last['streams'], 'stream')} at a time got {short(rates[last['streams']])} tokens a second, one "
        f"{short(rates[first['streams']])}, as vLLM computes them together; half of the tokens then came within "
        f"{short(last['itl_ms']['p50'])} ms of the one before instead of {short(first['itl_ms']['p50'])}. More streams "
        "win more until the processor is full."
    ]


def _of_steps(name: str, steps: list[dict[str, Any]]) -> list[str]:
    """What the steps of a demo suggest: where more users get no more answers, and where the time of the last one is."""
    last, rates = steps[-1], {step["users"]: step["throughput"] for step in steps}
    most = max(rates.values())
    enough = next((users for users, rate in rates.items() if rate * MORE >= most), last["users"])
    facts = []
    if math.isfinite(most) and enough < last["users"]:
        facts.append(
            f"more than {counted(enough, 'user')} at a time only wait longer ({short(rates[enough])} answers a second "
            f"with {enough}, {short(last['throughput'])} with {last['users']})"
        )
    queue_ms, compute_ms, request_ms = last["queue_ms"], last["compute_ms"], last["server_ms"]
    if request_ms and queue_ms >= WAITS * request_ms:
        facts.append(
            f"with {last['users']} users, the queue takes {percent(queue_ms / request_ms)} of the server's time "
            f"({short(queue_ms)} ms, the model {short(compute_ms)} ms) at an average batch of "
            f"{last['average_batch']:.1f}"
        )
    if facts:
        return [
            f"{'; '.join(facts)}. `make tune MODEL={name}` tries `batching.instances`, batches and faster variants."
        ]
    if request_ms and compute_ms >= MOSTLY * request_ms:
        return [
            f"the model itself takes {percent(compute_ms / request_ms)} of the server's time ({short(compute_ms)} of "
            f"{short(request_ms)} ms), and hardly anything waits: only a faster variant (`precisions` in the recipe), "
            "more cores or a GPU (TARGET=cuda) makes it faster."
        ]
    return []


def _cures(result: Result) -> tuple[str, ...]:
    """How to get a run that counts; empty where this one does."""
    health, cures = result.generator, []
    if health.lateness_p99_ms is not None and health.lateness_p99_ms > LATEST_MS:
        cures.append(
            "The generator was late, mostly because something else used its cores: end that, "
            f"{_from_elsewhere(result, 'send from another machine')}, or send less. A short burst of it is cured by "
            "running the same command again."
        )
    if health.cpu >= BUSIEST:
        processes = setting(result.command, "PROCESSES", "2")
        cures.append(
            f"One generator process was busy all the time: {processes} shares the load, given a core for each."
        )
    if health.capped:
        cures.append(
            "More was due than the server answers, until too many requests were waiting: a lower rate. "
            f"{_capacity(result)} finds the highest that the SLO allows."
        )
    if result.partial and result.capacity is None:
        cures.append("The test was cut short: let the same command run to its end, or give it a shorter duration.")
    if not health.valid and not cures:
        longer = setting(result.command, "DURATION", "60s")
        cures.append(
            f"Send for longer (such as {longer}), so that requests are in the measured seconds, and run it again."
        )
    return tuple(cures)


def _longer(result: Result) -> list[str]:
    """How long a run with too few requests must be; nothing where there were enough."""
    runs = result.capacity.confirmed if result.capacity else 1
    seconds = [
        slo.least_requests(model.slo) / (model.throughput * runs)
        for name, model in result.models.items()
        if model.throughput and slo.too_few(name, model.slo, (model.requests - model.failed) * runs)
    ]
    if not seconds:
        return []
    least = f"{math.ceil(max(seconds) * SPARE)}s"
    variable = (
        f"`--duration {least}` of `tritonkit-load capacity`"
        if result.capacity
        else f"`{setting(result.command, 'DURATION', least)}`"
    )
    return [f"Too few requests to trust the percentiles: {variable}, at this rate, has enough of them."]


def _of(model: ModelResult, result: Result) -> list[str]:
    """What one model's figures suggest."""
    missed = result.verdict.met is False
    bound = model.slo.latency_ms if model.slo else None
    texts = []
    if bound is not None and model.alone_ms is not None and model.alone_ms > bound:
        return [
            f"One request alone takes {short(model.alone_ms)} ms, and {bound:g} ms are promised: no rate and no batch "
            "cures that. A faster variant (`precisions`), more `batching.threads`, a GPU, or a looser SLO does."
        ]
    if model.failed:
        texts.append(
            "Look at the errors below first. Refusals of a full queue mean more load than capacity: send less, or add "
            "pods; all others are the model's or the request's."
        )
    if model.server is not None and model.server.requests:
        texts += _of_server(model, model.server, result, missed=missed)
    return texts


def _of_server(model: ModelResult, server: ServerSide, result: Result, *, missed: bool) -> list[str]:
    """What Triton's own figures suggest: where the time is, and the setting for it."""
    if not server.request_ms:
        return []
    if waiting := _waiting(server.queue_ms, server.compute_ms, server.request_ms, server.average_batch):
        return waiting
    if missed and server.compute_ms >= MOSTLY * server.request_ms:
        return [
            "Nearly all of the server's time is the model itself: a faster variant (`precisions: [fp32, fp16, int8]`), "
            "smaller batches (`batching.max_batch_size`), more `batching.threads`, or a GPU."
        ]
    if missed and model.service and model.network_ms and model.network_ms >= MOSTLY * model.service.mean:
        return [
            "Most of the time passes outside the server: "
            f"{_from_elsewhere(result, 'send from a machine of its own')}, or send less data (uint8 instead of floats, "
            "shared memory)."
        ]
    return []


def _waiting(queue_ms: float, compute_ms: float, request_ms: float, average_batch: float) -> list[str]:
    """What helps requests that wait in the server's queue; nothing where they hardly do. Means a request, in ms."""
    if not request_ms or not queue_ms >= WAITS * request_ms:  # NaN, too
        return []
    share = percent(queue_ms / request_ms)
    times = f"{share} of the server's time, {short(queue_ms)} ms beside {short(compute_ms)} ms in the model"
    if average_batch < ALONE:
        return [
            f"Requests wait ({times}) and still run one by one (average batch {average_batch:.1f}). Either batches of "
            "several are not allowed: raise `max_batch_size`, or `batching.preferred_batch_size`, which the SLO may "
            "have set to 1. Or requests cannot share one, as their lengths differ: give the dimension a `pad` under "
            "`shapes`. Or a core runs a batch no faster than its samples: then `batching.instances`, up to the number "
            "of cores, helps. `make tune` measures all of these."
        ]
    return [
        f"Requests wait ({times}) although they run in batches (average {average_batch:.1f}): all instances are busy. "
        "`make tune` tries `batching.instances`, `batching.max_queue_delay_us` and faster variants; beyond that, more "
        "pods."
    ]


def _next(result: Result) -> list[str]:
    """What comes after this run."""
    model = variables(result.command, next(iter(result.models))) if len(result.models) == 1 else "MODEL=…"
    if result.capacity is not None:
        higher = []
        if result.capacity.at_least:
            higher = ["It may be higher: free the generator's cores, or use a machine with more, and run it again."]
        return [*higher, f"`make tune {model}` looks for a configuration that takes more; a fleet needs the expected "
                "rate over this one as pods, and some to spare."]  # fmt: skip
    if result.verdict.met:
        return [f"{_capacity(result)} finds the highest rate that the SLO allows; `make deploy` ships the model."]
    if result.verdict.met is None:
        given = setting(result.command, "SLO", "p99_ms=50")
        return [f"Give an SLO, `slo: {{p99_ms: 50}}` in the recipe or `{given}`, and the run is judged by it."]
    if verb(result.command) == "capacity":  # which found no rate at all
        return [f"`make tune {model}` looks for settings that meet the SLO; where none does, loosen it."]
    return [f"{_capacity(result)} finds the highest rate that meets the SLO, `make tune {model}` better settings."]


def _capacity(result: Result) -> str:
    """The command for the capacity of the model of a test; without a name where there are several."""
    if len(result.models) != 1:
        return "`make capacity MODEL=…`"
    return f"`{capacity(result.command, next(iter(result.models)))}`"


def _from_elsewhere(result: Result, where: str) -> str:
    """Advice to take another machine for the generator; how, where no server was named."""
    if not host(result.command):
        return f"{where} (--host)"
    return f"{where}, as near to the server as callers are"
