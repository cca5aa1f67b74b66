"""The nouns of the client, and the seam between what does no I/O and what does.

::

    operation            what the caller wants, `Client.infer` for example: a generator that yields calls
    └── call             one exchange that the protocol knows, and how its response is read; a `Wire` makes it
        └── attempt      one try of a call at one server; another may follow a failed one
            ├── request  the bytes and headers that the attempt sends
            └── response the status, headers and bytes that come back, or why nothing came

All but the attempt are here: the engine makes it, in `_engine.effects`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from .device_array import DeviceArray
from .errors import CLIENT_CLOSED, NO_RESPONSE, Origin
from .metadata import ModelLimits, ModelMetadata, ModelStatistics, RepositoryEntry
from .tensors import Array, Buffer

if TYPE_CHECKING:
    from .._engine.servers import Server

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
# Triton's and KServe's name for the extension of tensors in binary over HTTP.
BINARY = "binary_tensor_data"
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
NO_PARAMETERS: Mapping[str, Any] = MappingProxyType({})


def _no_headers() -> Mapping[str, str]:
    return NO_HEADERS


def no_parameters() -> Mapping[str, Any]:
    """The default of a field: nothing, and not a new dictionary each time."""
    return NO_PARAMETERS


# A request makes about ten of these, after a wait in which the processor's caches went cold: they have slots and
# are not frozen, which would make each of them three times as dear. Nobody changes them all the same.
@dataclass(slots=True)
class Response:
    """What came back for a `Request`.

    Attributes:
        status: An HTTP status code or the name of a gRPC status; `NO_CONNECTION`, `DEADLINE_EXCEEDED` or
            `CLIENT_CLOSED` where nothing came from a server.
        body: What the server sent; empty where it sent nothing.
        message: What is known about a failure outside the body.
        headers: HTTP's, whatever the case of their names; a failed call's trailing metadata over gRPC.
    """

    status: int | str
    body: bytes = b""
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=_no_headers)


def idle_response(seconds: float | None) -> Response:
    """The response of a stream on which the server sends nothing more."""
    return Response(NO_RESPONSE, message=f"idle_timeout={seconds:g} s")


def closed_response() -> Response:
    """The response of a call whose client was closed meanwhile."""
    return Response(CLIENT_CLOSED, message="it was closed during the call")


# A message in pieces, so that a tensor's own memory is one of them (empty where HTTP sends a GET), and HTTP's
# headers.
Encoded = tuple[tuple[Buffer, ...], Mapping[str, str]]


@dataclass(slots=True)
class Call(Generic[T_co]):
    """One exchange with a server: how its request is encoded, and how its response is read.

    Attributes:
        target: An RPC's full name, or a path with the endpoint's own in front.
        read: Turns the response into the result; raises a `TritonkitClientError` where the response is a failure.
        origin: The endpoint, model and request id that an error names.
        operation: Its name for events: ``infer``, ``metadata``, ...
        encode: Returns the message, given the microseconds after which nobody waits for the response any more (None: no
            limit). Each attempt encodes anew, as less time is left then.
        method: HTTP's.
        idempotent: Whether it may be sent again without being sure that it was not received.
        server: The one server that may get it; None for any.
    """

    target: str
    read: Callable[[Response], T_co]
    origin: Origin
    operation: str
    encode: Callable[[int | None], Encoded]
    method: str = "POST"
    idempotent: bool = True
    server: Server | None = None


@dataclass(frozen=True)
class SharedOperation:
    """A part of an operation that runs only once for all callers who need it at the same time.

    Attributes:
        key: What these callers have in common.
        start: Starts it; its result, or its error, is everybody's.
        origin: What the error of this caller names.
    """

    key: Hashable
    start: Callable[[], Operation[Any]]
    origin: Origin


# It yields calls, is sent their results (or thrown their errors), and returns.
Operation = Generator[Call[Any] | SharedOperation, Any, T]


@dataclass(slots=True)
class Request:
    """What one attempt of a call sends; ``timeout`` in seconds, None for no limit; ``idempotent`` as in `Call`;
    ``idle_s``: how long a stream may be without a response.
    """

    target: str
    method: str
    body: tuple[Buffer, ...]
    headers: Mapping[str, str]
    timeout: float | None
    idempotent: bool = True
    idle_s: float | None = None


@dataclass(slots=True)
class Tensor:
    """One input, encoded.

    Attributes:
        name, datatype, shape: As in KServe v2.
        data: Its bytes; empty where they lie in shared memory or on a GPU.
        parameters: Where the bytes lie in shared memory.
        device: The array on a GPU that holds the bytes; None in a request that is sent.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer
    parameters: Mapping[str, str | int] = field(default_factory=no_parameters)
    device: DeviceArray | None = None

    @property
    def size(self) -> int:
        """In bytes, wherever they lie."""
        return len(self.data) if self.device is None else self.device.size


@dataclass(frozen=True)
class RequestedOutput:
    """An output that a request names, and its place in shared memory, if any; ``classes``: only so many of its best
    classes (0: the tensor itself).
    """

    name: str
    parameters: Mapping[str, str | int] = field(default_factory=dict)
    classes: int = 0


Parameter = str | int | float | bool
# Names of outputs; or how many of its best classes to get of each, None for all of its numbers.
Outputs = Sequence[str] | Mapping[str, int | None]


@dataclass(slots=True)
class InferRequest:
    """One inference, checked and encoded; no ``outputs`` means all of them."""

    model: str
    version: str
    request_id: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=no_parameters)
    # Reads an output that the server was told to leave in shared memory: name, datatype, shape.
    placed: Callable[[str, str, tuple[int, ...]], Array] | None = None
    # The server does not know the extension for tensors in binary over HTTP.
    plain: bool = False

    @property
    def elsewhere(self) -> frozenset[str]:
        """The outputs that come without bytes, as they are left in shared memory; the response does not say so."""
        return frozenset(output.name for output in self.outputs if output.parameters)


# The kinds of memory that a server on this machine can share.
Memory = Literal["system", "cuda"]


@dataclass(frozen=True)
class Region:
    """A piece of memory that is registered with a server.

    Attributes:
        name: What requests call it.
        size: In bytes.
        memory: Which kind.
        key: Of system memory, its name for shm_open(3).
        handle: Of CUDA memory, its IPC handle.
        device: Of CUDA memory, the number of its GPU.
    """

    name: str
    size: int
    memory: Memory = "system"
    key: str = ""
    handle: bytes = b""
    device: int = 0

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return "this machine's /dev/shm" if self.memory == "system" else f"the memory of GPU {self.device}"


class Wire(Protocol):
    """A protocol without its connection: every operation as a call.

    Attributes:
        always_binary: Tensors travel as bytes whatever the server; otherwise only where it has the extension for it.
        streams_tensors: A stream may have tensors of any shape; otherwise only a language model's texts and numbers.
    """

    always_binary: bool
    streams_tensors: bool

    def live(self, origin: Origin) -> Call[bool]:
        """Whether the server runs."""

    def ready(self, origin: Origin) -> Call[bool]:
        """Whether the server and its models are ready."""

    def model_ready(self, version: str, origin: Origin) -> Call[bool]:
        """Whether one model is ready; False too where there is no such model."""

    def metadata(self, version: str, origin: Origin) -> Call[ModelMetadata]:
        """A model's tensors, without what only its configuration says."""

    def limits(self, version: str, origin: Origin) -> Call[ModelLimits]:
        """What only a model's configuration says."""

    def extensions(self, origin: Origin) -> Call[tuple[str, ...]]:
        """What the server has beyond KServe v2."""

    def config(self, version: str, origin: Origin) -> Call[dict[str, Any]]:
        """A model's whole configuration."""

    def statistics(self, version: str, origin: Origin) -> Call[tuple[ModelStatistics, ...]]:
        """The server's counters, one entry a version."""

    def repository(self, origin: Origin) -> Call[tuple[RepositoryEntry, ...]]:
        """Every model that the server's repositories hold."""

    def load(self, config: str, origin: Origin) -> Call[None]:
        """Load or reload a model; ``config`` is JSON that replaces its configuration, if not empty."""

    def unload(self, dependents: bool, origin: Origin) -> Call[None]:
        """Unload a model."""

    def infer(self, request: InferRequest, origin: Origin) -> Call[dict[str, Array]]:
        """One inference; the result is in the order of the server's answer."""

    def stream(self, request: InferRequest, origin: Origin) -> Call[dict[str, Array]]:
        """One inference with any number of responses, each of which the call reads."""

    def register(self, region: Region, origin: Origin) -> Call[None]:
        """Make a region of shared memory known to the server."""

    def unregister(self, region: str, memory: Memory, origin: Origin) -> Call[None]:
        """The opposite, by its name."""

    def regions(self, memory: Memory, origin: Origin) -> Call[tuple[str, ...]]:
        """The names of the regions of a kind that the server knows."""
