"""Every error that tritonkit raises on purpose, and the exit code each one means.

::

    TritonkitError
    ├── InputError        exit 2   what the user gave cannot be used
    │   ├── RecipeError            a recipe file: unknown key, wrong value (with its line)
    │   ├── SourceError            the model behind a recipe: does not import, rejects its inputs
    │   ├── GraphError             an ONNX graph: corrupt, or contradicting the recipe
    │   └── OutputError            a place to write to: read-only, not a directory, edited by hand
    ├── CheckFailed       exit 1   a check said no: parity, a model that Triton refused to load
    └── MissingError      exit 3   something is missing on this machine: a package, a server, disk space

A message says what is wrong, where, and what to do about it; ``fix`` is that last part.
"""

from __future__ import annotations


class TritonkitError(Exception):
    """Base of all tritonkit errors.

    Args:
        message: What is wrong and where, as one sentence.
        fix: What the user can do about it; printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


class InputError(TritonkitError):
    """What the user gave cannot be used."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe says something that it may not say."""


class SourceError(InputError):
    """The model behind a recipe cannot be loaded, or rejects the inputs that the recipe declares."""


class GraphError(InputError):
    """An ONNX graph is corrupt, or contradicts the recipe."""


class OutputError(InputError):
    """The place to write to cannot be written, or holds something that must not be lost."""


class CheckFailed(TritonkitError):
    """A check said no; nothing was written."""

    exit_code = 1


class MissingError(TritonkitError):
    """Something is missing on this machine."""

    exit_code = 3
