"""Every operation of a client as a `Flow`: its calls, what it remembers, when it asks again. No I/O.

A client of any kind drives these generators; see `_client.Client._run`.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping, Sequence

import numpy.typing as npt

from ._calls import Flow, InferRequest, Wire
from ._errors import InvalidInput, ModelNotFound, Origin
from ._metadata import ModelMetadata, ModelStatistics
from ._tensors import Array
from ._validation import check_outputs, encode_inputs


class Flows:
    """The operations over one wire, with the cache of what the models are.

    Safe to share between threads: the cache is written by whole values.

    Args:
        wire: The protocol.
        endpoint: The server, for error messages.
    """

    def __init__(self, wire: Wire, endpoint: str) -> None:
        self._wire = wire
        self._endpoint = endpoint
        self._metadata: dict[tuple[str, str], ModelMetadata] = {}
        # Unique among the clients of a server, so that its log and an error can be matched.
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def live(self) -> Flow[bool]:
        """Whether the server runs."""
        answer: bool = yield self._wire.live(Origin(self._endpoint))
        return answer

    def ready(self) -> Flow[bool]:
        """Whether the server and its models are ready."""
        answer: bool = yield self._wire.ready(Origin(self._endpoint))
        return answer

    def model_ready(self, model: str, version: str) -> Flow[bool]:
        """Whether one model is ready."""
        answer: bool = yield self._wire.model_ready(version, self._origin(model, version))
        return answer

    def metadata(self, model: str, version: str) -> Flow[ModelMetadata]:
        """What a model is; from the cache where it is there."""
        origin = self._origin(model, version)
        cached = self._metadata.get((model, version))
        return cached if cached is not None else (yield from self._fetch(version, origin))

    def statistics(self, model: str, version: str) -> Flow[tuple[ModelStatistics, ...]]:
        """What the server counted for a model."""
        origin = self._origin(model, version)
        try:
            entries: tuple[ModelStatistics, ...] = yield self._wire.statistics(version, origin)
        except ModelNotFound:
            # Here Triton says the same of a model that is absent and of one that is not ready; the metadata
            # call raises the right one of the two.
            yield from self._fetch(version, origin)
            raise
        return entries

    def infer(
        self,
        model: str,
        values: Mapping[str, npt.ArrayLike],
        version: str,
        outputs: Sequence[str] | None,
        request_id: str | None,
    ) -> Flow[dict[str, Array]]:
        """One inference; cached metadata that is in the way is fetched anew and, if it changed, used."""
        if request_id is None:
            request_id = f"{self._prefix}-{next(self._numbers)}"
        origin = self._origin(model, version, request_id)
        metadata = self._metadata.get((model, version))
        if metadata is None:
            metadata = yield from self._fetch(version, origin)
        else:
            try:
                return (yield from self._send(metadata, values, version, outputs, origin))
            except InvalidInput:
                # The model may have been reloaded since; the caller is wrong only if it was not.
                fresh = yield from self._fetch(version, origin)
                if fresh == metadata:
                    raise
                metadata = fresh
        return (yield from self._send(metadata, values, version, outputs, origin))

    def _send(
        self,
        metadata: ModelMetadata,
        values: Mapping[str, npt.ArrayLike],
        version: str,
        outputs: Sequence[str] | None,
        origin: Origin,
    ) -> Flow[dict[str, Array]]:
        request = InferRequest(
            model=origin.model,
            version=version,
            request_id=origin.request_id,
            inputs=encode_inputs(metadata, values, origin),
            outputs=check_outputs(metadata, outputs, origin),
        )
        answer: dict[str, Array] = yield self._wire.infer(request, origin)
        return answer

    def _fetch(self, version: str, origin: Origin) -> Flow[ModelMetadata]:
        described: ModelMetadata = yield self._wire.metadata(version, origin)
        metadata = described.limited((yield self._wire.limits(version, origin)))
        self._metadata[origin.model, version] = metadata
        return metadata

    def _origin(self, model: str, version: str, request_id: str = "") -> Origin:
        origin = Origin(self._endpoint, model, request_id)
        if not model:
            raise InvalidInput("the model has no name", "give the name of a model", origin)
        if version and not (version.isascii() and version.isdigit()):
            raise InvalidInput(
                f"{version!r} is not a version",
                "give a number as a string, or nothing for the newest",
                origin,
            )
        return origin
