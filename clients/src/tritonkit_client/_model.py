"""One model of a blocking client: as a callable, and as a sequence of requests that belong together."""

from __future__ import annotations

import contextlib
from collections import abc
from collections.abc import Generator, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import numpy.typing as npt

from ._engine.many import Sample
from ._engine.sequence import SequenceState
from ._language.chat import Message
from ._language.generation import Generation
from ._language.text_streams import TextStream
from ._protocol.calls import Outputs, Parameter
from ._protocol.errors import InvalidInput, TritonkitClientError
from ._protocol.metadata import ModelMetadata
from ._protocol.tensors import Array

if TYPE_CHECKING:
    from ._client import Client


class Model:
    """A model as a callable; `Client.model` makes it.

    Attributes:
        name, version: The model's; with an empty version the server chooses.
    """

    def __init__(self, client: Client, name: str, version: str, timeout: float | None) -> None:
        self.name = name
        self.version = version
        self._client = client
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"{self._client!r}.model({self.name!r})"

    @property
    def metadata(self) -> ModelMetadata:
        """What the model is."""
        return self._client.metadata(self.name, model_version=self.version)

    def __call__(
        self,
        inputs: Mapping[str, npt.ArrayLike] | None = None,
        /,
        *,
        outputs: Outputs | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        headers: Mapping[str, str] | None = None,
        **arrays: npt.ArrayLike,
    ) -> dict[str, Array]:
        """Run it once; see `Client.infer`."""
        return self._client.infer(
            self.name, inputs, model_version=self.version, outputs=outputs, request_id=request_id,
            timeout=self._timeout if timeout is None else timeout, parameters=parameters, headers=headers, **arrays,
        )  # fmt: skip

    @overload
    def many(  # type: ignore[overload-overlap] # a mapping is iterable too, and not meant as that
        self,
        samples: Mapping[str, npt.ArrayLike] | npt.NDArray[Any],
        *,
        max_in_flight: int = ...,
        outputs: Outputs | None = ...,
    ) -> dict[str, Array]: ...

    @overload
    def many(
        self, samples: Iterable[Sample], *, max_in_flight: int = ..., outputs: Outputs | None = ...
    ) -> list[dict[str, Array]]: ...

    def many(
        self,
        samples: Mapping[str, npt.ArrayLike] | npt.NDArray[Any] | Iterable[Sample],
        *,
        max_in_flight: int = 32,
        outputs: Outputs | None = None,
    ) -> dict[str, Array] | list[dict[str, Array]]:
        """Run it on one batch of any size, or on many batches; see `Client.infer_many`."""
        return self._client.infer_many(
            self.name, samples, max_in_flight=max_in_flight, model_version=self.version, outputs=outputs,
            timeout=self._timeout,
        )  # fmt: skip

    def generate(self, prompt: str | None = None, *, timeout: float | None = None, **arguments: Any) -> Generation:
        """Let it answer, if it is a language model; see `Client.generate`."""
        limit = self._timeout if timeout is None else timeout
        return self._client.generate(self.name, prompt, model_version=self.version, timeout=limit, **arguments)

    @overload
    def stream(self, prompt: str, /, *, timeout: float | None = ..., **arguments: Any) -> TextStream: ...

    @overload
    def stream(
        self, /, *, messages: abc.Sequence[Message], timeout: float | None = ..., **arguments: Any
    ) -> TextStream: ...

    @overload
    def stream(
        self,
        inputs: Mapping[str, npt.ArrayLike] | None = None,
        /,
        *,
        outputs: Outputs | None = ...,
        request_id: str | None = ...,
        timeout: float | None = ...,
        parameters: Mapping[str, Parameter] | None = ...,
        headers: Mapping[str, str] | None = ...,
        idle_timeout: float | None = ...,
        **arrays: npt.ArrayLike,
    ) -> Generator[dict[str, Array], None, None]: ...

    def stream(
        self, inputs: Any = None, /, *, timeout: float | None = None, **arguments: Any
    ) -> TextStream | Generator[dict[str, Array], None, None]:
        """Run it for any number of responses, or let it answer part by part; see `Client.stream`."""
        limit = self._timeout if timeout is None else timeout
        stream: TextStream | Generator[dict[str, Array], None, None]
        stream = self._client.stream(self.name, inputs, model_version=self.version, timeout=limit, **arguments)
        return stream


class Sequence:
    """Requests that belong together; `Client.sequence` makes it.

    Leaving the ``with`` block ends the sequence on the server. Triton ends one only with an inference: mark the
    last request with ``end=True``, or the last inputs are sent once more to end it.
    """

    def __init__(self, client: Client, model: str, version: str, timeout: float | None) -> None:
        self._client = client
        self._model = model
        self._version = version
        self._timeout = timeout
        self._state: SequenceState | None = None

    @property
    def id(self) -> int:
        """The sequence's id on the server."""
        return self._begun().id

    def __enter__(self) -> Sequence:
        self._client.metadata(self._model, model_version=self._version, timeout=self._timeout)
        self._state = SequenceState(self._client._pin(self._model), self._model, self._version)
        return self

    def __call__(
        self,
        inputs: Mapping[str, npt.ArrayLike] | None = None,
        /,
        *,
        end: bool = False,
        outputs: Outputs | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        **arrays: npt.ArrayLike,
    ) -> dict[str, Array]:
        """Send the next request; see `Client.infer`. ``end`` marks the last one.

        Raises:
            InvalidInput: The sequence has ended, or the ``with`` block has not begun.
        """
        state = self._begun()
        inference = self._client._inference(self._model, inputs, arrays, self._version, outputs, request_id, parameters)
        operation = self._client._operations.infer(state.next(inference, end))
        results: dict[str, Array] = self._client._run(operation, self._timeout if timeout is None else timeout)
        state.done(inference, end)
        return results

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        last = self._begun().closing()
        if last is None:
            return
        # An error that leaves the block must not be hidden by a failure to end the sequence.
        with contextlib.suppress(TritonkitClientError) if error else contextlib.nullcontext():
            self._client._run(self._client._operations.infer(last), self._timeout)

    def _begun(self) -> SequenceState:
        if self._state is None:
            raise InvalidInput("the sequence has not begun", "use it in a with block")
        return self._state
