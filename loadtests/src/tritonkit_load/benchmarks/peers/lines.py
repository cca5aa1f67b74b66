"""Counts the lines that somebody wrote to serve a model: no blanks, no comments, no docstrings."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable
from pathlib import Path

_NOT_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
    tokenize.ENDMARKER,
}  # fmt: skip


def count(paths: Iterable[Path]) -> int:
    """The lines of all files together."""
    return sum(_count(path) for path in paths)


def _count(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return len(_lines_of_code(text))
    stripped = [line.strip() for line in text.splitlines()]
    return sum(1 for line in stripped if line and not line.startswith("#"))


def _lines_of_code(text: str) -> set[int]:
    numbers: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NOT_CODE:
            numbers.update(range(token.start[0], token.end[0] + 1))
    return numbers - _lines_of_docstrings(text)


def _lines_of_docstrings(text: str) -> set[int]:
    numbers: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            first = node.body[0]
            numbers.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return numbers
