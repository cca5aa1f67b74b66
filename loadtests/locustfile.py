"""Triton users for Locust: each sends real samples of a recipe, one request at a time, without waiting.

    locust -f loadtests/locustfile.py --recipe build/recipes/efficientnet_lite0.yaml \
           --host grpc://127.0.0.1:8001 TritonGrpcUser

``--record FILE`` keeps every request (start, latency, error) for a report.
"""

from __future__ import annotations

import csv
import itertools
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import grpc.experimental.gevent
from locust import User, constant, events, task
from locust.env import Environment

from tritonkit import recipe, samples
from tritonkit_client import Client, TritonkitClientError

grpc.experimental.gevent.init_gevent()  # without it one call blocks every user of the process (locust#1016)

SAMPLES = 128
COLUMNS = ("start_s", "latency_ms", "users", "error")  # start_s counts from the epoch


@events.init_command_line_parser.add_listener
def add_arguments(parser: Any) -> None:
    """Locust's own arguments, and ours."""
    group = parser.add_argument_group("Triton")
    group.add_argument("--recipe", type=Path, required=True, help="whose model and samples to use")
    group.add_argument("--record", type=Path, help="write every request to this CSV file")


class TritonUser(User):  # type: ignore[misc]
    """A caller of one model: the next request goes out when the answer is there."""

    abstract = True
    wait_time = constant(0)
    protocol = ""

    def on_start(self) -> None:
        """Connect; one client for each user, as separate callers have."""
        if not self.host or not self.host.startswith(f"{self.protocol}://"):
            raise SystemExit(f"{type(self).__name__} needs --host {self.protocol}://HOST:PORT, got {self.host}")
        self.client = Client(self.host, timeout=10, retry=None)  # what is refused shall show
        self.model = LOADED["recipe"].name

    def on_stop(self) -> None:
        """Disconnect."""
        self.client.close()

    @task
    def infer(self) -> None:
        """One request with a batch of one."""
        row = LOADED["samples"][next(LOADED["turns"]) % len(LOADED["samples"])]
        began, start = time.time(), time.perf_counter()
        error: TritonkitClientError | None = None
        size = 0
        try:
            outputs = self.client.infer(self.model, row)
            size = sum(array.nbytes for array in outputs.values())
        except TritonkitClientError as caught:
            error = caught
        events.request.fire(
            request_type=self.protocol, name=self.model, response_time=(time.perf_counter() - start) * 1000,
            response_length=size, exception=error, context={}, start_time=began,
        )  # fmt: skip


class TritonGrpcUser(TritonUser):
    """Over gRPC."""

    protocol = "grpc"


class TritonHttpUser(TritonUser):
    """Over HTTP, with binary tensors."""

    protocol = "http"


# What every user of this process sends: the recipe, its samples with a batch dimension, and whose turn it is.
LOADED: dict[str, Any] = {}


@events.init.add_listener
def load_samples(environment: Environment, **_: object) -> None:
    """Read the recipe and its samples once, before the first user starts."""
    options: Namespace = environment.parsed_options
    wanted = recipe.load(options.recipe)
    found = samples.load(wanted, SAMPLES)
    batched = [samples.batch([sample], 1) for sample in found] if wanted.max_batch_size else found
    LOADED.update(recipe=wanted, samples=batched, turns=itertools.count())
    if options.record:
        _record(environment, options.record)


def _record(environment: Environment, path: Path) -> None:
    rows: list[tuple[float, float, int, str]] = []

    @environment.events.request.add_listener
    def keep(response_time: float, exception: Exception | None, start_time: float, **_: object) -> None:
        error = type(exception).__name__ if exception else ""
        users = environment.runner.user_count if environment.runner else 0
        rows.append((start_time, response_time, users, error))

    @environment.events.quitting.add_listener
    def write(**_: object) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows((f"{row[0]:.6f}", f"{row[1]:.3f}", row[2], row[3]) for row in rows)
