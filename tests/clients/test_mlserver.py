"""Where MLServer's KServe v2 differs from Triton's, and what the client makes of that; the rest is test_contract.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from mlserver import DATATYPES, MLServer

from tritonkit_client import Client, InvalidInput, NotSupported

Connect = Callable[..., Client]


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, mlserver: MLServer) -> str:
    found: str = getattr(mlserver, f"{request.param}_url")
    return found


def test_its_models_are_listed_with_their_state(client: Client) -> None:
    found = {entry.name: entry.state for entry in client.repository()}
    assert found["arithmetic"] == "READY"
    assert len(found) == len(DATATYPES) + 3


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
