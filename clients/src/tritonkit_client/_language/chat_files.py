"""The chat template in the files of a Hugging Face directory, and what its tokenizer adds to a prompt by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from .._protocol.errors import InvalidInput, Origin

# As transformers names them: a tokenizer's SPECIAL_TOKENS_ATTRIBUTES.
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_CONFIG, _TOKENIZER, _TEMPLATE = "tokenizer_config.json", "tokenizer.json", "chat_template.jinja"
Directory = tuple[Mapping[str, str], Mapping[str, str], str]


def read_directory(place: str, origin: Origin) -> Directory | None:
    """Templates by name, the texts of special tokens, and the tokenizer's prefix; None where it is not a directory.

    Raises:
        InvalidInput: It has no template, or a file of it cannot be read.
    """
    path = Path(place)
    if not path.is_dir():
        return None
    try:
        names = (_CONFIG, _TOKENIZER, _TEMPLATE)
        read = _read(path, tuple((path / name).stat().st_mtime_ns for name in names if (path / name).is_file()))
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{path} cannot be read: {error}", "give the model's Hugging Face directory", origin
        ) from error
    if "default" not in read[0]:
        fix = "give a directory whose tokenizer has one, or a .jinja file"
        raise InvalidInput(f"{path} has no chat template", fix, origin)
    return read


def read_template(place: str, origin: Origin) -> str:
    """The text of a file with a template.

    Raises:
        InvalidInput: It cannot be read.
    """
    try:
        return Path(place).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        fix = "give chat_template= a Hugging Face directory, a file, or the template itself"
        raise InvalidInput(f"{place!r:.200} cannot be read: {error}", fix, origin) from error


@lru_cache(maxsize=16)  # a tokenizer.json is megabytes
def _read(path: Path, _changed: tuple[int, ...]) -> Directory:
    config = _json(path / "special_tokens_map.json") | _json(path / _CONFIG)
    tokens = {name: text for name in _TOKENS if (text := _token(config.get(name)))}
    return _templates(path, config), tokens, _prefix(path, config, tokens)


def _json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return value


def _token(value: Any) -> str:
    return str(value.get("content") or "") if isinstance(value, dict) else str(value or "")


def _templates(path: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Templates by name; a file of its own comes before the tokenizer's configuration."""
    listed = config.get("chat_template") or _json(path / "chat_template.json").get("chat_template") or {}
    if isinstance(listed, str):
        listed = {"default": listed}
    elif isinstance(listed, list):
        listed = {entry["name"]: entry["template"] for entry in listed}
    templates: dict[str, str] = dict(listed)
    for file in (path / "additional_chat_templates").glob("*.jinja"):
        templates[file.stem] = file.read_text(encoding="utf-8")
    if (path / _TEMPLATE).is_file():
        templates["default"] = (path / _TEMPLATE).read_text(encoding="utf-8")
    return templates


def _prefix(path: Path, config: Mapping[str, Any], tokens: Mapping[str, str]) -> str:
    """The token that the tokenizer puts in front of every prompt; empty where it adds none."""
    bos = tokens.get("bos_token", "")
    if isinstance(config.get("add_bos_token"), bool):
        return bos if config["add_bos_token"] else ""
    post = _json(path / _TOKENIZER).get("post_processor") or {}
    for step in (post, *(post.get("processors") or ())):
        single = step.get("single") if step.get("type") == "TemplateProcessing" else None
        if single and "SpecialToken" in single[0]:
            return str(single[0]["SpecialToken"]["id"])
    return bos if not post and str(config.get("tokenizer_class", "")).startswith("LlamaTokenizer") else ""
