"""What one load test is to send: plain data that every process of a generator gets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from tritonkit.errors import InputError

AS_SAMPLED = "as sampled"
GENTLE = 100  # callers that connect in a second; Locust warns of more


@dataclass(frozen=True)
class Plan:
    """One load test.

    Attributes:
        arrivals: The schedule of an open loop (:mod:`.load.arrivals`), for example ``poisson:120``; None for a closed
            loop of ``users``.
        duration_s: Measured seconds; 0: as long as a replayed recording.
        warm_up_s: Seconds of the same load before them, in no figure.
        users: Callers of a closed loop, each with one request at a time.
        seed: Of the schedule, and of every choice of sample, size and model.
        models: Model name to weight; empty: all recipes alike.
        batch_sizes: Samples a request (:mod:`.load.payloads`): ``4``, ``1-8``, ``1:0.7,8:0.3``.
        lengths: The dynamic dimension's size: ``as sampled``, or as for ``batch_sizes``.
    """

    arrivals: str | None = None
    duration_s: float = 10.0
    warm_up_s: float = 2.0
    users: int = 1
    seed: int = 0
    models: dict[str, float] = field(default_factory=dict)
    batch_sizes: str = "1"
    lengths: str = AS_SAMPLED

    def __post_init__(self) -> None:
        """Refuse what no schedule can be made of.

        Raises:
            InputError: The warm-up or the seed is negative, or no number.
        """
        if not 0 <= self.warm_up_s < math.inf:
            raise InputError(f"the warm-up is {self.warm_up_s:g} s", "0 seconds or more")
        if self.seed < 0:
            raise InputError(f"the seed is {self.seed}", "0 or more")

    @property
    def open(self) -> bool:
        """Whether requests leave when a schedule says, whatever became of those before."""
        return self.arrivals is not None

    @property
    def spawn_rate(self) -> int:
        """Callers that begin in a second: 100 as a rule, but all of them in the first half of the warm-up."""
        needed = math.ceil(2 * self.users / self.warm_up_s) if self.warm_up_s else self.users
        return max(1, min(self.users, max(GENTLE, needed)))

    @property
    def ends(self) -> bool:
        """Whether it ends by itself."""
        return self.duration_s < math.inf

    def lasting(self, total_s: float | None) -> Plan:
        """The same plan for this many seconds altogether, warm-up included.

        Without a number, a replay takes its own time, and a closed loop goes on until it is stopped.

        Raises:
            InputError: Nothing is left to measure, or a schedule has no end.
        """
        if not total_s:
            if self.arrivals and not self.arrivals.startswith("replay:"):
                raise InputError(f"arrivals {self.arrivals!r} have no end", "a run time, for example 30s")
            return replace(self, duration_s=0.0 if self.arrivals else math.inf)
        if total_s <= self.warm_up_s:
            raise InputError(
                f"all {total_s:g} s of the test are warm-up",
                f"a longer --run-time, or less than {total_s:g} of --warm-up",
            )
        return replace(self, duration_s=total_s - self.warm_up_s)
