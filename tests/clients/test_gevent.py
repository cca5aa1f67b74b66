"""A process that gevent has patched."""

from __future__ import annotations

import subprocess
import sys

from tritonkit.server import TritonServer

CODE = """
from gevent import monkey; monkey.patch_all()
import sys, gevent
from tritonkit_client import Client, NotSupported

def ticks(url):
    seen = []
    def tick():
        while True:
            seen.append(1)
            gevent.sleep(0.01)
    with Client(url, timeout=10) as client:
        client.metadata("sleep")
        ticking = gevent.spawn(tick)
        client.infer("sleep", {"timeout": [[0.3]]})
        ticking.kill()
    return len(seen)

grpc_url, http_url = sys.argv[1:]
assert ticks(http_url) > 5
try:
    Client(grpc_url)
except NotSupported as error:
    assert "init_gevent" in error.fix and "http://" in error.fix, error
else:
    raise AssertionError("it would stop all greenlets")
import grpc.experimental.gevent
grpc.experimental.gevent.init_gevent()
assert ticks(grpc_url) > 5
"""


def test_grpc_is_refused_in_a_patched_process_until_it_knows_of_gevent(server: TritonServer) -> None:
    command = [sys.executable, "-c", CODE, server.grpc_url, server.http_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
