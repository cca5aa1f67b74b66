"""`make deploy` and `make rollback`: reads the command line and turns errors into exit codes.

Exit codes: 0 done, 1 a check said no, 2 bad input, 3 something is missing. All else is in ``helm/deploying``.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape

from deploying import commands
from tritonkit.errors import InputError, TritonkitError

PROJECT = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    parser = argparse.ArgumentParser("deploy.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=["deploy", "rollback"])
    parser.add_argument("environment", help="a name in helm/environments, or a file")
    parser.add_argument(
        "--apply", nargs="?", const="1", default="", help="deploy: do it; without, or with 0, only look"
    )
    parser.add_argument("--revision", type=int, default=0, help="rollback: to this one; default: the one before")
    parser.add_argument("--project", type=Path, default=PROJECT, help="folder of model_repository and reports")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if options.command == "rollback":
            return commands.rollback(options.environment, options.revision)
        return commands.deploy(options.environment, options.project, apply=wanted(options.apply))
    except TritonkitError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {escape(str(error))}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0


def wanted(said: str) -> bool:
    """Whether ``APPLY=…`` means yes.

    Raises:
        InputError: It might mean either.
    """
    if said.lower() in {"1", "yes", "y", "true", "on"}:
        return True
    if said.lower() in {"", "0", "no", "n", "false", "off"}:
        return False
    raise InputError(f"APPLY={said} is neither yes nor no", "APPLY=1 deploys; without it, this only looks")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
