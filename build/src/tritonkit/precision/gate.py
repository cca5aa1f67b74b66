"""Decides which variant is served: one that is accurate on samples not used to make it, and faster than simpler ones.

Its measurements are kept in the store for this processor, so that an unchanged build measures nothing again.
"""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tritonkit import parity, progress, samples, sized_session, store
from tritonkit.engines import node
from tritonkit.errors import CheckFailed, GraphError
from tritonkit.graph import Session
from tritonkit.precision import fp16, metrics, search, speed, variants
from tritonkit.recipe import Precision, Recipe, Target
from tritonkit.repository import config
from tritonkit.sized_session import SizedSession

Verdict = Literal["base", "accepted", "refused", "unproven", "not built"]


@dataclass(frozen=True)
class Row:
    """The measurements of one variant, and the verdict.

    Attributes:
        precision: Which one.
        verdict: ``base`` is fp32, which all are compared with; ``unproven`` is accurate, its speed not measured.
        why: The reason, with its numbers.
        accuracy: Metric to value (None where it is not finite), on samples that nothing was calibrated or chosen by.
        graph_bytes: Size of the graph.
        single_ms: Latency of one sample, median; None where it was not measured.
        batched_ms: Latency of one batch, median.
        batch: Its size.
        throughput: Samples a second, batched.
        faster: How many times faster, batched, than the variant that it would replace: median and middle half.
        seconds: What making it took.
        notes: How it was made.
        accurate: Whether it keeps the recipe's bounds, whatever its speed.
        memory: What one instance takes of a GPU, in bytes (:class:`tritonkit.sized_session.DeviceMemory`); None where
            it was not prepared on one.
    """

    precision: Precision
    verdict: Verdict
    why: str
    accuracy: dict[str, float]
    graph_bytes: int = 0
    single_ms: float | None = None
    batched_ms: float | None = None
    batch: int = 0
    throughput: float | None = None
    faster: tuple[float, float, float] | None = None
    seconds: float = 0.0
    notes: dict[str, Any] | None = None
    accurate: bool = True
    memory: dict[str, Any] | None = None


@dataclass(frozen=True)
class Decision:
    """Which variant ships.

    Attributes:
        precision: The variant that ships.
        rows: Every variant that was looked at, simplest first.
        forced: Whether the recipe names it, whatever the gate says.
        tuned: Whether the recipe's ``batching`` names it, as it served most under load; it passed the accuracy check.
        judged_on: Samples that accuracy was measured on.
    """

    precision: Precision
    rows: list[Row]
    forced: bool = False
    judged_on: int = 0
    tuned: bool = False

    @property
    def accurate(self) -> list[Precision]:
        """Variants that are near enough to fp32, whatever their speed."""
        return [row.precision for row in self.rows if row.accurate] or ["fp32"]

    def unproven(self, precision: Precision) -> bool:
        """Whether a variant is accurate and its speed could not be measured here."""
        return any(row.precision == precision and row.verdict == "unproven" for row in self.rows)


def decide(
    recipe: Recipe,
    base: store.Artifact,
    target: Target,
    artifacts: Mapping[Precision, store.Artifact],
    absent: Mapping[Precision, str],
) -> Decision:
    """Measure the variants of a recipe, or read from the store what was measured before.

    Args:
        recipe: Its accuracy bounds, batching and samples.
        base: The export, whose outputs are the truth.
        target: Where it will run.
        artifacts: Variants, fp32 among them, in order of ``PRECISIONS``.
        absent: Precisions that were asked for and not built, with the reason.
    """
    on_gpu = target == "cuda" and Session.has_cuda()
    facts = {
        "what": "gate", "graphs": {name: artifact.record.graph_sha256 for name, artifact in artifacts.items()},
        "base": base.identity, "target": target, "bounds": metrics.bounds(recipe),
        "metrics": metrics.code(recipe), "devices": [gpu.name for gpu in node.gpus()] if on_gpu else [],
        "absent": dict(absent), "threads": recipe.serving(target).threads, "batch": recipe.max_batch_size,
        "shapes": recipe.sizes("opt"), "machine": machine(), "tools": store.tool_versions(),
        "served": _served(recipe) if target == "cuda" else "",
        "code": store.code_hash(
            *(Path(__file__).with_name(f"{name}.py") for name in _CODE), *(sized_session.CODE if on_gpu else ())
        ),
    }  # fmt: skip

    def derive(on_gpu: bool, unmeasured: str, more: Mapping[str, Any]) -> store.Artifact:
        def measure(_: Path) -> dict[str, Any]:
            decision = _measure(recipe, base, target, artifacts, absent, on_gpu=on_gpu, unmeasured=unmeasured)
            return dict(_finite(asdict(decision)))

        return store.derive({**facts, **more}, measure)[0]

    try:
        kept = derive(on_gpu, _unmeasured(target), {})
    except GraphError as error:
        if not on_gpu:
            raise
        # A GPU that is full, or a driver that is too old, is no reason not to build; the next build tries again.
        unmeasured = f"its speed was not measured: {error.message}"
        kept = derive(False, unmeasured, {"devices": [], "unmeasured": unmeasured})
    about = kept.about
    rows = [Row(**row) for row in about["rows"]]
    return Decision(about["precision"], rows, about["forced"], about["judged_on"])


def _served(recipe: Recipe) -> str:
    """The CUDA configuration as text, without the fields that a single session does not depend on."""
    described = config.build(recipe, "cuda")
    described.ClearField("instance_group")
    described.ClearField("dynamic_batching")
    return str(described)


def tuned(recipe: Recipe, decision: Decision, precision: Precision) -> Decision:
    """The decision with the variant that the recipe's ``batching`` names, as it served most under load.

    Speed was measured better than here; accuracy is still the gate's to judge. A target that has no such variant
    keeps what the gate chose.

    Raises:
        CheckFailed: The named variant is not accurate enough.
    """
    row = next((row for row in decision.rows if row.precision == precision), None)
    if row is None or row.verdict == "not built" or precision == decision.precision:
        return decision
    if not row.accurate:
        raise CheckFailed(
            f"{recipe.path}: batching.precision is {precision}, which is not accurate enough: {row.why}",
            "remove that line, or tune again",
        )
    return replace(decision, precision=precision, tuned=True)


def _finite(data: Any) -> Any:
    """Plain data as JSON can hold it: NaN and infinity become None; the row's ``why`` still states them."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def machine() -> str:
    """The processor, as far as speed depends on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    entries = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in entries.items()}
    return f"{facts.get('model name', platform.machine())}, {sum(line.startswith('processor') for line in lines)} cores"


def _measure(
    recipe: Recipe,
    base: store.Artifact,
    target: Target,
    artifacts: Mapping[Precision, store.Artifact],
    absent: Mapping[Precision, str],
    *,
    on_gpu: bool,
    unmeasured: str,
) -> Decision:
    with progress.task(f"{recipe.name}: gate") as step:
        judged = variants.judged(recipe)
        prepared: dict[str, SizedSession] = {}
        if on_gpu:
            for name, artifact in artifacts.items():
                step(f"prepare {name} as it is served")
                prepared[name] = SizedSession(artifact.graph, recipe)
        step(f"compare outputs on {len(judged)} samples")
        accuracy = _accuracies(recipe, base, target, artifacts, judged, prepared)
        times = _times(recipe, target, artifacts, judged, step, prepared)
    rows = [_row(name, artifact, accuracy[name], times.get(name)) for name, artifact in artifacts.items()]
    rows = judge(recipe, rows, times, unmeasured)
    memory = {name: session.memory for name, session in prepared.items() if session.memory}
    rows = [replace(row, memory=memory[row.precision].as_json()) if row.precision in memory else row for row in rows]
    rows += [Row(name, "not built", why, {}, accurate=False) for name, why in absent.items()]
    return Decision(_last_accepted(rows), rows, judged_on=len(judged))


def judge(recipe: Recipe, rows: Sequence[Row], times: Mapping[str, speed.Timing], unmeasured: str = "") -> list[Row]:
    """Give every variant its verdict, from the simplest on.

    A variant is faster when the lower quartile of its batched ratio is above 1, so that noise promotes nothing, and
    single samples do not take longer either.
    """
    judged: list[Row] = []
    best = rows[0].precision
    for row in rows:
        if row.precision == "fp32":
            judged.append(_with(row, "base", ""))
            continue
        if failures := metrics.failures(recipe, row.accuracy):
            judged.append(replace(_with(row, "refused", "; ".join(failures)), accurate=False))
            continue
        if row.precision not in times:
            judged.append(_with(row, "unproven", f"accurate; {unmeasured}"))
            continue
        ratio, single = times[row.precision].over(times[best]), times[row.precision].over_single(times[best])
        faster = (ratio.median, ratio.low, ratio.high)
        if ratio.low > 1 and single.median >= 1:
            judged.append(_with(row, "accepted", f"accurate, and {ratio} {best}'s speed", faster))
            best = row.precision
        elif ratio.low > 1:
            judged.append(_with(row, "refused", f"slower than {best} for single samples: {single}", faster))
        else:
            judged.append(_with(row, "refused", f"not faster than {best}: {ratio}", faster))
    return judged


def _with(row: Row, verdict: Verdict, why: str, faster: tuple[float, float, float] | None = None) -> Row:
    return Row(**{**asdict(row), "verdict": verdict, "why": why, "faster": faster})


def _last_accepted(rows: Sequence[Row]) -> Precision:
    return [row.precision for row in rows if row.verdict in {"base", "accepted"}][-1]


def _unmeasured(target: Target) -> str:
    if target == "tensorrt":
        return "its speed shows on the GPU, with TensorRT"
    return "its speed was not measured: this machine has no GPU for onnxruntime"


def _accuracies(
    recipe: Recipe,
    base: store.Artifact,
    target: Target,
    artifacts: Mapping[Precision, store.Artifact],
    judged: Sequence[samples.Sample],
    prepared: Mapping[str, SizedSession],
) -> dict[str, dict[str, float]]:
    """Every variant's metrics, against fp32 on the CPU.

    What only a GPU runs is emulated where there is none, node by node: onnxruntime's optimizer breaks some. On a GPU
    ``largest_error`` is added: the largest difference, over the largest magnitude; for fp32 it is what TF32 costs.
    """
    truth = search.evaluate(Session(base.graph), recipe, judged)
    if prepared:  # only what is served is answered there
        truth = [{name: outputs[name] for name in recipe.outputs} for outputs in truth]
    accuracies = {}
    for name, artifact in artifacts.items():
        session: speed.Runnable = prepared[name] if name in prepared else variants.session(artifact.graph, target, name)
        outputs = search.evaluate(session, recipe, judged)
        accuracies[str(name)] = metrics.measure(recipe, truth, outputs)
        if prepared:
            accuracies[str(name)]["largest_error"] = _largest_error(truth, outputs)
    return accuracies


def _largest_error(truth: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> float:
    return max(
        parity.distance(expected[name], answer[name])[1]
        for expected, answer in zip(truth, outputs, strict=True)
        for name in expected
    )


def _times(
    recipe: Recipe,
    target: Target,
    artifacts: Mapping[Precision, store.Artifact],
    judged: Sequence[samples.Sample],
    step: Callable[[str], None],
    prepared: Mapping[str, SizedSession],
) -> dict[str, speed.Timing]:
    if prepared:
        return speed.measure(recipe, prepared, judged, step, speed.GPU_BATCH)
    if target != "cpu":
        return {}
    threads = recipe.serving(target).threads
    sessions = {
        str(name): Session(artifact.graph, threads, without=fp16.CRASHES if name == "fp16" else ())
        for name, artifact in artifacts.items()
    }
    return speed.measure(recipe, sessions, judged, step)


def _row(name: Precision, artifact: store.Artifact, accuracy: dict[str, float], timing: speed.Timing | None) -> Row:
    notes = {key: value for key, value in artifact.about.items() if key in _NOTES}
    size = artifact.graph_bytes
    seconds = artifact.record.seconds
    if timing is None:
        return Row(name, "unproven", "", accuracy, size, seconds=seconds, notes=notes)
    return Row(
        name, "unproven", "", accuracy, size, statistics.median(timing.single_ms), statistics.median(timing.batched_ms),
        timing.batch, timing.throughput, None, seconds, notes,
    )  # fmt: skip


_CODE = ("fp16", "gate", "metrics", "speed")
_NOTES = {
    "choice", "tried", "quantized_nodes", "kept_nodes", "kept_fp32", "clipped_masks", "work_share", "calibrated_on",
    "cpu_features", "not_quantized",
}  # fmt: skip
