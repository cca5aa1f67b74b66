"""The examples in docs/reference/clients.md and docs/reference/clients-llm.md run, and their tables are complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
from PIL import Image

import tritonkit_client
from tritonkit.server import TritonServer
from tritonkit_client import Client, TritonkitClientError
from tritonkit_client._cli.main import main

PAGE = "".join(
    (Path(__file__).parents[2] / f"docs/reference/{name}.md").read_text("utf-8") for name in ("clients", "clients-llm")
)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_every_example_runs(
    protocol: str, server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    authority = trustme.CA()
    authority.cert_pem.write_to_path("ca.pem")
    issued = authority.issue_cert("app@example.org")
    issued.cert_chain_pems[0].write_to_path("app.pem")
    issued.private_key_pem.write_to_path("app.key")
    examples = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(examples) == 19
    address = server.grpc_url if protocol == "grpc" else server.http_url
    port = server.ports[protocol]
    names: dict[str, Any] = {}
    with Client(address) as client, Client(server.grpc_url) as over_grpc:
        for example in examples:
            names["client"] = over_grpc if ".stream(" in example else client
            code = example.replace('"grpc://127.0.0.1:8001"', repr(address))
            code = code.replace('"grpc://a:8001,b:8001"', repr(f"{protocol}://127.0.0.1:{port},localhost:{port}"))
            exec(code, names)
            for value in names.values():
                if isinstance(value, Client) and value not in (client, over_grpc):
                    value.close()
    assert names["out"]["logits"].shape == (1, 1000)
    assert names["state"][0][0] == 6.0


def test_every_command_runs(server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for path in ("cat.jpg", "photos/cat.jpg", "photos/dog.jpg"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    commands = re.findall(r"^\$ tritonkit-client (.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 8
    for command in commands:
        here = command.replace("grpc://127.0.0.1:8001", server.grpc_url)
        assert main(shlex.split(here.replace("http://127.0.0.1:8000", server.http_url))) == 0


def test_every_error_is_explained() -> None:
    public = (getattr(tritonkit_client, name) for name in tritonkit_client.__all__)
    errors = {kind.__name__ for kind in public if issubclass(kind, TritonkitClientError)}
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == errors - {"TritonkitClientError"}
