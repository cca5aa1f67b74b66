"""Runs Locust against a server and reads back what happened, on both sides of the wire."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tritonkit.errors import CheckFailed
from tritonkit.server import TritonServer

HERE = Path(__file__).parent
_COUNTER = re.compile(r'^(nv_inference_count|nv_inference_exec_count)\{model="([^"]+)".*\} (\d+)$', re.MULTILINE)


@dataclass(frozen=True)
class Requests:
    """Every request of a run: when it started (s), how long it took (ms), beside how many users, and its error."""

    start_s: np.ndarray[tuple[int], np.dtype[np.float64]]
    latency_ms: np.ndarray[tuple[int], np.dtype[np.float64]]
    users: np.ndarray[tuple[int], np.dtype[np.int64]]
    errors: tuple[str, ...]

    def of(self, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Requests:
        """Those requests where ``chosen`` is true."""
        kept = tuple(error for error, keep in zip(self.errors, chosen, strict=True) if keep)
        return Requests(self.start_s[chosen], self.latency_ms[chosen], self.users[chosen], kept)


@dataclass(frozen=True)
class Figures:
    """What a load test says in five numbers; latencies are of the requests that succeeded."""

    requests: int
    failed: int
    throughput: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Run:
    """One load test.

    Attributes:
        requests: All of them, in the order in which they ended; ``start_s`` counts from the epoch.
        counters: What Triton's own metrics said while it ran: (time, inferences, executions).
    """

    requests: Requests
    counters: tuple[tuple[float, int, int], ...]

    def average_batch(self, requests: Requests) -> float:
        """Inferences over executions while ``requests`` ran, from Triton's metrics.

        Triton counts when an execution ends, and is asked every 0.2 s, so the ends are not sharp.
        """
        first, last = requests.start_s.min(), requests.start_s.max()
        inside = [counter for counter in self.counters if first <= counter[0] <= last] or self.counters
        (_, inferences, executions), (_, *end) = inside[0], inside[-1]
        return (end[0] - inferences) / max(end[1] - executions, 1)


def run(server: TritonServer, recipe: Path, model: str, *, protocol: str, users: Sequence[int], step_s: float) -> Run:
    """Run Locust headless against ``server``.

    Args:
        server: Running.
        recipe: Whose model and samples to use.
        model: The recipe's model.
        protocol: ``grpc`` or ``http``.
        users: How many at a time, one number a step.
        step_s: Seconds of a step.

    Raises:
        CheckFailed: Locust could not run, or sent nothing.
    """
    user_class, url = ("TritonGrpcUser", server.grpc_url) if protocol == "grpc" else ("TritonHttpUser", server.http_url)
    with _file() as record, _watched(server, model) as counters:
        command = [
            sys.executable, "-m", "locust", "-f", f"{HERE / 'locustfile.py'},{HERE / 'steps.py'}",
            "--steps", ",".join(map(str, users)), "--step-s", f"{step_s:g}", "--headless", "--only-summary",
            "--host", url, "--recipe", str(recipe), "--record", str(record), "--exit-code-on-error", "0", user_class,
        ]  # fmt: skip
        environment = os.environ | {"PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        text = record.read_text(encoding="utf-8")
    if done.returncode or text.count("\n") < 2:
        raise CheckFailed(f"Locust sent nothing (exit status {done.returncode}):\n{done.stderr[-2000:]}", "see above")
    return Run(_read(text), tuple(counters))


def figures(requests: Requests, seconds: float) -> Figures:
    """Counts, requests a second and percentiles of some requests that took ``seconds`` altogether."""
    good = requests.latency_ms[np.array([not error for error in requests.errors], dtype=bool)]
    p50, p99 = np.percentile(good, [50, 99]) if len(good) else (float("nan"), float("nan"))
    total = len(requests.errors)
    return Figures(total, total - len(good), len(good) / seconds, float(p50), float(p99))


@contextmanager
def _file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tritonkit-load-") as directory:
        path = Path(directory, "requests.csv")
        path.touch()
        yield path


def _read(text: str) -> Requests:
    rows = list(csv.DictReader(text.splitlines()))
    return Requests(
        np.array([float(row["start_s"]) for row in rows]),
        np.array([float(row["latency_ms"]) for row in rows]),
        np.array([int(row["users"]) for row in rows]),
        tuple(row["error"] for row in rows),
    )


@contextmanager
def _watched(server: TritonServer, model: str) -> Iterator[list[tuple[float, int, int]]]:
    """Ask Triton's metrics every 0.2 s, in a thread, while the block runs."""
    seen: list[tuple[float, int, int]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            seen.append((time.time(), *_counters(server, model)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _counters(server: TritonServer, model: str) -> tuple[int, int]:
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        text = answer.read().decode()
    said = {found[1]: int(found[3]) for found in _COUNTER.finditer(text) if found[2] == model}
    return said["nv_inference_count"], said["nv_inference_exec_count"]
