"""The client: picks a wire and a transport for an address, and drives the operations over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TypeVar

import numpy.typing as npt

from ._calls import Deadline, Flow, Transport
from ._endpoint import Endpoint, parse_endpoint
from ._errors import DEADLINE_EXCEEDED, ClientClosed, InvalidInput, Origin, TritonkitClientError
from ._flows import Flows
from ._grpc import GrpcTransport
from ._grpc_wire import GrpcWire
from ._http import HttpTransport
from ._http_wire import HttpWire
from ._metadata import ModelMetadata, ModelStatistics
from ._tensors import Array

T = TypeVar("T")

# Longer than one inference of a served model should take, shorter than a person's patience.
_DEFAULT_TIMEOUT_S = 30.0


class Client:
    """A synchronous client of one Triton server.

    Thread-safe: share one between threads. It connects at the first call, and again once the server is back.

    Args:
        endpoint: ``grpc://host[:port]`` or ``http://host[:port][/path]``; both behave the same.
        timeout: Seconds that a call may take altogether, from the call to its result; ``math.inf`` for no
            limit.

    Raises:
        InvalidEndpoint: The address cannot be used.
        InvalidInput: The timeout is not a positive number.

    Every method raises `ConnectionFailed` where nobody answers, `DeadlineExceeded` after its timeout, and
    `ClientClosed` after `close`.

    Example::

        with Client("grpc://127.0.0.1:8001", timeout=5.0) as client:
            out = client.infer("efficientnet_lite0", image=batch)
    """

    def __init__(self, endpoint: str, *, timeout: float = _DEFAULT_TIMEOUT_S) -> None:
        parsed = parse_endpoint(endpoint)
        self._origin = Origin(str(parsed))
        self._timeout_s = _checked_timeout(timeout, self._origin)
        self._flows, self._transport = _open(parsed)
        self._closed = False

    def __repr__(self) -> str:
        return f"Client({self._origin.endpoint!r}, timeout={self._timeout_s:g})"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; every later call raises `ClientClosed`. A second time does nothing."""
        self._closed = True
        self._transport.close()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, npt.ArrayLike] | None = None,
        /,
        *,
        model_version: str = "",
        outputs: Sequence[str] | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        **arrays: npt.ArrayLike,
    ) -> dict[str, Array]:
        """Run a model once.

        Args:
            model: Its name.
            inputs: Inputs by name; the way to pass one that is called like an argument of this method.
            model_version: A version number as a string; empty for the one that the server chooses.
            outputs: Which outputs to get; None for all.
            request_id: What the server's log and an error call this request; None for a generated one.
            timeout: Seconds for this call instead of the client's, the first fetch of metadata included.
            **arrays: Inputs by name. An array is used where numpy casts its dtype safely to the input's;
                plain Python numbers, strings, bytes and lists of them where the input's type holds them.

        Returns:
            Outputs by name, in the server's order, with the shapes and dtypes that the server sent: read-only
            views of the answer (``.copy()`` to write to one); BYTES as an object array of ``bytes``, BF16 as
            ``ml_dtypes.bfloat16``.

        Raises:
            InvalidInput: A name, a dtype, a shape or a batch does not fit the model, here or in the server's
                eyes.
            ModelNotFound: The server has no such model or version.
            ModelNotReady: It cannot serve the model now.
            QueueFull: The model's queue is full.
            ServerBusy: The request waited in the queue for longer than the model allows.
            ServerError: The model or the server failed.
        """
        values = dict(inputs or {})
        for name in arrays.keys() & values.keys():
            raise InvalidInput(
                f"input {name!r} is given twice",
                "give it either in the mapping or as a keyword",
                Origin(self._origin.endpoint, model, request_id or ""),
            )
        flow = self._flows.infer(model, {**values, **arrays}, model_version, outputs, request_id)
        return self._run(flow, timeout)

    def metadata(self, model: str, *, model_version: str = "", timeout: float | None = None) -> ModelMetadata:
        """What a model is. Fetched once a model; again when the server or an input contradicts it.

        Raises:
            ModelNotFound: The server has no such model or version.
            ModelNotReady: It cannot serve the model now.
        """
        return self._run(self._flows.metadata(model, model_version), timeout)

    def statistics(
        self, model: str, *, model_version: str = "", timeout: float | None = None
    ) -> tuple[ModelStatistics, ...]:
        """What the server counted for a model since it loaded it, one entry a version.

        The server counts a request a moment after it has answered it.

        Raises:
            ModelNotFound: The server has no such model or version.
            ModelNotReady: It cannot serve the model now.
        """
        return self._run(self._flows.statistics(model, model_version), timeout)

    def live(self, *, timeout: float | None = None) -> bool:
        """Whether the server says that it runs."""
        return self._run(self._flows.live(), timeout)

    def ready(self, *, timeout: float | None = None) -> bool:
        """Whether the server says that it and all of its models are ready."""
        return self._run(self._flows.ready(), timeout)

    def model_ready(self, model: str, *, model_version: str = "", timeout: float | None = None) -> bool:
        """Whether the server says that a model is ready; False too where it has no such model."""
        return self._run(self._flows.model_ready(model, model_version), timeout)

    def _run(self, flow: Flow[T], timeout: float | None) -> T:
        """Drive an operation: send each call it yields, give back the result or throw in the error."""
        if self._closed:
            raise ClientClosed("the client is closed", "make a new Client", self._origin)
        deadline = Deadline(self._timeout_s if timeout is None else _checked_timeout(timeout, self._origin))
        try:
            call = next(flow)
            while True:
                left = deadline.remaining()
                reply = deadline.reply() if left == 0 else self._transport.send(call, left)
                if reply.status == DEADLINE_EXCEEDED:
                    reply = deadline.reply()
                try:
                    result = call.read(reply)
                except TritonkitClientError as error:
                    call = flow.throw(error)
                else:
                    call = flow.send(result)
        except StopIteration as done:
            value: T = done.value
            return value


def _open(endpoint: Endpoint) -> tuple[Flows, Transport]:
    if endpoint.protocol == "grpc":
        return Flows(GrpcWire(), str(endpoint)), GrpcTransport(endpoint)
    return Flows(HttpWire(endpoint.path), str(endpoint)), HttpTransport(endpoint)


def _checked_timeout(timeout: float, origin: Origin) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise InvalidInput(
            f"timeout={timeout!r} is not a positive number of seconds", "use math.inf for no limit", origin
        )
    return float(timeout)
