"""Runs the contenders: each a process tree on some cores, waited for until its first right answer, and ended whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import psutil

from tritonkit import atomic
from tritonkit.errors import CheckFailed
from tritonkit.samples import Sample
from tritonkit.server import TritonServer
from tritonkit.server.ports import free_ports
from tritonkit_client import Client
from tritonkit_load.benchmarks.peers import environment, supervisor, wire
from tritonkit_load.benchmarks.peers.catalog import Peer, Variant
from tritonkit_load.load.target import Target

HOST = "127.0.0.1"
STARTS_S = 180.0  # on a GPU, four processes that each load a graph and CUDA's libraries
LOOKS_S = 0.02
PORTS = 3
WORK = "tritonkit-peer-"
# The same graph in the same onnxruntime; what differs is the order of sums where a batch was made of other requests.
RELATIVE, ABSOLUTE = 1e-4, 1e-5
# Of the largest number of an answer, on a GPU: TF32 and half precision have 10 bits of mantissa, bf16 has 7, and
# algorithms differ with the size of a batch.
ROUNDED = 3e-2
_USERS = "tritonkit_load.benchmarks.peers.users"
USERS = {
    "http": f"{_USERS}:BodyUser", "bytes": f"{_USERS}:BytesUser",
    "grpc": "TritonGrpcUser", "kserve": "TritonHttpUser",
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """What every contender serves, and how an answer is known to be right.

    Attributes:
        name: The model's.
        graph: The ONNX file.
        inputs: Some samples, each as a batch of one.
        expected: What onnxruntime says of each in this process.
        target: What it is served on.
        cuda_options: onnxruntime's options for its CUDA provider, the same for every server.
    """

    name: str
    graph: Path
    inputs: tuple[Sample, ...]
    expected: tuple[wire.Numbers, ...]
    target: Target = "cpu"
    cuda_options: Mapping[str, str] = field(default_factory=dict)

    def agrees(self, answer: wire.Numbers, expected: wire.Numbers) -> bool:
        """Whether an answer is what was expected, as far as the target computes alike."""
        if answer.shape != expected.shape:
            return False
        if self.target == "cuda":
            return bool(np.abs(answer - expected).max(initial=0) <= ROUNDED * np.abs(expected).max(initial=0))
        return np.allclose(answer, expected, rtol=RELATIVE, atol=ABSOLUTE)


class Contender(ABC):
    """A server; a context manager that starts it, waits for its first right answer, and ends all of it.

    Attributes:
        protocol: One of :data:`USERS`.
        url: Where it is, once it runs.
        ready_s: From its start to its first right answer.
    """

    protocol: str

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.url = ""
        self.ready_s = 0.0

    def __enter__(self) -> Contender:
        began = time.monotonic()
        try:
            self._start(began + STARTS_S)
            self.ready_s = time.monotonic() - began
            check(self.subject, self.protocol, self.url, every=True)
            self._sleep()
        except wire.NO_ANSWER as error:
            self._stop()
            raise CheckFailed(f"the server at {self.url} does not answer: {error}", "try it by hand") from error
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run while the block does; between blocks it takes no time from the others."""
        self._wake()
        try:
            yield
        finally:
            self._sleep()

    @abstractmethod
    def processes(self) -> list[psutil.Process]:
        """All of its processes."""

    @abstractmethod
    def _start(self, deadline: float) -> None:
        """Return when it has given its first right answer."""

    @abstractmethod
    def _wake(self) -> None:
        """Go on."""

    @abstractmethod
    def _sleep(self) -> None:
        """Stand still."""

    @abstractmethod
    def _stop(self) -> None:
        """End it and everything it started; a second time does nothing."""


class Ours(Contender):
    """Triton with the repository that tritonkit wrote.

    Args:
        subject: What it serves.
        protocol: ``grpc`` or ``kserve`` (HTTP).
        repository: Where that lies.
        cores: The CPU cores for all of its processes.
        config: Served instead of the repository's ``config.pbtxt``, as Triton takes it in JSON.
    """

    def __init__(
        self, subject: Subject, protocol: str, repository: Path, cores: Sequence[int],
        config: Mapping[str, object] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(subject)
        self.protocol = protocol
        self._config = config
        self._server = TritonServer(
            repository, cores=cores, arguments=["--model-control-mode=explicit"], exit_timeout_s=1, timeout_s=STARTS_S
        )

    def processes(self) -> list[psutil.Process]:
        """The server and its stubs."""
        return _tree(self._server.pid)

    def _start(self, _: float) -> None:
        self._server.start()
        self.url = self._server.grpc_url if self.protocol == "grpc" else self._server.http_url
        with Client(self.url, timeout=STARTS_S, retry=None) as client:
            client.load(self.subject.name, config=self._config)
        check(self.subject, self.protocol, self.url)

    def _wake(self) -> None:
        """Nothing: it rests when nobody asks."""

    def _sleep(self) -> None:
        """Nothing either: stopped, it would outlive a comparison that was killed."""

    def _stop(self) -> None:
        self._server.stop()


class Theirs(Contender):
    """A peer in one of its variants; stopped between its turns, as some poll while nobody asks.

    Args:
        peer: Which; its environment is installed.
        variant: How it is configured.
        subject: What it serves.
        cores: The CPU cores for all of its processes.
    """

    def __init__(self, peer: Peer, variant: Variant, subject: Subject, cores: Sequence[int]) -> None:
        super().__init__(subject)
        self.protocol = peer.protocol
        self._peer, self._variant, self._cores = peer, variant, cores
        self._work: Path | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None

    def processes(self) -> list[psutil.Process]:
        """All but the supervisor, which is ours."""
        return _tree(self._supervisor.pid)[1:] if self._supervisor else []

    def _wake(self) -> None:
        each(reversed(self.processes()), psutil.Process.resume)  # workers before those that watch over them

    def _sleep(self) -> None:
        each(self.processes(), psutil.Process.suspend)

    def _start(self, deadline: float) -> None:
        atomic.sweep(Path(tempfile.gettempdir()), WORK)
        self._work = Path(tempfile.mkdtemp(prefix=f"{WORK}{os.getpid()}-"))
        log = self._work / "log"
        self._supervisor = self._launch(self._work, log)
        while not self._answers():
            if self._supervisor.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                output = " / ".join(lines[-3:]) or "it said nothing"
                raise CheckFailed(f"{self._peer.name} did not start: {output}", "try its files by hand")
            time.sleep(LOOKS_S)

    def _stop(self) -> None:
        if self._supervisor is not None:
            assert self._supervisor.stdin is not None
            self._supervisor.stdin.close()
            self._supervisor.wait()
            self._supervisor = None
        if self._work is not None:
            shutil.rmtree(self._work, ignore_errors=True)
            self._work = None

    def _launch(self, work: Path, log: Path) -> subprocess.Popen[bytes]:
        (work / "temporary").mkdir()
        (work / "served").mkdir()
        for name in self._variant.files:
            shutil.copy(self._peer.folder / name, work / "served")
        programs = environment.programs(self._peer, self.subject.target)
        ports = free_ports(PORTS)
        self.url = f"{'http' if self.protocol == 'http' else 'grpc'}://{HOST}:{ports[0]}"
        placeholders = {
            "bin": str(programs), "file": Path(self._variant.files[0]).name, "work": str(work),
            "model": str(self.subject.graph), "name": self.subject.name,
            "port": str(ports[0]), "port2": str(ports[1]), "port3": str(ports[2]),
            "libraries": environment.interpreter().library_directory,
        }  # fmt: skip
        command = [part.format(**placeholders) for part in self._peer.command]
        variables = {name: value.format(**placeholders) for name, value in self._peer.environment.items()}
        if self.subject.target == "cuda":
            variables["CUDA_OPTIONS"] = json.dumps(dict(self.subject.cuda_options))
        cores = ",".join(map(str, self._cores))
        with log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, supervisor.__file__, "taskset", "--cpu-list", cores, *command],
                stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, cwd=work / "served",
                start_new_session=True,
                env={**_plain(programs), **variables, **self._variant.environment, "TMPDIR": str(work / "temporary")},
            )  # fmt: skip

    def _answers(self) -> bool:
        try:
            check(self.subject, self.protocol, self.url)
        except wire.NO_ANSWER:
            return False
        return True


def check(subject: Subject, protocol: str, url: str, *, every: bool = False) -> None:
    """Ask one question, or all, and hold the answer against onnxruntime's.

    Raises:
        CheckFailed: The answer differs from onnxruntime's.
        wire.NO_ANSWER: The server does not answer.
    """
    for inputs, expected in list(zip(subject.inputs, subject.expected, strict=True))[: None if every else 1]:
        if not subject.agrees(wire.ask(protocol, url, subject.name, inputs), expected):
            raise CheckFailed(
                f"the server at {url} answers other than onnxruntime in this process", "see that both have one graph"
            )


def each(processes: Iterable[psutil.Process], act: Callable[[psutil.Process], object]) -> None:
    """Do something to every process that is still there."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            act(process)


def memory_bytes(processes: Sequence[psutil.Process]) -> int:
    """What they hold of the machine's memory, each shared page once altogether (proportional set size)."""
    sizes: list[int] = []
    each(processes, lambda process: sizes.append(process.memory_full_info().pss))
    return sum(sizes)


def _tree(pid: int) -> list[psutil.Process]:
    """A process and everything below it; nothing where it has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _plain(programs: Path) -> dict[str, str]:
    """This process's variables without Python's, with the environment's programs first."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    path = os.pathsep.join([str(programs), variables.get("PATH", os.defpath)])
    return variables | {"PATH": path, "ORT_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
