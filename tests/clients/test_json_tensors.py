"""Inputs and outputs that a server with tensors as JSON cannot carry: a real MLServer."""

from __future__ import annotations

import numpy as np
import pytest
from otherserver import OtherServer

from tritonkit_client import Client, InvalidInput, NotSupported

ODD = np.array([[1, np.nan, np.inf]], np.float32)


def test_nan_is_refused_over_http_and_sent_over_grpc(mlserver: OtherServer) -> None:
    operations: list[str] = []
    hooks = {"request": [lambda event: operations.append(event.operation)]}
    with Client(mlserver.http_url, timeout=20, event_hooks=hooks) as client:
        with pytest.raises(InvalidInput, match="element 1 is nan") as caught:
            client.infer("identity_FP32", in_FP32=ODD)
        assert "gRPC" in caught.value.fix
        assert "infer" not in operations
    with Client(mlserver.grpc_url, timeout=20) as client:
        np.testing.assert_array_equal(client.infer("identity_FP32", in_FP32=ODD)["out_FP32"], ODD)


def test_a_server_without_classes_is_named(mlserver: OtherServer) -> None:
    for url in (mlserver.http_url, mlserver.grpc_url):
        with Client(url, timeout=20) as client, pytest.raises(NotSupported, match="classification extension"):
            client.infer("identity_FP32", in_FP32=np.ones((1, 3), np.float32), outputs={"out_FP32": 1})
