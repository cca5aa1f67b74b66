"""KServe v2 over HTTP without a connection, tensors in Triton's binary extension both ways.

A request or a response with tensors is a JSON header, whose length `Inference-Header-Content-Length` gives,
and then each tensor's bytes in the order of the header.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np

from .calls import BINARY, Call, InferRequest, Memory, Parameter, Region, RequestedOutput, Response, Tensor
from .errors import InvalidInput, Origin, ServerError, error_for, error_in_stream
from .metadata import ModelLimits, ModelMetadata, ModelStatistics, RepositoryEntry, TensorSpec
from .tensors import BYTES, Array, Buffer, decode, from_json, to_json

T = TypeVar("T")

_HEADER_LENGTH = "Inference-Header-Content-Length"
# The first release of KServe's own server that takes and gives tensors in binary: it does not list the extension
# (https://github.com/kserve/kserve/pull/3685).
_KSERVE_BINARY = (0, 14)
# The keys of an event of the generate extension that are not outputs.
_RESERVED = ("id", "model_name", "model_version")
# How much of a body that is no JSON of Triton an error message repeats.
_EXCERPT_CHARS = 200


class HttpWire:
    """The HTTP side of `Wire`.

    Args:
        path: The endpoint's own path in front of ``/v2``.
    """

    always_binary = False
    streams_tensors = False

    def __init__(self, path: str = "") -> None:
        self._root = f"{path}/v2"

    def live(self, origin: Origin) -> Call[bool]:
        """See `Wire.live`."""
        return _get(f"{self._root}/health/live", "live", _yes_or_no(origin), origin)

    def ready(self, origin: Origin) -> Call[bool]:
        """See `Wire.ready`."""
        return _get(f"{self._root}/health/ready", "ready", _yes_or_no(origin), origin)

    def model_ready(self, version: str, origin: Origin) -> Call[bool]:
        """See `Wire.model_ready`."""
        return _get(f"{self._model(version, origin)}/ready", "model_ready", _yes_or_no(origin), origin)

    def metadata(self, version: str, origin: Origin) -> Call[ModelMetadata]:
        """See `Wire.metadata`."""
        return _get(self._model(version, origin), "metadata", _json_reader(_metadata, origin), origin)

    def limits(self, version: str, origin: Origin) -> Call[ModelLimits]:
        """See `Wire.limits`."""
        return _get(f"{self._model(version, origin)}/config", "config", _json_reader(_limits, origin), origin)

    def extensions(self, origin: Origin) -> Call[tuple[str, ...]]:
        """See `Wire.extensions`."""
        return _get(self._root, "extensions", _json_reader(_extensions, origin), origin)

    def config(self, version: str, origin: Origin) -> Call[dict[str, Any]]:
        """See `Wire.config`."""
        return _get(f"{self._model(version, origin)}/config", "config", _json_reader(dict, origin), origin)

    def statistics(self, version: str, origin: Origin) -> Call[tuple[ModelStatistics, ...]]:
        """See `Wire.statistics`."""
        return _get(f"{self._model(version, origin)}/stats", "statistics", _json_reader(_statistics, origin), origin)

    def repository(self, origin: Origin) -> Call[tuple[RepositoryEntry, ...]]:
        """See `Wire.repository`."""
        return _post(f"{self._root}/repository/index", "repository", {}, _json_reader(_repository, origin), origin)

    def load(self, config: str, origin: Origin) -> Call[None]:
        """See `Wire.load`."""
        message = {"parameters": {"config": config}} if config else {}
        return _post(self._repository_model(origin, "load"), "load", message, _reader(_nothing, origin), origin)

    def unload(self, dependents: bool, origin: Origin) -> Call[None]:
        """See `Wire.unload`."""
        message = {"parameters": {"unload_dependents": dependents}}
        return _post(self._repository_model(origin, "unload"), "unload", message, _reader(_nothing, origin), origin)

    def register(self, region: Region, origin: Origin) -> Call[None]:
        """See `Wire.register`."""
        if region.memory == "cuda":
            handle = base64.b64encode(region.handle).decode()
            where: dict[str, Any] = {"raw_handle": {"b64": handle}, "device_id": region.device}
        else:
            where = {"key": region.key, "offset": 0}
        target = f"{self._shared(region.memory)}/region/{region.name}/register"
        return _post(target, "register", {**where, "byte_size": region.size}, _reader(_nothing, origin), origin)

    def unregister(self, region: str, memory: Memory, origin: Origin) -> Call[None]:
        """See `Wire.unregister`."""
        target = f"{self._shared(memory)}/region/{region}/unregister"
        return _post(target, "unregister", {}, _reader(_nothing, origin), origin)

    def regions(self, memory: Memory, origin: Origin) -> Call[tuple[str, ...]]:
        """See `Wire.regions`."""
        read = _json_reader(lambda message: tuple(region["name"] for region in message), origin)
        return _get(f"{self._shared(memory)}/status", "regions", read, origin)

    def infer(self, request: InferRequest, origin: Origin) -> Call[dict[str, Array]]:
        """See `Wire.infer`."""
        _check_parameters(request.parameters, origin)
        if request.plain:
            return self._infer_plain(request, origin)
        message: dict[str, Any] = {
            "id": request.request_id,
            "inputs": [
                {
                    "name": tensor.name,
                    "datatype": tensor.datatype,
                    "shape": tensor.shape,
                    "parameters": tensor.parameters or {"binary_data_size": len(tensor.data)},
                }
                for tensor in request.inputs
            ],
        }
        parameters: dict[str, Any] = dict(request.parameters)
        if request.outputs:
            message["outputs"] = [
                {"name": output.name, "parameters": output.parameters or _binary(output)} for output in request.outputs
            ]
        else:
            parameters["binary_data_output"] = True
        raw = tuple(tensor.data for tensor in request.inputs if not tensor.parameters)

        def encode(timeout_us: int | None) -> tuple[tuple[Buffer, ...], Mapping[str, str]]:
            timed = parameters if timeout_us is None else {**parameters, "timeout": timeout_us}
            header = json.dumps({**message, "parameters": timed}, separators=(",", ":")).encode()
            headers = {_HEADER_LENGTH: str(len(header)), "Content-Type": "application/octet-stream"}
            return (header, *raw), headers

        target = f"{self._model(request.version, origin)}/infer"
        return Call(
            target, _reader(lambda response: _outputs(response, request, origin), origin), origin, "infer", encode
        )

    def _infer_plain(self, request: InferRequest, origin: Origin) -> Call[dict[str, Array]]:
        """The inference with its tensors as JSON, for a server without the binary extension."""
        data = [_plain(tensor, origin) for tensor in request.inputs]
        message: dict[str, Any] = {
            "id": request.request_id,
            "inputs": [
                {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape, "data": numbers}
                for tensor, numbers in zip(request.inputs, data, strict=True)
            ],
            "outputs": [{"name": output.name} for output in request.outputs],
        }
        if not request.outputs:
            del message["outputs"]
        if request.parameters:
            message["parameters"] = dict(request.parameters)
        target = f"{self._model(request.version, origin)}/infer"
        return _post(
            target, "infer", message, _reader(lambda response: _outputs(response, request, origin), origin), origin
        )

    def stream(self, request: InferRequest, origin: Origin) -> Call[dict[str, Array]]:
        """See `Wire.stream`: Triton's ``generate`` extension, in which tensors are flat lists and say no shape."""
        target = f"{self._model(request.version, origin)}/generate_stream"
        message: dict[str, Any] = {**request.parameters, "id": request.request_id}
        message |= {tensor.name: _plain(tensor, origin) for tensor in request.inputs}
        return _post(target, "stream", message, _reader(lambda response: _event(response, origin), origin), origin)

    def _shared(self, memory: Memory) -> str:
        return f"{self._root}/{memory}sharedmemory"

    def _repository_model(self, origin: Origin, verb: str) -> str:
        return f"{self._root}/repository/models/{quote(origin.model, safe='')}/{verb}"

    def _model(self, version: str, origin: Origin) -> str:
        path = f"{self._root}/models/{quote(origin.model, safe='')}"
        return f"{path}/versions/{quote(version, safe='')}" if version else path


def _get(target: str, operation: str, read: Callable[[Response], T], origin: Origin) -> Call[T]:
    return Call(target, read, origin, operation, lambda _: ((), {}), method="GET")


def _post(
    target: str, operation: str, message: Mapping[str, Any], read: Callable[[Response], T], origin: Origin
) -> Call[T]:
    body = (json.dumps(message).encode(),)
    return Call(target, read, origin, operation, lambda _: (body, {"Content-Type": "application/json"}))


def _yes_or_no(origin: Origin) -> Callable[[Response], bool]:
    def read(response: Response) -> bool:
        if response.status == 200:
            return not _denied(response.body)
        # Triton says 400 for "not ready" (KServe asks for any 4xx); 503 is what a proxy without a server
        # says, and KServe's own server of a model with words that the table of errors knows.
        if response.status == 400:
            return False
        raise error_for(response.status, _failure(response), origin)

    return read


def _denied(body: bytes) -> bool:
    """Whether a health check's body says no: ``{"ready": false}`` or ``{"live": false}``; Triton's is empty."""
    try:
        message = json.loads(body) if body else {}
    except (RecursionError, ValueError):
        return False
    return isinstance(message, dict) and False in (message.get("ready"), message.get("live"))


def _reader(parse: Callable[[Response], T], origin: Origin) -> Callable[[Response], T]:
    def read(response: Response) -> T:
        if response.status != 200:
            raise error_for(response.status, _failure(response), origin)
        try:
            return parse(response)
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise ServerError(
                f"the answer is not KServe v2: {_excerpt(response.body)}",
                "check that the address and its path lead to a KServe v2 server",
                origin,
            ) from error

    return read


def _json_reader(parse: Callable[[Any], T], origin: Origin) -> Callable[[Response], T]:
    return _reader(lambda response: parse(json.loads(response.body)), origin)


def _failure(response: Response) -> str:
    """The message of a failed response: the protocol's own, or the beginning of its body."""
    try:
        return str(json.loads(response.body)["error"])
    except (KeyError, RecursionError, TypeError, ValueError):
        return response.message or _excerpt(response.body)


def _excerpt(body: bytes) -> str:
    return body[:_EXCERPT_CHARS].decode(errors="replace")


def _metadata(message: Mapping[str, Any]) -> ModelMetadata:
    def specs(tensors: Any) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec.described(t["name"], t.get("datatype"), t.get("shape")) for t in tensors or ())

    # The protocol lets a server leave out the versions, and some leave out more. Only the name is required.
    return ModelMetadata(
        message["name"],
        tuple(map(str, message.get("versions") or ())),
        message.get("platform") or "",
        specs(message.get("inputs")),
        specs(message.get("outputs")),
    )


def _has_null(data: Any) -> bool:
    """Whether a flat or nested list holds a null, which numpy would read as NaN or False."""
    if not isinstance(data, list) or not data:
        return False
    return None in data or (isinstance(data[0], list) and any(map(_has_null, data)))


def _extensions(message: Mapping[str, Any]) -> tuple[str, ...]:
    extensions = tuple(message.get("extensions") or ())
    if message.get("name") == "kserve" and _release(message.get("version")) >= _KSERVE_BINARY:
        extensions += (BINARY,)
    return extensions


def _release(version: object) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", str(version))[:2])


def _limits(message: Mapping[str, Any]) -> ModelLimits:
    optional = frozenset(tensor["name"] for tensor in message["input"] if tensor.get("optional"))
    decoupled = bool(message.get("model_transaction_policy", {}).get("decoupled"))
    parameters = {name: str(value["string_value"]) for name, value in (message.get("parameters") or {}).items()}
    return ModelLimits(int(message["max_batch_size"]), optional, decoupled, parameters)


def _statistics(message: Mapping[str, Any]) -> tuple[ModelStatistics, ...]:
    return tuple(ModelStatistics.from_json(entry) for entry in message["model_stats"])


def _repository(message: Any) -> tuple[RepositoryEntry, ...]:
    return tuple(
        RepositoryEntry(model["name"], *(model.get(key) or "" for key in ("version", "state", "reason")))
        for model in message
    )


def _plain(tensor: Tensor, origin: Origin) -> list[Any]:
    try:
        return to_json(tensor.data, tensor.datatype, tensor.shape)
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"input {tensor.name!r}: bytes that are not text cannot be sent to this server over HTTP ({error})",
            "use its gRPC endpoint, or send UTF-8",
            origin,
        ) from error
    except ValueError as error:
        raise InvalidInput(
            f"input {tensor.name!r} cannot be sent to this server over HTTP, which takes tensors as JSON: {error}",
            "use its gRPC endpoint, or send finite numbers",
            origin,
        ) from error


def _check_parameters(parameters: Mapping[str, Parameter], origin: Origin) -> None:
    for name, value in parameters.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput(
                f"parameter {name!r} is {value}, which JSON does not have",
                "use a grpc:// endpoint, or a string",
                origin,
            )


def _binary(output: RequestedOutput) -> dict[str, bool | int]:
    return {"binary_data": True, "classification": output.classes} if output.classes else {"binary_data": True}


def _nothing(_reply: Response) -> None:
    return None


def _event(response: Response, origin: Origin) -> dict[str, Array]:
    """The outputs of one event of a stream; the status came with the first event."""
    event = json.loads(response.body)
    if "error" in event:
        raise error_in_stream(str(event["error"]), origin)
    return {name: _untyped(value) for name, value in event.items() if name not in _RESERVED}


def _untyped(value: Any) -> Array:
    """The tensor in a value, or in a flat list of values, without a declared type."""
    values = value if isinstance(value, list) else [value]
    datatype = BYTES if any(isinstance(item, str) for item in values) else None
    return np.asarray(values) if datatype is None else from_json(values, datatype, [len(values)])


def _outputs(response: Response, request: InferRequest, origin: Origin) -> dict[str, Array]:
    # Without the length the whole body is the header: Triton omits it when there are no bytes to
    # send.
    offset = int(response.headers.get(_HEADER_LENGTH, len(response.body)))
    header = json.loads(response.body[:offset])
    content = memoryview(response.body)
    elsewhere = request.elsewhere
    outputs: dict[str, Array] = {}
    for tensor in header["outputs"]:
        name, datatype, shape = tensor["name"], tensor["datatype"], tuple(map(int, tensor["shape"]))
        if request.placed is not None and name in elsewhere:
            outputs[name] = request.placed(name, datatype, shape)
            continue
        if tensor.get("data") is not None:  # the protocol without the binary extension: a server may not know it
            outputs[name] = from_json(tensor["data"], datatype, shape)
            if datatype != BYTES and _has_null(tensor["data"]):
                raise ServerError(
                    f"output {name!r} holds null: the server had a number that JSON has not, NaN or an infinity",
                    "use its gRPC endpoint",
                    origin,
                )
            continue
        end = offset + int(tensor["parameters"]["binary_data_size"])
        outputs[name] = decode(content[offset:end], datatype, shape)
        offset = end
    return outputs
