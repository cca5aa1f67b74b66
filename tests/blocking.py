"""`AsyncClient` with the interface of `Client`, so that a suite runs on both: an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, cast

from tritonkit_client import AsyncClient, AsyncTextStream, Client, Delta


class Loop:
    """An event loop that runs in a thread, for all blocking clients of a test run."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


_loop: Loop | None = None


def shared_loop() -> Loop:
    global _loop
    _loop = _loop or Loop()
    return _loop


class Blocking:
    """An object whose asynchronous methods block."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped
        self._loop = shared_loop()

    def __repr__(self) -> str:
        return repr(self._wrapped)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._wrapped, name)
        return self._waiting(attribute) if callable(attribute) else attribute

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._waiting(self._wrapped)(*args, **kwargs)

    def __enter__(self) -> Any:
        self._loop.wait(self._wrapped.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self._loop.wait(self._wrapped.__aexit__(*error))

    def _waiting(self, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            async def work() -> Any:
                # Called inside the loop, as a program would; a result without await involves no I/O.
                result = method(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result

            result = self._loop.wait(work())
            if isinstance(result, AsyncTextStream):
                return BlockingTextStream(result)
            if isinstance(result, AsyncIterator):
                return self._iterate(result)
            return Blocking(result) if type(result).__module__ == "tritonkit_client._async_model" else result

        return call

    def _iterate(self, responses: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._loop.wait(responses.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            self._loop.wait(responses.aclose())


class BlockingTextStream(Blocking):
    """A stream of text, which `TextStream`'s methods close."""

    def __iter__(self) -> Iterator[Delta]:
        return self

    def __next__(self) -> Delta:
        try:
            delta: Delta = self._loop.wait(self._wrapped.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None
        return delta

    def __enter__(self) -> BlockingTextStream:
        return self

    def close(self) -> None:
        self._loop.wait(self._wrapped.aclose())


def client(endpoint: str, **options: Any) -> Client:
    return cast(Client, Blocking(AsyncClient(endpoint, **options)))
