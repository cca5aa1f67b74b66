"""Arrays on a GPU, and clients that use its memory, as far as tests need no GPU: what is refused, and why."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memories import BIG
from models import write_models
from tritonclient.grpc import service_pb2

from tritonkit.server import TritonServer
from tritonkit_client import Client, CudaSharedMemory, InvalidInput, ModelMetadata, SharedMemory, TensorSpec
from tritonkit_client._memory import cuda, shared_memory
from tritonkit_client._memory.segments import FileSegment, Segments
from tritonkit_client._protocol.calls import Region
from tritonkit_client._protocol.errors import Origin
from tritonkit_client._protocol.grpc_wire import GrpcWire
from tritonkit_client._protocol.http_wire import HttpWire
from tritonkit_client._protocol.validation import encode_inputs

Connect = Callable[..., Client]
ORIGIN = Origin("grpc://models:8001", "m", "r1")


class _OnGpu:
    """The description of an array on a GPU without the array: reading it would end the process."""

    def __init__(self, *shape: int, typestr: str = "<f4", **more: Any) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": typestr, "data": (8, False), "version": 3, **more,
        }  # fmt: skip


# numpy's type ArrayLike does not include them.
OnGpu: Any = _OnGpu


class NeedsGradient:
    """PyTorch's tensors with requires_grad."""

    @property
    def __cuda_array_interface__(self) -> Any:
        raise RuntimeError("use var.detach()")


def model(datatype: str, *shape: int, max_batch_size: int = 0) -> ModelMetadata:
    inputs = (TensorSpec("x", datatype, shape), TensorSpec("extra", "FP32", (-1, 1), optional=True))
    return ModelMetadata("m", ("1",), "p", inputs, (), max_batch_size)


def test_an_array_on_a_gpu_is_checked_without_being_read() -> None:
    (tensor,) = encode_inputs(model("FP32", -1, 3), {"x": OnGpu(2, 3)}, ORIGIN)
    assert (tensor.shape, tensor.datatype, tensor.size, bytes(tensor.data)) == ((2, 3), "FP32", 24, b"")
    assert tensor.device is not None
    assert tensor.device.pointer == 8


@pytest.mark.parametrize(
    ("array", "datatype"),
    [
        (OnGpu(4, typestr="<V2"), "BF16"),  # PyTorch's spelling
        (OnGpu(4, typestr="|b1"), "BOOL"),
        (OnGpu(4, typestr="<i8", strides=(8,)), "INT64"),
        (OnGpu(1, typestr="<f4", strides=(400,)), "FP32"),  # a single element is contiguous whatever its strides
    ],
)
def test_arrays_on_a_gpu_that_are_used(array: Any, datatype: str) -> None:
    (tensor,) = encode_inputs(model(datatype, -1), {"x": array}, ORIGIN)
    assert tensor.device is not None


def test_an_array_on_a_gpu_without_elements_is_sent_as_any_other() -> None:
    (tensor,) = encode_inputs(model("FP32", -1), {"x": OnGpu(0)}, ORIGIN)
    assert (tensor.shape, tensor.size, tensor.device) == ((0,), 0, None)


@pytest.mark.parametrize(
    ("metadata", "values", "words"),
    [
        (model("FP32", -1), {"y": OnGpu(2)}, "has no input 'y'"),
        (model("FP32", -1), {"x": OnGpu(2, typestr="<f2")}, "must have the very type; expected FP32 [-1], given FP16 [2]"),
        (model("FP32", -1), {"x": OnGpu(2, typestr=">f4")}, "must have the very type"),
        (model("BYTES", -1), {"x": OnGpu(2)}, "text is not taken from a GPU"),
        (model("FP32", -1, 3), {"x": OnGpu(3)}, "add the batch dimension: x[np.newaxis]"),
        (model("FP32", -1, 3), {"x": OnGpu(2, 4)}, "dimension 1 is 4, not 3"),
        (model("FP32", -1, 3), {"x": OnGpu(2, 3, strides=(4, 8))}, "C-contiguous"),
        (model("FP32", -1), {"x": OnGpu(2, strides=(8,))}, "x.contiguous() of a PyTorch tensor"),
        (model("FP32", -1), {"x": [OnGpu(), OnGpu()]}, "stack them there"),
        (model("FP32", -1), {"x": NeedsGradient()}, "x.detach() of a PyTorch tensor"),
        (model("FP32", -1), {"x": OnGpu(2, mask=OnGpu(2))}, "it is masked"),
        (model("FP32", -1, 3, max_batch_size=4), {"x": OnGpu(5, 3)}, "is a batch of 5: expected 1 to 4"),
        (model("FP32", -1, 3, max_batch_size=4), {"x": OnGpu(2, 3), "extra": np.ones((3, 1), np.float32)}, "x: 2, extra: 3"),
    ],
)  # fmt: skip
def test_arrays_on_a_gpu_that_do_not_fit_are_refused(metadata: ModelMetadata, values: Any, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        encode_inputs(metadata, values, ORIGIN)
    assert words in str(caught.value)


@pytest.mark.parametrize("memory", [None, SharedMemory()])
def test_an_array_on_a_gpu_wants_a_client_that_reads_it(
    url: str, connect: Connect, memory: SharedMemory | None
) -> None:
    with pytest.raises(InvalidInput, match="on a GPU") as caught:
        connect(url, shared_memory=memory).infer("identity", in_FP32=OnGpu(2, 3))
    assert "shared_memory=CudaSharedMemory()" in caught.value.fix


def test_without_the_extra_a_client_says_how_to_get_it(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda._driver.cache_clear()
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(InvalidInput, match=re.escape("pip install 'tritonkit-client[cuda]'")):
        connect("grpc://127.0.0.1:1", shared_memory=CudaSharedMemory())


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU here")
def test_without_a_gpu_a_client_says_so(connect: Connect) -> None:
    pytest.importorskip(
        "cuda.bindings.driver", reason="the extra is not installed: pip install 'tritonkit-client[cuda]'"
    )
    with pytest.raises(InvalidInput, match="needs an NVIDIA GPU and its driver"):
        connect("grpc://127.0.0.1:1", shared_memory=CudaSharedMemory())


def test_only_a_client_that_asks_for_it_loads_cuda() -> None:
    code = (
        "import sys; sys.modules['cuda'] = None\n"
        "from tritonkit_client import Client, SharedMemory\n"
        "Client('grpc://127.0.0.1:1', shared_memory=SharedMemory()).close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidInput):
        CudaSharedMemory(min_bytes=0)


REGION = Region("r", 4096, "cuda", handle=bytes(range(64)), device=3)


def test_over_grpc_a_region_is_registered_with_its_raw_handle() -> None:
    call = GrpcWire().register(REGION, ORIGIN)
    message = service_pb2.CudaSharedMemoryRegisterRequest.FromString(b"".join(call.encode(None)[0]))
    assert call.target.endswith("/CudaSharedMemoryRegister")
    assert (message.name, message.raw_handle, message.device_id, message.byte_size) == ("r", REGION.handle, 3, 4096)


def test_over_http_a_region_is_registered_with_its_handle_in_base64() -> None:
    call = HttpWire("/team").register(REGION, ORIGIN)
    message = json.loads(b"".join(call.encode(None)[0]))
    assert call.target == "/team/v2/cudasharedmemory/region/r/register"
    assert base64.b64decode(message["raw_handle"]["b64"]) == REGION.handle
    assert (message["device_id"], message["byte_size"]) == (3, 4096)


class Unopenable(FileSegment):
    """A segment whose handle no server can open."""

    def __init__(self, _gpu: Any, name: str, size: int) -> None:
        super().__init__(name, size)
        self.region = Region(name, size, "cuda", handle=bytes(64))


def test_a_server_that_cannot_open_the_memory_is_sent_tensors_as_usual(
    url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared_memory, "Gpu", int)
    monkeypatch.setattr(shared_memory, "CudaSegment", Unopenable)
    client = connect(url, shared_memory=CudaSharedMemory())
    for _ in range(2):
        np.testing.assert_array_equal(client.infer("identity", in_UINT8=BIG)["out_UINT8"], BIG)
    assert caplog.text.count("cannot use the memory of GPU 0") == 1  # it is tried once


class Noting(FileSegment):
    """A segment that notes how it was removed."""

    used: bool | None = None

    def remove(self, used: bool) -> None:
        self.used = used
        super().remove(used)


def test_memory_that_a_request_in_flight_uses_is_not_freed() -> None:
    segments = Segments(1 << 30, Noting)
    segment, free = segments.take(1), segments.take(1)
    assert isinstance(segment, Noting)
    assert isinstance(free, Noting)
    segments.give(free)
    segments.close()
    assert (segment.used, free.used) == (True, False)


def stop(pid: int) -> None:
    """Stop a process, and wait until each of its threads has stopped."""
    os.kill(pid, signal.SIGSTOP)
    threads = list(Path(f"/proc/{pid}/task").glob("*/stat"))
    while {path.read_text().rpartition(")")[2].split()[0] for path in threads} != {"T"}:
        time.sleep(0.001)


def test_memory_that_a_server_may_still_have_open_is_not_freed(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA leaves undefined what happens to a process that has it open."""
    write_models(small_repository, "identity")
    monkeypatch.setattr(shared_memory, "FileSegment", Noting)
    with TritonServer(small_repository, exit_timeout_s=1) as server:
        for stopped in (False, True):
            client = Client(server.grpc_url, shared_memory=SharedMemory())
            client.infer("identity", in_UINT8=BIG)
            assert client._arena is not None
            (segment,) = client._arena._segments._all.values()
            if stopped:
                stop(server.pid)
            client.close()
            assert isinstance(segment, Noting)
            assert segment.used is stopped
        os.kill(server.pid, signal.SIGCONT)
