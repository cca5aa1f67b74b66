"""How a model is served on one target: what a recipe's ``batching`` says of it, and measured defaults for the rest."""

from __future__ import annotations

from dataclasses import dataclass

from tritonkit.recipe.sections import Batching, Precision, Target

# A queue of 256 holds a few seconds of work for a model of 10 ms; after 2 s most callers have given up.
MAX_QUEUE_SIZE = 256
GPU_QUEUE_SIZE = 2048  # a GPU answers some thousand requests a second, and a burst of them is no overload
QUEUE_TIMEOUT_MS = 2000
# Copies of a model, and microseconds that a batch waits for more requests. On a GPU batches form while the instances
# are busy, and a lone request would pay for a delay in vain (docs/decisions/0014 has the measurements).
INSTANCES: dict[Target, int] = {"cpu": 2, "cuda": 4, "tensorrt": 2}
QUEUE_DELAY_US: dict[Target, int] = {"cpu": 1000, "cuda": 0, "tensorrt": 1000}


@dataclass(frozen=True)
class Serving:
    """How one model is served on one target: its ``batching`` with every default filled in.

    Attributes:
        max_batch_size: The largest batch that Triton makes, and takes.
        preferred_batch_size: The largest batch that it makes of waiting requests; 0: as large as it can.
        max_queue_delay_us: Microseconds that the first request of a batch may wait for others.
        instances: Copies of the model, per device.
        threads: onnxruntime's threads inside one operator, per instance.
        max_queue_size: Requests that may wait; 0: any number.
        queue_timeout_ms: Milliseconds after which a waiting request is refused; 0: never.
        bounded: Whether the queue has either bound.
        precision: The variant that the recipe names, if it names one.
        batch_sizes: The batches that a GPU is prepared for; empty: batches run as they come.
        cuda_graphs: Whether each of them is captured as a CUDA graph.
    """

    max_batch_size: int
    preferred_batch_size: int
    max_queue_delay_us: int
    instances: int
    threads: int
    max_queue_size: int
    queue_timeout_ms: int
    bounded: bool
    precision: Precision | None
    batch_sizes: tuple[int, ...]
    cuda_graphs: bool


def default_batch_sizes(largest: int) -> tuple[int, ...]:
    """Doublings up to the largest batch: one between them runs as several (docs/decisions/0014). 1 without batches."""
    return (*(2**power for power in range(13) if 2**power < largest), max(largest, 1))


def resolve(batching: Batching, max_batch_size: int, target: Target) -> Serving:
    """A section with every default filled in.

    Args:
        batching: The section.
        max_batch_size: The recipe's own, up to which the graph is checked.
        target: Where the model runs; a section that was measured for another target says nothing here.
    """
    batching = batching.on(target)
    largest = batching.max_batch_size or max_batch_size
    instances = batching.instances or INSTANCES[target]
    preferred = batching.preferred_batch_size or 0
    usual = 0 if 0 < preferred < largest else QUEUE_DELAY_US[target]
    delay = usual if batching.max_queue_delay_us is None else batching.max_queue_delay_us
    bounds = (batching.max_queue_size, batching.queue_timeout_ms)
    sizes = default_batch_sizes(largest) if batching.batch_sizes is None else batching.batch_sizes
    return Serving(
        max_batch_size=largest,
        preferred_batch_size=preferred if preferred < largest else 0,
        max_queue_delay_us=delay,
        instances=instances,
        threads=batching.threads,
        max_queue_size=(GPU_QUEUE_SIZE if target == "cuda" else MAX_QUEUE_SIZE) if bounds[0] is None else bounds[0],
        queue_timeout_ms=QUEUE_TIMEOUT_MS if bounds[1] is None else bounds[1],
        bounded=any(bounds) or (None in bounds and instances > 1 and largest > 1),
        precision=batching.precision,
        batch_sizes=sizes if target == "cuda" else (),
        cuda_graphs=batching.cuda_graphs,
    )
