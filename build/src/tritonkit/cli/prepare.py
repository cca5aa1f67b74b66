"""``tritonkit prepare``: what a pod runs before Triton starts: plans for this node's GPU, then Triton's arguments."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from tritonkit.cli import engine
from tritonkit.cli.output import Verbs, out
from tritonkit.errors import InputError

if TYPE_CHECKING:
    from tritonkit.engines.prepare import Outcome


_MOST_GIB = 2**20  # more memory than any GPU will have


def add(verbs: Verbs, common: argparse.ArgumentParser, _report: argparse.ArgumentParser) -> None:
    """Add the arguments of ``prepare``."""
    prepare = verbs.add_parser(
        "prepare", parents=[common], help="on a GPU node, before Triton: plans, then a check",
        examples=["tritonkit prepare --repository /models --cache /plans --server-args /args/server"],
    )  # fmt: skip
    prepare.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: %(default)s")
    prepare.add_argument("--cache", type=Path, required=True, metavar="DIR", help="plans that pods share")
    prepare.add_argument(
        "--server-args", type=Path, metavar="FILE", help="gets what tritonserver is to be started with; may be empty"
    )
    prepare.add_argument("--only-cached", action="store_true", help="build nothing; another process fills the cache")
    prepare.add_argument(
        "--wait", type=float, default=0, metavar="SECONDS", help="with --only-cached: how long; default: %(default)s"
    )
    prepare.add_argument("--workspace", type=float, metavar="GIB", help="scratch memory; default: all of the GPU's")
    prepare.add_argument(
        "--plugin", type=Path, action="append", default=[], metavar="LIBRARY", help="operators; repeat it for more"
    )
    prepare.set_defaults(command=_prepare)


def _prepare(options: argparse.Namespace) -> int:
    from tritonkit import atomic
    from tritonkit.engines import prepare
    from tritonkit.engines.builder import Options
    from tritonkit.engines.cache import Cache

    if not 0 <= options.wait < math.inf or (options.wait and not options.only_cached):
        raise InputError(f"--wait {options.wait:g} needs --only-cached, and seconds", "--only-cached --wait 600")
    if options.workspace is not None and not 0 < options.workspace < _MOST_GIB:
        raise InputError(f"--workspace {options.workspace:g} is no size in GiB", "for example --workspace 2")
    if options.server_args and options.server_args.is_dir():
        raise InputError(f"--server-args {options.server_args} is a folder", "name a file in it, as /args/server")
    workspace = None if options.workspace is None else int(options.workspace * 2**30)
    if options.server_args:
        with atomic.explained(options.server_args):
            options.server_args.unlink(
                missing_ok=True
            )  # of an earlier start: it must not outlive a failure of this one
    prepare.run(
        options.repository,
        Cache(options.cache),
        Options(workspace_bytes=workspace, plugins=tuple(options.plugin)),
        options.wait if options.only_cached else None,
        _tell,
    )
    return _server_args(options)


def _tell(outcome: Outcome) -> None:
    out.print(f"{escape(outcome.model)}: {escape(outcome.text)} ({outcome.seconds:.1f} s)", soft_wrap=True)
    sys.stdout.flush()


def _server_args(options: argparse.Namespace) -> int:
    """The passport check, as `tritonkit passport --print-server-args` has it; its answer into the file."""
    from tritonkit import atomic

    arguments = engine.server_args(engine.directories_of([], options.repository))
    if options.server_args:
        atomic.write(options.server_args, f"{arguments}\n".encode())
    place = f", in {options.server_args}" if options.server_args else ""
    out.print(
        f"tritonserver's arguments{place}: {arguments or 'none: every model may run here as it is'}", soft_wrap=True
    )
    return 0
