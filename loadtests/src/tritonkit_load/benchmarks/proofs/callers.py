"""Clients of every kind that send numbered requests and count the answers, in a process of their own.

A request is lost when an error reaches the code that called, or when the answer is not the number that was sent. The
plain clients know nothing of tritonkit and never send again; what their libraries do by themselves they may do.
"""

from __future__ import annotations

import http.client
import importlib
import json
import os
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

MODEL = "same"  # one INT32 `x`, answered as `y`
TIMEOUT_S = 30.0
ONCE = "http.client, a connection each"
Call = Callable[[int], int]
_HEADERS = {"Content-Type": "application/json"}
_PATH = f"/v2/models/{MODEL}/infer"


@dataclass
class Account:
    """The requests of one caller, and those it lost.

    Attributes:
        kind: Which client; the name of its work.
        sent: Requests begun.
        lost: Of each lost request the time (``time.time()``), the seconds of pause before it, and the error.
        slowest_s: The longest request.
    """

    kind: str
    sent: int = 0
    lost: list[tuple[float, float, str]] = field(default_factory=list)
    slowest_s: float = 0.0


@dataclass(frozen=True)
class Work:
    """One kind of client, how many of them call, and how often.

    Attributes:
        kind: A key of ``KINDS``.
        callers: Threads; each has a client, and so a connection, of its own.
        pause_s: The longest pause between two requests; each pause is drawn evenly from 0 to it. 0: no pauses.
        name: The account's name; the kind if not given.
    """

    kind: str
    callers: int
    pause_s: float = 0.0
    name: str = ""


def _body(number: int) -> bytes:
    tensor = {"name": "x", "shape": [1], "datatype": "INT32", "data": [number]}
    return json.dumps({"inputs": [tensor]}).encode()


def _number(status: int, body: bytes) -> int:
    if status != 200:
        raise RuntimeError(f"HTTP {status}: {body[:200]!r}")
    return int(json.loads(body)["outputs"][0]["data"][0])


def _http_client(keep: bool) -> Callable[[str], Call]:
    def make(host: str) -> Call:
        connection = http.client.HTTPConnection(host, timeout=TIMEOUT_S)

        def call(number: int) -> int:
            kept = False
            try:
                connection.request("POST", _PATH, _body(number), _HEADERS)
                answer = connection.getresponse()
                output = _number(answer.status, answer.read())
                kept = keep
                return output
            finally:
                if not kept:
                    connection.close()

        return call

    return make


def _urllib3(host: str) -> Call:
    import urllib3

    pool = urllib3.PoolManager(retries=False)

    def call(number: int) -> int:
        answer = pool.request("POST", f"http://{host}{_PATH}", body=_body(number), headers=_HEADERS, timeout=TIMEOUT_S)
        return _number(answer.status, answer.data)

    return call


def _requests(host: str) -> Call:
    import requests

    session = requests.Session()
    session.trust_env = False

    def call(number: int) -> int:
        answer = session.post(f"http://{host}{_PATH}", data=_body(number), headers=_HEADERS, timeout=TIMEOUT_S)
        return _number(answer.status_code, answer.content)

    return call


def _tritonclient_http(host: str) -> Call:
    import tritonclient.http as module

    client = module.InferenceServerClient(host, network_timeout=TIMEOUT_S, connection_timeout=TIMEOUT_S)
    return _tritonclient(module, client)


def _tritonclient_grpc(host: str) -> Call:
    import tritonclient.grpc as module

    return _tritonclient(module, module.InferenceServerClient(host))


def _tritonclient(module: Any, client: Any) -> Call:
    def call(number: int) -> int:
        tensor = module.InferInput("x", [1], "INT32")
        tensor.set_data_from_numpy(np.array([number], np.int32))
        return int(client.infer(MODEL, [tensor]).as_numpy("y")[0])

    return call


def _grpc(host: str) -> Call:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    options = [("grpc.use_local_subchannel_pool", 1)]
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(host, options))

    def call(number: int) -> int:
        request = service_pb2.ModelInferRequest(model_name=MODEL)
        request.inputs.add(name="x", datatype="INT32", shape=[1])
        request.raw_input_contents.append(np.array([number], np.int32).tobytes())
        answer = stub.ModelInfer(request, timeout=TIMEOUT_S)
        return int(np.frombuffer(answer.raw_output_contents[0], np.int32)[0])

    return call


def _tritonkit(scheme: str) -> Callable[[str], Call]:
    def make(host: str) -> Call:
        from tritonkit_client import Client

        client = Client(f"{scheme}://{host}", timeout=TIMEOUT_S)
        return lambda number: int(client.infer(MODEL, x=np.array([number], np.int32))["y"][0])

    return make


# Who calls: the protocol, and what makes a call out of an address.
KINDS: dict[str, tuple[str, Callable[[str], Call]]] = {
    "tritonkit_client grpc": ("grpc", _tritonkit("grpc")),
    "tritonkit_client http": ("http", _tritonkit("http")),
    "tritonclient.grpc": ("grpc", _tritonclient_grpc),
    "grpc, one channel": ("grpc", _grpc),
    "tritonclient.http": ("http", _tritonclient_http),
    "http.client": ("http", _http_client(keep=True)),
    ONCE: ("http", _http_client(keep=False)),
    "urllib3": ("http", _urllib3),
    "requests": ("http", _requests),
}


def run(
    work: list[Work], hosts: dict[str, str], over: threading.Event, progress: Callable[[int], None]
) -> list[Account]:
    """Send requests until ``over`` is set.

    Args:
        work: The callers.
        hosts: ``host:port`` by protocol.
        over: Set when callers must stop.
        progress: Called repeatedly with the number of requests sent so far.
    """
    accounts, threads = [], []
    for item in work:
        protocol, make = KINDS[item.kind]
        for _ in range(item.callers):
            account = Account(item.name or item.kind)
            accounts.append(account)
            arguments = (make, hosts[protocol], item.pause_s, over, account)
            threads.append(threading.Thread(target=_call, args=arguments, daemon=True))
    for thread in threads:
        thread.start()
    while not over.wait(0.1):
        progress(sum(account.sent for account in accounts))
    progress(sum(account.sent for account in accounts))
    for thread in threads:
        thread.join(TIMEOUT_S + 5)
    return accounts


def _call(make: Callable[[str], Call], host: str, pause_s: float, over: threading.Event, account: Account) -> None:
    call = make(host)
    chance = random.Random()
    while not over.is_set():
        pause = chance.uniform(0, pause_s)
        if pause and over.wait(pause):
            return
        number = chance.randrange(2**31)
        account.sent += 1
        start = time.perf_counter()
        try:
            answer = call(number)
            if answer != number:
                raise RuntimeError(f"sent {number}, answered {answer}")
        except Exception as error:  # whatever a library throws at its caller is a lost request
            account.lost.append((time.time(), pause, f"{type(error).__name__}: {error}"[:300]))
            time.sleep(0.05)
        account.slowest_s = max(account.slowest_s, time.perf_counter() - start)


def main() -> None:
    """Read work and hosts from the first line of standard input; stop at its end; print the accounts."""
    warnings.simplefilter("ignore")
    for library in ("requests", "tritonclient.http", "tritonclient.grpc", "tritonkit_client"):
        importlib.import_module(library)  # now, while the pods start
    order = json.loads(sys.stdin.readline())
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()

    def progress(sent: int) -> None:
        sys.stdout.write(json.dumps({"sent": sent}) + "\n")
        sys.stdout.flush()

    accounts = run([Work(**item) for item in order["work"]], order["hosts"], over, progress)
    sys.stdout.write(json.dumps({"accounts": [asdict(account) for account in accounts]}) + "\n")
    sys.stdout.flush()
    os._exit(0)  # not through the finalizers of clients whose threads, and gevent hubs, are gone


if __name__ == "__main__":
    main()
