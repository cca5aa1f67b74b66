"""A rolling restart of two pods under load, on real processes: who lost how many requests.

The pods come from ``pods.py``, the service from ``balancer.py``, the load from ``callers.py``; what is asked of them and
whether the result is good enough is for the test and the bench to say.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proofs.balancer import Balancer
from proofs.callers import MODEL, Account, Work
from proofs.pods import Ended, Manifest, Pod, deployment
from tritonkit.errors import CheckFailed, InputError

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
# Where bytes come from and go to does not matter here; every client is there, and every plain one with pauses too.
LOAD = (
    (Work("tritonkit_client grpc", 2), Work("tritonclient.grpc", 2), Work("grpc, one channel", 2),
     Work("tritonkit_client http", 2), Work("grpc, one channel", 2, 2.0)),
    (Work("http.client", 4), Work("urllib3", 2), Work("requests", 2), Work("tritonclient.http", 2),
     Work("http.client", 12, 2.0), Work("urllib3", 6, 2.0), Work("requests", 6, 2.0), Work("tritonclient.http", 4, 2.0)),
)  # fmt: skip


@dataclass
class Result:
    """What a rolling restart did.

    Attributes:
        accounts: One for each kind of caller.
        ended: How each replaced pod ended, in order.
        deleted_at: When (``time.time()``) each was deleted.
        took_s: From the first change until the last old pod was gone.
        refused: Connections that found nobody listening.
    """

    accounts: list[Account]
    ended: list[Ended]
    deleted_at: list[float] = field(default_factory=list)
    took_s: float = 0.0
    refused: int = 0

    @property
    def sent(self) -> int:
        """Requests of all callers."""
        return sum(one.sent for one in self.accounts)

    @property
    def lost(self) -> int:
        """Requests that failed."""
        return sum(len(one.lost) for one in self.accounts)


def write_model(repository: Path) -> Path:
    """The model that is called: it answers with what it was sent."""
    (repository / MODEL / "1").mkdir(parents=True)
    (repository / MODEL / "1/model.py").write_text(_CODE)
    (repository / MODEL / "config.pbtxt").write_text(_CONFIG)
    return repository


def rolling_restart(
    manifests: Sequence[Manifest],
    folder: Path,
    *,
    requests: int = 20_000,
    load: Sequence[Sequence[Work]] = LOAD,
    propagation_s: float = PROPAGATION_S,
    said: Callable[[str], None] = lambda _: None,
) -> Result:
    """Replace every pod in turn, as the Deployment's strategy says, while callers call.

    Args:
        manifests: What ``helm template`` rendered, one Deployment among it.
        folder: An empty folder for models, files and logs.
        requests: The load goes on until this many were sent and the restart is over.
        load: Callers, by process.
        propagation_s: From a pod's deletion until the service sends it no new connection.
        said: Told what happens.
    """
    repository = write_model(folder / "models")
    strategy = deployment(manifests)["spec"].get("strategy", {})
    service = Service(propagation_s)
    with service, ExitStack() as stack:
        pods = [_started(manifests, repository, folder / f"pod-{number}", stack) for number in range(2)]
        for pod in pods:
            pod.wait_ready()
            service.add(pod)
        said("two pods are ready; load begins")
        with calling(load, service.hosts) as callers:
            callers.wait(requests // 10)
            start, result = time.monotonic(), Result([], [])
            for number, old in enumerate(pods):
                _replace(old, number, strategy, service, lambda n: _started(manifests, repository, folder / n, stack), result, said)
            for thread in service.endings:
                thread.join()
            result.took_s = time.monotonic() - start
            said(f"the restart took {result.took_s:.1f} s; {callers.sent} requests so far")
            callers.wait(requests)
    result.accounts = callers.accounts()
    result.refused = service.refused
    return result


def _started(manifests: Sequence[Manifest], repository: Path, folder: Path, stack: ExitStack) -> Pod:
    pod = Pod(manifests, repository, folder)
    stack.callback(pod.kill)
    return pod.start()


def _replace(
    old: Pod, number: int, strategy: Manifest, service: Service, start: Callable[[str], Pod], result: Result,
    said: Callable[[str], None],
) -> None:  # fmt: skip
    if strategy.get("type") == "Recreate":
        raise InputError("the strategy Recreate stops everything first", "prove surge or inPlace")
    surge = str(strategy.get("rollingUpdate", {}).get("maxSurge", "25%")) not in ("0", "0%")
    name = f"pod-{number + 2}"
    if surge:
        new = start(name)
        new.wait_ready()
        service.add(new)
    said(f"pod {number + 1} of 2 is deleted" + (", its successor is ready" if surge else ""))
    result.deleted_at.append(time.time())
    ending = service.delete(old, result.ended)
    if not surge:
        ending.join()  # its GPU is free only now
        new = start(name)
        new.wait_ready()
        service.add(new)


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
        """New connections go to this pod too."""
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
    """The running load."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes
        self._sent = [0] * len(processes)
        self._accounts: list[Account] = []
        self._threads = [
            threading.Thread(target=self._read, args=(number, process), daemon=True)
            for number, process in enumerate(processes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def sent(self) -> int:
        """Requests so far."""
        return sum(self._sent)

    def wait(self, requests: int, timeout_s: float = 120.0) -> None:
        """Block until so many requests were sent.

        Raises:
            CheckFailed: They were not, in that time.
        """
        deadline = time.monotonic() + timeout_s
        while self.sent < requests:
            if time.monotonic() > deadline or any(one.poll() is not None for one in self._processes):
                raise CheckFailed(f"only {self.sent} of {requests} requests were sent", "is the machine busy?")
            time.sleep(0.05)

    def stop(self) -> None:
        """Let every caller finish its request."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            process.wait()

    def accounts(self) -> list[Account]:
        """What callers of each kind saw together, after the load."""
        kinds: dict[str, list[Account]] = defaultdict(list)
        for one in self._accounts:
            kinds[one.kind].append(one)
        return [
            Account(kind, sum(one.sent for one in all_), [lost for one in all_ for lost in one.lost],
                    max(one.slowest_s for one in all_))
            for kind, all_ in kinds.items()
        ]  # fmt: skip

    def _read(self, number: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said: dict[str, Any] = json.loads(line)
            if "sent" in said:
                self._sent[number] = said["sent"]
            for account in said.get("accounts", []):
                self._accounts.append(Account(**account | {"lost": [tuple(one) for one in account["lost"]]}))


@contextmanager
def calling(load: Sequence[Sequence[Work]], hosts: dict[str, str]) -> Iterator[Callers]:
    """Callers call while the block runs."""
    processes = []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GRPC_VERBOSITY": "NONE"}
    try:
        for work in load:
            process = subprocess.Popen(
                [sys.executable, "-m", "proofs.callers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env=environment, start_new_session=True,
            )  # fmt: skip
            processes.append(process)
            assert process.stdin is not None
            process.stdin.write(json.dumps({"work": [vars(one) for one in work], "hosts": hosts}) + "\n")
            process.stdin.flush()
        callers = Callers(processes)
        yield callers
        callers.stop()
    finally:
        for process in processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
