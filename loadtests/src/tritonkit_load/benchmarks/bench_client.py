"""`make bench-client`: what the client costs beside the raw ones, and what it survives, against real servers.

One run, interleaved: contenders take turns within seconds of each other, so that a noisy machine disturbs all of
them; what counts are medians of ratios. The server has one core and the client the other where times are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
from rich.console import Console
from rich.table import Table

from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.server import TritonServer
from tritonkit_client import AsyncClient, Client, SharedMemory
from tritonkit_load.benchmarks.bench_failures import Bar, failures
from tritonkit_load.benchmarks.bench_serving import on_core

SERVER_CORE, CLIENT_CORE = 0, 1
SIZES = {"1 kB": (1_000, 1500), "600 kB": (600_000, 300)}
IN_FLIGHT, ROUNDS, ROUND_S = 64, 25, 0.4

MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("y", pb_utils.get_input_tensor_by_name(r, "x").as_numpy())])
            for r in requests
        ]
"""
CONFIG = """
backend: "python"
input { name: "x" data_type: TYPE_UINT8 dims: [-1] }
output { name: "y" data_type: TYPE_UINT8 dims: [-1] }
"""


@dataclass
class Report:
    """The rows of the table, and which promises were not kept."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def add(self, what: str, figure: str, bar: Bar | None = None) -> None:
        """Add a row; its bar says what was promised and whether it was kept."""
        self.rows.append((what, figure, "" if bar is None else f"{bar.promise}: {'kept' if bar.kept else 'MISSED'}"))
        if bar is not None and not bar.kept:
            self.missed.append(what)


def main() -> int:
    """Measure everything and print one table."""
    _parser().parse_args()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="tritonkit-bench-client-") as directory:
        repository = Path(directory)
        (repository / "identity/1").mkdir(parents=True)
        (repository / "identity/1/model.py").write_text(MODEL)
        (repository / "identity/config.pbtxt").write_text(CONFIG)
        with TritonServer(repository, cores=[SERVER_CORE], exit_timeout_s=1) as server, on_core(CLIENT_CORE):
            _latency(server, report)
            asyncio.run(_throughput(server, report))
            _shared_memory(server, report)
        for what, figure, bar in failures(repository):
            report.add(what, figure, bar)
    _footprint(report)
    table = Table("measured", "found", "promised", box=None, pad_edge=False)
    for row in report.rows:
        table.add_row(*row)
    Console(highlight=False, width=130).print(table)
    return 1 if report.missed else 0


def _parser() -> Parser:
    return Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["python -m tritonkit_load.benchmarks.bench_client"],
    )  # fmt: skip


def _latency(server: TritonServer, report: Report) -> None:
    grpc_address = server.grpc_url.removeprefix("grpc://")
    http_address = server.http_url.removeprefix("http://")
    raw_grpc = tritonclient.grpc.InferenceServerClient(grpc_address)
    raw_http = tritonclient.http.InferenceServerClient(http_address)
    ours_grpc, ours_http = Client(server.grpc_url), Client(server.http_url)
    contenders: dict[str, Callable[[Any], Any]] = {
        "tritonkit-client grpc": lambda array: ours_grpc.infer("identity", x=array)["y"],
        "raw tritonclient.grpc": lambda array: _raw(tritonclient.grpc, raw_grpc, array),
        "tritonkit-client http": lambda array: ours_http.infer("identity", x=array)["y"],
        "raw tritonclient.http": lambda array: _raw(tritonclient.http, raw_http, array),
        **_pytriton(server, report),
    }
    for size, (count, turns) in SIZES.items():
        array = np.random.default_rng(0).integers(0, 255, count, dtype=np.uint8)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        order = list(contenders.items())
        for turn in range(turns):
            random.shuffle(order)  # what one call leaves to be done falls upon the next
            for name, call in order:
                start = time.perf_counter()
                answer = call(array)
                times[name].append(time.perf_counter() - start)
                if turn == 0 and not np.array_equal(answer, array):
                    raise AssertionError(f"{name} returned something else")
        median = {name: statistics.median(seconds[turns // 10 :]) * 1e3 for name, seconds in times.items()}
        ratio = median["tritonkit-client grpc"] / median["raw tritonclient.grpc"]
        for name, value in median.items():
            bar = Bar("<= 1.05x raw", ratio <= 1.05) if name == "tritonkit-client grpc" else None
            report.add(f"p50, {size}, {name}", f"{value:.3f} ms" + (f" ({ratio:.3f}x raw)" if bar else ""), bar)
    for client in (raw_grpc, raw_http, ours_grpc, ours_http):
        client.close()


def _raw(module: Any, client: Any, array: Any) -> Any:
    """One inference as the raw client's documentation has it."""
    tensor = module.InferInput("x", array.shape, "UINT8")
    tensor.set_data_from_numpy(array)
    return client.infer("identity", [tensor]).as_numpy("y")


def _pytriton(server: TritonServer, report: Report) -> dict[str, Callable[[Any], Any]]:
    """PyTriton's client, which lies in the wheel that the server comes from; it is no dependency of anything here."""
    sys.path.append(str(server.runtime.binary.parents[3]))
    try:
        from pytriton.client import ModelClient
    except (ImportError, RuntimeError) as error:
        report.add("PyTriton's ModelClient", f"cannot be imported: {error}")
        return {}
    finally:
        sys.path.pop()
    client = ModelClient(server.grpc_url, "identity")
    return {"PyTriton ModelClient grpc": lambda array: client.infer_sample(array)["y"]}


async def _throughput(server: TritonServer, report: Report) -> None:
    array = np.zeros(1_000, np.uint8)
    raw = tritonclient.grpc.aio.InferenceServerClient(server.grpc_url.removeprefix("grpc://"))

    async def ask_raw() -> None:
        tensor = tritonclient.grpc.InferInput("x", array.shape, "UINT8")
        tensor.set_data_from_numpy(array)
        (await raw.infer("identity", [tensor])).as_numpy("y")

    async with AsyncClient(server.grpc_url) as ours, AsyncClient(server.http_url) as ours_http:

        async def ask_ours() -> None:
            (await ours.infer("identity", x=array))["y"]

        async def ask_http() -> None:
            (await ours_http.infer("identity", x=array))["y"]

        contenders = {"ours": ask_ours, "raw": ask_raw, "http": ask_http}
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(ROUNDS + 1):
            for name, ask in contenders.items():
                rate = await _rate(ask)
                if turn:  # the first one warms up
                    rates[name].append(rate)
    await raw.close()
    ratio = statistics.median(ours / raw for ours, raw in zip(rates["ours"], rates["raw"], strict=True))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    promise = Bar(">= 1.0x raw", ratio >= 1.0)
    report.add(
        "async, 1 kB, 64 in flight, tritonkit-client grpc", f"{medians['ours']:.0f}/s ({ratio:.3f}x raw)", promise
    )
    report.add("async, 1 kB, 64 in flight, raw tritonclient.grpc.aio", f"{medians['raw']:.0f}/s")
    report.add("async, 1 kB, 64 in flight, tritonkit-client http", f"{medians['http']:.0f}/s")


async def _rate(ask: Callable[[], Any]) -> float:
    """Calls a second with so many in flight."""
    end = time.perf_counter() + ROUND_S
    counted = 0

    async def work() -> None:
        nonlocal counted
        while time.perf_counter() < end:
            await ask()
            counted += 1

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return counted / (time.perf_counter() - start)


def _shared_memory(server: TritonServer, report: Report) -> None:
    array = np.random.default_rng(0).integers(0, 255, 10_000_000, dtype=np.uint8)
    with Client(server.grpc_url) as plain, Client(server.grpc_url, shared_memory=SharedMemory()) as shared:
        rates: dict[str, list[float]] = {"plain": [], "shared": []}
        for turn in range(ROUNDS + 1):
            for name, client in (("plain", plain), ("shared", shared)):
                start = time.perf_counter()
                for _ in range(4):
                    answer = client.infer("identity", x=array)["y"]
                    assert answer[-1] == array[-1]
                if turn:
                    rates[name].append(4 / (time.perf_counter() - start))
    ratio = statistics.median(fast / slow for fast, slow in zip(rates["shared"], rates["plain"], strict=True))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    report.add("10 MB, gRPC", f"{medians['plain']:.1f}/s")
    report.add("10 MB, shared memory", f"{medians['shared']:.1f}/s ({ratio:.2f}x)", Bar(">= 2x gRPC", ratio >= 2))


def _footprint(report: Report) -> None:
    code = (
        "import time; t = time.perf_counter(); import {module}; s = time.perf_counter() - t;"
        "print(s, next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS')))"
    )
    modules = ("tritonkit_client", "tritonclient.grpc", "tritonclient.http")
    costs: dict[str, list[tuple[float, float]]] = {module: [] for module in modules}
    for _ in range(5):
        for module in modules:
            command = [sys.executable, "-c", code.format(module=module)]
            seconds, kilobytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            costs[module].append((float(seconds), float(kilobytes)))
    for module, runs in costs.items():
        seconds, kilobytes = (statistics.median(values) for values in zip(*runs, strict=True))
        report.add(f"import {module}", f"{seconds * 1e3:.0f} ms, {kilobytes / 1024:.0f} MB")


if __name__ == "__main__":
    sys.exit(run_command(main))
