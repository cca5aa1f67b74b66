"""Which calls an operation makes, driven by hand: no server, no connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tritonkit_client import InvalidInput, ModelMetadata, TensorSpec
from tritonkit_client._engine.operations import Inference, Operations
from tritonkit_client._protocol.calls import Operation, SharedOperation
from tritonkit_client._protocol.http_wire import HttpWire
from tritonkit_client._protocol.metadata import ModelLimits

THREE = ModelMetadata("m", ("1",), "p", (TensorSpec("x", "FP32", (3,)),), ())
LIMITS = ModelLimits(0, frozenset())
REFUSED = InvalidInput("the server refused the request")


@pytest.fixture
def operations() -> Operations:
    """Operations whose cache has model `m`, with an input of three numbers."""
    known = Operations(HttpWire(), "http://models:8000")
    assert drive(known.metadata("m", ""), THREE, LIMITS) == (["m", "config"], THREE)
    return known


def drive(operation: Operation[Any], *answers: Any) -> tuple[list[str], Any]:
    """Answer an operation's calls in turn; returns the last part of each call's path, and the result or error."""
    paths = []
    step: Iterator[Any] = iter(answers)
    try:
        call = next(operation)
        while True:
            if isinstance(call, SharedOperation):
                more, answer = drive(call.start(), *step)
                paths += more
                step = iter(answers[len(paths) :])
            else:
                paths.append(call.target.rsplit("/", 1)[-1])
                answer = next(step)
            call = operation.throw(answer) if isinstance(answer, Exception) else operation.send(answer)
    except StopIteration as done:
        return paths, done.value
    except InvalidInput as error:
        return paths, error


def infer(operations: Operations, size: int) -> Operation[Any]:
    return operations.infer(Inference("m", {"x": np.ones(size, np.float32)}, request_id="r1"))


def test_a_known_model_costs_one_call(operations: Operations) -> None:
    assert drive(infer(operations, 3), {}) == (["infer"], {})


def test_an_unknown_model_is_looked_at_first() -> None:
    operations = Operations(HttpWire(), "http://models:8000")
    assert drive(infer(operations, 3), THREE, LIMITS, {}) == (["m", "config", "infer"], {})


def test_a_refused_request_is_not_sent_again_to_an_unchanged_model(operations: Operations) -> None:
    assert drive(infer(operations, 3), REFUSED, THREE, LIMITS) == (["infer", "m", "config"], REFUSED)


def test_a_refused_request_is_sent_once_more_to_a_changed_model(operations: Operations) -> None:
    changed = ModelMetadata("m", ("2",), "p", THREE.inputs, ())
    paths, result = drive(infer(operations, 3), REFUSED, changed, LIMITS, REFUSED)
    assert (paths, result) == (["infer", "m", "config", "infer"], REFUSED)


def test_an_input_that_does_not_fit_is_never_sent(operations: Operations) -> None:
    paths, result = drive(infer(operations, 5), THREE, LIMITS)
    assert paths == ["m", "config"]
    assert "dimension 0 is 5, not 3" in str(result)
