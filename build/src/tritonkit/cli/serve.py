"""``tritonkit serve``: a real Triton on a repository; ``install-server`` brings it."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from tritonkit.cli.output import Verbs, out
from tritonkit.errors import TritonkitError


def add(verbs: Verbs, common: argparse.ArgumentParser, _report: argparse.ArgumentParser) -> None:
    """Say the arguments of ``serve`` and ``install-server``."""
    serve = verbs.add_parser(
        "serve", parents=[common], help="run a real Triton on a repository",
        usage="tritonkit serve [OPTION ...] [REPOSITORY] [-- TRITON_OPTION ...]",
        epilog="What follows `--` goes to tritonserver as it is.",
        examples=[
            "tritonkit serve",
            "tritonkit serve my_repository --http-port 9000 -- --exit-on-error=false",
            "tritonkit serve -- --model-control-mode=poll --repository-poll-secs=1",
        ],
    )  # fmt: skip
    serve.add_argument(
        "repository", type=Path, nargs="?", default=Path("model_repository"), help="default: %(default)s"
    )
    serve.add_argument("--http-port", type=int, default=8000, help="0 takes a free one; default: %(default)s")
    serve.add_argument("--grpc-port", type=int, default=8001, help="default: %(default)s")
    serve.add_argument("--metrics-port", type=int, default=8002, help="default: %(default)s")
    serve.add_argument("--timeout", type=float, default=120, help="seconds until ready; default: %(default)s")
    serve.add_argument("--log", type=Path, help="keep Triton's own log in this file")
    serve.add_argument(
        "--keep-queue-bounds", action="store_true",
        help="serve bounded queues as they are configured, though this Triton release stalls with them now and then",
    )  # fmt: skip
    serve.set_defaults(command=_serve, rest=[])

    install = verbs.add_parser(
        "install-server", parents=[common], help="install the embedded Triton", examples=["tritonkit install-server"]
    )
    install.add_argument("--device", choices=["cpu", "cuda"], help="default: what this machine has")
    install.set_defaults(command=_install)


def _serve(options: argparse.Namespace) -> int:
    from tritonkit import progress
    from tritonkit.server import TritonServer
    from tritonkit.server.runtime import RELEASE

    server = TritonServer(
        options.repository, http_port=options.http_port, grpc_port=options.grpc_port, log=options.log,
        metrics_port=options.metrics_port, timeout_s=options.timeout, arguments=options.rest,
        keep_queue_bounds=options.keep_queue_bounds,
    )  # fmt: skip
    signal.signal(signal.SIGTERM, _interrupt)
    with progress.steps("Triton", 1) as steps:
        steps.next(f"start on {options.repository}")
        server.start()
    try:
        out.print(f"ready: {server.grpc_url}  {server.http_url}  metrics {server.metrics_url}", soft_wrap=True)
        if server.unbounded:
            out.print(
                f"without queue bounds: {', '.join(server.unbounded)}; Triton {RELEASE} stalls with them "
                "(--keep-queue-bounds)", soft_wrap=True,
            )  # fmt: skip
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


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
