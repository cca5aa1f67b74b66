"""TTFT and time between tokens under load, against a simulation that goes from step to step as vLLM's scheduler does.

Both take their step times from the same coefficients, so this checks what prompts and answers do to each other, and how
requests wait; the coefficients are checked in test_language.py.
"""

from __future__ import annotations

import random
import statistics

import pytest

from tritonkit import gpus
from tritonkit.advisor import language_fit
from tritonkit.advisor.language_latency import deployment, prompt_ms, step
from tritonkit.advisor.language_serving import Load, closed, open_loop

FIT = language_fit.coefficients("vllm")
H200 = deployment(language_fit.model("llama-3.1-8b"), gpus.get("h200"), 1, "bf16", "bf16")
BATCHED = 8192


def simulate(load: Load, arrivals: list[float], until: int, again: bool) -> tuple[float, float, float]:
    """Median and 99th percentile of TTFT and the mean ITL, in ms; ``again``: each answer is followed by a request."""
    now = 0.0
    waiting: list[list[float]] = []  # when it came, and tokens that are left to read
    running: list[list[float]] = []  # when its first token came, and how many it has
    ttft: list[float] = []
    itl: list[float] = []
    arrivals = sorted(arrivals)
    while len(itl) < until and (arrivals or waiting or running):
        if not waiting and not running:
            now = max(now, arrivals[0])
        while arrivals and arrivals[0] <= now:
            waiting.append([arrivals.pop(0), load.fresh])
        left = read = float(BATCHED - len(running))
        for prompt in waiting:
            part = min(prompt[1], left)
            prompt[1] -= part
            left -= part
        read -= left
        ready = [prompt for prompt in waiting if prompt[1] <= 0]
        waiting = [prompt for prompt in waiting if prompt[1] > 0]
        now += step(H200, max(1, len(running)), load.context, FIT).total + FIT.request_us / 1e3 * len(ready)
        now += prompt_ms(H200, load.fresh, FIT, load.prompt - load.fresh) * read / load.fresh
        for answer in running:
            answer[1] += 1
        ended = [answer for answer in running if answer[1] >= load.answer]
        running = [answer for answer in running if answer[1] < load.answer]
        itl += [(now - answer[0]) / (load.answer - 1) for answer in ended]
        arrivals += [now] * len(ended) if again else []
        ttft += [now - prompt[0] for prompt in ready]
        running += [[now, 1.0] for _ in ready]
    ttft, itl = sorted(ttft[len(ttft) // 10 :]), itl[len(itl) // 10 :]
    return statistics.median(ttft), ttft[int(0.99 * len(ttft))], statistics.mean(itl)


@pytest.mark.parametrize(
    ("load", "rate"), [(Load(1024, 256), 8.0), (Load(1024, 256), 14.0), (Load(8000, 256), 1.5), (Load(512, 64), 40.0)]
)
def test_requests_at_random(load: Load, rate: float) -> None:
    moments, now = [], 0.0
    source = random.Random(1)
    for _ in range(700):
        now += source.expovariate(rate / 1e3)
        moments.append(now)
    median, tail, itl = simulate(load, moments, 700, again=False)
    served = open_loop(H200, FIT, load, rate, BATCHED, 1024)
    assert served is not None
    assert served.itl_ms == pytest.approx(itl, rel=0.2)
    assert served.ttft_p50_ms == pytest.approx(median, rel=0.3)
    assert served.ttft_p99_ms == pytest.approx(tail, rel=0.3)


@pytest.mark.parametrize(("load", "users"), [(Load(1024, 256), 8), (Load(1024, 256), 64), (Load(8000, 256), 16)])
def test_requests_in_flight_always(load: Load, users: int) -> None:
    served = closed(H200, FIT, load, users, BATCHED)
    source = random.Random(1)
    first = [source.random() * load.answer * served.itl_ms for _ in range(users)]
    _, _, itl = simulate(load, first, 6 * users, again=True)
    assert served.itl_ms == pytest.approx(itl, rel=0.1)


def test_one_request_alone_waits_for_nobody() -> None:
    load = Load(1024, 256)
    median, tail, itl = simulate(load, [0.0], 20, again=True)
    served = closed(H200, FIT, load, 1, BATCHED)
    assert served.itl_ms == pytest.approx(itl, rel=0.02)
    assert median == pytest.approx(tail)
    assert median <= served.ttft_p50_ms <= served.ttft_p99_ms < 1.25 * median


def test_a_rate_that_prompts_alone_exceed_is_refused() -> None:
    load = Load(8000, 16)
    most = 1e3 / prompt_ms(H200, load.fresh, FIT)
    assert open_loop(H200, FIT, load, 1.05 * most, BATCHED, 1024) is None
    assert open_loop(H200, FIT, load, 0.5 * most, BATCHED, 1024) is not None
