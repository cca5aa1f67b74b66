"""How KServe's own server differs from Triton, and how the client copes; the rest is test_contract.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kserveserver import DATATYPES
from otherserver import OtherServer
from tensorsamples import SAMPLES, assert_identical

from tritonkit_client import Client, InvalidInput, ModelMetadata, ModelNotReady, NotSupported, ServerError, TensorSpec
from tritonkit_client._cli.main import main

Connect = Callable[..., Client]
PAIR = np.array([[1.5, -2.0]], np.float32)


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, kserve: OtherServer) -> str:
    address: str = getattr(kserve, f"{request.param}_url")
    return address


def test_its_metadata_is_read_without_versions(client: Client) -> None:
    metadata = client.metadata("arithmetic")
    assert (metadata.versions, metadata.platform, metadata.max_batch_size) == ((), "", 0)
    assert metadata.inputs == (TensorSpec("left", "FP32", (-1, 3)), TensorSpec("right", "FP32", (-1, 3)))


def test_inputs_that_nobody_declares_are_sent_as_they_are(client: Client) -> None:
    outputs = client.infer("undeclared", in_a=PAIR, in_b=["text"], outputs=["out_b", "out_a"])
    assert_identical(outputs["out_a"], PAIR)
    assert outputs["out_b"].tolist() == [b"text"]
    with pytest.raises(InvalidInput, match="no declared datatype"):
        client.infer("undeclared", in_a=[1.5])


def test_the_command_takes_the_type_of_an_input_that_nobody_declares(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = ["in_a:FP32=[[1.5, -2]]", 'in_b:BYTES=["text"]']
    assert main(["infer", url, "undeclared", *inputs, "--json"]) == 0
    outputs = json.loads(capsys.readouterr().out)
    assert (outputs["out_a"], outputs["out_b"]) == ([[1.5, -2.0]], ["text"])
    for wrong, words in (
        ("in_a=[[1.5]]", "in_a:FP32="),
        ("in_a:FP33=1", "in_a:FP32="),
        ("in_a:INT8=[300]", "is no INT8"),
    ):
        assert main(["infer", url, "undeclared", wrong]) == 2
        assert words in capsys.readouterr().err
    assert main(["metadata", url, "undeclared"]) == 0
    assert capsys.readouterr().out.startswith("undeclared\n")


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "FP16"])
def test_outputs_in_typed_form_are_read(client: Client, datatype: str) -> None:
    sample = SAMPLES[datatype][:1, :2]  # of floats those that JSON has too; of bytes those that are text
    outputs = client.infer("typed", in_a=sample, in_b=sample, in_c=sample)
    for name in ("out_a", "out_b", "out_c"):  # typed, raw, typed
        assert_identical(outputs[name], sample)
        assert not outputs[name].flags.writeable


def test_a_typed_output_may_be_empty_and_hold_any_float(client: Client, url: str) -> None:
    empty, odd = np.empty((0, 3), np.float32), np.array([np.nan, np.inf], np.float32)
    assert_identical(client.infer("typed", in_a=empty)["out_a"], empty)
    if url.startswith("grpc"):
        assert_identical(client.infer("typed", in_a=odd)["out_a"], odd)
    else:  # it writes both as null
        with pytest.raises(ServerError, match=r"'out_a' holds null.*\n.*gRPC"):
            client.infer("typed", in_a=odd)


def test_a_model_that_is_not_ready_is_said_to_be(client: Client, url: str) -> None:
    assert not client.model_ready("not_ready")
    if url.startswith("http"):  # over gRPC it runs the model all the same
        with pytest.raises(ModelNotReady):
            client.infer("not_ready", in_a=PAIR)


def test_what_it_does_not_offer_is_said(client: Client, url: str) -> None:
    calls: list[Callable[[], Any]] = [lambda: client.config("identity"), client.repository]
    if url.startswith("http"):  # over gRPC it ignores the version
        calls.append(lambda: client.metadata("identity", model_version="1"))
    for call in calls:
        with pytest.raises(NotSupported):
            call()


def test_a_declared_model_is_not_looked_up(url: str, noting: Connect, operations: list[str]) -> None:
    inputs = (TensorSpec("in_a", "FP32", (-1, 2)), TensorSpec("in_b", optional=True))
    declared = ModelMetadata("undeclared", inputs=inputs)
    client = noting(url, models=[declared])
    for _ in range(2):
        assert_identical(client.infer("undeclared", in_a=[[1.5, -2]])["out_a"], PAIR)
    # Only over HTTP the client must know whether tensors may travel in binary.
    assert operations == [*(["extensions"] if url.startswith("http") else []), "infer", "infer"]
    assert client.metadata("undeclared") == declared
    with pytest.raises(InvalidInput, match="dimension 1 is 1, not 2"):
        client.infer("undeclared", in_a=[[1.5]])
    with pytest.raises(InvalidInput, match="has no input 'in_c'"):
        client.infer("undeclared", in_a=PAIR, in_c=PAIR)
    assert operations.count("metadata") == 0
    assert client.infer("arithmetic", left=np.ones((1, 3), np.float32), right=np.ones((1, 3), np.float32))
    assert operations.count("metadata") == 1
