"""Clients in threads, forks and notebooks."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

from tritonkit.server import TritonServer
from tritonkit_client import AsyncClient, Client, ClientClosed

Connect = Callable[..., Client]


def test_sixty_four_threads_share_a_client(client: Client) -> None:
    barrier = threading.Barrier(64)

    def work(number: int) -> bool:
        array = np.full((1, 3), number, np.float32)
        barrier.wait()
        return all(
            np.array_equal(client.infer("arithmetic", left=array, right=array)["sum"], 2 * array) for _ in range(5)
        )

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(work, range(64)))
    (server,) = client._servers.all
    assert server.in_flight == 0


def test_a_client_from_before_a_fork_says_so_and_a_new_one_works(url: str) -> None:
    with Client(url) as client:
        assert client.live()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with pytest.raises(ClientClosed, match="do not survive a fork"):
                    client.live()
                # grpcio itself does not survive a fork with a live channel; HTTP does.
                if url.startswith("http"):
                    with Client(url) as own:
                        assert own.live()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.live()


def test_both_clients_work_inside_a_running_loop_as_in_a_notebook(url: str) -> None:
    """A notebook's cells run inside a loop: blocking calls work there, and `await` at the top level does."""

    async def cells() -> None:
        blocking = Client(url)
        assert blocking.live()
        client = AsyncClient(url)
        assert await client.live()
        out = await asyncio.gather(*(client.infer("inspect") for _ in range(3)))
        assert len(out) == 3
        await client.close()
        blocking.close()

    asyncio.run(cells())


@pytest.fixture
def counted(server: TritonServer) -> Iterator[Callable[[str], tuple[str, list[int]]]]:
    """Makes relays to the server that count the bytes in both directions."""
    listeners = []

    def make(protocol: str) -> tuple[str, list[int]]:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        passed = [0]

        def copy(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError), source, sink:
                while data := source.recv(1 << 20):
                    passed[0] += len(data)
                    sink.sendall(data)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    far = socket.create_connection(("127.0.0.1", server.ports[protocol]))
                    for ends in ((near, far), (far, near)):
                        threading.Thread(target=copy, args=ends, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"{protocol}://127.0.0.1:{listener.getsockname()[1]}", passed

    yield make
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compression_makes_what_can_be_small_small(
    counted: Callable[[str], tuple[str, list[int]]], connect: Connect, protocol: str, compression: str
) -> None:
    zeros = np.zeros((1, 1_000_000), np.float32)
    url, passed = counted(protocol)
    client = connect(url, compression=compression, timeout=10)
    np.testing.assert_array_equal(client.infer("identity", in_FP32=zeros)["out_FP32"], zeros)
    if protocol == "http":
        assert passed[0] < 200_000
    else:  # gRPC compresses what the client sends; Triton's answers are as its --grpc-infer-response-compression says
        assert passed[0] < 4_300_000
