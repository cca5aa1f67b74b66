"""Names say what a thing is, in the words of the field, and not what somebody did to it."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

# As docs/decisions/0035 has it; `one` as a loop's variable hides what the loop is over.
DIALECT = {"said", "found", "made", "told", "asked", "wanted", "one"}
MOST_PER_THOUSAND = 3


def names(tree: ast.AST) -> Iterator[tuple[str, int, bool]]:
    """Each name with its line, and whether it is a function's or a parameter's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno, False
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno, False
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno, True
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name.strip("_"), node.lineno, True


def test_names_are_those_of_the_field(root: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=root, capture_output=True, text=True, check=True).stdout
    files = [root / path for path in listed.splitlines() if (root / path).exists()]
    assert len(files) > 500
    lines, dialect, signatures = 0, set(), []
    for file in files:
        text = file.read_text(encoding="utf-8")
        lines += text.count("\n")
        for name, line, of_signature in names(ast.parse(text)):
            if name in DIALECT:
                dialect.add((file, line))
                signatures += [f"{file}:{line}: {name}"] if of_signature else []
    assert not signatures
    assert 1000 * len(dialect) / lines < MOST_PER_THOUSAND
