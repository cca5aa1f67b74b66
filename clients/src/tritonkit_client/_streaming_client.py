"""The streams of the blocking client: of tensors, and of language models' texts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Mapping, Sequence
from os import PathLike
from typing import Any, TypeVar, overload

import numpy.typing as npt

from ._base import BaseClient
from ._engine.streams import Stream, prepare
from ._language.chat import Message
from ._language.generation import AnswerBuilder, Delta, Generation
from ._language.text_requests import TextRequest, check_text_arguments, prepare_text, text_request
from ._language.text_streams import TextStream
from ._protocol.calls import Operation, Outputs, Parameter
from ._protocol.errors import Origin, TritonkitClientError
from ._protocol.tensors import Array
from ._transport.security import checked_headers

T = TypeVar("T")


class StreamingClient(BaseClient):
    """The part of `Client` that streams."""

    def generate(
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
        """Let a language model answer: one of vLLM's backend, or of TensorRT-LLM's ``llmapi`` template.

        The model's metadata says which of them. Fields that the engine's release does not have are None in the answer.

        Args:
            model: Its name.
            prompt: The text that the model continues, sent as it is.
            messages: A conversation instead of a prompt, ``{"role": "user", "content": "..."}`` each; the model's chat
                template makes a prompt of it (extra ``chat``).
            tools: The functions that the model may call, as the template takes them: OpenAI's JSON.
            chat_template: A Hugging Face directory, a ``.jinja`` file or a template, for a model that publishes none.
            chat_template_kwargs: Further variables of the template, ``{"enable_thinking": False}`` for example.
            max_tokens: The limit of the answer's tokens; None for the engine's default, which is 16 in vLLM's backend.
            temperature: 0 for the most probable token each time; None for the engine's default.
            stop: Texts that end the answer, which does not contain them.
            seed: The seed of the random choices.
            lora: An adapter's name; TensorRT-LLM needs ``lora_id=`` and ``lora_path=`` too.
            logprobs: How many candidates to get for each token; None for none.
            cumulative_logprob: Whether to get the sum of the logarithms of the tokens' probabilities.
            timeout: Seconds for the whole answer instead of the client's.
            model_version, request_id, headers: As for `infer`.
            **sampling: More parameters, by the engine's own names: ``top_p``, ``repetition_penalty`` and so on.

        Raises:
            InvalidInput: The model is no such language model, an argument is wrong or unknown to the engine, the chat
                template refuses the messages, or the prompt does not fit the model.
            As for `infer`.
        """
        request = text_request(
            prompt, False, Origin(self._origin.endpoint, model), messages=messages, tools=tools,
            chat_template=chat_template, chat_template_kwargs=chat_template_kwargs, max_tokens=max_tokens,
            temperature=temperature, stop=stop, seed=seed, lora=lora, logprobs=logprobs,
            cumulative_logprob=cumulative_logprob, **sampling,
        )  # fmt: skip
        with self._text(model, request, model_version, request_id, timeout, headers, None) as parts:
            for _ in parts:
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
    ) -> TextStream: ...

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
    ) -> TextStream: ...

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
    ) -> Generator[dict[str, Array], None, None]: ...

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
    ) -> TextStream | Generator[dict[str, Array], None, None]:
        """Run a model that answers a request with any number of responses (a "decoupled" one).

        With inputs it gives tensors, over gRPC only. With a prompt or ``messages=``, and the other arguments of
        `generate`, it gives the parts of a language model's answer, over HTTP too.

        Closing the iterator, or dropping it, cancels the request on the server. While nobody takes the next
        response, gRPC's flow control lets the server send no more than its window.

        Args:
            timeout: Seconds for the whole stream, to its last response.
            idle_timeout: Seconds that it may be without a response, to the first and between two, while somebody
                waits for one; None for no limit but the whole stream's.
            inputs, model_version, outputs, request_id, parameters, headers, arrays: As for `infer`.

        Yields:
            The outputs of each response; or the `Delta` of each, the last of which has the usage.

        Raises:
            NotSupported: The endpoint is HTTP, and the inputs are tensors.
            DeadlineExceeded: After ``timeout``, or ``idle_timeout``; the request is cancelled on the server.
            As for `infer` or `generate`, before the first response or between two of them: the error's ``text`` is the
            answer so far.
        """
        idle_s = self._idle_s(idle_timeout)
        if isinstance(inputs, str) or (inputs is None and "messages" in arrays):
            origin = Origin(self._origin.endpoint, model)
            check_text_arguments(outputs, parameters, origin)
            request = text_request(inputs, True, origin, **arrays)
            return self._text(model, request, model_version, request_id, timeout, headers, idle_s)
        inference = self._inference(model, inputs, arrays, model_version, outputs, request_id, parameters)
        deadline = self._deadline(timeout)
        prepared = self._run(prepare(self._operations, inference), timeout)
        return self._responses(Stream(self._engine, prepared, deadline, checked_headers(headers), idle_s))

    def _run(self, operation: Operation[T], timeout: float | None, headers: Mapping[str, str] | None = None) -> T:
        """Drive an operation to its end."""
        raise NotImplementedError

    def _text(
        self, model: str, request: TextRequest, version: str, request_id: str | None, timeout: float | None,
        headers: Mapping[str, str] | None, idle_s: float | None,
    ) -> TextStream:  # fmt: skip
        inference = self._inference(model, None, {}, version, None, request_id)
        answer = AnswerBuilder()
        deadline = self._deadline(timeout)
        prepared = self._run(prepare_text(self._operations, inference, request, answer), timeout)
        stream = Stream(self._engine, prepared, deadline, checked_headers(headers), idle_s)
        return TextStream(_parts(self._responses(stream), answer), answer)

    def _responses(self, stream: Stream) -> Generator[dict[str, Array], None, None]:
        while True:
            attempt = stream.open()
            try:
                sent = attempt.server.transport.stream(attempt.request, self._credentials.now())
                with contextlib.closing(sent) as responses:
                    for response in responses:
                        outputs = stream.read(response)
                        if outputs is None:
                            break
                        yield outputs
                    else:
                        stream.complete()
                        return
            finally:
                stream.close()
            time.sleep(stream.wait_s)


def _parts(responses: Generator[dict[str, Array], None, None], answer: AnswerBuilder) -> Generator[Delta, None, None]:
    with contextlib.closing(responses):
        try:
            for outputs in responses:
                delta = answer.add(outputs)
                if delta is not None:
                    yield delta
            last = answer.last()
        except TritonkitClientError as error:
            error.text = answer.text
            raise
    yield last
