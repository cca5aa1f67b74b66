"""The best classes of an output instead of its numbers, over both protocols and with both kinds of client."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tritonkit.server import TritonServer
from tritonkit_client import Class, Client, InvalidInput, NotSupported
from tritonkit_client._protocol.calls import RequestedOutput
from tritonkit_client._protocol.classes import classified
from tritonkit_client._protocol.errors import Origin

X = np.array([[1, 3, 2], [5, 0, -np.inf]], np.float32)


def test_the_best_classes_come_with_their_labels(client: Client) -> None:
    best = client.infer("labelled", x=X, outputs={"y": 2})["y"]
    assert best.tolist() == [
        [Class(3.0, 1, "dog: large"), Class(2.0, 2, "fish")],
        [Class(5.0, 0, "cat"), Class(0.0, 1, "dog: large")],
    ]
    assert not best.flags.writeable
    assert client.infer("labelled", x=X, outputs={"y": 9})["y"][1, 2] == Class(-math.inf, 2, "fish")
    np.testing.assert_array_equal(client.infer("labelled", x=X, outputs={"y": None})["y"], X)
    many = client.infer_many("labelled", {"x": np.repeat(X, 3, axis=0)}, outputs={"y": 1})["y"]
    assert [row[0].label for row in many] == ["dog: large"] * 3 + ["cat"] * 3
    unlabelled = client.infer("identity", in_INT32=np.array([[7, 9]], np.int32), outputs={"out_INT32": 1})
    assert unlabelled["out_INT32"].tolist() == [Class(9.0, 1)]


def test_classes_of_a_stream(server: TritonServer) -> None:
    with Client(server.grpc_url) as client:
        given: dict[str, Any] = {"upto": [2], "size": [3], "pause": [0], "mark": ["none"]}
        numbers = [out["number"].tolist() for out in client.stream("count", given, outputs={"number": 1})]
    assert numbers == [[Class(0.0, 0)], [Class(1.0, 0)]]


@pytest.mark.parametrize(
    ("outputs", "words"),
    [({"y": 0}, "has 0 for 'y'"), ({"y": True}, "has True"), ({"y": 1.5}, "has 1.5"), ({"z": 1}, "no output 'z'"),
     ({3: 1}, "holds a int"), ({}, "outputs is {}")],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_before_sending(client: Client, outputs: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        client.infer("labelled", x=X, outputs=outputs)


def test_a_type_without_classes_is_refused_before_sending(client: Client) -> None:
    """The classes of a BYTES output end Triton 24.10 with signal 11."""
    for name in ("BYTES", "BOOL", "FP16", "BF16"):
        with pytest.raises(InvalidInput, match=f"is {name}, which has no classes"):
            client.infer("identity", in_BYTES=[["a"]], outputs={f"out_{name}": 1})


def test_a_server_that_answers_with_the_tensor_is_named() -> None:
    with pytest.raises(NotSupported, match="classification extension"):
        classified({"y": X}, (RequestedOutput("y", classes=1),), Origin())
