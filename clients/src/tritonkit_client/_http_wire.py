"""KServe v2 over HTTP without a connection, tensors in Triton's binary extension both ways.

A request or an answer with tensors is a JSON header, whose length `Inference-Header-Content-Length` gives,
and then each tensor's bytes in the order of the header.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from ._calls import Call, InferRequest, Reply
from ._errors import Origin, ServerError, error_for
from ._metadata import ModelLimits, ModelMetadata, ModelStatistics, TensorSpec
from ._tensors import Array, decode

T = TypeVar("T")

_HEADER_LENGTH = "Inference-Header-Content-Length"
# How much of an answer that is not Triton's an error message repeats.
_EXCERPT_CHARS = 200


class HttpWire:
    """The HTTP side of `_calls.Wire`.

    Args:
        path: The endpoint's own path in front of ``/v2``.
    """

    def __init__(self, path: str = "") -> None:
        self._root = f"{path}/v2"

    def live(self, origin: Origin) -> Call[bool]:
        """See `Wire.live`."""
        return Call(f"{self._root}/health/live", _yes_or_no(origin))

    def ready(self, origin: Origin) -> Call[bool]:
        """See `Wire.ready`."""
        return Call(f"{self._root}/health/ready", _yes_or_no(origin))

    def model_ready(self, version: str, origin: Origin) -> Call[bool]:
        """See `Wire.model_ready`."""
        return Call(f"{self._model(version, origin)}/ready", _yes_or_no(origin))

    def metadata(self, version: str, origin: Origin) -> Call[ModelMetadata]:
        """See `Wire.metadata`."""
        return Call(self._model(version, origin), _json_reader(_metadata, origin))

    def limits(self, version: str, origin: Origin) -> Call[ModelLimits]:
        """See `Wire.limits`."""
        return Call(f"{self._model(version, origin)}/config", _json_reader(_limits, origin))

    def statistics(self, version: str, origin: Origin) -> Call[tuple[ModelStatistics, ...]]:
        """See `Wire.statistics`."""
        return Call(f"{self._model(version, origin)}/stats", _json_reader(_statistics, origin))

    def infer(self, request: InferRequest, origin: Origin) -> Call[dict[str, Array]]:
        """See `Wire.infer`."""
        message: dict[str, Any] = {
            "id": request.request_id,
            "inputs": [
                {
                    "name": tensor.name,
                    "datatype": tensor.datatype,
                    "shape": tensor.shape,
                    "parameters": {"binary_data_size": len(tensor.data)},
                }
                for tensor in request.inputs
            ],
        }
        if request.outputs:
            message["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in request.outputs]
        else:
            message["parameters"] = {"binary_data_output": True}
        header = json.dumps(message, separators=(",", ":")).encode()
        return Call(
            f"{self._model(request.version, origin)}/infer",
            _reader(_outputs, origin),
            body=(header, *(tensor.data for tensor in request.inputs)),
            headers={_HEADER_LENGTH: str(len(header)), "Content-Type": "application/octet-stream"},
        )

    def _model(self, version: str, origin: Origin) -> str:
        path = f"{self._root}/models/{quote(origin.model, safe='')}"
        return f"{path}/versions/{version}" if version else path


def _yes_or_no(origin: Origin) -> Callable[[Reply], bool]:
    def read(reply: Reply) -> bool:
        if reply.status == 200:
            return True
        # Triton says 400 for "not ready" (KServe asks for any 4xx); 503 is what a proxy without a server
        # says.
        if reply.status == 400:
            return False
        raise error_for(reply.status, _failure(reply), origin)

    return read


def _reader(parse: Callable[[Reply], T], origin: Origin) -> Callable[[Reply], T]:
    def read(reply: Reply) -> T:
        if reply.status != 200:
            raise error_for(reply.status, _failure(reply), origin)
        try:
            return parse(reply)
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(
                f"the answer is not KServe v2 with binary tensors: {_excerpt(reply.body)}",
                "check that the address and its path lead to Triton",
                origin,
            ) from error

    return read


def _json_reader(parse: Callable[[Any], T], origin: Origin) -> Callable[[Reply], T]:
    return _reader(lambda reply: parse(json.loads(reply.body)), origin)


def _failure(reply: Reply) -> str:
    """What a failed reply says: Triton's own sentence, or the beginning of whatever else is there."""
    try:
        return str(json.loads(reply.body)["error"])
    except (KeyError, TypeError, ValueError):
        return reply.message or _excerpt(reply.body)


def _excerpt(body: bytes) -> str:
    return body[:_EXCERPT_CHARS].decode(errors="replace")


def _metadata(answer: Mapping[str, Any]) -> ModelMetadata:
    def specs(tensors: Any) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(t["name"], t["datatype"], tuple(map(int, t["shape"]))) for t in tensors)

    return ModelMetadata(
        answer["name"],
        tuple(answer["versions"]),
        answer["platform"],
        specs(answer["inputs"]),
        specs(answer["outputs"]),
    )


def _limits(answer: Mapping[str, Any]) -> ModelLimits:
    optional = frozenset(tensor["name"] for tensor in answer["input"] if tensor.get("optional"))
    return ModelLimits(int(answer["max_batch_size"]), optional)


def _statistics(answer: Mapping[str, Any]) -> tuple[ModelStatistics, ...]:
    return tuple(ModelStatistics.from_json(entry) for entry in answer["model_stats"])


def _outputs(reply: Reply) -> dict[str, Array]:
    # Without the length the whole answer is the header: that is how Triton answers when there are no bytes to
    # send.
    offset = int(reply.headers.get(_HEADER_LENGTH, len(reply.body)))
    header = json.loads(reply.body[:offset])
    content = memoryview(reply.body)
    outputs: dict[str, Array] = {}
    for tensor in header["outputs"]:
        end = offset + int(tensor["parameters"]["binary_data_size"])
        outputs[tensor["name"]] = decode(content[offset:end], tensor["datatype"], tensor["shape"])
        offset = end
    return outputs
