"""Makes a variant: one precision for one target, kept in the store as an artifact of the export it was made from."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from tritonkit import cached_export, external_data, gpus, progress, samples, store
from tritonkit import recipe as recipes
from tritonkit.engines import node
from tritonkit.errors import GraphError, InputError, SourceError
from tritonkit.graph import Session
from tritonkit.precision import bf16, calibration, cpu, fp16, metrics, onnxgraph, qdq, search, sensitivity, tensorrt
from tritonkit.recipe import PRECISIONS, Precision, Recipe, Target

EVALUATED = 256  # the gate judges on at most this many samples
SELECTED = 32  # samples that searches compare by
LEAST = 8  # fewer samples in all cannot be split in three
# Why a target has no use for a precision.
_NOT_FOR: dict[tuple[Target, Precision], str] = {
    ("cpu", "fp8"): "onnxruntime's CPU kernels have no fp8",
    ("cpu", "bf16"): "onnxruntime's CPU kernels have no bf16",
    ("tensorrt", "bf16"): "it is made for onnxruntime on a GPU; TensorRT has fp16 and fp8",
    ("cuda", "int8"): "onnxruntime's CUDA provider has no int8 convolutions; the target tensorrt has",
    ("cuda", "fp8"): "onnxruntime's CUDA provider has no fp8 kernels; the target tensorrt has",
}
_SCHEMES = {
    ("cpu", "int8"): qdq.CPU_INT8,
    ("tensorrt", "int8"): qdq.TENSORRT_INT8,
    ("tensorrt", "fp8"): qdq.TENSORRT_FP8,
}
# How onnxruntime (1.32) names the operator that it cannot run: when it loads a graph, and when it runs it.
_FAILED = re.compile(r"(?:implementation for |while running )(\w+)(?:\(| node)")
# onnxruntime multiplies uint8 by int8 exactly with these instructions; without them 16-bit sums may saturate.
CPU_FEATURES = ["avx512_vnni", "avx_vnni", "amx_int8"]


@dataclass(frozen=True)
class Split:
    """Samples for three purposes, none used twice."""

    calibration: list[samples.Sample]
    selection: list[samples.Sample]
    evaluation: list[samples.Sample]


def split(recipe: Recipe) -> Split:
    """The recipe's samples: the first calibrate, the next choose, the rest judge.

    Raises:
        SourceError: The recipe has no samples of its own, too few, or only equal ones.
    """
    if recipe.samples is None:
        raise SourceError(
            f"{recipe.path}: int8 and fp8 are calibrated on real inputs, and the recipe names no `samples`",
            "name a function that yields them, or leave int8 and fp8 out of `precisions`",
        )
    dataset = samples.load(recipe, recipe.calibration.samples + SELECTED + EVALUATED)
    calibration.check_samples(dataset)
    if len(dataset) < LEAST:
        raise SourceError(
            f"{recipe.path}: samples yields {len(dataset)} inputs; calibration, choice and judgement need {LEAST}",
            "yield more, some hundred if you can",
        )
    selecting = min(SELECTED, max(1, len(dataset) // 8))
    judging = min(EVALUATED, (len(dataset) - selecting) // 2)
    calibrating = min(recipe.calibration.samples, len(dataset) - selecting - judging)
    return Split(
        dataset[:calibrating],
        dataset[calibrating : calibrating + selecting],
        dataset[calibrating + selecting :][:EVALUATED],
    )


def unsuitable(recipe: Recipe, target: Target, precision: Precision) -> str:
    """Why a target, or the recipe's GPUs there, have no variant of this precision; empty if they have."""
    if target == "tensorrt" and precision == "fp8" and recipe.gpus:
        devices = gpus.get_all(recipe.gpus)
        if all(gpu.compute_capability < gpus.FP8_SINCE for gpu in devices):
            capabilities = ", ".join(f"{gpu.family} has {gpu.compute}" for gpu in devices)
            return f"fp8 needs compute capability {'.'.join(map(str, gpus.FP8_SINCE))} or newer; {capabilities}"
    if target == "cuda" and precision == "bf16":
        since = ".".join(map(str, bf16.SINCE))
        present = node.gpus() if Session.has_cuda() else ()
        if not present:
            return f"it is made on the GPU that runs it, of compute capability {since} or newer; this machine has none"
        if present[0].capability < bf16.SINCE:
            return f"bf16 needs compute capability {since} or newer; {present[0].name} has {present[0].compute}"
    return _NOT_FOR.get((target, precision), "")


def make(recipe: Recipe, base: store.Artifact, target: Target, precision: Precision) -> tuple[store.Artifact, bool]:
    """A variant from the store, made now if it is not there.

    Args:
        recipe: Whose samples calibrate and choose.
        base: The export in fp32.
        target: Where it will run.
        precision: What to make.

    Returns:
        The artifact, whose ``about`` says how it was made, and whether it was made now.

    Raises:
        InputError: The target has no such variant.
        SourceError: The samples cannot calibrate.
    """
    if reason := unsuitable(recipe, target, precision):
        raise InputError(f"{recipe.path}: {precision} for the target {target}: {reason}", "choose another precision")
    if precision == "fp32" and target == "cuda":
        return base, False
    settings = recipes.as_json(recipe)
    facts = {
        "base": base.identity, "graph": base.record.graph_sha256, "target": target,
        "precision": precision, "calibration": settings["calibration"], "accuracy": settings["accuracy"],
        "metrics": metrics.code(recipe),
        "tools": store.tool_versions(), "code": store.code_hash(*sorted(Path(__file__).parent.glob("*.py"))),
    }  # fmt: skip
    return store.derive(facts, lambda stage: _fill(stage, recipe, base, target, precision))


def graphs(recipe: Recipe, target: Target, precisions: Sequence[Precision] = PRECISIONS) -> dict[str, Path]:
    """The ONNX file of each precision, made if need be; for what is built from graphs, such as engines."""
    base = cached_export.exported(recipe)[0]
    return {precision: make(recipe, base, target, precision)[0].graph for precision in precisions}


def _fill(stage: Path, recipe: Recipe, base: store.Artifact, target: Target, precision: Precision) -> dict[str, Any]:
    start = time.monotonic()
    if precision == "fp32" and not _applies(target, base.graph):
        shutil.copytree(base.path, stage, copy_function=os.link, ignore=lambda *_: [store.ABOUT], dirs_exist_ok=True)
        return {"model": recipe.name, "precision": precision, "target": target, "seconds": base.record.seconds}
    with progress.task(f"{recipe.name}: {precision} for {target}") as step:
        if precision == "bf16":
            step("cast, and ask onnxruntime which operators have kernels")
            about: dict[str, Any] = {"kept_fp32": bf16.make(external_data.load(base.graph), stage / store.GRAPH)}
        else:
            model, about = _make_model(recipe, base, target, precision, step)
            # A name of its own: beside an engine's graph there may be the fallback's.
            external_data.save(model, stage / store.GRAPH, f"{store.GRAPH}.{precision}{external_data.SUFFIX}")
        if precision != "bf16":
            step("run it")  # what does not run is not built, and says why
            sample = samples.load(recipe, 1)[0]
            session(stage / store.GRAPH, target, precision).run(
                samples.batch([sample], 1) if recipe.max_batch_size else sample
            )
    for path in base.path.iterdir():
        if path.name != store.ABOUT and not path.name.startswith(store.GRAPH):
            _link(path, stage / path.name)
    size = sum(path.stat().st_size for path in stage.glob(f"{store.GRAPH}*"))
    return {
        "model": recipe.name, "precision": precision, "target": target, **about,
        "graph_bytes": size, "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def session(path: Path, target: Target, precision: Precision) -> Session:
    """A variant as accuracy is judged without a GPU: what only a GPU runs is emulated, node by node.

    onnxruntime's optimizer breaks some graphs that are emulated.

    Raises:
        GraphError: onnxruntime cannot load it.
    """
    if target == "cpu" or precision == "fp32":
        return Session(path, without=fp16.CRASHES if precision == "fp16" else ())
    return Session(fp16.emulated(external_data.load(path)), optimize=False)


def _prepared(target: Target, path: Path) -> onnxgraph.OnnxGraph:
    """A graph as its target wants it written."""
    graph = onnxgraph.load(path)
    _prepare(target, graph)
    return graph


def _prepare(target: Target, graph: onnxgraph.OnnxGraph) -> bool:
    return {"cpu": cpu.prepare, "cuda": lambda _: False, "tensorrt": tensorrt.prepare}[target](graph)


def _applies(target: Target, path: Path) -> bool:
    """Whether preparing changes a graph at all; reads no weights that lie beside it."""
    return _prepare(target, onnxgraph.OnnxGraph(onnx.load(path, load_external_data=False)))


def _make_model(
    recipe: Recipe, base: store.Artifact, target: Target, precision: Precision, step: Callable[[str], None]
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    if precision in {"int8", "fp8"}:
        return _quantized(recipe, base, target, precision, step)
    graph = _prepared(target, base.graph)
    if precision == "fp32":
        return graph.model, {}
    return _halved(recipe, graph, target, samples.load(recipe, fp16.LOOKED_AT), step)


def _halved(
    recipe: Recipe,
    graph: onnxgraph.OnnxGraph,
    target: Target,
    dataset: Sequence[samples.Sample],
    step: Callable[[str], None],
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    step("find the nodes that fp16 endangers")
    clipped = fp16.clip_masks(graph)
    kept = fp16.dangers(graph, dataset, batched=recipe.max_batch_size > 0)
    while True:
        step("cast")
        model = fp16.convert(graph.copy().model, [danger.node for danger in kept])
        operator = _without_kernel(recipe, model, dataset[0]) if target == "cpu" else ""
        more = [node for node in graph.nodes if node.op_type == operator and not any(d.node == node.name for d in kept)]
        if not more:
            return model, {"kept_fp32": [asdict(danger) for danger in kept], "clipped_masks": clipped}
        kept += [fp16.Danger(node.name, operator, "onnxruntime's CPU kernel of it has no fp16") for node in more]


def _without_kernel(recipe: Recipe, model: onnx.ModelProto, sample: samples.Sample) -> str:
    """The operator that onnxruntime's CPU provider cannot run in fp16, as it says; empty if it runs all."""
    try:
        Session(model, without=fp16.CRASHES).run(samples.batch([sample], 1) if recipe.max_batch_size else sample)
    except GraphError as error:
        match = _FAILED.search(error.message)
        return match.group(1) if match else ""
    return ""


def searching(
    recipe: Recipe, base: store.Artifact, target: Target, precision: Precision, step: Callable[[str], None]
) -> search.Search:
    """The search for an 8-bit graph, ready to try choices.

    Raises:
        InputError: The target has no such variant.
        SourceError: The samples cannot calibrate.
    """
    if (target, precision) not in _SCHEMES:
        reason = unsuitable(recipe, target, precision) or "it has no 8-bit numbers"
        raise InputError(
            f"{recipe.path}: {precision} for the target {target}: {reason}", "name int8, or fp8 for tensorrt"
        )
    parts = split(recipe)
    graph = _prepared(target, base.graph)
    facts = {"base": base.identity, "target": target}
    scheme = _SCHEMES[target, precision]
    quantizer = search.Search(recipe, graph, scheme, facts, parts.calibration, parts.selection, step)
    if target == "tensorrt":
        fp16.clip_masks(graph)
    return quantizer


def _quantized(
    recipe: Recipe, base: store.Artifact, target: Target, precision: Precision, step: Callable[[str], None]
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    quantizer = searching(recipe, base, target, precision, step)
    result = sensitivity.within_bounds(quantizer)
    about: dict[str, Any] = {
        "choice": asdict(result.choice),
        "tried": result.tried,
        "quantized_nodes": len(result.quantized),
        "kept_nodes": result.kept,
        "work_share": round(quantizer.share(set(result.quantized)), 4),
        "not_quantized": quantizer.work.missing(set(result.quantized)),
        "calibrated_on": len(quantizer.calibrating),
    }
    if target == "cpu":
        return result.model, about | {"cpu_features": CPU_FEATURES}
    step("cast what is left to fp16")
    kept = fp16.dangers(quantizer.graph, quantizer.selecting, batched=recipe.max_batch_size > 0)
    about["kept_fp32"] = [asdict(danger) for danger in kept]
    return fp16.convert(result.model, [danger.node for danger in kept]), about


def judged(recipe: Recipe) -> list[samples.Sample]:
    """Samples to judge on: those that nothing was calibrated or chosen by, where the recipe has enough."""
    if recipe.samples is None:
        return samples.load(recipe, SELECTED)
    dataset = samples.load(recipe, LEAST)
    return dataset if len(dataset) < LEAST else split(recipe).evaluation


def _link(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, copy_function=os.link)
    else:
        os.link(source, target)
