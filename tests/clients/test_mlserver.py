"""How MLServer's KServe v2 differs from Triton's, and how the client copes; the rest is test_contract.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from mlserver import DATATYPES
from otherserver import OtherServer

from tritonkit_client import Client, InvalidInput, ModelNotFound, NotSupported

Connect = Callable[..., Client]


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, mlserver: OtherServer) -> str:
    address: str = getattr(mlserver, f"{request.param}_url")
    return address


def test_its_models_are_listed_with_their_state(client: Client) -> None:
    states = {entry.name: entry.state for entry in client.repository()}
    assert states["arithmetic"] == "READY"
    assert len(states) == len(DATATYPES) + 5


def test_its_metadata_is_read_without_a_configuration(client: Client) -> None:
    metadata = client.metadata("identity")
    assert (metadata.name, metadata.max_batch_size, metadata.decoupled) == ("identity", 0, False)
    assert [spec.name for spec in metadata.inputs] == [f"in_{name}" for name in DATATYPES]
    assert not any(spec.optional for spec in metadata.inputs)


def test_what_it_does_not_offer_is_said(client: Client) -> None:
    for call in (client.config, client.statistics):
        with pytest.raises(NotSupported):
            call("identity")


def test_bytes_that_are_no_text_need_grpc(client: Client, url: str) -> None:
    value = np.array([[b"\xff", b""]], dtype=object)
    if url.startswith("http"):
        with pytest.raises(InvalidInput, match="use its gRPC endpoint"):
            client.infer("identity_BYTES", in_BYTES=value)
    else:
        assert client.infer("identity_BYTES", in_BYTES=value)["out_BYTES"].tolist() == value.tolist()


def test_a_version_is_any_text(client: Client) -> None:
    for version in ("v0.1.0", ""):
        outputs = client.infer("versioned", in_x=np.ones(2, np.float32), model_version=version)
        assert outputs["out_x"].tolist() == [1.0, 1.0]
    assert client.model_ready("versioned", model_version="v0.1.0")
    assert not client.model_ready("versioned", model_version="v0.2.0")
    with pytest.raises(ModelNotFound, match=r"version v0\.2\.0"):
        client.metadata("versioned", model_version="v0.2.0")


def test_inputs_that_nobody_declares_are_sent_as_they_are(client: Client) -> None:
    assert client.metadata("undeclared").inputs == ()
    outputs = client.infer("undeclared", in_a=np.ones((1, 2), np.int16), in_b=["text", "größe"], in_c=[True])
    assert {name: array.dtype.str for name, array in outputs.items()} == {
        "out_a": "<i2", "out_b": "|O", "out_c": "|b1",
    }  # fmt: skip
    assert outputs["out_b"].tolist() == [b"text", "größe".encode()]
    with pytest.raises(InvalidInput, match=r"no declared datatype.*list does not tell.*\n.*np\.asarray\(in_a, np"):
        client.infer("undeclared", in_a=[1, 2])
