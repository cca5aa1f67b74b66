"""KServe v2 over gRPC without a channel: operations to protobuf bytes, protobuf bytes to results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf import json_format
from tritonclient.grpc import service_pb2

from ._calls import Call, InferRequest, Reply
from ._errors import Origin, error_for
from ._metadata import ModelLimits, ModelMetadata, ModelStatistics, TensorSpec
from ._tensors import Array, Buffer, decode

T = TypeVar("T")

_SERVICE = "/inference.GRPCInferenceService/"
# Field 7 of ModelInferRequest, `repeated bytes raw_input_contents`: (7 << 3) | 2, a length-delimited field.
_RAW_INPUT_TAG = b"\x3a"


class GrpcWire:
    """The gRPC side of `_calls.Wire`."""

    def live(self, origin: Origin) -> Call[bool]:
        """See `Wire.live`."""
        return _call("ServerLive", service_pb2.ServerLiveRequest(), lambda answer: bool(answer.live), origin)

    def ready(self, origin: Origin) -> Call[bool]:
        """See `Wire.ready`."""
        return _call("ServerReady", service_pb2.ServerReadyRequest(), lambda answer: bool(answer.ready), origin)

    def model_ready(self, version: str, origin: Origin) -> Call[bool]:
        """See `Wire.model_ready`."""
        request = service_pb2.ModelReadyRequest(name=origin.model, version=version)
        return _call("ModelReady", request, lambda answer: bool(answer.ready), origin)

    def metadata(self, version: str, origin: Origin) -> Call[ModelMetadata]:
        """See `Wire.metadata`."""
        request = service_pb2.ModelMetadataRequest(name=origin.model, version=version)
        return _call("ModelMetadata", request, _metadata, origin)

    def limits(self, version: str, origin: Origin) -> Call[ModelLimits]:
        """See `Wire.limits`."""
        request = service_pb2.ModelConfigRequest(name=origin.model, version=version)
        return _call("ModelConfig", request, _limits, origin)

    def statistics(self, version: str, origin: Origin) -> Call[tuple[ModelStatistics, ...]]:
        """See `Wire.statistics`."""
        request = service_pb2.ModelStatisticsRequest(name=origin.model, version=version)
        return _call("ModelStatistics", request, _statistics, origin)

    def infer(self, request: InferRequest, origin: Origin) -> Call[dict[str, Array]]:
        """See `Wire.infer`.

        Tensors do not pass through protobuf, which would copy each of them twice: its encoding of a repeated
            field
        is the elements one after another, each as tag, length and bytes, wherever they stand in the message
        (https://protobuf.dev/programming-guides/encoding).
        """
        message = service_pb2.ModelInferRequest(
            model_name=request.model,
            model_version=request.version,
            id=request.request_id,
            inputs=[
                service_pb2.ModelInferRequest.InferInputTensor(
                    name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
                )
                for tensor in request.inputs
            ],
            outputs=[service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in request.outputs],
        )
        raw: list[Buffer] = []
        for tensor in request.inputs:
            raw += (_RAW_INPUT_TAG + _varint(len(tensor.data)), tensor.data)
        return _call("ModelInfer", message, _outputs, origin, raw)


def _call(
    rpc: str, message: Any, parse: Callable[[Any], T], origin: Origin, raw: list[Buffer] | None = None
) -> Call[T]:
    answer_type = getattr(service_pb2, f"{rpc}Response")

    def read(reply: Reply) -> T:
        if reply.status != "OK":
            raise error_for(reply.status, reply.message, origin)
        return parse(answer_type.FromString(reply.body))

    return Call(_SERVICE + rpc, read, (message.SerializeToString(), *(raw or ())))


def _varint(number: int) -> bytes:
    """A protobuf varint: 7 bits a byte, low ones first, the high bit set on all but the last."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _metadata(answer: Any) -> ModelMetadata:
    def specs(tensors: Any) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors)

    return ModelMetadata(
        answer.name, tuple(answer.versions), answer.platform, specs(answer.inputs), specs(answer.outputs)
    )


def _limits(answer: Any) -> ModelLimits:
    optional = frozenset(tensor.name for tensor in answer.config.input if tensor.optional)
    return ModelLimits(int(answer.config.max_batch_size), optional)


def _statistics(answer: Any) -> tuple[ModelStatistics, ...]:
    entries = json_format.MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return tuple(ModelStatistics.from_json(entry) for entry in entries["model_stats"])


def _outputs(answer: Any) -> dict[str, Array]:
    return {
        tensor.name: decode(raw, tensor.datatype, tensor.shape)
        for tensor, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }
