"""docs/guides/versions.md as its reader follows it: its recipe, its commands and its code, in their order."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from onnxmodels import write_linear, write_recipe

from tritonkit import cli
from tritonkit.repository import config
from tritonkit.server.ports import free_ports
from tritonkit_client import Client, ModelNotFound, ModelNotReady, Traffic

FEATURES = np.ones((1, 4), np.float32)


class Reader:
    """A reader who types the page's commands, in a folder of their own."""

    def __init__(self, root: Path, directory: Path) -> None:
        self.root, self.directory = root, directory
        self.ports = dict(zip(("http", "grpc", "metrics"), free_ports(3), strict=True))
        self.server: subprocess.Popen[str] | None = None
        page = (root / "docs/guides/versions.md").read_text(encoding="utf-8")
        self.blocks: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)

    def next(self, language: str) -> str:
        """The page's next block, which must be in that language."""
        kind, text = self.blocks.pop(0)
        assert kind == language
        for protocol, port in (("grpc", 8001), ("http", 8000)):
            text = text.replace(f"{protocol}://127.0.0.1:{port}", f"{protocol}://127.0.0.1:{self.ports[protocol]}")
        return text

    def types(self) -> list[str]:
        """Run the commands of the next block; returns the output of each.

        Each is a process of its own, but for the builds after the first one.
        """
        printed = []
        for line in self.next("bash").splitlines():
            if line.startswith("tritonkit serve"):
                self._serve(line)
                continue
            if line.startswith("tritonkit build") and self.server is not None:
                printed.append(self._build(line))
                continue
            done = subprocess.run(
                ["bash", "-c", line], cwd=self.directory, capture_output=True, text=True, timeout=120, check=False,
                env=self._environment(),
            )  # fmt: skip
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            printed.append(done.stdout)
        return printed

    def _build(self, line: str) -> str:
        with contextlib.chdir(self.directory), contextlib.redirect_stdout(io.StringIO()) as output:
            assert cli.main(shlex.split(line)[1:]) == 0
        return output.getvalue()

    def runs(self, code: str) -> dict[str, Any]:
        scope: dict[str, Any] = {"features": FEATURES}
        exec(code, scope)
        return scope

    def _environment(self) -> dict[str, str]:
        return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}

    def _serve(self, line: str) -> None:
        ports = " ".join(f"--{name}-port {port}" for name, port in self.ports.items())
        command = line.replace("tritonkit serve", f"exec tritonkit serve {ports}")
        self.server = subprocess.Popen(
            ["bash", "-f", "-c", command], cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env=self._environment(),
        )  # fmt: skip
        assert self.server.stdout is not None
        for printed in self.server.stdout:
            if printed.startswith("ready"):
                return
        raise AssertionError(f"{line} did not become ready")

    def stop(self) -> None:
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            self.server.communicate(timeout=60)


@pytest.fixture
def reader(root: Path, tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(root, tmp_path)
    yield reader
    reader.stop()


def inferences(client: Client) -> dict[str, int]:
    """How many inferences each version has run since it was loaded."""
    time.sleep(0.2)  # the server counts a request a moment after it has answered it
    return {counted.version: counted.inference_count for counted in client.statistics("classifier")}


def test_the_page_from_the_first_version_to_the_rollback(reader: Reader) -> None:
    write_linear(reader.directory / "old.onnx", 1)
    write_linear(reader.directory / "new.onnx", 2)
    write_recipe(reader.directory / "classifier.yaml", reader.directory / "old.onnx")
    (reader.directory / "candidate.yaml").write_text(reader.next("yaml"), encoding="utf-8")

    (printed,) = reader.types()  # build, serve
    assert "served: 1, 2" in printed
    split = reader.next("python")
    served = reader.runs(split)["served"]
    assert sum(served.values()) >= 1000
    assert 60 < served["2"] < 140, "a tenth of the callers"
    with Client(f"grpc://127.0.0.1:{reader.ports['grpc']}") as client:
        scores = [client.infer("classifier", x=FEATURES, model_version=v)["scores"][0, 0] for v in ("1", "2", "")]
        assert scores == [4, 8, 8], "who names no version gets the highest"

        (metadata,) = reader.types()
        assert json.loads(metadata)["versions"] == ["2"]
        reader.types()  # the load test
        folder = reader.directory / "reports/loadtest/classifier-1+classifier-2"
        models = json.loads((folder / "result.json").read_text(encoding="utf-8"))["models"]
        assert set(models) == {"classifier/1", "classifier/2"}
        assert models["classifier/1"]["requests"] > 3 * models["classifier/2"]["requests"] > 0
        assert models["classifier/1"]["server"]["requests"] > 3 * models["classifier/2"]["server"]["requests"] > 0

        reader.types()  # half of the callers; Triton reloads the model, and counts anew
        half = reader.runs(split)
        assert half["traffic"].shares == {"1": 50, "2": 50}
        assert 400 < inferences(client)["2"] < 600
        reader.types()  # rollback
        assert reader.runs(split)["traffic"].shares == {"1": 1}
        assert client.infer("classifier", x=FEATURES)["scores"][0, 0] == 4
        with pytest.raises((ModelNotFound, ModelNotReady)):
            client.infer("classifier", x=FEATURES, model_version="2")

    _, _, promoted, rolled_back = (printed for printed in reader.types() if printed)
    assert ": 2 uploaded (" in promoted, "a configuration and a passport; no graph is sent again"
    before, after = re.findall(r"version (\w{16}) is current|before it was (\w{16})", rolled_back)
    for version, shares in ((before[0], {"1": 1.0}), (after[1], {"2": 1.0})):
        folder = reader.directory / "store/versions" / version / "classifier"
        assert {path.parent.name for path in folder.glob("*/model.onnx")} == {"1", "2"}
        parsed = config.parse((folder / "config.pbtxt").read_text(encoding="utf-8"))
        assert Traffic.from_config(MessageToDict(parsed, preserving_proto_field_name=True)).shares == shares
        assert parsed.version_policy.specific.versions == [int(version) for version in shares]
    assert not reader.blocks
