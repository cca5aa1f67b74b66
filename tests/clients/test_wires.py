"""The two wires' requests and responses, without a server."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from tritonkit_client import ConnectionFailed, InvalidInput, ServerError
from tritonkit_client._protocol.calls import InferRequest, RequestedOutput, Response, Tensor
from tritonkit_client._protocol.errors import NO_CONNECTION, Origin
from tritonkit_client._protocol.grpc_wire import GrpcWire
from tritonkit_client._protocol.http_wire import HttpWire
from tritonkit_client._protocol.tensors import DTYPES, encode

ORIGIN = Origin("http://models:8000", "m", "r1")
# Lengths on both sides of the one-, two- and three-byte varint.
SIZES = (0, 1, 127, 128, 16_383, 16_384, 3_000_000)
REQUEST = InferRequest(
    "m", "2", "r1", tuple(Tensor(f"x{size}", "UINT8", (size,), bytes(size)) for size in SIZES), (RequestedOutput("y"),)
)


def test_a_grpc_request_is_the_message_that_protobuf_would_have_made() -> None:
    call = GrpcWire().infer(REQUEST, ORIGIN)
    message = service_pb2.ModelInferRequest.FromString(b"".join(call.encode(None)[0]))
    assert (message.model_name, message.model_version, message.id) == ("m", "2", "r1")
    assert [output.name for output in message.outputs] == ["y"]
    assert [(t.name, t.datatype, tuple(t.shape)) for t in message.inputs] == [
        (f"x{size}", "UINT8", (size,)) for size in SIZES
    ]
    assert [len(raw) for raw in message.raw_input_contents] == list(SIZES)


def test_tensors_are_pieces_of_a_body_and_not_copied_into_it() -> None:
    for wire in (GrpcWire(), HttpWire()):
        body = wire.infer(REQUEST, ORIGIN).encode(1000)[0]
        for tensor in REQUEST.inputs:
            assert any(piece is tensor.data for piece in body)


def test_an_http_request_announces_its_header_and_asks_for_binary_outputs() -> None:
    call = HttpWire("/team").infer(REQUEST, ORIGIN)
    assert call.target == "/team/v2/models/m/versions/2/infer"
    pieces, headers = call.encode(None)
    body = b"".join(pieces)
    length = int(headers["Inference-Header-Content-Length"])
    header = json.loads(body[:length])
    assert header["id"] == "r1"
    assert [tensor["parameters"]["binary_data_size"] for tensor in header["inputs"]] == list(SIZES)
    assert header["outputs"] == [{"name": "y", "parameters": {"binary_data": True}}]
    assert len(body) - length == sum(SIZES)


def test_a_model_name_cannot_leave_its_place_in_the_path() -> None:
    call = HttpWire().metadata("", Origin("", "../admin?x", ""))
    assert call.target == "/v2/models/..%2Fadmin%3Fx"


def answer(header: Any, content: bytes = b"") -> Response:
    encoded = json.dumps(header).encode()
    return Response(200, encoded + content, headers={"Inference-Header-Content-Length": str(len(encoded))})


def test_http_outputs_are_read_in_the_order_of_the_header() -> None:
    outputs = [
        {"name": "b", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}},
        {"name": "a", "datatype": "INT16", "shape": [2], "parameters": {"binary_data_size": 4}},
    ]
    response = answer({"outputs": outputs}, b"\1\0\0\0z" + b"\1\0\2\0")
    out = HttpWire().infer(REQUEST, ORIGIN).read(response)
    assert list(out) == ["b", "a"]
    assert out["b"].tolist() == [b"z"]
    assert out["a"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "response",
    [
        Response(200, b"<html>welcome</html>"),
        Response(200, b"[]"),
        Response(200, b"\xff\xfe\x00"),
        answer({"outputs": [{"name": "y"}]}),
        answer(
            {"outputs": [{"name": "y", "datatype": "FP8", "shape": [1], "parameters": {"binary_data_size": 1}}]}, b"1"
        ),
        answer(
            {"outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}]}, b"1"
        ),
    ],
)
def test_an_answer_that_is_not_tritons_is_a_server_error(response: Response) -> None:
    with pytest.raises(ServerError, match="not KServe v2"):
        HttpWire().infer(REQUEST, ORIGIN).read(response)


def test_metadata_that_is_not_tritons_is_a_server_error() -> None:
    for call in (HttpWire().metadata("", ORIGIN), HttpWire().limits("", ORIGIN), HttpWire().statistics("", ORIGIN)):
        with pytest.raises(ServerError, match="not KServe v2"):
            call.read(Response(200, b'{"hello": "world"}'))
    for body in (b"[" * 100_000, b"[[]]", b'{"max_batch_size": 1e999, "input": []}', b'{"max_batch_size": 0, "input": [[]]}',
                 b'{"max_batch_size": 0, "input": [], "model_transaction_policy": null}'):  # fmt: skip
        with pytest.raises(ServerError, match="not KServe v2"):
            HttpWire().limits("", ORIGIN).read(Response(200, body))


def test_a_failure_quotes_what_the_server_said() -> None:
    call = HttpWire().metadata("", ORIGIN)
    with pytest.raises(InvalidInput, match="in its own words"):
        call.read(Response(400, b'{"error": "in its own words"}'))
    with pytest.raises(ServerError, match="<h1>nginx</h1>"):
        call.read(Response(500, b"<h1>nginx</h1>"))
    with pytest.raises(ConnectionFailed, match="reset by peer"):
        call.read(Response(NO_CONNECTION, message="reset by peer"))


@pytest.mark.parametrize(("status", "ready"), [(200, True), (400, False)])
def test_readiness_over_http_is_a_status(status: int, ready: bool) -> None:
    assert HttpWire().ready(ORIGIN).read(Response(status)) is ready
    with pytest.raises(ServerError):
        HttpWire().ready(ORIGIN).read(Response(500))


def test_each_attempt_tells_the_server_what_is_left_of_the_deadline() -> None:
    message = service_pb2.ModelInferRequest.FromString(b"".join(GrpcWire().infer(REQUEST, ORIGIN).encode(1500)[0]))
    assert message.parameters["timeout"].int64_param == 1500
    assert len(message.inputs) == len(SIZES)
    call = HttpWire().infer(REQUEST, ORIGIN)
    for left in (1500, 20):
        pieces, headers = call.encode(left)
        header = json.loads(b"".join(pieces)[: int(headers["Inference-Header-Content-Length"])])
        assert header["parameters"] == {"timeout": left}


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_numbers_that_json_does_not_have_are_refused_before_sending(datatype: str, odd: float) -> None:
    data = encode(np.array([1, odd], DTYPES[datatype]), datatype)
    request = InferRequest("m", "", "r1", (Tensor("x", datatype, (2,), data),), (), plain=True)
    with pytest.raises(InvalidInput, match=r"element 1 is .*, which JSON does not have") as caught:
        HttpWire().infer(request, ORIGIN)
    assert "gRPC" in caught.value.fix
    GrpcWire().infer(request, ORIGIN)


def test_parameters_that_json_does_not_have_are_refused_over_http_alone() -> None:
    for plain in (True, False):
        request = InferRequest("m", "", "r1", (), (), {"temperature": float("nan")}, plain=plain)
        with pytest.raises(InvalidInput, match="parameter 'temperature' is nan"):
            HttpWire().infer(request, ORIGIN)
        GrpcWire().infer(request, ORIGIN)


def test_classes_are_asked_for_over_both_protocols() -> None:
    request = InferRequest("m", "", "r1", (), (RequestedOutput("y", classes=5), RequestedOutput("z")))
    message = service_pb2.ModelInferRequest.FromString(b"".join(GrpcWire().infer(request, ORIGIN).encode(None)[0]))
    assert message.outputs[0].parameters["classification"].int64_param == 5
    assert not message.outputs[1].parameters
    outputs = json.loads(bytes(HttpWire().infer(request, ORIGIN).encode(None)[0][0]))["outputs"]
    assert outputs[0]["parameters"] == {"binary_data": True, "classification": 5}
    assert outputs[1]["parameters"] == {"binary_data": True}
