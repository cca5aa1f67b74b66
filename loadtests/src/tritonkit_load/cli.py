"""The ``tritonkit-load`` command: one verb for each kind of measurement, each a module with a ``main`` of its own.

Exit codes: 0 done, 1 the SLO was missed or a check said no, 2 bad input, 3 something is missing, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

from tritonkit.cli.arguments import Parser

VERBS = {
    "run": "a load test: latency from when each request was due, and whether the SLO was met",
    "capacity": "the highest rate that meets the SLO, with an interval",
    "tune": "the configuration of Triton that serves most within the SLO, written into the recipe",
    "compare": "the same model in other servers, side by side",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the process's exit code.

    Args:
        arguments: The verb and its options; those of the process by default.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    verb = _parser().parse_args(words[:1]).verb
    sys.argv = [f"tritonkit-load {verb}", *words[1:]]  # what the verb parses, and reports keep as their command
    run: Callable[[], int] = importlib.import_module(f"tritonkit_load.{verb}").main  # not the others: Optuna is slow
    return run()


def _parser() -> Parser:
    parser = Parser(
        "tritonkit-load", description="Load tests of a model in a real Triton.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["verbs:", *(f"  {name:<10}{text}" for name, text in VERBS.items()), "",
                          "`tritonkit-load VERB --help` says more of a verb, with examples."]),
        examples=["tritonkit-load run --model my_model.yaml --arrivals poisson:100 --slo p99_ms=50",
                  "tritonkit-load capacity --model my_model.yaml"],
    )  # fmt: skip
    parser.add_argument("verb", choices=list(VERBS), metavar="VERB", help=", ".join(VERBS))
    return parser
