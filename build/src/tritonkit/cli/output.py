"""What every command prints with: one console, JSON on request, and the folder that holds a project's recipes."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tritonkit.errors import TritonkitError

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
out = Console(highlight=False)
RECIPES = Path("build/recipes")


def ended(command: Callable[[], int], *, debug: bool = False) -> int:
    """Run a command line's work; its exit code, with an error said on standard error and not as a traceback.

    Raises:
        TritonkitError, OSError: With ``debug``.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names that are no text, and terminals of few letters
    try:
        code = command()
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written shows here, and not after the exit code
        return code
    except TritonkitError as error:
        if debug:
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {escape(str(error))}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has seen enough; what is left of the buffer would be written, and fail, at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk under the output, say
        if debug:
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {escape(str(error))}")
        return 2


def make_table(*headers: str, **options: Any) -> Table:
    """A table without lines; what is wider than its column goes on below, where rich would cut it off.

    Args:
        headers: One a column.
        options: rich's own of a table.
    """
    table = Table(*headers, box=None, pad_edge=False, **options)
    for column in table.columns:
        column.overflow = "fold"
    return table


def print_json(data: object) -> None:
    """JSON on standard output, for programs, and nothing that RFC 8259 does not know.

    Numbers that JSON does not have are ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, as in protobuf's JSON mapping;
    bytes of a file name that are no text are ``\\udcff`` and the like.

    Raises:
        OSError: There is no standard output.
    """
    if sys.stdout is None:  # closed by whoever started this; print() would say nothing, and nothing of that
        raise OSError("the standard output is closed")
    print(json.dumps(_strict(data), indent=2, allow_nan=False))  # noqa: T201


def _strict(data: object) -> object:
    if isinstance(data, dict):
        return {_strict(key): _strict(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_strict(item) for item in data]
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    return data.encode(errors="backslashreplace").decode() if isinstance(data, str) else data
