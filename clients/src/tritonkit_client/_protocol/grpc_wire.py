"""KServe v2 over gRPC without a channel: encodes calls as protobuf bytes, and reads responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from .calls import Call, InferRequest, Memory, Parameter, Region, Response
from .errors import Origin, ServerError, error_for, error_in_stream
from .metadata import ModelLimits, ModelMetadata, ModelStatistics, RepositoryEntry, TensorSpec
from .tensors import Array, Buffer, decode, from_contents

T = TypeVar("T")

_SERVICE = "/inference.GRPCInferenceService/"
# Field 7 of ModelInferRequest, `repeated bytes raw_input_contents`: (7 << 3) | 2, a length-delimited field.
_RAW_INPUT_TAG = b"\x3a"
# Field 3, `string id`, and field 4, `map<string, InferParameter> parameters`.
_ID_TAG, _PARAMETERS_TAG = b"\x1a", b"\x22"
# An entry of that map whose key (field 1) is "timeout", up to the length of its value (field 2); and the tag of
# the value's field 2, `int64 int64_param`.
_TIMEOUT_KEY, _INT64_TAG = b"\x0a\x07timeout\x12", b"\x10"
# The field of InferTensorContents for each datatype, where a server does not send raw bytes. The protocol wants FP16
# and BF16 raw; FP32 holds all of their values.
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    **dict.fromkeys(("FP16", "BF16", "FP32"), "fp32_contents"),
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
# How the RPCs of each kind of shared memory begin.
_SHARED: dict[Memory, str] = {"system": "SystemSharedMemory", "cuda": "CudaSharedMemory"}
# How many heads are kept; shapes that differ every time would fill the memory.
_HEADS = 256


class GrpcWire:
    """The gRPC side of `Wire`."""

    always_binary = True
    streams_tensors = True

    def __init__(self) -> None:
        self._heads: dict[Any, bytes] = {}

    def live(self, origin: Origin) -> Call[bool]:
        """See `Wire.live`."""
        return _call("ServerLive", "live", service_pb2.ServerLiveRequest(), lambda message: bool(message.live), origin)

    def ready(self, origin: Origin) -> Call[bool]:
        """See `Wire.ready`."""
        request = service_pb2.ServerReadyRequest()
        return _call("ServerReady", "ready", request, lambda message: bool(message.ready), origin)

    def model_ready(self, version: str, origin: Origin) -> Call[bool]:
        """See `Wire.model_ready`."""
        request = service_pb2.ModelReadyRequest(name=origin.model, version=version)
        return _call("ModelReady", "model_ready", request, lambda message: bool(message.ready), origin)

    def metadata(self, version: str, origin: Origin) -> Call[ModelMetadata]:
        """See `Wire.metadata`."""
        request = service_pb2.ModelMetadataRequest(name=origin.model, version=version)
        return _call("ModelMetadata", "metadata", request, _metadata, origin)

    def limits(self, version: str, origin: Origin) -> Call[ModelLimits]:
        """See `Wire.limits`."""
        request = service_pb2.ModelConfigRequest(name=origin.model, version=version)
        return _call("ModelConfig", "config", request, _limits, origin)

    def extensions(self, origin: Origin) -> Call[tuple[str, ...]]:
        """See `Wire.extensions`."""
        request = service_pb2.ServerMetadataRequest()
        return _call("ServerMetadata", "extensions", request, lambda message: tuple(message.extensions), origin)

    def config(self, version: str, origin: Origin) -> Call[dict[str, Any]]:
        """See `Wire.config`."""
        request = service_pb2.ModelConfigRequest(name=origin.model, version=version)
        return _call("ModelConfig", "config", request, lambda message: _as_dict(message)["config"], origin)

    def statistics(self, version: str, origin: Origin) -> Call[tuple[ModelStatistics, ...]]:
        """See `Wire.statistics`."""
        request = service_pb2.ModelStatisticsRequest(name=origin.model, version=version)
        return _call("ModelStatistics", "statistics", request, _statistics, origin)

    def repository(self, origin: Origin) -> Call[tuple[RepositoryEntry, ...]]:
        """See `Wire.repository`."""
        return _call("RepositoryIndex", "repository", service_pb2.RepositoryIndexRequest(), _repository, origin)

    def load(self, config: str, origin: Origin) -> Call[None]:
        """See `Wire.load`."""
        request = service_pb2.RepositoryModelLoadRequest(model_name=origin.model)
        if config:
            request.parameters["config"].string_param = config
        return _call("RepositoryModelLoad", "load", request, _nothing, origin)

    def unload(self, dependents: bool, origin: Origin) -> Call[None]:
        """See `Wire.unload`."""
        request = service_pb2.RepositoryModelUnloadRequest(model_name=origin.model)
        request.parameters["unload_dependents"].bool_param = dependents
        return _call("RepositoryModelUnload", "unload", request, _nothing, origin)

    def register(self, region: Region, origin: Origin) -> Call[None]:
        """See `Wire.register`."""
        if region.memory == "cuda":
            request = service_pb2.CudaSharedMemoryRegisterRequest(
                name=region.name, raw_handle=region.handle, device_id=region.device, byte_size=region.size
            )
        else:
            request = service_pb2.SystemSharedMemoryRegisterRequest(
                name=region.name, key=region.key, byte_size=region.size
            )
        return _call(f"{_SHARED[region.memory]}Register", "register", request, _nothing, origin)

    def unregister(self, region: str, memory: Memory, origin: Origin) -> Call[None]:
        """See `Wire.unregister`."""
        rpc = f"{_SHARED[memory]}Unregister"
        return _call(rpc, "unregister", getattr(service_pb2, f"{rpc}Request")(name=region), _nothing, origin)

    def regions(self, memory: Memory, origin: Origin) -> Call[tuple[str, ...]]:
        """See `Wire.regions`."""
        rpc = f"{_SHARED[memory]}Status"
        request = getattr(service_pb2, f"{rpc}Request")()
        return _call(rpc, "regions", request, lambda message: tuple(message.regions), origin)

    def infer(self, request: InferRequest, origin: Origin) -> Call[dict[str, Array]]:
        """See `Wire.infer`.

        Tensors do not pass through protobuf, which would copy each of them twice: its encoding of a repeated
        field is the elements one after another, each as tag, length and bytes, wherever they stand in the
        message (https://protobuf.dev/programming-guides/encoding). For the same reason the timeout, which
        differs from attempt to attempt, is a second message behind the first: readers merge the two.
        """
        head = self._head(request) + _string_field(_ID_TAG, request.request_id)
        raw: list[Buffer] = []
        for tensor in request.inputs:
            if not tensor.parameters:
                raw += (_RAW_INPUT_TAG + _varint(len(tensor.data)), tensor.data)

        def encode(timeout_us: int | None) -> tuple[tuple[Buffer, ...], Mapping[str, str]]:
            timed = b"" if timeout_us is None else _timeout(timeout_us)
            return (head, timed, *raw), {}

        read = _reader(service_pb2.ModelInferResponse, lambda message: _outputs(message, request), origin)
        return Call(f"{_SERVICE}ModelInfer", read, origin, "infer", encode)

    def stream(self, request: InferRequest, origin: Origin) -> Call[dict[str, Array]]:
        """See `Wire.stream`."""

        def parse(message: Any) -> dict[str, Array]:
            if message.error_message:
                raise error_in_stream(message.error_message, origin)
            return _outputs(message.infer_response, request)

        read = _reader(service_pb2.ModelStreamInferResponse, parse, origin)
        return Call(f"{_SERVICE}ModelStreamInfer", read, origin, "stream", self.infer(request, origin).encode)

    def _head(self, request: InferRequest) -> bytes:
        """A request without its id and its bytes; kept, as requests of the same tensors have the same."""
        if request.parameters or request.placed is not None:
            head: bytes = _infer_message(request).SerializeToString()
            return head
        names = tuple((output.name, output.classes) for output in request.outputs)
        look = (request.model, request.version, names, *[(t.name, t.datatype, t.shape) for t in request.inputs])
        kept = self._heads.get(look)
        if kept is None:
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            kept = self._heads[look] = _infer_message(request).SerializeToString()
        return kept


def _infer_message(request: InferRequest) -> Any:
    message = service_pb2.ModelInferRequest(
        model_name=request.model,
        model_version=request.version,
        inputs=[
            service_pb2.ModelInferRequest.InferInputTensor(
                name=tensor.name,
                datatype=tensor.datatype,
                shape=tensor.shape,
                parameters=_parameters(tensor.parameters) if tensor.parameters else None,
            )
            for tensor in request.inputs
        ],
    )
    for output in request.outputs:
        classes = {"classification": output.classes} if output.classes else {}
        message.outputs.add(name=output.name, parameters=_parameters({**output.parameters, **classes}))
    for name, parameter in _parameters(request.parameters).items():
        message.parameters[name].CopyFrom(parameter)
    return message


def _parameters(values: Mapping[str, Parameter]) -> dict[str, Any]:
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    return {name: service_pb2.InferParameter(**{kinds[type(value)]: value}) for name, value in values.items()}


def _timeout(microseconds: int) -> bytes:
    """A message with `parameters["timeout"]` and nothing else."""
    value = _INT64_TAG + _varint(microseconds)
    entry = _TIMEOUT_KEY + _varint(len(value)) + value
    return _PARAMETERS_TAG + _varint(len(entry)) + entry


def _string_field(tag: bytes, text: str) -> bytes:
    data = text.encode()
    return tag + _varint(len(data)) + data


def _call(rpc: str, operation: str, message: Any, parse: Callable[[Any], T], origin: Origin) -> Call[T]:
    body = (message.SerializeToString(),)
    message_type = getattr(service_pb2, f"{rpc}Response")
    return Call(_SERVICE + rpc, _reader(message_type, parse, origin), origin, operation, lambda _: (body, {}))


def _reader(message_type: Any, parse: Callable[[Any], T], origin: Origin) -> Callable[[Response], T]:
    def read(response: Response) -> T:
        if response.status != "OK":
            raise error_for(response.status, response.message, origin)
        return _parsed(lambda: parse(message_type.FromString(response.body)), origin)

    return read


def _parsed(parse: Callable[[], T], origin: Origin) -> T:
    try:
        return parse()
    except (DecodeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ServerError(
            f"the answer is not KServe v2: {error}", "check that the address leads to a KServe v2 server", origin
        ) from error


def _varint(number: int) -> bytes:
    """A protobuf varint: 7 bits a byte, low ones first, the high bit set on all but the last."""
    if number <= 0x7F:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _nothing(_message: Any) -> None:
    return None


def _metadata(message: Any) -> ModelMetadata:
    def specs(tensors: Any) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec.described(tensor.name, tensor.datatype, tensor.shape) for tensor in tensors)

    return ModelMetadata(
        message.name, tuple(message.versions), message.platform, specs(message.inputs), specs(message.outputs)
    )


def _limits(message: Any) -> ModelLimits:
    config = message.config
    optional = frozenset(tensor.name for tensor in config.input if tensor.optional)
    parameters = {name: parameter.string_value for name, parameter in config.parameters.items()}
    return ModelLimits(
        int(config.max_batch_size), optional, bool(config.model_transaction_policy.decoupled), parameters
    )


def _as_dict(message: Any) -> dict[str, Any]:
    """A message as the JSON that Triton sends over HTTP."""
    entry: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return entry


def _statistics(message: Any) -> tuple[ModelStatistics, ...]:
    return tuple(ModelStatistics.from_json(entry) for entry in _as_dict(message)["model_stats"])


def _repository(message: Any) -> tuple[RepositoryEntry, ...]:
    return tuple(
        RepositoryEntry(model.name, model.version, model.state.rpartition(".")[2], model.reason)
        for model in message.models
    )


def _outputs(message: Any, request: InferRequest) -> dict[str, Array]:
    # Triton sends an entry for each output, in their order, empty for those in shared memory. Other servers may send
    # none, and KServe's own sends some outputs raw and others not.
    all_raw = len(message.raw_output_contents) == len(message.outputs)
    raw = iter(message.raw_output_contents)
    elsewhere = request.elsewhere if request.placed is not None else ()
    outputs: dict[str, Array] = {}
    for tensor in message.outputs:
        typed = not all_raw and tensor.HasField("contents")
        data = None if typed else next(raw, None)
        if request.placed is not None and tensor.name in elsewhere:
            outputs[tensor.name] = request.placed(tensor.name, tensor.datatype, tuple(tensor.shape))
        elif data is None:
            values = getattr(tensor.contents, _CONTENTS[tensor.datatype])
            outputs[tensor.name] = from_contents(values, tensor.datatype, tensor.shape)
        else:
            outputs[tensor.name] = decode(data, tensor.datatype, tensor.shape)
    return outputs
