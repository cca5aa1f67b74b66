"""Makes everything that can be made before a load test, and sees that the server takes the requests."""

from __future__ import annotations

import gc
import inspect
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tritonkit.errors import InputError, TritonkitError
from tritonkit_load.load import arrivals
from tritonkit_load.load.payloads import Library, Request
from tritonkit_load.load.plan import Plan
from tritonkit_load.load.users import ModelUser

TRIED, TRIED_S = 10, 1.0  # requests to each model, one after the other, and seconds for them


@dataclass(frozen=True)
class Prepared:
    """A plan, ready to be sent.

    Attributes:
        plan: With the duration that it really has.
        requests: In order, again and again.
        times: When they are due, in an open loop, in seconds from the end of the warm-up.
        caller: Connected.
        alone_ms: By model, the fastest of some requests sent one after the other.
        weights: By model.
    """

    plan: Plan
    requests: tuple[Request, ...]
    times: Sequence[float]
    caller: ModelUser
    alone_ms: Mapping[str, float]
    weights: Mapping[str, float]


def prepare(plan: Plan, library: Library, caller: ModelUser, *, probe: bool = True) -> Prepared:
    """Make a plan ready.

    Args:
        plan: What to send.
        library: Its models.
        caller: Whose ``host`` is set; it is connected here.
        probe: Send the first requests; one of several processes is enough for that.

    Raises:
        InputError: The plan has no schedule, the models do not take such requests, nobody answers, ...
    """
    weights = library.weights(plan)
    requests = library.requests(plan)
    times: Sequence[float] = ()
    if plan.arrivals is not None:
        schedule = arrivals.parse(plan.arrivals)
        times = schedule.times(plan.duration_s, plan.warm_up_s, plan.seed).tolist()
        plan = replace(plan, duration_s=schedule.duration_s(plan.duration_s))
    elif plan.users < 1 or not plan.duration_s > 0:
        raise InputError(f"{plan.users} users for {plan.duration_s:g} s", "at least one user, for some time")
    try:
        caller.connect()
        alone_ms = _probe(caller, requests) if probe else {}
    except TritonkitError:
        raise
    except Exception as error:
        message, fix = getattr(error, "message", str(error)), getattr(error, "fix", "")
        raise InputError(
            f"the server at {caller.host} does not take a first request: {type(error).__name__}: {message}",
            fix or "start the server with the model, and give the recipe that the model was built from",
        ) from error
    inspect.stack()  # as Locust does when its timer rings: the first time reads the source of every module, for 50 ms
    gc.collect()
    gc.freeze()  # a full collection over everything that was loaded would make the first requests late
    return Prepared(plan, requests, times, caller, alone_ms, weights)


def _probe(caller: ModelUser, requests: Sequence[Request]) -> dict[str, float]:
    """Send a few requests to each model, one after the other; the fastest of each, in milliseconds."""
    fastest: dict[str, float] = {}
    for model in dict.fromkeys(request.model for request in requests):
        mine = itertools.cycle([request for request in requests if request.model == model])
        end = time.perf_counter() + TRIED_S
        for request in itertools.islice(mine, TRIED):
            start = time.perf_counter()
            try:
                caller.call(request)
            except Exception as error:
                if not caller.tolerates(error):
                    raise
            else:
                fastest[model] = min((time.perf_counter() - start) * 1000, fastest.get(model, math.inf))
            if time.perf_counter() > end:
                break
    return fastest
