"""The client against a second implementation of KServe v2: a real MLServer, from PyPI, in an environment of its own.

The environment is made once, beside the embedded Triton (about a minute, and a network), and kept.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tritonkit import store
from tritonkit_client import Client, InvalidInput, ModelNotFound, NotSupported, TritonkitClientError

Connect = Callable[..., Client]
REQUIREMENTS = Path(__file__).with_name("requirements-mlserver.txt")

MODEL = """
from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput

class Identity(MLModel):
    async def predict(self, request):
        if request.parameters and getattr(request.parameters, "fail", False):
            raise RuntimeError("as it was asked to")
        wanted = {output.name for output in request.outputs or []}
        outputs = [
            ResponseOutput(name=i.name.replace("in_", "out_"), shape=i.shape, datatype=i.datatype, data=i.data)
            for i in request.inputs
        ]
        kept = [output for output in outputs if not wanted or output.name in wanted]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=kept)
"""
SAMPLES = {
    "BOOL": np.array([[True, False, True]]),
    "INT32": np.array([[-(2**31), 0, 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 0, 2**63 - 1]], np.int64),
    "UINT8": np.array([[0, 7, 255]], np.uint8),
    "FP32": np.array([[-1.5, 0.1, 3e38]], np.float32),
    "FP64": np.array([[-1.5, 0.1, 1e300]]),
    "BYTES": np.array([[b"plain", "größe".encode(), b"x" * 70_000]], dtype=object),
}


def environment() -> Path:
    """The interpreter of MLServer's environment, made anew when its requirements changed."""
    folder = store.home() / "peers" / f"mlserver-py{sys.version_info.major}.{sys.version_info.minor}"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    done = folder / "requirements.txt"
    if not done.is_file() or done.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        made = subprocess.run([*install, "-r", REQUIREMENTS], capture_output=True, text=True, timeout=280, check=False)
        if made.returncode:
            reason = f"MLServer cannot be installed: {made.stderr.strip().splitlines()[-1:]}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        done.write_text(wanted, encoding="utf-8")
    return folder / "bin/mlserver"


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    command = environment()
    folder = tmp_path_factory.mktemp("mlserver")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    http, grpc, metrics = (sock.getsockname()[1] for sock in sockets)
    for sock in sockets:
        sock.close()
    settings = {"debug": False, "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics,
                "parallel_workers": 0, "metrics_dir": str(folder)}  # fmt: skip
    sides = {
        f"{kind}puts": [{"name": f"{kind}_{name}", "datatype": name, "shape": [-1, 3]} for name in SAMPLES]
        for kind in ("in", "out")
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "identity").mkdir()
    (folder / "identity/model.py").write_text(MODEL)
    (folder / "identity/model-settings.json").write_text(
        json.dumps({"name": "identity", "implementation": "model.Identity", **sides})
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([command, "start", folder], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            found = {"http": http, "grpc": grpc}
            for protocol, port in found.items():
                wait_for(f"{protocol}://127.0.0.1:{port}", process)
            yield found
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    with Client(url, timeout=2) as client:
        while time.monotonic() < end and process.poll() is None:
            try:
                if client.model_ready("identity"):
                    return
            except TritonkitClientError:
                time.sleep(0.1)
    raise TimeoutError("MLServer did not start")


@pytest.fixture(params=["grpc", "http"])
def peer(request: pytest.FixtureRequest, ports: dict[str, int], connect: Connect) -> Client:
    return connect(f"{request.param}://127.0.0.1:{ports[request.param]}", timeout=10)


def test_it_is_live_and_ready_and_knows_what_it_has(peer: Client) -> None:
    assert peer.live()
    assert peer.ready()
    assert peer.model_ready("identity")
    assert not peer.model_ready("absent")
    assert [(entry.name, entry.state) for entry in peer.repository()] == [("identity", "READY")]


def test_its_metadata_is_read_without_a_configuration(peer: Client) -> None:
    metadata = peer.metadata("identity")
    assert (metadata.name, metadata.max_batch_size, metadata.decoupled) == ("identity", 0, False)
    assert [spec.name for spec in metadata.inputs] == [f"in_{name}" for name in SAMPLES]
    assert {spec.shape for spec in metadata.outputs} == {(-1, 3)}


def test_tensors_of_every_type_come_back(peer: Client) -> None:
    out = peer.infer("identity", {f"in_{name}": sample for name, sample in SAMPLES.items()})
    assert list(out) == [f"out_{name}" for name in SAMPLES]
    for name, sample in SAMPLES.items():
        got = out[f"out_{name}"]
        assert got.dtype == sample.dtype
        assert got.tolist() == sample.tolist()
        assert not got.flags.writeable


def test_only_the_outputs_asked_for_come_back(peer: Client) -> None:
    inputs = {f"in_{name}": sample for name, sample in SAMPLES.items()}
    assert list(peer.infer("identity", inputs, outputs=["out_INT32"])) == ["out_INT32"]


def test_the_same_mistakes_are_the_same_errors(peer: Client) -> None:
    inputs = {f"in_{name}": sample for name, sample in SAMPLES.items()}
    with pytest.raises(ModelNotFound):
        peer.infer("absent", inputs)
    with pytest.raises(InvalidInput, match="did you mean 'in_FP32'"):
        peer.infer("identity", {**inputs, "in_FP23": SAMPLES["FP32"]})
    with pytest.raises(InvalidInput, match="dimension 1 is 4, not 3"):
        peer.infer("identity", {**inputs, "in_FP32": np.ones((1, 4), np.float32)})
    inputs["in_BYTES"] = np.array([[b"\xff", b"", b""]], dtype=object)
    if str(peer).find("http") > 0:
        with pytest.raises(InvalidInput, match="use its gRPC endpoint"):
            peer.infer("identity", inputs)
    else:
        assert peer.infer("identity", inputs)["out_BYTES"][0, 0] == b"\xff"
    for call in (peer.config, peer.statistics):
        with pytest.raises(NotSupported):
            call("identity")


def test_many_requests_are_answered_in_order(peer: Client) -> None:
    others = {f"in_{name}": sample for name, sample in SAMPLES.items() if name != "INT32"}
    samples = [{**others, "in_INT32": np.full((1, 3), number, np.int32)} for number in range(24)]
    outs = peer.infer_many("identity", samples, max_in_flight=8)
    assert [int(out["out_INT32"][0, 0]) for out in outs] == list(range(24))
