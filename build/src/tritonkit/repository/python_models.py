"""Python before and after a model: the directories that a recipe's ``python`` section asks for, tried before they are.

What runs in Triton is :mod:`tritonkit.repository.python_model`, with the user's file beside it.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tritonkit import samples, sources
from tritonkit.errors import RecipeError, SourceError
from tritonkit.graph import Session
from tritonkit.passport import ModelPassport
from tritonkit.recipe import Python, Recipe, Target
from tritonkit.repository import companions
from tritonkit.repository.companions import Specs
from tritonkit.repository.layout import Model

SETTINGS = "function.json"
_PROVIDED = {"numpy", "triton_python_backend_utils"}


def names(recipe: Recipe) -> set[str]:
    """The models that the section adds to a repository."""
    return {recipe.python.name, *_steps(recipe.python)} if recipe.python else set()


def models(recipe: Recipe, target: Target = "cpu") -> list[Model]:
    """The directories of the functions and of the ensemble; none for a recipe without the section.

    Raises:
        RecipeError: The section does not fit the model, or a package that the file imports is not named.
        SourceError: The file cannot be read or imported, or ``before`` does not make the model's inputs of the sample.
    """
    python = recipe.python
    if python is None:
        return []
    if {recipe.name} & names(recipe):
        raise RecipeError(f"{recipe.path}: python.name is the name of the model", "give the ensemble a name of its own")
    path = recipe.directory / python.file
    try:
        code = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"{recipe.path}: python.file: cannot read {path}: {error.strerror}", "paths are relative to the recipe"
        ) from error
    _check_imports(recipe, python, path, code)
    if python.before:
        _check_parameters(recipe, python, python.before.function, python.before.inputs, "python.before.inputs")
        _before(recipe, python)
    if python.after:
        _check_parameters(recipe, python, python.after.function, recipe.outputs, "the model's outputs")
    largest = recipe.serving(target).max_batch_size
    steps = []
    if python.before:
        ends: tuple[Specs, Specs] = (python.before.inputs, recipe.inputs)
        steps.append(_step(recipe, python, "before", python.before.function, ends, code, largest))
    if python.after:
        ends = (_used(recipe, python), python.after.outputs)
        steps.append(_step(recipe, python, "after", python.after.function, ends, code, largest))
    return [*steps, _ensemble(recipe, python, largest)]


def check(recipe: Recipe, graph: Path) -> None:
    """Try ``after`` on what the graph makes of a sample.

    Raises:
        SourceError: It fails, or returns something else than the recipe says.
    """
    python = recipe.python
    if python is None or python.after is None:
        return
    sample = _before(recipe, python) if python.before else samples.load(recipe, 1)[0]
    batch = {name: array[None] if recipe.max_batch_size else array for name, array in sample.items()}
    outputs = Session(graph).run(batch)
    row = {name: array[0] if recipe.max_batch_size else array for name, array in outputs.items()}
    values = {name: row[name] for name in _used(recipe, python)}
    _returned(recipe, python, python.after.function, values, python.after.outputs)


def _steps(python: Python) -> list[str]:
    return [f"{python.name}_{end}" for end in ("before", "after") if getattr(python, end)]


def _function(recipe: Recipe, python: Python, name: str) -> Callable[..., Any]:
    sources.forget()
    return sources.resolve(f"{python.file}:{name}", recipe.directory, f"{recipe.path}: python")


def _before(recipe: Recipe, python: Python) -> samples.Sample:
    """The model's inputs that ``before`` makes of the sample."""
    assert python.before is not None
    assert python.sample is not None
    sample = _called(recipe, python, python.sample, {})
    if not isinstance(sample, dict) or set(sample) != set(python.before.inputs):
        raise SourceError(
            f"{recipe.path}: python.sample: {python.sample} must return a dict of {sorted(python.before.inputs)}",
            "return one request's inputs, by name",
        )
    values = {name: sample[name] if spec.dims else np.asarray(sample[name], spec.type.numpy)[()]
              for name, spec in python.before.inputs.items()}  # fmt: skip
    return _returned(recipe, python, python.before.function, values, recipe.inputs)


def _called(recipe: Recipe, python: Python, name: str, values: Mapping[str, Any]) -> Any:
    try:
        return _function(recipe, python, name)(**values)
    except SourceError:
        raise
    except Exception as error:
        trace, line = error.__traceback__, 0
        while trace is not None:
            line = trace.tb_lineno if trace.tb_frame.f_code.co_filename.endswith(Path(python.file).name) else line
            trace = trace.tb_next
        raise SourceError(
            f"{recipe.path}: python: {name} ({python.file}:{line}) failed on the sample: "
            f"{type(error).__name__}: {error}",
            "correct the function, or the sample",
        ) from error


def _returned(recipe: Recipe, python: Python, name: str, values: Mapping[str, Any], specs: Specs) -> samples.Sample:
    """What a function returns for one sample, held against the recipe."""
    result = _called(recipe, python, name, values)
    where = f"{recipe.path}: python: {name} ({python.file})"
    if not isinstance(result, dict) or set(result) != set(specs):
        keys = sorted(result) if isinstance(result, dict) else type(result).__name__
        raise SourceError(f"{where} must return a dict of {sorted(specs)}, got {keys}", "return these, by name")
    checked = {}
    for key, spec in specs.items():
        array = np.asarray(result[key], dtype=object if spec.dtype == "string" else None)
        if not np.can_cast(array.dtype, spec.type.numpy, casting="same_kind"):
            raise SourceError(
                f"{where}: {key} is {array.dtype}, the recipe says {spec.dtype}", "cast it in the function"
            )
        sizes = {
            dim: range(recipe.shapes[dim].min, recipe.shapes[dim].max + 1) for dim in spec.dims if isinstance(dim, str)
        }
        fits = len(array.shape) == len(spec.dims) and all(
            size in sizes[dim] if isinstance(dim, str) else size == dim
            for size, dim in zip(array.shape, spec.dims, strict=True)
        )
        if not fits:
            raise SourceError(
                f"{where}: {key} has the shape {list(array.shape)}, the recipe says {list(spec.dims)}",
                "one sample has no batch dimension; correct the function or `dims`",
            )
        checked[key] = array.astype(spec.type.numpy)
    return checked


def _check_parameters(recipe: Recipe, python: Python, name: str, specs: Specs, what: str) -> None:
    parameters = list(inspect.signature(_function(recipe, python, name)).parameters)
    if wrong := [parameter for parameter in parameters if parameter not in specs]:
        raise RecipeError(
            f"{recipe.path}: python: {name} in {python.file} has the parameter {wrong[0]!r}; "
            f"{what}: {', '.join(specs)}",
            "name its parameters like these",
        )


def _used(recipe: Recipe, python: Python) -> Specs:
    """The model's outputs that ``after`` takes."""
    assert python.after is not None
    parameters = inspect.signature(_function(recipe, python, python.after.function)).parameters
    return {name: spec for name, spec in recipe.outputs.items() if name in parameters}


def _check_imports(recipe: Recipe, python: Python, path: Path, code: bytes) -> None:
    """Every import must be there where it is served: named in ``packages``, numpy, or of the standard library."""
    try:
        tree = ast.parse(code, str(path))
    except (SyntaxError, ValueError) as error:
        raise SourceError(f"{recipe.path}: python.file: {path} is no Python: {error}", "correct it") from error
    tops = {
        alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    tops |= {
        (node.module or "").partition(".")[0] if not node.level else "."
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    }
    declared = {package.partition("==")[0].lower().replace("_", "-") for package in python.packages}
    owners = metadata.packages_distributions()
    for top in sorted(tops - _PROVIDED - set(sys.stdlib_module_names)):
        distributions = {owner.lower().replace("_", "-") for owner in owners.get(top, [top])}
        if distributions & declared:
            continue
        beside = top == "." or (path.parent / f"{top}.py").exists() or (path.parent / top).is_dir()
        owner = owners.get(top, [""])[0]
        if not owner and not beside and (absent := [name for name in python.packages if not _is_installed(name)]):
            raise RecipeError(
                f"{recipe.path}: python: {python.file} imports {top!r}, and of its packages "
                f"{', '.join(absent)} is not installed here, where the build tries the functions",
                f"{sys.executable} -m pip install {' '.join(absent)}",
            )
        fix = f"packages: [{owner.lower()}=={metadata.version(owner)}]" if owner else f"packages: [{top}==VERSION]"
        raise RecipeError(
            f"{recipe.path}: python: {python.file} imports {top!r}, which is not where it is served",
            "put everything into the one file: no other goes into the repository" if beside else f"add  {fix}",
        )


def _is_installed(package: str) -> bool:
    """Whether a package, ``name==version``, is there in any version."""
    try:
        metadata.version(package.partition("==")[0])
    except metadata.PackageNotFoundError:
        return False
    return True


def _step(
    recipe: Recipe, python: Python, end: str, function: str, ends: tuple[Specs, Specs], code: bytes, largest: int
) -> Model:
    inputs, outputs = ends
    configuration = companions.python_config(f"{python.name}_{end}", inputs, outputs, largest)
    file = Path(python.file).name
    settings = {"file": file, "function": function, "inputs": {key: not spec.dims for key, spec in inputs.items()}}
    files = {
        "model.py": Path(__file__).with_name("python_model.py").read_bytes(),
        file: code,
        SETTINGS: companions.as_json(settings).encode(),
    }
    passport = ModelPassport(
        kind="python", of=recipe.name, function=f"{file}:{function}", packages=tuple(python.packages)
    )
    return companions.python_model(configuration, recipe, passport, files)


def _ensemble(recipe: Recipe, python: Python, largest: int) -> Model:
    """Tensors between steps are called ``STEP.TENSOR``, so that no name is both an input and between."""
    inputs: Specs = python.before.inputs if python.before else recipe.inputs
    outputs: Specs = python.after.outputs if python.after else recipe.outputs
    configuration = companions.ensemble_config(python.name, inputs, outputs, largest)
    step = configuration.ensemble_scheduling.step
    if python.before:
        first = step.add(model_name=f"{python.name}_before", model_version=-1)
        first.input_map.update({name: name for name in inputs})
        first.output_map.update({name: f"{recipe.name}.{name}" for name in recipe.inputs})
    model = step.add(model_name=recipe.name, model_version=-1)
    model.input_map.update({name: f"{recipe.name}.{name}" if python.before else name for name in recipe.inputs})
    if python.after:
        used = {name: f"after.{name}" for name in _used(recipe, python)}
        model.output_map.update(used)
        last = step.add(model_name=f"{python.name}_after", model_version=-1)
        last.input_map.update(used)
        last.output_map.update({name: name for name in outputs})
    else:
        model.output_map.update({name: name for name in recipe.outputs})
    return companions.ensemble(configuration, recipe)
