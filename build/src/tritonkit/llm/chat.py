"""What a model's configuration tells clients of its conversations: the chat template, and the tokens that it writes.

Triton's tensors take a prompt, not messages, and the tokenizer with the template lies where no client can read it.
Clients can read the ``parameters`` of a configuration, which both engines leave alone: tritonkit's client makes prompts
by them (docs/decisions/0028-the-server-publishes-the-chat-template.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tritonkit.errors import SourceError
from tritonkit.llm.directory import Directory, read_json

# The attributes that transformers hands to a template (PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES).
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def parameters(directory: Directory) -> dict[str, str]:
    """The parameters; none without a chat template.

    ``chat_template`` is Jinja, and ``chat_template_tool_use`` what replaces it where there are tools, if that is
    another one. ``special_tokens`` is a JSON object of texts. ``tokenizer_prefix`` is what the tokenizer puts in front
    of every prompt by itself: whoever sends a prompt that begins with it has it twice.

    Raises:
        SourceError: A file with a template cannot be read.
    """
    templates = _templates(directory)
    if "default" not in templates:
        return {}
    config = {**read_json(directory.path / "special_tokens_map.json"), **directory.tokenizer_config}
    tokens = {name: text for name in _TOKENS if (text := _token_text(config.get(name)))}
    published = {"chat_template": templates["default"], "special_tokens": json.dumps(tokens)}
    if "tool_use" in templates:
        published["chat_template_tool_use"] = templates["tool_use"]
    if prefix := _prefix(directory, tokens.get("bos_token", "")):
        published["tokenizer_prefix"] = prefix
    return published


def _templates(directory: Directory) -> dict[str, str]:
    """Templates by their names; one in a file of its own replaces the tokenizer's."""
    templates = _named(directory.tokenizer_config.get("chat_template"))
    if not templates:
        templates = _named(read_json(directory.path / "chat_template.json").get("chat_template"))
    files = {"default": directory.path / "chat_template.jinja"}
    files |= {path.stem: path for path in (directory.path / "additional_chat_templates").glob("*.jinja")}
    for name, path in files.items():
        if path.is_file():
            try:
                templates[name] = path.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise SourceError(f"{path} cannot be read: {error}", "download the file again") from error
    return templates


def _named(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        return {"default": value}
    entries = value if isinstance(value, list) else []
    return {
        str(entry["name"]): str(entry["template"])
        for entry in entries
        if isinstance(entry, Mapping) and {"name", "template"} <= entry.keys()
    }


def _token_text(token: Any) -> str:
    """A token is a text, or an object whose ``content`` it is."""
    return str((token.get("content") if isinstance(token, Mapping) else token) or "")


def _prefix(directory: Directory, bos_token: str) -> str:
    """The token that the tokenizer adds in front.

    ``add_bos_token`` says whether it is the beginning of a sequence; where it is not there, the post-processor of
    tokenizer.json says what it is, and without one Llama's own tokenizer adds it.
    """
    config = directory.tokenizer_config
    if isinstance(adds := config.get("add_bos_token"), bool):
        return bos_token if adds else ""
    processor = read_json(directory.path / "tokenizer.json").get("post_processor") or {}
    for step in (processor, *processor.get("processors", ())):
        if step.get("type") == "TemplateProcessing" and "SpecialToken" in next(iter(step.get("single") or ()), {}):
            return str(step["single"][0]["SpecialToken"]["id"])
    slow = str(config.get("tokenizer_class", "")).startswith("LlamaTokenizer")
    return bos_token if slow and not processor else ""
