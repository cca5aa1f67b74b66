"""Batches, queues, priorities and the response cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.repository.lint import backends, images
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.pbtxt import Step
from tritonkit.repository.lint.registry import CORE, REQUESTS, Context, rule

_DELAY = pb.ModelQueuePolicy.DELAY
_DOCS = "docs/user_guide/batcher.md"
_DECISION = "docs/decisions/0003"


def instances(model: Model) -> int:
    """How many instances of a model run on one device, counting Triton's defaults."""
    default = 2 if model.served.backend in {backends.ONNXRUNTIME, backends.TENSORFLOW} else 1
    groups = model.config.instance_group
    kinds = [(group.count, group.kind) for group in groups] or [(0, pb.ModelInstanceGroup.KIND_AUTO)]
    return sum(
        count if count > 0 else (default if kind == pb.ModelInstanceGroup.KIND_CPU else 1) for count, kind in kinds
    )


def _policies(model: Model) -> Iterator[tuple[tuple[Step, ...], Any]]:
    """The queue policies that are said, with their place."""
    batching = model.config.dynamic_batching
    if batching.HasField("default_queue_policy"):
        yield ("dynamic_batching", "default_queue_policy"), batching.default_queue_policy
    for level, policy in batching.priority_queue_policy.items():
        yield ("dynamic_batching", ("priority_queue_policy", str(level)), "value"), policy


def _bounded(model: Model) -> bool:
    return any(policy.max_queue_size or policy.default_timeout_microseconds for _, policy in _policies(model))


def _stalls(policy: Any) -> bool:
    """Each of the three alone makes the batcher of 24.10 miss wake-ups."""
    return bool(policy.max_queue_size or policy.default_timeout_microseconds or policy.allow_timeout_override)


@rule(
    "TK050",
    "preferred-above-maximum",
    "error",
    "a preferred_batch_size above max_batch_size, or below 1",
    enforced_by=CORE,
    source=_DOCS,
)
def preferred_above_maximum(model: Model, _: Context) -> Iterator[Problem]:
    """Holds for `dynamic_batching` and for the strategy `oldest` of `sequence_batching`."""
    config = model.config
    batchers: tuple[tuple[tuple[str, ...], Any], ...] = (
        (("dynamic_batching",), config.dynamic_batching),
        (("sequence_batching", "oldest"), config.sequence_batching.oldest),
    )
    for place, batcher in batchers:
        for index, size in enumerate(batcher.preferred_batch_size):
            if size < 1 or size > config.max_batch_size:
                yield Problem(
                    f"preferred_batch_size {size} is not between 1 and max_batch_size, {config.max_batch_size}",
                    "raise max_batch_size, or prefer less", model.line(*place, ("preferred_batch_size", index)),
                )  # fmt: skip


@rule("TK051", "batching-without-batches", "warning", "dynamic_batching on a model that takes one request at a time")
def batching_without_batches(model: Model, _: Context) -> Iterator[Problem]:
    """With max_batch_size 0 or 1 there is nothing to gather: Triton loads the model and every request runs alone,
    without the delay. As a queue with bounds it is of use.
    """
    size = model.signature.max_batch_size if model.signature else None
    if model.config.HasField("dynamic_batching") and size in {0, 1} and not _bounded(model):
        yield Problem(
            f"dynamic_batching does nothing: max_batch_size is {size}",
            "raise max_batch_size, bound its queue (max_queue_size), or remove dynamic_batching",
            model.line("dynamic_batching"),
        )  # fmt: skip


@rule(
    "TK052",
    "queue-unbounded",
    "warning",
    "a queue that any number of requests may wait in for any time",
    source=_DECISION,
)
def queue_unbounded(model: Model, context: Context) -> Iterator[Problem]:
    """A queue without a bound lets an overloaded server answer everybody late, after most callers have given up. Bounds
    are `max_queue_size` and `default_timeout_microseconds` in `default_queue_policy`.

    With one instance an unbounded queue is the better choice up to Triton 26.07, as any bound makes its batcher stall
    for half a second now and then (TK053), so for one instance this is only a remark. Add a second instance first.
    """
    if not model.config.HasField("dynamic_batching") or _bounded(model):
        return
    alone = instances(model) == 1
    fixed = context.options.image is not None and context.options.image >= images.BATCHER_FIXED
    bound = "set max_queue_size and default_timeout_microseconds in default_queue_policy"
    yield Problem(
        "the queue has no bound: an overloaded server answers everybody late",
        f"use 2 instances, then {bound}; with one, up to 26.07, leave it as it is" if alone and not fixed else bound,
        model.line("dynamic_batching"), severity="info" if alone and not fixed else None,
    )  # fmt: skip


@rule(
    "TK053",
    "bounded-queue-one-instance",
    "warning",
    "a bounded queue in front of one instance",
    source=f"{_DECISION}; triton-inference-server/server#8870",
)
def bounded_queue_one_instance(model: Model, context: Context) -> Iterator[Problem]:
    """With any bound (max_queue_size, a timeout, allow_timeout_override) Triton does not prepare the next batch while
    one runs, and its batcher can miss the wake-up of the only instance; it looks again 500 ms later. Measured: a p99 of
    518 ms where it was 19 ms without a bound. Two instances hide it; 26.08 fixes it.
    """
    fixed = context.options.image is not None and context.options.image >= images.BATCHER_FIXED
    places = [place for place, policy in _policies(model) if _stalls(policy)]
    if places and instances(model) == 1 and not fixed:
        derived = model.passport.data.queue is not None  # the bounds follow from an SLO, and are worth having
        yield Problem(
            "the queue is bounded and there is one instance: up to Triton 26.07 requests stall for 500 ms now and then",
            "use 2 instances" if derived else "use 2 instances, or take the bounds away", model.line(*places[0]),
            severity="info" if derived and context.options.image is None else None,
        )  # fmt: skip


@rule(
    "TK054",
    "timeout-below-delay",
    "error",
    "a queue timeout shorter than the queue delay",
    enforced_by=REQUESTS,
    source=_DOCS,
)
def timeout_below_delay(model: Model, _: Context) -> Iterator[Problem]:
    """A request that arrives alone waits `max_queue_delay_microseconds` for others. If its timeout is shorter, Triton
    refuses it before it runs: on a quiet server every request fails with "Request timeout expired".
    """
    delay = model.config.dynamic_batching.max_queue_delay_microseconds
    signature = model.signature
    if signature is not None and signature.max_batch_size < 2:
        return
    for place, policy in _policies(model):
        timeout = policy.default_timeout_microseconds
        if 0 < timeout < delay and policy.timeout_action != _DELAY:
            yield Problem(
                f"requests time out after {timeout} us and wait {delay} us for a batch",
                "make default_timeout_microseconds longer than max_queue_delay_microseconds, or use a shorter delay",
                model.line(*place, "default_timeout_microseconds"),
            )


@rule(
    "TK055",
    "priority-levels",
    "error",
    "a priority level that does not exist",
    enforced_by=CORE,
    source=_DOCS,
)
def priority_levels(model: Model, _: Context) -> Iterator[Problem]:
    """With `priority_levels: n` the levels are 1 to n, and `default_priority_level` must be one of them. Without
    priority_levels the other settings have no effect.
    """
    batching = model.config.dynamic_batching
    levels = batching.priority_levels
    if not levels:
        return
    if not 1 <= batching.default_priority_level <= levels:
        yield Problem(
            f"default_priority_level is {batching.default_priority_level}, the levels are 1 to {levels}",
            f"give one from 1 to {levels}", model.line("dynamic_batching", "default_priority_level"),
        )  # fmt: skip
    for level in batching.priority_queue_policy:
        if not 1 <= level <= levels:
            yield Problem(
                f"priority_queue_policy is for level {level}, the levels are 1 to {levels}",
                f"give one from 1 to {levels}",
                model.line("dynamic_batching", ("priority_queue_policy", str(level))),
            )


@rule(
    "TK056",
    "preserve-ordering",
    "error",
    "preserve_ordering with priorities, or with delayed requests",
    enforced_by=CORE,
    source=_DOCS,
)
def preserve_ordering(model: Model, _: Context) -> Iterator[Problem]:
    """Responses in the order of requests, and requests that overtake each other, exclude each other: there may be one
    priority level only, and no `timeout_action: DELAY`.
    """
    batching = model.config.dynamic_batching
    if not batching.preserve_ordering:
        return
    line = model.line("dynamic_batching", "preserve_ordering")
    if batching.priority_levels > 1:
        yield Problem(f"preserve_ordering and {batching.priority_levels} priority levels", "remove one", line)
    for _place, policy in _policies(model):
        if policy.default_timeout_microseconds and policy.timeout_action == _DELAY:
            yield Problem("preserve_ordering and timeout_action: DELAY", "remove one", line)


@rule(
    "TK057",
    "cache-unsupported",
    "error",
    "a response cache on a decoupled or a sequence model",
    enforced_by=CORE,
    source="docs/user_guide/response_cache.md",
)
def cache_unsupported(model: Model, _: Context) -> Iterator[Problem]:
    """A cache answers one request with one stored response; a decoupled model has any number of them, a sequence model
    answers by what came before.
    """
    config = model.config
    if not config.response_cache.enable:
        return
    line = model.line("response_cache", "enable")
    if config.model_transaction_policy.decoupled:
        yield Problem("response_cache and a decoupled transaction policy", "remove one", line)
    if config.HasField("sequence_batching"):
        yield Problem("response_cache and sequence_batching", "remove one", line)


@rule(
    "TK058",
    "cache-not-enabled",
    "warning",
    "a response cache that the server does not have",
    source="docs/user_guide/response_cache.md",
)
def cache_not_enabled(model: Model, context: Context) -> Iterator[Problem]:
    """`response_cache { enable: true }` does nothing unless the server is started with `--cache-config=local,size=…`.
    Tell lint about the server with `--server-arg`; while nothing is known of its flags this is a remark.
    """
    options = context.options
    cached = bool(options.flag("cache-config") or options.flag("response-cache-byte-size"))
    if model.config.response_cache.enable and not cached:
        known = options.server is not None
        yield Problem(
            f"response_cache is enabled and {'the server has no cache' if known else 'needs a cache in the server'}",
            "start tritonserver with --cache-config=local,size=1048576, or remove response_cache",
            model.line("response_cache", "enable"), severity=None if known else "info",
        )  # fmt: skip
