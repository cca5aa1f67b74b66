"""What a Hugging Face directory says of its model: configuration, tokenizer, chat template, quantization.

Values that ``config.json`` leaves out are those of transformers' configuration class, where transformers is installed
and knows the type; Gemma 3's own files, for one, rely on it. No code of the directory is run.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tritonkit.errors import SourceError

CONFIG = "config.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "spiece.model", "vocab.txt")
# Keys of the longest context, as vLLM 0.24.0 looks for them (transformers_utils/model_arch_config_convertor.py).
_LENGTHS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length",
    "max_target_positions", "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
# With these a Llama needs no defaults of transformers, which takes seconds to import.
_SIZES = frozenset({
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size",
    "max_position_embeddings",
})  # fmt: skip
# Types whose max_position_embeddings is scaled already (_get_and_verify_max_len of vllm/config/model.py, 0.24.0).
_SCALED = ("su", "longrope", "llama3")


@dataclass(frozen=True)
class Directory:
    """A Hugging Face directory.

    Attributes:
        path: The directory.
        config: ``config.json`` with what it leaves out filled in.
    """

    path: Path
    config: Mapping[str, Any]

    @cached_property
    def text(self) -> Mapping[str, Any]:
        """The language model's part of the configuration: all of it, but for models that take pictures too."""
        part = self.config.get("text_config")
        return part if isinstance(part, dict) and part else self.config

    @property
    def architecture(self) -> str:
        """The class that ``architectures`` names first; empty where it names none."""
        return next(iter(self.config.get("architectures") or ()), "")

    @property
    def model_type(self) -> str:
        """The ``model_type`` of the language model."""
        return str(self.text.get("model_type") or self.config.get("model_type") or "")

    def number(self, *names: str) -> int | None:
        """The first of these fields of the language model that is a number."""
        return next((value for name in names if isinstance(value := self.text.get(name), int)), None)

    def needed(self, *names: str) -> int:
        """As :meth:`number`.

        Raises:
            SourceError: The model has none of these fields.
        """
        value = self.number(*names)
        if value is None:
            raise SourceError(
                f"{self.path / CONFIG} has no {names[0]}",
                f"add it, or install transformers, which knows the defaults of the type {self.model_type!r}",
            )
        return value

    @property
    def layers(self) -> int:
        """How many layers the model has."""
        return self.needed("num_hidden_layers", "n_layer", "n_layers", "num_layers")

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return self.needed("num_attention_heads", "n_head", "n_heads", "num_heads")

    @property
    def kv_heads(self) -> int:
        """Key and value heads of a layer; as many as attention heads where nothing else is said."""
        names = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
        return self.number(*names) or self.heads

    @property
    def hidden(self) -> int:
        """Width of a layer."""
        return self.needed("hidden_size", "n_embd", "d_model")

    @property
    def head_dim(self) -> int:
        """Size of a head: its own field where there is one, as it need not be the width over the heads."""
        return self.number("head_dim", "hidden_size_per_head") or self.hidden // self.heads

    @cached_property
    def longest(self) -> tuple[int | None, str]:
        """The longest context that the engine takes, and the field that says so; None where nothing limits it."""
        limits = [(value, name) for name in _LENGTHS if isinstance(value := self.text.get(name), int)]
        if not limits:
            return None, ""
        limit, field = min(limits)
        if own := self.text.get("model_max_length"):
            limit, field = int(own), "model_max_length"
        length = min(float(limit), self._tokenizer_limit)
        if length < limit:
            field = "model_max_length of tokenizer_config.json"
        factor = 1.0
        for rope in self._ropes if "gemma3" not in self.model_type else ():
            kind = rope.get("rope_type") or rope.get("type") or "default"
            if kind not in _SCALED:
                factor = float(rope.get("factor") or factor)
                if kind == "yarn" and rope.get("original_max_position_embeddings"):
                    length, field = float(rope["original_max_position_embeddings"]), "original_max_position_embeddings"
        if factor != 1:
            field += f" × rope factor {factor:g}"
        return int(length * factor), field

    @property
    def _ropes(self) -> list[dict[str, Any]]:
        rope: dict[str, Any] = self.text.get("rope_scaling") or self.text.get("rope_parameters") or {}
        nested: list[dict[str, Any]] = [part for part in rope.values() if isinstance(part, dict)]
        return nested or [rope]

    @property
    def _tokenizer_limit(self) -> float:
        limit = self.tokenizer_config.get("model_max_length")
        return float(limit) if isinstance(limit, int | float) and not isinstance(limit, bool) else math.inf

    @cached_property
    def tokenizer_config(self) -> Mapping[str, Any]:
        """``tokenizer_config.json``; empty where there is none."""
        return read_json(self.path / "tokenizer_config.json")

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a file that a tokenizer is made of."""
        return any((self.path / name).is_file() for name in _TOKENIZERS)

    @property
    def has_chat_template(self) -> bool:
        """Whether messages can be put into a prompt: a template in a file of its own, or in the tokenizer's."""
        files = ("chat_template.jinja", "chat_template.json")
        return any((self.path / name).is_file() for name in files) or bool(self.tokenizer_config.get("chat_template"))

    @cached_property
    def quantization(self) -> str:
        """The method by which the weights are quantized, as ``config.json`` names it; empty where they are not."""
        section = self.config.get("quantization_config") or self.text.get("quantization_config") or {}
        return str(section.get("quant_method") or "").lower() if isinstance(section, dict) else ""

    @property
    def dtype(self) -> str:
        """The type that the configuration names, as ``bfloat16``; empty where it names none."""
        dtype = self.text.get("dtype") or self.text.get("torch_dtype")
        dtype = dtype or self.config.get("dtype") or self.config.get("torch_dtype")
        return str(dtype or "").removeprefix("torch.")


def read(path: Path) -> Directory:
    """Look at a directory.

    Raises:
        SourceError: ``path`` is not a directory, or its ``config.json`` is missing or not a JSON object.
    """
    if not path.is_dir():
        raise SourceError(f"{path} is not a directory", "name a Hugging Face model directory")
    if not (path / CONFIG).is_file():
        raise SourceError(f"{path} has no {CONFIG}", "name a Hugging Face model directory, which has one")
    raw = read_json(path / CONFIG)
    return Directory(path, _with_defaults(raw))


def read_any(path: Path) -> Directory:
    """Look at a directory, or at a ``config.json`` alone, under whatever name.

    Raises:
        SourceError: ``path`` is neither, or the file is not a JSON object.
    """
    file = path if path.is_file() else path / CONFIG
    if not file.is_file():
        return read(path)
    raw = read_json(file)
    whole = raw.get("model_type") == "llama" and not _SIZES - raw.keys()
    return Directory(file.parent, raw if whole else _with_defaults(raw))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; empty where there is no file.

    Raises:
        SourceError: The file cannot be read, or is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not JSON: {str(error)[:100]}", "download the file again") from error
    if not isinstance(value, dict):
        raise SourceError(f"{path} is no JSON object", "download the file again")
    return value


def is_language_model(path: Path) -> bool:
    """Whether a directory has a model that generates text, judged by the name of its architecture."""
    if not (path / CONFIG).is_file() or (path / "modules.json").is_file():
        return False
    names = read_json(path / CONFIG).get("architectures") or [""]
    return str(names[0]).endswith(("ForCausalLM", "LMHeadModel"))


def _with_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` over the defaults of its type, which a directory need not repeat."""
    kind = raw.get("model_type")
    if not isinstance(kind, str) or importlib.util.find_spec("transformers") is None:
        return raw
    import transformers

    if kind not in transformers.CONFIG_MAPPING:
        return raw
    try:
        defaults = transformers.CONFIG_MAPPING[kind].from_dict(raw).to_dict()
    except Exception:  # the class refuses this file in its own ways; the file alone is judged then
        return raw
    text = raw.get("text_config")
    merged = {**defaults, **raw}
    if isinstance(text, dict) and isinstance(defaults.get("text_config"), dict):
        merged["text_config"] = {**defaults["text_config"], **text}
    return merged
