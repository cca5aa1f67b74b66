"""What a Python model imports that is neither Python's own nor beside it: read from its files, nothing is run.

Files beside ``model.py`` that it imports are followed. What an image has is :mod:`tritonkit.repository.lint.images`'.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tritonkit.repository.lint import backends
from tritonkit.repository.lint.contents import Model, entries, is_file, is_folder

# Triton's Python backend brings these itself (README of triton-inference-server/python_backend).
_BACKENDS_OWN = frozenset({"triton_python_backend_utils", "c_python_backend_utils"})
# With it a model runs in a Python environment of its own, whose packages nobody here knows (same README, "Creating
# Custom Execution Environments").
_OWN_ENVIRONMENT = "EXECUTION_ENV_PATH"
_TOLERANT = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


@dataclass(frozen=True)
class Import:
    """A module of somebody else that a model imports.

    Attributes:
        module: Its first name: ``PIL`` of ``PIL.Image``.
        path: The file that imports it.
        line: Where.
        certain: Whether it is imported whenever the model loads; not so inside of functions and conditions.
    """

    module: str
    path: Path
    line: int
    certain: bool


def sources(model: Model) -> Iterator[Path]:
    """The file of each loaded version that Triton's Python backend runs."""
    if model.served.backend != backends.PYTHON:
        return
    for number in model.loaded:
        path = model.version(number) / model.served.filename
        if is_file(path) and path.suffix == ".py":
            yield path


def parse(text: str) -> ast.Module | SyntaxError:
    """A file's syntax tree, or why it has none."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of the model's own code
            return ast.parse(text)
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, nesting
        return SyntaxError(str(error))


def foreign(model: Model) -> list[Import]:
    """Each foreign module that a model imports once, where it is most certain; none if it has its own environment."""
    if _OWN_ENVIRONMENT in model.config.parameters:
        return []
    imports: dict[str, Import] = {}
    for source in sources(model):
        for entry in _follow(source):
            if entry.module not in imports or (entry.certain and not imports[entry.module].certain):
                imports[entry.module] = entry
    return list(imports.values())


def packages(model: Model) -> dict[str, str]:
    """What a Python model's passport lists under ``packages``, and its folders do not have: name to ``name==version``.

    A recipe's ``python`` section lists them; its file is imported by name, so that reading ``model.py`` shows nothing.
    """
    listed = model.passport.data.packages
    own = _OWN_ENVIRONMENT in model.config.parameters
    if not listed or model.served.backend != backends.PYTHON or own:
        return {}
    requirements = {package_name(requirement): requirement for requirement in listed}
    places = [model.directory, *(model.version(number) for number in model.loaded)]
    # `pip install --target` leaves a folder NAME-VERSION.dist-info beside what it installs.
    beside = {
        package_name(entry.stem.rpartition("-")[0]) for place in places for entry in entries(place)
        if entry.suffix == ".dist-info"
    }  # fmt: skip
    return {name: requirement for name, requirement in requirements.items() if name not in beside}


def package_name(requirement: str) -> str:
    """The name of ``name==version`` as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", requirement.partition("==")[0]).lower()


def _follow(source: Path) -> Iterator[Import]:
    """Imports of a file, and of the files beside it that it imports."""
    places = (source.parent, source.parent.parent)  # both are on the path of Triton's stub
    waiting, known = [(source, True)], {source}
    while waiting:
        path, certain = waiting.pop()
        tree = parse(path.read_bytes().decode("utf-8", errors="replace"))
        if isinstance(tree, SyntaxError):
            continue  # TK120 says so of model.py
        for name, line, always in _imports(tree.body, certain=True):
            first = name.partition(".")[0]
            beside = [file for place in places for file in (place / f"{first}.py", place / first / "__init__.py")]
            local = [file for file in beside if is_file(file)]
            waiting += [(file, certain and always) for file in local if file not in known]
            known.update(local)
            if not local and not any(is_folder(place / first) for place in places) and not _is_pythons(first):
                yield Import(first, path, line, certain and always)


def _is_pythons(name: str) -> bool:
    return name in sys.stdlib_module_names or name in _BACKENDS_OWN


def _imports(body: list[ast.stmt], *, certain: bool) -> Iterator[tuple[str, int, bool]]:
    """Module, line, and whether it is imported in any case; those that may fail are left out."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, certain) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and node.module:
                yield node.module, node.lineno, certain
        elif isinstance(node, ast.Try):
            if not any(_tolerates(handler) for handler in node.handlers):
                yield from _imports(node.body, certain=certain)
            yield from _imports([*node.orelse, *node.finalbody], certain=False)
        elif isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from _imports(node.body, certain=False)
            yield from _imports(node.orelse, certain=False)
        else:
            always = certain and isinstance(node, ast.ClassDef | ast.With)
            inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
            yield from _imports(inner, certain=always)


def _tolerates(handler: ast.ExceptHandler) -> bool:
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else _TOLERANT
    return bool(names & _TOLERANT)
