"""The blocking client: performs the engine's effects with the calling thread."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, overload

import numpy.typing as npt

from ._base import checked_in_flight, checked_outputs
from ._engine import many, workers
from ._engine.effects import Attempt, Effect, Pause, Resolve, Wait
from ._engine.operations import Inference
from ._model import Model
from ._model import Sequence as ModelSequence
from ._protocol.calls import NO_HEADERS, Operation, Outputs, Parameter, Response
from ._protocol.errors import Origin
from ._protocol.metadata import ModelMetadata, ModelStatistics, RepositoryEntry
from ._protocol.tensors import Array
from ._streaming_client import StreamingClient
from ._transport.endpoint import Endpoint
from ._transport.grpc import GrpcTransport
from ._transport.http import HttpTransport
from ._transport.security import TLS, Credentials

T = TypeVar("T")


class Client(StreamingClient):
    """A blocking client of one Triton server, or of several that serve the same models.

    Thread-safe: share one between threads. It connects at the first call, and again once a server is back. A
    process that forks makes a client on each side.

    Takes the arguments of `BaseClient`. Every method raises `ConnectionFailed` where nobody answers,
    `DeadlineExceeded` after its timeout, `Unauthenticated` where the server wants other credentials, and
    `ClientClosed` after `close`.

    Example::

        with Client("grpc://127.0.0.1:8001", timeout=5.0) as client:
            out = client.infer("efficientnet_lite0", image=batch)
    """

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; every later call raises `ClientClosed`. A second time does nothing."""
        if self._closed:
            return
        if self._arena is not None:
            for operation in self._arena.closing(self._operations.wire, self._servers.all):
                with contextlib.suppress(Exception):
                    self._run(operation, 1.0)
        self._closed = True
        self._stop()
        for server in self._servers.all:
            server.transport.close()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, npt.ArrayLike] | None = None,
        /,
        *,
        model_version: str = "",
        outputs: Outputs | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        headers: Mapping[str, str] | None = None,
        **arrays: npt.ArrayLike,
    ) -> dict[str, Array]:
        """Run a model once.

        Args:
            model: Its name.
            inputs: Inputs by name; the way to pass one that is called like an argument of this method.
            model_version: A version as the server names it (Triton: a number), as a string; empty for the one that the
                server chooses.
            outputs: Which outputs to get; None for all. A mapping gets the best classes of an output instead of its
                numbers: ``{"logits": 5}``, with None for an output as it is (Triton only).
            request_id: What the server's log and an error call this request; None for a generated one.
            timeout: Seconds for this call instead of the client's: the first fetch of metadata, every attempt
                and every wait between them included. The server is told what is left of it.
            parameters: The request's own parameters, as the model understands them.
            headers: HTTP headers or gRPC metadata for this call, ``traceparent`` for example.
            **arrays: Inputs by name. An array is used where numpy casts its dtype safely to the input's;
                plain Python numbers, strings, bytes and lists of them where the input's type holds them.

        Returns:
            Outputs by name, in the server's order, with the shapes and dtypes that the server sent: read-only
            views of the answer (``.copy()`` to write to one); BYTES as an object array of ``bytes``, BF16 as
            ``ml_dtypes.bfloat16``, classes as an object array of `Class`, best first.

        Raises:
            InvalidInput: A name, a dtype, a shape or a batch does not fit the model, here or in the server's
                eyes.
            ModelNotFound: The server has no such model or version.
            ModelNotReady: It cannot serve the model now.
            QueueFull: The model's queue is full.
            ServerBusy: The request waited in the queue for longer than the model allows.
            ServerError: The model or the server failed.
        """
        inference = self._inference(model, inputs, arrays, model_version, outputs, request_id, parameters)
        return self._run(self._operations.infer(inference), timeout, headers)

    @overload
    def infer_many(  # type: ignore[overload-overlap] # a mapping is iterable too, and not meant as that
        self,
        model: str,
        samples: Mapping[str, npt.ArrayLike] | npt.NDArray[Any],
        *,
        max_in_flight: int = ...,
        model_version: str = ...,
        outputs: Outputs | None = ...,
        timeout: float | None = ...,
    ) -> dict[str, Array]: ...

    @overload
    def infer_many(
        self,
        model: str,
        samples: Iterable[many.Sample],
        *,
        max_in_flight: int = ...,
        model_version: str = ...,
        outputs: Outputs | None = ...,
        timeout: float | None = ...,
    ) -> list[dict[str, Array]]: ...

    def infer_many(
        self,
        model: str,
        samples: Mapping[str, npt.ArrayLike] | npt.NDArray[Any] | Iterable[many.Sample],
        *,
        max_in_flight: int = 32,
        model_version: str = "",
        outputs: Outputs | None = None,
        timeout: float | None = None,
    ) -> dict[str, Array] | list[dict[str, Array]]:
        """Run a model on more than fits in one request, many requests at a time.

        Args:
            model: Its name.
            samples: One batch of any size, as a mapping of inputs (or the array of the only input); or an
                iterable of such batches, of which never more than ``max_in_flight`` are taken ahead. A batch
                over the model's ``max_batch_size`` is cut, and its outputs are put together again.
            max_in_flight: How many requests the servers get at once.
            model_version, outputs: As for `infer`.
            timeout: Seconds for each request.

        Returns:
            The outputs of the one batch, or a list with the outputs of each batch, in order.

        Raises:
            The first error, in order, that a request raised; those after it are given up.
        """
        checked_in_flight(max_in_flight, self._origin)
        origin = Origin(self._origin.endpoint, model)
        outputs = checked_outputs(outputs, origin)
        metadata = self.metadata(model, model_version=model_version, timeout=timeout)
        single = many.is_single(samples)
        joined = many.JoinedOutputs(origin)
        pool = ThreadPoolExecutor(max_in_flight, thread_name_prefix="tritonkit-client-many")
        flying: deque[tuple[many.Part, Future[dict[str, Array]]]] = deque()
        try:
            for part in many.parts(metadata, many.listed(samples), origin):
                if len(flying) == max_in_flight:
                    landed, future = flying.popleft()
                    joined.add(landed, future.result())
                inference = Inference(model, part.values, model_version, outputs)
                flying.append((part, pool.submit(contextvars.copy_context().run, self._infer_part, inference, timeout)))
            for landed, future in flying:
                joined.add(landed, future.result())
        finally:
            # After an error (or a key) nobody waits for those in flight: they may take as long as their timeout.
            pool.shutdown(wait=False, cancel_futures=True)
        results = joined.all()
        return results[0] if single else results

    def sequence(self, model: str, *, model_version: str = "", timeout: float | None = None) -> ModelSequence:
        """A sequence of requests to a model that keeps state between them; use it in a ``with`` block.

        All of its requests go to one server and none is sent twice.
        """
        return ModelSequence(self, model, model_version, timeout)

    def model(self, model: str, *, model_version: str = "", timeout: float | None = None) -> Model:
        """One model as a callable, its metadata fetched now.

        Raises:
            ModelNotFound: The server has no such model or version.
            ModelNotReady: It cannot serve the model now.
        """
        self.metadata(model, model_version=model_version, timeout=timeout)
        return Model(self, model, model_version, timeout)

    def metadata(self, model: str, *, model_version: str = "", timeout: float | None = None) -> ModelMetadata:
        """A model's metadata: as the client's `models` declare it, or fetched once, and again when the server or an
        input contradicts it.

        Raises:
            ModelNotFound: The server has no such model or version.
            ModelNotReady: It cannot serve the model now.
        """
        return self._run(self._operations.metadata(model, model_version), timeout)

    def config(self, model: str, *, model_version: str = "", timeout: float | None = None) -> dict[str, Any]:
        """A model's configuration as the server completed it, in the JSON form of ``config.pbtxt``.

        Raises:
            ModelNotFound: The server has no such model or version.
            NotSupported: The server is not Triton.
        """
        return self._run(self._operations.config(model, model_version), timeout)

    def statistics(
        self, model: str, *, model_version: str = "", timeout: float | None = None
    ) -> tuple[ModelStatistics, ...]:
        """What the server counted for a model since it loaded it, one entry a version.

        The server counts a request a moment after it has answered it. Of several servers one is asked.

        Raises:
            ModelNotFound: The server has no such model or version.
            ModelNotReady: It cannot serve the model now.
        """
        return self._run(self._operations.statistics(model, model_version), timeout)

    def repository(self, *, timeout: float | None = None) -> tuple[RepositoryEntry, ...]:
        """Every model and version that the server's repositories hold, and whether it is ready."""
        return self._run(self._operations.repository(), timeout)

    def load(self, model: str, *, config: Mapping[str, Any] | None = None, timeout: float | None = None) -> None:
        """Load a model, or load it again; the server must run with ``--model-control-mode=explicit``.

        Args:
            model: Its name.
            config: Used instead of ``config.pbtxt``, in the JSON form of it, until the model is unloaded.
            timeout: Seconds until it must be ready.

        Raises:
            ServerError: The model cannot be loaded; the message is the server's.
            InvalidInput: The client has several servers.
        """
        self._check_single("load")
        self._run(self._operations.load(model, config), timeout)

    def unload(self, model: str, *, dependents: bool = False, timeout: float | None = None) -> None:
        """Unload a model; with ``dependents`` also the models that an ensemble is made of.

        Raises:
            ServerError: It cannot be unloaded.
            InvalidInput: The client has several servers.
        """
        self._check_single("unload")
        self._run(self._operations.unload(model, dependents), timeout)

    def live(self, *, timeout: float | None = None) -> bool:
        """Whether the server says that it runs."""
        return self._run(self._operations.live(), timeout)

    def ready(self, *, timeout: float | None = None) -> bool:
        """Whether the server says that it and all of its models are ready."""
        return self._run(self._operations.ready(), timeout)

    def model_ready(self, model: str, *, model_version: str = "", timeout: float | None = None) -> bool:
        """Whether the server says that a model is ready; False too where it has no such model."""
        return self._run(self._operations.model_ready(model, model_version), timeout)

    def _opened(self) -> None:
        self._starting = threading.Lock()
        self._watch: workers.Watch | None = None
        self._stop: Any = lambda: None

    @staticmethod
    def _connect(tls: TLS | None, compression: str | None, endpoint: Endpoint) -> Any:
        kind = GrpcTransport if endpoint.protocol == "grpc" else HttpTransport
        return kind(endpoint, tls, compression)

    def _infer_part(self, inference: Inference, timeout: float | None) -> dict[str, Array]:
        return self._run(self._operations.infer(inference), timeout)

    def _run(self, operation: Operation[T], timeout: float | None, headers: Mapping[str, str] | None = None) -> T:
        """Drive an operation to its end."""
        effects = self._effects(operation, timeout, headers)
        if self._endpoints.many and self._watch is None:
            self._watch_servers()
        try:
            effect = next(effects)
            while True:
                effect = effects.send(_perform(self._credentials, effect))
        except StopIteration as done:
            value: T = done.value
            return value
        finally:
            # Whatever ended it (a key, say), the server's count of calls in flight is right again.
            effects.close()

    def _watch_servers(self) -> None:
        with self._starting:
            if self._watch is None:
                self._watch = workers.Watch(self._engine.watch(), partial(_perform, self._credentials))
                self._servers.on_change = self._watch.wake
                self._stop = weakref.finalize(self, self._watch.stop)


def _perform(credentials: Credentials, effect: Effect) -> Any:
    """Perform an effect, and wait for its end."""
    if isinstance(effect, Attempt):
        return _attempt(credentials, effect)
    if isinstance(effect, Pause):
        return time.sleep(effect.seconds)
    if isinstance(effect, Resolve):
        return workers.resolve(effect)
    if isinstance(effect, Wait):
        return wait({effect.future}, effect.timeout)
    return workers.race(effect, partial(_attempt, credentials))


def _attempt(credentials: Credentials, effect: Attempt) -> Response:
    headers = NO_HEADERS if credentials.empty else credentials.now()
    response: Response = effect.server.transport.send(effect.request, headers)
    return response
