"""The GPU's runner with the host's memory in place of a GPU's: copies, sessions, and what becomes of a wrong replay.

onnxruntime captures no graphs on a CPU, so a run is what a replay would be. What only a GPU shows is measured by
`make bench-gpu`.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from textmodel import PADDING, TABLE, save, text_model

from tritonkit.server.backends.onnxruntime.batch_execution import SizedExecution, read_sizes

PACKAGE = "tritonkit.server.backends.onnxruntime.batch_execution"


class HostDevice:
    """Memory of this process under the names of a GPU's."""

    name, capability, context_bytes, stream = "host", (9, 0), 1, 0

    def __init__(self, number: int) -> None:
        self.number = number
        self.blocks: list[np.ndarray[Any, Any]] = []

    def free_bytes(self) -> tuple[int, int]:
        return 10**9 - sum(block.nbytes for block in self.blocks), 10**9

    def allocate(self, nbytes: int) -> int:
        self.blocks.append(np.zeros(nbytes, np.uint8))
        return int(self.blocks[-1].ctypes.data)

    def allocate_pinned(self, nbytes: int) -> np.ndarray[Any, Any]:
        return np.zeros(nbytes, np.uint8)

    def to_device(self, address: int, rows: np.ndarray[Any, Any]) -> None:
        ctypes.memmove(address, rows.ctypes.data, rows.nbytes)

    def to_host(self, rows: np.ndarray[Any, Any], address: int) -> None:
        ctypes.memmove(rows.ctypes.data, address, rows.nbytes)

    def within(self, target: int, source: int, nbytes: int) -> None:
        ctypes.memmove(target, source, nbytes)

    def zero(self, address: int, nbytes: int) -> None:
        ctypes.memset(address, 0, nbytes)

    def wait(self) -> None:
        """Everything is done when it returns."""


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, over the host's memory and onnxruntime's CPU provider."""
    memory = types.ModuleType(f"{PACKAGE}.memory")
    memory.Device = HostDevice  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"{PACKAGE}.memory", memory)
    monkeypatch.delitem(sys.modules, f"{PACKAGE}.cuda", raising=False)
    module = importlib.import_module(f"{PACKAGE}.cuda")
    monkeypatch.setattr(module, "KIND", "cpu")

    def session(runner: Any, _: object) -> Any:
        return onnxruntime.InferenceSession(str(runner._graph), runner._options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(module.CudaRunner, "_session_with", session)
    yield module
    sys.modules.pop(f"{PACKAGE}.cuda", None)


def options() -> onnxruntime.SessionOptions:
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 4
    return quiet


def described(path: Path, *, convolution: bool) -> dict[str, Any]:
    if convolution:
        image = {"name": "x", "data_type": "TYPE_FP32", "dims": [1, 4]}
        return {
            "max_batch_size": 8, "input": [image], "output": [image | {"name": "y"}],
            "parameters": {"batch_sizes": {"string_value": "1,2,4"}},
        }  # fmt: skip
    return {
        "max_batch_size": 8,
        "input": [{"name": name, "data_type": "TYPE_INT64", "dims": [-1]} for name in ("ids", "mask")],
        "output": [
            {"name": "mean", "data_type": "TYPE_FP32", "dims": [8]},
            {"name": "tokens", "data_type": "TYPE_FP32", "dims": [-1, 8]},
        ],
        "parameters": {
            "batch_sizes": {"string_value": "1,2,4"}, "padding": {"string_value": json.dumps(PADDING)},
        },
    }  # fmt: skip


def execution(module: Any, path: Path, *, convolution: bool) -> Any:
    sizes = read_sizes(described(path, convolution=convolution), on_gpu=True)
    assert not isinstance(sizes, str), sizes
    return SizedExecution(sizes, module.CudaRunner(path, sizes, options(), 0, {}))


def convolution_model(path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1, 4])],
        [helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 1], [3.0])],
    )  # fmt: skip
    return save(graph, path)


def test_texts_of_any_length_answer_as_alone_over_one_session(cuda: Any, tmp_path: Path) -> None:
    running = execution(cuda, text_model(tmp_path / "model.onnx"), convolution=False)
    rng = np.random.default_rng(0)
    for _ in range(40):
        requests = [rng.integers(1, 50, (int(rng.integers(1, 3)), int(rng.integers(1, 33)))) for _ in range(4)]
        answers = running.run([{"ids": ids, "mask": np.ones_like(ids)} for ids in requests])
        for ids, (mean, tokens) in zip(requests, answers, strict=True):
            np.testing.assert_allclose(mean, TABLE[ids].mean(axis=1), atol=1e-6)
            np.testing.assert_allclose(tokens, TABLE[ids], atol=1e-6)
    assert len({id(run[0]) for run in running.runner._runs.values()}) == 1
    assert (running.facts["sessions"], running.facts["graphs"]) == (1, True)


def test_a_convolution_has_a_session_for_every_size(cuda: Any, tmp_path: Path) -> None:
    running = execution(cuda, convolution_model(tmp_path / "model.onnx"), convolution=True)
    assert len({id(run[0]) for run in running.runner._runs.values()}) == running.facts["sessions"] == 3
    x = np.random.default_rng(0).random((7, 1, 4), np.float32)
    np.testing.assert_allclose(running.run([{"x": x}])[0][0], 3 * x, rtol=1e-6)


def test_a_tensor_on_the_device_is_answered_there(cuda: Any, tmp_path: Path) -> None:
    running = execution(cuda, convolution_model(tmp_path / "model.onnx"), convolution=True)
    x = np.random.default_rng(0).random((2, 1, 4), np.float32)
    there = cuda.DeviceTensor(x.ctypes.data, x.shape, x.dtype, x)
    (answer,), (host,) = running.run([{"x": there}, {"x": x[:1]}])
    assert isinstance(answer, cuda.DeviceTensor)
    np.testing.assert_allclose(running.runner.to_host(answer), 3 * x, rtol=1e-6)
    np.testing.assert_allclose(host, 3 * x[:1], rtol=1e-6)


@pytest.mark.parametrize(("wrong_times", "graphs"), [(1, True), (2, False)])
def test_a_wrong_replay_is_captured_anew_once_and_then_done_without(
    cuda: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_times: int, graphs: bool
) -> None:
    verdicts = iter([False] * wrong_times)
    checked = cuda.CudaRunner._answers_as_before
    monkeypatch.setattr(
        cuda.CudaRunner, "_answers_as_before", lambda runner, size: next(verdicts, True) and checked(runner, size)
    )
    running = execution(cuda, convolution_model(tmp_path / "model.onnx"), convolution=True)
    assert running.facts["graphs"] is graphs
    assert ("gave another answer" in running.facts.get("why_no_graphs", "")) is not graphs
    x = np.random.default_rng(0).random((3, 1, 4), np.float32)
    np.testing.assert_allclose(running.run([{"x": x}])[0][0], 3 * x, rtol=1e-6)


def test_a_replay_that_differs_is_noticed(cuda: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = cuda.CudaRunner.launch

    def spoilt(runner: Any, size: Any) -> None:
        runs(runner, size)
        if runner.facts["graphs"]:
            runner._device.zero(*runner._blocks["y"])

    monkeypatch.setattr(cuda.CudaRunner, "launch", spoilt)
    running = execution(cuda, convolution_model(tmp_path / "model.onnx"), convolution=True)
    assert running.facts["graphs"] is False


def test_memory_that_is_not_there_says_at_which_size_and_what_lowers_it(
    cuda: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Any, nbytes: int) -> int:
        raise MemoryError(f"{nbytes} bytes were asked for, 1 of 2 are free")

    monkeypatch.setattr(HostDevice, "allocate", full)
    with pytest.raises(MemoryError, match=r"no memory for batch 4.*64 bytes were asked for.*Lower batch_sizes"):
        execution(cuda, convolution_model(tmp_path / "model.onnx"), convolution=True)
