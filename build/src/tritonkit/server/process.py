"""Runs one embedded Triton: starts it on a repository, waits until it is ready, stops it without a trace.

It binds loopback only and sends nothing anywhere. What Triton says goes to a log file; when a model fails to
load, Triton's own sentence about it is what the user sees.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from tritonkit import atomic
from tritonkit.errors import CheckFailed, InputError, OutputError
from tritonkit.repository import selection
from tritonkit.server import engine_environment, language_models, neighbours, queue_bounds, reload, supervision
from tritonkit.server.ports import free_ports
from tritonkit.server.runtime import BACKEND_FOLDERS, RELEASE, Runtime, find, packages_of

HOST = "127.0.0.1"
SHARED_MEMORY = Path("/dev/shm")
# Makes the kernel end the server when the process that started it dies, however it dies (prctl(2),
# PR_SET_PDEATHSIG = 1). It is set in between, as code between fork and exec may not be Python in a threaded process.
_TRAMPOLINE = "import ctypes,os,sys; ctypes.CDLL(None).prctl(1, {signal}); os.execv(sys.argv[1], sys.argv[1:])"
TIMEOUT_S = 120.0
LANGUAGE_MODEL_TIMEOUT_S = 900.0  # for each: vLLM takes a minute on a laptop, and minutes to compile on a GPU
_LINK = "model_repository"
_SELECTION = "selection"
_PROBLEM = re.compile(r"^[EWF]\d{4} \S+ \d+ (\S+)\] (.*)$")
# Said by every start on a machine without a GPU; neither is a problem.
_NO_GPU = "no GPUs are available"  # Triton's core, of an instance group of KIND_GPU
_FAILED = "failed to load"  # whatever the reason mentions
_HARMLESS = ("CUDA", "Cuda", "NVML", "DCGM", "pinned memory", "GPU metrics", "PERF_METRICS", "driver")


class TritonServer:
    """A running Triton; use it as a context manager.

    The server ends when the thread that started it ends, so start it from one that lives as long.

    Args:
        repository: A model repository.
        http_port: 0 takes a free port; the same holds for the other two.
        grpc_port: See ``http_port``.
        metrics_port: See ``http_port``.
        runtime: Which installed server; the one for this machine if not given.
        arguments: More of ``tritonserver``'s own arguments, for example ``--model-control-mode=explicit``.
        log: Where Triton's log goes; a temporary file if not given.
        timeout_s: Seconds to wait for readiness; by default :data:`TIMEOUT_S`, and more with language models.
        exit_timeout_s: Seconds that requests in flight get to finish when stopping.
        cores: CPU cores to stay on; all of them if not given.
        keep_queue_bounds: Keep bounds of queues, though this release stalls with them now and then
            (:mod:`tritonkit.server.queue_bounds`).
        watch: Serve a copy of the repository, and take up what changes in it at each :meth:`take_up`.
        models: Names of the models to serve; all of the repository if not given.
        supervise: At each :meth:`look_after`, load models again whose process has ended. It is impossible with a
            ``--model-control-mode`` of the caller's own other than ``explicit``.

    Attributes:
        unbounded, bounded: Models that are served without the bounds of their queues; and with them because of
            ``arguments``, though this release stalls with them.

    Raises:
        OutputError: ``repository`` is not a directory.
        InputError: A port is in use, ``watch`` meets a ``--model-control-mode`` of the caller's own, or the repository
            lacks one of ``models``.
        MissingError: The server is not installed, or the engine of a language model in the repository.
        CheckFailed: A model did not load, or readiness did not come in time.
    """

    def __init__(
        self,
        repository: Path | str,
        *,
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        runtime: Runtime | None = None,
        arguments: Sequence[str] = (),
        log: Path | None = None,
        timeout_s: float | None = None,
        exit_timeout_s: int = 5,
        cores: Sequence[int] = (),
        keep_queue_bounds: bool = False,
        watch: bool = False,
        models: Sequence[str] = (),
        supervise: bool = False,
    ) -> None:
        self.repository = Path(repository)
        if not self.repository.is_dir():
            raise OutputError(
                f"{repository} is not a directory", "name a model repository; `tritonkit build` makes one"
            )
        self.watch = watch
        control = neighbours.control(arguments)
        if watch and control:
            raise InputError(
                "--watch loads models by itself, and --model-control-mode says who else does", "leave one of them out"
            )
        chosen = ("--model-control-mode", "--exit-on-error")  # the caller says what has to load
        of_vllm = language_models.models_of(self.repository, models)
        if watch or not any(argument.startswith(chosen) for argument in arguments):
            language_models.check(self.repository, models, of_vllm, runtime.device if runtime else None)
        self.runtime = runtime or find()
        self.arguments = (*arguments, *reload.ARGUMENTS) if watch else tuple(arguments)
        self.supervise = supervise and control in {"", "explicit"}
        self._control = reload.ARGUMENTS if self.supervise and not watch and not control else ()
        self.timeout_s = timeout_s or max(TIMEOUT_S, LANGUAGE_MODEL_TIMEOUT_S * len(of_vllm))
        self.exit_timeout_s = exit_timeout_s
        self.cores = tuple(cores)
        self.keep_queue_bounds = keep_queue_bounds
        self.models = tuple(models)
        self.unbounded: list[str] = []
        self.bounded: list[str] = []
        self._requested_ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self.ports: dict[str, int] = {}
        self.log = log
        self._keeps_log = log is not None
        self._served = self.repository
        self._work: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reloader: reload.Reloader | None = None
        self._supervisor: supervision.Supervisor | None = None

    @property
    def http_url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://{HOST}:{self.ports['http']}"

    @property
    def grpc_url(self) -> str:
        """``grpc://127.0.0.1:PORT``."""
        return f"grpc://{HOST}:{self.ports['grpc']}"

    @property
    def metrics_url(self) -> str:
        """``http://127.0.0.1:PORT/metrics``."""
        return f"http://{HOST}:{self.ports['metrics']}/metrics"

    @property
    def pid(self) -> int:
        """The process id of ``tritonserver``."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def language_models(self) -> list[language_models.State]:
        """The language models that it serves: how far each is, and the address of its OpenAI API."""
        return language_models.states(self._work) if self._work else []

    def start(self, report: Callable[[str], None] | None = None) -> TritonServer:
        """Start and wait until every model is ready.

        Args:
            report: Called with what the start of a language model is doing, each time that changes.
        """
        self.ports = _choose_ports(self._requested_ports)
        for directory in (Path(tempfile.gettempdir()), SHARED_MEMORY):
            atomic.sweep(directory, neighbours.WORK)
        self._work = Path(tempfile.mkdtemp(prefix=f"{neighbours.WORK}{os.getpid()}-"))
        self.log = self.log or self._work / "triton.log"
        try:
            self._served = self._select(self._work)
            if packages_of(self._served):  # all of the repository's: what `tritonkit install-server` installs
                self.runtime = self.runtime.with_packages(packages_of(self.repository), self.repository)
            with self.log.open("wb") as output:
                self._process = self._launch(output)
            self._wait(report)
        except BaseException:
            self.stop()
            raise
        if self.supervise:
            self._supervisor = supervision.Supervisor(self.pid, self.http_url, self.timeout_s)
        neighbours.record(
            self._work, self.repository, self.http_url, self.arguments, watch=self.watch,
            packages=self.runtime.packages, models=self.models,
        )  # fmt: skip
        return self

    def stop(self) -> None:
        """Let requests in flight finish, then end the server and everything it started."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(self.exit_timeout_s + 5)
            finally:
                self._kill_group(process)
        if self._reloader is not None:
            self._reloader.close()
            self._reloader = None
        if self._work is not None:
            for region in SHARED_MEMORY.glob(f"{self._work.name}-*"):
                region.unlink(missing_ok=True)
            shutil.rmtree(self._work, ignore_errors=True)
            self._work = None

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Block until the server ends by itself; its exit status, or None if it still runs after ``timeout_s``."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout_s)
        return None

    def take_up(self) -> reload.Change | None:
        """Load what has changed in the repository and settled since the last call; None where nothing has.

        A server that is started with ``watch`` needs a call every :data:`tritonkit.server.reload.LOOK_EVERY_S` seconds.

        Raises:
            OutputError: The repository changes faster than it can be copied.
            OSError: The server cannot be reached.
        """
        if self._reloader is None:
            raise RuntimeError("the server does not run, or was not started with watch=True")
        change = self._reloader.look(self.http_url, self.timeout_s)
        self.unbounded = self._reloader.unbounded
        return change

    def look_after(self) -> Iterator[supervision.Event]:
        """Unload models that lost a process, and load them again; each event as it happens.

        With ``supervise`` it is to be called every :data:`tritonkit.server.supervision.LOOK_EVERY_S` seconds. Raises
        OSError where the server cannot be reached.
        """
        yield from self._supervisor.look() if self._supervisor else ()

    def problems(self) -> list[str]:
        """What Triton's log says of errors and warnings, without its standard complaints about missing GPUs."""
        matches = [match for line in self._log_lines() if (match := _PROBLEM.match(line))]
        harmless = (any(word in match[2] for word in _HARMLESS) and _FAILED not in match[2] for match in matches)
        return [match[2].strip('"') for match, skipped in zip(matches, harmless, strict=True) if not skipped]

    def _log_lines(self) -> list[str]:
        """What is in Triton's log, with the repository under the name that it was given."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log and self.log.exists() else ""
        if self._work:
            text = text.replace(str(self._work / _LINK), str(self.repository))
        return [line for line in text.splitlines() if line.strip()]

    def __enter__(self) -> TritonServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _select(self, work: Path) -> Path:
        """The repository that Triton is to read: the whole one, or links to some of its models."""
        if not self.models:
            return self.repository
        selection.link(self.models, self.repository, work / _SELECTION)
        return work / _SELECTION

    def _launch(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        assert self._work is not None
        # Triton's Python backend starts its stub through a shell without quoting, and hangs on a path with a space.
        place = self._work / _LINK
        bounded = self.keep_queue_bounds or queue_bounds.STALLS_BEFORE <= RELEASE
        if self.watch:
            self._reloader = reload.Reloader(self._served, place, bounded=bounded, packages=self.runtime.packages)
            self.unbounded = self._reloader.unbounded
        elif bounded:
            place.symlink_to(self._served.absolute())
        else:
            self.unbounded = queue_bounds.lift(self._served, place, self.arguments)
            if queue_bounds.reads_later(self.arguments):
                self.bounded = queue_bounds.bounded(self._served)
        backends = self._work / "backends"
        backends.mkdir()
        (backends / "python").symlink_to(self.runtime.python_backend)
        for name, folder in BACKEND_FOLDERS.items():
            (backends / name).symlink_to(folder)
        # What the server shares with its stubs is called as its folder, so that a killed server's can be removed.
        regions = [
            f"--backend-config={name},shm-region-prefix-name={self._work.name}-{name}-"
            for name in ("python", *BACKEND_FOLDERS)
        ]
        addresses = [
            f"--{name}-{what}={value}"
            for name, port in self.ports.items()
            for what, value in (("address", HOST), ("port", port))
        ]
        command = [
            sys.executable, "-S", "-E", "-c", _TRAMPOLINE.format(signal=int(signal.SIGTERM)),
            str(self.runtime.binary), f"--model-repository={self._work / _LINK}",
            f"--backend-directory={backends}", f"--cache-directory={self.runtime.cache_directory}",
            *regions, *addresses, f"--exit-timeout-secs={self.exit_timeout_s}",
            *self.arguments, *self._control,
        ]  # fmt: skip
        if self.cores:
            command = ["taskset", "--cpu-list", ",".join(map(str, self.cores)), *command]
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=self._environment(), start_new_session=True,
        )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        engine = engine_environment.find(self.runtime.device, self.runtime.interpreter)
        variables = self.runtime.environment() | {"TRITONKIT_SERVER_DIRECTORY": str(self._work)}
        return variables | (engine.variables() if engine else {})

    def _wait(self, report: Callable[[str], None] | None) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self.timeout_s
        reported: set[tuple[str, str]] = set()
        while time.monotonic() < deadline:
            for state in self.language_models() if report else ():
                if state.phase and (state.model, state.phase) not in reported:
                    reported.add((state.model, state.phase))
                    report(f"{state.model}: {state.phase}")  # type: ignore[misc]
            if self._process.poll() is not None:
                raise self._failure(f"tritonserver ended with status {self._process.returncode} while starting")
            if self._ready():
                return
            time.sleep(0.05)
        raise self._failure(f"tritonserver was not ready after {self.timeout_s:g} s")

    def _ready(self) -> bool:
        """Every model is ready, and metrics are served too: Triton opens that port last."""
        return _answers(self.ports["http"], "/v2/health/ready") and _answers(self.ports["metrics"], "/metrics")

    def _failure(self, what: str) -> CheckFailed | InputError:
        problems = list(dict.fromkeys(self.problems()))
        if any("address already in use" in problem.lower() for problem in problems):
            return InputError("\n".join([what, *problems]), "choose another port, or 0 for a free one")
        failed = [problem for problem in problems if _FAILED in problem] or problems[-5:]
        if failed:
            fix = f"correct the model's directory in {self.repository}"
            if any(_NO_GPU in problem for problem in failed):
                fix = "this machine has no GPU for it: serve it where there is one, or build it with --target cpu"
            return CheckFailed("\n".join([what, *(f"  {problem}" for problem in failed)]), fix)
        lines = self._log_lines()
        if unknown := [line for line in lines if "unrecognized option" in line]:
            return InputError("\n".join([what, f"  {unknown[0]}"]), "correct what stands after --, for tritonserver")
        fix = f"read {self.log}" if self._keeps_log else "`tritonkit serve --log FILE` keeps Triton's whole log"
        return CheckFailed("\n".join([what, *(f"  {line}" for line in lines[-5:])]), fix)

    def _kill_group(self, process: subprocess.Popen[bytes]) -> None:
        """End the stubs that the server started; they share its process group and nobody else does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _choose_ports(ports: dict[str, int]) -> dict[str, int]:
    """The given ports if they are free, and a free one for each 0."""
    named: dict[int, str] = {}
    for name, port in ports.items():
        if not 0 <= port < 65_536:
            raise InputError(f"--{name}-port {port} is no port", "1 to 65535, or 0 for a free one")
        if port and port in named:
            raise InputError(
                f"--{named[port]}-port and --{name}-port are both {port}", f"choose another --{name}-port, or 0"
            )
        named[port] = name
    sockets = []
    unused = iter(free_ports(sum(not port for port in ports.values())))
    chosen = {name: port or next(unused) for name, port in ports.items()}
    try:
        for name, port in chosen.items():
            probe = socket.socket()
            sockets.append(probe)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise InputError(
                    f"port {port} ({name}) cannot be used: {error.strerror}",
                    f"choose another --{name}-port, or 0",
                ) from error
    finally:
        for probe in sockets:
            probe.close()
    return chosen
