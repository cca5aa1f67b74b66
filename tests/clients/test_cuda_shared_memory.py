"""Tensors through the memory of a GPU that client and server share, with arrays of PyTorch and CuPy."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memories import BIG, gpu, needs_the_extra
from models import write_models
from tritonclient.grpc import InferenceServerClient

from tritonkit.server import TritonServer
from tritonkit_client import Client, CudaSharedMemory, DeadlineExceeded, InvalidInput
from tritonkit_client._memory import cuda
from tritonkit_client._memory.segments import is_orphan

Connect = Callable[..., Client]
PAGE = (Path(__file__).parents[2] / "docs/reference/clients.md").read_text(encoding="utf-8")


@pytest.fixture
def make(noting: Connect) -> Connect:
    needs_the_extra()
    return noting


def test_the_example_in_the_documentation_is_python() -> None:
    compile(example(), "docs/reference/clients.md", "exec")


def example() -> str:
    (code,) = re.findall(r"^```python gpu\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(code)


@pytest.fixture
def torch() -> Any:
    module = pytest.importorskip("torch")
    if not module.cuda.is_available():
        pytest.skip("PyTorch here is not built for CUDA")
    return module


@pytest.fixture
def shared(make: Connect) -> Client:
    return make(shared_memory=CudaSharedMemory())


@pytest.fixture
def never_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copying an array from the GPU is an error."""
    monkeypatch.delattr(cuda, "_copy_to_host")


@pytest.fixture
def regions(admin: InferenceServerClient) -> Callable[[], set[str]]:
    return lambda: set(admin.get_cuda_shared_memory_status().regions)


@gpu
def test_large_arrays_of_the_host_go_through_it_and_come_back_bit_for_bit(
    shared: Client, operations: list[str], regions: Callable[[], set[str]]
) -> None:
    before = regions()
    for turn in range(4):
        array = BIG + np.uint8(turn)
        out = shared.infer("identity", in_UINT8=array, in_BYTES=[[b"small"]])
        np.testing.assert_array_equal(out["out_UINT8"], array)
        assert out["out_BYTES"].tolist() == [[b"small"]]
    # A segment for the input, and one for the output, which is free again once it was read.
    assert operations.count("register") == len(regions() - before) == 2
    shared.close()
    assert regions() == before


@gpu
@pytest.mark.usefixtures("never_on_the_host")
@pytest.mark.parametrize("shape", [(2, 3), (2, 700_000)], ids=["small", "large"])
@pytest.mark.parametrize("datatype", ["BOOL", "UINT8", "INT64", "FP16", "FP32", "BF16"])
def test_tensors_of_pytorch_go_from_gpu_to_gpu(
    shared: Client, torch: Any, datatype: str, shape: tuple[int, int], operations: list[str]
) -> None:
    names = {"BOOL": "bool", "FP16": "float16", "FP32": "float32", "BF16": "bfloat16"}
    tensor = (torch.rand(shape, device="cuda") * 100).to(getattr(torch, names.get(datatype, datatype.lower())))
    out = shared.infer("identity", {f"in_{datatype}": tensor})[f"out_{datatype}"]
    np.testing.assert_array_equal(out.astype(np.float64), tensor.cpu().double().numpy())
    assert "register" in operations


@gpu
@pytest.mark.usefixtures("never_on_the_host")
def test_work_on_any_stream_of_pytorch_is_waited_for(shared: Client, torch: Any) -> None:
    tensor = torch.zeros((1, 1_000_000), dtype=torch.uint8, device="cuda")
    shared.infer("identity", in_UINT8=tensor)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(300_000_000)  # cycles: more than a tenth of a second
        tensor.fill_(7)
        assert shared.infer("identity", in_UINT8=tensor)["out_UINT8"].min() == 7


@gpu
@pytest.mark.usefixtures("never_on_the_host")
def test_work_on_the_stream_that_cupy_names_is_waited_for(url: str) -> None:
    cupy = pytest.importorskip("cupy")
    array = cupy.zeros((1, 1_000_000), cupy.uint8)
    long = cupy.ones(200_000_000, cupy.float32)
    # In this thread, as CuPy's current stream is a thread's own.
    with Client(url, shared_memory=CudaSharedMemory()) as client:
        client.infer("identity", in_UINT8=array)
        cupy.cuda.Device().synchronize()
        with cupy.cuda.Stream(non_blocking=True):
            for _ in range(100):
                long *= 2
            array.fill(7)
            assert client.infer("identity", in_UINT8=array)["out_UINT8"].min() == 7


@gpu
def test_a_batch_on_the_gpu_is_cut_and_put_together(shared: Client, torch: Any) -> None:
    left = torch.arange(30, dtype=torch.float32, device="cuda").reshape(10, 3)
    out = shared.infer_many("arithmetic", {"left": left, "right": left * 2})
    np.testing.assert_array_equal(out["sum"], left.cpu().numpy() * 3)


@gpu
def test_sequences_and_streams_take_arrays_of_the_gpu_too(shared: Client, torch: Any, server: TritonServer) -> None:
    with shared.sequence("sum") as sequence:
        for total in (2.0, 4.0):
            x = torch.full((1, 1), 2.0, device="cuda")
            assert sequence(x=x)["state"][0, 0] == total
    with Client(server.grpc_url, shared_memory=CudaSharedMemory()) as client:
        upto = torch.full((1,), 3, dtype=torch.int32, device="cuda")
        outs = client.stream("count", upto=upto, size=[2], pause=[0.0], mark=["/dev/null"])
        assert [out["number"].tolist() for out in outs] == [[0, 0], [1, 1], [2, 2]]


@gpu
def test_a_full_arena_leaves_tensors_with_their_requests(make: Connect, torch: Any) -> None:
    client = make(shared_memory=CudaSharedMemory(capacity_bytes=1 << 20))
    on_gpu = torch.from_numpy(BIG).cuda()
    for array in (BIG, on_gpu, on_gpu):
        np.testing.assert_array_equal(client.infer("identity", in_UINT8=array)["out_UINT8"], BIG)


@gpu
def test_a_gpu_with_no_memory_left_leaves_tensors_with_their_requests(make: Connect) -> None:
    client = make(shared_memory=CudaSharedMemory(capacity_bytes=1 << 50))
    with pytest.raises(MemoryError):
        cuda.Gpu(0).allocate(1 << 45)  # 32 TiB
    assert client._arena is not None
    assert client._arena._segments.take(1 << 45) is None


@gpu
def test_a_segment_of_a_late_server_is_neither_reused_nor_freed(
    shared: Client, operations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    big = np.full((1, 400_000), 0.4, np.float32)
    shared.infer("sleep_big", {"timeout": big * 0})
    with pytest.raises(DeadlineExceeded):
        shared.infer("sleep_big", {"timeout": big}, timeout=0.1)
    assert shared._arena is not None
    assert len(shared._arena._segments.in_quarantine()) == 2
    freed: list[int] = []
    monkeypatch.setattr(cuda.Gpu, "free", lambda _gpu, pointer: freed.append(pointer))
    operations.clear()
    shared.close()
    assert not freed
    assert "unregister" not in operations


@gpu
def test_a_closed_client_gives_the_memory_of_the_gpu_back(shared: Client) -> None:
    def free_bytes() -> int:
        with cuda._current(0):
            return int(cuda._call("cuMemGetInfo"))

    large = np.zeros((1, 64 << 20), np.uint8)
    shared.infer("identity", in_UINT8=BIG)  # the server's own memory, which it keeps
    before = free_bytes()
    shared.infer("identity", in_UINT8=large)
    assert before - free_bytes() >= 64 << 20
    shared.close()
    assert before - free_bytes() < 32 << 20


CRASH = """
import os, signal, sys, numpy as np
from tritonkit_client import Client, CudaSharedMemory
client = Client(sys.argv[1], shared_memory=CudaSharedMemory())
for _ in range(2):
    client.infer("identity", in_UINT8=np.zeros((2, 700_000), np.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""


@gpu
def test_what_a_killed_process_leaves_is_forgotten_by_the_next(
    server: TritonServer, shared: Client, regions: Callable[[], set[str]]
) -> None:
    before = regions()
    subprocess.run([sys.executable, "-c", CRASH, server.grpc_url], check=False)
    left = regions() - before
    assert len(left) == 2
    assert all(is_orphan(name) for name in left)
    np.testing.assert_array_equal(shared.infer("identity", in_UINT8=BIG)["out_UINT8"], BIG)
    assert not left & regions()


@pytest.fixture
def blind_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TritonServer]:
    """A server that sees no GPU."""
    write_models(tmp_path, "identity")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with TritonServer(tmp_path, exit_timeout_s=1) as running:
        yield running


@gpu
def test_a_server_without_a_gpu_is_sent_what_is_on_one(
    blind_server: TritonServer, make: Connect, operations: list[str], torch: Any
) -> None:
    client = make(blind_server.grpc_url, shared_memory=CudaSharedMemory())
    tensor = torch.from_numpy(BIG).cuda()
    for _ in range(2):
        np.testing.assert_array_equal(client.infer("identity", in_UINT8=tensor)["out_UINT8"], BIG)
    assert operations.count("register") == 1


@gpu
def test_threads_share_a_client(shared: Client, torch: Any) -> None:
    def ask(number: int) -> bool:
        tensor = torch.full((2, 300_000), number, dtype=torch.uint8, device="cuda")
        return bool((shared.infer("identity", in_UINT8=tensor)["out_UINT8"] == number).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(100)))


@gpu
def test_a_gpu_that_is_not_there_is_named(connect: Connect, shared: Client) -> None:
    with pytest.raises(InvalidInput, match="there is no GPU 99"):
        connect("grpc://127.0.0.1:1", shared_memory=CudaSharedMemory(device_id=99))


@gpu
@pytest.mark.usefixtures("torch", "shared")
def test_the_example_in_the_documentation_runs(url: str) -> None:
    names: dict[str, Any] = {"Client": Client}
    exec(example().replace('"grpc://127.0.0.1:8001"', repr(url)), names)
    assert names["out"]["logits"].shape == (1, 1000)
    names["near"].close()
