"""The process of vLLM's server: started, watched, started again with growing pauses when it ends, and ended.

It is started by the thread that runs the event loop, which lives as long as it: the kernel kills it when that thread
ends (``tritonkit_end_with_parent`` in its environment), however that happens.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from . import http_client
from .arguments import Settings

MODULE = "vllm.entrypoints.openai.api_server"
PORTS = Path(__file__).resolve().parents[3] / "ports.py"  # the rule for ports, which all of tritonkit's servers share
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # before a server is started again, doubled each time
STEADY_S = 60.0  # one that ran so long begins with the first pause again
LOOK_EVERY_S = 0.1
SETTLE_S = 0.5
END_S = 3.0  # for a server to end by itself; Triton gives its models five seconds
PORT_ATTEMPTS = 3
TAIL_LINES = 400
# Reasons stand behind these, in a log of tracebacks.
_REASON = re.compile(r"(?:^|[\s\]])(?:Value error, |(?:[\w.]+\.)?\w*(?:Error|Exception): |\S+: error: )(.+)$")
_DECORATION = re.compile(r"^\(\w+ pid=\d+\) ?|^(?:INFO|WARNING|ERROR|DEBUG) [\d-]+ [\d:]+ \[[^\]]*\] ?")
# Sentences that only say that there is a reason.
_CONSEQUENCE = re.compile(r"(?:Engine core|WorkerProc) initialization failed|\d+ validation errors? for")
_POINTER = re.compile(r" \[type=\w+, input_value=.*$")
# What a start is doing, by what vLLM logs as it begins.
PHASES = (
    ("Initializing a V1 LLM engine", "read the model's configuration"),
    ("Starting to load model", "load the weights"),
    ("Loading weights took", "prepare the KV cache"),
    ("GPU KV cache size", "warm up"),
    ("Starting vLLM server", "open the port"),
)


class Unavailable(Exception):
    """There is no server that could answer now; the message says why and until when."""


class StartFailed(Exception):
    """The server ended before it was ready; the message has its own reason."""


class EngineProcess:
    """One server of vLLM.

    Args:
        settings: What it serves.
        python: The interpreter of its environment.
        library_path: ``LD_LIBRARY_PATH`` of its own, as the stub's is Triton's.
        report: Called with each phase of a start.
        log: Called with a line for Triton's log.
        directory: A folder for its sockets.
        device: The GPU that it is to see alone; all if None.
    """

    def __init__(
        self, settings: Settings, python: str, *, report: Callable[[str], None], log: Callable[[str], None],
        library_path: str = "", directory: str | None = None, device: str | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.port = 0
        self.restarts = 0
        self._python = python
        self._library_path = library_path
        self._directory = directory
        self._device = device
        self._report = report
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._stopping = False
        self._why = "it is starting"
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self._ready and self._status() is None

    @property
    def pid(self) -> int | None:
        """Its process, or None."""
        return self._process.pid if self._process else None

    def check(self) -> None:
        """Raise Unavailable if the server does not answer now."""
        if not self.ready:
            raise Unavailable(self.unavailable())

    def unavailable(self) -> str:
        """The message for a caller who cannot be answered."""
        if self._ready:  # it has ended just now, and nobody has looked yet, or it is about to
            status = self._status()
            self._why = f"its vLLM process {'lost its engine' if status is None else _ending(status)}"
        return f"{self.settings.name} is restarting: {self._why}; send the request again in a minute"

    async def lost(self) -> str:
        """The message for a caller whose connection was lost; waits a moment, as the process may be about to end."""
        deadline = time.monotonic() + SETTLE_S
        while self._status() is None and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return self.unavailable()

    async def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            StartFailed: The server ended; the message is its own reason.
        """
        for attempt in range(PORT_ATTEMPTS):
            self.port = self.port or free_port()
            self._spawn()
            try:
                await self._wait()
                return
            except StartFailed:
                if attempt + 1 == PORT_ATTEMPTS or not any("address already in use" in line for line in self._tail):
                    raise
                self.port = 0

    async def keep(self, restarted: Callable[[], None]) -> None:
        """Start it again whenever it ends, until :meth:`stop`.

        Args:
            restarted: Called after each end, and once it answers again.
        """
        pause = 0.0
        while not self._stopping:
            since = time.monotonic()
            while self._status() is None and not self._stopping:
                await asyncio.sleep(LOOK_EVERY_S)
            if self._stopping:
                return
            self._ready = False
            status = self._status()
            ending = _ending(status)
            steady = time.monotonic() - since >= STEADY_S
            pause = FIRST_PAUSE_S if steady or not pause else min(pause * 2, LONGEST_PAUSE_S)
            self._why = f"its vLLM process {ending}"
            reason = "" if status is None or status < 0 else f": {self.reason()}"  # a signal leaves no word in the log
            self._log(f"{self.settings.name}: vLLM {ending}{reason}; it is started again in {pause:.0f} s")
            self.restarts += 1
            restarted()
            await asyncio.sleep(pause)
            with contextlib.suppress(StartFailed):
                if not self._stopping:
                    await self.start()
                    self._log(f"{self.settings.name}: vLLM answers again")
                    restarted()

    async def stop(self) -> None:
        """End it, and what it started."""
        self._stopping = True
        process, self._ready = self._process, False
        if process is None or process.poll() is not None:
            return
        process.terminate()
        deadline = time.monotonic() + END_S
        while process.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if process.poll() is None:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End it at once."""
        self._stopping = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def reason(self) -> str:
        """Why it ended, in vLLM's own words, as its log has them."""
        lines = [_plain(line) for line in self._tail]
        reasons = [match[1].strip() for line in lines if (match := _REASON.search(line))]
        causes = [reason for reason in reasons if not _CONSEQUENCE.match(reason)]
        text = next(iter(causes or reasons or [line for line in reversed(lines) if line.strip()]), "it gave no reason")
        return _POINTER.sub("", text)

    def _status(self) -> int | None:
        """What the process ended with; None while it runs, or before there is one."""
        return self._process.poll() if self._process else None

    def _spawn(self) -> None:
        self._tail.clear()
        command = [self._python, "-m", MODULE, *self.settings.command_line(self.port)]
        self._report("start vLLM")
        self._process = subprocess.Popen(
            command,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._directory,
        )
        threading.Thread(target=self._follow, args=(self._process.stdout,), daemon=True).start()

    def _environment(self) -> dict[str, str]:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        variables.pop("LD_LIBRARY_PATH", None)
        variables |= {
            "TRITONKIT_PARENT": str(os.getpid()),
            "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a forked process would not end with its parent
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "VLLM_LOGGING_COLOR": "0",
            "PYTHONUNBUFFERED": "1",
            "LC_ALL": "C.UTF-8",
        }
        if self._directory:
            variables["VLLM_RPC_BASE_PATH"] = str(self._directory)
        if self._library_path:
            variables["LD_LIBRARY_PATH"] = self._library_path
        if self._device is not None:
            variables["CUDA_VISIBLE_DEVICES"] = str(self._device)
        return variables

    async def _wait(self) -> None:
        while True:
            if self._status() is not None:
                raise StartFailed(self.reason())
            try:
                status, _ = await http_client.call(self.port, "GET", "/health")
                if status == 200:
                    self._ready = True
                    return
            except http_client.ConnectionLost:
                pass
            await asyncio.sleep(LOOK_EVERY_S)

    def _follow(self, output: IO[bytes] | None) -> None:
        """Copy the server's log into Triton's, keep its last lines, and report the phases of a start."""
        phases = dict(PHASES)
        for raw in output or ():
            line = raw.decode("utf-8", "replace").rstrip("\n")
            self._tail.append(line)
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
            for mark in [mark for mark in phases if mark in line]:
                self._report(phases.pop(mark))


def free_port() -> int:
    """A port at which nobody listens, chosen by the rule of tritonkit's other servers."""
    spec = importlib.util.spec_from_file_location("tritonkit_ports", PORTS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return int(module.free_ports(1)[0])


def _plain(line: str) -> str:
    """A line of the log without what stands before it."""
    while (shorter := _DECORATION.sub("", line)) != line:
        line = shorter
    return line


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
