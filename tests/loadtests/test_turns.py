"""Several searches for a limit that take turns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tritonkit.errors import CheckFailed
from tritonkit_load.benchmarks.peers import turns
from tritonkit_load.tuning.limit import Bracket, Probe, bracket


def limit_at(limit: float, log: list[str], name: str) -> Callable[[float], Probe]:
    def ask(rate: float) -> Probe:
        log.append(name)
        return Probe(rate, rate <= limit, rate, 1.0, 1.0)

    return ask


def test_searches_take_turns_and_one_that_fails_ends_alone() -> None:
    log: list[str] = []

    def broken(rate: float) -> Probe:
        log.append("broken")
        raise CheckFailed("it died")

    searches = dict.fromkeys(("fast", "broken", "slow"), partial(bracket, start=90, resolution=1.1))
    brackets = turns.take(
        searches, {"fast": limit_at(300, log, "fast"), "broken": broken, "slow": limit_at(50, log, "slow")}
    )
    assert log[:6] == ["fast", "broken", "slow", "fast", "slow", "fast"]
    assert isinstance(brackets["broken"], CheckFailed)
    for name, limit in (("fast", 300), ("slow", 50)):
        result = brackets[name]
        assert isinstance(result, Bracket)
        assert result.low is not None
        assert result.low.rate <= limit < result.high.rate <= result.low.rate * 1.1
