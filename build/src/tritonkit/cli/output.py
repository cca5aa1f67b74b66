"""What every command prints with: one console, JSON on request, and the folder that holds a project's recipes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.markup import escape

from tritonkit.errors import TritonkitError

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
out = Console(highlight=False)
RECIPES = Path("build/recipes")


def ended(command: Callable[[], int], *, debug: bool = False) -> int:
    """Run a command line's work; its exit code, with an error said on standard error and not as a traceback.

    Raises:
        TritonkitError: With ``debug``.
    """
    try:
        return command()
    except TritonkitError as error:
        if debug:
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {escape(str(error))}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0


def print_json(data: object) -> None:
    """Plain JSON on standard output, for programs."""
    print(json.dumps(data, indent=2))  # noqa: T201
