"""What one request asks of ``/v1/completions``, and what of the answer goes into Triton's output tensors.

Names, types and meaning are those of NVIDIA's backend: texts and counts since the response before, one element for each
of the ``n`` sequences. Parts that come faster than they are sent are joined.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import numpy as np

PREFIX = "token_id:"  # vLLM writes tokens so where it is asked for their numbers
FLAGS = (
    "return_finish_reason",
    "return_cumulative_logprob",
    "return_logprobs",
    "return_num_input_tokens",
    "return_num_output_tokens",
)


class _Sequence:
    """One of the ``n`` continuations of a prompt: what came of it and was not sent yet."""

    def __init__(self) -> None:
        self.text = ""
        self.tokens = 0
        self.logprobs: list[Any] = []
        self.cumulative_logprob = math.nan
        self.finish_reason: str | None = None


class Answer:
    """One request on its way.

    Args:
        prompt: Its text.
        body: Of the sampling parameters, for ``/v1/completions``.
        stream: Whether parts are sent as they come.
        prepend: Whether the prompt stands before the text.
        flags: Names of the inputs of :data:`FLAGS` that are true.
    """

    def __init__(self, prompt: str, body: dict[str, Any], *, stream: bool, prepend: bool, flags: Set[str]) -> None:
        self.prompt = prompt
        self.stream = stream
        self._body = body
        self._flags = flags
        self._prefix = prompt if prepend else ""
        self._sequences = [_Sequence() for _ in range(max(1, body.get("n", 1)))]
        self._prompt_tokens = 0
        self._changed = False
        self._lock = threading.Lock()

    def request(self, model: str) -> dict[str, Any]:
        """The body of the call, for a model or the name of an adapter."""
        body = {**self._body, "model": model, "prompt": self.prompt, "stream": self.stream}
        if self._flags & {"return_num_output_tokens", "return_logprobs"}:
            body["return_token_ids"] = True
        if "logprobs" in body:
            body["return_tokens_as_token_ids"] = True
        if self.stream and "return_num_input_tokens" in self._flags:
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        return body

    @property
    def finished(self) -> bool:
        """Whether every sequence has ended."""
        return all(sequence.finish_reason is not None for sequence in self._sequences)

    def tokens(self, event: Mapping[str, Any]) -> set[int]:
        """Numbers of the tokens whose texts the output ``logprobs`` needs."""
        if "return_logprobs" not in self._flags:
            return set()
        steps = [step for choice in event["choices"] for step in _steps(choice)]
        return {token for _, step in steps for token in step}

    def add(self, event: Mapping[str, Any], texts: Mapping[int, str] | None = None) -> None:
        """Take up an event of a stream, or the whole answer.

        Args:
            event: As vLLM sends it.
            texts: Token to its text, of all that :meth:`tokens` named.
        """
        with self._lock:
            if event.get("usage"):
                self._prompt_tokens = event["usage"]["prompt_tokens"]
            for choice in event["choices"]:
                self._changed = True
                sequence = self._sequences[choice["index"]]
                sequence.text += choice["text"]
                sequence.tokens += len(choice.get("token_ids") or ())
                sequence.finish_reason = choice["finish_reason"] or sequence.finish_reason
                if "logprobs" in self._body:
                    self._add_logprobs(sequence, choice, texts or {})

    def take(self) -> tuple[dict[str, np.ndarray[Any, Any]], bool]:
        """What came since the last call: name of an output tensor to its array, and whether that was the last.

        Nothing and False where nothing came.
        """
        with self._lock:
            if not self._changed:
                return {}, False
            self._changed = False
            sequences, finished = self._sequences, self.finished
            outputs = {"text_output": _strings(self._prefix + sequence.text for sequence in sequences)}
            if "return_finish_reason" in self._flags:
                outputs["finish_reason"] = _strings(str(sequence.finish_reason) for sequence in sequences)
            if "return_cumulative_logprob" in self._flags:
                sums = [sequence.cumulative_logprob for sequence in sequences]
                outputs["cumulative_logprob"] = np.array(sums, np.float32)
            if "return_logprobs" in self._flags:
                has_logprobs = "logprobs" in self._body
                parts = (json.dumps(sequence.logprobs) if has_logprobs else "null" for sequence in sequences)
                outputs["logprobs"] = _strings(parts)
            if "return_num_input_tokens" in self._flags:
                outputs["num_input_tokens"] = np.array([self._prompt_tokens], np.uint32)
            if "return_num_output_tokens" in self._flags:
                outputs["num_output_tokens"] = np.array([sequence.tokens for sequence in sequences], np.uint32)
            self._prefix = ""
            for sequence in sequences:
                sequence.text, sequence.tokens, sequence.logprobs = "", 0, []
            return outputs, finished

    def _add_logprobs(self, sequence: _Sequence, choice: Mapping[str, Any], texts: Mapping[int, str]) -> None:
        for logprob, step in _steps(choice):
            if math.isnan(sequence.cumulative_logprob):
                sequence.cumulative_logprob = 0.0
            sequence.cumulative_logprob += logprob
            if "return_logprobs" in self._flags:
                sequence.logprobs.append(_described(step, self._body["logprobs"], texts))


def _steps(choice: Mapping[str, Any]) -> Iterator[tuple[float, dict[int, float]]]:
    """For each new token its log-probability, and token to log-probability of it and the likeliest."""
    logprobs = choice.get("logprobs") or {}
    pairs = zip(logprobs.get("token_logprobs", ()), logprobs.get("top_logprobs", ()), strict=False)
    for logprob, likeliest in pairs:
        if likeliest is not None:
            yield logprob, {int(token[len(PREFIX) :]): value for token, value in likeliest.items()}


def _described(step: Mapping[int, float], count: int, texts: Mapping[int, str]) -> dict[str, Any]:
    """One step as NVIDIA's backend writes it.

    The rank of a token that was drawn from beyond the likeliest is not known here: null.
    """
    ordered = sorted(step, key=lambda token: step[token], reverse=True)
    ranks = {token: rank for rank, token in enumerate(ordered, 1) if count == -1 or rank <= count}
    return {
        str(token): {"logprob": value, "rank": ranks.get(token), "decoded_token": texts.get(token)}
        for token, value in step.items()
    }


def _strings(texts: Iterable[str]) -> np.ndarray[Any, Any]:
    return np.array([text.encode("utf-8") for text in texts], dtype=object)
