"""A typed, checked client for NVIDIA Triton: numpy arrays in, numpy arrays out, over gRPC or HTTP alike."""

from ._async_client import AsyncClient
from ._async_model import AsyncModel, AsyncSequence
from ._base import BaseClient
from ._client import Client
from ._engine.events import RequestEvent, ResponseEvent, RetryEvent
from ._engine.hedging import Hedge
from ._engine.retry import Retry
from ._engine.traffic import Traffic
from ._language.generation import Delta, Generation, TokenLogprob, Usage
from ._language.text_streams import AsyncTextStream, TextStream
from ._memory.shared_memory import CudaSharedMemory, SharedMemory
from ._model import Model, Sequence
from ._protocol.classes import Class
from ._protocol.errors import (
    ClientClosed,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidEndpoint,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    NotSupported,
    QueueFull,
    ServerBusy,
    ServerError,
    TritonkitClientError,
    Unauthenticated,
)
from ._protocol.metadata import Duration, ModelMetadata, ModelStatistics, RepositoryEntry, TensorSpec
from ._transport.security import TLS

__all__ = [
    "TLS",
    "AsyncClient",
    "AsyncModel",
    "AsyncSequence",
    "AsyncTextStream",
    "BaseClient",
    "Class",
    "Client",
    "ClientClosed",
    "ConnectionFailed",
    "CudaSharedMemory",
    "DeadlineExceeded",
    "Delta",
    "Duration",
    "Generation",
    "Hedge",
    "InvalidEndpoint",
    "InvalidInput",
    "Model",
    "ModelMetadata",
    "ModelNotFound",
    "ModelNotReady",
    "ModelStatistics",
    "NotSupported",
    "QueueFull",
    "RepositoryEntry",
    "RequestEvent",
    "ResponseEvent",
    "Retry",
    "RetryEvent",
    "Sequence",
    "ServerBusy",
    "ServerError",
    "SharedMemory",
    "TensorSpec",
    "TextStream",
    "TokenLogprob",
    "Traffic",
    "TritonkitClientError",
    "Unauthenticated",
    "Usage",
]
