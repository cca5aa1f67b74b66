"""What every command prints with: one console, JSON on request, and the folder that holds a project's recipes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TypeAlias

from rich.console import Console

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
out = Console(highlight=False)
RECIPES = Path("build/recipes")


def print_json(data: object) -> None:
    """Plain JSON on standard output, for programs."""
    print(json.dumps(data, indent=2))  # noqa: T201
