"""Batches, queues, priorities, caches."""

from __future__ import annotations

import json

from tritonkit.queue_limits import QueueLimits
from tritonkit.repository.lint import Options

from .lab import BATCHED, XY, Case, Files, python


def dynamic(settings: str, head: str = BATCHED) -> str:
    return f"{head}{XY}dynamic_batching {{ {settings} }}\n"


TWO = "instance_group { count: 1 kind: KIND_CPU }\n"  # beside the one that every model of the tests has
CACHED = f"{BATCHED}{XY}response_cache {{ enable: true }}\n"
BOUND = "default_queue_policy { max_queue_size: 8 }"
IN_TIME = "default_queue_policy { max_queue_size: 4 }"
# 50 requests/s, 20 ms each: four of them wait 80 ms, and eight 160.
QUEUE: Files = {"passport.json": json.dumps({"queue": QueueLimits(2, 4, 60, 50.0, 100.0, 20.0).as_json()})}
PRIORITY = "priority_levels: 2 default_priority_level: 1"

CASES = [
    Case("TK050", python(dynamic("preferred_batch_size: [2, 8]")), python(dynamic("preferred_batch_size: [2, 4]")),
         "dynamic batching preferred size must be <= max batch size", "dynamic"),
    Case("TK050", python(dynamic("preferred_batch_size: [0]")), python(dynamic("preferred_batch_size: [1]")),
         "preferred size must be positive", "zero"),
    Case("TK050", python(f"{BATCHED}{XY}sequence_batching {{ oldest {{ max_candidate_sequences: 4 preferred_batch_size: 8 }} }}\n"),
         python(f"{BATCHED}{XY}sequence_batching {{ oldest {{ max_candidate_sequences: 4 preferred_batch_size: 4 }} }}\n"),
         "sequence batching preferred batch size must be <=", "oldest"),
    Case("TK051", python(dynamic("", head="")), python(dynamic("")), label="none"),
    Case("TK051", python(dynamic("", head="max_batch_size: 1\n")), python(dynamic("")), label="one"),
    Case("TK051", python(dynamic("", head="")), python(dynamic(BOUND, head="") + TWO), label="bounded"),
    Case("TK139", python(dynamic(BOUND) + TWO) | QUEUE, python(dynamic(IN_TIME) + TWO) | QUEUE,
         label="full"),
    Case("TK139", python(dynamic("default_queue_policy { default_timeout_microseconds: 90000 }") + TWO) | QUEUE,
         python(dynamic("default_queue_policy { default_timeout_microseconds: 40000 }") + TWO) | QUEUE,
         label="timeout"),
    Case("TK139", python(dynamic("") + TWO) | QUEUE, python(dynamic(IN_TIME) + TWO) | {"passport.json": "{}"},
         label="unbounded"),
    Case("TK052", python(dynamic("") + TWO), python(dynamic(BOUND) + TWO)),
    Case("TK053", python(dynamic(BOUND)), python(dynamic(BOUND) + TWO), label="size"),
    Case("TK053", python(dynamic("default_queue_policy { allow_timeout_override: true }")), python(dynamic("")),
         label="override"),
    Case("TK054", python(dynamic("max_queue_delay_microseconds: 400000 "
                                 "default_queue_policy { default_timeout_microseconds: 100000 }") + TWO),
         python(dynamic("max_queue_delay_microseconds: 1000 "
                        "default_queue_policy { default_timeout_microseconds: 100000 }") + TWO), requests=True),
    Case("TK055", python(dynamic("priority_levels: 2")), python(dynamic(PRIORITY)), "default priority level must be", "default"),
    Case("TK055", python(dynamic(f"{PRIORITY} priority_queue_policy {{ key: 3 value {{}} }}")),
         python(dynamic(f"{PRIORITY} priority_queue_policy {{ key: 2 value {{}} }}")), "must have priority level", "policy"),
    Case("TK056", python(dynamic(f"preserve_ordering: true {PRIORITY}")), python(dynamic("preserve_ordering: true")),
         "Only one priority level is allowed", "priorities"),
    Case("TK056", python(dynamic("preserve_ordering: true default_queue_policy { timeout_action: DELAY "
                                 "default_timeout_microseconds: 9 }") + TWO),
         python(dynamic("preserve_ordering: true default_queue_policy { timeout_action: REJECT "
                        "default_timeout_microseconds: 9 }") + TWO), "can not have DELAY", "delay"),
    Case("TK057", python(CACHED + "model_transaction_policy { decoupled: true }\n"), python(CACHED),
         "'decoupled' transaction policy", "decoupled"),
    Case("TK057", python(CACHED + "sequence_batching {}\n"), python(CACHED), "with sequence batching scheduler", "sequence"),
    Case("TK058", python(CACHED), python(), options=Options(server=("--log-verbose=1",))),
]  # fmt: skip
