"""What Triton runs as ``<model>_tokenizer``: a batch of strings in, padded token ids, mask and type ids out.

A copy of this file lies in the repository. It runs in the server's own environment, so it imports nothing of
tritonkit; what to pad and where to cut stands in ``tokenizer_settings.json`` beside it.
"""

import json
import locale
import os
from pathlib import Path
from typing import Any

locale.setlocale(locale.LC_ALL, "C.UTF-8")  # the stub starts in ASCII, whatever the environment says
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # instances run beside each other; threads would fight over the cores

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # noqa: E402
from tokenizers import Encoding, Tokenizer  # noqa: E402


class TritonPythonModel:
    """One instance of the tokenizer."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer and its settings, and encode once, so that the first request does not pay for it."""
        directory = Path(args["model_repository"], args["model_version"])
        self.settings = json.loads((directory / "tokenizer_settings.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_str((directory / "tokenizer.json").read_text(encoding="utf-8"))
        self.tokenizer.enable_truncation(self.settings["max_tokens"], direction=self.settings["truncation_side"])
        self.tokenizer.no_padding()  # it knows no smallest and no largest length
        config = json.loads(args["model_config"])
        self.input_name = config["input"][0]["name"]
        self.dtypes = {
            output["name"]: pb_utils.triton_string_to_numpy(output["data_type"]) for output in config["output"]
        }
        self.batched = config["max_batch_size"] > 0
        self.tokenizer.encode_batch_fast(["A first text."])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer or refuse each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            texts = _decoded(pb_utils.get_input_tensor_by_name(request, self.input_name).as_numpy())
        except ValueError as error:
            return _refusal(str(error), pb_utils.TritonError.INVALID_ARG)
        try:
            encoded = self.tokenizer.encode_batch_fast(texts)
        except Exception as error:  # the library raises nothing more specific
            return _refusal(f"the tokenizer failed: {error}", pb_utils.TritonError.INTERNAL)
        length = self._length(max(len(item) for item in encoded))
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, self._padded(name, encoded, length)) for name in self.dtypes]
        )

    def _length(self, longest: int) -> int:
        """What a request is padded to: the next multiple of ``pad_to``, within what the model takes."""
        multiple = -(-longest // self.settings["pad_to"]) * self.settings["pad_to"]
        return int(min(max(multiple, self.settings["min_length"]), self.settings["max_length"]))

    def _padded(self, name: str, encoded: list[Encoding], length: int) -> Any:
        """One of the model's inputs, (texts, length), or (length,) where the model has no batch dimension."""
        array = np.full((len(encoded), length), self.settings["padding"][name], dtype=self.dtypes[name])
        for row, item in zip(array, encoded, strict=True):
            used = slice(length - len(item), None) if self.settings["padding_side"] == "left" else slice(len(item))
            row[used] = 1 if name == "attention_mask" else item.ids if name == "input_ids" else item.type_ids
        return array if self.batched else array[0]


def _decoded(array: Any) -> list[str]:
    texts = []
    for index, item in enumerate(array.reshape(-1)):
        try:
            texts.append(item.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"text {index} is not UTF-8: {error.reason} at byte {error.start}") from error
    return texts


def _refusal(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
