"""`make deploy` and `make rollback`: reads the command line and turns errors into exit codes.

Exit codes: 0 done, 1 a check said no, 2 bad input, 3 something is missing. All else is in ``helm/deploying``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deploying import commands
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import InputError

PROJECT = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "rollback":
        return run_command(lambda: commands.rollback(options.environment, options.revision))
    return run_command(lambda: commands.deploy(options.environment, options.project, apply=is_yes(options.apply)))


def _parser() -> Parser:
    parser = Parser(
        "deploy.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter,
        examples=["python helm/deploy.py deploy dev",
                  "python helm/deploy.py deploy my-environment.yaml --apply",
                  "python helm/deploy.py rollback prod --revision 3"],
    )  # fmt: skip
    parser.add_argument("command", choices=["deploy", "rollback"])
    parser.add_argument("environment", help="a name in helm/environments, or a file")
    parser.add_argument(
        "--apply", nargs="?", const="1", default="", help="deploy: do it; without, or with 0, only look"
    )
    parser.add_argument("--revision", type=int, default=0, help="rollback: to this one; default: the one before")
    parser.add_argument("--project", type=Path, default=PROJECT, help="folder of model_repository and reports")
    return parser


def is_yes(word: str) -> bool:
    """Whether ``APPLY=…`` means yes.

    Raises:
        InputError: The word is neither yes nor no.
    """
    if word.lower() in {"1", "yes", "y", "true", "on"}:
        return True
    if word.lower() in {"", "0", "no", "n", "false", "off"}:
        return False
    raise InputError(f"APPLY={word} is neither yes nor no", "APPLY=1 deploys; without it, this only looks")


if __name__ == "__main__":
    sys.exit(main())
