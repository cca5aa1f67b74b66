"""Every operation of a client as a generator of calls, with the cache of what the models are. No I/O.

A client of any kind drives these generators through the `Engine`.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from .._memory.cuda import on_host
from .._protocol.calls import (
    BINARY,
    Call,
    InferRequest,
    Operation,
    Outputs,
    Parameter,
    SharedOperation,
    Wire,
    no_parameters,
)
from .._protocol.classes import classified, requested_outputs
from .._protocol.errors import (
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    NotSupported,
    Origin,
    ServerError,
    TritonkitClientError,
    Unauthenticated,
)
from .._protocol.metadata import ModelLimits, ModelMetadata, ModelStatistics, RepositoryEntry, fix_for_missing
from .._protocol.tensors import Array
from .._protocol.validation import check_outputs, encode_inputs

if TYPE_CHECKING:
    from .._memory.shared_memory import Arena
    from .servers import Server


@dataclass(slots=True)
class Inference:
    """One inference as the caller describes it: neither checked nor encoded."""

    model: str
    values: Mapping[str, npt.ArrayLike]
    version: str = ""
    outputs: Outputs | None = None
    request_id: str | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=no_parameters)
    # For a sequence: its one server, and that none of its requests may be repeated.
    server: Server | None = None
    idempotent: bool = True


class Operations:
    """The operations over one wire, with the cache of what the models are.

    Safe to share between threads: the cache is written by whole values.

    Args:
        wire: The protocol.
        endpoint: The servers, for error messages.
        arena: Shared memory for tensors; None: they travel with the requests.
        declared: What the caller says of models, by name: these are not looked at.
    """

    def __init__(
        self,
        wire: Wire,
        endpoint: str,
        arena: Arena | None = None,
        declared: Mapping[str, ModelMetadata] = MappingProxyType({}),
    ) -> None:
        self.wire = wire
        self._declared = declared
        self._endpoint = endpoint
        self._arena = arena
        self._takes_device_arrays = arena is not None and arena.memory == "cuda"
        self._metadata: dict[tuple[str, str], ModelMetadata] = {}
        # Whether tensors must travel as JSON; None: not known yet.
        self._plain: bool | None = False if wire.always_binary else None
        # Unique among the clients of a server, so that its log and an error can be matched.
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def live(self) -> Operation[bool]:
        """Whether the server runs."""
        live: bool = yield self.wire.live(Origin(self._endpoint))
        return live

    def ready(self) -> Operation[bool]:
        """Whether the server and its models are ready."""
        try:
            ready: bool = yield self.wire.ready(Origin(self._endpoint))
        except ModelNotReady:  # other servers than Triton answer with this error instead of a "no"
            return False
        return ready

    def model_ready(self, model: str, version: str) -> Operation[bool]:
        """Whether one model is ready."""
        try:
            ready: bool = yield self.wire.model_ready(version, self.origin(model, version))
        except (ModelNotFound, ModelNotReady):  # other servers than Triton answer with an error instead of a "no"
            return False
        return ready

    def metadata(self, model: str, version: str) -> Operation[ModelMetadata]:
        """What a model is: as declared, else from the cache, else from the server."""
        origin = self.origin(model, version)
        cached = self._known(model, version)
        return cached if cached is not None else (yield from self._learn(version, origin))

    def config(self, model: str, version: str) -> Operation[dict[str, Any]]:
        """A model's configuration, as the server completed it."""
        origin = self.origin(model, version)
        try:
            config: dict[str, Any] = yield self.wire.config(version, origin)
        except ModelNotFound as error:
            yield from self._name_models(error, origin)
            raise
        return config

    def statistics(self, model: str, version: str) -> Operation[tuple[ModelStatistics, ...]]:
        """What the server counted for a model."""
        origin = self.origin(model, version)
        try:
            entries: tuple[ModelStatistics, ...] = yield self.wire.statistics(version, origin)
        except ModelNotFound:
            # Here Triton says the same of a model that is absent and of one that is not ready; the metadata
            # call raises the right one of the two.
            yield from self._fetch(version, origin)
            raise
        return entries

    def repository(self) -> Operation[tuple[RepositoryEntry, ...]]:
        """What the server's repositories hold."""
        entries: tuple[RepositoryEntry, ...] = yield self.wire.repository(Origin(self._endpoint))
        return entries

    def load(self, model: str, config: Mapping[str, Any] | None) -> Operation[None]:
        """Load or reload a model, and forget what it was."""
        origin = self.origin(model, "")
        try:
            yield replace(self.wire.load(json.dumps(config) if config else "", origin), idempotent=False)
        finally:
            self._forget(model)

    def unload(self, model: str, dependents: bool) -> Operation[None]:
        """Unload a model, and forget what it was."""
        origin = self.origin(model, "")
        try:
            yield replace(self.wire.unload(dependents, origin), idempotent=False)
        finally:
            self._forget(model)

    def infer(self, inference: Inference) -> Operation[dict[str, Array]]:
        """One inference; cached metadata that contradicts it is fetched anew and, if it changed, used."""
        origin = self.origin(inference.model, inference.version, self.request_id(inference))
        metadata = self._known(inference.model, inference.version)
        fresh = metadata is None or inference.model in self._declared
        if metadata is None:
            metadata = yield from self._learn(inference.version, origin)
        elif self._plain is None:
            yield from self._learn_extensions(origin)
        while True:
            try:
                request = self.encode_request(metadata, inference, origin)
                if self._arena is not None and inference.idempotent and not isinstance(inference.outputs, Mapping):
                    return (yield from self._arena.infer(self.wire, metadata, request, origin))
                outputs: dict[str, Array] = yield self._call(self.copy_to_host(request), inference, origin)
                return classified(outputs, request.outputs, origin)
            except ModelNotFound as error:
                yield from self._name_models(error, origin)
                raise
            except InvalidInput:
                # The model may have been reloaded since; only if it was not, the input is wrong.
                if fresh:
                    raise
                known, fresh = metadata, True
                metadata = yield from self._fetch(inference.version, origin)
                if metadata == known or not inference.idempotent:
                    raise

    def request_id(self, inference: Inference) -> str:
        """The caller's request id, or the next of this client's own."""
        return f"{self._prefix}-{next(self._numbers)}" if inference.request_id is None else inference.request_id

    def encode_request(self, metadata: ModelMetadata, inference: Inference, origin: Origin) -> InferRequest:
        """Check and encode an inference.

        Raises:
            InvalidInput: It does not fit the model, or this client.
        """
        inputs = encode_inputs(metadata, inference.values, origin)
        for tensor in inputs:
            if tensor.device is not None and not self._takes_device_arrays:
                raise InvalidInput(
                    f"input {tensor.name!r} of model {origin.model} is on a GPU, which this client does not read",
                    "make the client with shared_memory=CudaSharedMemory(), or copy the array to the host: .cpu() of a"
                    " PyTorch tensor, .get() of a CuPy array",
                    origin,
                )
        return InferRequest(
            model=origin.model,
            version=inference.version,
            request_id=origin.request_id,
            inputs=inputs,
            outputs=()
            if inference.outputs is None
            else requested_outputs(
                metadata, inference.outputs, check_outputs(metadata, inference.outputs, origin), origin
            ),
            parameters=inference.parameters,
            plain=bool(self._plain),
        )

    def copy_to_host(self, request: InferRequest) -> InferRequest:
        """A request that does not go through shared memory: its arrays on a GPU are copied to the host."""
        return on_host(request) if self._takes_device_arrays else request

    def origin(self, model: str, version: str, request_id: str = "") -> Origin:
        """The origin that an error will name.

        Raises:
            InvalidInput: The name or the version cannot be a model's.
        """
        origin = Origin(self._endpoint, model, request_id, version)
        if not model or not isinstance(model, str):
            problem = f"the model's name is a {type(model).__name__}" if model else "the model has no name"
            raise InvalidInput(problem, "give the name of a model", origin)
        if version and not isinstance(version, str):
            raise InvalidInput(
                f"{version!r} is not a version", "give it as a string, or nothing for the newest", origin
            )
        return origin

    def _known(self, model: str, version: str) -> ModelMetadata | None:
        return self._declared.get(model) or self._metadata.get((model, version))

    def _call(self, request: InferRequest, inference: Inference, origin: Origin) -> Call[dict[str, Array]]:
        call = self.wire.infer(request, origin)
        if not inference.idempotent:
            call.idempotent = False
            call.server = inference.server
        return call

    def _learn(self, version: str, origin: Origin) -> Operation[ModelMetadata]:
        """What a model is that is not known yet; of many callers at once, only one sends the calls."""
        key = (origin.model, version)

        def fetch() -> Operation[ModelMetadata]:
            known = self._metadata.get(key)  # another caller may have fetched it just before
            return known if known is not None else (yield from self._fetch(version, origin))

        metadata: ModelMetadata = yield SharedOperation(key, fetch, origin)
        return metadata

    def _fetch(self, version: str, origin: Origin) -> Operation[ModelMetadata]:
        try:
            described: ModelMetadata = yield self.wire.metadata(version, origin)
        except ModelNotFound as error:
            yield from self._name_models(error, origin)
            raise
        except NotSupported as error:
            if not version:
                error.fix += f"; where the server has no metadata, declare it: models=[ModelMetadata({origin.model!r})]"
            raise
        try:
            limits: ModelLimits = yield self.wire.limits(version, origin)
        except (NotSupported, InvalidInput):
            # The configuration is Triton's extension of KServe v2; other servers need not have it, and OpenVINO Model
            # Server calls its address a bad request.
            limits = ModelLimits(0, frozenset())
            yield from self._learn_extensions(origin)
        else:
            self._plain = False  # Triton has tensors in binary over HTTP too
        metadata = described.limited(limits)
        self._metadata[origin.model, version] = metadata
        return metadata

    def _name_models(self, error: ModelNotFound, origin: Origin) -> Operation[None]:
        """Add to an error which model was probably meant, by the server's index; if that call fails, add nothing."""
        try:
            entries: tuple[RepositoryEntry, ...] = yield replace(
                self.wire.repository(Origin(self._endpoint)), idempotent=False
            )
        except TritonkitClientError:  # restricted, or no server of this kind, or no time left
            return
        error.fix = fix_for_missing(origin.model, origin.version, entries) or error.fix

    def _learn_extensions(self, origin: Origin) -> Operation[None]:
        """Find out whether tensors may travel in binary over HTTP; JSON is what every server takes."""
        if self.wire.always_binary:
            return
        try:
            extensions: tuple[str, ...] = yield self.wire.extensions(origin)
        except (InvalidInput, ModelNotFound, ServerError, Unauthenticated):  # the server does not list them
            extensions = ()
        self._plain = BINARY not in extensions

    def _forget(self, model: str) -> None:
        for key in [key for key in self._metadata if key[0] == model]:
            self._metadata.pop(key, None)
