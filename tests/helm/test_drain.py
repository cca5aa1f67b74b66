"""A rolling restart of the pods as rendered, on real processes: no client loses a request, and the proof can fail."""

from __future__ import annotations

import http.client
import http.server
import os
import signal
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tritonkit.errors import InputError
from tritonkit_load.benchmarks.proofs import drain, pods
from tritonkit_load.benchmarks.proofs.balancer import HOST, Balancer
from tritonkit_load.benchmarks.proofs.callers import KINDS, ONCE, Work
from tritonkit_load.benchmarks.proofs.rendered import render

# Short, so that a test can wait for it; the sequence and the arithmetic are the chart's.
PRE_STOP_S, DRAIN_S, PAUSE_S = 2, 2, 1.5
VALUES = {
    "replicas": 2,
    "front": {"drainSeconds": DRAIN_S},
    "lifecycle": {"preStopSeconds": PRE_STOP_S},
    "server": {"exitTimeoutSeconds": 5},
    "probes": {"startup": {"periodSeconds": 1}, "readiness": {"periodSeconds": 1}},
}


@pytest.fixture(scope="session")
def haproxy() -> str:
    """HAProxy itself; only outside of CI may it be missing."""
    program = pods.haproxy()
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no haproxy: apt-get install haproxy")
        pytest.skip("there is no haproxy: apt-get install haproxy")
    return program


@pytest.fixture(scope="session")
def manifests() -> list[pods.Manifest]:
    return render(VALUES)


def config(manifests: list[pods.Manifest]) -> str:
    return str(
        next(manifest["data"]["haproxy.cfg"] for manifest in manifests if "haproxy.cfg" in manifest.get("data", {}))
    )


def lost_requests(result: drain.Result) -> str:
    lines = [f"{account.kind}: {len(account.lost)} of {account.sent} {account.lost[:2]}" for account in result.accounts]
    return "\n".join([*lines, str(result.ended)])


@pytest.mark.usefixtures("haproxy")
def test_a_rolling_restart_loses_no_request_of_any_client(manifests: list[pods.Manifest]) -> None:
    result = drain.rolling_restart(manifests, drain.load(PAUSE_S, between_s=0.05), requests=6_000)
    assert result.sent >= 6_000
    assert result.lost == 0, lost_requests(result)
    assert {account.kind for account in result.accounts} >= set(KINDS)
    assert all(account.sent for account in result.accounts)
    assert len(result.ended) == 2
    for ended in result.ended:
        assert ended.killed == []
        assert ended.failed_hooks == []
        assert ended.containers["front"] < ended.containers["triton"]


@pytest.mark.usefixtures("haproxy")
def test_without_a_prestop_hook_requests_are_lost() -> None:
    broken = render(VALUES)
    for container in pods.deployment(broken)["spec"]["template"]["spec"]["containers"]:
        del container["lifecycle"]
    calls = [[Work(ONCE, 4, 0.05)]]
    result = drain.rolling_restart(broken, calls, requests=200, replaced=1)
    assert result.lost > 0, lost_requests(result)


@pytest.mark.usefixtures("haproxy")
def test_where_the_kubelet_cannot_sleep_the_hook_does(tmp_path: Path) -> None:
    manifests = render(VALUES | {"lifecycle": {"preStopSeconds": 1, "sleep": "exec"}})
    spec = pods.deployment(manifests)["spec"]["template"]["spec"]
    spec["containers"] = [container for container in spec["containers"] if container["name"] == "front"]
    with pods.workplace() as folder:
        pod = pods.Pod(manifests, tmp_path, folder).start()
        try:
            ended = pod.terminate()
        finally:
            pod.kill()
    assert ended.failed_hooks == []
    assert ended.killed == []
    assert ended.containers["front"] >= 1


def test_the_fronts_configuration_is_valid(haproxy: str, manifests: list[pods.Manifest], tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(config(manifests))
    done = subprocess.run([haproxy, "-c", "-f", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_an_idle_connection_is_answered_once_more_after_the_soft_stop(
    haproxy: str, manifests: list[pods.Manifest], tmp_path: Path
) -> None:
    with _front(haproxy, config(manifests), tmp_path) as (process, port):
        connection = http.client.HTTPConnection(HOST, port, timeout=10)
        assert _get(connection) is None
        process.send_signal(signal.SIGUSR1)
        _until_refused(port)
        assert _get(connection) == "close"
        assert process.wait(10) == 0


def test_without_its_option_the_front_cuts_idle_connections(
    haproxy: str, manifests: list[pods.Manifest], tmp_path: Path
) -> None:
    text = config(manifests).replace("option idle-close-on-response", "")
    with _front(haproxy, text, tmp_path) as (process, port):
        connection = http.client.HTTPConnection(HOST, port, timeout=10)
        assert _get(connection) is None
        process.send_signal(signal.SIGUSR1)
        process.wait(10)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            _get(connection)


@contextmanager
def _front(haproxy: str, text: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The front, before a server that answers 200 to everything; and the front's port."""

    class Always(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((HOST, 0), Always) as server, socket.create_server((HOST, 0)) as free:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = free.getsockname()[1]
        free.close()
        with socket.create_server((HOST, 0)) as other:
            unused = other.getsockname()[1]
        for was, now in (("8080", port), ("8081", unused), ("8000", server.server_port)):
            text = text.replace(f":{was}", f"{HOST if was != '8000' else ''}:{now}")
        (folder / "haproxy.cfg").write_text(text)
        process = subprocess.Popen([haproxy, "-db", "-f", folder / "haproxy.cfg"], stderr=subprocess.DEVNULL)
        try:
            _until(lambda: _accepts(port))
            yield process, port
        finally:
            process.kill()
            process.wait()
            server.shutdown()


def _get(connection: http.client.HTTPConnection) -> str | None:
    """What the answer says of the connection."""
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    return answer.getheader("Connection")


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def _until_refused(port: int) -> None:
    _until(lambda: not _accepts(port))


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_balancer_moves_new_connections_and_leaves_the_old_ones() -> None:
    with _echo(b"first ") as first, _echo(b"second ") as second, Balancer() as balancer:
        balancer.route([first])
        with socket.create_connection((HOST, balancer.port), 10) as old:
            assert _ask(old) == b"first hello"
            balancer.route([second])
            with socket.create_connection((HOST, balancer.port), 10) as new:
                assert _ask(new) == b"second hello"
            assert _ask(old) == b"first hello"
            balancer.route([])
            # The reset may come while it still connects.
            with pytest.raises(ConnectionError), socket.create_connection((HOST, balancer.port), 10) as nobody:
                _ask(nobody)
        assert balancer.refused == 1


@contextmanager
def _echo(name: bytes) -> Iterator[int]:
    """A server that answers with its name and what it was sent; its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(1000):
                self.request.sendall(name + data)

    with socketserver.ThreadingTCPServer((HOST, 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def _ask(connection: socket.socket) -> bytes:
    connection.sendall(b"hello")
    answer = connection.recv(1000)
    if not answer:
        raise ConnectionError("closed")
    return answer


def test_a_manifest_that_cannot_be_run_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 Deployments"):
        pods.deployment([])
    strange = render(VALUES)
    pods.deployment(strange)["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"] = {
        "httpGet": {"port": 1}
    }
    with pytest.raises(InputError, match="preStop of container triton is none of exec, sleep"):
        pods.Pod(strange, tmp_path, tmp_path / "pod")
    recreate = render(VALUES | {"rollout": {"profile": "recreate"}})
    with pytest.raises(InputError, match="Recreate"):
        drain.rolling_restart(recreate, [])
