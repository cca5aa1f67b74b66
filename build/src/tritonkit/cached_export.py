"""One recipe's export: loaded, exported, checked, and kept in the store with all that a repository needs of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tritonkit import dependencies, external_data, graph, padding, parity, progress, samples, sources, store
from tritonkit.errors import CheckFailed, InputError, MissingError, SourceError
from tritonkit.recipe import HfSource, OnnxSource, Recipe
from tritonkit.repository import config, model_directory

SAMPLES_CHECKED = 32


def exported(recipe: Recipe) -> tuple[store.Artifact, bool]:
    """A recipe's export, from the store or made now, and whether it was made now."""
    key = store.request_key(recipe)
    artifact = store.find(key)
    return (artifact, False) if artifact else (_export(key, recipe), True)


def _export(key: str, recipe: Recipe) -> store.Artifact:
    """Export and check one model; it enters the store only if every check passed."""
    with progress.steps(recipe.name, 5) as steps:
        return store.make(key, lambda stage: _fill(stage, recipe, steps))


def _fill(stage: Path, recipe: Recipe, steps: progress.Steps) -> tuple[dict[str, Any], dependencies.Dependencies]:
    start = time.monotonic()
    path = stage / store.GRAPH
    sources.forget()
    with dependencies.recording() as read:
        steps.next("read samples")
        dataset = samples.load(recipe, SAMPLES_CHECKED)
        if isinstance(recipe.source, OnnxSource):
            reference, half = None, ""
            steps.next("read the graph")
            _copy_graph(recipe, recipe.source, path)
        else:
            steps.next(f"load the module{_as_fp32(recipe)}")
            reference, half = _export_module(recipe, dataset, path, steps)
        graph.check_against(recipe, path)
        if reference is None:
            graph.declare_outputs(recipe, path)
        steps.next("check the graph on real samples" if reference is None else "check against the module")
        session = graph.Session(path)
        with _explained(half):
            measured = parity.check(recipe, session, dataset, reference) + padding.check(recipe, session, dataset)
        steps.next("write")
        _write_labels(stage, recipe)
        _write_warmup(stage / model_directory.WARMUP, recipe, dataset[0])
    noted = dependencies.collect(read, _known_files(recipe), _code_roots(recipe), ignored=stage)
    about = {
        "model": recipe.name,
        "seconds": round(time.monotonic() - start, 1),
        "parity": [asdict(measurement) for measurement in measured],
        "warmup_shapes": {name: list(array.shape) for name, array in dataset[0].items()},
    }
    return about, noted


def _as_fp32(recipe: Recipe) -> str:
    """What to say where the weights are loaded as another type than they have."""
    if not isinstance(recipe.source, HfSource):
        return ""
    try:
        from tritonkit import hf

        precision = hf.checkpoint_precision(recipe.directory / recipe.source.hf)
    except (ModuleNotFoundError, InputError, OSError, ValueError):
        return ""  # loading it says what is wrong
    return f" as fp32; its checkpoint is {precision}" if precision else ""


@contextmanager
def _explained(half: str) -> Iterator[None]:
    """Say of a module that computes in half precision that this is why its graph differs."""
    try:
        yield
    except CheckFailed as error:
        if not half:
            raise
        raise CheckFailed(
            f"{error.message}; the module has weights of {half}, in which rounding alone makes such differences",
            "return module.float() from the source's function; `precisions: [fp32, fp16]` in the recipe then builds "
            "fp16 as a variant, which is judged",
        ) from error


def _export_module(
    recipe: Recipe, dataset: Sequence[samples.Sample], path: Path, steps: progress.Steps
) -> tuple[parity.Run, str]:
    """Write the module's graph; return a function that runs the module, and its half precision, empty if none."""
    try:
        from tritonkit import export, export_operators
    except ModuleNotFoundError as error:
        raise MissingError(f"{error.name} is not installed", 'pip install "tritonkit[torch]"') from error
    adapter = export.Adapter(sources.load_module(recipe), recipe)

    def run(inputs: samples.Sample) -> samples.Sample:
        return export.reference(adapter, recipe, inputs)

    fitted = [samples.resized(sample, recipe, recipe.sizes("opt")) for sample in dataset]
    run(samples.batch(fitted, 2) if recipe.max_batch_size else fitted[0])
    steps.next("export to ONNX")
    export_operators.share()
    export.to_onnx(adapter, recipe, dataset, path)
    return run, export.half_precision(adapter)  # type: ignore[return-value]


def _copy_graph(recipe: Recipe, source: OnnxSource, path: Path) -> None:
    origin = recipe.directory / source.onnx
    graph.read_signature(origin)
    external_data.copy(origin, path)


def _write_labels(stage: Path, recipe: Recipe) -> None:
    for name, output in recipe.outputs.items():
        if output.labels is None:
            continue
        labels = sources.load_labels(output.labels, recipe)
        if output.dims and isinstance(output.dims[-1], int) and len(labels) != output.dims[-1]:
            raise SourceError(
                f"{recipe.path}: output {name!r} has {output.dims[-1]} classes and {len(labels)} labels",
                "give one label for each class",
            )
        text = "".join(f"{label}\n" for label in labels)
        (stage / config.labels_filename(recipe, name)).write_text(text, encoding="utf-8")


def _write_warmup(directory: Path, recipe: Recipe, sample: samples.Sample) -> None:
    directory.mkdir()
    for name, array in sample.items():
        if recipe.inputs[name].dtype == "string":
            from tritonclient.utils import serialize_byte_tensor

            (directory / config.filename(name)).write_bytes(serialize_byte_tensor(array).item())
        else:
            (directory / config.filename(name)).write_bytes(array.tobytes())


def _known_files(recipe: Recipe) -> list[Path]:
    """Files that the recipe names itself."""
    known: list[Path] = []
    if isinstance(recipe.source, OnnxSource):
        known.append(recipe.directory / recipe.source.onnx)
    elif isinstance(recipe.source, HfSource):
        known += (recipe.directory / recipe.source.hf).glob("*")
    for reference in _references(recipe):
        if ":" in reference:
            known.append(sources.file_of(reference, recipe.directory))
        else:
            known.append(recipe.directory / reference)
    return known


def _code_roots(recipe: Recipe) -> list[Path]:
    """The folders of the user's code: beside the recipe's files, and the packages that it names.

    tritonkit's own package is none of them: the request key has the hash of what matters there.
    """
    roots = [recipe.directory] if any(".py:" in reference for reference in _references(recipe)) else []
    for reference in _references(recipe):
        package = reference.partition(":")[0].partition(".")[0]
        origin = getattr(sys.modules.get(package), "__file__", None)
        if origin and package != "tritonkit":
            roots.append(Path(origin).parent)
    return roots


def _references(recipe: Recipe) -> list[str]:
    labels = [output.labels for output in recipe.outputs.values()]
    return [reference for reference in (recipe.source, recipe.samples, *labels) if isinstance(reference, str)]
