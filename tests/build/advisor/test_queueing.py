"""The batching queue, held against a simulation of the same queue."""

from __future__ import annotations

import math
import random

import pytest

from tritonkit.advisor.queueing import Service, largest_rps, mean_batch, p99_ms

# Milliseconds of prepared sizes on an H200 (docs/measurements/gpu.md), and two servers of other kinds.
SERVICES = {
    "efficientnet": Service({1: 0.54, 2: 0.66, 4: 0.84, 8: 1.27, 16: 2.19, 32: 3.83, 64: 7.67}),
    "steep": Service({1: 5.0, 2: 6.0, 4: 8.0, 8: 12.0}),
    "one by one": Service({1: 5.0}),
}


def simulated(service: Service, rps: float, count: int) -> tuple[float, float]:
    """p99 in milliseconds and mean batch of so many random arrivals."""
    chance = random.Random(7)
    now, arrivals = 0.0, []
    for _ in range(count):
        now += chance.expovariate(rps / 1e3)
        arrivals.append(now)
    latencies, batches, begun, free = [], 0, 0, 0.0
    while begun < count:
        free = max(free, arrivals[begun])
        end = begun
        while end < count and end - begun < service.largest and arrivals[end] <= free:
            end += 1
        free += service.ms(end - begun)
        latencies += [free - arrival for arrival in arrivals[begun:end]]
        begun, batches = end, batches + 1
    return sorted(latencies)[int(0.99 * count)], count / batches


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("busy", [0.2, 0.5, 0.8])
def test_p99_and_batch_are_those_of_a_simulation(name: str, busy: float) -> None:
    service = SERVICES[name]
    rps = busy * service.most_rps
    p99, batch = simulated(service, rps, 40_000)
    assert p99_ms(service, rps) == pytest.approx(p99, rel=0.12)
    assert mean_batch(service, rps) == pytest.approx(batch, rel=0.05)


def test_more_than_a_server_can_do_never_ends() -> None:
    service = SERVICES["steep"]
    assert service.most_rps == pytest.approx(8 / 0.012)
    assert math.isinf(p99_ms(service, service.most_rps))


def test_the_largest_rate_keeps_the_promise_and_a_little_more_breaks_it() -> None:
    service = SERVICES["efficientnet"]
    rate = largest_rps(service, 5.0)
    assert p99_ms(service, rate) <= 5.0 < p99_ms(service, 1.02 * rate)


def test_a_promise_below_a_lone_requests_time_holds_no_rate() -> None:
    assert largest_rps(Service({1: 2.0}, request_ms=1.5), 3.4) == 0.0
    assert largest_rps(Service({1: 2.0}, request_ms=1.5), 6.0) > 0.0
