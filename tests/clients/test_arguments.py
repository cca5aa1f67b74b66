"""Wrong arguments: every client and protocol refuses them with the same message."""

from __future__ import annotations

import math
import uuid
from typing import Any

import numpy as np
import pytest

from tritonkit_client import Client, InvalidInput

ONE = np.ones((1, 3), np.float32)
PAIR: dict[str, Any] = {"left": ONE, "right": ONE}


@pytest.mark.parametrize(
    ("arguments", "named", "words"),
    [
        (("arithmetic",), {"model_version": 1}, "1 is not a version"),
        (("arithmetic",), {"request_id": uuid.UUID(int=1)}, "request_id is a UUID"),
        (("arithmetic", ONE), {}, "the inputs are a ndarray"),
        (("arithmetic", [1.0]), {}, "the inputs are a list"),
        (("arithmetic", "text"), {}, "the inputs are a str"),
        ((b"arithmetic",), {}, "name is a bytes"),
        ((None,), {}, "has no name"),
        (("arithmetic",), {"outputs": [0]}, "outputs holds a int"),
        (("arithmetic",), {"parameters": {"seed": 2**63}}, "does not fit in 64 bits"),
        (("arithmetic",), {"parameters": {1: 2}}, "name is a int"),
        (("arithmetic",), {"parameters": ["seed"]}, "parameters is a list"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named(
    client: Client, arguments: tuple[Any, ...], named: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        client.infer(*arguments, **named, **PAIR)
    assert caught.value.fix
    assert [server.in_flight for server in client._servers.all] == [0]


def test_names_of_outputs_may_come_from_a_generator(client: Client) -> None:
    names: Any = (name for name in ["sum"])
    assert list(client.infer("arithmetic", outputs=names, **PAIR)) == ["sum"]
    names = (name for name in ["sum"])
    assert [list(out) for out in client.infer_many("arithmetic", [PAIR, PAIR], outputs=names)] == [["sum"], ["sum"]]


@pytest.mark.parametrize("timeout", [np.float32(5), np.int64(5), 1e10, 1e300, 10**30, math.inf])
def test_any_number_is_a_timeout_however_large(client: Client, timeout: Any) -> None:
    assert client.infer("arithmetic", timeout=timeout, **PAIR)["sum"].shape == (1, 3)


def test_a_decoupled_model_is_called_with_stream(client: Client) -> None:
    with pytest.raises(Exception, match="decoupled") as caught:
        client.infer("writer", prompt="one two")
    assert type(caught.value).__name__ == "NotSupported"
    assert "client.stream" in str(caught.value)
