"""The examples in docs/clients.md run, and its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

import tritonkit_client
from tritonkit_client import Client, TritonkitClientError

PAGE = (Path(__file__).parents[2] / "docs/clients.md").read_text(encoding="utf-8")


def test_every_example_runs(client: Client, url: str) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(examples) == 4
    for example in examples:
        names = {"client": client, "np": np, "image": np.zeros((1, 224, 224, 3), np.uint8)}
        exec(example.replace("grpc://127.0.0.1:8001", url), names)


def test_every_error_is_explained() -> None:
    public = (getattr(tritonkit_client, name) for name in tritonkit_client.__all__)
    errors = {kind.__name__ for kind in public if issubclass(kind, TritonkitClientError)}
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == errors - {"TritonkitClientError"}
