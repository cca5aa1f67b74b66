"""A graph in this process: onnxruntime as it comes, and prepared sizes by the code that the server's backend runs."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort

from tritonkit.errors import CheckFailed
from tritonkit.parity import ALONE_FACTOR, distance
from tritonkit.samples import Sample
from tritonkit.server.backends.onnxruntime.batch_execution import SizedExecution, read_sizes
from tritonkit.zoo import noise
from tritonkit_load.benchmarks.gpu import device, models
from tritonkit_load.benchmarks.gpu.models import Model
from tritonkit_load.benchmarks.gpu.rounds import ratios, run_ms, spread, take_turns
from tritonkit_load.reporting.gpu_result import InProcess, Memory, Mixed

BATCHES = (1, 8, 64)
CHANGING = (
    1,
    3,
    8,
    5,
    2,
    7,
)  # each takes onnxruntime some 0.2 s for convolutions, whether it had that size before or not
ALTERNATING, RUNS = 12, 120  # sizes, and runs of them in random order
WORST_ERROR = 0.05  # of fp16 and TF32 against fp32 on the CPU, over the largest output; a wrong answer is far above
MIXED_BATCHES = 8  # of texts, so that no single draw of lengths decides
TEXTS_CHECKED = 32


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        seconds: Of one load on the server.
        rounds: How often everything has its turn.
        warm_up_s: Before each load.
    """

    seconds: float = 2.0
    rounds: int = 3
    warm_up_s: float = 0.5

    @property
    def turn_s(self) -> float:
        """Seconds of one turn in process."""
        return self.seconds / 8


@dataclass(frozen=True)
class Prepared:
    """A graph at its prepared sizes.

    Attributes:
        execution: What the server's backend calls.
        seconds: That preparing took.
        memory: Of the GPU.
        size_bytes: Prepared size to what it took.
    """

    execution: Any
    seconds: float
    memory: Memory
    size_bytes: dict[str, int]


class _Recorder:
    """A runner that notes what each size takes."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.size_bytes: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def prepare(self, size: Any) -> Any:
        """Prepare it, and see by how much `sizes_bytes` grew."""
        before = self.runner.facts.get("sizes_bytes", 0)
        shapes = self.runner.prepare(size)
        self.size_bytes[size_name(size)] = self.runner.facts.get("sizes_bytes", 0) - before
        return shapes


@contextmanager
def opened(model: Model, number: int | None = 0) -> Iterator[Prepared]:
    """A model's graph, prepared as its configuration says.

    Args:
        model: Which one.
        number: The CUDA device; None: the CPU, without graphs.
    """
    config = model.config()
    sizes = read_sizes(config, on_gpu=True)
    if isinstance(sizes, str):
        raise CheckFailed(f"{model.name} has no prepared sizes: {sizes}", "see its config.pbtxt")
    before, start = device.used_bytes() if number is not None else 0, time.monotonic()
    context_before = _context_bytes(number)
    with _exclusive(number):
        recorder = _Recorder(_runner(model, sizes, number, config))
        execution = SizedExecution(sizes, recorder)
    execution.runner = recorder.runner
    seconds = time.monotonic() - start
    after = device.used_bytes() if number is not None else 0
    facts = execution.facts
    context, session, sizes_bytes = (int(facts.get(f"{part}_bytes", 0)) for part in ("context", "session", "sizes"))
    memory = Memory(1, context, session, sizes_bytes, after - before + context_before)
    yield Prepared(execution, seconds, memory, recorder.size_bytes)
    del execution, recorder
    gc.collect()  # the session's memory, before the next one is measured


def _runner(model: Model, sizes: Any, number: int | None, config: Mapping[str, Any]) -> Any:
    if number is None:
        from tritonkit.server.backends.onnxruntime.batch_execution.cpu import CpuRunner

        return CpuRunner(model.graph, sizes, _options())
    from tritonkit.server.backends.onnxruntime.batch_execution.cuda import CudaRunner

    return CudaRunner(model.graph, sizes, _options(), number, cuda_options(config))


def _context_bytes(number: int | None) -> int:
    """What this process' context has on the device already: an instance that is alone makes its own."""
    if number is None:
        return 0
    from tritonkit.server.backends.onnxruntime.batch_execution.memory import CONTEXTS

    return int(CONTEXTS.get(number, 0))


def _exclusive(number: int | None) -> Any:
    if number is None:
        return nullcontext()
    from tritonkit.server.backends.onnxruntime.batch_execution.memory import exclusive

    return exclusive(number)


def cuda_options(config: Mapping[str, Any]) -> dict[str, str]:
    """The CUDA provider's options that a configuration names."""
    (cuda,) = config["optimization"]["execution_accelerators"]["gpu_execution_accelerator"]
    return dict(cuda["parameters"])


def plain_session(model: Model, number: int | None) -> Any:
    """onnxruntime as it comes, with the same options of the CUDA provider; None: on the CPU."""
    providers: list[Any] = ["CPUExecutionProvider"]
    if number is not None:
        options = cuda_options(model.config()) | {"device_id": str(number)}
        providers = [("CUDAExecutionProvider", options), *providers]
    return ort.InferenceSession(str(model.graph), _options(), providers=providers)


def measure(
    model: Model, prepared: Prepared, effort: Effort, step: Callable[[str], None], number: int | None = 0
) -> InProcess:
    """All figures of one graph.

    Args:
        model: Which one.
        prepared: The same, opened.
        effort: How much.
        step: Called with what comes next.
        number: The CUDA device; None: the CPU.

    Raises:
        CheckFailed: An answer is not onnxruntime's on the CPU.
    """
    execution = prepared.execution
    step(f"{model.name} {model.precision}: answers against the CPU's")
    error = check(model, execution)
    largest = execution.sizes.batches[-1]
    batches = sorted({min(batch, largest) for batch in BATCHES})
    feeds = {batch: models.joined(model.singles(batch)) for batch in batches}
    plain = plain_session(model, number)
    calls: dict[tuple[str, int], Callable[[], object]] = {}
    for batch, feed in feeds.items():
        calls["plain", batch] = partial(plain.run, None, feed)
        calls["prepared", batch] = partial(execution.run, [feed])
    step(f"{model.name} {model.precision}: batches of {', '.join(map(str, batches))}")
    times_ms = take_turns(calls, effort.rounds, effort.turn_s)
    step(f"{model.name} {model.precision}: batch sizes that change")
    changing = _changing(model, plain)
    step(f"{model.name} {model.precision}: prepared sizes that alternate")
    return InProcess(
        model=model.name,
        precision=model.precision,
        tokens=model.tokens,
        error=error,
        changing_ms=spread(changing),
        plain_ms={batch: spread(times_ms["plain", batch]) for batch in batches},
        prepared_ms={batch: spread(times_ms["prepared", batch]) for batch in batches},
        alternating=spread(_alternating(model, execution, effort)),
        per_s=spread([batches[-1] * 1000 / ms for ms in times_ms["prepared", batches[-1]]]),
        size_ms={size_name(size): execution.runner.cost_ms(size) for size in _sizes(execution)},
        size_bytes=prepared.size_bytes,
        prepare_s=prepared.seconds,
        graphs=bool(execution.facts["graphs"]),
        memory=prepared.memory,
    )


def check(model: Model, execution: Any) -> float:
    """The largest error of any output against onnxruntime on the CPU, over the largest output.

    Raises:
        CheckFailed: The error is above :data:`WORST_ERROR`.
    """
    singles = model.singles(8, models.lengths(8))
    session = plain_session(model, None)
    expected = [session.run(None, single) for single in singles]
    worst = 0.0
    for count in (1, 3, min(8, execution.sizes.most_rows)):
        for answer, reference in zip(execution.run(singles[:count]), expected, strict=False):
            worst = max(worst, *(distance(right, got)[1] for right, got in zip(reference, answer, strict=True)))
    if not worst <= WORST_ERROR:
        raise CheckFailed(
            f"{model.name} {model.precision}: answers at prepared sizes are {worst:.1e} off onnxruntime's on the CPU",
            f"at most {WORST_ERROR:g} is rounding; measure nothing before this is right",
        )
    return worst


def mixed(model: Model, prepared: Prepared, effort: Effort, number: int | None = 0) -> Mixed:
    """Texts of many lengths against texts of one, in full batches."""
    execution = prepared.execution
    largest = execution.sizes.batches[-1]
    lengths = models.lengths(MIXED_BATCHES * largest)
    singles = model.singles(len(lengths), lengths)
    batches = [singles[start : start + largest] for start in range(0, len(singles), largest)]
    equal = model.singles(largest)
    mixed_per_s, equal_per_s = [], []
    for batch in (*batches, equal):
        execution.run(batch)
    for _ in range(effort.rounds):
        ms = [run_ms(partial(execution.run, batch), effort.turn_s / MIXED_BATCHES) for batch in batches]
        mixed_per_s.append(1000 * sum(lengths) / sum(ms))
        equal_per_s.append(1000 * largest * models.TOKENS / run_ms(partial(execution.run, equal), effort.turn_s))
    return Mixed(
        model=model.name,
        precision=model.precision,
        where="in process",
        lengths=mixed_lengths(),
        mixed_per_s=spread(mixed_per_s),
        equal_per_s=spread(equal_per_s),
        ratio=ratios(mixed_per_s, equal_per_s),
        error=padding_error(model, execution.run, number, largest),
        tolerance=model.recipe.tolerance * ALONE_FACTOR,
    )


def mixed_lengths() -> str:
    """What is mixed, and with what it is compared."""
    return f"{noise.SHORTEST} to {noise.LONGEST} tokens alike, against {models.TOKENS}"


def padding_error(
    model: Model, run: Callable[[Sequence[Sample]], Sequence[Sequence[Any]]], number: int | None, most: int
) -> float:
    """The largest difference between a text's answer in a mixed batch and alone, unpadded, on the same device.

    Args:
        model: Of texts.
        run: Answers a batch of requests.
        number: The CUDA device; None: the CPU.
        most: Texts of a batch, at most.
    """
    singles = model.singles(TEXTS_CHECKED, models.lengths(TEXTS_CHECKED))
    answers = [
        [np.array(output) for output in answer]
        for start in range(0, len(singles), most)
        for answer in run(singles[start : start + most])
    ]
    session = plain_session(model, number)
    expected = [session.run(None, single) for single in singles]
    return max(
        distance(right, got)[1]
        for reference, answer in zip(expected, answers, strict=True)
        for right, got in zip(reference, answer, strict=True)
    )


def size_name(size: Any) -> str:
    """``64``, or ``64 x 128`` with a length."""
    return " x ".join(map(str, (size.batch, *size.lengths)))


def _sizes(execution: Any) -> list[Any]:
    from tritonkit.server.backends.onnxruntime.batch_execution.planning import Size

    grids = [dimension.sizes for dimension in execution.sizes.padding]
    return [Size(batch, lengths) for lengths in itertools.product(*grids) for batch in execution.sizes.batches]


def _changing(model: Model, plain: Any) -> list[float]:
    """Milliseconds of single batches whose size is never that of the one before."""
    times_ms = []
    for batch in (CHANGING[-1], *CHANGING):
        feed = models.joined(model.singles(batch))
        start = time.perf_counter()
        plain.run(None, feed)
        times_ms.append((time.perf_counter() - start) * 1000)
    return times_ms[1:]


def _alternating(model: Model, execution: Any, effort: Effort) -> list[float]:
    """Prepared sizes in random order, over the same sizes each by itself; one ratio a round."""
    random = np.random.default_rng(models.SEED)
    sizes = _sizes(execution)
    chosen = [sizes[index] for index in sorted(random.permutation(len(sizes))[:ALTERNATING])]
    feeds = [models.joined(model.singles(size.batch, list(size.lengths))) for size in chosen]
    ratios = []
    for _ in range(effort.rounds):
        fixed = [run_ms(partial(execution.run, [feed]), effort.turn_s / len(feeds)) for feed in feeds]
        times_ms: list[list[float]] = [[] for _ in feeds]
        order = [*range(len(feeds)), *map(int, random.integers(len(feeds), size=RUNS))]
        for index in order:
            start = time.perf_counter()
            execution.run([feeds[index]])
            times_ms[index].append((time.perf_counter() - start) * 1000)
        ratios.append(sum(map(statistics.median, times_ms)) / sum(fixed))
    return ratios


def _options() -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return options
