"""Which calls an operation makes, driven by hand: no server, no connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tritonkit_client import InvalidInput, ModelMetadata, TensorSpec
from tritonkit_client._calls import Flow, Shared
from tritonkit_client._flows import Asked, Flows
from tritonkit_client._http_wire import HttpWire
from tritonkit_client._metadata import ModelLimits

THREE = ModelMetadata("m", ("1",), "p", (TensorSpec("x", "FP32", (3,)),), ())
LIMITS = ModelLimits(0, frozenset())
REFUSED = InvalidInput("the server refused the request")


@pytest.fixture
def flows() -> Flows:
    """Operations that remember model `m` as one with an input of three numbers."""
    made = Flows(HttpWire(), "http://models:8000")
    assert drive(made.metadata("m", ""), THREE, LIMITS) == (["m", "config"], THREE)
    return made


def drive(flow: Flow[Any], *answers: Any) -> tuple[list[str], Any]:
    """Answer an operation's calls in turn; the last part of each call's path, and its result or error."""
    paths = []
    step: Iterator[Any] = iter(answers)
    try:
        call = next(flow)
        while True:
            if isinstance(call, Shared):
                more, answer = drive(call.flow(), *step)
                paths += more
                step = iter(answers[len(paths) :])
            else:
                paths.append(call.target.rsplit("/", 1)[-1])
                answer = next(step)
            call = flow.throw(answer) if isinstance(answer, Exception) else flow.send(answer)
    except StopIteration as done:
        return paths, done.value
    except InvalidInput as error:
        return paths, error


def infer(flows: Flows, size: int) -> Flow[Any]:
    return flows.infer(Asked("m", {"x": np.ones(size, np.float32)}, request_id="r1"))


def test_a_known_model_costs_one_call(flows: Flows) -> None:
    assert drive(infer(flows, 3), {}) == (["infer"], {})


def test_an_unknown_model_is_looked_at_first() -> None:
    flows = Flows(HttpWire(), "http://models:8000")
    assert drive(infer(flows, 3), THREE, LIMITS, {}) == (["m", "config", "infer"], {})


def test_a_refused_request_is_not_sent_again_to_an_unchanged_model(flows: Flows) -> None:
    assert drive(infer(flows, 3), REFUSED, THREE, LIMITS) == (["infer", "m", "config"], REFUSED)


def test_a_refused_request_is_sent_once_more_to_a_changed_model(flows: Flows) -> None:
    changed = ModelMetadata("m", ("2",), "p", THREE.inputs, ())
    paths, result = drive(infer(flows, 3), REFUSED, changed, LIMITS, REFUSED)
    assert (paths, result) == (["infer", "m", "config", "infer"], REFUSED)


def test_an_input_that_does_not_fit_is_never_sent(flows: Flows) -> None:
    paths, result = drive(infer(flows, 5), THREE, LIMITS)
    assert paths == ["m", "config"]
    assert "dimension 0 is 5, not 3" in str(result)
