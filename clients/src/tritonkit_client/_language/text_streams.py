"""A language model's answer as it comes: iterators of its parts, blocking and asynchronous."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from types import TracebackType

from .generation import AnswerBuilder, Delta, Generation


class TextStream:
    """An answer as it comes; `Client.stream` makes it. Iterate over it once.

    Closing it, leaving its ``with`` block or dropping it cancels the request on the server.
    """

    def __init__(self, parts: Generator[Delta, None, None], answer: AnswerBuilder) -> None:
        self._parts = parts
        self._answer = answer

    def __iter__(self) -> TextStream:
        return self

    def __next__(self) -> Delta:
        return next(self._parts)

    def __enter__(self) -> TextStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the rest up; a second time does nothing."""
        self._parts.close()

    @property
    def text(self) -> str:
        """The answer as far as it has come."""
        return self._answer.text

    @property
    def generation(self) -> Generation | None:
        """The whole answer, once the last part was taken; None before."""
        return self._answer.whole


class AsyncTextStream:
    """`TextStream` with ``async for`` and ``async with``; `AsyncClient.stream` makes it."""

    def __init__(self, parts: AsyncGenerator[Delta, None], answer: AnswerBuilder) -> None:
        self._parts = parts
        self._answer = answer

    def __aiter__(self) -> AsyncTextStream:
        return self

    async def __anext__(self) -> Delta:
        return await anext(self._parts)

    async def __aenter__(self) -> AsyncTextStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """See `TextStream.close`."""
        await self._parts.aclose()

    @property
    def text(self) -> str:
        """The answer as far as it has come."""
        return self._answer.text

    @property
    def generation(self) -> Generation | None:
        """The whole answer, once the last part was taken; None before."""
        return self._answer.whole
