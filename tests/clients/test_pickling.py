"""Clients that are pickled for other processes, as Dask and Spark do."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from tritonkit.server import TritonServer
from tritonkit_client import (
    TLS,
    AsyncClient,
    Client,
    ClientClosed,
    Hedge,
    InvalidInput,
    Retry,
    SharedMemory,
    prometheus,
)

X = np.ones((1, 3), np.float32)


def token() -> str:
    return "secret"


def test_a_client_that_was_pickled_works_elsewhere(url: str) -> None:
    with Client(url, timeout=7, retry=Retry(attempts=5), token=token, headers={"x-team": "a"}) as client:
        client.infer("labelled", x=X)
        model = client.model("labelled")
        for copied in (
            pickle.loads(pickle.dumps(client)),
            copy.deepcopy(client),
            cloudpickle.loads(cloudpickle.dumps(client)),
        ):
            assert repr(copied) == repr(client)
            with copied:
                np.testing.assert_array_equal(copied.infer("labelled", x=X)["y"], X)
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again(x=X)["y"], X)
        again._client.close()


def test_an_asynchronous_client_does_too(url: str) -> None:
    async def main() -> None:
        async with AsyncClient(url, shared_memory=SharedMemory(), hedge=Hedge()) as client:
            await client.infer("labelled", x=X)
            async with pickle.loads(pickle.dumps(client)) as copied:
                np.testing.assert_array_equal((await copied.infer("labelled", x=X))["y"], X)

    asyncio.run(main())


def test_another_process_connects_for_itself(server: TritonServer) -> None:
    with Client(server.grpc_url, timeout=10) as client:
        assert client.live()
        code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).live())"
        done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(client), capture_output=True, check=True)
    assert done.stdout == b"True\n"


def test_what_cannot_be_pickled_is_named(server: TritonServer, tmp_path: Path) -> None:
    with Client(server.grpc_url, event_hooks=prometheus.hooks()) as client:
        with pytest.raises(InvalidInput, match="its event_hooks= cannot") as caught:
            pickle.dumps(client)
        assert "where it is used" in caught.value.fix
        with client.sequence("sum") as track, pytest.raises(InvalidInput, match="cannot be pickled"):
            pickle.dumps(track)
    with pytest.raises(ClientClosed):
        pickle.dumps(client)
    with Client(server.grpc_url, token=lambda: "secret") as client:  # only cloudpickle can pickle it
        assert cloudpickle.loads(cloudpickle.dumps(client))._credentials.now() == {"authorization": "Bearer secret"}
    (tmp_path / "ca.pem").touch()
    with Client("grpcs://127.0.0.1:1", tls=TLS(ca=tmp_path / "ca.pem")) as client:
        data = pickle.dumps(client)
        (tmp_path / "ca.pem").unlink()
        with pytest.raises(InvalidInput, match="is not a file"):
            pickle.loads(data)
