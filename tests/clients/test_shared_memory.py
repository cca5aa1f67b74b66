"""Tensors through /dev/shm: the same results, and nothing left behind, whichever side crashes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from memories import BIG, KINDS, gpu, needs_the_extra, unregister
from tritonclient.grpc import InferenceServerClient

from tritonkit.server import TritonServer
from tritonkit_client import Client, DeadlineExceeded, InvalidInput, SharedMemory
from tritonkit_client._memory import segments
from tritonkit_client._memory.segments import Segments, is_orphan

Connect = Callable[..., Client]


def files() -> set[str]:
    return {path.name for path in segments.FOLDER.glob("tritonkit-client-*")}


@pytest.fixture
def shared(noting: Connect) -> Client:
    return noting(shared_memory=SharedMemory())


@pytest.fixture(params=["system", pytest.param("cuda", marks=gpu)])
def memory(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    if kind == "cuda":
        needs_the_extra()
    return kind


@pytest.fixture
def either(noting: Connect, memory: str) -> Client:
    """A client with memory of either kind."""
    return noting(shared_memory=KINDS[memory]())


def test_large_tensors_go_through_it_and_come_back_bit_for_bit(shared: Client, operations: list[str]) -> None:
    before = files()
    for turn in range(4):
        array = BIG + np.uint8(turn)
        out = shared.infer("identity", in_UINT8=array, in_BYTES=[[b"small"]])
        np.testing.assert_array_equal(out["out_UINT8"], array)
        assert out["out_BYTES"].tolist() == [[b"small"]]
    # One segment for the input, and two for outputs: `out` holds one while the next is made. Each is registered once.
    assert operations.count("register") == 3
    assert len(files() - before) == 3
    shared.close()
    assert files() == before


def test_small_tensors_travel_with_the_request(shared: Client, operations: list[str]) -> None:
    shared.infer("identity", in_FP32=np.ones((1, 3), np.float32))
    assert "register" not in operations


def test_a_result_stays_what_it_is_while_others_are_made(shared: Client) -> None:
    shared.infer("identity", in_UINT8=BIG)
    first = shared.infer("identity", in_UINT8=BIG)["out_UINT8"]
    part = first[1:, ::2]
    del first
    for turn in range(3):
        shared.infer("identity", in_UINT8=BIG + np.uint8(turn + 1))
    np.testing.assert_array_equal(part, BIG[1:, ::2])
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 0
    shared.close()
    np.testing.assert_array_equal(part, BIG[1:, ::2])


def test_memory_comes_back_with_its_last_array(shared: Client) -> None:
    outs = [shared.infer("identity", in_UINT8=BIG)["out_UINT8"] for _ in range(5)]
    held = len(files())
    del outs
    gc.collect()
    for _ in range(10):
        shared.infer("identity", in_UINT8=BIG)
    assert len(files()) == held


def test_an_output_that_grows_is_read_all_the_same(either: Client) -> None:
    # The shapes of the inputs say nothing of the output's size here.
    for size in (300_000, 300_000, 900_000, 400_000):
        out = either.infer("grow", n=np.array([size], np.int32))["out"]
        assert out.shape == (size,)
        assert out[-1] == size


def test_a_full_arena_leaves_tensors_with_their_requests(url: str, connect: Connect) -> None:
    client = connect(url, shared_memory=SharedMemory(capacity_bytes=1 << 20))
    for _ in range(2):
        np.testing.assert_array_equal(client.infer("identity", in_UINT8=BIG)["out_UINT8"], BIG)


def test_a_segment_of_a_late_server_is_not_reused(shared: Client, operations: list[str]) -> None:
    client = shared
    big = np.full((1, 400_000), 0.4, np.float32)
    client.infer("sleep_big", {"timeout": big * 0})
    with pytest.raises(DeadlineExceeded):
        client.infer("sleep_big", {"timeout": big}, timeout=0.1)
    arena = client._arena
    assert arena is not None
    assert len(arena._segments._waiting) == 2
    quarantined = {segment.name for _, segment in arena._segments._waiting}
    assert quarantined.isdisjoint(segment.name for free in arena._segments._free.values() for segment in free)
    operations.clear()
    client.close()
    assert "unregister" not in operations  # and the server keeps it


def test_what_no_server_uses_any_more_is_unregistered(shared: Client, operations: list[str]) -> None:
    shared.infer("identity", in_UINT8=BIG)
    shared.close()
    assert operations.count("unregister") == operations.count("register") == 1


def test_a_server_that_forgot_the_regions_learns_them_again(
    either: Client, memory: str, operations: list[str], admin: InferenceServerClient
) -> None:
    """The server loses its regions, as in a restart."""
    for _ in range(2):
        either.infer("identity", in_UINT8=BIG)
    assert either._arena is not None
    for name in either._arena._segments._all:
        unregister(admin, name, memory)
    operations.clear()
    for _ in range(2):
        np.testing.assert_array_equal(either.infer("identity", in_UINT8=BIG)["out_UINT8"], BIG)
    assert operations.count("register") == 2


def test_a_server_that_forgot_one_region_learns_it_again(shared: Client, admin: InferenceServerClient) -> None:
    for _ in range(2):
        shared.infer("identity", in_UINT8=BIG)
    assert shared._arena is not None
    unregister(admin, next(iter(shared._arena._segments._all)), "system")
    np.testing.assert_array_equal(shared.infer("identity", in_UINT8=BIG)["out_UINT8"], BIG)
    assert not shared._arena._cannot


CRASH = """
import os, signal, sys, numpy as np
from tritonkit_client import Client, SharedMemory
client = Client(sys.argv[1], shared_memory=SharedMemory())
for _ in range(2):
    client.infer("identity", in_UINT8=np.zeros((2, 700_000), np.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_leaves_is_removed_by_the_next(server: TritonServer, connect: Connect) -> None:
    before = files()
    subprocess.run([sys.executable, "-c", CRASH, server.grpc_url], check=False)
    left = files() - before
    assert len(left) == 2
    assert all(is_orphan(name) for name in left)
    client = connect(server.grpc_url, shared_memory=SharedMemory())
    client.infer("identity", in_UINT8=BIG)
    assert not files() & left
    origin: Any = client._origin
    known = client._operations.wire.regions("system", origin)

    def ask() -> Any:
        return (yield known)

    assert not left & set(client._run(ask(), 5))


def test_a_fork_does_not_remove_its_parents_files() -> None:
    own = Segments(1 << 24)
    segment = own.take(1)
    assert segment is not None
    assert not is_orphan(segment.name)
    code = os.fork()
    if code == 0:
        own.close()
        os._exit(0)
    os.waitpid(code, 0)
    assert (segments.FOLDER / segment.name).exists()
    own.close()
    assert not (segments.FOLDER / segment.name).exists()


@pytest.mark.parametrize("name", ["tritonkit-client-1-2-3", "other-1-2-3-4", "tritonkit-client-0-999999999-1-a"])
def test_what_may_be_alive_is_not_an_orphan(name: str) -> None:
    assert not is_orphan(name)


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidInput):
        SharedMemory(min_bytes=0)


FULL = """
import numpy as np
from tritonkit_client._protocol.calls import Tensor
from tritonkit_client._memory.segments import FOLDER, Segments

segments = Segments(1 << 30)
small = segments.take(1 << 20)
assert small is not None
assert segments.take(4 << 20) is None, "a file of 4 MB in 3 MB"
assert len(list(FOLDER.iterdir())) == 1, "nothing is left of it"
data = np.ones(1 << 20, np.uint8)
small.write(Tensor("x", "UINT8", data.shape, data.data))
print("still here")
"""


def test_a_full_dev_shm_leaves_tensors_to_the_network() -> None:
    """In a mount namespace of its own, with the 3 MB of a very small container."""
    inside = f"mount -t tmpfs -o size=3m none /dev/shm && exec {sys.executable} -c '{FULL}'"
    namespace = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "mount", "-t", "tmpfs", "none", "/dev/shm"], check=False).returncode:
        pytest.skip("this machine lets nobody make a mount namespace")
    done = subprocess.run([*namespace, "sh", "-c", inside], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "still here\n"), done.stderr
