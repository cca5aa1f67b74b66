"""`make loadtest`: one model, one protocol, a steady number of users; prints what a person wants to know."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import load
import numpy as np
from rich.console import Console

from tritonkit import progress, recipe
from tritonkit.errors import InputError, TritonkitError
from tritonkit.server import TritonServer

RECIPES = Path("build/recipes")
WARM_UP_S = 2.0


def main() -> int:
    """Run, print, and say with the exit code whether every request succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help=f"a recipe's name in {RECIPES}, or a recipe file")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--duration", default="20s", help="seconds, for example 20s")
    parser.add_argument("--protocol", choices=["grpc", "http"], default="grpc")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    options = parser.parse_args()
    try:
        return _run(options)
    except TritonkitError as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", markup=False)
        return error.exit_code


def _run(options: argparse.Namespace) -> int:
    path = Path(options.model) if options.model.endswith(".yaml") else RECIPES / f"{options.model}.yaml"
    wanted = recipe.load(path)
    seconds = _seconds(options.duration)
    if options.users < 1:
        raise InputError(f"USERS is {options.users}", "at least one user")
    total = seconds + WARM_UP_S
    with progress.steps(f"load test of {wanted.name}", 2) as steps:
        steps.next("start Triton")
        with TritonServer(options.repository) as server:
            steps.next(f"{options.users} users over {options.protocol} for {total:g} s")
            result = load.run(server, path, wanted.name, protocol=options.protocol, users=[options.users], step_s=total)
    late = result.requests.of(result.requests.start_s >= result.requests.start_s.min() + WARM_UP_S)
    figures = load.figures(late, float(np.ptp(late.start_s)))
    Console(highlight=False, soft_wrap=True).print(
        f"{wanted.name} over {options.protocol}, {options.users} users, "
        f"{seconds:g} s after {WARM_UP_S:g} s of warm-up\n"
        f"  {figures.throughput:.1f} requests/s   p50 {figures.p50_ms:.1f} ms   p99 {figures.p99_ms:.1f} ms   "
        f"{figures.requests} requests, {figures.failed} failed   average batch {result.average_batch(late):.1f}"
    )
    return 1 if figures.failed else 0


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= 3600:
        raise InputError(f"DURATION is {text!r}", "between 1s and 3600s, for example 20s")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
