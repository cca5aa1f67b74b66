"""Prepared sizes without a server: settings, plans, and answers beside those of plain onnxruntime. On a CPU."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from textmodel import PADDING, save, text_model

from tritonkit.server.backends.onnxruntime.batch_execution import (
    DirectExecution,
    SettingsError,
    SizedExecution,
    open_execution,
    read_sizes,
)
from tritonkit.server.backends.onnxruntime.batch_execution.convolutions import has_convolutions
from tritonkit.server.backends.onnxruntime.batch_execution.planning import Piece, Planner, Size

FLOAT = TensorProto.FLOAT


def config(largest: int = 16, **parameters: str) -> dict[str, Any]:
    """A configuration, as Triton gives it to a backend."""
    return {
        "max_batch_size": largest,
        "input": [{"name": name, "data_type": "TYPE_INT64", "dims": [-1]} for name in ("ids", "mask")],
        "output": [
            {"name": "mean", "data_type": "TYPE_FP32", "dims": [8]},
            {"name": "tokens", "data_type": "TYPE_FP32", "dims": [-1, 8]},
        ],
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }


def padded(batch_sizes: str = "1,2,4,8", **changes: Any) -> dict[str, Any]:
    entry = PADDING["sequence"] | changes
    return config(batch_sizes=batch_sizes, padding=json.dumps({"sequence": entry}))


def options() -> onnxruntime.SessionOptions:
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 4
    quiet.intra_op_num_threads = 1
    return quiet


def text(rng: np.random.Generator, rows: int, length: int) -> dict[str, Any]:
    return {"ids": rng.integers(0, 50, (rows, length)), "mask": np.ones((rows, length), np.int64)}


def sized(described: dict[str, Any], path: Path) -> SizedExecution:
    sizes = read_sizes(described, on_gpu=False)
    assert not isinstance(sizes, str), sizes
    return open_execution(path, sizes, options(), None)


def direct(path: Path) -> DirectExecution:
    return DirectExecution(onnxruntime.InferenceSession(str(path), options()))


# Planning


def cost(size: Size) -> float:
    """A launch, and the work in it."""
    return 5.0 + size.batch * (size.lengths[0] if size.lengths else 1)


def test_rows_run_at_the_cheapest_sizes_that_hold_them() -> None:
    planner = Planner([1, 2, 4, 8], [], 16, lambda size: 1.0 + size.batch)
    assert planner.pieces(3, ()) == (Piece(0, 3, Size(4, ())),)
    assert planner.pieces(5, ()) == (Piece(0, 4, Size(4, ())), Piece(4, 1, Size(1, ())))  # 7, and 8 alone costs 9
    assert planner.pieces(16, ()) == (Piece(0, 8, Size(8, ())), Piece(8, 8, Size(8, ())))


def test_every_number_of_rows_costs_as_little_as_any_cover_of_it() -> None:
    batches = [1, 2, 4, 8]
    planner = Planner(batches, [], 12, cost)
    for rows in range(1, 13):
        pieces = planner.pieces(rows, ())
        assert sum(piece.rows for piece in pieces) == rows
        least = min(
            sum(cost(Size(batch, ())) for batch in cover)
            for count in range(1, 5)
            for cover in itertools.combinations_with_replacement(batches, count)
            if sum(cover) >= rows
        )
        assert sum(cost(piece.size) for piece in pieces) == least


def test_a_short_row_joins_long_ones_where_a_run_of_its_own_costs_more() -> None:
    dear = Planner([1, 2, 4, 8], [(8, 32)], 16, lambda size: 1000.0 + cost(size))
    assert dear.groups({(8,): 1, (32,): 3}) == [((32,), [(8,), (32,)])]
    cheap = Planner([1, 2, 4, 8], [(8, 32)], 16, lambda size: float(size.batch * size.lengths[0]))
    assert {lengths for lengths, _ in cheap.groups({(8,): 8, (32,): 8})} == {(8,), (32,)}


def test_two_padded_dimensions_join_at_the_larger_of_both() -> None:
    planner = Planner([1, 2, 4], [(8, 16), (8, 16)], 4, lambda size: 1000.0 + size.batch)
    assert planner.groups({(8, 16): 1, (16, 8): 1}) == [((16, 16), [(8, 16), (16, 8)])]


def test_a_length_above_the_largest_prepared_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="a length of 33 is above the largest prepared one, 32"):
        Planner([1], [(8, 32)], 1, cost).fit((33,))


# Answers


def test_batches_of_any_rows_and_lengths_answer_as_each_request_alone(tmp_path: Path) -> None:
    path = text_model(tmp_path / "model.onnx")
    execution, plain = sized(padded(), path), direct(path)
    rng = np.random.default_rng(1)
    for _ in range(150):
        left = 16
        requests: list[dict[str, Any]] = []
        while left and len(requests) < rng.integers(1, 9):
            rows = int(rng.integers(1, min(left, 3) + 1))
            requests.append(text(rng, rows, int(rng.integers(1, 33))))
            left -= rows
        for request, answer in zip(requests, execution.run(requests), strict=True):
            for given, expected in zip(answer, plain.run([request])[0], strict=True):
                assert given.shape == expected.shape
                np.testing.assert_allclose(given, expected, atol=1e-6)


def test_a_request_larger_than_every_prepared_batch_runs_in_pieces(tmp_path: Path) -> None:
    path = text_model(tmp_path / "model.onnx")
    execution = sized(padded("1,2,4"), path)
    request = text(np.random.default_rng(2), 16, 20)
    pieces = execution._planner.pieces(16, (32,))  # by what each size took here when it was prepared
    assert sum(piece.rows for piece in pieces) == 16
    assert len(pieces) >= 4
    assert {piece.size.batch for piece in pieces} <= {1, 2, 4}
    np.testing.assert_allclose(execution.run([request])[0][0], direct(path).run([request])[0][0], atol=1e-6)


def test_rows_of_a_failed_batch_do_not_spoil_the_next_one(tmp_path: Path) -> None:
    execution = sized(padded("4"), text_model(tmp_path / "model.onnx"))
    rng = np.random.default_rng(3)
    bad = {"ids": np.full((4, 5), 99), "mask": np.ones((4, 5), np.int64)}  # past the table's end
    with pytest.raises(Exception, match="indices element out of data bounds"):
        execution.run([bad])
    execution.run([text(rng, 1, 5)])  # three of four rows are what was there before


def test_a_row_of_an_earlier_longer_batch_does_not_fail_a_shorter_one(tmp_path: Path) -> None:
    """The row that fills the batch up names its 30th element, and there are 8 of it at this size."""
    graph = helper.make_graph(
        [helper.make_node("GatherElements", ["x", "last"], ["y"], axis=1)], "g",
        [
            helper.make_tensor_value_info("x", FLOAT, ["batch", "length"]),
            helper.make_tensor_value_info("last", TensorProto.INT64, ["batch", 1]),
        ],
        [helper.make_tensor_value_info("y", FLOAT, ["batch", 1])],
    )  # fmt: skip
    padding = {"length": {"sizes": [8, 32], "inputs": {"x": {"axis": 0, "value": 0}}, "outputs": {}}}
    described = {
        "max_batch_size": 4,
        "input": [
            {"name": "x", "data_type": "TYPE_FP32", "dims": [-1]},
            {"name": "last", "data_type": "TYPE_INT64", "dims": [1]},
        ],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [1]}],
        "parameters": {
            "batch_sizes": {"string_value": "4"}, "padding": {"string_value": json.dumps(padding)},
        },
    }  # fmt: skip
    execution = sized(described, save(graph, tmp_path / "model.onnx"))
    for rows, length in ((4, 30), (1, 5)):
        x = np.arange(rows * length, dtype=np.float32).reshape(rows, length)
        answer = execution.run([{"x": x, "last": np.full((rows, 1), length - 1)}])[0][0]
        assert answer.tolist() == x[:, -1:].tolist()


def test_an_input_that_a_request_lacks_is_named(tmp_path: Path) -> None:
    path = text_model(tmp_path / "model.onnx")
    whole = text(np.random.default_rng(0), 1, 5)
    for execution in (sized(padded(), path), direct(path)):
        with pytest.raises(ValueError, match="input 'mask' is missing"):
            execution.run([whole, {"ids": whole["ids"]}])


def test_a_tensor_that_the_graph_does_not_have_is_left_out(tmp_path: Path) -> None:
    """Such as the tensors that Triton adds to a request of a sequence."""
    path = text_model(tmp_path / "model.onnx")
    request = text(np.random.default_rng(0), 1, 5)
    more = request | {"START": np.ones((1, 1), np.int32)}
    for execution in (sized(padded(), path), direct(path)):
        np.testing.assert_allclose(execution.run([more])[0][0], direct(path).run([request])[0][0], atol=1e-6)


def test_inputs_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    execution = sized(padded(), text_model(tmp_path / "model.onnx"))
    request = {"ids": np.zeros((2, 5), np.int64), "mask": np.ones((2, 6), np.int64)}
    with pytest.raises(ValueError, match=r"input 'mask' has shape \[2, 6\], expected \[2, 5\]"):
        execution.run([request])
    with pytest.raises(ValueError, match="a batch of 17 rows; max_batch_size is 16"):
        execution.run([text(np.random.default_rng(0), 17, 5)])


def test_a_model_without_batches_runs_at_its_one_size(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", FLOAT, [2, 3])], [helper.make_tensor_value_info("y", FLOAT, [2, 3])],
    )  # fmt: skip
    described = {
        "max_batch_size": 0,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [2, 3]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [2, 3]}],
    }
    sizes = read_sizes(described, on_gpu=True)  # as an instance on a GPU asks for it by itself
    assert not isinstance(sizes, str)
    execution = open_execution(save(graph, tmp_path / "model.onnx"), sizes, options(), None)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert execution.run([{"x": x}])[0][0].tolist() == (2 * x).tolist()


def one_input(path: Path, nodes: list[onnx.NodeProto], out: list[Any], weights: Any = ()) -> Path:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", FLOAT, out)], list(weights),
    )  # fmt: skip
    return save(graph, path)


def test_an_output_without_the_batch_dimension_is_refused_by_name(tmp_path: Path) -> None:
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)
    path = one_input(tmp_path / "model.onnx", [node], [1, 1])
    described = {
        "max_batch_size": 4,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [1]}],
        "parameters": {"batch_sizes": {"string_value": "1,4"}},
    }
    with pytest.raises(ValueError, match=r"output 'y' has shape \[1, 1\] for a batch of 4.*max_batch_size to 0"):
        sized(described, path)


def test_an_output_left_out_of_the_configuration_is_ignored(tmp_path: Path) -> None:
    """Such as a sum over the batch, which cannot be cut into rows."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0)]
    tensors = {name: helper.make_tensor_value_info(name, FLOAT, ["batch", 3]) for name in ("x", "y")}
    total = helper.make_tensor_value_info("sum", FLOAT, [])
    graph = helper.make_graph(nodes, "g", [tensors["x"]], [total, tensors["y"]])
    described = {
        "max_batch_size": 4,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [3]}],
        "parameters": {"batch_sizes": {"string_value": "1,4"}},
    }
    execution = sized(described, save(graph, tmp_path / "model.onnx"))
    assert execution.output_names == ["y"]
    assert [array.tolist() for array in execution.run([{"x": np.ones((1, 3), np.float32)}])[0]] == [[[2, 2, 2]]]


# Settings


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"batch_sizes": "1,two"}, "batch_sizes is '1,two'; say rising numbers"),
        ({"batch_sizes": "4,2"}, "batch_sizes is '4,2'; say rising numbers"),
        ({"batch_sizes": "0,2"}, "say rising numbers"),
        ({"batch_sizes": "1,32", "padding": json.dumps(PADDING)}, "goes up to 32, max_batch_size is 16"),
        ({"batch_sizes": "1", "cuda_graphs": "yes"}, "cuda_graphs is 'yes'; it is 0 or 1"),
        ({"cuda_graphs": "2"}, "cuda_graphs is '2'"),
        ({"batch_sizes": "off", "padding": "{"}, "padding cannot be read"),
        ({"padding": '{"sequence": {}}'}, "padding cannot be read .KeyError"),
    ],
)
def test_a_parameter_that_cannot_be_followed_is_refused(parameters: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_sizes(config(16, **parameters), on_gpu=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": {"words": {"axis": 0, "value": 0}}}, "names the input 'words'; the model has: ids, mask"),
        ({"inputs": {"ids": {"axis": 1, "value": 0}}}, r"dims \[-1\]; name an axis that is -1, not 1"),
        ({"inputs": {"ids": {"axis": 0, "value": 0.5}}}, "'ids' is int64, which cannot hold 0.5"),
        ({"inputs": {"ids": {"axis": 0, "value": "pad"}}}, "'ids' is int64, which cannot hold 'pad'"),
        ({"inputs": {}}, "names no inputs"),
        ({"outputs": {"mean": {"axis": 0}}}, r"output 'mean' has dims \[8\]; name an axis that is -1"),
        ({"sizes": []}, "say rising numbers such as"),
        ({"sizes": [32, 8]}, "say rising numbers such as"),
    ],
)
def test_padding_that_fits_no_tensor_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_sizes(padded(**changes), on_gpu=False)


def test_a_number_of_sizes_that_nobody_means_is_refused() -> None:
    many = {"sizes": list(range(1, 41))}
    with pytest.raises(SettingsError, match="ask for 320 sizes, at most 256"):
        read_sizes(padded("1,2,3,4,5,6,7,8", **many), on_gpu=False)


def test_what_cannot_be_padded_runs_as_it_comes_and_the_reason_names_it() -> None:
    assert read_sizes(config(), on_gpu=True) == (
        "the dims of input 'ids' change, and `padding` does not say how to fill them up"
    )
    assert "output 'tokens'" in str(read_sizes(padded(outputs={}), on_gpu=True))
    assert read_sizes(config(batch_sizes="off"), on_gpu=True) == "batch_sizes is off"
    assert read_sizes(config(), on_gpu=False) == ""
    strings = config(batch_sizes="1")
    strings["input"][0]["data_type"] = "TYPE_STRING"
    assert "'ids' is TYPE_STRING" in str(read_sizes(strings, on_gpu=True))


def test_an_instance_on_a_gpu_takes_doublings_by_itself() -> None:
    described = config(24)
    for tensor in (*described["input"], described["output"][1]):
        tensor["dims"] = [5 if dim == -1 else dim for dim in tensor["dims"]]
    sizes = read_sizes(described, on_gpu=True)
    assert not isinstance(sizes, str)
    assert sizes.batches == (1, 2, 4, 8, 16, 24)
    assert sizes.graphs


# Convolutions


def test_a_graph_with_a_convolution_is_known_by_its_bytes(tmp_path: Path) -> None:
    weights = helper.make_tensor("w", FLOAT, [1, 3, 1], [1.0] * 3)
    for operator in ("Conv", "ConvTranspose"):
        graph = helper.make_graph(
            [helper.make_node(operator, ["x", "w"], ["y"], name="a")], "g",
            [helper.make_tensor_value_info("x", FLOAT, ["batch", 3, 4])],
            [helper.make_tensor_value_info("y", FLOAT, None)], [weights],
        )  # fmt: skip
        assert has_convolutions(save(graph, tmp_path / "model.onnx"))
    named = one_input(tmp_path / "named.onnx", [helper.make_node("Neg", ["x"], ["y"], name="Conv")], ["batch", 3])
    assert not has_convolutions(named)
    assert not has_convolutions(text_model(tmp_path / "text.onnx"))
