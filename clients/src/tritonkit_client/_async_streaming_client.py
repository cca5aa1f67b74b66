"""The streams of the asynchronous client; see `_streaming_client`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from os import PathLike
from typing import Any, TypeVar, overload

import numpy.typing as npt

from ._base import BaseClient
from ._engine.streams import PreparedStream, Stream, prepare
from ._language.chat import Message
from ._language.generation import AnswerBuilder, Delta, Generation
from ._language.text_requests import TextRequest, check_text_arguments, prepare_text, text_request
from ._language.text_streams import AsyncTextStream
from ._protocol.calls import Operation, Outputs, Parameter
from ._protocol.errors import Origin, TritonkitClientError
from ._protocol.tensors import Array
from ._transport.security import checked_headers

T = TypeVar("T")


class AsyncStreamingClient(BaseClient):
    """The part of `AsyncClient` that streams."""

    async def generate(
        self,
        model: str,
        prompt: str | None = None,
        *,
        messages: Sequence[Message] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | PathLike[str] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        lora: str | None = None,
        logprobs: int | None = None,
        cumulative_logprob: bool = False,
        model_version: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        **sampling: Any,
    ) -> Generation:
        """See `Client.generate`."""
        request = text_request(
            prompt, False, Origin(self._origin.endpoint, model), messages=messages, tools=tools,
            chat_template=chat_template, chat_template_kwargs=chat_template_kwargs, max_tokens=max_tokens,
            temperature=temperature, stop=stop, seed=seed, lora=lora, logprobs=logprobs,
            cumulative_logprob=cumulative_logprob, **sampling,
        )  # fmt: skip
        async with self._text(model, request, model_version, request_id, timeout, headers, None) as parts:
            async for _ in parts:
                pass
        assert parts.generation is not None
        return parts.generation

    @overload
    def stream(
        self,
        model: str,
        prompt: str,
        /,
        *,
        model_version: str = ...,
        request_id: str | None = ...,
        timeout: float | None = ...,
        headers: Mapping[str, str] | None = ...,
        idle_timeout: float | None = ...,
        **arguments: Any,
    ) -> AsyncTextStream: ...

    @overload
    def stream(
        self,
        model: str,
        /,
        *,
        messages: Sequence[Message],
        model_version: str = ...,
        request_id: str | None = ...,
        timeout: float | None = ...,
        headers: Mapping[str, str] | None = ...,
        idle_timeout: float | None = ...,
        **arguments: Any,
    ) -> AsyncTextStream: ...

    @overload
    def stream(
        self,
        model: str,
        inputs: Mapping[str, npt.ArrayLike] | None = None,
        /,
        *,
        model_version: str = ...,
        outputs: Outputs | None = ...,
        request_id: str | None = ...,
        timeout: float | None = ...,
        parameters: Mapping[str, Parameter] | None = ...,
        headers: Mapping[str, str] | None = ...,
        idle_timeout: float | None = ...,
        **arrays: npt.ArrayLike,
    ) -> AsyncGenerator[dict[str, Array], None]: ...

    def stream(
        self,
        model: str,
        inputs: Mapping[str, npt.ArrayLike] | str | None = None,
        /,
        *,
        model_version: str = "",
        outputs: Outputs | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        headers: Mapping[str, str] | None = None,
        idle_timeout: float | None = None,
        **arrays: Any,
    ) -> AsyncTextStream | AsyncGenerator[dict[str, Array], None]:
        """See `Client.stream`; with ``async for``. An input that does not fit the model raises at the first step."""
        if isinstance(inputs, str) or (inputs is None and "messages" in arrays):
            origin = Origin(self._origin.endpoint, model)
            check_text_arguments(outputs, parameters, origin)
            request = text_request(inputs, True, origin, **arrays)
            return self._text(model, request, model_version, request_id, timeout, headers, self._idle_s(idle_timeout))
        return self._tensors(
            model, inputs, arrays, model_version, outputs, request_id, timeout, parameters, headers, idle_timeout
        )

    async def _run(self, operation: Operation[T], timeout: float | None, headers: Mapping[str, str] | None = None) -> T:
        """Drive an operation to its end."""
        raise NotImplementedError

    async def _tensors(
        self, model: str, inputs: Any, arrays: Mapping[str, Any], version: str, outputs: Outputs | None,
        request_id: str | None, timeout: float | None, parameters: Mapping[str, Parameter] | None,
        headers: Mapping[str, str] | None, idle_timeout: float | None,
    ) -> AsyncGenerator[dict[str, Array], None]:  # fmt: skip
        inference = self._inference(model, inputs, arrays, version, outputs, request_id, parameters)
        responses = self._responses(prepare(self._operations, inference), timeout, headers, self._idle_s(idle_timeout))
        async with contextlib.aclosing(responses):
            async for response in responses:
                yield response

    def _text(
        self, model: str, request: TextRequest, version: str, request_id: str | None, timeout: float | None,
        headers: Mapping[str, str] | None, idle_s: float | None,
    ) -> AsyncTextStream:  # fmt: skip
        inference = self._inference(model, None, {}, version, None, request_id)
        answer = AnswerBuilder()
        operation = prepare_text(self._operations, inference, request, answer)
        return AsyncTextStream(_parts(self._responses(operation, timeout, headers, idle_s), answer), answer)

    async def _responses(
        self,
        operation: Operation[PreparedStream],
        timeout: float | None,
        headers: Mapping[str, str] | None,
        idle_s: float | None,
    ) -> AsyncGenerator[dict[str, Array], None]:
        deadline = self._deadline(timeout)
        prepared = await self._run(operation, timeout)
        stream = Stream(self._engine, prepared, deadline, checked_headers(headers), idle_s)
        while True:
            attempt = stream.open()
            try:
                sent = attempt.server.transport.stream(attempt.request, await self._credentials.now_async())
                async with contextlib.aclosing(sent) as responses:
                    async for response in responses:
                        outputs = stream.read(response)
                        if outputs is None:
                            break
                        yield outputs
                    else:
                        stream.complete()
                        return
            finally:
                stream.close()
            await asyncio.sleep(stream.wait_s)


async def _parts(
    responses: AsyncGenerator[dict[str, Array], None], answer: AnswerBuilder
) -> AsyncGenerator[Delta, None]:
    async with contextlib.aclosing(responses):
        try:
            async for outputs in responses:
                delta = answer.add(outputs)
                if delta is not None:
                    yield delta
            last = answer.last()
        except TritonkitClientError as error:
            error.text = answer.text
            raise
    yield last
