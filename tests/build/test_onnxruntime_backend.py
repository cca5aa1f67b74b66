"""The Python ONNX Runtime backend, in the real server: every dtype bit for bit, batching, isolation, configuration."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from tritonkit import graph
from tritonkit.dtypes import BY_NAME
from tritonkit.errors import CheckFailed
from tritonkit.server import TritonServer
from tritonkit_client import Client, InvalidInput, ServerError, TritonkitClientError

FLOAT = TensorProto.FLOAT
LONG_DELAY = "dynamic_batching { max_queue_delay_microseconds: 400000 preferred_batch_size: 4 }"


def save(path: Path, nodes: Sequence[onnx.NodeProto], inputs: Any, outputs: Any, weights: Sequence[Any] = ()) -> None:
    """A graph; tensors are (name, element type, dims)."""
    onnx_graph = helper.make_graph(
        list(nodes), "g", [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs], list(weights),
    )  # fmt: skip
    model = helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def add(repository: Path, name: str, config: str, *graph_of: Any) -> None:
    save(repository / name / "1/model.onnx", *graph_of)
    (repository / name / "config.pbtxt").write_text(f'backend: "onnxruntime"\n{config}', encoding="utf-8")


def identity(elem_type: int) -> tuple[Any, ...]:
    """y = x, and z = x joined with itself, which makes new memory."""
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Concat", ["x", "x"], ["z"], axis=1)]
    return (
        nodes,
        [("x", elem_type, ["batch", "n"])],
        [("y", elem_type, ["batch", "n"]), ("z", elem_type, ["batch", "m"])],
    )


def lookup() -> tuple[Any, ...]:
    """y = table[x]: an index past the table is an error of the graph."""
    table = helper.make_tensor("table", FLOAT, [10], np.arange(10, dtype=np.float32))
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    return [node], [("x", TensorProto.INT64, ["batch", 1])], [("y", FLOAT, ["batch", 1])], [table]


def io(kind: str, name: str, dtype: str, *dims: int) -> str:
    return f'{kind} {{ name: "{name}" data_type: {dtype} dims: [{", ".join(map(str, dims))}] }}\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("backend") / "modèles et espaces"
    for name, dtype in BY_NAME.items():
        config = "max_batch_size: 4\n" + io("input", "x", dtype.triton, -1) + io("output", "y", dtype.triton, -1)
        add(repository, name, config + io("output", "z", dtype.triton, -1), *identity(dtype.onnx))
    known = "max_batch_size: 4\n" + io("input", "x", "TYPE_INT64", 1) + io("output", "y", "TYPE_FP32", 1)
    add(repository, "lookup", known + LONG_DELAY, *lookup())
    add(repository, "three_instances", known + "instance_group { count: 3 kind: KIND_CPU }", *lookup())
    for count in (1, 7):
        threads = f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{count}" }} }}'
        add(repository, f"threads_{count}", known + threads, *lookup())
    add(repository, "completed", "", *lookup())
    add(repository, "completed_batch", "max_batch_size: 8", *lookup())
    settings = 'optimization { graph { level: 2 } }\nparameters { key: "execution_mode" value { string_value: "1" } }'
    add(repository, "settings", known + settings, *lookup())
    with TritonServer(repository) as running:
        yield running


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, server: TritonServer) -> Iterator[Client]:
    with Client(server.grpc_url if request.param == "grpc" else server.http_url) as connected:
        yield connected


def values(name: str) -> np.ndarray[Any, np.dtype[Any]]:
    """Two rows with the extremes of a dtype."""
    dtype: Any = BY_NAME[name].numpy
    if name == "string":
        return np.array([[b"", b"plain", "Zürich 漢字 🙂".encode()], [b"a\0b", b" ", b"x" * 5000]], dtype=object)
    if name == "bool":
        return np.array([[True, False, True], [False, False, True]])
    if dtype.kind == "f":
        info = np.finfo(dtype)
        return np.array([[info.max, info.min, info.smallest_subnormal], [np.inf, -0.0, np.nan]], dtype)
    limits = np.iinfo(dtype)
    return np.array([[limits.max, limits.min, 0], [1, 2, 3]], dtype)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_dtype_equals_in_process_onnxruntime_bit_for_bit(name: str, client: Client, server: TritonServer) -> None:
    x = values(name)
    served = client.infer(name, x=x)
    text = np.vectorize(lambda item: item.decode(), otypes=[object])(x) if name == "string" else x
    expected = graph.Session(server.repository / name / "1/model.onnx").run({"x": text})
    for output in ("y", "z"):
        assert served[output].shape == expected[output].shape
        if name == "string":
            assert [item.decode() for item in served[output].reshape(-1)] == expected[output].reshape(-1).tolist()
        else:
            assert served[output].dtype == expected[output].dtype
            assert served[output].tobytes() == expected[output].tobytes()


def test_only_the_outputs_that_are_asked_for_are_sent(client: Client) -> None:
    assert set(client.infer("fp32", x=np.ones((1, 2), np.float32), outputs=["z"])) == {"z"}


def test_text_that_is_not_utf8_is_an_error_of_that_request_alone(client: Client) -> None:
    with pytest.raises(TritonkitClientError, match="utf-8"):
        client.infer("string", x=np.array([[b"\xff"]], dtype=object))
    assert client.infer("string", x=np.array([[b"fine"]], dtype=object))["y"].tolist() == [[b"fine"]]


def together(server: TritonServer, model: str, rows: Sequence[int]) -> tuple[list[Any], int]:
    """One request for each row at the same time: their results or errors, and the executions they took."""
    results: list[Any] = [None] * len(rows)
    with Client(server.grpc_url) as client:
        client.metadata(model)
        before = client.statistics(model)[0]

        def call(index: int) -> None:
            try:
                results[index] = client.infer(model, x=np.array([[rows[index]]]))["y"].item()
            except TritonkitClientError as error:
                results[index] = error

        threads = [threading.Thread(target=call, args=(index,)) for index in range(len(rows))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results, client.statistics(model)[0].execution_count - before.execution_count


def test_waiting_requests_run_as_one_batch_and_each_gets_its_own_row(server: TritonServer) -> None:
    results, executions = together(server, "lookup", [3, 1, 4, 2])
    assert results == [3.0, 1.0, 4.0, 2.0]
    assert executions == 1


def test_a_bad_request_fails_alone_while_its_batch_mates_succeed(server: TritonServer) -> None:
    results, executions = together(server, "lookup", [3, 1000, 4, 2])
    assert executions == 1, "they were not one batch"
    assert isinstance(results[1], (ServerError, InvalidInput))
    assert "indices element out of data bounds" in str(results[1])
    assert [results[i] for i in (0, 2, 3)] == [3.0, 4.0, 2.0]


def stubs(server: TritonServer, model: str) -> list[psutil.Process]:
    """The processes that serve a model, one an instance."""
    return [stub for stub in psutil.Process(server.pid).children() if f"/{model}/" in " ".join(stub.cmdline())]


def test_instance_count_is_the_number_of_processes(server: TritonServer) -> None:
    assert len(stubs(server, "three_instances")) == 3


def test_thread_count_of_the_configuration_is_the_sessions(server: TritonServer) -> None:
    one_thread, seven_threads = (stubs(server, f"threads_{count}")[0].num_threads() for count in (1, 7))
    assert seven_threads - one_thread == 6


def test_missing_inputs_outputs_and_batch_size_come_from_the_graph(client: Client) -> None:
    known = client.metadata("completed")
    assert [(t.name, t.datatype, tuple(t.shape)) for t in known.inputs] == [("x", "INT64", (-1, 1))]
    assert [(t.name, t.datatype, tuple(t.shape)) for t in known.outputs] == [("y", "FP32", (-1, 1))]
    assert known.max_batch_size == 4  # the server's default-max-batch-size
    assert client.metadata("completed_batch").max_batch_size == 8
    assert client.infer("completed", x=np.array([[7]]))["y"].tolist() == [[7.0]]


def test_graph_level_and_execution_mode_are_accepted(client: Client) -> None:
    assert client.infer("settings", x=np.array([[7]]))["y"].tolist() == [[7.0]]


WRONG = {
    "name": (io("input", "x", "TYPE_INT64", 1) + io("output", "q", "TYPE_FP32", 1), "the graph has no output 'q'; it has: y"),
    "dtype": (io("input", "x", "TYPE_INT32", 1) + io("output", "y", "TYPE_FP32", 1), "input 'x' is TYPE_INT32 in the configuration"),
    "dims": (io("input", "x", "TYPE_INT64", 3) + io("output", "y", "TYPE_FP32", 1), "input 'x' has dims"),
    "threads": (
        io("input", "x", "TYPE_INT64", 1) + io("output", "y", "TYPE_FP32", 1)
        + 'parameters { key: "intra_op_thread_count" value { string_value: "many" } }', "'many', not a whole number",
    ),
    "level": (
        io("input", "x", "TYPE_INT64", 1) + io("output", "y", "TYPE_FP32", 1) + "optimization { graph { level: 9 } }",
        "level is 9; -1, 1 and 2 are known",
    ),
    "GPU on a machine without one": (
        io("input", "x", "TYPE_INT64", 1) + io("output", "y", "TYPE_FP32", 1) + "instance_group { kind: KIND_GPU }",
        "no GPUs are available",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_configuration_that_contradicts_the_graph_does_not_load(what: str, tmp_path: Path) -> None:
    if "GPU" in what and Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    config, message = WRONG[what]
    add(tmp_path / "repository", "wrong", "max_batch_size: 4\n" + config, *lookup())
    with pytest.raises(CheckFailed) as caught, TritonServer(tmp_path / "repository"):
        pass
    assert "failed to load 'wrong'" in str(caught.value)
    assert message in str(caught.value)
