"""Sends one inference to every model of a deployment, over every endpoint: what ``helm test`` runs in a pod.

Where several versions of a model are served, each gets one.

Inputs that are not given are the smallest that a model takes: zeros, or the word "text". Whether answers are right is
for the build's parity check; here they must come, and have the shapes that the model states.

    smoke.py --inputs '{"add": {"left": [[1.0]], "right": [[2.0]]}}' http://web-http:8000 grpc://web-grpc:8001
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tritonkit_client import Client, ModelMetadata, TensorSpec, TritonkitClientError

# Triton's names of types; https://docs.nvidia.com/deeplearning/triton-inference-server, "Datatypes".
_DTYPES = {"BOOL": "?", "BF16": ml_dtypes.bfloat16, "BYTES": object} | {
    f"{triton}{bits}": f"<{kind}{bits // 8}"
    for triton, kind, sizes in (
        ("INT", "i", (8, 16, 32, 64)),
        ("UINT", "u", (8, 16, 32, 64)),
        ("FP", "f", (16, 32, 64)),
    )
    for bits in sizes
}
Inputs = Mapping[str, Any]


class Unexpected(Exception):
    """A deployment does not answer as it says it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Test every endpoint; 0 if all models answered everywhere, else 1 (2: bad input)."""
    parser = argparse.ArgumentParser("smoke.py", description="Send one inference to every model.")
    parser.add_argument(
        "endpoints", nargs="+", metavar="URL", help="http://… or grpc://…; the first over HTTP is asked what there is"
    )
    parser.add_argument(
        "--model", action="append", default=[], help="test this one; repeat it for more (default: every loaded one)"
    )
    parser.add_argument("--inputs", type=_inputs, default={}, metavar="JSON", help='{"model": {"input": value}}')
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="for each call (default 60)")
    options = parser.parse_args(arguments)
    http = [url for url in options.endpoints if url.startswith("http")]
    if not http and not options.model:
        parser.error("no endpoint speaks HTTP, which lists the models: add one, or name them with --model")
    try:
        models = options.model or loaded(http[0], options.timeout)
    except (OSError, ValueError, KeyError) as error:
        _say(f"FAILED {http[0]}: {error}\n  fix: look at the pods: are they ready, does the Service select them?")
        return 1
    if not models:
        _say(f"FAILED {http[0]}: no model is loaded\n  fix: look at the models' source and at Triton's log")
        return 1
    return max(_test(url, models, options.inputs, options.timeout) for url in options.endpoints)


def loaded(url: str, timeout_s: float) -> list[str]:
    """Names of the models that a server has loaded, from its statistics: listing the repository takes the admin key."""
    with urllib.request.urlopen(f"{url.rstrip('/')}/v2/models/stats", timeout=timeout_s) as answer:
        return sorted({entry["name"] for entry in json.load(answer)["model_stats"]})


def smallest(model: ModelMetadata, given: Inputs) -> dict[str, Any]:
    """Inputs for a model: those given, and for every other one that it needs an array of the smallest shape."""
    needed = [spec for spec in model.inputs if not spec.optional] or model.inputs
    return {spec.name: _zeros(spec) for spec in needed} | dict(given)


def _zeros(spec: TensorSpec) -> np.ndarray[Any, Any]:
    shape = [max(1, size) for size in spec.shape]
    if spec.datatype == "BYTES":
        return np.full(shape, b"text", dtype=object)
    return np.zeros(shape, dtype=_DTYPES[spec.datatype])


def _test(url: str, models: Sequence[str], inputs: Mapping[str, Inputs], timeout_s: float) -> int:
    failed = 0
    with Client(url, timeout=timeout_s) as client:
        for name, version in [(model, version) for model in models for version in _versions(client, model)]:
            begun = time.perf_counter()
            label = f"{name}/{version}" if version else name
            try:
                answer = _infer(client, url, name, version, inputs.get(name, {}))
            except (TritonkitClientError, Unexpected) as error:
                failed = 1
                _say(f"FAILED {url} {label}: {error}")
                if name not in inputs:
                    _say(f"  fix: if zeros are no input for {name}, give it one: tests.inputs.{name}")
                continue
            _say(f"ok     {url} {label}: {answer} in {(time.perf_counter() - begun) * 1000:.1f} ms")
    return failed


def _versions(client: Client, name: str) -> list[str]:
    """The versions of a model that are served, where there are several; else the one that the server chooses, empty."""
    try:
        served = sorted(counts.version for counts in client.statistics(name))
    except TritonkitClientError:  # the inference says what is wrong
        served = []
    return served if len(served) > 1 else [""]


def _infer(client: Client, url: str, name: str, version: str, given: Inputs) -> str:
    model = client.metadata(name, model_version=version)
    inputs = smallest(model, given)
    if model.decoupled and not url.startswith("grpc"):
        return "decoupled, which HTTP does not serve; not asked"
    if model.decoupled:
        return f"{sum(1 for _ in client.stream(name, inputs, model_version=version))} responses"
    outputs = _call(client, name, version, inputs)
    if not outputs:
        raise Unexpected("an answer without outputs")
    for spec in model.outputs:
        if spec.name not in outputs:
            continue  # it may belong to an optional input
        shape = outputs[spec.name].shape
        if len(shape) != len(spec.shape) or any(w not in (-1, s) for w, s in zip(spec.shape, shape, strict=True)):
            raise Unexpected(f"output {spec.name} is {list(shape)}, and the model states {list(spec.shape)}")
    return ", ".join(f"{key} {value.dtype} {list(value.shape)}" for key, value in outputs.items())


def _call(client: Client, name: str, version: str, inputs: Inputs) -> Mapping[str, np.ndarray[Any, Any]]:
    if "sequence_batching" not in client.config(name, model_version=version):
        return client.infer(name, inputs, model_version=version)
    with client.sequence(name, model_version=version) as sequence:  # leaving it ends the sequence on the server
        return sequence(inputs)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _inputs(text: str) -> Mapping[str, Inputs]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(entry, dict) for entry in value.values()):
        raise argparse.ArgumentTypeError('not {"model": {"input": value}}')
    return value


if __name__ == "__main__":
    sys.exit(main())
