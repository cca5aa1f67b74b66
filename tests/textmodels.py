"""Scripted models with the tensors of the backends for language models, for the embedded server's Python backend.

They are no engines: they say their prompt back, word by word, by upstream's contract (names, types, optional inputs, what a
stream's responses hold, errors' words, cancellation). A prompt that begins with a line of JSON is a script: ``pause`` seconds
between tokens, ``fail`` after so many of them, ``mark`` a file to write when the request is cancelled, and ``echo`` to say
what sampling arrived.
"""

from __future__ import annotations

import json
from typing import Any

from models import tensor

from tritonkit.llm import tensorrt_llm

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|> {{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_COMMON = """
import json, pathlib, threading, time
import numpy as np
import triton_python_backend_utils as pb_utils

LIMIT = 64
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL

def value(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    item = tensor.as_numpy().reshape(-1)[0]
    return item.decode() if isinstance(item, bytes) else item.item()

def scripted(prompt):
    line, _, rest = prompt.partition("\\n")
    return (json.loads(line), rest) if line.startswith("{") else ({}, prompt)

def words(text):
    return [word if place == 0 else " " + word for place, word in enumerate(text.split(" "))]

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.serve, args=(request,)).start()

    def serve(self, request):
        sender = request.get_response_sender()
        try:
            self.answer(request, sender)
        except ValueError as error:
            text = pb_utils.Tensor("text_output", np.asarray(["N/A"], dtype=np.object_))
            failure = pb_utils.TritonError(f"{self.WHAT}: {error}")
            sender.send(pb_utils.InferenceResponse([text], error=failure), flags=FINAL)

    def tokens(self, request, sender, text, stops, limit):
        # The tokens one after another, each with why it is the last.
        script, rest = scripted(text)
        answer = json.dumps(self.arrived(request)) if script.get("echo") else rest
        if len(rest.split(" ")) > LIMIT:
            raise ValueError(f"The decoder prompt (length {len(rest.split(' '))}) is longer than the maximum model length of {LIMIT}.")
        pieces = words(answer)
        for number, piece in enumerate(pieces):
            if sender.is_cancelled() or request.is_cancelled():
                if "mark" in script:
                    pathlib.Path(script["mark"]).write_text(str(number))
                sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("Request was cancelled", pb_utils.TritonError.CANCELLED)), flags=FINAL)
                return
            if script.get("fail") == number:
                raise ValueError("the engine died" if "words" not in script else script["words"])
            stopped = "echo" not in script and any(stop in piece for stop in stops)
            last = "stop" if stopped or number == len(pieces) - 1 else "length" if number + 1 == limit else None
            yield ("" if stopped else piece), last, len(rest.split(" "))
            if last:
                return
            time.sleep(script.get("pause", 0.0))
"""

VLLM = (
    _COMMON
    + """
    WHAT = "Error generating stream"

    def initialize(self, args):
        names = [tensor["name"] for tensor in json.loads(args["model_config"])["input"]]
        self.whole = "exclude_input_in_output" not in names  # in every response: releases before 24.03

    def arrived(self, request):
        text = value(request, "sampling_parameters")
        return json.loads(request.parameters() if text is None else text)

    def answer(self, request, sender):
        parameters = self.arrived(request)
        lora = parameters.get("lora_name")
        if lora not in (None, "poet"):
            message = f"LoRA {lora} is not supported, we currently support ['poet']"
            text = pb_utils.Tensor("text_output", np.asarray([message], dtype=np.object_))
            sender.send(pb_utils.InferenceResponse([text], error=pb_utils.TritonError(message)), flags=FINAL)
            return
        if parameters.get("temperature", 1.0) < 0:
            raise ValueError(f"temperature must be non-negative, got {parameters['temperature']}.")
        stream = bool(value(request, "stream"))
        exclude = value(request, "exclude_input_in_output")
        if stream and exclude is False:
            raise ValueError("When streaming, `exclude_input_in_output` = False is not allowed.")
        prompt = value(request, "text_input")
        wants = lambda name: bool(value(request, name))
        stops = parameters.get("stop", [])
        tokens = self.tokens(request, sender, prompt, stops, parameters.get("max_tokens", 16))
        if stream:
            text = prompt
            for number, (piece, last, count) in enumerate(tokens):
                text += piece
                self.send(sender, wants, text if self.whole else piece, last, count, [number], FINAL if last else 0)
            return
        whole = list(tokens)
        if whole and whole[-1][1]:
            text = ("" if exclude else prompt) + "".join(piece for piece, _, _ in whole)
            self.send(sender, wants, text, whole[-1][1], whole[-1][2], list(range(len(whole))), FINAL)

    def send(self, sender, wants, text, last, count, numbers, flags):
        outputs = [pb_utils.Tensor("text_output", np.asarray([text.encode()], dtype=np.object_))]
        if wants("return_finish_reason"):
            outputs.append(pb_utils.Tensor("finish_reason", np.asarray([str(last)], dtype=np.object_)))
        if wants("return_cumulative_logprob"):
            outputs.append(pb_utils.Tensor("cumulative_logprob", np.asarray([-0.5 * (numbers[-1] + 1)], dtype=np.float32)))
        if wants("return_logprobs"):
            places = [{number: {"logprob": -0.5, "rank": 1, "decoded_token": "x"}, 99: {"logprob": -3.0, "rank": 2, "decoded_token": "y"}} for number in numbers]
            outputs.append(pb_utils.Tensor("logprobs", np.asarray([json.dumps(places).encode()], dtype=np.object_)))
        if wants("return_num_input_tokens"):
            outputs.append(pb_utils.Tensor("num_input_tokens", np.asarray(count, dtype=np.uint32)))
        if wants("return_num_output_tokens"):
            outputs.append(pb_utils.Tensor("num_output_tokens", np.asarray([len(numbers)], dtype=np.uint32)))
        sender.send(pb_utils.InferenceResponse(outputs), flags=flags)
"""
)

LLMAPI = (
    _COMMON
    + """
    WHAT = "Error generating request"

    def initialize(self, args):
        names = [tensor["name"] for tensor in json.loads(args["model_config"])["input"]]
        self.names = [name for name in names if name.startswith(("sampling_param_", "lora_"))]

    def arrived(self, request):
        sampling = {name: value(request, name) for name in self.names}
        stop = pb_utils.get_input_tensor_by_name(request, "sampling_param_stop")
        if stop is not None:
            sampling["sampling_param_stop"] = [text.decode() for text in stop.as_numpy()]
        return {name: item for name, item in sampling.items() if item is not None}

    def answer(self, request, sender):
        parameters = self.arrived(request)
        stream = bool(value(request, "streaming"))
        stops = parameters.get("sampling_param_stop", [])
        text = ""
        for piece, last, _ in self.tokens(request, sender, value(request, "text_input"), stops, parameters.get("sampling_param_max_tokens", 32)):
            text += piece  # the whole text so far is what the template sends
            if not stream and not last:
                continue
            outputs = [pb_utils.Tensor("text_output", np.asarray([text.encode()], dtype=np.object_))]
            for name, item in (("finish_reason", last), ("cumulative_logprob", -1.5)):
                if value(request, f"return_{name}"):
                    outputs.append(pb_utils.Tensor(name, np.asarray([str(item)], dtype=np.object_)))
            sender.send(pb_utils.InferenceResponse(outputs), flags=FINAL if last else 0)
"""
)

# As the backend completes a configuration by itself (vllm_backend, src/model.py, `_auto_complete_inputs_and_outputs`).
_VLLM_INPUTS = {
    "image": ("BYTES", "-1"), "stream": ("BOOL", "1"), "sampling_parameters": ("BYTES", "1"),
    "exclude_input_in_output": ("BOOL", "1"), "return_finish_reason": ("BOOL", "1"),
    "return_cumulative_logprob": ("BOOL", "1"), "return_logprobs": ("BOOL", "1"), "return_num_input_tokens": ("BOOL", "1"),
    "return_num_output_tokens": ("BOOL", "1"), "embedding_request": ("BYTES", "1"),
}  # fmt: skip
_VLLM_OUTPUTS = {
    "text_output": ("BYTES", "-1"), "finish_reason": ("BYTES", "-1"), "cumulative_logprob": ("FP32", "-1"),
    "logprobs": ("BYTES", "-1"), "num_input_tokens": ("UINT32", "1"), "num_output_tokens": ("UINT32", "-1"),
}  # fmt: skip
_DECOUPLED = 'backend: "python"\nmodel_transaction_policy { decoupled: true }\n'


def vllm_config(*without: str) -> str:
    """The backend's tensors, but for some that its older releases lack."""
    sides = tensor("input", "text_input", "BYTES", "1")
    sides += "".join(
        tensor("input", name, *spec, "optional: true") for name, spec in _VLLM_INPUTS.items() if name not in without
    )
    return (
        _DECOUPLED
        + sides
        + "".join(tensor("output", name, *spec) for name, spec in _VLLM_OUTPUTS.items() if name not in without)
    )


def llmapi_config() -> str:
    """The template's tensors, with those for adapters."""

    def sides(kind: str, specs: dict[str, tuple[str, int]]) -> str:
        more = {name: "optional: true" for name in specs if kind == "input" and name != "text_input"}
        return "".join(
            tensor(kind, name, dtype, str(size), more.get(name, "")) for name, (dtype, size) in specs.items()
        )

    inputs = tensorrt_llm._INPUTS | tensorrt_llm._LORA_INPUTS
    return _DECOUPLED + sides("input", inputs) + sides("output", tensorrt_llm._OUTPUTS)


def parameters(**values: str) -> str:
    """String parameters of a config.pbtxt."""
    return "".join(f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}\n"
                   for key, value in values.items())  # fmt: skip


def text_models() -> dict[str, tuple[str, str]]:
    """Code and configuration by name."""
    chat = parameters(
        chat_template=CHAT_TEMPLATE, special_tokens=json.dumps({"bos_token": "<s>"}), tokenizer_prefix="<s>"
    )
    newer = [
        name for name in (*_VLLM_INPUTS, *_VLLM_OUTPUTS) if name not in ("stream", "sampling_parameters", "text_output")
    ]
    adapters = parameters(
        lora_adapters=json.dumps({"critic": "/models/l/1/adapters/critic", "poet": "/models/l/1/adapters/poet"})
    )
    return {
        "llama": (VLLM, vllm_config() + chat),
        "llama_old": (VLLM, vllm_config(*newer)),
        "llama_trt": (LLMAPI, llmapi_config() + adapters),
    }


def script(text: str, **script: Any) -> str:
    """A prompt that the models above play."""
    return f"{json.dumps(script)}\n{text}"
