"""KServe v2 as other servers may speak it: fields that may be left out, and the typed form of tensors."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tensorsamples import SAMPLES, assert_identical
from tritonclient.grpc import service_pb2

from tritonkit_client import InvalidInput, ModelMetadata, ModelNotReady, NotSupported, ServerError, TensorSpec
from tritonkit_client._engine.operations import Inference, Operations
from tritonkit_client._protocol.calls import BINARY, InferRequest, Response, SharedOperation
from tritonkit_client._protocol.errors import Origin
from tritonkit_client._protocol.grpc_wire import GrpcWire
from tritonkit_client._protocol.http_wire import HttpWire

ORIGIN = Origin("http://models:8000", "m", "r1")
REQUEST = InferRequest("m", "", "r1", (), ())
CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP16": "fp32_contents", "BF16": "fp32_contents", "FP32": "fp32_contents",
    "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def read_json(body: Any) -> dict[str, Any]:
    return HttpWire().infer(REQUEST, ORIGIN).read(Response(200, json.dumps(body).encode()))


def read_typed(datatype: str, shape: tuple[int, ...], values: Any, field: str = "") -> Any:
    """One output `y` in the typed form, as the gRPC client reads it."""
    message = service_pb2.ModelInferResponse()
    output = message.outputs.add(name="y", datatype=datatype, shape=shape)
    getattr(output.contents, field or CONTENTS[datatype]).extend(values)
    return GrpcWire().infer(REQUEST, ORIGIN).read(Response("OK", message.SerializeToString()))["y"]


@pytest.mark.parametrize("nothing", [{}, {"versions": None, "platform": None, "inputs": None, "outputs": None}])
def test_metadata_needs_only_a_name(nothing: dict[str, None]) -> None:
    body = json.dumps({"name": "m", **nothing}).encode()
    assert HttpWire().metadata("", ORIGIN).read(Response(200, body)) == ModelMetadata("m")
    message = service_pb2.ModelMetadataResponse(name="m").SerializeToString()
    assert GrpcWire().metadata("", ORIGIN).read(Response("OK", message)) == ModelMetadata("m")


@pytest.mark.parametrize(
    ("tensor", "spec"),
    [
        ({"name": "x"}, TensorSpec("x")),
        ({"name": "x", "datatype": None, "shape": None}, TensorSpec("x")),
        ({"name": "x", "datatype": "INVALID", "shape": []}, TensorSpec("x")),
        ({"name": "x", "datatype": "FP32"}, TensorSpec("x", "FP32")),
        ({"name": "x", "datatype": "INT64", "shape": ["-1", "3"]}, TensorSpec("x", "INT64", (-1, 3))),
    ],
)
def test_a_tensor_in_metadata_needs_only_a_name(tensor: dict[str, Any], spec: TensorSpec) -> None:
    body = json.dumps({"name": "m", "versions": [1], "inputs": [tensor]}).encode()
    metadata = HttpWire().metadata("", ORIGIN).read(Response(200, body))
    assert (metadata.inputs, metadata.versions) == ((spec,), ("1",))


def test_a_tensor_without_a_name_is_a_server_error() -> None:
    for tensor in ({"datatype": "FP32"}, {"name": 1}, {"name": "x", "datatype": 1}, {"name": "x", "shape": ["a"]}):
        body = json.dumps({"name": "m", "inputs": [tensor]}).encode()
        with pytest.raises(ServerError, match="not KServe v2"):
            HttpWire().metadata("", ORIGIN).read(Response(200, body))


@pytest.mark.parametrize("datatype", CONTENTS)
def test_typed_contents_of_every_datatype_are_read(datatype: str) -> None:
    sample = SAMPLES[datatype]
    values = sample.astype(np.float32) if CONTENTS[datatype] == "fp32_contents" else sample
    got = read_typed(datatype, sample.shape, values.reshape(-1).tolist())
    assert not got.flags.writeable
    if sample.dtype == ml_dtypes.bfloat16 or sample.dtype.kind == "f":  # a NaN has more than one pattern of bits
        np.testing.assert_array_equal(got.astype(np.float64), sample.astype(np.float64))
        assert got.dtype == sample.dtype
    else:
        assert_identical(got, sample)


@pytest.mark.parametrize(
    ("datatype", "values", "field"),
    [
        ("FP32", [1.0], ""),
        ("FP32", [1.0, 2.0, 3.0], ""),
        ("FP32", [1, 2], "int_contents"),
        ("INT8", [1, 128], ""),
        ("UINT16", [1, 65536], ""),
        ("FP8", [1.0, 2.0], "fp32_contents"),
    ],
)
def test_typed_contents_that_do_not_fit_are_a_server_error(datatype: str, values: list[Any], field: str) -> None:
    with pytest.raises(ServerError, match="not KServe v2"):
        read_typed(datatype, (2,), values, field)


@pytest.mark.parametrize("body", [b"\xff", None])
def test_a_stream_that_is_none_is_a_server_error(body: bytes | None) -> None:
    if body is None:
        message = service_pb2.ModelStreamInferResponse()
        message.infer_response.outputs.add(name="y", datatype="FP32", shape=[2])
        body = message.SerializeToString()
    with pytest.raises(ServerError, match="not KServe v2"):
        GrpcWire().stream(REQUEST, ORIGIN).read(Response("OK", body))


def test_json_answers_may_have_empty_parameters_and_numbers_as_text() -> None:
    output = {"name": "y", "datatype": "INT64", "shape": ["2"], "parameters": None, "data": ["1", "2"]}
    assert read_json({"outputs": [output]})["y"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("datatype", "data"), [("FP32", [1.0, None]), ("FP64", [[1.0], [None]]), ("BOOL", [True, None])]
)
def test_a_null_in_a_json_answer_is_not_made_a_number(datatype: str, data: list[Any]) -> None:
    with pytest.raises(ServerError, match=r"'y' holds null.*\n.*gRPC"):
        read_json({"outputs": [{"name": "y", "datatype": datatype, "shape": [2], "data": data}]})


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"OK", b'{"ready": true}', b'{"live": true}', b'{"name": "m"}'])
def test_a_health_check_that_says_nothing_else_is_a_yes(body: bytes) -> None:
    assert HttpWire().ready(ORIGIN).read(Response(200, body))
    assert not HttpWire().model_ready("", ORIGIN).read(Response(200, b'{"name": "m", "ready": false}'))
    assert not HttpWire().live(ORIGIN).read(Response(200, b'{"live": false}'))


@pytest.mark.parametrize(
    ("answer", "binary"),
    [
        ({"name": "kserve", "version": "0.14.0", "extensions": ["model_repository_extension"]}, True),
        ({"name": "kserve", "version": "0.13.1", "extensions": ["model_repository_extension"]}, False),
        ({"name": "other", "version": "1.0", "extensions": None}, False),
        ({"name": "other", "version": "1.0"}, False),
        ({"name": "triton", "version": "2", "extensions": [BINARY]}, True),
    ],
)
def test_who_takes_tensors_in_binary(answer: dict[str, Any], binary: bool) -> None:
    extensions = HttpWire().extensions(ORIGIN).read(Response(200, json.dumps(answer).encode()))
    assert (BINARY in extensions) is binary


def test_a_version_cannot_leave_its_place_in_the_path() -> None:
    assert HttpWire().metadata("v1/../x", ORIGIN).target == "/v2/models/m/versions/v1%2F..%2Fx"


def inline_shared(operation: Any) -> Any:
    """An operation whose shared parts run in it, as they do for a single caller."""
    send, value = operation.send, None
    while True:
        try:
            step = send(value)
        except StopIteration as done:
            return done.value
        try:
            value = (yield from inline_shared(step.start())) if isinstance(step, SharedOperation) else (yield step)
            send = operation.send
        except Exception as error:
            send, value = operation.throw, error


class OperationDriver:
    """Operations over HTTP whose calls the test answers: returns the calls, and the result or error."""

    def __init__(self, models: dict[str, ModelMetadata] | None = None) -> None:
        self.operations = Operations(HttpWire(), "http://models:8000", None, models or {})
        self.inference = Inference("m", {"x": np.ones(2, np.float32)}, request_id="r1")

    def calls(self, operation: Any, *responses: Response) -> tuple[list[str], Any]:
        names: list[str] = []
        operation, step = inline_shared(operation), iter(responses)
        try:
            call = next(operation)
            while True:
                names.append(call.operation)
                try:
                    answer = call.read(next(step))
                except Exception as error:
                    call = operation.throw(error)
                else:
                    call = operation.send(answer)
        except StopIteration as done:
            return names, done.value
        except (InvalidInput, NotSupported, ModelNotReady) as error:
            return names, error


ANSWER = Response(200, b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [2]}]}')
NOT_FOUND = Response(404, b'{"detail": "Not Found"}')


@pytest.mark.parametrize(
    "refusal", [NOT_FOUND, Response(400, b'{"error": "Invalid request URL"}'), Response(405, b"{}")]
)
def test_a_server_needs_neither_configurations_nor_metadata_of_its_own(refusal: Response) -> None:
    driver = OperationDriver()
    calls, outputs = driver.calls(
        driver.operations.infer(driver.inference), Response(200, b'{"name": "m"}'), refusal, refusal, ANSWER
    )
    assert calls == ["metadata", "config", "extensions", "infer"]
    assert outputs["y"].tolist() == [2]


def test_a_declared_model_needs_no_other_answer_than_its_own() -> None:
    driver = OperationDriver({"m": ModelMetadata("m")})
    calls, outputs = driver.calls(driver.operations.infer(driver.inference), Response(401, b""), ANSWER)
    assert (calls, outputs["y"].tolist()) == (["extensions", "infer"], [2])
    calls, error = driver.calls(driver.operations.infer(driver.inference), Response(400, b'{"error": "no"}'))
    assert (calls, type(error)) == (["infer"], InvalidInput)  # no metadata to fetch again


def test_a_server_without_metadata_is_an_error_with_a_fix() -> None:
    driver = OperationDriver()
    calls, error = driver.calls(driver.operations.infer(driver.inference), NOT_FOUND)
    assert calls == ["metadata"]
    assert "models=[ModelMetadata('m')]" in error.fix


def test_any_message_of_a_server_that_is_not_ready_means_false() -> None:
    driver = OperationDriver()
    for response in (
        Response(503, b'{"error": "Server is not ready."}'),
        Response(500, b'{"error": "Error while loading a model"}'),
    ):
        assert driver.calls(driver.operations.ready(), response) == (["ready"], False)
        assert driver.calls(driver.operations.model_ready("m", ""), response) == (["model_ready"], False)
