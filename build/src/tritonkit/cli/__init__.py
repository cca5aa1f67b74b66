"""The ``tritonkit`` command: finds the command's module, runs it, turns errors into exit codes.

Each module here has one command or one family of them: ``add`` adds the arguments to the parser, the rest calls and
prints.
Exit codes: 0 done, 1 a check said no, 2 bad input, 3 something is missing on this machine,
70 a mistake of tritonkit's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from tritonkit import machine
from tritonkit.cli import advise, build, completion, deploy, doctor, engine, lint, prepare, publish, sensitivity, serve
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import Verbs, run_command
from tritonkit.errors import MissingError

COMMANDS = (build, lint, sensitivity, engine, prepare, publish, serve, advise, deploy, doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command

    def run() -> int:
        check_machine()
        return command(options)

    return run_command(run, debug=options.debug)


def check_machine() -> None:
    """Refuse a machine that the commands cannot run on.

    Raises:
        MissingError: It does not run Linux with glibc; the message says what works there.
    """
    support = machine.support()
    if not support.commands:
        raise MissingError(support.problem, support.fix)


def _parser() -> Parser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    report = argparse.ArgumentParser(add_help=False, parents=[common])
    report.add_argument("--json", action="store_true", help="print the result as JSON")
    parser = Parser(
        "tritonkit", description="One road from a PyTorch model to GPU nodes.",
        epilog="`tritonkit COMMAND --help` says more of a command, with examples.",
        examples=["tritonkit doctor", "tritonkit build my_model.yaml", "tritonkit serve"],
    )  # fmt: skip
    verbs: Verbs = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for module in COMMANDS:
        module.add(verbs, common, report)
    completion.add(verbs, common, _parser)
    for listed in verbs._choices_actions:
        verbs.choices[listed.dest].description = f"tritonkit {listed.dest}: {listed.help}."
    return parser
