"""Sampling parameters of a request, as NVIDIA's backend takes them, as the body of a call of ``/v1/completions``.

They are JSON with the names of vLLM's ``SamplingParams`` and ``lora_name``. What a caller leaves out has the default of
``SamplingParams``: the generation defaults of the model's directory are the HTTP API's own and do not hold here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


class ParameterError(ValueError):
    """A parameter is unknown, or has a value that cannot be meant."""


def _boolean(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "1", "false", "0"):
        return value.lower() in ("true", "1")
    if isinstance(value, (bool, int)):
        return bool(value)
    raise ValueError("not true or false")


def _integer(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError("not a whole number")
    return int(value)


def _object(value: Any) -> Any:
    """NVIDIA's backend takes ``structured_outputs`` as JSON in a string."""
    return json.loads(value) if isinstance(value, str) else value


def _unchanged(value: Any) -> Any:
    return value


# vllm/sampling_params.py (0.32.0): those that vllm/entrypoints/openai/completion/protocol.py hands on. Values that are
# no string of theirs but one of JSON are converted, as the request parameters of some clients are all strings.
KINDS: dict[str, Callable[[Any], Any]] = {
    "n": _integer,
    "presence_penalty": float,
    "frequency_penalty": float,
    "repetition_penalty": float,
    "temperature": float,
    "top_p": float,
    "top_k": _integer,
    "min_p": float,
    "seed": _integer,
    "stop": _unchanged,
    "stop_token_ids": _unchanged,
    "ignore_eos": _boolean,
    "max_tokens": _integer,
    "min_tokens": _integer,
    "logprobs": _integer,
    "prompt_logprobs": _integer,
    "logprob_token_ids": _unchanged,
    "skip_special_tokens": _boolean,
    "spaces_between_special_tokens": _boolean,
    "include_stop_str_in_output": _boolean,
    "stream_interval": _integer,
    "structured_outputs": _object,
    "logit_bias": _unchanged,
    "allowed_token_ids": _unchanged,
    "bad_words": _unchanged,
    "repetition_detection": _object,
    "thinking_token_budget": _integer,
    "truncate_prompt_tokens": _integer,
    "watermarking": _boolean,
    "extra_args": _unchanged,
}
LORA = "lora_name"
RENAMED = {"extra_args": "vllm_xargs"}
# Of SamplingParams, which the HTTP API would else replace by the model's generation defaults.
DEFAULTS = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
}
OF_TRITON = "triton_"  # request parameters with this prefix are Triton's own


def completion_request(parameters: str, longest: int) -> tuple[dict[str, Any], str | None]:
    """What a request's parameters are for ``/v1/completions``.

    Args:
        parameters: JSON.
        longest: The model's longest context in tokens, which ``max_tokens: null`` stands for.

    Returns:
        The body, and the name of the adapter or None.

    Raises:
        ParameterError: ``parameters`` is not a JSON object, a key is unknown, or a value has the wrong type.
    """
    try:
        given = json.loads(parameters) if parameters else {}
    except ValueError as error:
        raise ParameterError(f"the sampling parameters are not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ParameterError("the sampling parameters are no JSON object")
    adapter = given.pop(LORA, None)
    body: dict[str, Any] = dict(DEFAULTS)
    for key, value in given.items():
        if key.startswith(OF_TRITON):
            continue
        if key not in KINDS:
            raise ParameterError(f"{key} is no sampling parameter; those are {', '.join([*KINDS, LORA])}")
        if value is None:
            if key == "max_tokens":
                body[key] = longest
            continue
        try:
            body[RENAMED.get(key, key)] = KINDS[key](value)
        except (TypeError, ValueError) as error:
            raise ParameterError(f"{key} is {json.dumps(value)}: {error}") from None
    if body.get("max_tokens", 0) > longest:  # the HTTP API refuses it, the engine stops at the context's end
        body["max_tokens"] = longest
    return body, adapter
