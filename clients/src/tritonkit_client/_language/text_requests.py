"""A request to a language model, from the arguments of `Client.generate` to a stream of responses. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from .._engine.streams import PreparedStream
from .._protocol.calls import Operation
from .._protocol.errors import InvalidInput, Origin
from .._protocol.metadata import ModelMetadata
from .chat import Message, chat_template, render
from .generation import AnswerBuilder
from .text_tensors import Sampling, text_tensors

if TYPE_CHECKING:
    from .._engine.operations import Inference, Operations


@dataclass(frozen=True)
class TextRequest:
    """A prompt, or the messages that become a prompt, and the settings of the answer."""

    prompt: str | None
    messages: Sequence[Message] | None
    tools: Sequence[Mapping[str, Any]] | None
    chat_template: str | PathLike[str] | None
    chat_template_kwargs: Mapping[str, Any] | None
    sampling: Sampling

    def text(self, metadata: ModelMetadata, origin: Origin) -> str:
        """The prompt as the model takes it.

        Raises:
            InvalidInput: There is no prompt, or messages too, or the messages do not fit the model's chat template.
        """
        if self.messages is not None:
            if self.prompt is not None:
                raise InvalidInput("a prompt is given, and messages too", "give one of them", origin)
            template = chat_template(self.chat_template, metadata.parameters, origin)
            return render(template, self.messages, self.tools, self.chat_template_kwargs, origin)
        if not isinstance(self.prompt, str):
            given = "is not given" if self.prompt is None else f"is a {type(self.prompt).__name__}"
            fix = 'give a string, or messages=[{"role": "user", "content": "..."}]'
            raise InvalidInput(f"the prompt {given}", fix, origin)
        for name in ("tools", "chat_template", "chat_template_kwargs"):
            if getattr(self, name) is not None:
                raise InvalidInput(f"{name}= is for messages, and a prompt is sent as it is", "give messages=", origin)
        return self.prompt


def check_text_arguments(outputs: object, parameters: object, origin: Origin) -> None:
    """Raises InvalidInput where an argument is given that only streams of tensors take."""
    for name, value in (("outputs", outputs), ("parameters", parameters)):
        if value is not None:
            raise InvalidInput(f"{name}= is for tensors, and a prompt is given", "leave it out", origin)


def text_request(
    prompt: str | None,
    stream: bool,
    origin: Origin,
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
    **sampling: Any,
) -> TextRequest:
    """A request from the arguments of `Client.generate`.

    Raises:
        InvalidInput: An argument has the wrong type or is out of range.
    """
    stops = [stop] if isinstance(stop, str) else None if stop is None else list(stop)
    if stops is not None and not (stops and all(isinstance(text, str) and text for text in stops)):
        raise InvalidInput(f"stop={stop!r} holds something else than text", "give a string, or a list of them", origin)
    for name, number in (("max_tokens", max_tokens), ("seed", seed), ("logprobs", logprobs)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
            raise InvalidInput(f"{name}={number!r} is no whole number", "give one, or leave it out", origin)
    if max_tokens is not None and max_tokens < 1:
        raise InvalidInput(f"max_tokens={max_tokens} is below 1", "give at least 1, or leave it out", origin)
    if lora is not None and not (isinstance(lora, str) and lora):
        raise InvalidInput(f"lora={lora!r} is no name", "give the adapter's name, or leave it out", origin)
    named = {"max_tokens": max_tokens, "temperature": temperature, "stop": stops, "seed": seed}
    values = Sampling(stream, lora, logprobs, cumulative_logprob, {**named, **sampling})
    return TextRequest(prompt, messages, tools, chat_template, chat_template_kwargs, values)


def prepare_text(
    operations: Operations, inference: Inference, request: TextRequest, answer: AnswerBuilder
) -> Operation[PreparedStream]:
    """Render the prompt, check and encode it, and begin the answer.

    Raises:
        InvalidInput: It does not fit the model.
        NotSupported: The model does not stream.
    """
    origin = operations.origin(inference.model, inference.version, operations.request_id(inference))
    metadata: ModelMetadata = yield from operations.metadata(inference.model, inference.version)
    tensors = text_tensors(metadata, origin)
    prompt = request.text(metadata, origin)
    sampling = request.sampling
    if not operations.wire.streams_tensors and metadata.decoupled:
        # Triton notices the end of an HTTP connection when it writes to it (server#7077): as a stream, an answer that
        # is given up ends at its next part instead of after its last one.
        sampling = replace(sampling, stream=True)
    encoded = operations.encode_request(metadata, replace(inference, values=tensors.request(prompt, sampling)), origin)
    answer.begin(tensors, prompt, origin)
    return PreparedStream(encoded, operations.wire.stream(encoded, origin))
