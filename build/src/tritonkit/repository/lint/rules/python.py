"""Models of the Python backend: what model.py must define, read without running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tritonkit.repository.lint import images, imports
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import Problem, Severity
from tritonkit.repository.lint.registry import PYTHON, REQUESTS, Context, rule

_DOCS = "README of triton-inference-server/python_backend, Usage"
CLASS = "TritonPythonModel"
# Syntax that the Python of newer images has and the one that runs lint may not: f-strings (3.12), `type` statements
# and type parameters (3.12), t-strings (3.14), unparenthesised except (3.14).
_NEWER = re.compile(r"\b[ft]r?[\"']|^\s*type\s+\w|^\s*(async\s+)?(def|class)\s+\w+\s*\[|^\s*except\b.*,")


def _sources(model: Model) -> Iterator[tuple[Path, str]]:
    for path in imports.sources(model):
        yield path, path.read_bytes().decode("utf-8", errors="replace")


@rule("TK120", "python-syntax", "error", "model.py is no Python", enforced_by=PYTHON, source=_DOCS)
def python_syntax(model: Model, _: Context) -> Iterator[Problem]:
    """The stub imports the file and reports the error. Lint parses it with the Python that runs lint, which may be
    older than the image's; where the line could be newer syntax, it only warns.
    """
    for path, text in _sources(model):
        tree = imports.parse(text)
        if isinstance(tree, SyntaxError):
            line = (tree.text or "").rstrip()
            yield Problem(
                f"it does not compile: {tree.msg}", "correct it", tree.lineno, path,
                "warning" if _NEWER.search(line) else None,
            )  # fmt: skip


@rule("TK121", "python-class", "error", "model.py does not define TritonPythonModel", enforced_by=PYTHON, source=_DOCS)
def python_class(model: Model, _: Context) -> Iterator[Problem]:
    """The backend looks for a class of exactly this name. One that is imported, assigned or made at run time counts."""
    for path, text in _sources(model):
        tree = imports.parse(text)
        if isinstance(tree, ast.Module) and CLASS not in text and not _imports_everything(tree):
            yield Problem(f"there is no class {CLASS}", f"call the model's class {CLASS}", path=path)


def _imports_everything(tree: ast.Module) -> bool:
    names = (alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names)
    return "*" in names


@rule("TK122", "python-execute", "error", "the model's class has no execute", enforced_by=REQUESTS, source=_DOCS)
def python_execute(model: Model, _: Context) -> Iterator[Problem]:
    """Triton 24.10 loads such a model and reports it ready; then every request fails. A class with a base other than
    object may inherit `execute`, so it is not judged.
    """
    for path, text in _sources(model):
        tree = imports.parse(text)
        if not isinstance(tree, ast.Module):
            continue
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == CLASS and _lacks_execute(node):
                yield Problem(
                    f"{CLASS} has no method execute: every request fails", "define execute(self, requests)",
                    node.lineno, path,
                )  # fmt: skip


def _lacks_execute(node: ast.ClassDef) -> bool:
    if node.decorator_list or node.keywords or any(ast.unparse(base) != "object" for base in node.bases):
        return False
    names = {child.name for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)}
    simple = all(isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Expr | ast.Pass) for child in node.body)
    return simple and "execute" not in names


@rule(
    "TK157",
    "import-not-in-image",
    "error",
    "a Python model imports what its image does not have",
    enforced_by=PYTHON,
    source=_DOCS,
)
def import_not_in_image(model: Model, context: Context) -> Iterator[Problem]:
    """NVIDIA's `-py3` images have numpy for Python models, and little else; the image of build/Dockerfile adds
    `tokenizers`. A model that imports another module does not load there. Checked only with `--image`; of an image of
    your own, and of NVIDIA's other variants, nothing is known. Where `--image` names a release only, it may be either,
    so this is a remark; where the import stands in a function or a condition, a warning. A model with
    `EXECUTION_ENV_PATH` brings its environment along. Of a recipe's `python` section the packages count that its
    passport lists, unless they lie beside the model (`pip install --target`).
    """
    options = context.options
    if options.image is None or options.origin == "other" or options.variant not in {"", images.PLAIN}:
        return
    for entry in imports.foreign(model):
        if entry.module in images.PYTHON_MODULES:
            continue
        severity: Severity | None = "info" if not options.origin else None if entry.certain else "warning"
        yield Problem(
            f"{entry.path.name} imports {entry.module}, and NVIDIA's images do not have it",
            images.where(entry.module), entry.line, entry.path, severity,
        )  # fmt: skip
    known = images.PYTHON_MODULES | {entry.module for entry in imports.foreign(model)}
    for name, requirement in imports.packages(model).items():
        if name not in known:
            yield Problem(
                f"it needs {requirement}, as its passport says, and NVIDIA's images do not have it",
                images.where(name if name in images.TOOLS_MODULES else requirement), path=model.passport.path,
                severity=None if options.origin else "info",
            )  # fmt: skip
