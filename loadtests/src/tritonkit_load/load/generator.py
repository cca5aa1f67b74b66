"""A load generator that stays: child processes with Locust in them, started once, for many short load tests."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tritonkit.errors import CheckFailed, InputError, MissingError, TritonkitError
from tritonkit.recipe import load as load_recipe
from tritonkit_load.load import environment, summary
from tritonkit_load.load.plan import Plan
from tritonkit_load.load.recording import Recording, merged, write_rows
from tritonkit_load.load.result import Result, ServerSide
from tritonkit_load.load.slo import Slo

__all__ = ["Generator", "Plan"]

STARTS_S = 120.0  # a child imports Locust and reads the samples: some seconds
AHEAD_S = 0.1  # between the order to start and the start, so that it reaches every child before
LONGEST_DRAIN_S = 60.0  # beyond a plan's own time
_ERRORS = {InputError.exit_code: InputError, CheckFailed.exit_code: CheckFailed, MissingError.exit_code: MissingError}


class Generator:
    """Runs plans against one server; use it as a context manager.

    Args:
        host: The server, for example ``grpc://127.0.0.1:8001``.
        user: A class of :mod:`.load.users`, or ``module:Class`` of a subclass of :class:`.load.users.ModelUser` that
            this process could import; the children get its ``sys.path``.
        recipes: Whose models and samples are sent; a plan's ``models`` weighs them.
        core: CPU core of the first process, the next ones take those above, as far as there are any; None leaves
            that to the system.
        processes: How many share the load.
        metrics_url: Triton's metrics, for the GPU's figures; None leaves those out.

    Attributes:
        host: Where the next run sends; it may be set between runs, to another server with the same models.
    """

    def __init__(
        self,
        host: str,
        user: str = "TritonGrpcUser",
        recipes: Sequence[Path] = (),
        *,
        core: int | None = None,
        processes: int = 1,
        metrics_url: str | None = None,
    ) -> None:
        self.host = host
        self._slos = {recipe.name: recipe.slo for recipe in map(load_recipe, recipes)}
        orders = {
            "user": user, "recipes": [str(path) for path in recipes], "metrics_url": metrics_url, "count": processes,
        }  # fmt: skip
        self._lines: queue.Queue[tuple[_Child, str | None]] = queue.Queue()
        self._children = [
            _Child(orders | {"index": index}, pinned, self._lines)
            for index, pinned in enumerate(_cores(core, processes))
        ]
        self._environment: dict[str, str] = {}

    def __enter__(self) -> Generator:
        try:
            for child in self._children:
                child.start()
            self._answers(self._children, STARTS_S)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the children."""
        for child in self._children:
            child.end()

    @property
    def runs(self) -> bool:
        """Whether all of its processes do."""
        return all(child.runs for child in self._children)

    @property
    def pids(self) -> tuple[int, ...]:
        """The children's process ids."""
        return tuple(child.pid for child in self._children)

    def run(self, plan: Plan, *, slo: Slo | None = None, record: Path | None = None) -> Result:
        """Send one plan's load and return what was found.

        Args:
            plan: What to send.
            slo: What every model is held against, instead of its recipe's.
            record: Write every measured request to this CSV file.

        Raises:
            InputError: The plan cannot be sent: a bad schedule, an unknown model, nobody at the host, samples that do
                not fit the model.
            CheckFailed: A child died; its standard error is in the message.
        """
        first, *others = self._children
        prepare = {"prepare": asdict(plan), "host": self.host}
        (ready,) = self._ask([first], prepare | {"probe": True}, STARTS_S)
        self._ask(others, prepare | {"probe": False}, STARTS_S)
        plan = replace(plan, duration_s=ready["duration_s"])
        order = {"start_s": time.perf_counter() + AHEAD_S, "keep_rows": record is not None}
        answers = self._ask(self._children, order, AHEAD_S + plan.warm_up_s + plan.duration_s + LONGEST_DRAIN_S)
        recording = merged(Recording.from_json(answer["recording"]) for answer in answers)
        if record is not None:
            write_rows(record, recording.rows)
        self._environment = self._environment or environment.machine() | environment.triton(
            self.host, tuple(self._slos)
        )
        context = summary.Context(
            plan=plan,
            protocol=ready["protocol"],
            host=self.host,
            processes=len(self._children),
            weights=ready["weights"],
            slos=dict.fromkeys(ready["weights"], slo) if slo else self._slos,
            environment=self._environment,
            alone_ms=ready["alone_ms"],
            server={name: ServerSide.from_json(side) for name, side in answers[0]["server"].items()},
        )
        return summary.result(recording, context)

    def _ask(self, children: Sequence[_Child], order: dict[str, Any], timeout_s: float) -> list[dict[str, Any]]:
        for child in children:
            child.tell(order)
        return self._answers(children, timeout_s)

    def _answers(self, children: Sequence[_Child], timeout_s: float) -> list[dict[str, Any]]:
        """One answer of each; the death of any ends them all, as the load is then not what was asked for."""
        answers: dict[_Child, dict[str, Any]] = {}
        end_s = time.monotonic() + timeout_s
        while len(answers) < len(children):
            try:
                child, line = self._lines.get(timeout=max(end_s - time.monotonic(), 0))
            except queue.Empty:
                self.close()
                raise CheckFailed(
                    f"a load generator said nothing for {timeout_s:g} s", "see whether the machine is overloaded"
                ) from None
            if line is None:
                error = child.died()
                self.close()
                raise error
            answers[child] = json.loads(line)
        for answer in answers.values():
            if "error" in answer:
                kind: type[TritonkitError] = _ERRORS.get(answer["exit_code"], CheckFailed)
                raise kind(answer["error"], answer["fix"])
        return [answers[child] for child in children]


def _cores(first: int | None, count: int) -> list[int | None]:
    """A core for each process."""
    if first is None:
        return [None] * count
    above = [core for core in sorted(os.sched_getaffinity(0)) if core >= first]
    if not above:
        raise InputError(f"this machine has no core {first} for the load generator", "another core, or none")
    return [above[index % len(above)] for index in range(count)]


class _Child:
    """One process, and its pipes."""

    def __init__(self, orders: dict[str, Any], core: int | None, lines: queue.Queue[tuple[_Child, str | None]]) -> None:
        self._orders = orders
        self._core = core
        self._lines = lines
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[bytes] | None = None

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        command = [sys.executable, "-m", "tritonkit_load.load.child", json.dumps(self._orders)]
        if self._core is not None:
            command = ["taskset", "--cpu-list", str(self._core), *command]
        # Locust's imports warn of what is no business of a load test; sys.path so that a peer's user is found.
        extra = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 -- it lives as long as the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env=os.environ | extra, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def tell(self, order: dict[str, Any]) -> None:
        pipe = self._running().stdin
        assert pipe is not None
        try:
            pipe.write(json.dumps(order) + "\n")
            pipe.flush()
        except BrokenPipeError as error:
            raise self.died() from error

    def end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        if self._errors is not None:
            self._errors.close()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise CheckFailed("the load generator does not run", "use it in a `with` block")
        return self._process

    def _read(self, pipe: IO[str]) -> None:
        with contextlib.suppress(ValueError):  # closed
            for line in pipe:
                self._lines.put((self, line))
        self._lines.put((self, None))

    def died(self) -> CheckFailed:
        status = self._running().wait(5)
        assert self._errors is not None
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        return CheckFailed(
            f"a load generator process died (status {status}), and the test with it\n{text[-2000:]}".strip(),
            "read its error above; -9 is a kill, for want of memory for example",
        )
