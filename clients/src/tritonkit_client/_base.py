"""The common base of both clients: their parts and the checks of their arguments, everything but the waiting."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ._engine.effects import Deadline, Effects
from ._engine.engine import Engine
from ._engine.events import EventHooks, Hooks
from ._engine.hedging import Hedge
from ._engine.operations import Inference, Operations
from ._engine.retry import Retry
from ._engine.servers import Server, Servers
from ._memory.shared_memory import Arena, CudaSharedMemory, SharedMemory
from ._pickling import check_picklable, remade
from ._protocol.calls import NO_PARAMETERS, Operation, Outputs, Parameter
from ._protocol.errors import NO_CONNECTION, ClientClosed, InvalidInput, Origin, error_for
from ._protocol.grpc_wire import GrpcWire
from ._protocol.http_wire import HttpWire
from ._protocol.metadata import ModelMetadata
from ._protocol.tensors import DTYPES
from ._transport.endpoint import Endpoint, parse_endpoint
from ._transport.security import TLS, Credentials, Headers, Token, checked_headers

T = TypeVar("T")

# Longer than one inference of a served model should take, shorter than a person's patience.
_DEFAULT_TIMEOUT_S = 30.0
# Thirty years; the clocks of sockets and of gRPC cannot count much further.
_FOREVER_S = 1e9
COMPRESSIONS = (None, "gzip", "deflate")


class BaseClient:
    """What `Client` and `AsyncClient` take and share.

    Args:
        endpoint: Where the servers are; all forms behave the same:

            - ``grpc://host[:port]`` or ``http://host[:port][/path]``, encrypted as ``grpcs://`` and ``https://``;
            - ``grpc://a:8001,b:8001``: several servers, each request to the one with the fewest in flight;
            - ``dns:///name:8001`` or ``dns+http://name:8000``: all addresses of a name, looked up again and again.
        timeout: Seconds that a call may take altogether, from the call to its result, retries included;
            ``math.inf`` for no limit.
        retry: How often a failed call is sent again, and when; None for never.
        hedge: When a second server is asked as well; None for never.
        tls: How ``grpcs://`` and ``https://`` are checked; the system's authorities where it is not given.
        token: A bearer token, or a function that makes one; it is called for every request.
        headers: Headers (gRPC metadata) for every request, or a function that makes them.
        event_hooks: Functions to call, by kind: ``{"request": [...], "response": [...], "retry": [...]}``; or
            several such mappings, those of `tritonkit_client.prometheus` and `tritonkit_client.opentelemetry`.
        compression: ``gzip`` or ``deflate``; worth it for text over slow networks, hardly ever for tensors.
        shared_memory: Pass large tensors to servers on this machine through ``/dev/shm`` (`SharedMemory`) or a GPU's
            memory (`CudaSharedMemory`, which inputs may be in already); None for never.
        models: Models that are not looked up on the server: what `ModelMetadata` declares, of every version, is checked
            instead. A `TensorSpec` without a datatype takes that of the array, one without a shape any shape, and a
            `ModelMetadata` without inputs any inputs.

    Raises:
        InvalidEndpoint: The address cannot be used.
        InvalidInput: An argument cannot.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        timeout: float = _DEFAULT_TIMEOUT_S,
        retry: Retry | None = Retry(),  # noqa: B008 -- frozen
        hedge: Hedge | None = None,
        tls: TLS | None = None,
        token: Token | None = None,
        headers: Headers | None = None,
        event_hooks: EventHooks | None = None,
        compression: str | None = None,
        shared_memory: SharedMemory | CudaSharedMemory | None = None,
        models: Sequence[ModelMetadata] = (),
    ) -> None:
        if event_hooks is not None and not isinstance(event_hooks, Mapping):
            event_hooks = tuple(event_hooks)
        # Before any other local name exists: a pickle makes the client again from these arguments.
        self._arguments = {name: value for name, value in locals().items() if name != "self"}
        self._endpoints = parse_endpoint(endpoint)
        self._origin = Origin(str(self._endpoints))
        self._timeout_s = checked_timeout(timeout, self._origin)
        self._credentials = Credentials(token, headers)
        if compression not in COMPRESSIONS:
            raise InvalidInput(f"compression={compression!r} is unknown", "use 'gzip', 'deflate' or None")
        if tls is not None and not all(address.tls for address in self._endpoints.all):
            raise InvalidInput("tls= is given for a connection that is not encrypted", "use grpcs:// or https://")
        self._hooks = Hooks(event_hooks)
        wire = GrpcWire() if self._endpoints.protocol == "grpc" else HttpWire(self._endpoints.all[0].path)
        self._arena = Arena(shared_memory, self._pin) if shared_memory else None
        self._operations = Operations(wire, self._origin.endpoint, self._arena, checked_models(models))
        # A name that stands for several servers becomes them at the first call.
        known = () if self._endpoints.resolve else self._endpoints.all
        # Not a method of this object: the servers are watched by a thread, which must not keep the client alive.
        self._servers = Servers(known, partial(self._connect, tls, compression))
        self._engine = Engine(
            wire,
            self._endpoints,
            self._servers,
            retry or Retry(attempts=1),
            self._hooks,
            hedge,
            self._credentials.refreshes,
        )
        self._closed = False
        self._pid = os.getpid()
        self._opened()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments only: another process makes a client from them, which connects there.

        Raises:
            ClientClosed: The client is closed.
            InvalidInput: An argument cannot be pickled.
        """
        if self._closed:
            raise ClientClosed("the client is closed", "make a new one", self._origin)
        check_picklable(self._arguments, self._origin)
        return remade, (type(self), self._arguments)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._origin.endpoint!r}, timeout={self._timeout_s:g})"

    @staticmethod
    def _connect(tls: TLS | None, compression: str | None, endpoint: Endpoint) -> Any:
        """A transport to one server."""
        raise NotImplementedError

    def _opened(self) -> None:
        """Set up what only this kind of client has."""

    def _check(self) -> None:
        """Refuse to work where that cannot end well.

        Raises:
            ClientClosed: The client is closed, or it was made before a fork.
        """
        if self._closed:
            raise ClientClosed("the client is closed", "make a new one", self._origin)
        if self._pid != os.getpid():
            raise ClientClosed(
                f"the client was made in process {self._pid}, this is {os.getpid()}; connections do not survive a fork",
                "make a client in each process, after the fork",
                self._origin,
            )

    def _effects(
        self, operation: Operation[T], timeout: float | None, headers: Mapping[str, str] | None = None
    ) -> Effects[T]:
        self._check()
        return self._engine.operate(operation, self._deadline(timeout), checked_headers(headers))

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout_s if timeout is None else checked_timeout(timeout, self._origin))

    def _idle_s(self, idle_timeout: float | None) -> float | None:
        limit = math.inf if idle_timeout is None else checked_timeout(idle_timeout, self._origin, "idle_timeout")
        return None if math.isinf(limit) else limit

    def _inference(
        self,
        model: str,
        inputs: Mapping[str, npt.ArrayLike] | None,
        arrays: Mapping[str, npt.ArrayLike],
        version: str = "",
        outputs: Outputs | None = None,
        request_id: str | None = None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> Inference:
        if request_id is not None and not isinstance(request_id, str):
            origin = Origin(self._origin.endpoint, model)
            raise InvalidInput(f"request_id is a {type(request_id).__name__}", "give a string", origin)
        make_origin = partial(Origin, self._origin.endpoint, model, request_id or "")
        values = arrays
        if inputs is not None:
            if not isinstance(inputs, Mapping):
                fix = "give each by its name: infer(model, name=value), or infer(model, {name: value})"
                raise InvalidInput(f"the inputs are a {type(inputs).__name__}, without a name", fix, make_origin())
            for name in arrays.keys() & inputs.keys():
                fix = "give it either in the mapping or as a keyword"
                raise InvalidInput(f"input {name!r} is given twice", fix, make_origin())
            values = {**inputs, **arrays}
        checked = _checked_parameters(parameters, make_origin()) if parameters else NO_PARAMETERS
        names = None if outputs is None else checked_outputs(outputs, make_origin())
        return Inference(model, values, version, names, request_id, checked)

    def _pin(self, model: str) -> Server:
        """The server for a sequence: the one that would get the next request."""
        server = self._servers.acquire(model, ())
        if server is None:
            raise error_for(NO_CONNECTION, "the name has no address", Origin(self._origin.endpoint, model))
        self._servers.release(server)
        return server

    def _check_single(self, verb: str) -> None:
        """Raises InvalidInput where there can be several servers, as the operation would reach only one."""
        if self._endpoints.many:
            raise InvalidInput(
                f"{verb} would reach only one of the servers at {self._origin.endpoint}",
                "make a client for each of them",
                self._origin,
            )


def checked_timeout(timeout: float, origin: Origin, name: str = "timeout") -> float:
    """A timeout as a number; infinite above thirty years.

    Raises:
        InvalidInput: It is not a positive number.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float, np.floating, np.integer)) or not timeout > 0:
        raise InvalidInput(
            f"{name}={timeout!r} is not a positive number of seconds", "use math.inf for no limit", origin
        )
    return float(timeout) if timeout < _FOREVER_S else math.inf


def checked_in_flight(number: int, origin: Origin) -> int:
    """How many requests may be in flight.

    Raises:
        InvalidInput: It is not a positive whole number.
    """
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InvalidInput(f"max_in_flight={number!r} is not a positive whole number", "use 32, say", origin)
    return number


def checked_models(models: Iterable[ModelMetadata]) -> dict[str, ModelMetadata]:
    """The declared models by name.

    Raises:
        InvalidInput: An element is not a `ModelMetadata`, two have the same name, or a datatype is unknown.
    """
    declared: dict[str, ModelMetadata] = {}
    for model in models:
        if not isinstance(model, ModelMetadata):
            fix = "give a list of ModelMetadata(name, inputs=(TensorSpec(name, datatype, shape),))"
            raise InvalidInput(f"models holds a {type(model).__name__}", fix)
        if model.name in declared:
            raise InvalidInput(f"model {model.name!r} is declared twice", "give one ModelMetadata for each name")
        for spec in (*model.inputs, *model.outputs):
            if spec.datatype and spec.datatype not in DTYPES:
                fix = f"use one of {', '.join(DTYPES)}, or '' for the array's own"
                raise InvalidInput(f"{spec.name!r} of model {model.name!r} is declared as {spec.datatype!r}", fix)
        declared[model.name] = model
    return declared


def checked_outputs(outputs: Outputs | None, origin: Origin) -> Outputs | None:
    """The outputs to get, read once, as they may be an iterator. A string passes: `check_outputs` refuses it.

    Raises:
        InvalidInput: A name is not a string, or a number of classes is not a positive whole number.
    """
    if outputs is None or isinstance(outputs, str):
        return outputs
    names = tuple(outputs)
    for name in names:
        if not isinstance(name, str):
            raise InvalidInput(f"outputs holds a {type(name).__name__}", "give a list of output names", origin)
    if not isinstance(outputs, Mapping):
        return names
    for name, classes in outputs.items():
        if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int) or classes < 1):
            raise InvalidInput(
                f"outputs has {classes!r} for {name!r}",
                "give the number of best classes to get, or None for the whole output",
                origin,
            )
    return dict(outputs)


# The parameters that the clients set themselves, and how a caller sets them.
_RESERVED = {
    "timeout": "timeout=",
    "binary_data_output": "nothing: outputs always come in binary",
    "sequence_id": "client.sequence(model)",
    "sequence_start": "client.sequence(model)",
    "sequence_end": "client.sequence(model)",
}


def _checked_parameters(parameters: Mapping[str, Parameter], origin: Origin) -> Mapping[str, Parameter]:
    if not isinstance(parameters, Mapping):
        raise InvalidInput(f"parameters is a {type(parameters).__name__}", "give a mapping", origin)
    for name, value in parameters.items():
        if not isinstance(name, str):
            raise InvalidInput(f"a parameter's name is a {type(name).__name__}", "give a string", origin)
        if name in _RESERVED:
            raise InvalidInput(f"parameter {name!r} is not the caller's to set", f"use {_RESERVED[name]}", origin)
        if type(value) not in (str, int, float, bool):
            raise InvalidInput(
                f"parameter {name!r} is a {type(value).__name__}", "use a str, an int, a float or a bool", origin
            )
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise InvalidInput(f"parameter {name!r} does not fit in 64 bits", "send it as a string", origin)
    return parameters
