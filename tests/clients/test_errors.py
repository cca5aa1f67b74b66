from __future__ import annotations

import pickle

import pytest

import tritonkit_client
import tritonkit_client._protocol.errors
from tritonkit_client import (
    ClientClosed,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    NotSupported,
    QueueFull,
    ServerBusy,
    ServerError,
    TritonkitClientError,
    Unauthenticated,
)
from tritonkit_client._protocol.errors import (
    CLIENT_CLOSED,
    DEADLINE_EXCEEDED,
    NO_CONNECTION,
    Origin,
    error_for,
    error_in_stream,
)

ORIGIN = Origin("grpc://models:8001", "m", "r1")


@pytest.mark.parametrize(
    ("grpc_status", "http_status", "message", "kind"),
    [
        ("NOT_FOUND", 404, "Request for unknown model: 'm' is not found", ModelNotFound),
        ("NOT_FOUND", 404, "Request for unknown model: 'm' version 9 is not found", ModelNotFound),
        ("INVALID_ARGUMENT", 400, "requested model 'm' is not available", ModelNotFound),
        ("NOT_FOUND", 404, "Request for unknown model: 'm' has no available versions", ModelNotReady),
        ("UNAVAILABLE", 503, "Request for unknown model: 'm' version 1 is not at ready state", ModelNotReady),
        ("INVALID_ARGUMENT", 400, "[request id: r1] unexpected shape for input 'x' for model 'm'", InvalidInput),
        ("UNAVAILABLE", 503, "[request id: r1] Exceeds maximum queue size", QueueFull),
        ("UNAVAILABLE", 503, "Request timeout expired", ServerBusy),
        # KServe's own server; a status that it forgets to set over gRPC
        ("NOT_FOUND", 404, "Model with name m does not exist.", ModelNotFound),
        ("UNAVAILABLE", 503, "Model with name m is not ready.", ModelNotReady),
        ("UNAVAILABLE", 503, "Models with names m,n are not ready.", ModelNotReady),
        ("UNKNOWN", 503, "Unexpected <class 'AttributeError'>: 'ModelNotReady' object has no 'reason'", ModelNotReady),
        ("UNIMPLEMENTED", 501, "Model versioning not supported yet.", NotSupported),
        # MLServer
        ("NOT_FOUND", 404, "Model m with version v9 not found", ModelNotFound),
        ("UNKNOWN", 404, "Unexpected <class 'mlserver.errors.ModelNotFound'>: Model m not found", ModelNotFound),
        ("INVALID_ARGUMENT", 400, "Model m is not ready yet.", ModelNotReady),
        ("INVALID_ARGUMENT", 422, '{"detail": [{"type": "json_invalid"}]}', InvalidInput),
        # OpenVINO Model Server
        ("NOT_FOUND", 404, "Model with requested name is not found", ModelNotFound),
        ("NOT_FOUND", 404, "Model with requested version is not found", ModelNotFound),
        ("NOT_FOUND", 404, "Model with requested version is retired", ModelNotReady),
        ("NOT_FOUND", 503, "Model with requested version is not loaded yet", ModelNotReady),
        ("NOT_FOUND", 503, "Pipeline is not loaded yet", ModelNotReady),
        # TorchServe
        ("NOT_FOUND", 404, "Model not found: m", ModelNotFound),
        ("NOT_FOUND", 404, "Model version: 2.0 does not exist for model: m", ModelNotFound),
        ("RESOURCE_EXHAUSTED", 429, "slow down", ServerBusy),
        ("RESOURCE_EXHAUSTED", 413, "Received message larger than max (5 vs. 4)", InvalidInput),
        ("RESOURCE_EXHAUSTED", 431, "received metadata size exceeds hard limit (5 vs. 4)", InvalidInput),
        ("UNAVAILABLE", 502, "failed to connect to all addresses", ConnectionFailed),
        ("UNIMPLEMENTED", 500, "doesn't support models with decoupled transaction policy", NotSupported),
        (CLIENT_CLOSED, CLIENT_CLOSED, "", ClientClosed),
        ("UNAVAILABLE", 503, "upstream connect error or disconnect/reset before headers", ConnectionFailed),
        ("UNAVAILABLE", NO_CONNECTION, "failed to connect to all addresses", ConnectionFailed),
        ("UNAVAILABLE", NO_CONNECTION, "Socket closed", ConnectionFailed),
        ("UNIMPLEMENTED", 404, "Not Found", NotSupported),
        ("UNAUTHENTICATED", 401, "no token", Unauthenticated),
        ("PERMISSION_DENIED", 403, "", Unauthenticated),
        ("UNAVAILABLE", 403, "This protocol is restricted, expecting header 'triton-grpc-protocol-k'", Unauthenticated),
        (DEADLINE_EXCEEDED, 504, "", DeadlineExceeded),
        ("INTERNAL", 500, "Failed to process the request(s): unknown model inside", ServerError),
        ("DATA_LOSS", 418, "", ServerError),
    ],
)
def test_both_protocols_mean_the_same_error(
    grpc_status: str, http_status: int | str, message: str, kind: type[TritonkitClientError]
) -> None:
    for status in (grpc_status, http_status):
        error = error_for(status, message, ORIGIN)
        assert type(error) is kind
        assert error.fix


def test_an_error_says_what_where_and_how_to_go_on() -> None:
    error = error_for("INTERNAL", "boom", ORIGIN)
    assert str(error) == (
        "the server failed: boom (model m, request r1, at grpc://models:8001)\n  fix: see the server's log"
    )
    assert str(TritonkitClientError("only this")) == "only this"


def test_an_error_says_after_how_many_attempts() -> None:
    error = error_for("INTERNAL", "boom", ORIGIN)
    error.attempts = 3
    assert "at grpc://models:8001, after 3 attempts)" in str(error)
    assert pickle.loads(pickle.dumps(error)).attempts == 3


def test_a_message_without_a_status_means_what_its_words_say() -> None:
    assert type(error_in_stream("Request for unknown model: 'm' is not found", ORIGIN)) is ModelNotFound
    assert type(error_in_stream("Exceeds maximum queue size", ORIGIN)) is QueueFull
    assert type(error_in_stream("it went wrong", ORIGIN)) is ServerError


def test_a_server_that_says_nothing_is_quoted_by_its_status() -> None:
    assert "status 418" in str(error_for(418, " ", ORIGIN))


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(error_for("UNAVAILABLE", "Exceeds maximum queue size", ORIGIN)))
    assert type(error) is QueueFull
    assert str(error) == str(error_for("UNAVAILABLE", "Exceeds maximum queue size", ORIGIN))
    assert (error.endpoint, error.model, error.request_id) == (ORIGIN.endpoint, "m", "r1")


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = [
        (line.index("─ ") // 4, line.split("─ ")[1].split()[0])
        for line in (tritonkit_client._protocol.errors.__doc__ or "").splitlines()
        if "── " in line
    ]
    parents: dict[str, str] = {}
    above = {-1: TritonkitClientError.__name__}
    for depth, name in ((indent - 1, name) for indent, name in drawn):
        parents[name] = above[depth - 1]
        above[depth] = name
    public = [getattr(tritonkit_client, name) for name in tritonkit_client.__all__]
    errors = [kind for kind in public if isinstance(kind, type) and issubclass(kind, TritonkitClientError)]
    real = {kind.__name__: kind.__bases__[0].__name__ for kind in errors if kind is not TritonkitClientError}
    assert parents == real
