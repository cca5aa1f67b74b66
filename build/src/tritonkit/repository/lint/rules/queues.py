"""Queues that hold more work than an SLO leaves time for."""

from __future__ import annotations

from collections.abc import Iterator

from tritonkit.repository.lint import images
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import Context, rule
from tritonkit.repository.lint.rules.batching import instances


@rule(
    "TK139",
    "queue-beyond-slo",
    "warning",
    "a queue that holds more work than the SLO leaves time for",
    source="docs/decisions/0015",
)
def queue_beyond_slo(model: Model, context: Context) -> Iterator[Problem]:
    """The passport has the SLO, and what the build measured: who waits behind a full queue for longer than that is
    answered too late, and so is everybody else until the load ends. The build's own limits are in the passport under
    `queue`; the recipe's `batching` had others by name, or the configuration was edited.
    """
    limits = model.passport.data.queue  # None where it says nothing, or is another version's or damaged
    fixed = context.options.image is not None and context.options.image >= images.BATCHER_FIXED
    if limits is None or limits.requests_per_s <= 0 or model.config.HasField("sequence_batching"):
        return
    policy = model.config.dynamic_batching.default_queue_policy
    bounded = policy.max_queue_size or policy.default_timeout_microseconds
    if not bounded and instances(model) == 1 and not fixed:
        return  # TK053 is against bounds there
    timeout_ms = policy.default_timeout_microseconds / 1000
    if 0 < policy.max_queue_size <= limits.max_queue_size or 0 < timeout_ms <= limits.queue_timeout_ms:
        return
    full_ms = 1000 * policy.max_queue_size / limits.requests_per_s
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
