"""The ``tritonkit`` command: parses, calls, prints.

Exit codes: 0 done, 1 a check said no, 2 bad input, 3 something is missing on this machine.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tritonkit import __version__
from tritonkit.errors import InputError, OutputError, TritonkitError

out = Console(highlight=False)
RECIPES = Path("build/recipes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except TritonkitError as error:
        if options.debug:
            raise
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {escape(str(error))}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    report = argparse.ArgumentParser(add_help=False)
    report.add_argument("--json", action="store_true", help="print the result as JSON")
    parser = argparse.ArgumentParser("tritonkit", description="One road from a PyTorch model to GPU nodes.")
    parser.add_argument("--version", action="version", version=f"tritonkit {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    build = verbs.add_parser("build", parents=[common, report], help="export, check and lay out models")
    build.add_argument("recipes", nargs="*", type=Path, metavar="RECIPE", help="recipe files")
    build.add_argument("--all", action="store_true", help=f"every recipe in {RECIPES}")
    build.add_argument("--repository", type=Path, default=Path("model_repository"), help="default: %(default)s")
    build.add_argument("--target", choices=["cpu", "cuda"], default="cpu", help="where it runs; default: %(default)s")
    build.add_argument("--overwrite", action="store_true", help="replace configurations that were edited by hand")
    build.set_defaults(command=_build)

    serve = verbs.add_parser("serve", parents=[common], help="run a real Triton on a repository")
    serve.add_argument("repository", type=Path, nargs="?", default=Path("model_repository"))
    serve.add_argument("--http-port", type=int, default=8000, help="0 takes a free one; default: %(default)s")
    serve.add_argument("--grpc-port", type=int, default=8001, help="default: %(default)s")
    serve.add_argument("--metrics-port", type=int, default=8002, help="default: %(default)s")
    serve.add_argument("--timeout", type=float, default=120, help="seconds until ready; default: %(default)s")
    serve.add_argument("--log", type=Path, help="keep Triton's own log in this file")
    serve.add_argument("triton", nargs="*", metavar="-- ARG", help="more of tritonserver's own arguments")
    serve.set_defaults(command=_serve)

    install = verbs.add_parser("install-server", parents=[common], help="install the embedded Triton")
    install.add_argument("--device", choices=["cpu", "cuda"], help="default: what this machine has")
    install.set_defaults(command=_install)

    init = verbs.add_parser("init", parents=[common], help="write a first recipe by looking at a model")
    init.add_argument("model", help="model.onnx, module:function, file.py:function, or a Hugging Face directory")
    init.add_argument("--input", action="append", default=[], metavar="NAME:DTYPE:DIMS", help="what a module takes")
    init.add_argument("--output", "-o", type=Path, help="default: NAME.yaml")
    init.set_defaults(command=_init)

    doctor = verbs.add_parser("doctor", parents=[common, report], help="what this machine can do, what is missing")
    doctor.set_defaults(command=_doctor)
    return parser


def _build(options: argparse.Namespace) -> int:
    from tritonkit import pipeline, recipe

    if options.all == bool(options.recipes):
        raise InputError("name recipe files, or --all", f"tritonkit build {RECIPES}/NAME.yaml")
    paths = sorted(RECIPES.glob("*.yaml")) if options.all else options.recipes
    if not paths:
        raise InputError(
            f"there are no recipes in {RECIPES.absolute()}", "run this where build/recipes is, or name one"
        )
    built = pipeline.build(
        [recipe.load(path) for path in paths], options.repository, options.target, overwrite=options.overwrite
    )
    if options.json:
        _print_json({"repository": str(options.repository), **asdict(built)})
        return 0
    table = Table("model", "graph", "largest error", "", box=None, pad_edge=False)
    for name, facts in built.models.items():
        how = "exported now" if name in built.exported else "unchanged"
        table.add_row(name, f"{facts['graph_bytes'] / 1e6:.1f} MB", _worst(facts["worst_parity"]), how)
    out.print(table)
    out.print(f"{options.repository} is {'written' if built.changed else 'up to date'}; next: tritonkit serve")
    return 0


def _worst(measured: dict[str, Any] | None) -> str:
    if measured is None:
        return "not batched: nothing to compare"
    what = "" if measured["check"] == "module" else " (rows in a batch against rows alone)"
    return f"{measured['relative']:.1e} relative, {measured['max_abs']:.1e} absolute{what}"


def _serve(options: argparse.Namespace) -> int:
    from tritonkit import progress
    from tritonkit.server import TritonServer

    server = TritonServer(
        options.repository, http_port=options.http_port, grpc_port=options.grpc_port, log=options.log,
        metrics_port=options.metrics_port, timeout_s=options.timeout, arguments=options.triton,
    )  # fmt: skip
    signal.signal(signal.SIGTERM, _interrupt)
    with progress.steps("Triton", 1) as steps:
        steps.next(f"start on {options.repository}")
        server.start()
    try:
        out.print(f"ready: {server.grpc_url}  {server.http_url}  metrics {server.metrics_url}", soft_wrap=True)
        out.print("Ctrl-C stops it")
        sys.stdout.flush()
        status = server.wait()
    except KeyboardInterrupt:
        out.print("stopping")
        return 0
    finally:
        server.stop()
    raise TritonkitError(f"tritonserver ended by itself with status {status}", "start it with --log to keep its log")


def _install(options: argparse.Namespace) -> int:
    from tritonkit.server import install

    out.print(f"Triton is in {install(options.device).path}")
    return 0


def _init(options: argparse.Namespace) -> int:
    from tritonkit import atomic, initialise

    directory = (options.output or Path("recipe.yaml")).absolute().parent
    shapes = dict(initialise.parse_input(text) for text in options.input)
    found = initialise.sketch(options.model, directory, shapes)
    path: Path = options.output or Path(f"{found.name}.yaml")
    if path.exists():
        raise OutputError(f"{path} exists", "name another file with --output")
    atomic.write(path, initialise.as_yaml(found).encode())
    out.print(f"wrote {path}; next: tritonkit build {path}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from tritonkit import doctor

    findings = doctor.examine()
    if options.json:
        _print_json([asdict(finding) for finding in findings])
    else:
        table = Table("", "what", "", box=None, pad_edge=False)
        for finding in findings:
            mark = "[green]yes[/]" if finding.present else "[red]no[/]" if finding.needed else "[yellow]no[/]"
            table.add_row(mark, finding.name, escape(finding.detail + (f"\n→ {finding.fix}" if finding.fix else "")))
        out.print(table)
    missing = [finding.name for finding in findings if finding.needed and not finding.present]
    if missing and not options.json:
        out.print(f"missing for the first steps: {', '.join(missing)}")
    return 3 if missing else 0


def _print_json(data: object) -> None:
    print(json.dumps(data, indent=2))  # noqa: T201


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
