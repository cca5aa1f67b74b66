"""A rolling restart of two pods under load, on real processes: who lost how many requests.

The pods come from ``pods.py``, the service from ``balancer.py``, the load from ``callers.py``; whether the result is
good enough is for the test and the bench to say.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonkit.errors import CheckFailed, InputError
from tritonkit_load.benchmarks.proofs.balancer import Balancer
from tritonkit_load.benchmarks.proofs.callers import KINDS, MODEL, ONCE, Account, Work
from tritonkit_load.benchmarks.proofs.pods import Ended, Manifest, Pod, deployment, workplace

Say = Callable[[str], None]
PROTOCOLS = ("http", "grpc")
# Seconds from a pod's deletion until no new connection reaches it: the endpoint slice, then every node's kube-proxy.
PROPAGATION_S = 1.5
_CODE = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("y", pb_utils.get_input_tensor_by_name(r, "x").as_numpy())])
            for r in requests
        ]
"""
_CONFIG = """
backend: "python"
input { name: "x" data_type: TYPE_INT32 dims: [-1] }
output { name: "y" data_type: TYPE_INT32 dims: [-1] }
"""


def load(pause_s: float, between_s: float = 0.0) -> tuple[tuple[Work, ...], ...]:
    """Every kind of client, and again with pauses the plain ones that keep connections; by process.

    Args:
        pause_s: The longest pause of the clients that pause.
        between_s: The longest wait of the others between two requests, which bounds how much load they are.
    """
    grpc = [kind for kind, (protocol, _) in KINDS.items() if protocol == "grpc"] + ["tritonkit_client http"]
    pausing = [kind for kind in KINDS if not kind.startswith("tritonkit") and kind != ONCE]
    work = [Work(kind, 2, between_s) for kind in KINDS]
    work += [Work(kind, 6, pause_s, f"{kind}, pauses to {pause_s:g} s") for kind in pausing]
    return tuple(item for item in work if item.kind in grpc), tuple(item for item in work if item.kind not in grpc)


@dataclass
class Result:
    """The outcome of a rolling restart.

    Attributes:
        accounts: One account for each kind of caller.
        ended: How each replaced pod ended, in order.
        deleted_at: The time (``time.time()``) at which each was deleted.
        took_s: From the first change until the last old pod was gone.
        refused: Connections that found nobody listening.
    """

    accounts: list[Account]
    ended: list[Ended]
    deleted_at: list[float]
    took_s: float
    refused: int

    @property
    def sent(self) -> int:
        """Requests of all callers."""
        return sum(account.sent for account in self.accounts)

    @property
    def lost(self) -> int:
        """Requests that failed."""
        return sum(len(account.lost) for account in self.accounts)


def write_model(repository: Path) -> Path:
    """Write the model that is called: its output is its input."""
    (repository / MODEL / "1").mkdir(parents=True)
    (repository / MODEL / "1/model.py").write_text(_CODE)
    (repository / MODEL / "config.pbtxt").write_text(_CONFIG)
    return repository


def rolling_restart(
    manifests: Sequence[Manifest],
    calls: Sequence[Sequence[Work]],
    *,
    requests: int = 20_000,
    replaced: int = 2,
    propagation_s: float = PROPAGATION_S,
    say: Say = lambda _: None,
) -> Result:
    """Replace pods in turn, as the Deployment's strategy says, while callers call.

    Args:
        manifests: What ``helm template`` rendered, one Deployment among it.
        calls: The load, by process; see :func:`load`.
        requests: The load goes on until this many were sent and the restart is over.
        replaced: How many of the two pods are replaced.
        propagation_s: From a pod's deletion until the service sends it no new connection.
        say: Called with each step, as a sentence.

    Raises:
        CheckFailed: A pod did not become ready, or the requests were not sent in time.
        InputError: The manifest cannot be run here.
    """
    with workplace() as folder, ExitStack() as stack:
        restart = _Restart(manifests, write_model(folder / "models"), folder, Service(propagation_s), say)
        stack.enter_context(restart.service)
        stack.callback(restart.kill)
        callers = stack.enter_context(calling(calls, restart.service.hosts))
        pods = [restart.start() for _ in range(2)]
        for pod in pods:
            restart.admit(pod)
        callers.begin()
        callers.wait(requests // 20)
        say("two pods are ready and called")
        start = time.monotonic()
        for pod in pods[:replaced]:
            restart.replace(pod)
        for thread in restart.service.endings:
            thread.join()
        took_s = time.monotonic() - start
        say(f"the last old pod is gone after {took_s:.1f} s; {callers.sent} requests so far")
        callers.wait(requests)
        callers.stop()
        return Result(callers.accounts(), restart.ended, restart.deleted_at, took_s, restart.service.refused)


class _Restart:
    """The pods of a run, old and new."""

    def __init__(
        self,
        manifests: Sequence[Manifest],
        repository: Path,
        folder: Path,
        service: Service,
        say: Callable[[str], None],
    ) -> None:
        self.manifests, self.repository, self.folder = manifests, repository, folder
        self.service, self.say = service, say
        self.ended: list[Ended] = []
        self.deleted_at: list[float] = []
        self._pods: list[Pod] = []
        strategy = deployment(manifests)["spec"].get("strategy", {})
        if strategy.get("type") == "Recreate":
            raise InputError("the strategy Recreate ends every pod first, so requests fail", "render surge or inPlace")
        self.surge = str(strategy.get("rollingUpdate", {}).get("maxSurge", "25%")) not in ("0", "0%")

    def start(self) -> Pod:
        """Start one more pod; it is not ready yet."""
        pod = Pod(self.manifests, self.repository, self.folder / f"pod-{len(self._pods)}")
        self._pods.append(pod)
        return pod.start()

    def admit(self, pod: Pod) -> None:
        """Wait until the pod is ready, then let the service send it connections."""
        pod.wait_ready()
        self.service.add(pod)

    def replace(self, old: Pod) -> None:
        """Replace one pod by a new one."""
        if self.surge:
            self.admit(self.start())
        self.say(f"pod {len(self.deleted_at) + 1} is deleted" + (", its successor is ready" if self.surge else ""))
        self.deleted_at.append(time.time())
        ending = self.service.delete(old, self.ended)
        if not self.surge:
            ending.join()  # its GPU is free only now
            self.admit(self.start())

    def kill(self) -> None:
        """End every pod at once."""
        for pod in self._pods:
            pod.kill()


class Service:
    """One address for each protocol, in front of the pods that are ready and not deleted."""

    def __init__(self, propagation_s: float) -> None:
        self.propagation_s = propagation_s
        self.endings: list[threading.Thread] = []
        self._pods: list[Pod] = []
        self._balancers = {protocol: Balancer() for protocol in PROTOCOLS}
        self._stack = ExitStack()

    def __enter__(self) -> Service:
        for balancer in self._balancers.values():
            self._stack.enter_context(balancer)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def hosts(self) -> dict[str, str]:
        """``host:port`` by protocol."""
        return {protocol: f"127.0.0.1:{balancer.port}" for protocol, balancer in self._balancers.items()}

    @property
    def refused(self) -> int:
        """Connections that found nobody listening."""
        return sum(balancer.refused for balancer in self._balancers.values())

    def add(self, pod: Pod) -> None:
        """Send new connections to this pod too."""
        self._pods.append(pod)
        self._route()

    def delete(self, pod: Pod, ended: list[Ended]) -> threading.Thread:
        """Delete a pod: its containers' hooks run at once, the service hears of it a little later."""

        def forget() -> None:
            time.sleep(self.propagation_s)
            self._pods.remove(pod)
            self._route()

        ending = threading.Thread(target=lambda: ended.append(pod.terminate()), daemon=True)
        forgetting = threading.Thread(target=forget, daemon=True)
        for thread in (ending, forgetting):
            thread.start()
        self.endings += [ending, forgetting]
        return ending

    def _route(self) -> None:
        for protocol, balancer in self._balancers.items():
            balancer.route([pod.serving(protocol) for pod in self._pods])


class Callers:
    """The processes that call."""

    def __init__(self, calls: Sequence[Sequence[Work]], hosts: dict[str, str]) -> None:
        self._work = [json.dumps({"work": [vars(item) for item in work], "hosts": hosts}) for work in calls]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GRPC_VERBOSITY": "NONE"}
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tritonkit_load.benchmarks.proofs.callers"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True,
            )
            for _ in calls
        ]  # fmt: skip
        self._sent = [0] * len(calls)
        self._accounts: list[Account] = []
        self._threads = [
            threading.Thread(target=self._read, args=(number, process), daemon=True)
            for number, process in enumerate(self._processes)
        ]

    @property
    def sent(self) -> int:
        """Requests so far."""
        return sum(self._sent)

    def begin(self) -> None:
        """Let them call."""
        for process, work, thread in zip(self._processes, self._work, self._threads, strict=True):
            assert process.stdin is not None
            process.stdin.write(work + "\n")
            process.stdin.flush()
            thread.start()

    def wait(self, requests: int, timeout_s: float = 120.0) -> None:
        """Block until so many requests were sent.

        Raises:
            CheckFailed: Fewer requests were sent in that time.
        """
        deadline = time.monotonic() + timeout_s
        while self.sent < requests:
            if time.monotonic() > deadline or any(process.poll() is not None for process in self._processes):
                raise CheckFailed(f"only {self.sent} of {requests} requests were sent", "is the machine busy?")
            time.sleep(0.05)

    def stop(self) -> None:
        """Let every caller finish its request."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for thread in self._threads:
            thread.join()
        if any(process.wait() for process in self._processes):
            raise CheckFailed("a process of callers failed", "read what it said above")

    def accounts(self) -> list[Account]:
        """One account for each kind of caller, after the load."""
        kinds: dict[str, list[Account]] = {}
        for account in self._accounts:
            kinds.setdefault(account.kind, []).append(account)
        return [
            Account(kind, sum(account.sent for account in alike), [lost for account in alike for lost in account.lost],
                    max(account.slowest_s for account in alike))
            for kind, alike in kinds.items()
        ]  # fmt: skip

    def end(self) -> None:
        """End the processes at once."""
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def _read(self, number: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            message: dict[str, Any] = json.loads(line)
            self._sent[number] = message.get("sent", self._sent[number])
            self._accounts += [
                Account(**account | {"lost": [tuple(loss) for loss in account["lost"]]})
                for account in message.get("accounts", [])
            ]


@contextmanager
def calling(calls: Sequence[Sequence[Work]], hosts: dict[str, str]) -> Iterator[Callers]:
    """Processes of callers, ended with the block."""
    callers = Callers(calls, hosts)
    try:
        yield callers
    finally:
        callers.end()
