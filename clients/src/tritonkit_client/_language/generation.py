"""A language model's answer: the whole, the parts of a stream, and how the parts become the whole. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from .._protocol.errors import Origin, ServerError
from .._protocol.tensors import Array

if TYPE_CHECKING:
    from .text_tensors import TextTensors

T = TypeVar("T")


@dataclass(frozen=True)
class Usage:
    """How many tokens a request has; None where the engine does not tell.

    Attributes:
        prompt_tokens: In the prompt, with those that its tokenizer adds.
        completion_tokens: In the answer.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """A token that could have come at one place of an answer.

    Attributes:
        logprob: The natural logarithm of its probability.
        rank: 1 for the most probable token; None where the engine does not tell.
        token: Its text; None where the engine does not tell.
    """

    logprob: float
    rank: int | None = None
    token: str | None = None


# For each token of an answer: the candidates for its place by token id, the one that was taken first.
Logprobs = tuple[Mapping[int, TokenLogprob], ...]


@dataclass(frozen=True)
class Generation:
    """An answer.

    Attributes:
        text: Without the prompt.
        finish_reason: Why it ends: ``stop``, ``length`` or another word of the engine's; None where it does not tell.
        usage: Tokens.
        cumulative_logprob: The sum of the logarithms of its tokens' probabilities, if asked for.
        logprobs: For each of its tokens the candidates for its place, if asked for.
    """

    text: str
    finish_reason: str | None
    usage: Usage
    cumulative_logprob: float | None = None
    logprobs: Logprobs | None = None


@dataclass(frozen=True)
class Delta:
    """A part of an answer that came at once.

    Attributes:
        text: The new text; empty where a token makes no text of its own.
        finish_reason: Why the answer ends, in its last part; None where the engine does not tell.
        usage: Tokens of the whole request, in the last part and only there.
        cumulative_logprob: As of the whole answer up to here, if asked for.
        logprobs: For each new token the candidates for its place, if asked for.
    """

    text: str
    finish_reason: str | None = None
    usage: Usage | None = None
    cumulative_logprob: float | None = None
    logprobs: Logprobs | None = None


class AnswerBuilder:
    """Builds an answer from the responses of a request; `begin` it once the request is prepared.

    Attributes:
        text: The text so far.
        whole: The whole answer, once its last part was taken.
    """

    _tensors: TextTensors
    _prompt: str
    _origin: Origin

    def __init__(self) -> None:
        self.text = ""
        self.whole: Generation | None = None
        self._empty = True
        # The part with the finish reason, kept until the stream is over: a caller who stops reading there cancels
        # nothing.
        self._held: Delta | None = None
        self._finish_reason: str | None = None
        self._prompt_tokens: int | None = None
        self._completion_tokens: int | None = None
        self._cumulative_logprob: float | None = None
        self._logprobs: Logprobs | None = None

    def begin(self, tensors: TextTensors, prompt: str, origin: Origin) -> None:
        """Set the request's tensors, prompt and origin."""
        self._tensors, self._prompt, self._origin = tensors, prompt, origin

    def add(self, outputs: Mapping[str, Array]) -> Delta | None:
        """Add a response; returns its part of the answer, or None where that is kept for `last`.

        Raises:
            ServerError: An output does not have the type that its name promises.
        """
        try:
            response = self._tensors.read(outputs)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            fix = "see what it sends with client.stream(model, {...}), which gives the tensors"
            raise ServerError(f"the model's outputs are no language model's: {error}", fix, self._origin) from error
        new = response.text.removeprefix(self._prompt) if self._tensors.repeats_prompt else response.text
        new = new[len(self.text) :] if self._tensors.cumulative else new
        self._empty = False
        self.text += new
        self._finish_reason = response.finish_reason or self._finish_reason
        self._prompt_tokens = _or(response.prompt_tokens, self._prompt_tokens)
        if response.completion_tokens is not None:  # those of this response
            self._completion_tokens = response.completion_tokens + (self._completion_tokens or 0)
        self._cumulative_logprob = _or(response.cumulative_logprob, self._cumulative_logprob)
        if response.logprobs is not None:
            self._logprobs = (self._logprobs or ()) + response.logprobs
        delta = Delta(new, None, None, response.cumulative_logprob, response.logprobs)
        if self._finish_reason is None:
            return delta
        if self._held is not None:
            delta = replace(delta, text=self._held.text + new, logprobs=_joined(self._held.logprobs, delta.logprobs))
        self._held = delta
        return None

    def last(self) -> Delta:
        """The last part, once the stream is over.

        Raises:
            ServerError: There was no response.
        """
        if self._empty:
            raise ServerError("the model ended its stream without an answer", "see the server's log", self._origin)
        usage = Usage(self._prompt_tokens, self._completion_tokens)
        self.whole = Generation(self.text, self._finish_reason, usage, self._cumulative_logprob, self._logprobs)
        return replace(self._held or Delta(""), finish_reason=self._finish_reason, usage=usage)


def _or(new: T | None, known: T | None) -> T | None:
    return known if new is None else new


def _joined(first: Logprobs | None, second: Logprobs | None) -> Logprobs | None:
    return first if second is None else (first or ()) + second
