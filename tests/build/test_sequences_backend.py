"""Stateful models in the real server: control inputs and implicit states reach the graph, one sequence apart from another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpc
from onnx import TensorProto, helper

from tritonkit.errors import CheckFailed
from tritonkit.server import TritonServer
from tritonkit_client import Client, TritonkitClientError

STRATEGIES = {
    "direct": "direct { }",
    "oldest": "oldest { max_candidate_sequences: 4 max_queue_delay_microseconds: 20000 }",
}
CONTROLS = (
    'control_input { name: "START" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] } }\n'
    'control_input { name: "ID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }\n'
)
TOTAL = 'state { input_name: "total" output_name: "new_total" data_type: TYPE_FP32 dims: 1 initial_state { %s } }\n'
ZERO = 'name: "zero" data_type: TYPE_FP32 dims: 1 zero_data: true'
FROM_FILE = 'name: "hundred" data_type: TYPE_FP32 dims: 1 data_file: "hundred"'
HISTORY = 'state { input_name: "seen" output_name: "new_seen" data_type: TYPE_FP32 dims: -1 }\n'
INPUTS: list[Any] = [("x", TensorProto.FLOAT, ["n", 1]), ("START", TensorProto.INT32, ["n", 1]), ("ID", TensorProto.UINT64, ["n", 1]),
          ("total", TensorProto.FLOAT, ["n", 1]), ("seen", TensorProto.FLOAT, ["n", "s"])]  # fmt: skip
OUTPUTS: list[Any] = [("y", TensorProto.FLOAT, ["n", 1]), ("started", TensorProto.INT32, ["n", 1]), ("id", TensorProto.UINT64, ["n", 1]),
           ("sum", TensorProto.FLOAT, ["n", 1]), ("new_total", TensorProto.FLOAT, ["n", 1]),
           ("new_seen", TensorProto.FLOAT, ["n", "t"])]  # fmt: skip


def accumulator(path: Path) -> None:
    """y = the sum of a sequence so far; `seen` grows by each x, and `sum` is the sum of all that it holds.

    An x below 0 takes a row that is not there: the graph fails, and no state may change.
    """
    nodes = [
        helper.make_node("Cast", ["x"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["checked"]),
        helper.make_node("Squeeze", ["checked", "last"], ["row"]),
        helper.make_node("Add", ["total", "row"], ["new_total"]),
        helper.make_node("Identity", ["new_total"], ["y"]),
        helper.make_node("Identity", ["START"], ["started"]),
        helper.make_node("Identity", ["ID"], ["id"]),
        helper.make_node("Concat", ["seen", "x"], ["new_seen"], axis=1),
        helper.make_node("ReduceSum", ["new_seen", "last_axis"], ["sum"], keepdims=1),
    ]
    constants = [
        helper.make_tensor("table", TensorProto.FLOAT, [100, 1], np.arange(100, dtype=np.float32)),
        helper.make_tensor("last", TensorProto.INT64, [1], [2]),
        helper.make_tensor("last_axis", TensorProto.INT64, [1], [1]),
    ]
    inputs, outputs = ([helper.make_tensor_value_info(*entry) for entry in side] for side in (INPUTS, OUTPUTS))
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def add(repository: Path, name: str, backend: str, batching: str, declared: bool = True) -> None:
    folder = repository / name
    accumulator(folder / "1/model.onnx")
    (folder / "initial_state").mkdir()
    (folder / "initial_state/hundred").write_bytes(np.array([100], np.float32).tobytes())
    sides = 'input { name: "x" data_type: TYPE_FP32 dims: 1 }\n' + "".join(
        f'output {{ name: "{output}" data_type: {dtype} dims: 1 }}\n'
        for output, dtype in (
            ("y", "TYPE_FP32"), ("started", "TYPE_INT32"), ("id", "TYPE_UINT64"), ("sum", "TYPE_FP32"),
        )
    )  # fmt: skip
    (folder / "config.pbtxt").write_text(
        f'backend: "{backend}"\ndefault_model_filename: "model.onnx"\nmax_batch_size: 4\n{sides if declared else ""}'
        f"instance_group {{ count: 1 kind: KIND_CPU }}\nsequence_batching {{ {batching} }}\n",
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("sequences") / "repository"
    for name, strategy in STRATEGIES.items():
        add(repository, name, "onnxruntime", strategy + CONTROLS + TOTAL % ZERO + HISTORY)
    add(repository, "other_name", "tritonkit_onnxruntime", CONTROLS + TOTAL % FROM_FILE + HISTORY)
    add(repository, "completed", "onnxruntime", CONTROLS + TOTAL % ZERO + HISTORY, declared=False)
    with TritonServer(repository) as running:
        yield running


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_concurrent_sequences_have_their_own_states_and_controls(strategy: str, server: TritonServer) -> None:
    answers: dict[int, list[Any]] = {}

    def run(first: int) -> None:
        with Client(server.grpc_url) as client, client.sequence(strategy) as sequence:
            answers[first] = [sequence(x=np.array([[first + step]], np.float32), end=step == 4) for step in range(5)]

    threads = [threading.Thread(target=run, args=(first,)) for first in (1, 20, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    identities = set()
    for first in (1, 20, 40):
        sums = np.cumsum([first + step for step in range(5)]).tolist()
        assert [answer["y"].item() for answer in answers[first]] == sums
        assert [answer["sum"].item() for answer in answers[first]] == sums
        assert [answer["started"].item() for answer in answers[first]] == [1, 0, 0, 0, 0]
        (identity,) = {answer["id"].item() for answer in answers[first]}
        identities.add(identity)
    assert len(identities) == 3


def test_a_sequence_restarts_under_its_id_with_the_initial_state_of_a_file(server: TritonServer) -> None:
    x = grpc.InferInput("x", [1, 1], "FP32")
    x.set_data_from_numpy(np.full((1, 1), 5, np.float32))
    with grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        for last in (False, True):  # the first sequence is given up, without an end
            totals = [
                client.infer(
                    "other_name", [x], sequence_id=7, sequence_start=step == 0, sequence_end=last and step == 1
                )
                for step in range(2)
            ]
            assert [total.as_numpy("y").item() for total in totals] == [105, 110]


def test_a_rejected_request_leaves_its_sequences_states_unchanged(server: TritonServer) -> None:
    with Client(server.grpc_url) as client, client.sequence("oldest") as sequence:
        sequence(x=np.full((1, 1), 5, np.float32))
        with pytest.raises(TritonkitClientError, match=r"out of data bounds|out of bounds"):
            sequence(x=np.full((1, 1), 500, np.float32))
        assert sequence(x=np.full((1, 1), 6, np.float32), end=True)["y"].item() == 11


def test_completed_inputs_leave_out_the_batchers_tensors(server: TritonServer) -> None:
    with Client(server.grpc_url) as client:
        described = client.metadata("completed")
        assert [tensor.name for tensor in described.inputs] == ["x"]
        assert [tensor.name for tensor in described.outputs] == ["y", "started", "id", "sum"]


def test_a_state_that_the_graph_does_not_have_is_refused_at_load(tmp_path: Path) -> None:
    state = TOTAL.replace('"new_total"', '"elsewhere"') % ZERO
    add(tmp_path / "repository", "wrong", "onnxruntime", CONTROLS + state + HISTORY)
    with pytest.raises(CheckFailed, match=r"the graph has no output 'elsewhere'; it has: y, started"):
        TritonServer(tmp_path / "repository").start()
