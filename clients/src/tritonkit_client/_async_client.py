"""The asynchronous client: performs the engine's effects with the running event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar, overload

import numpy.typing as npt

from ._async_model import AsyncModel, AsyncSequence
from ._async_streaming_client import AsyncStreamingClient
from ._base import checked_in_flight, checked_outputs
from ._engine import many
from ._engine.effects import Attempt, Effect, Effects, Pause, Race, Resolve, Wait
from ._engine.events import logger
from ._engine.operations import Inference
from ._protocol.calls import NO_HEADERS, Operation, Outputs, Parameter, Response
from ._protocol.errors import ClientClosed, Origin
from ._protocol.metadata import ModelMetadata, ModelStatistics, RepositoryEntry
from ._protocol.tensors import Array
from ._transport.endpoint import Endpoint
from ._transport.grpc_aio import GrpcAioTransport
from ._transport.http import AsyncHttpTransport
from ._transport.security import TLS

T = TypeVar("T")
_GOOD = ("OK", 200)


class AsyncClient(AsyncStreamingClient):
    """`Client` with ``async`` and ``await``: the same arguments, results and errors.

    It belongs to the event loop of its first call. Cancelling a call gives its request up: over gRPC the server
    is told, over HTTP the connection is closed.

    Takes the arguments of `BaseClient`; ``token`` and ``headers`` may be coroutine functions here.

    Example::

        async with AsyncClient("grpc://127.0.0.1:8001", timeout=5.0) as client:
            out = await client.infer("efficientnet_lite0", image=batch)
    """

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """See `Client.close`."""
        if self._closed:
            return
        if self._arena is not None:
            for operation in self._arena.closing(self._operations.wire, self._servers.all):
                with contextlib.suppress(Exception):
                    await self._run(operation, 1.0)
        self._closed = True
        if self._watch is not None and not self._watch.done():  # done where its loop has ended
            self._watch.cancel()
            await asyncio.wait({self._watch})
        for server in self._servers.all:
            await server.transport.close()

    async def infer(
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
        """See `Client.infer`."""
        inference = self._inference(model, inputs, arrays, model_version, outputs, request_id, parameters)
        return await self._run(self._operations.infer(inference), timeout, headers)

    @overload
    async def infer_many(  # type: ignore[overload-overlap] # a mapping is iterable too, and not meant as that
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
    async def infer_many(
        self,
        model: str,
        samples: Iterable[many.Sample],
        *,
        max_in_flight: int = ...,
        model_version: str = ...,
        outputs: Outputs | None = ...,
        timeout: float | None = ...,
    ) -> list[dict[str, Array]]: ...

    async def infer_many(
        self,
        model: str,
        samples: Mapping[str, npt.ArrayLike] | npt.NDArray[Any] | Iterable[many.Sample],
        *,
        max_in_flight: int = 32,
        model_version: str = "",
        outputs: Outputs | None = None,
        timeout: float | None = None,
    ) -> dict[str, Array] | list[dict[str, Array]]:
        """See `Client.infer_many`."""
        checked_in_flight(max_in_flight, self._origin)
        origin = Origin(self._origin.endpoint, model)
        outputs = checked_outputs(outputs, origin)
        metadata = await self.metadata(model, model_version=model_version, timeout=timeout)
        single = many.is_single(samples)
        joined = many.JoinedOutputs(origin)
        flying: deque[tuple[many.Part, asyncio.Task[dict[str, Array]]]] = deque()
        try:
            for part in many.parts(metadata, many.listed(samples), origin):
                if len(flying) == max_in_flight:
                    joined.add(flying[0][0], await flying[0][1])
                    flying.popleft()
                inference = Inference(model, part.values, model_version, outputs)
                flying.append((part, asyncio.create_task(self._run(self._operations.infer(inference), timeout))))
            while flying:
                joined.add(flying[0][0], await flying[0][1])
                flying.popleft()
        finally:
            for _, task in flying:
                task.cancel()
            await asyncio.gather(*(task for _, task in flying), return_exceptions=True)
        results = joined.all()
        return results[0] if single else results

    def sequence(self, model: str, *, model_version: str = "", timeout: float | None = None) -> AsyncSequence:
        """See `Client.sequence`; with ``async with``."""
        return AsyncSequence(self, model, model_version, timeout)

    async def model(self, model: str, *, model_version: str = "", timeout: float | None = None) -> AsyncModel:
        """See `Client.model`."""
        await self.metadata(model, model_version=model_version, timeout=timeout)
        return AsyncModel(self, model, model_version, timeout)

    async def metadata(self, model: str, *, model_version: str = "", timeout: float | None = None) -> ModelMetadata:
        """See `Client.metadata`."""
        return await self._run(self._operations.metadata(model, model_version), timeout)

    async def config(self, model: str, *, model_version: str = "", timeout: float | None = None) -> dict[str, Any]:
        """See `Client.config`."""
        return await self._run(self._operations.config(model, model_version), timeout)

    async def statistics(
        self, model: str, *, model_version: str = "", timeout: float | None = None
    ) -> tuple[ModelStatistics, ...]:
        """See `Client.statistics`."""
        return await self._run(self._operations.statistics(model, model_version), timeout)

    async def repository(self, *, timeout: float | None = None) -> tuple[RepositoryEntry, ...]:
        """See `Client.repository`."""
        return await self._run(self._operations.repository(), timeout)

    async def load(self, model: str, *, config: Mapping[str, Any] | None = None, timeout: float | None = None) -> None:
        """See `Client.load`."""
        self._check_single("load")
        await self._run(self._operations.load(model, config), timeout)

    async def unload(self, model: str, *, dependents: bool = False, timeout: float | None = None) -> None:
        """See `Client.unload`."""
        self._check_single("unload")
        await self._run(self._operations.unload(model, dependents), timeout)

    async def live(self, *, timeout: float | None = None) -> bool:
        """See `Client.live`."""
        return await self._run(self._operations.live(), timeout)

    async def ready(self, *, timeout: float | None = None) -> bool:
        """See `Client.ready`."""
        return await self._run(self._operations.ready(), timeout)

    async def model_ready(self, model: str, *, model_version: str = "", timeout: float | None = None) -> bool:
        """See `Client.model_ready`."""
        return await self._run(self._operations.model_ready(model, model_version), timeout)

    def _opened(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: asyncio.Task[None] | None = None

    @staticmethod
    def _connect(tls: TLS | None, compression: str | None, endpoint: Endpoint) -> Any:
        kind = GrpcAioTransport if endpoint.protocol == "grpc" else AsyncHttpTransport
        return kind(endpoint, tls, compression)

    def _check(self) -> None:
        super()._check()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            if self._endpoints.many:
                self._watch = loop.create_task(self._watch_servers(), name="tritonkit-client-watch")
        elif self._loop is not loop:
            raise ClientClosed(
                "the client belongs to another event loop, that of its first call",
                "make a client in each loop: asyncio.run() starts a new one every time",
                self._origin,
            )

    async def _run(self, operation: Operation[T], timeout: float | None, headers: Mapping[str, str] | None = None) -> T:
        """Drive an operation to its end."""
        effects = self._effects(operation, timeout, headers)
        try:
            effect = next(effects)
            while True:
                if isinstance(effect, Attempt) and self._credentials.empty:  # nearly always; one coroutine less each
                    answer = await effect.server.transport.send(effect.request, NO_HEADERS)
                else:
                    answer = await self._perform(effect)
                effect = effects.send(answer)
        except StopIteration as done:
            value: T = done.value
            return value
        finally:
            # Also when the caller gave up: the server's count of calls in flight is right again.
            effects.close()

    async def _perform(self, effect: Effect) -> Any:
        """Perform an effect, and wait for its end."""
        if isinstance(effect, Attempt):
            return await self._attempt(effect)
        if isinstance(effect, Pause):
            return await asyncio.sleep(effect.seconds)
        if isinstance(effect, Resolve):
            return await _resolve(effect)
        if isinstance(effect, Wait):
            return await asyncio.wait({asyncio.wrap_future(effect.future)}, timeout=effect.timeout)
        return await self._race(effect)

    async def _attempt(self, effect: Attempt) -> Response:
        credentials = NO_HEADERS if self._credentials.empty else await self._credentials.now_async()
        response: Response = await effect.server.transport.send(effect.request, credentials)
        return response

    async def _race(self, effect: Race) -> tuple[Attempt, Response]:
        racing = {asyncio.create_task(self._attempt(effect.first)): effect.first}
        try:
            ended, _ = await asyncio.wait(racing, timeout=effect.after_s)
            second = None if ended else effect.second()
            if second is not None:
                racing[asyncio.create_task(self._attempt(second))] = second
            waiting = set(racing)
            while True:
                ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                task = ended.pop()
                response = task.result()
                if not waiting or response.status in _GOOD:
                    return racing[task], response
        finally:
            for task in racing:
                task.cancel()
            await asyncio.gather(*racing, return_exceptions=True)
            for attempt in racing.values():
                effect.done(attempt)

    async def _watch_servers(self) -> None:
        """Drive `Engine.watch` until the client is closed."""
        wake = asyncio.Event()
        self._servers.on_change = wake.set
        effects: Effects[None] = self._engine.watch()
        effect = next(effects)
        while True:
            answer = None
            if isinstance(effect, Pause):
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(wake.wait(), effect.seconds)
                wake.clear()
            else:
                try:
                    answer = await self._perform(effect)
                except Exception as error:  # see `Watch`
                    logger.warning("a look at a server failed: %s", type(error).__name__)
            effect = effects.send(answer)


async def _resolve(effect: Resolve) -> list[str] | None:
    loop = asyncio.get_running_loop()
    looking = loop.getaddrinfo(effect.host, effect.port, type=1)
    try:
        addresses = await asyncio.wait_for(looking, effect.timeout)
    except (asyncio.TimeoutError, OSError, UnicodeError):  # noqa: UP041 -- another class before Python 3.11
        return None
    return sorted({str(address[0]) for *_, address in addresses})
