"""The models of a fleet's file: recipes and ONNX graphs become costs, Hugging Face directories lengths and promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

from tritonkit.advisor import fleet_file, graph_cost, graph_source, serving
from tritonkit.advisor.fleet_demand import Graph, Language, Model
from tritonkit.advisor.fleet_file import FleetFile, ModelEntry
from tritonkit.advisor.graph_cost import Precision
from tritonkit.advisor.language import COUNTS, Request
from tritonkit.advisor.language_latency import Engine as LanguageEngine
from tritonkit.advisor.latency import Engine
from tritonkit.errors import InputError

_MAX_BATCH = 64  # where no recipe says one
_RECIPES = {".yaml", ".yml"}


def load(path: Path, fleet: FleetFile) -> list[Model]:
    """Every model of a file; their paths are as seen from its folder.

    Raises:
        InputError: A model is missing or broken, has keys of another kind, or a name that another one has; the
            message has the line.
    """
    models = [_model(path, place, entry) for place, entry in enumerate(fleet.models)]
    names = [model.name for model in models]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InputError(
                f"{fleet_file.line(path, 'models', place)}: two models are called {name}",
                "give one of them a name: of its own",
            )
    return models


def _model(path: Path, place: int, entry: ModelEntry) -> Model:
    where = fleet_file.line(path, "models", place)
    file = path.parent / entry.model
    if (file.is_dir() and (file / "config.json").is_file()) or file.name == "config.json":
        _check_keys(where, entry, fleet_file.LANGUAGE_KEYS, "a language model")
        return _language(where, file, entry)
    if file.suffix not in {*_RECIPES, ".onnx"}:
        raise InputError(
            f"{where}: {file} is no recipe, no .onnx file, and no directory with a config.json",
            "name a recipe (.yaml), a graph (.onnx) or a Hugging Face directory",
        )
    _check_keys(where, entry, fleet_file.GRAPH_KEYS, "a graph")
    return _graph(where, file, entry)


def _check_keys(where: str, entry: ModelEntry, known: Sequence[str], kind: str) -> None:
    """Refuse what another kind of model has."""
    for key in entry.model_fields_set - {"model", "name", "rps", *known}:
        raise InputError(f"{where}: {key} is not for {kind}", f"keys of {kind}: {', '.join(known)}")
    engines = get_args(LanguageEngine if kind == "a language model" else Engine)
    if entry.engine is not None and entry.engine not in engines:
        raise InputError(f"{where}: {entry.engine} does not run {kind}", f"one of {', '.join(engines)}")


def _language(where: str, file: Path, entry: ModelEntry) -> Language:
    named = {
        "prompt": entry.prompt, "answer": entry.answer, "context": entry.context, "ttft_ms": entry.ttft_ms,
        "itl_ms": entry.itl_ms, "kv_dtype": entry.kv_cache_dtype, "engine": entry.engine,
    }  # fmt: skip
    request = Request(
        gpu_counts=(entry.tensor_parallel_size,) if entry.tensor_parallel_size else COUNTS,
        precisions=(entry.precision,) if entry.precision else (),
        **cast("dict[str, Any]", {key: value for key, value in named.items() if value is not None}),
    )
    folder = file if file.is_dir() else file.parent
    return Language(_name(where, entry, folder.resolve().name), entry.rps, file, request)


def _graph(where: str, file: Path, entry: ModelEntry) -> Graph:
    if file.suffix in _RECIPES:
        name, graph, defaults, sizes = graph_source.from_recipe(file)
    else:
        name, graph, defaults, sizes = file.stem, file, {}, {}
    model = graph_cost.load(graph)
    sizes = {**sizes, **entry.shape}
    own = defaults.get("precisions") or graph_cost.precisions(model)
    precisions = (
        (entry.precision,)
        if entry.precision
        else tuple(precision for precision in own if precision in {"fp32", "fp16", "bf16"})
    )
    if wrong := [precision for precision in precisions if precision not in get_args(Precision)]:
        raise InputError(f"{where}: {wrong[0]} is of language models", f"one of {', '.join(get_args(Precision))}")
    engine: Engine = "tensorrt" if entry.engine == "tensorrt" else "onnxruntime"
    if engine == "onnxruntime" and {"int8", "fp8"} & set(precisions):
        raise InputError(f"{where}: onnxruntime runs {precisions[0]} on no GPU here", "engine: tensorrt")
    symbol = graph_cost.batch_symbol(model)
    sizes_of_batch = serving.batch_sizes(entry.max_batch or defaults.get("max_batch", _MAX_BATCH)) if symbol else (1,)
    batches = {size: graph_cost.measure(model, {**sizes, symbol: size} if symbol else sizes) for size in sizes_of_batch}
    return Graph(
        _name(where, entry, name), entry.rps, batches, entry.p99_ms or defaults.get("p99_ms"),
        cast("tuple[Precision, ...]", precisions or ("fp32",)), engine, entry.instances or serving.INSTANCES,
    )  # fmt: skip


def _name(where: str, entry: ModelEntry, default: str) -> str:
    name = entry.name or default
    if not name.replace("_", "").replace("-", "").replace(".", "").isalnum():
        raise InputError(f"{where}: {name!r} is no name of a model", "give it a name: of letters, digits, _, . and -")
    return name
