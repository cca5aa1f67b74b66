"""Finds the Python objects that a recipe names: the module to export, its samples, its labels.

It resolves and calls; what comes back is checked by :mod:`tritonkit.export` and :mod:`tritonkit.samples`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from tritonkit.errors import MissingError, SourceError, TritonkitError
from tritonkit.recipe import HfSource, OnnxSource, Recipe

# The folder whose modules can be imported as top-level ones now: that of the last source file; at most one.
_active: dict[Path, frozenset[str]] = {}  # folder → modules that were there before


class NotAModuleError(SourceError):
    """A recipe's function returned something else than a ``torch.nn.Module``, which is in ``value``."""

    def __init__(self, key: str, value: object) -> None:
        super().__init__(
            f"{key} returned a {type(value).__name__}, not a torch.nn.Module",
            "return the module itself; a fitted forest of trees needs  engine: fil  in its recipe",
        )
        self.value = value


def resolve(reference: str, directory: Path, key: str) -> Callable[..., Any]:
    """The function behind ``module:function`` or ``file.py:function``.

    Args:
        reference: As written in the recipe.
        directory: Where a relative file starts from.
        key: The recipe's key, for messages.

    Raises:
        SourceError: The reference does not parse or import, has no such function, or is not callable.
    """
    module_name, _, function_name = reference.rpartition(":")
    if not module_name or not function_name.isidentifier():
        raise SourceError(
            f"{key}: {reference!r} is not of the form module:function",
            "write  package.module:function  or  ./file.py:function",
        )
    module = _import(module_name, directory, key)
    try:
        function = getattr(module, function_name)
    except AttributeError:
        known = [name for name in vars(module) if callable(getattr(module, name)) and name[0] != "_"]
        raise SourceError(
            f"{key}: {module_name} has no {function_name!r}",
            f"it has: {', '.join(known) or 'no functions'}",
        ) from None
    if not callable(function):
        raise SourceError(f"{key}: {reference} is a {type(function).__name__}, not a function", "name a function")
    return function  # type: ignore[no-any-return]


def call(reference: str, directory: Path, key: str) -> Any:
    """What the function of a reference returns.

    Raises:
        SourceError: The function cannot be resolved, or fails.
        MissingError: The function imports a package that is not installed.
    """
    with _user_code(key):
        return resolve(reference, directory, key)()


def file_of(reference: str, directory: Path) -> Path:
    """The file that holds the function of a reference that :func:`resolve` has resolved."""
    name = reference.rpartition(":")[0]
    if name.endswith(".py"):
        return (directory / name).resolve()
    return Path(str(sys.modules[name].__file__))


def load_module(recipe: Recipe, key: str = "") -> Any:
    """The ``torch.nn.Module`` of a recipe, in evaluation mode.

    Args:
        recipe: Whose source to load.
        key: What to call the source in messages; its place in the recipe's file if not given.

    Raises:
        SourceError: The source cannot be loaded, or is not a module.
    """
    import torch

    source = recipe.source
    key = key or f"{recipe.path}: source"
    with _user_code(key):
        if isinstance(source, HfSource):
            from tritonkit import hf

            module = hf.load(recipe.directory / source.hf)
        else:
            assert not isinstance(source, OnnxSource)
            module = resolve(source, recipe.directory, key)()
    if not isinstance(module, torch.nn.Module):
        raise NotAModuleError(key, module)
    return module.eval()


def is_transformers(module: Any) -> bool:
    """Whether a module is a model of transformers, which says what it takes; transformers is not imported for this."""
    return any(kind.__module__ == "transformers.modeling_utils" for kind in type(module).__mro__)


def init_command(recipe: Recipe, *, batched: bool) -> str:
    """The ``tritonkit init`` that looks at a recipe's source anew, and writes beside the recipe.

    Args:
        recipe: Whose source to look at, and whose inputs to name where a module cannot say them.
        batched: Whether the new recipe's first dimension is to be a batch.
    """
    source = recipe.source
    inputs: list[str] = []
    if isinstance(source, str):
        model = str(recipe.directory / source) if ".py:" in source else source
        for name, spec in recipe.inputs.items():
            dims = spec.dims if batched or not recipe.max_batch_size else ("batch", *spec.dims)
            inputs += ["--input", f"{name}:{spec.dtype}:{','.join(map(str, dims))}"]
    else:
        model = str(recipe.directory / (source.onnx if isinstance(source, OnnxSource) else source.hf))
    size = ["--max-batch-size", str(recipe.max_batch_size)] if batched else ["--max-batch-size", "0"]
    output = recipe.path.with_name(f"{recipe.path.stem}_2.yaml")
    return shlex.join(["tritonkit", "init", model, *inputs, *size, "--output", str(output)])


def load_labels(reference: str, recipe: Recipe) -> list[str]:
    """Class names from a text file (one a line) or a ``module:function``.

    Raises:
        SourceError: The file is missing, or the function fails or returns no list of str.
    """
    key = f"{recipe.path}: labels"
    if ":" in reference:
        with _user_code(key):
            labels = resolve(reference, recipe.directory, key)()
    else:
        try:
            labels = (recipe.directory / reference).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise SourceError(f"{key}: cannot read {reference}: {error}", "correct the path") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise SourceError(f"{key}: expected a list of str", "return one name for each class")
    return labels


def _import(name: str, directory: Path, key: str) -> ModuleType:
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        path = (directory / name).resolve()
        if not path.is_file():
            raise SourceError(f"{key}: there is no file {path}", "paths are relative to the recipe")
        _activate(path.parent)
        return _import_file(path)
    except TritonkitError:
        raise
    except (Exception, SystemExit) as error:
        raise SourceError(
            f"{key}: {name} does not import: {type(error).__name__}: {error}{place(error)}",
            f"the file {name}.py is named with its ending:  {name}.py:FUNCTION"
            if (directory / f"{name}.py").is_file() and not name.endswith(".py")
            else "install what it needs, or correct the name (relative files end in .py)",
        ) from error


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_tritonkit_source_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look a class's module up there
    spec.loader.exec_module(module)
    return module


def _activate(directory: Path) -> None:
    """Let a source file import its neighbours, as it can when it is run by itself."""
    if directory not in _active:
        forget()
        _active[directory] = frozenset(sys.modules)
        sys.path.insert(0, str(directory))


def forget() -> None:
    """Unload the modules that came from the folder of the last source file, since that was loaded.

    Another recipe's folder may have modules of the same names, and this one's may have changed on disk. What the
    program itself had imported from there before stays.
    """
    for directory, before in _active.items():
        sys.path.remove(str(directory))
        below = f"{directory}{os.sep}"
        for name, module in list(sys.modules.items()):
            if name not in before and (getattr(module, "__file__", None) or "").startswith(below):
                del sys.modules[name]
    _active.clear()


def place(error: BaseException) -> str:
    """`` (file.py, line 12)``: the last line of the user's own code that an exception went through; empty without one.

    Causes count too, innermost first: PyTorch's exporter wraps what a module raises.
    """
    places = []
    cause: BaseException | None = error
    while cause is not None:
        places.append([frame for frame in traceback.extract_tb(cause.__traceback__) if _is_users(frame.filename)])
        cause = cause.__cause__
    for frames in reversed(places):
        if frames:
            return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"
    return ""


def _is_users(file: str) -> bool:
    path = Path(file)
    ours = not path.is_relative_to(Path(__file__).parent) or path.is_relative_to(Path(__file__).parent / "zoo")
    libraries = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return path.is_file() and ours and not any(path.is_relative_to(library) for library in libraries)


@contextmanager
def _user_code(key: str) -> Iterator[None]:
    """Turn whatever a user's function raises into a SourceError that says where."""
    try:
        yield
    except TritonkitError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None:  # a library's own words, and nothing that pip knows
            raise SourceError(f"{key} failed: {error}", "run the function by itself to see its traceback") from error
        raise MissingError(
            f"{key}: the package {error.name!r} is not installed", f"pip install {error.name}"
        ) from error
    except (Exception, SystemExit) as error:
        raise SourceError(
            f"{key} failed: {type(error).__name__}: {error}{place(error)}",
            "run the function by itself to see its traceback",
        ) from error
