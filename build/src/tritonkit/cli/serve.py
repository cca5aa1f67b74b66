"""``tritonkit serve``: a real Triton on a repository; ``install-server`` brings it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tritonkit.cli.output import Verbs, out
from tritonkit.errors import InputError, OutputError, TritonkitError

ENGINES = ("vllm",)  # those of tritonkit.server.engine_environment, which is imported late

if TYPE_CHECKING:
    from tritonkit.server import TritonServer
    from tritonkit.server.reload import Change
    from tritonkit.server.supervision import Event


def add(verbs: Verbs, common: argparse.ArgumentParser, _report: argparse.ArgumentParser) -> None:
    """Add the arguments of ``serve`` and ``install-server``."""
    serve = verbs.add_parser(
        "serve", parents=[common], help="run a real Triton on a repository",
        usage="tritonkit serve [OPTION ...] [REPOSITORY] [-- TRITON_OPTION ...]",
        epilog="What follows `--` goes to tritonserver as it is.",
        examples=[
            "tritonkit serve",
            "tritonkit serve my_repository --http-port 9000 -- --exit-on-error=false",
            "tritonkit serve --recipe my_model.yaml",
            "tritonkit serve -- --model-control-mode=poll --repository-poll-secs=1",
        ],
    )  # fmt: skip
    serve.add_argument(
        "repository", type=Path, nargs="?", default=Path("model_repository"), help="default: %(default)s"
    )
    serve.add_argument(
        "--recipe", type=Path, action="append", default=[], metavar="FILE",
        help="serve the models of this recipe alone, which the repository has; repeat it for more; default: all models",
    )  # fmt: skip
    serve.add_argument("--http-port", type=int, default=8000, help="0 takes a free one; default: %(default)s")
    serve.add_argument("--grpc-port", type=int, default=8001, help="default: %(default)s")
    serve.add_argument("--metrics-port", type=int, default=8002, help="default: %(default)s")
    serve.add_argument(
        "--timeout", type=float, help="seconds until ready; default: 120, and 900 for each language model"
    )
    serve.add_argument("--log", type=Path, help="keep Triton's own log in this file")
    serve.add_argument(
        "--keep-queue-bounds", action="store_true",
        help="serve bounded queues as they are configured, though this Triton release stalls with them now and then",
    )  # fmt: skip
    serve.add_argument(
        "--watch", action="store_true",
        help="take up what changes in the repository, without losing a request: rebuilt, new and removed models",
    )  # fmt: skip
    serve.set_defaults(command=_serve, rest=[])

    install = verbs.add_parser(
        "install-server", parents=[common], help="install the embedded Triton",
        examples=[
            "tritonkit install-server", "tritonkit install-server my_repository",
            "tritonkit install-server --engine vllm",
        ],
    )  # fmt: skip
    install.add_argument("repository", type=Path, nargs="?", help="also install what its Python models import")
    install.add_argument("--device", choices=["cpu", "cuda"], help="default: what this machine has")
    install.add_argument(
        "--engine", choices=ENGINES, help="also install this engine of language models, in an environment of its own"
    )
    install.set_defaults(command=_install)


def _serve(options: argparse.Namespace) -> int:
    from tritonkit import progress
    from tritonkit.server import TritonServer, queue_bounds
    from tritonkit.server.runtime import RELEASE

    server = TritonServer(
        options.repository, http_port=options.http_port, grpc_port=options.grpc_port, log=options.log,
        metrics_port=options.metrics_port, timeout_s=options.timeout, arguments=options.rest,
        keep_queue_bounds=options.keep_queue_bounds, watch=options.watch,
        models=models_of(options.recipe, options.repository), supervise=True,
    )  # fmt: skip
    with progress.task("Triton") as report:
        report(f"start on {options.repository}")
        server.start(report)
    try:
        out.print(f"ready: {server.grpc_url}  {server.http_url}  metrics {server.metrics_url}", soft_wrap=True)
        for state in server.language_models():
            out.print(f"OpenAI API of {state.model}: {state.url}", soft_wrap=True, markup=False)
        if server.unbounded:
            out.print(
                f"without queue bounds: {', '.join(server.unbounded)}; any number of requests may wait here, as Triton "
                f"{RELEASE} now and then stalls with a bound (--keep-queue-bounds leaves it in)", soft_wrap=True,
            )  # fmt: skip
        if server.bounded:
            option = queue_bounds.reads_later(server.arguments)
            out.print(
                f"with queue bounds: {', '.join(server.bounded)}; Triton {RELEASE} stalls with them now and then, and "
                f"with {option} they stay (--watch takes changes up without them)", soft_wrap=True,
            )  # fmt: skip
        if options.watch:
            out.print(f"watching {options.repository}: a change is served as soon as it is loaded", soft_wrap=True)
        out.print("Ctrl-C stops it")
        sys.stdout.flush()
        status = _look_after(server)
    except KeyboardInterrupt:
        out.print("stopping")
        return 0
    finally:
        server.stop()
    raise TritonkitError(f"tritonserver ended by itself with status {status}", "start it with --log to keep its log")


def models_of(paths: Sequence[Path], repository: Path) -> list[str]:
    """Every model that these recipes put into the repository; none without recipes.

    Raises:
        RecipeError: A recipe cannot be read.
        InputError: The repository lacks a model.
    """
    from tritonkit import pipeline, recipe

    names = []
    for path in paths:
        recipe_names = sorted(pipeline.names(recipe.load(path)))
        if missing := [name for name in recipe_names if not (repository / name).is_dir()]:
            raise InputError(
                f"{repository} has no model {missing[0]}",
                f"`tritonkit build {path} --repository {repository}` makes it",
            )
        names += recipe_names
    return names


def _look_after(server: TritonServer) -> int:
    """Load models again whose process has ended, and take up changes, until the server ends; its exit status."""
    from tritonkit.server import reload, supervision

    while (status := server.wait(min(reload.LOOK_EVERY_S, supervision.LOOK_EVERY_S))) is None:
        try:
            for event in server.look_after():
                _print(_words(event))
            change = server.take_up() if server.watch else None
        except OSError:
            continue  # the server is ending, as the next wait sees
        except TritonkitError as error:
            _print(f"not reloaded: {error}")
            continue
        for line in _lines(change, server.repository) if change is not None else ():
            _print(line)
    return status


def _print(line: str) -> None:
    out.print(line, soft_wrap=True, markup=False)
    sys.stdout.flush()


def _words(event: Event) -> str:
    """What became of a model whose process ended, in words."""
    if event.pause_s is None:
        times = "once" if event.restarts == 1 else f"{event.restarts} times"
        return f"{event.model}: ready again; loaded again {times} since the start"
    if event.ended:
        processes = "a process" if event.ended == 1 else f"{event.ended} processes"
        unloaded = f"; it could not be unloaded: {event.reason}" if event.reason else ""
        return (
            f"{event.model}: {processes} of it ended; it is not ready, and is loaded again in {event.pause_s:.0f} s"
            f"{unloaded}"
        )
    return f"{event.model}: not loaded again: {event.reason}\n  it is tried again in {event.pause_s:.0f} s"


def _lines(change: Change, repository: Path) -> Iterator[str]:
    """What was taken up, in words."""
    if change.loaded:
        yield f"reloaded: {', '.join(change.loaded)}"
    if change.unloaded:
        yield f"unloaded: {', '.join(change.unloaded)}"
    for name in change.reconnected:
        yield f"{name}: its steps hand on other tensors than before; requests to it could fail while it was reloaded"
    for name, packages in change.lacking.items():
        yield (
            f"not loaded: {name}: it needs {', '.join(packages)}, and this server was started without\n"
            f"  fix: `tritonkit install-server {repository}`, then start the server again"
        )
    for name, reason in change.failed.items():
        fix = "build it again; what it served before, it still serves"
        if "ModuleNotFoundError" in reason:  # one that no passport lists, or it would be among the lacking
            fix = (
                "name the package under `packages` of the recipe's `python`, build it again, and start the server again"
            )
        yield f"not reloaded: {name}: {reason}\n  fix: {fix}"


def _install(options: argparse.Namespace) -> int:
    from tritonkit.server import engine_environment, install, runtime

    installed = install(options.device)
    out.print(f"Triton is in {installed.path}")
    if options.engine:
        environment = engine_environment.install(options.device)
        out.print(f"{options.engine} is in {environment.path}")
    if options.repository is not None:
        if not options.repository.is_dir():
            raise OutputError(f"{options.repository} is not a directory", "name a model repository")
        packages = runtime.packages_of(options.repository)
        runtime.install_packages(installed, packages)
        out.print(f"its Python models have {', '.join(sorted(packages)) or 'all that they need'}", soft_wrap=True)
    return 0
