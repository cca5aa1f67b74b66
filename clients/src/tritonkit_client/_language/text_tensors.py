"""The tensors of language models in Triton: those of vLLM's backend, and those of TensorRT-LLM's llmapi template.

A model's metadata says which it has. Only inputs that it declares are sent, as releases differ. No I/O.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .._protocol.errors import InvalidInput, NotSupported, Origin
from .._protocol.metadata import ModelMetadata
from .._protocol.tensors import Array
from .generation import Logprobs, TokenLogprob

# Fields of vLLM's SamplingParams (vllm/sampling_params.py, releases 0.13 to 0.33) that are the caller's, but for those
# that are arguments of `Client.generate`; the backend adds lora_name, which is one too.
_VLLM_NAMES = (
    "allowed_token_ids", "bad_words", "detokenize", "extra_args", "flat_logprobs", "frequency_penalty",
    "guided_decoding", "ignore_eos", "include_stop_str_in_output", "logit_bias", "logprob_token_ids", "min_p",
    "min_tokens", "presence_penalty", "prompt_logprobs", "repetition_detection", "repetition_penalty",
    "skip_reading_prefix_cache",
    "skip_special_tokens", "spaces_between_special_tokens", "stop_token_ids", "stream_interval", "structured_outputs",
    "thinking_token_budget", "top_k", "top_p", "truncate_prompt_tokens", "watermarking",
)  # fmt: skip
# Those that vLLM's backend wants as JSON inside of the JSON (src/utils/vllm_backend_utils.py of vllm_backend).
_VLLM_TEXTS = ("structured_outputs", "guided_decoding")
# The parameter of a configuration with the places of adapters by name (build/src/tritonkit/llm/tensorrt_llm.py).
_ADAPTERS = "lora_adapters"
# The prefix of llmapi's inputs for sampling, and those of them that this client sets.
_LLMAPI_PREFIX = "sampling_param_"
_LLMAPI_OWN = ("exclude_input_from_output", "return_perf_metrics", "max_tokens", "temperature", "stop", "seed")


@dataclass(frozen=True)
class Sampling:
    """How the engine shall produce an answer.

    Attributes:
        stream: Whether the answer comes part by part.
        lora: The adapter; None for the model alone.
        logprobs: How many candidates to get for each token; None for none.
        cumulative_logprob: Whether to get the sum over all tokens.
        values: Other parameters by the engine's own names; None leaves a parameter to the engine.
    """

    stream: bool
    lora: str | None = None
    logprobs: int | None = None
    cumulative_logprob: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TextResponse:
    """The fields of one response; None for those that it lacks."""

    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cumulative_logprob: float | None = None
    logprobs: Logprobs | None = None


class TextTensors:
    """The tensors of a model, as far as both engines have the same.

    Args:
        metadata: The model.
        origin: The call, for errors.

    Attributes:
        engine: The engine's name.
    """

    engine: ClassVar[str]

    def __init__(self, metadata: ModelMetadata, origin: Origin) -> None:
        self._metadata = metadata
        self._origin = origin
        self._inputs = {spec.name: spec for spec in metadata.inputs}

    def request(self, prompt: str, sampling: Sampling) -> dict[str, Any]:
        """The inputs.

        Raises:
            InvalidInput: The engine does not know a parameter, or a value is not JSON.
            NotSupported: The model does not stream.
        """
        raise NotImplementedError

    @property
    def cumulative(self) -> bool:
        """Whether each response of a stream has the whole text so far, instead of what is new."""
        raise NotImplementedError

    @property
    def repeats_prompt(self) -> bool:
        """Whether the text of each response begins with the prompt."""
        return False

    def read(self, outputs: Mapping[str, Array]) -> TextResponse:
        """Read the outputs of a response.

        Raises:
            ValueError, TypeError: An output does not have the type that its name promises.
        """
        candidates = _first(outputs, "logprobs")
        reason = _first(outputs, "finish_reason")
        return TextResponse(
            _text(_first(outputs, "text_output")),
            None if reason is None else _text(reason),
            _count(_first(outputs, "num_input_tokens")),
            _count(_first(outputs, "num_output_tokens")),
            _number(_first(outputs, "cumulative_logprob")),
            None if candidates is None else _logprobs(candidates),
        )

    def _given(self, sampling: Sampling, names: Sequence[str]) -> dict[str, Any]:
        """The parameters that are not None.

        Raises:
            InvalidInput: The engine does not know a name.
        """
        given = {name: _plain(value) for name, value in sampling.values.items() if value is not None}
        for name in given:
            if name in ("n", "best_of") and name not in names:
                fix = "leave it out, and call generate as often as you want answers"
                raise InvalidInput(f"{name}= is for several answers, and this is for one", fix, self._origin)
            if name not in names:
                raise self._unknown(name, names)
        return given

    def _unknown(self, name: str, names: Sequence[str]) -> InvalidInput:
        near = difflib.get_close_matches(name, names, 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        return InvalidInput(
            f"{self.engine} of model {self._origin.model} has no parameter {name!r}",
            f"{meant}It has {', '.join(sorted(names))}",
            self._origin,
        )

    def _flag(self, name: str, word: str) -> dict[str, Any]:
        """The input, set to true, that asks for something.

        Raises:
            InvalidInput: The model has no such input.
        """
        if name not in self._inputs:
            raise InvalidInput(
                f"{self.engine} of model {self._origin.model} does not tell {word}: it has no input {name!r}",
                f"leave it out; it has the inputs {', '.join(self._inputs)}",
                self._origin,
            )
        return {name: True}

    def _shaped(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of those inputs that the model has, as lists of as many dimensions as it wants."""
        shaped = {}
        for name, spec in self._inputs.items():
            if name in values:
                value = values[name]
                value = list(value) if isinstance(value, (list, tuple)) else [value]
                for _ in spec.shape[1:]:
                    value = [value]
                shaped[name] = value
        return shaped


class VllmTensors(TextTensors):
    """vLLM's backend (triton-inference-server/vllm_backend, src/model.py) in all of its releases.

    Those before 24.03 have no ``exclude_input_in_output``: every response has the prompt and the whole text so far.
    """

    engine = "vLLM"

    def request(self, prompt: str, sampling: Sampling) -> dict[str, Any]:
        """See `TextTensors.request`."""
        names = (*_VLLM_NAMES, "max_tokens", "temperature", "stop", "seed")
        given = self._given(sampling, names)
        values: dict[str, Any] = {"text_input": prompt, "stream": sampling.stream, "exclude_input_in_output": True}
        for name in ("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens"):
            values[name] = True
        if sampling.lora is not None:
            given["lora_name"] = sampling.lora
        if sampling.logprobs is not None:
            values |= self._flag("return_logprobs", "log probabilities")
            given["logprobs"] = sampling.logprobs
        if sampling.cumulative_logprob:
            values |= self._flag("return_cumulative_logprob", "a cumulative log probability")
            given.setdefault("logprobs", 0)  # of the chosen tokens: vLLM has no sum without them
        if given and "sampling_parameters" not in self._inputs:
            fix = f"leave {', '.join(given)} out, or add the backend's input to its config.pbtxt"
            raise InvalidInput(f"model {self._origin.model} has no input 'sampling_parameters'", fix, self._origin)
        for name in _VLLM_TEXTS:
            if name in given and not isinstance(given[name], str):
                given[name] = json.dumps(given[name])
        values["sampling_parameters"] = _json(given, self._origin)
        return self._shaped(values)

    @property
    def cumulative(self) -> bool:
        """See `TextTensors.cumulative`."""
        return "exclude_input_in_output" not in self._inputs

    @property
    def repeats_prompt(self) -> bool:
        """See `TextTensors.repeats_prompt`."""
        return self.cumulative


class LlmapiTensors(TextTensors):
    """TensorRT-LLM's template (NVIDIA/TensorRT-LLM, triton_backend/all_models/llmapi/tensorrt_llm).

    Every response of a stream has ``RequestOutput.text``, the whole text so far. Tokens are not counted.
    """

    engine = "TensorRT-LLM"

    @property
    def cumulative(self) -> bool:
        """See `TextTensors.cumulative`."""
        return True

    def request(self, prompt: str, sampling: Sampling) -> dict[str, Any]:
        """See `TextTensors.request`."""
        if sampling.stream and not self._metadata.decoupled:
            raise NotSupported(
                f"model {self._origin.model} does not stream: it is not decoupled",
                "call client.generate, or set `triton_config: {decoupled: true}` in its model.yaml",
                self._origin,
            )
        own = [name.removeprefix(_LLMAPI_PREFIX) for name in self._inputs if name.startswith(_LLMAPI_PREFIX)]
        lora = [name for name in self._inputs if name.startswith("lora_") and name != "lora_name"]
        given = self._given(sampling, [name for name in own if name not in _LLMAPI_OWN[:2]] + lora)
        values: dict[str, Any] = {"text_input": prompt, "streaming": sampling.stream, "return_finish_reason": True}
        values[f"{_LLMAPI_PREFIX}exclude_input_from_output"] = True
        values |= {name if name in lora else f"{_LLMAPI_PREFIX}{name}": value for name, value in given.items()}
        if sampling.lora is not None:
            values |= self._adapter(sampling.lora, given)
        if sampling.logprobs is not None:
            values |= self._flag("return_logprobs", "log probabilities")
        if sampling.cumulative_logprob:
            values |= self._flag("return_cumulative_logprob", "a cumulative log probability")
        return self._shaped(values)

    def _adapter(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs that name an adapter; its name alone does not tell the engine where it is."""
        if "lora_name" not in self._inputs:
            raise InvalidInput(
                f"model {self._origin.model} takes no adapter: it has no input 'lora_name'",
                "leave lora= out, or add the template's inputs for LoRA to its config.pbtxt",
                self._origin,
            )
        if {"lora_id", "lora_path"} <= given.keys():
            return {"lora_name": name}
        # Of a model that `tritonkit build` wrote; numbers from 1, as vLLM's backend has them.
        places = json.loads(self._metadata.parameters.get(_ADAPTERS, "{}"))
        if name not in places:
            known = f"lora= one of {', '.join(places)}, or " if places else ""
            raise InvalidInput(
                f"lora={name!r} is not enough for {self.engine} to find the adapter",
                f"give {known}lora_id= (a number of its own) and lora_path= (its directory on the server) too",
                self._origin,
            )
        return {"lora_name": name, "lora_id": list(places).index(name) + 1, "lora_path": places[name]}


def text_tensors(metadata: ModelMetadata, origin: Origin) -> TextTensors:
    """The tensors of a language model.

    Raises:
        InvalidInput: The model has others.
    """
    names = {spec.name for spec in metadata.inputs}
    if "text_input" in names:
        if "streaming" in names or any(name.startswith(_LLMAPI_PREFIX) for name in names):
            return LlmapiTensors(metadata, origin)
        if names & {"stream", "sampling_parameters"}:
            return VllmTensors(metadata, origin)
    raise InvalidInput(
        f"model {origin.model} is no language model of vLLM's backend or of TensorRT-LLM's llmapi template: its inputs"
        f" are {', '.join(sorted(names)) or 'not declared'}",
        "call it by its tensors, with client.infer(model, ...) or client.stream(model, {...})",
        origin,
    )


def _plain(value: Any) -> Any:
    """A value without numpy."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return list(value) if isinstance(value, (tuple, set, frozenset)) else value


def _json(given: Mapping[str, Any], origin: Origin) -> str:
    try:
        return json.dumps(given, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"a parameter is not JSON: {error}", "give finite numbers, text, lists and dicts", origin
        ) from error


def _first(outputs: Mapping[str, Array], name: str) -> Any:
    """The first element of an output; None where the output is missing or empty, or has Python's None as text."""
    array = outputs.get(name)
    if array is None or not array.size:
        return None
    item = array.reshape(-1)[0]
    return None if item in (b"None", "None") and name != "text_output" else item


def _text(item: Any) -> str:
    if item is None:
        return ""
    return item.decode(errors="replace") if isinstance(item, bytes) else str(item)


def _count(item: Any) -> int | None:
    return None if item is None else int(item)


def _number(item: Any) -> float | None:
    """A number, which TensorRT-LLM's template sends as text; None for NaN, which vLLM sends for None."""
    number = None if item is None else float(_text(item))
    return None if number is None or math.isnan(number) else number


def _logprobs(item: Any) -> Logprobs | None:
    places = json.loads(_text(item))
    if places is None:
        return None
    return tuple(
        {int(token): TokenLogprob(float(entry["logprob"]), entry.get("rank"), entry.get("decoded_token"))
         for token, entry in place.items()}
        for place in places
    )  # fmt: skip
