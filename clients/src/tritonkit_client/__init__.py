"""A typed, checked client for NVIDIA Triton: numpy arrays in, numpy arrays out, over gRPC or HTTP alike."""

from ._client import Client
from ._errors import (
    ClientClosed,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidEndpoint,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    QueueFull,
    ServerBusy,
    ServerError,
    TritonkitClientError,
)
from ._metadata import Duration, ModelMetadata, ModelStatistics, TensorSpec

__all__ = [
    "Client",
    "ClientClosed",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Duration",
    "InvalidEndpoint",
    "InvalidInput",
    "ModelMetadata",
    "ModelNotFound",
    "ModelNotReady",
    "ModelStatistics",
    "QueueFull",
    "ServerBusy",
    "ServerError",
    "TensorSpec",
    "TritonkitClientError",
]
