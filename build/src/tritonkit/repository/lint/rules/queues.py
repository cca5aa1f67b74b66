"""Queues that hold more work than an SLO leaves time for."""

from __future__ import annotations

from collections.abc import Iterator

from tritonkit.queue_limits import QueueLimits
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import Context, rule


@rule(
    "TK139",
    "queue-beyond-slo",
    "warning",
    "a queue that holds more work than the SLO leaves time for",
    source="docs/decisions/0015",
)
def queue_beyond_slo(model: Model, _: Context) -> Iterator[Problem]:
    """The passport has the SLO, and what the build measured: who waits behind a full queue for longer than that is
    answered too late, and so is everybody else until the load ends. The build's own limits are in the passport under
    `queue`; the recipe's `batching` had others by name, or the configuration was edited.
    """
    said = model.passport.said.get("queue")
    config = model.config
    if not isinstance(said, dict) or not config.HasField("dynamic_batching"):
        return
    try:
        limits = QueueLimits(**{name: said[name] for name in QueueLimits.__dataclass_fields__})
        full_ms = 1000 * config.dynamic_batching.default_queue_policy.max_queue_size / limits.requests_per_s
    except (KeyError, TypeError, ZeroDivisionError):  # another version's, or damaged
        return
    policy = config.dynamic_batching.default_queue_policy
    timeout_ms = policy.default_timeout_microseconds / 1000
    waits_ms = min(full_ms or float("inf"), timeout_ms or float("inf"))
    if waits_ms + limits.service_ms <= limits.slo_ms:
        return
    how = f"up to {waits_ms:.0f} ms" if waits_ms < float("inf") else "any time"
    yield Problem(
        f"requests may wait {how} and take {limits.service_ms:.0f} ms, and the SLO is {limits.slo_ms:g} ms: under "
        "overload every answer is late",
        f"max_queue_size {limits.max_queue_size} and a timeout of {limits.queue_timeout_ms} ms follow from the SLO: "
        "leave max_queue_size and queue_timeout_ms out of the recipe's batching",
        model.line("dynamic_batching"),
    )
