"""What goes over the wire to a server that is given raw tensors, and one question to each kind of server."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from tritonkit.samples import Sample
from tritonkit_client import Client, TritonkitClientError

PATH = "/predict"
HEADERS = {"Content-Type": "application/octet-stream"}
BODY, ANSWER = "body", "answer"  # MLServer's tensors
TIMEOUT_S = 10.0
# What asking a server raises that is not there yet, or answers something else than numbers.
NO_ANSWER = (OSError, http.client.HTTPException, TritonkitClientError, ValueError)

Numbers = NDArray[Any]


def body(inputs: Sample) -> bytes:
    """The bytes of all inputs, one after the other."""
    return b"".join(array.tobytes() for array in inputs.values())


def numbers(raw: bytes) -> Numbers:
    """The numbers of an answer's bytes."""
    return np.frombuffer(raw, np.float32)


def boxed(inputs: Sample) -> dict[str, Numbers]:
    """The inputs as one element of a BYTES tensor."""
    return {BODY: np.array([[body(inputs)]], dtype=np.object_)}


def ask(protocol: str, url: str, model: str, inputs: Sample) -> Numbers:
    """One question over a connection of its own: the numbers of the first output.

    Raises:
        NO_ANSWER: The server does not answer, or answers something else than numbers.
    """
    return ASKS[protocol](url, model, inputs)


def _http(url: str, _: str, inputs: Sample) -> Numbers:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
    try:
        connection.request("POST", PATH, body(inputs), HEADERS)
        answer = connection.getresponse()
        raw = answer.read()
        if answer.status != 200:
            raise http.client.HTTPException(f"{answer.status}: {raw[:200].decode(errors='replace')}")
        return numbers(raw)
    finally:
        connection.close()


def _bytes(url: str, model: str, inputs: Sample) -> Numbers:
    with Client(url, timeout=TIMEOUT_S, retry=None) as client:
        return numbers(client.infer(model, boxed(inputs))[ANSWER][0, 0])


def _kserve(url: str, model: str, inputs: Sample) -> Numbers:
    with Client(url, timeout=TIMEOUT_S, retry=None) as client:
        first: Numbers = next(iter(client.infer(model, inputs).values()))
        return first.reshape(-1)


ASKS: dict[str, Callable[[str, str, Sample], Numbers]] = {
    "http": _http, "bytes": _bytes, "grpc": _kserve, "kserve": _kserve,
}  # fmt: skip
